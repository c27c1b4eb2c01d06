"""current.json: which run's adapter is in use."""

import json

from finetune_api.report import Report
from finetune_trainer.errors import NotFound
from finetune_trainer.store import Store

NAME = "current.json"


def promote(job: Store, report: Report) -> None:
    """Let current.json point to a complete run if its verdict is Passed and no later one is promoted already.

    May be called again at any time: a run that was killed between its manifest and this step is promoted by the next
    look at it.
    """
    outcome = report.outcome
    if outcome.adapter is None or outcome.evaluation is None or outcome.evaluation.verdict != "Passed":
        return
    if promoted_at(job) >= report.created:
        return
    pointer = {"runId": outcome.run_id, "adapter": outcome.adapter.uri, "digest": outcome.adapter.digest}
    job.write(NAME, json.dumps({**pointer, "created": report.created}, indent=1).encode())


def promoted_at(job: Store) -> str:
    """When the current run was published, UTC, ISO 8601; empty if there is none."""
    try:
        created: str = json.loads(job.read(NAME))["created"]
    except NotFound:
        return ""
    return created
