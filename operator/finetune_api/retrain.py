"""When a job runs again by itself."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.schema import CRON_PATTERN, PRODUCT, TIME_ZONE_PATTERN, Model

ConcurrencyPolicy = Literal["Forbid", "Replace"]


class RetrainSpec(Model):
    """What starts a run besides a change of the manifest. A run that would repeat a finished one never takes a GPU."""

    schedule: Annotated[str | None, Field(pattern=CRON_PATTERN, max_length=128)] = None
    """Cron expression of five fields, for instance "0 3 * * 0" for Sundays at three."""
    time_zone: Annotated[str, Field(pattern=TIME_ZONE_PATTERN, max_length=64), PRODUCT] = "UTC"
    """Time zone of the schedule, for instance Europe/Berlin."""
    on_dataset_change: Annotated[bool, PRODUCT] = False
    """Whether new data, or a new commit on the branch of a hub model, starts a run."""
    check_interval_seconds: Annotated[int, Field(ge=10, le=604800), PRODUCT] = 3600
    """How often the data is looked at: names, sizes and tags are compared, nothing is downloaded."""
    concurrency_policy: Annotated[ConcurrencyPolicy, PRODUCT] = "Forbid"
    """While a run is active: Forbid lets it finish and forgets the start that was due, Replace stops it."""
