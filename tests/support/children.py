"""Jobs and pods in memory, by the rules of the Job controller and the garbage collector."""

from copy import deepcopy
from datetime import datetime, timedelta

from support.objects import JobObject, Object, PodObject, ServiceObject, at, make_pod


class Children:
    """What an API server holds of one job's children."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobObject] = {}
        self.pods: dict[str, PodObject] = {}
        self.services: dict[str, ServiceObject] = {}
        self.made: list[str] = []
        """Names of all Jobs ever made."""
        self._pods_made = self._services_made = 0

    @property
    def active(self) -> JobObject | None:
        """The one Job of a stage that has not ended, if there is one."""
        return next((job for job in self.jobs.values() if not job.view().ended and job.view().stage != "check"), None)

    @property
    def checking(self) -> JobObject | None:
        """The Job that looks at the data, if there is one."""
        return next((job for job in self.jobs.values() if not job.view().ended and job.view().stage == "check"), None)

    def create(self, raw: Object, now: datetime) -> None:
        """A Job is created; one of its name may be there already, which the API server answers with 409."""
        name = raw["metadata"]["name"]
        if name not in self.jobs:
            made = deepcopy(raw)
            made["metadata"] |= {"uid": f"uid-{len(self.made)}", "creationTimestamp": at(now)}
            self.jobs[name] = JobObject(made)
            self.made.append(name)

    def create_service(self, raw: Object) -> None:
        """A Service is created, unless one of its name is there already."""
        name = raw["metadata"]["name"]
        if name not in self.services:
            made = deepcopy(raw)
            self._services_made += 1
            made["metadata"]["uid"] = f"uid-of-service-{self._services_made}"
            self.services[name] = ServiceObject(made)

    def delete(self, name: str, now: datetime) -> None:
        """A Job is deleted in the background: itself at once, its pods as soon as they have stopped."""
        self.jobs.pop(name, None)
        self.stop_pods_of(name, now)

    def stop_pods_of(self, name: str, now: datetime, ended: bool = True) -> None:
        """The pods of a Job are told to stop. Those that never ran are gone at once; with `ended`, those that did."""
        for pod in self.pods_of(name):
            view = pod.view()
            if view.running:
                pod.deleted(now)
            elif ended or not view.over:
                del self.pods[view.name]

    def make_pods(self, now: datetime) -> bool:
        """Every Job that goes on gets its pods, one for each index. Returns whether any was made."""
        lacking = [(job, index) for job in self.jobs.values() if _goes_on(job) for index in self._vacancies(job)]
        for job, index in lacking:
            self._pods_made += 1
            pod = make_pod(job, self._pods_made, now, index)
            self.pods[pod.view().name] = pod
        return bool(lacking)

    def _vacancies(self, job: JobObject) -> set[int]:
        """Indices that have no pod and have not succeeded either."""
        views = [pod.view() for pod in self.pods_of(job.view().name)]
        return set(range(job.view().nodes)) - {pod.index for pod in views if not pod.over or pod.exit_code == 0}

    def pods_of(self, name: str) -> list[PodObject]:
        """The pods of a Job."""
        return [pod for pod in self.pods.values() if pod.raw["metadata"]["ownerReferences"][0]["name"] == name]

    def live(self, name: str) -> list[PodObject]:
        """Those of them that may still write."""
        return [pod for pod in self.pods_of(name) if not pod.view().over]

    def conclude(self, job: JobObject, pod: PodObject, now: datetime) -> None:
        """What becomes of a Job when a pod of it ends: disruptions and exit 143 are ignored, and the pod replaced.

        The first of several pods decides when all is done; any can fail. Either way the others are told to stop.
        """
        view = pod.view()
        ignored = view.disrupted or view.exit_code == 143 or (view.exit_code == 0 and view.index)
        if ignored:
            return
        if view.exit_code == 0:
            job.complete(now)
        else:
            job.failed(now)
        self.stop_pods_of(job.view().name, now, ended=False)

    def end_late_jobs(self, now: datetime) -> None:
        """Jobs that reached their activeDeadlineSeconds fail, and their pods are removed."""
        for name, job in self.jobs.items():
            seconds, view = job.raw["spec"].get("activeDeadlineSeconds"), job.view()
            late = seconds is not None and now >= view.created + timedelta(seconds=seconds)
            if late and _goes_on(job):
                self.remove_pods(name)
                job.failed(now, "DeadlineExceeded")

    def remove_pods(self, name: str) -> None:
        """The pods of a Job are gone."""
        for pod in self.pods_of(name):
            del self.pods[pod.view().name]

    def remove_stopped_pods(self) -> None:
        """Pods that were told to stop have done so, and are gone."""
        for name, pod in list(self.pods.items()):
            if pod.view().deleted:
                del self.pods[name]


def _goes_on(job: JobObject) -> bool:
    view = job.view()
    return not (view.ended or view.suspended)
