"""current.json: which run's adapter is in use."""

import json
from datetime import datetime

from finetune_api.report import Report
from finetune_trainer.errors import NotFound, StorageError
from finetune_trainer.store import Store

NAME = "current.json"

Pointer = dict[str, str]


def promote(job: Store, report: Report) -> None:
    """Let current.json point to the run that just finished, if its verdict is Passed.

    A run that was overtaken while it finished, by a later one or by a choice of `make_current`, does not move it back.
    Times are whole seconds: of two runs of the same second the one that asks last is in use.
    """
    pointer, current = pointer_to(report), read_pointer(job)
    if pointer is not None and (
        current is None or (_differ(pointer, current) and current.get("created", "") <= report.created)
    ):
        _write(job, pointer, report.created)


def make_current(job: Store, report: Report, now: datetime) -> None:
    """Let current.json point to a finished run because the manifest names it now, if its verdict is Passed.

    Going back to an earlier manifest makes its adapter current again. May be called at any time: a run that was killed
    between its manifest and its promotion is promoted by the next look at it.
    """
    pointer, current = pointer_to(report), read_pointer(job)
    if pointer is not None and (current is None or _differ(pointer, current)):
        _write(job, pointer, now.isoformat(timespec="seconds"))


def pointer_to(report: Report) -> Pointer | None:
    """What current.json says of a run; None unless its verdict is Passed."""
    outcome = report.outcome
    if outcome.adapter is None or outcome.evaluation is None or outcome.evaluation.verdict != "Passed":
        return None
    return {"runId": outcome.run_id, "adapter": outcome.adapter.uri, "digest": outcome.adapter.digest}


def read_pointer(job: Store) -> Pointer | None:
    """What current.json says, `created` being when it was written (UTC, ISO 8601); None if there is none.

    Raises StorageError if it is damaged.
    """
    try:
        pointer: Pointer = dict(json.loads(job.read(NAME)))
    except NotFound:
        return None
    except (ValueError, TypeError) as error:
        raise StorageError(f"{job.uri_of(NAME)} is damaged. Delete it: the next run that passes writes it.") from error
    return pointer


def _differ(pointer: Pointer, current: Pointer) -> bool:
    return not pointer.items() <= current.items()


def _write(job: Store, pointer: Pointer, created: str) -> None:
    job.write(NAME, json.dumps({**pointer, "created": created}, indent=1).encode())
