"""Prometheus metrics of the operator. Gauges are read off the live state when asked for, so that they cannot drift."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.status import PHASES, FineTuneJobStatus, Outcome, Phase, Trigger
from finetune_operator.observed import Observed, StagePod, Subject

STAGE_SECONDS = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400)
WAIT_SECONDS = (1, 5, 15, 30, 60, 300, 900, 3600, 14400, 86400)
TURN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 30)


@dataclass(frozen=True)
class LiveState:
    """Where gauges are read from."""

    phases: Callable[[], Iterable[tuple[str, Phase]]]
    watch_ages: Callable[[], Mapping[str, float]]
    queue_depth: Callable[[], int]
    leads: Callable[[], bool]


class Telemetry:
    """Counters and histograms of one operator process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, histogram = self._counter, self._histogram
        self._finished = counter("finetune_runs_finished", "Runs that ended.", "result", "trigger")
        self._retries = counter("finetune_retries", "Stages tried again, by the failure before.", "reason")
        self._failures = counter("finetune_failures", "Attempts that failed.", "reason")
        self._checks = counter("finetune_checks", "Looks at whether data changed.", "result")
        self._gpu = counter("finetune_gpu_seconds", "GPU time taken by training pods.", "namespace")
        self._errors = counter("finetune_reconcile_errors", "Looks at a job that broke off.", "kind")
        self._requests = counter("finetune_api_requests", "Requests to the API server.", "verb", "resource", "code")
        self._stages = histogram("finetune_stage_duration_seconds", "Time a stage's pod ran.", STAGE_SECONDS, "stage")
        self._waits = histogram("finetune_queue_wait_seconds", "From training Job to running pod.", WAIT_SECONDS)
        for outcome in get_args(Outcome):  # a counter that appears with its first event hides that event from rate()
            for trigger in get_args(Trigger):
                self._finished.labels(outcome, trigger)
        self.turns = histogram("finetune_reconcile_duration_seconds", "Time of one look at a job.", TURN_SECONDS)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def show(self, state: LiveState) -> None:
        """Add the gauges."""
        self.registry.register(_Gauges(state))

    def render(self) -> bytes:
        """Everything in the text format of Prometheus."""
        return generate_latest(self.registry)

    def count_request(self, verb: str, resource: str, code: int) -> None:
        """One request to the API server; code 0: no answer."""
        self._requests.labels(verb, resource, str(code)).inc()

    def count_error(self, kind: str) -> None:
        """One look at a job that broke off."""
        self._errors.labels(kind).inc()

    def note_turn(self, seen: Observed, after: FineTuneJobStatus) -> None:
        """What one look at a job changed. Called after the status was written, so that nothing counts twice."""
        before = seen.subject.status
        self._note_failure(before, after)
        self._note_check(before, after)
        self._note_training(seen, before, after)
        if after.run and after.run.outcome and not (before.run and before.run.finished_at == after.run.finished_at):
            self._finished.labels(after.run.outcome, after.run.trigger or "Created").inc()
            self._note_pods([pod for pod in seen.pods if pod.run == after.run.key], seen.subject)

    def _note_failure(self, before: FineTuneJobStatus, after: FineTuneJobStatus) -> None:
        if after.failure is not None and after.failure != before.failure:
            self._failures.labels(after.failure.reason).inc()
            if after.failure.will_retry:
                self._retries.labels(after.failure.reason).inc()

    def _note_check(self, before: FineTuneJobStatus, after: FineTuneJobStatus) -> None:
        then, now = before.retrain, after.retrain
        if now is None or now.last_check_time is None or (then and then.last_check_time == now.last_check_time):
            return
        changed = then is not None and then.data_version not in (None, now.data_version)
        self._checks.labels("failed" if now.check_message else "changed" if changed else "unchanged").inc()

    def _note_training(self, seen: Observed, before: FineTuneJobStatus, after: FineTuneJobStatus) -> None:
        training = ("Training", "Evaluating")
        if after.phase not in training or before.phase in training:
            return
        started = [pod.started_at for pod in seen.pods if pod.stage == "train" and pod.running and pod.started_at]
        made = [job.created for job in seen.jobs if job.stage == "train" and job.ended is None]
        if started and made:
            self._waits.observe(max(0.0, (max(started) - max(made)).total_seconds()))

    def _note_pods(self, pods: Sequence[StagePod], subject: Subject) -> None:
        for pod in pods:
            seconds = _seconds(pod)
            if seconds is None or pod.stage == "check":
                continue
            if pod.index == 0:
                self._stages.labels(pod.stage).observe(seconds)
            if pod.stage == "train":
                self._gpu.labels(pod.namespace).inc(seconds * subject.job.spec.resources.gpus)


def _seconds(pod: StagePod) -> float | None:
    if pod.started_at is None or pod.ended_at is None:
        return None
    return (pod.ended_at - pod.started_at).total_seconds()


class _Gauges(Collector):
    def __init__(self, state: LiveState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("finetune_jobs", "FineTuneJobs by phase.", labels=["namespace", "phase"])
        tally = Tally(self._state.phases())
        for namespace in sorted({namespace for namespace, _ in tally}):
            for phase in PHASES:
                jobs.add_metric([namespace, phase], tally[(namespace, phase)])
        yield jobs
        ages = GaugeMetricFamily("finetune_watch_age_seconds", "Since a watch last proved alive.", labels=["resource"])
        for resource, age in self._state.watch_ages().items():
            ages.add_metric([resource], age)
        yield ages
        yield GaugeMetricFamily("finetune_workqueue_depth", "Jobs waiting to be looked at.", self._state.queue_depth())
        yield GaugeMetricFamily("finetune_leader", "Whether this replica leads.", int(self._state.leads()))
