"""What is wrong with a manifest is said in one sentence: where, what, and what to write instead."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.identity import resolved
from finetune_api.job import FineTuneJob
from finetune_api.problems import InvalidManifest, Problem, explain, load_yaml, parse_job
from finetune_api.schema import NAME_RULE
from support.manifests import make_manifest


def problems_of(document: object) -> list[str]:
    with pytest.raises(InvalidManifest) as caught:
        parse_job(document)
    return [str(problem) for problem in caught.value.problems]


def problem_of(**spec: Any) -> str:
    """The only problem of a manifest with these spec fields."""
    (problem,) = problems_of(make_manifest(**spec))
    return problem


def test_a_good_manifest_becomes_a_job() -> None:
    job = parse_job(
        load_yaml(
            """
        apiVersion: finetuning.dev/v1alpha1
        kind: FineTuneJob
        metadata: {name: clinic-triage}
        spec:
          model: {uri: "hf://HuggingFaceTB/SmolLM2-135M-Instruct"}
          dataset: {uri: s3://clinic/triage.jsonl}
          training: {learningRate: 1e-4}
          output: {uri: s3://adapters/clinic}
        """
        )
    )

    assert job.spec.training.learning_rate == 1e-4
    assert job.metadata.namespace == "default"


def test_a_published_job_can_be_read_back() -> None:
    manifest = make_manifest()
    metric = {"name": "tokenF1", "higherIsBetter": True, "base": 0.1, "adapter": 0.9, "difference": 0.8}
    metric |= {"ci": [0.7, 0.9], "n": 36, "groups": 12}
    evaluation = {"verdict": "Passed", "primaryMetric": "tokenF1", "metrics": [metric]}
    manifest["status"] = {"phase": "Succeeded", "evaluation": evaluation}

    assert parse_job(manifest).to_manifest()["status"]["evaluation"] == evaluation


@pytest.mark.parametrize("training", [None, {"learningRate": None}, {"epochs": 3.0, "maxEpochs": None}])
def test_fields_left_empty_take_their_defaults_as_the_api_server_has_it(training: object) -> None:
    spec = parse_job(make_manifest(training=training)).spec
    assert (spec.training.epochs, spec.training.last_epoch) == (3, 5)
    assert resolved(spec).training.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        (
            {"training": {"learningrate": 1e-4}},
            "spec.training.learningrate: unknown field. Did you mean learningRate?",
        ),
        (
            {"training": {"learning_rate": 1e-4}},
            "spec.training.learning_rate: unknown field. Did you mean learningRate?",
        ),
        ({"training": {"rank": 8}}, "spec.training.rank: unknown field. Did you mean spec.method.lora.rank?"),
        (
            {"method": {"seed": 8}},
            "spec.method.seed: unknown field. Did you mean spec.dataset.split.seed or spec.training.seed?",
        ),
        (
            {"method": {"qlora": None, "lora": {"bias": "none"}}},
            "spec.method.lora.bias: unknown field. Known fields here: rank, alpha, dropout, targetModules, rslora, "
            "dora, init.",
        ),
    ],
)
def test_an_unknown_field_is_named_with_the_field_that_was_meant(spec: dict[str, Any], want: str) -> None:
    assert want in problems_of(make_manifest(**spec))


def test_an_unknown_field_without_a_value_is_still_unknown() -> None:
    assert problem_of(traning=None) == "spec.traning: unknown field. Did you mean training?"


@pytest.mark.parametrize(
    ("training", "want"),
    [
        ({"epochs": "eight"}, "epochs: must be a whole number, got 'eight'."),
        ({"epochs": "8"}, "epochs: must be a whole number, got '8'. Write it without quotes."),
        ({"epochs": 2.5}, "epochs: must be a whole number, got 2.5."),
        ({"epochs": True}, "epochs: must be a whole number, got true."),
        ({"learningRate": "2e-5"}, "learningRate: must be a number, got '2e-5'. Write it without quotes."),
        ({"learningRate": [1]}, "learningRate: must be a number, got a list."),
        ({"earlyStopping": True}, "earlyStopping: must be a mapping, got true."),
        (
            {"earlyStopping": {"enabled": "yes"}},
            "earlyStopping.enabled: must be true or false, got 'yes'. Write it without quotes.",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_shown(training: dict[str, Any], want: str) -> None:
    assert problem_of(training=training) == f"spec.training.{want}"


@pytest.mark.parametrize(
    ("training", "want"),
    [
        ({"batchSize": 0}, "batchSize: must be at least 1, got 0."),
        ({"weightDecay": 2}, "weightDecay: must be at most 1, got 2."),
        ({"maxGradNorm": 0}, "maxGradNorm: must be more than 0, got 0."),
        ({"warmupRatio": 0.75}, "warmupRatio: must be at most 0.5, got 0.75."),
        ({"maxEpochs": 0}, "maxEpochs: must be at least 1, got 0."),
        ({"epochs": 6, "maxEpochs": 5}, "maxEpochs must be at least epochs."),
    ],
)
def test_a_value_out_of_bounds_is_shown_with_the_bound(training: dict[str, Any], want: str) -> None:
    assert problem_of(training=training).removeprefix("spec.training").lstrip(".: ") == want


@pytest.mark.parametrize(
    ("lora", "want"),
    [
        ({"dropout": 1}, "dropout: must be less than 1, got 1."),
        ({"targetModules": "all-linear"}, "targetModules: must be a list, got 'all-linear'. Write [all-linear]."),
        ({"targetModules": []}, "targetModules: must not be empty."),
        ({"targetModules": ["q"] * 65}, "targetModules: must have at most 64 entries, got 65."),
        ({"targetModules": ["q", 3]}, "targetModules[1]: must be text, got 3. Put it in quotes."),
        ({"targetModules": [None]}, "targetModules[0]: must be text, got nothing."),
        ({"targetModules": ["q", ""]}, "targetModules[1]: must not be empty."),
        ({"targetModules": ["q" * 300]}, "targetModules[0]: must have at most 256 characters, got 300."),
        (
            {"targetModules": ["all-linear", "q"]},
            "targetModules: all-linear stands alone: it already means every linear layer.",
        ),
    ],
)
def test_problems_with_lists_name_the_entry(lora: dict[str, Any], want: str) -> None:
    assert problem_of(method={"lora": lora}) == f"spec.method.lora.{want}"


@pytest.mark.parametrize(
    ("method", "want"),
    [
        ({"quantization": "NF-4"}, "quantization: must be nf4, int8 or none, got 'NF-4'. Did you mean nf4?"),
        ({"quantization": "awq"}, "quantization: must be nf4, int8 or none, got 'awq'."),
        ({"type": "qlora"}, "type: must be lora, full, prefix or bottleneck, got 'qlora'. Did you mean lora?"),
        ({"type": "ia3"}, "type: must be lora, full, prefix or bottleneck, got 'ia3'."),
        (
            {"lora": {"init": "loftq"}},
            "lora.init: must be default, gaussian, orthogonal, pissa or olora, got 'loftq'.",
        ),
    ],
)
def test_a_value_that_is_not_allowed_is_shown_with_those_that_are(method: dict[str, Any], want: str) -> None:
    assert problem_of(method=method) == f"spec.method.{want}"


WRITABLE = "s3://, gs://, az://, pvc:// or file://"


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("adapters", f"must start with {WRITABLE}, got 'adapters'. For a local path write file://./adapters."),
        ("./out", f"must start with {WRITABLE}, got './out'. For a local path write file://./out."),
        ("/out", f"must start with {WRITABLE}, got '/out'. For a local path write file:///out."),
        ("~/out", f"must start with {WRITABLE}, got '~/out'."),
        ("", f"must start with {WRITABLE}, got ''."),
        ("S3://bucket", f"must start with {WRITABLE}, got 'S3://bucket'. Did you mean s3://bucket?"),
        ("s3:/bucket/a", f"must start with {WRITABLE}, got 's3:/bucket/a'. Did you mean s3://bucket/a?"),
        ("https://host/a", f"must start with {WRITABLE}, got 'https://host/a'."),
        ("hf://owner/name", f"hf:// can be read but not written. Use {WRITABLE}."),
        ("s3://", "names nothing after s3://."),
        ("s3://my bucket", "must not contain spaces."),
    ],
)
def test_a_bad_uri_is_explained(uri: str, want: str) -> None:
    assert problem_of(output={"uri": uri}) == f"spec.output.uri: {want}"


NAME = "must be the name of an object: lowercase letters, digits, dashes and dots, with a letter or digit at both ends"
CRON = (
    "must be a cron expression of five fields such as 0 3 * * 0, or one of @hourly, @daily, @weekly, @monthly and "
    "@yearly"
)
KEYS = "keys must be letters, digits, dashes, dots and underscores, at most 63, with an optional lowercase prefix"
APPARMOR = {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({"queueName": "Team A"}, f"queueName: {NAME_RULE}, got 'Team A'."),
        (
            {"output": {"uri": "s3://a", "secretRef": {"name": "S3_key"}}},
            f"output.secretRef.name: {NAME}, got 'S3_key'.",
        ),
        ({"output": {"uri": "s3://a", "secretRef": "s3"}}, "output.secretRef: must be a mapping, got 's3'."),
        ({"resources": {"memory": "32 GB"}}, "resources.memory: must be an amount such as 512Mi or 16Gi, got '32 GB'."),
        ({"resources": {"memory": 32}}, "resources.memory: must be text, got 32. Put it in quotes."),
        (
            {"resources": {"cpu": "4 cores"}},
            "resources.cpu: must be an amount of CPU such as 500m or 4, got '4 cores'.",
        ),
        ({"resources": {"nodes": 0}}, "resources.nodes: must be at least 1, got 0."),
        ({"resources": {"nodes": 65}}, "resources.nodes: must be at most 64, got 65."),
        (
            {"resources": {"nodes": 2, "gpus": 0}},
            "resources: nodes above 1 needs accelerators to share the work: set gpus to at least 1, or nodes to 1.",
        ),
        (
            {"resources": {"gpuResource": "gpu"}},
            "resources.gpuResource: must be the name of a resource such as nvidia.com/gpu, got 'gpu'.",
        ),
        ({"retrain": {"schedule": "0 3 * *"}}, f"retrain.schedule: {CRON}, got '0 3 * *'."),
        ({"retrain": {"schedule": "0 25 * * *"}}, f"retrain.schedule: {CRON}, got '0 25 * * *'."),
        ({"retrain": {"schedule": "@never"}}, f"retrain.schedule: {CRON}, got '@never'."),
        (
            {"retrain": {"timeZone": "Central European"}},
            "retrain.timeZone: must be a time zone such as UTC or Europe/Berlin, got 'Central European'.",
        ),
        (
            {"podTemplate": {"env": [{"name": "A"}, {"name": "1st"}]}},
            "podTemplate.env[1].name: must be letters, digits and underscores, and not begin with a digit, got '1st'.",
        ),
        (
            {"podTemplate": {"env": [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]}},
            "podTemplate.env[0].name: names that begin with FINETUNE_, LD_ or PYTHON are reserved.",
        ),
        ({"podTemplate": {"labels": {"my team": "a"}}}, f"podTemplate.labels: {KEYS} such as example.com/."),
        (
            {"podTemplate": {"labels": {"team": "-a"}}},
            "podTemplate.labels: values must be letters, digits, dashes, dots and underscores, with a letter or digit "
            "at both ends.",
        ),
        (
            {"podTemplate": {"labels": {"finetuning.dev/job": "other"}}},
            "podTemplate.labels: labels of finetuning.dev, kueue.x-k8s.io, batch.kubernetes.io and "
            "app.kubernetes.io/managed-by are reserved.",
        ),
        ({"podTemplate": {"labels": {"team": 3}}}, "podTemplate.labels.team: must be text, got 3. Put it in quotes."),
        (
            {"podTemplate": {"annotations": APPARMOR}},
            "podTemplate.annotations: AppArmor and seccomp are the operator's: such an annotation could only weaken "
            "them.",
        ),
        (
            {"podTemplate": {"tolerations": [{"key": "gpu", "operator": "exists"}]}},
            "podTemplate.tolerations[0].operator: must be Exists or Equal, got 'exists'. Did you mean Exists?",
        ),
        (
            {"podTemplate": {"tolerations": [{"effect": "NoSchedule"}]}},
            "podTemplate.tolerations[0]: a toleration without key needs operator Exists.",
        ),
        (
            {"podTemplate": {"tolerations": [{"key": "gpu", "tolerationsSeconds": 5}]}},
            "podTemplate.tolerations[0].tolerationsSeconds: unknown field. Did you mean tolerationSeconds?",
        ),
        (
            {"podTemplate": {"image": "registry/other"}},
            "podTemplate.image: unknown field. Image, command, security context and volumes are the operator's. "
            "Known fields here: labels, annotations, nodeSelector, tolerations, env, serviceAccountName, "
            "imagePullSecrets, priorityClassName, runtimeClassName, schedulerName.",
        ),
        (
            {"labels": {"team": "a"}},
            "labels: unknown field. Did you mean metadata.labels or spec.podTemplate.labels?",
        ),
        ({"suspended": True}, "suspended: unknown field. Did you mean suspend?"),
        ({"activeDeadlineSeconds": 5}, "activeDeadlineSeconds: must be at least 60, got 5."),
        ({"retries": -1}, "retries: must be at least 0, got -1."),
    ],
)
def test_what_is_wrong_with_how_a_job_runs_is_said_as_well(spec: dict[str, Any], want: str) -> None:
    assert problem_of(**spec) == f"spec.{want}"


@pytest.mark.parametrize(
    "schedule", ["0 3 * * 0", "*/15 * * * *", "0 0,12 1 */2 *", "5/15 1-5 * JAN-mar mon-FRI", "@daily"]
)
def test_cron_expressions_in_use_are_accepted(schedule: str) -> None:
    assert parse_job(make_manifest(retrain={"schedule": schedule})).spec.retrain.schedule == schedule


@pytest.mark.parametrize("cpu", ["4", "500m", "1.5"])
@pytest.mark.parametrize("memory", ["16Gi", "512Mi", "1.5Gi", "17179869184", "16G"])
def test_amounts_in_use_are_accepted(cpu: str, memory: str) -> None:
    assert parse_job(make_manifest(resources={"cpu": cpu, "memory": memory})).spec.resources.cpu == cpu


def test_a_bare_hub_name_may_mean_the_hub_or_a_folder() -> None:
    want = (
        "spec.model.uri: must start with hf://, s3://, gs://, az://, pvc:// or file://, got 'owner/name'. "
        "For a hub repository write hf://owner/name; for a local path file://./owner/name."
    )

    assert problem_of(model={"uri": "owner/name"}) == want


def test_a_missing_field_is_named_with_what_belongs_there() -> None:
    manifest = make_manifest(model={}, dataset=None)
    del manifest["metadata"]

    assert problems_of(manifest) == [
        "metadata: required, but missing. It takes at least: name.",
        "spec.model.uri: required, but missing. "
        "Where the model is: hf://OWNER/NAME, s3://, gs://, az://, pvc://CLAIM/PATH or file://PATH.",
        "spec.dataset: required, but missing. It takes at least: uri.",
    ]


@pytest.mark.parametrize("name", ["Clinic_Triage", "a.b", "-a", ""])
def test_a_name_that_cannot_be_a_label_is_refused(name: str) -> None:
    assert problems_of(make_manifest({"name": name})) == [f"metadata.name: {NAME_RULE}, got {name!r}."]


@pytest.mark.parametrize(("document", "got"), [(None, "nothing"), ([1], "a list"), ("x", "'x'"), (3, "3")])
def test_a_document_that_is_no_mapping_is_said_to_be_none(document: object, got: str) -> None:
    want = f"a FineTuneJob is a mapping with apiVersion, kind, metadata and spec, got {got}."

    assert problems_of(document) == [want]


def test_a_document_of_another_kind_is_not_judged_further() -> None:
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 1}}

    assert problems_of(deployment) == [
        "apiVersion: must be finetuning.dev/v1alpha1, got 'apps/v1'.",
        "kind: must be FineTuneJob, got 'Deployment'.",
    ]


def test_a_misspelt_kind_does_not_hide_the_other_problems() -> None:
    manifest = {**make_manifest(training={"epochs": 0}), "kind": "FinetuneJob"}

    assert problems_of(manifest) == [
        "kind: must be FineTuneJob, got 'FinetuneJob'. Did you mean FineTuneJob?",
        "spec.training.epochs: must be at least 1, got 0.",
    ]


def test_a_manifest_must_say_what_it_is() -> None:
    manifest = make_manifest()
    del manifest["apiVersion"], manifest["kind"]

    assert problems_of(manifest) == [
        "apiVersion: must be finetuning.dev/v1alpha1, got nothing.",
        "kind: must be FineTuneJob, got nothing.",
    ]


def test_all_problems_are_found_at_once() -> None:
    manifest = make_manifest(training={"epochs": 0, "batchsize": 4}, output={"uri": "out"})

    assert [problem.partition(":")[0] for problem in problems_of(manifest)] == [
        "spec.training.epochs",
        "spec.training.batchsize",
        "spec.output.uri",
    ]


def test_errors_of_a_plain_validation_can_be_explained_too() -> None:
    manifest = make_manifest(training={"epochs": "eight", "earlyStopping": {"enabled": "perhaps"}})
    with pytest.raises(ValidationError) as caught:
        FineTuneJob.model_validate(manifest)

    assert explain(caught.value, manifest) == [
        Problem("spec.training.epochs", "must be a whole number, got 'eight'"),
        Problem("spec.training.earlyStopping.enabled", "must be true or false, got 'perhaps'"),
    ]
