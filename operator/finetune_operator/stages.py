"""One unfinished run: start its stage, follow it, try it again, or end it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finetune_api.run import Progress, RunReport
from finetune_api.status import CurrentAdapter, FailureStatus, Phase, RunStatus
from finetune_operator.diagnosis import OUT_OF_MEMORY, Failure, explain_failure, find_hindrance
from finetune_operator.observed import Observed, StageJob, StageName, StagePod, Subject, report_of
from finetune_operator.settings import Settings
from finetune_operator.status import Situation
from finetune_operator.workloads import StageOrder

LONGEST_WAIT = timedelta(minutes=10)
LOOK_AGAIN = timedelta(seconds=15)
"""How soon a stage without a running pod is looked at again: quotas and missing volumes only show in events."""
FEWEST_TOKENS = 128
STARTING = {"prepare": "Waiting for the pod that prepares the data.", "train": "Waiting for the pod that trains."}


@dataclass(frozen=True)
class Step:
    """Where the run stands, and what follows from it."""

    situation: Situation
    delete: Sequence[StageJob] = ()
    create: Sequence[StageOrder] = ()
    wake_at: datetime | None = None


def pursue(seen: Observed, run: RunStatus, settings: Settings, now: datetime) -> Step:
    """What follows for an unfinished run from what its preparation said, and from how its stage stands."""
    run, last_word = hear_preparation(seen, run)
    if last_word is None:
        return attend(seen, run, settings, now)
    if last_word.stage == "publish":
        return finish(run, last_word, now)
    step = attend(seen, run, settings, now)
    return replace(step, situation=replace(step.situation, data_version=last_word.data_version))


def attend(seen: Observed, run: RunStatus, settings: Settings, now: datetime) -> Step:
    """Start the stage of a run, follow it, try it again, or end it."""
    stage = stage_of(seen.subject, run)
    attempts = [job for job in seen.jobs if job.run == run.key and job.stage == stage]
    job = max(attempts, key=lambda job: job.attempt, default=None)
    pods = [pod for pod in seen.pods if job and pod.run == run.key and (pod.stage, pod.attempt) == (stage, job.attempt)]
    if out_of_time(seen.subject, run, now):
        late = Failure("DeadlineExceeded", "The run took longer than spec.activeDeadlineSeconds.", passing=False)
        return give_up(run, late, attempts, now)
    if job is None or job.attempt < run.attempt:
        return launch(seen, run, stage, attempts, now)
    run = run.model_copy(update={"attempt": job.attempt})
    if job.ended is None:
        return follow(seen, run, job, pods, settings, now)
    report = last_report(pods) if job.ended == "Complete" else None
    if report is not None:
        return finish(run, report, now)
    failure = explain_failure(seen.subject.job.spec, job, pods)
    return recover(seen, run, failure, job, attempts, settings, now)


def hear_preparation(seen: Observed, run: RunStatus) -> tuple[RunStatus, RunReport | None]:
    """The run with the name that its preparation gave it, and the preparation's last word."""
    if run.id is not None:
        return run, None
    complete = [job for job in seen.jobs if job.run == run.key and job.stage == "prepare" and job.ended == "Complete"]
    pods = [pod for pod in seen.pods if pod.run == run.key and pod.stage == "prepare"]
    report = last_report(pods) if complete else None
    if report is None:
        return run, None
    return run.model_copy(update={"id": report.run_id, "digest": report.digest, "attempt": 1}), report


def last_report(pods: Sequence[StagePod]) -> RunReport | None:
    """What the pod that succeeded last said."""
    done = [pod for pod in pods if pod.exit_code == 0]
    return report_of(max(done, key=lambda pod: pod.created)) if done else None


def stage_of(subject: Subject, run: RunStatus) -> StageName:
    """The stage that an unfinished run is in."""
    return "prepare" if run.id is None and subject.job.spec.resources.prepare.separate else "train"


def out_of_time(subject: Subject, run: RunStatus, now: datetime) -> bool:
    """Whether the run has used up its time."""
    deadline = deadline_of(subject, run)
    return deadline is not None and now >= deadline


def deadline_of(subject: Subject, run: RunStatus) -> datetime | None:
    """When the run must have ended."""
    seconds = subject.job.spec.active_deadline_seconds
    return None if seconds is None or run.started_at is None else run.started_at + timedelta(seconds=seconds)


def launch(seen: Observed, run: RunStatus, stage: StageName, failed: Sequence[StageJob], now: datetime) -> Step:
    """Start an attempt, once no pod of an earlier one can write any more."""
    situation = Situation("Pending", "Starting", STARTING[stage], run, failure=latest(seen, run))
    if any(pod.run == run.key and pod.stage != "check" and not pod.over for pod in seen.pods):
        waiting = replace(situation, message="The pod of the attempt before is still stopping.")
        return Step(waiting, wake_at=now + LOOK_AGAIN)
    deadline = deadline_of(seen.subject, run)
    order = StageOrder(
        run=str(run.key),
        stage=stage,
        attempt=run.attempt,
        run_id=run.id,
        digest=run.digest,
        micro_batch_tokens=fewer_tokens(seen, failed),
        deadline_seconds=None if deadline is None else max(1, int((deadline - now).total_seconds())),
    )
    return Step(situation, create=[order], wake_at=now + LOOK_AGAIN)


def fewer_tokens(seen: Observed, failed: Sequence[StageJob]) -> int | None:
    """Tokens of a forward pass, halved for each attempt that ran out of memory; None for the manifest's."""
    spec = seen.subject.job.spec
    times = sum(
        explain_failure(spec, job, pods_of(seen, job)).reason in OUT_OF_MEMORY
        for job in failed
        if job.stage == "train" and job.ended == "Failed"
    )
    return max(FEWEST_TOKENS, spec.training.micro_batch_tokens >> times) if times else None


def pods_of(seen: Observed, job: StageJob) -> list[StagePod]:
    """The pods of one attempt."""
    return [pod for pod in seen.pods if (pod.run, pod.stage, pod.attempt) == (job.run, job.stage, job.attempt)]


def latest(seen: Observed, run: RunStatus) -> FailureStatus | None:
    """The failure to go on showing while the run goes on."""
    status = seen.subject.status
    return status.failure if status.run and status.run.key == run.key else None


def follow(
    seen: Observed, run: RunStatus, job: StageJob, pods: Sequence[StagePod], settings: Settings, now: datetime
) -> Step:
    """A stage that has neither succeeded nor failed yet."""
    failure, pod = latest(seen, run), max(pods, key=lambda pod: pod.created, default=None)
    if job.suspended:
        return Step(_held(seen, run, failure))
    if pod is not None and (pod.running or pod.over):
        progress = seen.progress or (seen.subject.status.progress if pod.over or job.attempt == run.attempt else None)
        phase = phase_of(job.stage, progress)
        situation = Situation(phase, phase, describe(phase, progress), run, progress=progress, failure=failure)
        return Step(situation, wake_at=now + timedelta(seconds=settings.progress_seconds) if pod.running else None)
    hindrance = find_hindrance(pod, seen.complaint)
    if hindrance is None:
        return Step(
            Situation("Pending", "Starting", STARTING[job.stage], run, failure=failure), wake_at=now + LOOK_AGAIN
        )
    return Step(
        Situation("Pending", hindrance.reason, hindrance.message, run, stalled=hindrance.needs_person, failure=failure),
        wake_at=now + LOOK_AGAIN,
    )


def _held(seen: Observed, run: RunStatus, failure: FailureStatus | None) -> Situation:
    queue = seen.subject.job.spec.queue_name
    if queue is not None:
        return Situation("Queued", "Queued", f"Waiting for queue {queue} to admit the Job.", run, failure=failure)
    message = "The Job was suspended by somebody else; it goes on when that is undone."
    return Situation(
        "Suspended", "SuspendedOutside", message, run, progress=seen.subject.status.progress, failure=failure
    )


def phase_of(stage: StageName, progress: Progress | None) -> Phase:
    """The phase of a stage whose pod runs."""
    if progress is None:
        return "Preparing" if stage == "prepare" else "Training"
    return {"prepare": "Preparing", "train": "Training", "evaluate": "Evaluating", "publish": "Evaluating"}[
        progress.stage
    ]  # type: ignore[return-value]


def describe(phase: Phase, progress: Progress | None) -> str:
    """A running stage in a few words. Numbers that change all the time stand in status.progress."""
    doing = {"Preparing": "Preparing the data", "Training": "Training", "Evaluating": "Comparing base and adapter"}[
        phase
    ]
    return f"{doing}: {progress.message}." if progress and progress.message else f"{doing}."


def recover(
    seen: Observed, run: RunStatus, failure: Failure, job: StageJob, attempts: Sequence[StageJob],
    settings: Settings, now: datetime,
) -> Step:  # fmt: skip
    """After a failure: another attempt when it may help and there are any left, else the end."""
    failures = sum(job.ended is not None for job in attempts)
    if not failure.passing or failures > seen.subject.job.spec.retries:
        return give_up(run, failure, attempts, now)
    wait = min(timedelta(seconds=settings.retry_base_seconds * 2 ** (failures - 1)), LONGEST_WAIT)
    retry_at = (job.ended_at or now) + wait
    noted = failure_status(failure, retry_at)
    if now < retry_at:
        message = f"{failure.message} Attempt {job.attempt + 1} follows."
        return Step(Situation("Pending", failure.reason, message, run, failure=noted), wake_at=retry_at)
    step = launch(seen, run.model_copy(update={"attempt": job.attempt + 1}), job.stage, attempts, now)
    return replace(step, situation=replace(step.situation, failure=noted))


def give_up(run: RunStatus, failure: Failure, attempts: Sequence[StageJob], now: datetime) -> Step:
    """The run has failed for good."""
    ended = run.model_copy(update={"finished_at": now, "outcome": "Failed", "message": failure.message})
    situation = Situation(
        "Failed", failure.reason, failure.message, ended, stalled=True, failure=failure_status(failure, None)
    )
    return Step(situation, delete=[job for job in attempts if job.ended is None])


def failure_status(failure: Failure, retry_at: datetime | None) -> FailureStatus:
    """A failure as the status shows it."""
    return FailureStatus(
        reason=failure.reason,
        message=failure.message,
        exit_code=failure.exit_code,
        will_retry=retry_at is not None,
        retry_at=retry_at,
        log=list(failure.log),
    )


def finish(run: RunStatus, report: RunReport, now: datetime) -> Step:
    """The run is complete and published; whether its adapter is now in use depends on the verdict."""
    passed = report.evaluation is not None and report.evaluation.verdict == "Passed"
    outcome: Phase = "Succeeded" if passed else "Rejected"
    ended = run.model_copy(
        update={
            "id": report.run_id, "digest": report.digest, "finished_at": now, "outcome": outcome,
            "message": report.message,
        }
    )  # fmt: skip
    adapter = report.adapter
    current = (
        CurrentAdapter(run_id=report.run_id, uri=adapter.uri, digest=adapter.digest) if passed and adapter else None
    )
    return Step(
        Situation(
            outcome, outcome, report.message, ended, stalled=not passed, adapter=adapter, evaluation=report.evaluation,
            current=current, data_version=report.data_version,
        )
    )  # fmt: skip
