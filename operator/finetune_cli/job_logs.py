"""`logs`: what the trainer said, from the pod of the current stage or of an earlier one."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_cli.cluster import ClusterError, LiveJob, Pod, Target, get_job, get_pods, print_logs

POLL_SECONDS = 2.0
STARTED = ("Running", "Succeeded", "Failed")
"""Phases of pods that have a log."""


@dataclass(frozen=True)
class Choice:
    """Which pod's log; nothing chosen means the latest of the current run."""

    stage: str | None = None
    attempt: int | None = None
    previous: bool = False
    """The attempt before the one that is meant otherwise."""

    @property
    def one(self) -> bool:
        """Whether one pod is meant, rather than whatever runs next."""
        return bool(self.stage or self.attempt or self.previous)


def show_logs(target: Target, name: str, choice: Choice, follow: bool) -> None:
    """Print the log of a pod; follow it, and the run's later pods, until the run has ended. Raises ClusterError."""
    if follow and not choice.one:
        follow_run(target, name)
        return
    live = get_job(target, name)
    pod = choose_pod(get_pods(target, name), live, choice)
    if pod is not None and pod.phase in STARTED:
        tell(f"{pod.name}: stage {pod.stage}, attempt {pod.attempt}")
        print_logs(target, pod.name, follow)
    elif not choice.one and live.status.failure is not None and live.status.failure.log:
        tell("The pod is gone; these are the last lines it logged.")
        print("\n".join(live.status.failure.log))
    else:
        raise ClusterError(explain_silence(live, pod, choice))


def follow_run(target: Target, name: str) -> None:
    """Print the logs of the run's pods one after the other, as they come, until the run has ended."""
    followed: set[str] = set()
    told = ""
    while True:
        live = get_job(target, name)
        pod = choose_pod(get_pods(target, name), live, Choice())
        if pod is not None and pod.name not in followed and pod.phase in STARTED:
            followed.add(pod.name)
            tell(f"{pod.name}: stage {pod.stage}, attempt {pod.attempt}")
            print_logs(target, pod.name, follow=True)
            continue
        if has_ended(live):
            tell(live.standing)
            return
        if live.standing != told:
            tell(live.standing)
        told = live.standing
        time.sleep(POLL_SECONDS)


def choose_pod(pods: Sequence[Pod], live: LiveJob, choice: Choice) -> Pod | None:
    """The pod that is meant, of those of the job, the oldest first."""
    run = live.status.run
    if run is None:
        return None
    found = [pod for pod in pods if pod.run == run.key and pod.stage == (choice.stage or pod.stage) != "check"]
    if choice.attempt is not None:
        found = [pod for pod in found if pod.attempt == choice.attempt]
    if choice.previous and found:
        latest = found[-1]
        found = [pod for pod in found if pod.stage == latest.stage and pod.attempt < latest.attempt]
    return found[-1] if found else None


def has_ended(live: LiveJob) -> bool:
    """Whether the run of the manifest as it is now is over."""
    status = live.status
    over = status.run is not None and status.run.outcome is not None
    return over and status.observed_generation == live.generation


def explain_silence(live: LiveJob, pod: Pod | None, choice: Choice) -> str:
    """Why there is no log."""
    if pod is not None:
        return f"Pod {pod.name} has not started yet. {live.status.message or ''}".rstrip()
    attempt = f" of attempt {choice.attempt}" if choice.attempt else " of an earlier attempt" if choice.previous else ""
    stage = f" of stage {choice.stage}" if choice.stage else ""
    return f"The current run has no pod{stage}{attempt}. The job is {live.standing}"


def tell(words: str) -> None:
    """Words beside the log, which is for standard output alone."""
    print(words, file=sys.stderr, flush=True)
