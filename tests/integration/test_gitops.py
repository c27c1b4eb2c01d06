"""What starts a run and what does not, suspending, queues, and what deleting leaves behind."""

import json
from collections.abc import Callable
from pathlib import Path

from cluster.control_plane import ControlPlane
from support.lives import Life, manifest, published, report
from support.operator_process import running_operator
from support.waiting import wait_until

SLOWER = {"training": {"learningRate": 1e-4}}


def writes(requests: list[dict[str, object]]) -> list[dict[str, object]]:
    """Requests that change something, apart from the Lease."""
    return [
        request for request in requests
        if request["verb"] not in ("get", "list", "watch") and request["objectRef"]["resource"] != "leases"  # type: ignore[index]
    ]  # fmt: skip


def test_applying_again_does_nothing(life: Life, requests_of: Callable[[], list[dict[str, object]]]) -> None:
    life.apply(manifest())
    life.succeed()
    wait_until(lambda: "Succeeded" in life.events(), 10)
    before, version = len(writes(requests_of())), life.job()["metadata"]["resourceVersion"]
    assert "unchanged" in life.apply(manifest())
    life.kubectl("label", "finetunejob", "clinic", "team=a")
    wait_until(lambda: life.job()["metadata"]["resourceVersion"] != version, 10)
    life.kubectl("annotate", "finetunejob", "clinic", "note=b")
    life.plane.kubectl("get", "finetunejobs", "--all-namespaces")
    assert life.status()["phase"] == "Succeeded"
    assert writes(requests_of())[before:] == []


def test_what_does_not_decide_the_result_never_retrains(life: Life) -> None:
    life.apply(manifest())
    finished = life.succeed()
    life.apply(manifest(retries=5, activeDeadlineSeconds=600, resources={"gpus": 2}, historyLimit=1))
    wait_until(lambda: life.status()["observedGeneration"] == 2, 10, life.status)
    status = life.status()
    assert status["run"] == finished["run"]
    assert life.condition("Ready")["status"] == "True"
    assert len(life.objects("jobs")) == 2


def test_a_new_run_leaves_the_old_adapter_current_until_it_passes(life: Life) -> None:
    life.apply(manifest())
    first = life.succeed()
    life.apply(manifest(**SLOWER))
    second = "20261124-bbbbbbbb"
    wait_until(lambda: life.status()["run"]["trigger"] == "SpecChanged", 10)
    key = life.status()["run"]["key"]
    life.pass_stage("prepare", report("prepare", runId=second), run=key)
    train = life.wait_for_pod("train", run=key)
    life.run(train)
    status = life.wait_for_phase("Training")
    assert status["current"]["runId"] == first["run"]["id"]
    assert status["history"][0]["id"] == first["run"]["id"]
    assert {job["metadata"]["labels"]["finetuning.dev/run"] for job in life.objects("jobs")} == {key}
    life.finish(train, published("Failed", runId=second))
    assert life.wait_for_phase("Rejected")["current"]["runId"] == first["run"]["id"]


def test_a_change_replaces_the_run_that_goes_on(life: Life) -> None:
    life.apply(manifest())
    life.run(life.wait_for_pod("prepare"))
    key = life.wait_for_phase("Preparing")["run"]["key"]
    life.apply(manifest(**SLOWER))
    wait_until(lambda: life.status()["run"]["key"] != key, 10)
    wait_until(lambda: life.objects("jobs", run=key) == [], 20)
    life.wait_for_pod("prepare", run=life.status()["run"]["key"])


def test_a_failed_run_goes_on_when_asked_for(life: Life) -> None:
    life.apply(manifest(retries=0))
    life.finish(life.wait_for_pod("prepare"), report("prepare", 6, message="403."), exit_code=6)
    life.wait_for_phase("Failed")
    life.kubectl("annotate", "finetunejob", "clinic", "finetuning.dev/requested-at=today")
    wait_until(lambda: life.status()["run"]["trigger"] == "Requested", 10)
    life.succeed()


def test_suspending_stops_the_pod_and_resuming_goes_on(life: Life) -> None:
    life.apply(manifest())
    life.pass_stage("prepare", report("prepare"))
    life.run(life.wait_for_pod("train"))
    life.wait_for_phase("Training")
    life.apply(manifest(suspend=True))
    life.wait_for_phase("Suspended")
    wait_until(lambda: life.objects("jobs", stage="train") == [], 20)
    assert life.condition("Reconciling")["status"] == "False"
    for pod in life.objects("pods", stage="train"):
        life.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    life.apply(manifest(suspend=False))
    life.pass_stage("train", published())
    assert life.wait_for_phase("Succeeded")["run"]["id"] == "20261124-aaaaaaaa"


def test_a_queue_admits_the_training_and_only_that(life: Life) -> None:
    life.apply(manifest(queueName="team-a"))
    life.pass_stage("prepare", report("prepare"))
    assert "queue team-a" in life.wait_for_phase("Queued")["message"]
    (job,) = life.objects("jobs", stage="train")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert job["spec"]["suspend"] is True
    life.kubectl("patch", "job", job["metadata"]["name"], "--patch", '{"spec": {"suspend": false}}')
    life.run(life.wait_for_pod("train"))
    life.wait_for_phase("Training")
    life.kubectl("patch", "job", job["metadata"]["name"], "--patch", '{"spec": {"suspend": true}}')
    life.wait_for_phase("Queued")


def test_the_schedule_starts_a_run(life: Life) -> None:
    life.apply(manifest(retrain={"schedule": "* * * * *", "timeZone": "Europe/Berlin"}))
    first = life.succeed()
    wait_until(lambda: life.status()["run"]["trigger"] == "Schedule", 70, life.status)
    key = life.status()["run"]["key"]
    assert key != first["run"]["key"]
    life.pass_stage("prepare", published(), run=key)  # the data is the same: the finished run is found
    status = life.wait_for_phase("Succeeded")
    assert life.objects("jobs", stage="train", run=key) == []
    assert status["retrain"]["nextScheduleTime"] > status["retrain"]["lastScheduleTime"]


def test_new_data_starts_a_run_and_known_data_does_not(life: Life) -> None:
    life.apply(manifest(retrain={"onDatasetChange": True, "checkIntervalSeconds": 10}))
    first = life.succeed()
    for version, trigger in (("v1", "Created"), ("v2", "DatasetChanged")):
        check = _wait_for_check(life)
        life.finish(check, report("prepare", dataVersion=version))
        wait_until(lambda name=check["metadata"]["name"]: name not in _pods(life), 20, life.status)
        assert life.status()["run"]["trigger"] == trigger
    assert life.status()["run"]["key"] != first["run"]["key"]
    assert life.status()["retrain"]["dataVersion"] == "v2"


def test_jobs_of_a_finished_run_expire_and_nothing_starts_again(life: Life) -> None:
    life.apply(manifest(ttlSecondsAfterFinished=1))
    finished = life.succeed()
    wait_until(lambda: life.objects("jobs") == [], 20)
    life.kubectl("annotate", "finetunejob", "clinic", "note=touched")
    assert life.status() == finished


def test_deleting_leaves_nothing(life: Life) -> None:
    life.apply(manifest())
    life.wait_for_pod("prepare")
    life.kubectl("delete", "finetunejob", "clinic", "--timeout=10s")
    wait_until(lambda: life.objects("jobs") == [] and life.objects("pods") == [], 30)


def test_deleting_works_while_no_operator_runs(
    make_life: Callable[[], Life], plane: ControlPlane, credentials: Path, tmp_path: Path
) -> None:
    life = make_life()
    with _operator_of(plane, life, credentials, tmp_path):
        life.apply(manifest())
        life.wait_for_pod("prepare")
    life.kubectl("delete", "finetunejob", "clinic", "--timeout=10s")
    wait_until(lambda: life.objects("jobs") == [] and life.objects("pods") == [], 30)


def test_a_namespace_with_jobs_can_be_deleted(life: Life) -> None:
    life.apply(manifest())
    life.wait_for_pod("prepare")
    life.plane.kubectl("delete", "namespace", life.namespace, "--timeout=180s")


def _operator_of(plane: ControlPlane, life: Life, credentials: Path, folder: Path):  # type: ignore[no-untyped-def]
    """An operator of its own for one namespace, with a Lease of its own."""
    settings = {"FINETUNE_WATCH_NAMESPACES": life.namespace, "FINETUNE_LEADER_ELECTION": "false"}
    return running_operator(plane, folder, settings, credentials)


def _pods(life: Life) -> list[str]:
    return [pod["metadata"]["name"] for pod in life.objects("pods")]


def _wait_for_check(life: Life) -> dict[str, object]:
    found: list[dict[str, object]] = []

    def exists() -> bool:
        found[:] = [pod for pod in life.objects("pods", stage="check") if pod["status"]["phase"] == "Pending"]
        return bool(found)

    wait_until(exists, 30, lambda: json.dumps(life.status()))
    return found[0]
