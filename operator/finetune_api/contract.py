"""What operator, trainer pods and command line agree on: variables, paths, ports, labels."""

from typing import Final

from finetune_api.job import GROUP

JOB_VARIABLE: Final = "FINETUNE_JOB"
"""Environment variable that holds the manifest of the job as JSON."""
CACHE_VARIABLE: Final = "FINETUNE_CACHE"
"""Environment variable that names the folder for downloads."""
CLAIMS_VARIABLE: Final = "FINETUNE_PVC_ROOT"
"""Environment variable that names the folder below which claims of pvc:// are mounted."""
LAST_WORD_VARIABLE: Final = "FINETUNE_LAST_WORD"
"""Environment variable that names the file for the RunReport; unset, it is printed."""
NODES_VARIABLE: Final = "FINETUNE_NODES"
"""Environment variable of training pods: how many of them train together."""
PROCESSES_VARIABLE: Final = "FINETUNE_PROCESSES"
"""Environment variable of training pods: how many processes each starts, one for an accelerator, else just one."""
LEADER_VARIABLE: Final = "FINETUNE_LEADER"
"""Environment variable of training pods that train together: host name of the one with index 0."""
RENDEZVOUS_VARIABLE: Final = "FINETUNE_RENDEZVOUS_PORT"
"""Environment variable of training pods: the port of the leader at which all processes meet."""
INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
"""Environment variable that Kubernetes itself gives to each of several pods: its index, from 0."""

CACHE_PATH: Final = "/cache"
CLAIMS_PATH: Final = "/mnt/pvc"
LAST_WORD_PATH: Final = "/dev/termination-log"
LAST_WORD_BYTES: Final = 4096
"""What Kubernetes keeps of a termination message."""

TRAINER_PORT: Final = 8080
"""Where a trainer serves /progress, /metrics and /healthz."""
PROGRESS_PATH: Final = "/progress"
RENDEZVOUS_PORT: Final = 29400

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "finetune-operator"
JOB_LABEL: Final = f"{GROUP}/job"
"""Name of the FineTuneJob."""
RUN_LABEL: Final = f"{GROUP}/run"
"""Key of the run within the job: eight hex digits."""
STAGE_LABEL: Final = f"{GROUP}/stage"
"""prepare, train or check."""
ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
"""Number of the attempt at the stage, from 1."""
NODES_LABEL: Final = f"{GROUP}/nodes"
"""Of pods that train together: how many they are. Network policies let them reach each other by it."""
INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
"""Kubernetes' own, on each of several pods of a Job: its index, from 0."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
TEMPLATE_ANNOTATION: Final = f"{GROUP}/template"
"""Digest of what a Job's pods were to look like when it was made."""
REQUEST_ANNOTATION: Final = f"{GROUP}/requested-at"
"""A new value asks for one more run of the same manifest; a finished run of the same data is not repeated."""
