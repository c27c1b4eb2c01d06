"""The words that the operator, the trainer and the command line share, each written down once.

Pydantic models and pure functions only: no input or output, no clock, no environment. CRDs, reference documentation,
the run configuration handed to the trainer and the report it hands back all come from here.
"""
