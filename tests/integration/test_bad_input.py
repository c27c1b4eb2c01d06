"""What is wrong is refused by the API server with a sentence that helps; `finetune validate` has a better one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.control_plane import ControlPlane, KubectlError
from finetune_api.documents import load_yaml
from finetune_api.job import FineTuneJobSpec
from finetune_api.problems import parse_job
from finetune_api.schema import NAME_RULE, fields_of
from support.cli import finetune, write_job
from support.custom_resource import apply_job, get_job, jobs_without_operator, write_status
from support.manifests import make_manifest
from support.statuses import make_status

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "examples").glob("*.yaml"))
WRITABLE = "must start with s3://, gs://, az://, pvc:// or file://"
AMOUNT = "must be an amount such as 512Mi or 16Gi"
CRON = "must be a cron expression of five fields such as 0 3 * * 0"
OBJECT_NAME = "must be the name of an object: lowercase letters, digits, dashes and dots"


@dataclass(frozen=True)
class Bad:
    """A manifest with one thing wrong."""

    where: str
    """Field that both must name."""
    server: str
    """Part of what kubectl must print."""
    own: str
    """Part of what `finetune validate` must print."""
    spec: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


def data(**split: Any) -> dict[str, Any]:
    return {"dataset": {"uri": "s3://clinic/triage.jsonl", "split": split}}


def output(uri: str = "s3://adapters", **secret: Any) -> dict[str, Any]:
    return {"output": {"uri": uri, **secret}}


def template(**fields: Any) -> dict[str, Any]:
    return {"podTemplate": fields}


def unknown(name: str, value: object) -> Bad:
    """A field of a pod that would weaken its security, or that belongs to the operator."""
    return Bad(
        f"spec.podTemplate.{name}",
        f'unknown field "spec.podTemplate.{name}"',
        "unknown field. Image, command, security context and volumes are the operator's.",
        template(**{name: value}),
    )


BAD = {
    "model that is no URI": Bad(
        "spec.model.uri", "must start with hf://, s3://", "For a hub repository write hf://owner/name",
        {"model": {"uri": "owner/name"}},
    ),
    "unknown method": Bad(
        "spec.method.type", 'Unsupported value: "qlora": supported values: "lora", "full", "prefix", "bottleneck"',
        "must be lora, full, prefix or bottleneck, got 'qlora'", {"method": {"type": "qlora"}},
    ),
    "full tuning of a quantised model": Bad(
        "spec.method", "full fine-tuning trains the weights themselves, which it cannot while they are quantised",
        "leave quantization out, or choose another type", {"method": {"type": "full", "quantization": "nf4"}},
    ),
    "settings of LoRA for another method": Bad(
        "spec.method", "lora holds settings of type lora: leave it out, or set type to lora",
        "lora holds settings of type lora", {"method": {"type": "bottleneck", "lora": {"rank": 8}}},
    ),
    "settings of another method for LoRA": Bad(
        "spec.method", "prefix holds settings of type prefix: leave it out, or set type to prefix",
        "prefix holds settings of type prefix", {"method": {"prefix": {"length": 8}}},
    ),
    "empty settings of another method": Bad(
        "spec.method", "bottleneck holds settings of type bottleneck: leave it out, or set type to bottleneck",
        "bottleneck holds settings of type bottleneck", {"method": {"type": "prefix", "bottleneck": {}}},
    ),
    "principal directions of a base quantised by default": Bad(
        "spec.method", "must not be quantised: set quantization to none", "must not be quantised",
        {"method": {"lora": {"init": "pissa"}}},
    ),
    "principal directions of a quantised base": Bad(
        "spec.method", "must not be quantised: set quantization to none", "must not be quantised",
        {"method": {"quantization": "nf4", "lora": {"init": "olora"}}},
    ),
    "orthogonal start on a quantised base": Bad(
        "spec.method", "init orthogonal, pissa and olora work on the base's weights", "must not be quantised",
        {"method": {"quantization": "int8", "lora": {"init": "orthogonal"}}},
    ),
    "what cannot be merged, merged": Bad(
        "spec", "output.merged needs method.type lora: nothing else can be merged into the weights of the base",
        "output.merged needs method.type lora",
        {"method": {"type": "prefix"}, "output": {"uri": "s3://bucket/adapters", "merged": True}},
    ),
    "prefix of no tokens": Bad(
        "spec.method.prefix.length", "should be greater than or equal to 1", "must be at least 1, got 0",
        {"method": {"type": "prefix", "prefix": {"length": 0}}},
    ),
    "quantisation typo": Bad(
        "spec.method.quantization", 'Unsupported value: "nf-4": supported values: "nf4", "int8", "none"',
        "must be nf4, int8 or none, got 'nf-4'. Did you mean nf4?", {"method": {"quantization": "nf-4"}},
    ),
    "negative rank": Bad(
        "spec.method.lora.rank", "should be greater than or equal to 1", "must be at least 1, got -8",
        {"method": {"lora": {"rank": -8}}},
    ),
    "dropout of everything": Bad(
        "spec.method.lora.dropout", "should be less than 1", "must be less than 1, got 1",
        {"method": {"lora": {"dropout": 1}}},
    ),
    "all-linear and more": Bad(
        "spec.method.lora.targetModules", "all-linear stands alone: it already means every linear layer",
        "all-linear stands alone", {"method": {"lora": {"targetModules": ["all-linear", "q_proj"]}}},
    ),
    "negative learning rate": Bad(
        "spec.training.learningRate", "should be greater than 0", "must be more than 0, got -0.0001",
        {"training": {"learningRate": -1e-4}},
    ),
    "learning rate of zero": Bad(
        "spec.training.learningRate", "should be greater than 0", "must be more than 0, got 0",
        {"training": {"learningRate": 0}},
    ),
    "negative epochs": Bad(
        "spec.training.epochs", "should be greater than or equal to 1", "must be at least 1, got -3",
        {"training": {"epochs": -3}},
    ),
    "half an epoch": Bad(
        "spec.training.epochs", "must be of type int", "must be a whole number, got 2.5",
        {"training": {"epochs": 2.5}},
    ),
    "epochs in words": Bad(
        "spec.training.epochs", 'must be of type integer: "string"', "must be a whole number, got 'three'",
        {"training": {"epochs": "three"}},
    ),
    "last epoch before the planned ones": Bad(
        "spec.training", "maxEpochs must be at least epochs", "maxEpochs must be at least epochs",
        {"training": {"epochs": 6, "maxEpochs": 5}},
    ),
    "training as a list": Bad(
        "spec.training", 'must be of type object: "array"', "must be a mapping, got a list",
        {"training": ["epochs: 3"]},
    ),
    "misspelt field": Bad(
        "spec.traning", 'unknown field "spec.traning"', "Did you mean training?",
        {"traning": {"epochs": 3}},
    ),
    "test split over a half": Bad(
        "spec.dataset.split.test", "should be less than or equal to 0.5", "must be at most 0.5, got 0.6",
        data(test=0.6),
    ),
    "test split of nothing": Bad(
        "spec.dataset.split.test", "must be at least 0.01", "must be at least 0.01, got 0", data(test=0),
    ),
    "too few rows left": Bad(
        "spec.dataset.split", "test and validation together may take at most 0.8 of the rows",
        "test and validation together may take at most 0.8 of the rows", data(test=0.5, validation=0.4),
    ),
    "dataset without a place": Bad(
        "spec.dataset.uri", "Required value", "required, but missing. A JSONL, Parquet or CSV file", {"dataset": {}},
    ),
    "no dataset": Bad(
        "spec.dataset", "Required value", "required, but missing. It takes at least: uri", {"dataset": None},
    ),
    "unknown metric": Bad(
        "spec.evaluation.metrics[0]", 'Unsupported value: "bleu"', "must be exactMatch, tokenF1 or perplexity",
        {"evaluation": {"metrics": ["bleu", "tokenF1"]}},
    ),
    "deciding metric not measured": Bad(
        "spec.evaluation", "primaryMetric must be one of metrics", "primaryMetric must be one of metrics",
        {"evaluation": {"metrics": ["exactMatch"], "primaryMetric": "tokenF1"}},
    ),
    "output that is no URI": Bad(
        "spec.output.uri", f'Invalid value: "adapters": {WRITABLE}', "For a local path write file://./adapters",
        output("adapters"),
    ),
    "output on the hub": Bad(
        "spec.output.uri", f'Invalid value: "hf://clinic/adapters": {WRITABLE}', "hf:// can be read but not written",
        output("hf://clinic/adapters"),
    ),
    "output with a space": Bad(
        "spec.output.uri", "contain no spaces", "must not contain spaces", output("s3://my adapters"),
    ),
    "secret with a bad name": Bad(
        "spec.output.secretRef.name", f'Invalid value: "S3_key": {OBJECT_NAME}', f"{OBJECT_NAME}, with a letter",
        output(secretRef={"name": "S3_key"}),
    ),
    "secret as text": Bad(
        "spec.output.secretRef", 'must be of type object: "string"', "must be a mapping, got 's3'",
        output(secretRef="s3"),
    ),
    "secret without a name": Bad(
        "spec.output.secretRef.name", "Required value", "required, but missing. Name of the Secret",
        output(secretRef={}),
    ),
    "key of a secret written out": Bad(
        "spec.output.secretRef.key", 'unknown field "spec.output.secretRef.key"', "unknown field",
        output(secretRef={"name": "s3", "key": "AKIA"}),
    ),
    "image": unknown("image", "registry.example/other:1"),
    "command": unknown("command", ["sh", "-c", "id"]),
    "arguments": unknown("args", ["run"]),
    "security context": unknown("securityContext", {"privileged": True}),
    "volumes": unknown("volumes", [{"name": "root", "hostPath": {"path": "/"}}]),
    "host network": unknown("hostNetwork", True),
    "containers": unknown("containers", [{"name": "other", "image": "other"}]),
    "mounted token": unknown("automountServiceAccountToken", True),
    "variable of the linker": Bad(
        "spec.podTemplate.env[0].name", "names that begin with FINETUNE_, LD_ or PYTHON are reserved",
        "names that begin with FINETUNE_, LD_ or PYTHON are reserved",
        template(env=[{"name": "LD_PRELOAD", "value": "/cache/x.so"}]),
    ),
    "variable of the contract": Bad(
        "spec.podTemplate.env[1].name", "names that begin with FINETUNE_, LD_ or PYTHON are reserved",
        "names that begin with FINETUNE_, LD_ or PYTHON are reserved",
        template(env=[{"name": "HF_ENDPOINT"}, {"name": "FINETUNE_JOB", "value": "{}"}]),
    ),
    "variable with a bad name": Bad(
        "spec.podTemplate.env[0].name", "must be letters, digits and underscores, and not begin with a digit",
        "must be letters, digits and underscores, and not begin with a digit, got '1ST'",
        template(env=[{"name": "1ST"}]),
    ),
    "variable from a secret": Bad(
        "spec.podTemplate.env[0].valueFrom", 'unknown field "spec.podTemplate.env[0].valueFrom"',
        "unknown field", template(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]),
    ),
    "label of the operator": Bad(
        "spec.podTemplate.labels", "labels of finetuning.dev, kueue.x-k8s.io, batch.kubernetes.io and",
        "app.kubernetes.io/managed-by are reserved", template(labels={"finetuning.dev/job": "other"}),
    ),
    "label with a space": Bad(
        "spec.podTemplate.labels", "values must be letters, digits, dashes, dots and underscores",
        "values must be letters, digits, dashes, dots and underscores", template(labels={"team": "a b"}),
    ),
    "label key with a space": Bad(
        "spec.podTemplate.labels", "keys must be letters, digits, dashes, dots and underscores",
        "keys must be letters, digits, dashes, dots and underscores", template(labels={"my team": "a"}),
    ),
    "annotation that turns AppArmor off": Bad(
        "spec.podTemplate.annotations", "AppArmor and seccomp are the operator's: such an annotation could only weaken",
        "AppArmor and seccomp are the operator's",
        template(annotations={"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}),
    ),
    "node label too long": Bad(
        "spec.podTemplate.nodeSelector.zone", "may not be more than 63 bytes", "must have at most 63 characters",
        template(nodeSelector={"zone": "x" * 64}),
    ),
    "toleration of nothing": Bad(
        "spec.podTemplate.tolerations[0]", "a toleration without key needs operator Exists",
        "a toleration without key needs operator Exists", template(tolerations=[{"effect": "NoSchedule"}]),
    ),
    "toleration that cannot end": Bad(
        "spec.podTemplate.tolerations[0]", "tolerationSeconds needs effect NoExecute",
        "tolerationSeconds needs effect NoExecute", template(tolerations=[{"key": "gpu", "tolerationSeconds": 5}]),
    ),
    "negative GPUs": Bad(
        "spec.resources.gpus", "should be greater than or equal to 0", "must be at least 0, got -1",
        {"resources": {"gpus": -1}},
    ),
    "no nodes": Bad(
        "spec.resources.nodes", "should be greater than or equal to 1", "must be at least 1, got 0",
        {"resources": {"nodes": 0}},
    ),
    "several nodes without GPUs": Bad(
        "spec.resources", "nodes above 1 needs accelerators to share the work: set gpus to at least 1, or nodes to 1",
        "nodes above 1 needs accelerators to share the work", {"resources": {"nodes": 2, "gpus": 0}},
    ),
    "resource without a vendor": Bad(
        "spec.resources.gpuResource", "must be the name of a resource such as nvidia.com/gpu",
        "must be the name of a resource such as nvidia.com/gpu, got 'gpu'", {"resources": {"gpuResource": "gpu"}},
    ),
    "memory of a GPU in words": Bad(
        "spec.resources.gpuMemory", f'Invalid value: "half": {AMOUNT}', f"{AMOUNT}, got 'half'",
        {"resources": {"gpuMemory": "half"}},
    ),
    "memory with a space": Bad(
        "spec.resources.memory", f'Invalid value: "32 GB": {AMOUNT}', f"{AMOUNT}, got '32 GB'",
        {"resources": {"memory": "32 GB"}},
    ),
    "memory as a number": Bad(
        "spec.resources.memory", 'must be of type string: "integer"', "must be text, got 32. Put it in quotes",
        {"resources": {"memory": 32}},
    ),
    "CPU in words": Bad(
        "spec.resources.prepare.cpu", "must be an amount of CPU such as 500m or 4",
        "must be an amount of CPU such as 500m or 4, got 'two'", {"resources": {"prepare": {"cpu": "two"}}},
    ),
    "queue that is no label": Bad(
        "spec.queueName", f'Invalid value: "Team A": {NAME_RULE}', f"{NAME_RULE}, got 'Team A'",
        {"queueName": "Team A"},
    ),
    "schedule of four fields": Bad(
        "spec.retrain.schedule", f'Invalid value: "0 3 * *": {CRON}', f"{CRON}", {"retrain": {"schedule": "0 3 * *"}},
    ),
    "schedule at 25 o'clock": Bad(
        "spec.retrain.schedule", f'Invalid value: "0 25 * * *": {CRON}', f"{CRON}",
        {"retrain": {"schedule": "0 25 * * *"}},
    ),
    "time zone with a space": Bad(
        "spec.retrain.timeZone", "must be a time zone such as UTC or Europe/Berlin",
        "must be a time zone such as UTC or Europe/Berlin, got 'Central European'",
        {"retrain": {"schedule": "@daily", "timeZone": "Central European"}},
    ),
    "looking every second": Bad(
        "spec.retrain.checkIntervalSeconds", "should be greater than or equal to 10", "must be at least 10, got 1",
        {"retrain": {"onDatasetChange": True, "checkIntervalSeconds": 1}},
    ),
    "runs side by side": Bad(
        "spec.retrain.concurrencyPolicy", 'Unsupported value: "Allow"', "must be Forbid or Replace, got 'Allow'",
        {"retrain": {"concurrencyPolicy": "Allow"}},
    ),
    "negative retries": Bad(
        "spec.retries", "should be greater than or equal to 0", "must be at least 0, got -1", {"retries": -1},
    ),
    "deadline of seconds": Bad(
        "spec.activeDeadlineSeconds", "should be greater than or equal to 60", "must be at least 60, got 5",
        {"activeDeadlineSeconds": 5},
    ),
    "pods kept for less than no time": Bad(
        "spec.ttlSecondsAfterFinished", "should be greater than or equal to 0", "must be at least 0, got -1",
        {"ttlSecondsAfterFinished": -1},
    ),
    "endless history": Bad(
        "spec.historyLimit", "should be less than or equal to 50", "must be at most 50, got 1000",
        {"historyLimit": 1000},
    ),
    "suspend in words": Bad(
        "spec.suspend", 'must be of type boolean: "string"', "must be true or false, got 'yes'. Write it without",
        {"suspend": "yes"},
    ),
    "name with dots": Bad(
        "metadata.name", f"metadata.name {NAME_RULE}", f"{NAME_RULE}, got 'clinic.triage'",
        metadata={"name": "clinic.triage"},
    ),
    "name too long": Bad(
        "metadata.name", f"metadata.name {NAME_RULE}", "must have at most 63 characters, got 64",
        metadata={"name": "a" * 64},
    ),
    "name in capitals": Bad(
        "metadata.name", "must consist of lower case alphanumeric characters", f"{NAME_RULE}, got 'Triage'",
        metadata={"name": "Triage"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server of this module's own: the others' has an operator."""
    with jobs_without_operator(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture(scope="module")
def namespace(plane: ControlPlane) -> str:
    return plane.make_namespace("bad-input")


@pytest.mark.parametrize("bad", [pytest.param(bad, id=name) for name, bad in BAD.items()])
def test_kubectl_says_what_is_wrong(plane: ControlPlane, namespace: str, bad: Bad) -> None:
    with pytest.raises(KubectlError) as refused:
        apply_job(plane, namespace, make_manifest(bad.metadata, **bad.spec))

    assert bad.where in str(refused.value)
    assert bad.server in str(refused.value)


@pytest.mark.parametrize("bad", [pytest.param(bad, id=name) for name, bad in BAD.items()])
def test_the_command_line_says_it_without_a_cluster(tmp_path: Path, bad: Bad) -> None:
    manifest = write_job(tmp_path / "job.yaml", make_manifest(bad.metadata, **bad.spec))
    ended = finetune("validate", manifest)

    assert ended.code == 2
    assert f"{bad.where}: " in ended.err
    assert bad.own in ended.err
    assert "Traceback" not in ended.err


def test_every_part_of_a_spec_was_tried() -> None:
    tried = {bad.where.split(".")[1].split("[")[0] for bad in BAD.values() if bad.where.startswith("spec.")}

    assert set(fields_of(FineTuneJobSpec)) <= tried


def test_the_output_of_a_job_cannot_be_moved(plane: ControlPlane, namespace: str) -> None:
    apply_job(plane, namespace, make_manifest({"name": "stays"}))
    with pytest.raises(KubectlError) as refused:
        apply_job(plane, namespace, make_manifest({"name": "stays"}, **output("s3://elsewhere")))

    assert "spec.output.uri" in str(refused.value)
    want = "output.uri cannot be changed: earlier adapters of this job would be left behind; create a new FineTuneJob"
    assert want in str(refused.value)


def test_a_pod_setting_that_gets_past_kubectl_is_dropped(plane: ControlPlane, namespace: str) -> None:
    manifest = make_manifest({"name": "forced"}, **template(image="other", securityContext={"privileged": True}))
    apply_job(plane, namespace, manifest, "--validate=false")

    assert get_job(plane, namespace, "forced")["spec"]["podTemplate"] == {}


def test_nobody_but_the_operator_writes_the_status(plane: ControlPlane, namespace: str) -> None:
    manifest = make_manifest({"name": "boasting"}) | {"status": {"phase": "Succeeded", "observedGeneration": 1}}
    apply_job(plane, namespace, manifest)

    assert get_job(plane, namespace, "boasting")["status"]["observedGeneration"] == -1
    assert "phase" not in get_job(plane, namespace, "boasting")["status"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_accepted_and_kept_as_it_was_written(
    plane: ControlPlane, namespace: str, example: Path
) -> None:
    text = example.read_text(encoding="utf-8")
    shown = plane.kubectl(
        "apply", "--namespace", namespace, "--dry-run=server", "--output=yaml", "--filename", "-", input=text
    )

    assert load_yaml(shown)["spec"] == load_yaml(text)["spec"]  # type: ignore[index]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"training": {}, "method": {"lora": {}}, "resources": {"prepare": {}}, "podTemplate": {}, "retrain": {}},
        {"method": {"type": "full"}},
        {"method": {"type": "prefix", "prefix": {}}},
        {"method": {"type": "bottleneck", "quantization": "int8", "bottleneck": {"placement": "houlsby"}}},
        {"method": {"quantization": "none", "lora": {"init": "pissa", "rslora": True, "dora": True}}},
        {
            "model": {"uri": "s3://models/base", "secretRef": {"name": "models"}},
            "dataset": {"uri": "pvc://rows/triage", "format": "alpaca", "split": {"test": 0.5, "validation": 0.3}},
            "method": {"quantization": "none", "lora": {"targetModules": ["q_proj", "v_proj"], "dropout": 0}},
            "training": {"learningRate": 1, "epochs": 7, "maxEpochs": 7, "earlyStopping": {"enabled": False}},
            "evaluation": {"metrics": ["perplexity"], "primaryMetric": "perplexity"},
            "output": {"uri": "s3://adapters", "secretRef": {"name": "s3.clinic"}},
            "resources": {
                "gpus": 0, "gpuMemory": "40Gi", "cpu": "1500m", "memory": "12.5Gi", "prepare": {"separate": False},
            },
            "podTemplate": {
                "labels": {"example.com/team": "a", "cost-centre": ""},
                "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
                "nodeSelector": {"node.kubernetes.io/instance-type": "p5.48xlarge"},
                "tolerations": [
                    {"operator": "Exists"},
                    {"key": "gpu", "value": "a100", "effect": "NoExecute", "tolerationSeconds": 60},
                ],
                "env": [{"name": "HF_ENDPOINT", "value": "https://mirror.example"}, {"name": "_EMPTY"}],
                "serviceAccountName": "trainer",
                "imagePullSecrets": [{"name": "registry"}],
                "priorityClassName": "batch-low",
                "runtimeClassName": "nvidia",
                "schedulerName": "other",
            },
            "queueName": "team-a",
            "retrain": {"schedule": "*/15 1-5 * JAN-mar mon-FRI", "timeZone": "Europe/Berlin", "onDatasetChange": True},
            "suspend": True,
            "retries": 0,
            "activeDeadlineSeconds": 60,
            "ttlSecondsAfterFinished": 0,
            "historyLimit": 0,
        },
    ],
    ids=["the least", "empty objects", "full", "prefix", "bottleneck", "principal directions", "everything"],
)  # fmt: skip
def test_a_good_manifest_comes_back_as_it_was_written_and_means_the_same(
    plane: ControlPlane, namespace: str, spec: dict[str, Any]
) -> None:
    manifest = make_manifest({"name": "good"}, **spec)
    plane.kubectl("delete", "ftj", "good", "--namespace", namespace, "--ignore-not-found")
    apply_job(plane, namespace, manifest)

    kept = get_job(plane, namespace, "good")
    assert kept["spec"] == manifest["spec"]
    assert parse_job(kept).spec == parse_job(manifest).spec


def test_applying_the_same_manifest_again_changes_nothing(plane: ControlPlane, namespace: str) -> None:
    apply_job(plane, namespace, make_manifest({"name": "again"}))
    before = get_job(plane, namespace, "again")["metadata"]

    assert "unchanged" in apply_job(plane, namespace, make_manifest({"name": "again"}))
    assert get_job(plane, namespace, "again")["metadata"] == before


def test_a_complete_status_is_kept_as_it_was_written(plane: ControlPlane, namespace: str) -> None:
    apply_job(plane, namespace, make_manifest({"name": "told"}))
    for name in ("training", "retrying", "succeeded", "failed"):
        status = make_status(name)
        write_status(plane, namespace, "told", status)

        assert parse_job(get_job(plane, namespace, "told")).status == status


def test_explain_documents_every_field(plane: ControlPlane) -> None:
    page = " ".join(plane.kubectl("explain", "ftj.spec.training").split())

    assert "Peak learning rate of AdamW, after warm-up and before the cosine decay." in page
    assert "Rows per optimiser step, however many forward passes they take." in page
    ways = plane.kubectl("explain", "ftj.spec.method.quantization")
    assert all(f"\n    {way}\n" in ways for way in ("nf4", "int8", "none"))
