"""One fine-tuning run: data, training, evaluation, publishing. Start reading at recipe.py.

Knows no Kubernetes. torch is imported by the modules that compute, never by those that read data or write reports.
"""
