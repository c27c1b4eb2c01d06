"""The Jobs that carry out stages: what they say, what they may do, and what nobody can change."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from finetune_api.contract import ATTEMPT_LABEL, JOB_LABEL, RUN_LABEL, STAGE_LABEL
from finetune_api.documents import dump_yaml, load_yaml
from finetune_api.identity import run_digest, spec_digest
from finetune_api.problems import parse_job
from finetune_operator.observed import CONTAINER, StageName, Subject
from finetune_operator.orders import StageOrder, name_of, nodes_of, run_key
from finetune_operator.rendezvous import build_service
from finetune_operator.settings import Settings
from finetune_operator.workloads import build_job, template_of, whole_cores
from support.objects import SETTINGS, UID, Object, make_object, make_order, make_subject
from support.pod_security import find_violations

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "input").glob("*.yaml"))
ORDERS = (
    make_order("prepare"),
    make_order("train", attempt=2, micro_batch_tokens=4096, deadline_seconds=3600),
    make_order("check", attempt=1795424400, deadline_seconds=600),
)


def golden_jobs(case: str) -> list[Object]:
    """The Jobs of a golden input."""
    return [made for made in golden_objects(case) if made["kind"] == "Job"]


def golden_objects(case: str) -> list[Object]:
    """Everything made for a golden input: a FineTuneJob, and the operator's own settings as an annotation."""
    document: Any = load_yaml((GOLDEN / "input" / f"{case}.yaml").read_text())
    chosen = json.loads(document["metadata"].get("annotations", {}).get("settings", "{}"))
    settings = Settings.model_validate({**SETTINGS.model_dump(), **chosen})
    subject = make_subject(name=parse_job(document).metadata.name, **document["spec"])
    return [made for order in ORDERS for made in objects_of(subject, order, settings)]


def objects_of(subject: Subject, order: StageOrder, settings: Settings) -> list[Object]:
    """What is made for an attempt."""
    service = [build_service(subject, order)] if nodes_of(subject.job.spec, order) > 1 else []
    return [*service, build_job(subject, order, settings)]


def pod_of(job: Object) -> Object:
    return dict(job["spec"]["template"]["spec"])


def container_of(job: Object) -> Object:
    (only,) = pod_of(job)["containers"]
    return dict(only)


def environment_of(job: Object) -> dict[str, str]:
    entries = container_of(job)["env"]
    names = [entry["name"] for entry in entries]
    assert len(set(names)) == len(names)
    return {entry["name"]: entry["value"] for entry in entries}


def built(order: StageOrder | None = None, settings: Settings = SETTINGS, **parts: Any) -> Object:
    return build_job(make_subject(**parts), order or make_order(), settings)


def given(**settings: Any) -> Settings:
    return SETTINGS.model_copy(update=settings)


@pytest.mark.parametrize("case", CASES)
def test_the_objects_are_those_of_the_golden_file(case: str) -> None:
    text = "---\n".join(dump_yaml(made) for made in golden_objects(case))
    golden = GOLDEN / "output" / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_output_has_an_input() -> None:
    assert CASES
    assert sorted(path.stem for path in (GOLDEN / "output").glob("*.yaml")) == CASES


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_fit_for_the_restricted_pod_security_standard(case: str) -> None:
    for job in golden_jobs(case):
        assert find_violations(job["spec"]["template"]) == []


@pytest.mark.parametrize("case", CASES)
def test_every_pod_has_no_token_and_a_read_only_root(case: str) -> None:
    for job in golden_jobs(case):
        pod, container = pod_of(job), container_of(job)
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert {"/tmp", "/cache"} <= writable
        volumes = [volume["name"] for volume in pod["volumes"]]
        mounts = [mount["name"] for mount in container["volumeMounts"]]
        assert sorted(mounts) == sorted(volumes) == sorted(set(volumes))


@pytest.mark.parametrize("case", CASES)
def test_every_job_belongs_to_its_finetunejob_and_can_be_found_by_labels(case: str) -> None:
    for job, order in zip(golden_jobs(case), ORDERS, strict=True):
        (owner,) = job["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("FineTuneJob", UID, True)
        assert not owner["blockOwnerDeletion"]
        for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
            assert labels[JOB_LABEL] == owner["name"]
            assert (labels[RUN_LABEL], labels[STAGE_LABEL], labels[ATTEMPT_LABEL]) == (
                order.run,
                order.stage,
                str(order.attempt),
            )


@pytest.mark.parametrize("case", CASES)
def test_the_trainer_is_told_the_same_run(case: str) -> None:
    document: Any = load_yaml((GOLDEN / "input" / f"{case}.yaml").read_text())
    asked = parse_job(document)
    for job in golden_jobs(case):
        told = parse_job(json.loads(environment_of(job)["FINETUNE_JOB"]))
        assert told.metadata.name == asked.metadata.name
        assert told.metadata.namespace == "clinic"
        assert told.spec.output == asked.spec.output
        assert spec_digest(told.spec) == spec_digest(asked.spec)
        assert run_digest(told.spec, "rows") == run_digest(asked.spec, "rows")


def test_the_trainer_is_told_what_was_written_and_nothing_else() -> None:
    training = {"learningRate": 2e-5, "earlyStopping": {"patience": 2}}  # these are defaults, and written all the same
    job = built(training=training, retries=7)

    told = json.loads(environment_of(job)["FINETUNE_JOB"])["spec"]
    written = make_object(training=training)["spec"]
    assert told == {part: written[part] for part in ("model", "dataset", "training", "output")}


@pytest.mark.parametrize(
    "name", ["a", "clinic-triage", "x" * 63, "a" * 35 + "-" + "b" * 27, "a" * 34 + "--" + "b" * 27]
)
@pytest.mark.parametrize(("stage", "attempt"), [("prepare", 101), ("train", 101), ("check", 4102444800)])
def test_names_fit_into_labels_whatever_the_job_is_called(name: str, stage: StageName, attempt: int) -> None:
    job = built(make_order(stage, attempt), name=name)

    child = job["metadata"]["name"]
    assert len(child) <= 63
    assert child.startswith(name[:34].rstrip("-"))
    assert "--" not in child.removeprefix(name[:34])
    assert all(len(value) <= 63 for value in job["metadata"]["labels"].values())


def test_jobs_of_one_long_beginning_have_children_of_different_names() -> None:
    names = {
        name_of(make_subject(name="x" * 60 + end), make_order(run=run_key(uid, "sha256:1", "generation-1")))
        for end, uid in (("a", "uid-a"), ("b", "uid-b"))
    }

    assert len(names) == 2


def test_the_key_of_a_run_depends_on_the_job_the_manifest_and_the_reason() -> None:
    keys = {run_key(*parts) for parts in (("u", "d", "t"), ("v", "d", "t"), ("u", "e", "t"), ("u", "d", "s"))}

    assert len(keys) == 4
    assert run_key("u", "d", "t") == run_key("u", "d", "t")
    assert all(len(key) == 8 and int(key, 16) >= 0 for key in keys)


def test_only_training_takes_an_accelerator() -> None:
    spec: Object = {"resources": {"gpus": 2, "gpuResource": "nvidia.com/mig-1g.10gb"}}

    limits = {stage: container_of(built(make_order(stage), **spec))["resources"]["limits"] for stage in STAGES}

    assert limits["train"] == {"memory": "32Gi", "nvidia.com/mig-1g.10gb": "2"}
    assert limits["prepare"] == limits["check"] == {"memory": "8Gi"}


STAGES: tuple[StageName, ...] = ("prepare", "train", "check")


def test_without_accelerators_none_is_asked_for() -> None:
    assert container_of(built(resources={"gpus": 0}))["resources"]["limits"] == {"memory": "32Gi"}


def test_only_training_waits_in_a_queue() -> None:
    jobs = {stage: built(make_order(stage), queueName="team-a") for stage in STAGES}

    assert jobs["train"]["spec"]["suspend"] is True
    assert jobs["train"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    for stage in ("prepare", "check"):
        assert "suspend" not in jobs[stage]["spec"]
        assert "kueue.x-k8s.io/queue-name" not in jobs[stage]["metadata"]["labels"]


def test_a_runtime_class_is_for_training() -> None:
    template: Object = {"podTemplate": {"runtimeClassName": "nvidia"}}

    assert pod_of(built(**template))["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in pod_of(built(make_order("prepare"), **template))


@pytest.mark.parametrize(
    ("order", "want"),
    [
        (make_order("prepare"), ["prepare"]),
        (make_order("check"), ["check"]),
        (StageOrder("3f9a1c2b", "train", 1), ["run"]),
        (
            StageOrder("3f9a1c2b", "train", 2, "20261123-3f9a1c2b", "sha256:3f", 4096),
            ["run", "--run-id", "20261123-3f9a1c2b", "--digest", "sha256:3f", "--micro-batch-tokens", "4096"],
        ),
    ],
)
def test_the_trainer_is_told_its_stage(order: StageOrder, want: list[str]) -> None:
    assert container_of(built(order))["args"] == want


def test_a_secret_that_several_things_need_is_seen_once() -> None:
    places: Object = {
        "model": {"uri": "s3://models/llama", "secretRef": {"name": "s3"}},
        "dataset": {"uri": "s3://clinic/triage.jsonl", "secretRef": {"name": "data"}},
        "output": {"uri": "s3://adapters/clinic", "secretRef": {"name": "s3"}},
    }

    seen = container_of(built(**places))["envFrom"]

    assert seen == [{"secretRef": {"name": "s3"}}, {"secretRef": {"name": "data"}}]


def test_a_volume_claim_that_several_things_are_on_is_mounted_once() -> None:
    places: Object = {
        "model": {"uri": "pvc://models.v2/llama"},
        "dataset": {"uri": "pvc://clinic/triage.jsonl"},
        "output": {"uri": "pvc://clinic/adapters"},
    }

    job = built(**places)

    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod_of(job)["volumes"]
        if "persistentVolumeClaim" in volume
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(job)["volumeMounts"]}
    assert sorted(claims.values()) == ["clinic", "models.v2"]
    for volume, claim in claims.items():
        assert "." not in volume, "names of volumes must not have dots"
        assert mounts[volume] == f"/mnt/pvc/{claim}"


def test_a_claim_may_have_the_longest_name_there_is() -> None:
    job = built(dataset={"uri": f"pvc://{'c' * 253}/triage.jsonl"})

    assert all(len(volume["name"]) <= 63 for volume in pod_of(job)["volumes"])


def test_the_companys_certificates_are_trusted_when_there_are_any() -> None:
    job = built(settings=given(trainer_ca_config_map="company-ca"))

    assert {"name": "ca", "configMap": {"name": "company-ca"}} in pod_of(job)["volumes"]
    assert {"name": "ca", "mountPath": "/etc/finetune/ca", "readOnly": True} in container_of(job)["volumeMounts"]
    assert environment_of(job)["SSL_CERT_FILE"] == "/etc/finetune/ca/ca.crt"
    assert "SSL_CERT_FILE" not in environment_of(built())


def test_pull_secrets_of_operator_and_job_are_used_each_once() -> None:
    job = built(
        settings=given(image_pull_secrets=("registry", "mirror")),
        podTemplate={"imagePullSecrets": [{"name": "mirror"}, {"name": "team"}]},
    )

    assert pod_of(job)["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}, {"name": "team"}]


def test_a_jobs_variables_win_over_the_operators_and_the_contract_over_both() -> None:
    job = built(
        settings=given(
            trainer_env={"HTTPS_PROXY": "http://proxy", "HF_ENDPOINT": "http://mirror", "OMP_NUM_THREADS": "9"}
        ),
        podTemplate={
            "env": [{"name": "HF_ENDPOINT", "value": "http://hub"}, {"name": "OMP_NUM_THREADS", "value": "7"}]
        },
        resources={"cpu": "1500m"},
    )

    variables = environment_of(job)
    assert variables["HTTPS_PROXY"] == "http://proxy"
    assert variables["HF_ENDPOINT"] == "http://hub"
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["FINETUNE_CACHE"] == "/cache"


def test_even_the_operators_own_variables_cannot_break_the_contract() -> None:
    job = built(settings=given(trainer_env={"FINETUNE_JOB": "{}", "FINETUNE_LAST_WORD": "/tmp/x"}))

    assert json.loads(environment_of(job)["FINETUNE_JOB"])["kind"] == "FineTuneJob"
    assert environment_of(job)["FINETUNE_LAST_WORD"] == container_of(job)["terminationMessagePath"]


def test_labels_of_the_pod_template_cannot_take_the_place_of_ours() -> None:
    raw = make_object(podTemplate={"labels": {"team": "clinic"}})
    subject = make_subject(podTemplate=raw["spec"]["podTemplate"])
    forged = subject.job.spec.pod_template.labels
    forged |= {JOB_LABEL: "another", STAGE_LABEL: "check"}  # what an older CRD might have let through

    labels = build_job(subject, make_order(), SETTINGS)["spec"]["template"]["metadata"]["labels"]

    assert labels["team"] == "clinic"
    assert (labels[JOB_LABEL], labels[STAGE_LABEL]) == ("clinic-triage", "train")


def test_disruptions_and_stopped_pods_are_replaced_and_count_as_no_failure() -> None:
    spec = built()["spec"]

    assert spec["backoffLimit"] == 0
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    rules = spec["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "Ignore"]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert rules[1]["onExitCodes"] == {"containerName": CONTAINER, "operator": "In", "values": [143]}


def test_a_deadline_is_the_jobs_too() -> None:
    assert built(make_order(deadline_seconds=61))["spec"]["activeDeadlineSeconds"] == 61
    assert "activeDeadlineSeconds" not in built()["spec"]


@pytest.mark.parametrize(
    ("parts", "settings"),
    [
        ({"resources": {"gpus": 2}}, {}),
        ({"resources": {"nodes": 2}}, {}),
        ({"resources": {"memory": "48Gi"}}, {}),
        ({"podTemplate": {"nodeSelector": {"gpu": "a100"}}}, {}),
        ({"podTemplate": {"labels": {"team": "a"}}}, {}),
        ({"output": {"uri": "s3://adapters/clinic", "secretRef": {"name": "s3"}}}, {}),
        ({"queueName": "team-a"}, {}),
        ({}, {"trainer_image": "registry.example/finetune-trainer@sha256:beef"}),
        ({}, {"trainer_env": {"HTTPS_PROXY": "http://proxy"}}),
        ({}, {"image_pull_secrets": ("registry",)}),
    ],
)
def test_the_template_tells_what_a_pod_would_be_made_from(parts: dict[str, Any], settings: dict[str, Any]) -> None:
    before = template_of(make_subject(), make_order(), SETTINGS)

    assert template_of(make_subject(**parts), make_order(), given(**settings)) != before


@pytest.mark.parametrize(
    "parts",
    [
        {"retries": 0},
        {"activeDeadlineSeconds": 60},
        {"ttlSecondsAfterFinished": 1},
        {"historyLimit": 1},
        {"suspend": True},
        {"retrain": {"schedule": "0 3 * * *"}},
        {"generation": 9},
        {"annotations": {"note": "x"}},
        {"status": {"phase": "Training"}},
    ],
)
def test_the_template_is_the_same_when_only_the_course_of_the_run_changes(parts: dict[str, Any]) -> None:
    assert template_of(make_subject(**parts), make_order(), SETTINGS) == template_of(
        make_subject(), make_order(), SETTINGS
    )


def test_the_template_does_not_depend_on_the_deadline_of_the_attempt() -> None:
    orders = [make_order(), make_order(deadline_seconds=60)]

    assert len({template_of(make_subject(), order, SETTINGS) for order in orders}) == 1


@pytest.mark.parametrize(
    ("cpu", "want"), [("4", 4), ("0", 1), ("0.5", 1), ("2.5", 3), ("500m", 1), ("1500m", 2), ("2000m", 2), ("1m", 1)]
)
def test_threads_follow_the_cpu_asked_for(cpu: str, want: int) -> None:
    assert whole_cores(cpu) == want
