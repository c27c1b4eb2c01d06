"""One unfinished run: start its stage, follow it, try it again, or end it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finetune_api.layout import FEWEST_TOKENS, MANY_TOKENS
from finetune_api.run import Progress, RunReport
from finetune_api.status import CurrentAdapter, FailureStatus, FineTuneJobStatus, Phase, RunStatus
from finetune_operator.crew import crew_of, pods_of
from finetune_operator.diagnosis import OUT_OF_MEMORY, POD_LOST, Failure, Hindrance, explain_failure, hindrance_of
from finetune_operator.narration import describe, describe_departure, phase_of
from finetune_operator.observed import Observed, StageJob, StageName, StagePod, Subject, last_report
from finetune_operator.orders import StageOrder
from finetune_operator.settings import Settings
from finetune_operator.status import Situation
from finetune_operator.workloads import template_of

LONGEST_WAIT = timedelta(minutes=10)
LOOK_AGAIN = timedelta(seconds=15)
"""How soon a stage without a running pod is looked at again: quotas and missing volumes only show in events."""
"""Of a forward pass; the trainer chooses by the memory of its GPU what the manifest does not ask for."""
LATE = Failure("DeadlineExceeded", "The run took longer than spec.activeDeadlineSeconds.", passing=False)
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
        return finish(run, last_word, None, now)
    step = attend(seen, run, settings, now)
    return replace(step, situation=replace(step.situation, data_version=last_word.data_version))


def attend(seen: Observed, run: RunStatus, settings: Settings, now: datetime) -> Step:
    """Start the stage of a run, follow it, try it again, or end it."""
    stage = stage_of(seen, run)
    attempts = [job for job in seen.jobs if job.run == run.key and job.stage == stage]
    job = max(attempts, key=lambda job: job.attempt, default=None)
    pods = pods_of(seen, job) if job else []
    run = run.model_copy(update={"attempt": max(run.attempt, job.attempt if job else 0)})
    report = last_report(pods) if job and job.ended == "Complete" else None
    if report is not None:
        return finish(run, report, known_of(seen, run).progress, now)
    current = job if job and job.attempt == run.attempt else None
    # Jobs and pods are watched apart: a Job may be seen to end before its pod is.
    if current and current.ended and all(pod.over for pod in pods):
        return recover(seen, run, current, attempts, settings, now)
    if out_of_time(seen.subject, run, now):
        return give_up(run, LATE, attempts, now)
    if current is None:
        return launch(seen, run, stage, tokens_after(seen, job), now)
    return follow(seen, run, current, pods, settings, now)


def hear_preparation(seen: Observed, run: RunStatus) -> tuple[RunStatus, RunReport | None]:
    """The run with the name that its preparation gave it, and the preparation's last word."""
    if run.id is not None:
        return run, None
    complete = [job for job in seen.jobs if job.run == run.key and job.stage == "prepare" and job.ended == "Complete"]
    pods = [pod for pod in seen.pods if pod.run == run.key and pod.stage == "prepare"]
    report = last_report(pods) if complete else None
    if report is None:
        return run, None
    found = report.message if report.stage == "prepare" else None  # what is finished already was not prepared again
    known = {"id": report.run_id, "digest": report.digest, "data": found, "attempt": 1}
    return run.model_copy(update=known), report


def stage_of(seen: Observed, run: RunStatus) -> StageName:
    """The stage that an unfinished run is in. How it began, with or without a pod for the data alone, it goes on."""
    stages = {job.stage for job in seen.jobs if job.run == run.key}
    if run.id is not None or "train" in stages:
        return "train"
    return "prepare" if "prepare" in stages or seen.subject.job.spec.resources.prepare.separate else "train"


def out_of_time(subject: Subject, run: RunStatus, now: datetime) -> bool:
    """Whether the run has used up its time."""
    deadline = deadline_of(subject, run)
    return deadline is not None and now >= deadline


def deadline_of(subject: Subject, run: RunStatus) -> datetime | None:
    """When the run must have ended."""
    seconds = subject.job.spec.active_deadline_seconds
    return None if seconds is None or run.started_at is None else run.started_at + timedelta(seconds=seconds)


def launch(seen: Observed, run: RunStatus, stage: StageName, tokens: int | None, now: datetime) -> Step:
    """Start an attempt, once no earlier pod of the job can write any more."""
    failure, queue = known_of(seen, run).failure, seen.subject.job.spec.queue_name if stage == "train" else None
    starting = Situation("Pending", "Starting", STARTING[stage], run, failure=failure)
    stopping = next((pod for pod in seen.pods if pod.stage != "check" and not pod.over), None)
    if stopping is not None:
        message = f"Pod {stopping.name} on node {stopping.node or 'none'} is still stopping; the next one starts then."
        return Step(replace(starting, message=message), wake_at=now + LOOK_AGAIN)
    deadline = deadline_of(seen.subject, run)
    order = StageOrder(
        run=str(run.key),
        stage=stage,
        attempt=run.attempt,
        run_id=run.id,
        digest=run.digest,
        micro_batch_tokens=tokens,
        deadline_seconds=None if deadline is None else max(1, int((deadline - now).total_seconds())),
    )
    situation = enqueued(queue, run, failure) if queue else starting
    return Step(situation, create=[order], wake_at=now + LOOK_AGAIN)


def tokens_after(seen: Observed, job: StageJob | None) -> int | None:
    """Tokens of a forward pass after an attempt: half of its own if it ran out of memory; None for the manifest's."""
    if job is None or job.stage != "train":
        return None
    if job.ended != "Failed" or failure_of(seen, job).reason not in OUT_OF_MEMORY:
        return job.micro_batch_tokens
    asked = seen.subject.job.spec.training.micro_batch_tokens or MANY_TOKENS
    return max(FEWEST_TOKENS, (job.micro_batch_tokens or asked) // 2)


def failure_of(seen: Observed, job: StageJob) -> Failure:
    """Why an attempt failed; as it was noted then, if its pod has been deleted meanwhile."""
    noted = seen.subject.status.failure
    failure = explain_failure(seen.subject.job.spec, job, pods_of(seen, job))
    if failure.reason != POD_LOST or noted is None or not (noted.retry_at and job.ended_at):
        return failure
    if noted.retry_at <= job.ended_at:  # it speaks of an earlier attempt
        return failure
    return Failure(noted.reason, noted.message, noted.will_retry, noted.exit_code, tuple(noted.log))


def known_of(seen: Observed, run: RunStatus) -> FineTuneJobStatus:
    """What the status says of this run; nothing if it still speaks of another."""
    status = seen.subject.status
    return status if status.run and status.run.key == run.key else FineTuneJobStatus()


def follow(
    seen: Observed, run: RunStatus, job: StageJob, pods: Sequence[StagePod], settings: Settings, now: datetime
) -> Step:
    """A stage that has neither succeeded nor failed yet. Of several pods, the first tells how far it is."""
    failure, crew = known_of(seen, run).failure, crew_of(job, pods)
    speaker, hindrance = crew[0], hindrance_of(crew, seen.complaint)
    if hindrance or speaker is None or not (speaker.running or speaker.over):
        return await_pods(seen, run, job, hindrance, settings, now)
    if job.suspended:
        return Step(_held(seen, run, job, failure))
    progress = seen.progress or known_of(seen, run).progress
    phase = phase_of(job.stage, run.id is not None, progress)
    message = describe_departure(crew) or describe(phase, progress)
    situation = Situation(phase, phase, message, run, progress=progress, failure=failure)
    return Step(situation, wake_at=now + timedelta(seconds=settings.progress_seconds) if speaker.running else None)


def await_pods(
    seen: Observed, run: RunStatus, job: StageJob, hindrance: Hindrance | None, settings: Settings, now: datetime
) -> Step:
    """A stage of which a pod has not run yet. One that a changed manifest would make otherwise is made anew."""
    failure = known_of(seen, run).failure
    if job.template != template_of(seen.subject, again(job, run), settings):
        message = "What the pod is made from changed before it ran; it is made anew."
        return Step(Situation("Pending", "Starting", message, run, failure=failure), delete=[job])
    if job.suspended:
        return Step(_held(seen, run, job, failure))
    if hindrance is None:
        starting = Situation("Pending", "Starting", STARTING[job.stage], run, failure=failure)
        return Step(starting, wake_at=now + LOOK_AGAIN)
    return Step(
        Situation("Pending", hindrance.reason, hindrance.message, run, stalled=hindrance.needs_person, failure=failure),
        wake_at=now + LOOK_AGAIN,
    )


def again(job: StageJob, run: RunStatus) -> StageOrder:
    """The order of an attempt, as it would be given once more."""
    return StageOrder(job.run, job.stage, job.attempt, run.id, run.digest, job.micro_batch_tokens)


def _held(seen: Observed, run: RunStatus, job: StageJob, failure: FailureStatus | None) -> Situation:
    queue = seen.subject.job.spec.queue_name
    if queue is not None and job.stage == "train":
        return enqueued(queue, run, failure)
    message = "The Job was suspended by somebody else; it goes on when that is undone."
    progress = known_of(seen, run).progress
    return Situation("Suspended", "SuspendedOutside", message, run, progress=progress, failure=failure)


def enqueued(queue: str, run: RunStatus, failure: FailureStatus | None) -> Situation:
    """Waiting for Kueue."""
    return Situation("Queued", "Queued", f"Waiting for queue {queue} to admit the Job.", run, failure=failure)


def recover(
    seen: Observed, run: RunStatus, job: StageJob, attempts: Sequence[StageJob], settings: Settings, now: datetime
) -> Step:
    """After a failure: another attempt when it may help and there are any left, else the end."""
    failure = failure_of(seen, job)
    if not failure.passing or job.attempt > seen.subject.job.spec.retries:
        return give_up(run, failure, attempts, now)
    if out_of_time(seen.subject, run, now):
        return give_up(run, LATE, attempts, now)
    retry_at = (job.ended_at or now) + backoff(job.attempt, settings)
    noted = failure_status(failure, retry_at)
    if now < retry_at:
        message = f"{failure.message} Attempt {job.attempt + 1} follows."
        return Step(Situation("Pending", failure.reason, message, run, failure=noted), wake_at=retry_at)
    following = run.model_copy(update={"attempt": job.attempt + 1})
    step = launch(seen, following, job.stage, tokens_after(seen, job), now)
    return replace(step, situation=replace(step.situation, failure=noted))


def backoff(failures: int, settings: Settings) -> timedelta:
    """How long to wait after so many failures."""
    seconds = settings.retry_base_seconds * 2.0 ** (failures - 1)
    return timedelta(seconds=min(seconds, LONGEST_WAIT.total_seconds()))


def give_up(run: RunStatus, failure: Failure, attempts: Sequence[StageJob], now: datetime) -> Step:
    """The run has failed for good."""
    ended = run.model_copy(update={"finished_at": now, "outcome": "Failed", "message": failure.message})
    situation = Situation(
        "Failed", failure.reason, failure.message, ended, stalled=True, failure=failure_status(failure, None),
        data_version=failure.data_version,
    )  # fmt: skip
    return Step(situation, delete=[job for job in attempts if job.ended is None], wake_at=now)


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


def finish(run: RunStatus, report: RunReport, progress: Progress | None, now: datetime) -> Step:
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
            outcome, outcome, report.message, ended, stalled=not passed, progress=progress, adapter=adapter,
            evaluation=report.evaluation, current=current, data_version=report.data_version,
        ),
        wake_at=now,
    )  # fmt: skip
