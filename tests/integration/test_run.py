"""The life of a run against a real API server and Job controller; the test plays the kubelet."""

from support.lives import Life, manifest, published, report
from support.operator_process import OperatorProcess
from support.waiting import wait_until


def test_a_job_succeeds_in_two_stages(life: Life) -> None:
    life.apply(manifest())
    prepare = life.wait_for_pod("prepare")
    assert "nvidia.com/gpu" not in prepare["spec"]["containers"][0]["resources"]["limits"]
    life.run(prepare)
    life.wait_for_phase("Preparing")
    life.finish(prepare, report("prepare"))
    train = life.wait_for_pod("train")
    assert train["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert life.arguments("train") == ["run", "--run-id", "20261124-aaaaaaaa", "--digest", "sha256:aaaaaaaa"]
    life.run(train)
    status = life.wait_for_phase("Training")
    assert status["run"]["id"] == "20261124-aaaaaaaa"
    life.finish(train, published())
    life.kubectl("wait", "finetunejob/clinic", "--for=condition=Ready", "--timeout=20s")
    status = life.status()
    assert status["phase"] == "Succeeded"
    assert status["current"]["runId"] == "20261124-aaaaaaaa"
    assert status["evaluation"]["metrics"][0]["ci"] == [0.6, 0.8]
    truths = {entry["type"]: entry["status"] for entry in status["conditions"]}
    want = {"Ready": "True", "Reconciling": "False", "Stalled": "False"}
    assert truths == want | dict.fromkeys(("DataPrepared", "Trained", "Evaluated", "Promoted"), "True")
    want = ["RunStarted", "DataPrepared", "Training", "Succeeded"]
    wait_until(lambda: life.events() == want, 10, life.events)


def test_a_rejected_adapter_is_not_current(life: Life) -> None:
    life.apply(manifest())
    life.pass_stage("prepare", report("prepare"))
    life.pass_stage("train", published("Inconclusive"))
    status = life.wait_for_phase("Rejected")
    assert "current" not in status
    assert life.condition("Stalled")["status"] == "True"
    assert life.condition("Promoted")["status"] == "False"


def test_bad_data_never_costs_a_gpu(life: Life) -> None:
    life.apply(manifest())
    pod = life.wait_for_pod("prepare")
    life.finish(pod, report("prepare", 3, message="triage.jsonl row 7: no answer.", log=["reading"]), exit_code=3)
    status = life.wait_for_phase("Failed")
    assert status["failure"] == {
        "reason": "DataRejected",
        "message": "triage.jsonl row 7: no answer.",
        "exitCode": 3,
        "willRetry": False,
        "log": ["reading"],
    }
    assert life.objects("jobs", stage="train") == []


def test_one_pod_may_do_everything(life: Life) -> None:
    life.apply(manifest(resources={"prepare": {"separate": False}}))
    assert life.wait_for_pod("train")["spec"]["containers"][0]["args"] == ["run"]
    life.pass_stage("train", published())
    assert life.wait_for_phase("Succeeded")["run"]["id"] == "20261124-aaaaaaaa"
    assert life.objects("jobs", stage="prepare") == []


def test_a_run_that_is_finished_in_the_store_takes_no_gpu(life: Life) -> None:
    life.apply(manifest())
    life.pass_stage("prepare", published())
    assert life.wait_for_phase("Succeeded")["current"]["runId"] == "20261124-aaaaaaaa"
    assert life.objects("jobs", stage="train") == []


def test_a_store_that_fails_is_tried_again(life: Life) -> None:
    life.apply(manifest())
    life.pass_stage("prepare", report("prepare"))
    life.finish(life.wait_for_pod("train"), report("train", 6, message="s3://adapters: 503."), exit_code=6)
    second = life.wait_for_pod("train", attempt=2)
    failure = life.status()["failure"]
    assert (failure["reason"], failure["willRetry"]) == ("StorageFailed", True)
    life.run(second)
    assert life.wait_for_phase("Training")["run"]["attempt"] == 2
    life.finish(second, published())
    assert "failure" not in life.wait_for_phase("Succeeded")


def test_retries_come_to_an_end(life: Life) -> None:
    life.apply(manifest(retries=1))
    for attempt in (1, 2):
        life.finish(life.wait_for_pod("prepare", attempt), "Segmentation fault", exit_code=139)
    status = life.wait_for_phase("Failed")
    assert status["failure"]["reason"] == "Crashed"
    assert status["failure"]["log"] == ["Segmentation fault"]
    assert len(life.objects("jobs", stage="prepare")) == 2


def test_less_memory_is_used_after_the_memory_was_not_enough(life: Life) -> None:
    life.apply(manifest())
    life.pass_stage("prepare", report("prepare"))
    life.kill(life.wait_for_pod("train"), "OOMKilled")
    life.finish(life.wait_for_pod("train", attempt=2), report("train", 5, message="CUDA out of memory."), exit_code=5)
    life.wait_for_pod("train", attempt=3)
    want = ["run", "--run-id", "20261124-aaaaaaaa", "--digest", "sha256:aaaaaaaa", "--micro-batch-tokens"]
    assert life.arguments("train", attempt=2) == [*want, "4096"]
    assert life.arguments("train", attempt=3) == [*want, "2048"]


def test_an_evicted_pod_is_replaced_and_counts_as_no_failure(life: Life) -> None:
    life.apply(manifest(retries=0))
    life.pass_stage("prepare", report("prepare"))
    first = life.wait_for_pod("train")
    life.run(first)
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    life.set_pod(first, conditions=[target])
    life.finish(first, report("train", 143, message="Stopped."), exit_code=143)
    wait_until(lambda: len(life.objects("pods", stage="train")) == 2, 60, lambda: life.objects("pods", stage="train"))
    second = life.wait_for_pod("train")
    assert second["metadata"]["name"] != first["metadata"]["name"]
    life.run(second)
    life.finish(second, published())
    assert life.wait_for_phase("Succeeded")["run"]["attempt"] == 1


def test_a_deadline_ends_a_run(life: Life) -> None:
    life.apply(manifest(activeDeadlineSeconds=60))
    (job,) = [life.wait_for_pod("prepare") and job for job in life.objects("jobs")]
    assert 50 <= job["spec"]["activeDeadlineSeconds"] <= 60


def test_what_hinders_a_pod_is_said_and_heals_by_itself(life: Life) -> None:
    life.apply(manifest())
    pod = life.wait_for_pod("prepare")
    life.hold(pod, "CreateContainerConfigError", 'secret "s3" not found')
    assert life.wait_for_reason("SecretMissing")["message"].startswith("There is no Secret s3 in this namespace")
    assert life.condition("Stalled")["status"] == "True"
    life.hold(pod, "ImagePullBackOff", 'Back-off pulling image "trainer:1": not found')
    assert "cannot be pulled" in life.wait_for_reason("ImagePullFailed")["message"]
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    life.set_pod(pod, conditions=[{**unschedulable, "message": "0/1 nodes are available: 1 Insufficient cpu."}])
    life.wait_for_reason("Unschedulable")
    assert life.condition("Stalled")["status"] == "False"
    life.set_pod(pod, conditions=[{"type": "PodScheduled", "status": "True"}])
    life.run(pod)
    life.wait_for_phase("Preparing")
    assert life.condition("Stalled")["status"] == "False"


def test_a_quota_on_jobs_is_said_and_heals_by_itself(life: Life) -> None:
    life.kubectl("create", "quota", "none", "--hard=count/jobs.batch=0")
    wait_until(lambda: "count/jobs.batch" in life.kubectl("get", "quota", "none", "--output=jsonpath={.status}"), 20)
    life.apply(manifest())
    assert "exceeded quota: none" in life.wait_for_reason("JobRefused")["message"]
    life.kubectl("delete", "quota", "none")
    life.apply(manifest(retries=2))  # nobody need wait for the next look
    life.wait_for_pod("prepare")


def test_a_namespace_that_forbids_the_pods_is_said(life: Life) -> None:
    life.kubectl("create", "quota", "none", "--hard=pods=0")
    wait_until(lambda: "pods" in life.kubectl("get", "quota", "none", "--output=jsonpath={.status.hard}"), 20)
    life.apply(manifest())
    wait_until(lambda: life.condition("Ready").get("reason") == "QuotaExceeded", 60, life.status)
    assert "cannot be created" in life.status()["message"]


def test_pods_are_admitted_where_only_restricted_ones_are(life: Life) -> None:
    life.plane.kubectl("label", "namespace", life.namespace, "pod-security.kubernetes.io/enforce=restricted")
    life.apply(manifest(resources={"gpus": 0}, podTemplate={"labels": {"team": "clinic"}}))
    assert life.wait_for_pod("prepare")["metadata"]["labels"]["team"] == "clinic"


def test_an_output_that_ends_with_the_pod_is_refused(life: Life) -> None:
    life.apply(manifest(output={"uri": "file://./runs"}))
    assert "use pvc:// or a bucket" in life.wait_for_reason("InvalidSpec")["message"]
    assert life.objects("jobs") == []


def test_metrics_tell_of_what_happened(life: Life, operator: OperatorProcess) -> None:
    before = operator.metric("finetune_runs_finished_total", result="Succeeded", trigger="Created")
    life.apply(manifest())
    life.succeed()
    wait_until(
        lambda: operator.metric("finetune_runs_finished_total", result="Succeeded", trigger="Created") == before + 1, 10
    )
    assert operator.metric("finetune_jobs", namespace=life.namespace, phase="Succeeded") == 1
    assert operator.metric("finetune_watch_age_seconds") < 200
    assert operator.metric("finetune_reconcile_errors_total", kind="bug") == 0
