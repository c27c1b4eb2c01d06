"""The operator: watches FineTuneJobs and runs the trainer in pods. It decides and never trains.

Any event only says which job to look at; `reconcile` observes, `decide` (pure) says what to do, `cluster` does it.
Nothing is kept in memory that a restart would lose. Only `cluster` knows the Kubernetes client, only `__main__` kopf.
"""
