"""What is known about a job: the part of a FineTuneJob that the operator, or a local run, writes."""

from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from pydantic import Field, PlainSerializer

from finetune_api.run import EvaluationOutcome, Progress, StoredAdapter
from finetune_api.schema import Model

Phase = Literal[
    "Pending", "Preparing", "Queued", "Training", "Evaluating", "Suspended", "Succeeded", "Rejected", "Failed"
]
"""Rejected: the run is complete and published, and its adapter was not shown to be better."""
PHASES: tuple[Phase, ...] = get_args(Phase)
Outcome = Literal["Succeeded", "Rejected", "Failed"]

Trigger = Literal["Created", "SpecChanged", "Schedule", "DatasetChanged", "Requested"]
ConditionType = Literal["Ready", "Reconciling", "Stalled", "DataPrepared", "Trained", "Evaluated", "Promoted"]

Time = Annotated[
    datetime,
    PlainSerializer(lambda time: f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", return_type=str, when_used="json"),
]
"""A moment in UTC, to the second, as Kubernetes writes it."""


class Condition(Model):
    """One aspect of the job, in the form that all of Kubernetes shares."""

    type: ConditionType
    """Ready, Reconciling and Stalled follow kstatus; the others are the steps of a run."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: str
    """Why, in one word."""
    message: str
    """Why, in one sentence."""
    last_transition_time: Time
    """When the status last changed."""
    observed_generation: int
    """Generation of the manifest that this was said of."""


BY_TYPE = Field(
    max_length=16,
    json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
)


class RunStatus(Model):
    """The run that the status speaks of."""

    id: str | None = None
    """Date and digest, for instance 20261123-3f9a1c2b; known once the data was read."""
    digest: str | None = None
    """sha256 of what decides the result; known once the data was read."""
    data: str | None = None
    """What the preparation found, in one sentence: rows, and the memory that a card must have."""
    attempt: int
    """Number of this attempt at the current stage, from 1."""
    key: str | None = None
    """Names the Jobs and pods of the run."""
    spec_digest: str | None = None
    """sha256 of the part of the manifest that decides the result."""
    trigger: Trigger | None = None
    """What started the run."""
    started_at: Time | None = None
    """When the run began, or went on after it was suspended."""
    finished_at: Time | None = None
    """When the run ended."""
    outcome: Outcome | None = None
    """How the run ended."""
    message: str | None = None
    """How the run ended, in one sentence."""


class FailureStatus(Model):
    """The latest failure of the current run."""

    reason: str
    """What kind of failure, in one word, for instance DataRejected, OutOfMemory, ImagePullFailed."""
    message: str
    """What happened and what to do."""
    exit_code: int | None = None
    """Exit code of the trainer, if it ran."""
    will_retry: bool
    """Whether another attempt follows by itself."""
    retry_at: Time | None = None
    """When it follows."""
    log: list[str] = []
    """The last lines that the trainer logged."""


class CurrentAdapter(Model):
    """The adapter or model in use: of the latest run with verdict Passed."""

    run_id: str
    """Run that made it."""
    uri: str
    """Its folder, called adapter or model."""
    digest: str
    """sha256 of the weights file."""


class PastRun(Model):
    """An earlier run."""

    id: str | None = None
    """Date and digest; missing if the data was never read."""
    trigger: Trigger | None = None
    """What started the run."""
    outcome: Outcome | None = None
    """How it ended; missing if another run took its place before."""
    message: str | None = None
    """How it ended, in one sentence."""
    adapter_uri: str | None = None
    """Its adapter, if one was published."""
    finished_at: Time | None = None
    """When it ended."""


class RetrainStatus(Model):
    """What decides when the job runs again by itself."""

    schedule: str | None = None
    """The schedule, with its time zone, that nextScheduleTime was computed from."""
    next_schedule_time: Time | None = None
    """When the schedule is next due."""
    last_schedule_time: Time | None = None
    """When the schedule was last due, whether it started a run or was skipped."""
    last_check_time: Time | None = None
    """When the data was last looked at."""
    check_message: str | None = None
    """Why the data could not be looked at, if it could not."""
    data_version: str | None = None
    """What the data, and a hub model's branch, were when the latest run read them."""
    handled_request: str | None = None
    """The value of the annotation finetuning.dev/requested-at that was last acted on."""


class FineTuneJobStatus(Model):
    """What is known about the job."""

    observed_generation: int | None = None
    """Generation of the manifest that the status speaks of."""
    phase: Phase | None = None
    """Where the current run stands. Rejected: complete and published, but the adapter was not shown to be better."""
    message: str | None = None
    """The phase in one sentence: what happened and what to do."""
    conditions: Annotated[list[Condition], BY_TYPE] = []
    """Ready, Reconciling and Stalled as kstatus reads them, and the steps of a run."""
    run: RunStatus | None = None
    """The current run."""
    progress: Progress | None = None
    """How far the current stage is."""
    failure: FailureStatus | None = None
    """The latest failure of the current run."""
    adapter: StoredAdapter | None = None
    """The adapter of the current run, once published."""
    evaluation: EvaluationOutcome | None = None
    """Base against adapter on the held-out test rows."""
    current: CurrentAdapter | None = None
    """The adapter in use. It stays while later runs go on, and when they fail."""
    retrain: RetrainStatus | None = None
    """What decides when the job runs again by itself."""
    history: list[PastRun] = []
    """Earlier runs, the latest first."""
