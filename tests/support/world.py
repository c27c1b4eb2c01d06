"""One FineTuneJob, its children and a clock, in memory: whole lives in milliseconds.

The operator's part is the real one: views, decisions and manifests. The test plays the user, the Job controller, the
kubelet and the trainer. After every look the rules that hold in any life are checked (see `laws`).
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from finetune_api.identity import canonical, spec_digest
from finetune_api.problems import parse_job
from finetune_api.run import ExitCode, Progress, RunReport, Verdict
from finetune_api.status import FineTuneJobStatus
from finetune_operator.announcements import Announcement, announce
from finetune_operator.decision import Plan, decide
from finetune_operator.observed import Observed, StageService, Subject, view_subject
from finetune_operator.rendezvous import build_service
from finetune_operator.settings import Settings
from finetune_operator.status import status_patch
from finetune_operator.workloads import build_job
from support.children import Children
from support.laws import Look, check_look
from support.objects import (
    SETTINGS,
    START,
    JobObject,
    Object,
    PodObject,
    make_object,
    prepared_report,
    published_report,
)

MOST_LOOKS = 6
"""After so many looks without any news, nothing may be left to do."""
REQUEST = "finetuning.dev/requested-at"


class World:
    """A life of one job."""

    def __init__(self, settings: Settings = SETTINGS, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        self.settings, self.now = settings, START
        self.raw: Object = make_object(annotations=annotations, **spec)
        self.children = Children()
        self.told: list[Announcement] = []
        self.writes = 0
        self.wake_at: datetime | None = None
        self.data = "v1"
        self.store: dict[str, RunReport] = {}
        """Finished runs by name."""
        self.progress: Progress | None = None
        self.complaint = ""

    # The operator.

    @property
    def subject(self) -> Subject:
        return view_subject(self.raw)

    @property
    def status(self) -> FineTuneJobStatus:
        return self.subject.status

    @property
    def phase(self) -> str:
        return str(self.status.phase)

    @property
    def made(self) -> list[str]:
        """Stage and attempt of every Job ever made, for instance prepare-1."""
        return ["-".join(name.rsplit("-", 2)[1:]) for name in self.children.made]

    def observe(self) -> Observed:
        jobs = [job.view() for job in self.children.jobs.values()]
        pods = [pod.view() for pod in self.children.pods.values()]
        services = [service.view() for service in self.children.services.values()]
        return Observed(self.subject, jobs, pods, services, self.progress, self.complaint)

    def look(self, lose_status: bool = False) -> bool:
        """One turn of the operator, which may die before it writes. Returns whether it looks again at once."""
        seen = self.observe()
        plan = decide(seen, self.settings, self.now)
        check_look(Look(seen, plan, self.settings, self.now))
        self._execute(seen.subject, plan)
        if not lose_status:
            self._write(seen, plan)
        self.wake_at = plan.wake_at
        return bool(plan.delete) or plan.wake_at == self.now

    def _execute(self, subject: Subject, plan: Plan) -> None:
        for child in plan.delete:
            if isinstance(child, StageService):
                del self.children.services[child.name]
            else:
                self.children.delete(child.name, self.now)
        for order in (*plan.let_meet, *plan.create):
            if order.stage == "train" and (order in plan.let_meet or subject.job.spec.resources.nodes > 1):
                self.children.create_service(build_service(subject, order))
        for order in plan.create:
            self.children.create(build_job(subject, order, self.settings), self.now)

    def _write(self, seen: Observed, plan: Plan) -> None:
        after = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if status_patch(self.raw.get("status", {}), after):
            self.raw["status"] = after
            self.writes += 1
            self.told += announce(seen.subject.status, plan.status)

    def settle(self) -> None:
        """Look as long as there is news; the Job controller makes the pods of new Jobs meanwhile."""
        for _ in range(MOST_LOOKS):
            if not self.look() and not self.children.make_pods(self.now):
                return
        raise AssertionError(f"no rest after {MOST_LOOKS} looks: {self.status.model_dump_json(exclude_none=True)}")

    def pass_time(self, **parts: float) -> None:
        """Let time go by; look whenever the operator wanted to, and once at the end."""
        until = self.now + timedelta(**parts)
        self.settle()
        while self.wake_at is not None and self.wake_at <= until:
            self._go_to(self.wake_at)
        self._go_to(until)

    def sleep_through(self, **parts: float) -> None:
        """Let time go by in which no operator runs."""
        self._go_to(self.now + timedelta(**parts))

    def _go_to(self, moment: datetime) -> None:
        self.now = moment
        self.children.end_late_jobs(moment)
        self.settle()

    # The user.

    def edit(self, **spec: Any) -> None:
        """Change fields of the spec; None takes one away."""
        changed = {name: value for name, value in {**self.raw["spec"], **spec}.items() if value is not None}
        parse_job({**self.raw, "spec": changed, "status": None})
        if changed != self.raw["spec"]:
            self.raw["spec"] = changed
            self.raw["metadata"]["generation"] += 1

    def request(self, value: str) -> None:
        """Ask for one more run."""
        self.raw["metadata"]["annotations"][REQUEST] = value

    def lose_status(self) -> None:
        """A backup was restored without the status."""
        self.raw.pop("status", None)

    def suspend_outside(self, value: bool = True) -> None:
        """Kueue, or a person, suspends the active Job, or lets it go on."""
        job = self.active.suspended(value)
        if value:
            self.children.remove_pods(job.view().name)
        self.settle()

    # The kubelet and the trainer.

    @property
    def active(self) -> JobObject:
        """The one Job of a stage that goes on."""
        assert self.children.active is not None, self.status
        return self.children.active

    @property
    def pods(self) -> list[PodObject]:
        """Its pods that have not ended, by index."""
        self.children.make_pods(self.now)
        return sorted(self.children.live(self.active.view().name), key=lambda pod: pod.view().index)

    @property
    def pod(self) -> PodObject:
        """The first of them: mostly there is no other."""
        first, *others = self.pods
        assert (first.view().index, len(others)) == (0, self.active.view().nodes - 1)
        return first

    def run_pod(self, progress: Progress | None = None) -> None:
        """The pod gets a node and runs; all do, if there are several."""
        for pod in self.pods:
            if not pod.view().running:
                pod.scheduled().running(self.now)
        self.progress = progress
        self.settle()

    def end_pod(
        self, report: RunReport | None = None, code: int = 1, message: str = "", reason: str = "", index: int = 0
    ) -> None:
        """The container of a pod ends, with or without a last word."""
        pod, job = self.pods[index], self.active
        if report:
            pod.reported(report, self.now)
        else:
            pod.ended(code, message, reason, self.now)
        self._conclude(job, pod)

    def evict_pod(self, message: str = "Preempted in order to admit a critical pod", index: int = 0) -> None:
        """A pod is taken away; it saved its work if it was running. Others that ran with it stop, too."""
        pods, job = self.pods, self.active
        pods[index].disrupted("PreemptionByScheduler", message)
        for pod in pods:
            if pod.view().running:
                pod.ended(143, time=self.now)
            elif pod is pods[index]:
                pod.failed("", "")
        self._conclude(job, pods[index])

    def stop_pods(self) -> None:
        """Pods that were told to stop have done so, and are gone."""
        self.children.remove_stopped_pods()
        self.settle()

    def finish_stage(self, verdict: Verdict = "Passed") -> None:
        """The active stage runs and ends well; what is told to stop then does so."""
        self.active.suspended(False)
        self.run_pod(self.progress)
        self.end_pod(self.speak(self.active, verdict))
        self.stop_pods()

    def finish_run(self, verdict: Verdict = "Passed") -> None:
        """The run goes on to its end."""
        self.settle()
        self.stop_pods()
        while self.children.active is not None:
            self.finish_stage(verdict)

    def finish_check(self, code: int | None = None) -> None:
        """The look at the data ends; with an exit code it failed."""
        job = self.children.checking
        assert job is not None, self.status
        self.children.make_pods(self.now)
        (pod,) = self.children.live(job.view().name)
        pod.scheduled().running(self.now)
        if code is None:
            report = RunReport(exit_code=ExitCode.DONE, stage="prepare", message="Seen.", data_version=self.data)
            pod.reported(report, self.now)
        else:
            pod.ended(code, time=self.now)
        self._conclude(job, pod)

    def speak(self, job: JobObject, verdict: Verdict = "Passed") -> RunReport:
        """The last word of a trainer that did what its Job says: a finished run is found, not repeated."""
        run_id, digest = self.identity
        arguments = job.raw["spec"]["template"]["spec"]["containers"][0]["args"]
        if "--run-id" in arguments:
            run_id, digest = (arguments[arguments.index(flag) + 1] for flag in ("--run-id", "--digest"))
        if run_id in self.store:
            return self.store[run_id]
        if job.view().stage == "prepare":
            return prepared_report(run_id, digest, self.data)
        self.store[run_id] = published_report(run_id, digest, verdict, self.data)
        return self.store[run_id]

    @property
    def identity(self) -> tuple[str, str]:
        """Name and digest of the run that manifest and data stand for."""
        text = canonical([spec_digest(self.subject.job.spec), self.data])
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        return f"20261123-{digest[7:15]}", digest

    def _conclude(self, job: JobObject, pod: PodObject) -> None:
        self.progress = None
        self.children.conclude(job, pod, self.now)
        self.settle()
