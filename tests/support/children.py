"""Jobs and pods in memory, by the rules of the Job controller and the garbage collector."""

from copy import deepcopy
from datetime import datetime, timedelta

from support.objects import JobObject, Object, PodObject, at, make_pod


class Children:
    """What an API server holds of one job's children."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobObject] = {}
        self.pods: dict[str, PodObject] = {}
        self.made: list[str] = []
        """Names of all Jobs ever made."""
        self._pods_made = 0

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

    def delete(self, name: str, now: datetime) -> None:
        """A Job is deleted in the background: itself at once, its pods as soon as they have stopped."""
        self.jobs.pop(name, None)
        for pod in self.pods_of(name):
            if pod.view().running:
                pod.deleted(now)
            else:
                del self.pods[pod.view().name]

    def make_pods(self, now: datetime) -> bool:
        """Every Job that goes on gets a pod. Returns whether any was made."""
        lacking = [job for name, job in self.jobs.items() if _goes_on(job) and not self.live(name)]
        for job in lacking:
            self._pods_made += 1
            pod = make_pod(job, self._pods_made, now)
            self.pods[pod.view().name] = pod
        return bool(lacking)

    def pods_of(self, name: str) -> list[PodObject]:
        """The pods of a Job."""
        return [pod for pod in self.pods.values() if pod.raw["metadata"]["ownerReferences"][0]["name"] == name]

    def live(self, name: str) -> list[PodObject]:
        """Those of them that may still write."""
        return [pod for pod in self.pods_of(name) if not pod.view().over]

    def conclude(self, job: JobObject, pod: PodObject, now: datetime) -> None:
        """What becomes of a Job when its pod ends: disruptions and exit 143 are ignored, and the pod replaced."""
        view = pod.view()
        if view.exit_code == 0:
            job.complete(now)
        elif view.exit_code != 143 and not view.disrupted:
            job.failed(now)

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
