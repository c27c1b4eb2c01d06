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

CACHE_PATH: Final = "/cache"
CLAIMS_PATH: Final = "/mnt/pvc"
LAST_WORD_PATH: Final = "/dev/termination-log"
LAST_WORD_BYTES: Final = 4096
"""What Kubernetes keeps of a termination message."""

TRAINER_PORT: Final = 8080
"""Where a trainer serves /progress, /metrics and /healthz."""
PROGRESS_PATH: Final = "/progress"

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
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
TEMPLATE_ANNOTATION: Final = f"{GROUP}/template"
"""Digest of what a Job's pods were to look like when it was made."""
REQUEST_ANNOTATION: Final = f"{GROUP}/requested-at"
"""A new value asks for one more run of the same manifest; a finished run of the same data is not repeated."""
