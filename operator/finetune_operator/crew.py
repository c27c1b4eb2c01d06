"""The pods of one attempt: the latest of each index. Mostly there is just one; the first speaks for all. Pure."""

from collections.abc import Sequence

from finetune_api.run import ExitCode
from finetune_operator.observed import Observed, StageJob, StagePod

Crew = Sequence[StagePod | None]
"""By index; None for a pod that is not there yet."""


def pods_of(seen: Observed, job: StageJob) -> list[StagePod]:
    """Every pod that was made for an attempt, those that others have replaced, too."""
    return [pod for pod in seen.pods if pod.key == job.key]


def crew_of(job: StageJob, pods: Sequence[StagePod]) -> Crew:
    """The pods that count now."""
    latest = {pod.index: pod for pod in sorted(pods, key=lambda pod: (not pod.over, pod.created))}
    return [latest.get(index) for index in range(job.nodes)]


def find_doubtful(crew: Crew) -> int | None:
    """Index of the pod whose delay only Events explain: not made yet, or on a node without starting."""
    if None in crew:
        return crew.index(None)
    slow = (pod.index for pod in crew if pod and pod.node and pod.waiting == "ContainerCreating")
    return next(slow, None)


def find_leaving(crew: Crew) -> StagePod | None:
    """A pod that was told to leave its node and still runs; none once one has ended for good: that stops the others."""
    if any(pod and pod.over and pod.exit_code != ExitCode.STOPPED and not pod.disrupted for pod in crew):
        return None
    return next((pod for pod in crew if pod and pod.running and (pod.deleted or pod.disrupted)), None)
