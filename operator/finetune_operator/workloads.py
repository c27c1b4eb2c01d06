"""The batch/v1 Jobs that carry out stages, built as plain objects. Pure; no object is ever read here."""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from finetune_api.contract import (
    ATTEMPT_LABEL,
    CACHE_PATH,
    CACHE_VARIABLE,
    CLAIMS_PATH,
    CLAIMS_VARIABLE,
    JOB_LABEL,
    JOB_VARIABLE,
    LAST_WORD_PATH,
    LAST_WORD_VARIABLE,
    MANAGED_BY_LABEL,
    MANAGER,
    QUEUE_LABEL,
    RUN_LABEL,
    STAGE_LABEL,
    TEMPLATE_ANNOTATION,
    TRAINER_PORT,
)
from finetune_api.identity import canonical
from finetune_api.job import API_VERSION, KIND, FineTuneJobSpec
from finetune_api.run import ExitCode
from finetune_operator.observed import CONTAINER, TOKENS_FLAG, StageName, Subject
from finetune_operator.settings import Settings

NAME_KEPT = 36
"""Characters of the job's name that its children carry; labels and pod names end at 63."""
GRACE_SECONDS = 120
"""Time to save after a stop signal."""
USER = 65532
CA_PATH = "/etc/finetune/ca"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class StageOrder:
    """One attempt at one stage of one run."""

    run: str
    stage: StageName
    attempt: int
    run_id: str | None = None
    """Known once the data was prepared."""
    digest: str | None = None
    micro_batch_tokens: int | None = None
    """Instead of the manifest's, after a failure for want of memory."""
    deadline_seconds: int | None = None


def run_key(uid: str, spec_digest: str, token: str) -> str:
    """Eight hex digits that name a run's children: equal for equal reasons to run, across restarts of the operator."""
    return _digest(uid, spec_digest, token)


def name_of(subject: Subject, order: StageOrder) -> str:
    """Name of the Job, for instance clinic-triage-3f9a1c2b-train-1."""
    return f"{subject.key.name[:NAME_KEPT].rstrip('-')}-{order.run}-{order.stage}-{order.attempt}"


def build_job(subject: Subject, order: StageOrder, settings: Settings) -> Manifest:
    """The Job of one attempt at a stage."""
    spec = subject.job.spec
    queue = _queue_of(spec, order)
    labels, template = _labels(subject, order), _pod_template(subject, order, settings)
    job_spec: Manifest = {
        "backoffLimit": 0,  # attempts are counted and spaced by the operator, by the kind of failure
        "podFailurePolicy": {"rules": FAILURE_RULES},
        "podReplacementPolicy": "Failed",
        "template": template,
    }
    if queue:
        job_spec["suspend"] = True  # Kueue starts it
    if order.deadline_seconds is not None:
        job_spec["activeDeadlineSeconds"] = order.deadline_seconds
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name_of(subject, order),
            "namespace": subject.key.namespace,
            "labels": labels | ({QUEUE_LABEL: queue} if queue else {}),
            "annotations": {TEMPLATE_ANNOTATION: _digest(queue, template)},
            "ownerReferences": [_owner(subject)],
        },
        "spec": job_spec,
    }


def template_of(subject: Subject, order: StageOrder, settings: Settings) -> str:
    """Digest of what the pods of an attempt are made from. A Job whose pod never ran is made anew when it differs."""
    return _digest(_queue_of(subject.job.spec, order), _pod_template(subject, order, settings))


def _queue_of(spec: FineTuneJobSpec, order: StageOrder) -> str | None:
    return spec.queue_name if order.stage == "train" else None


def _digest(*parts: object) -> str:
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:8]


def _pod_template(subject: Subject, order: StageOrder, settings: Settings) -> Manifest:
    template = subject.job.spec.pod_template
    return {
        "metadata": {"labels": template.labels | _labels(subject, order), "annotations": template.annotations},
        "spec": _pod_spec(subject.job.spec, order, settings, _manifest_of(subject)),
    }


FAILURE_RULES = [
    # An evicted, preempted or drained pod is replaced and goes on from its checkpoint; so is one that was told to stop.
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {
        "action": "Ignore",
        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [ExitCode.STOPPED.value]},
    },
]


def _labels(subject: Subject, order: StageOrder) -> dict[str, str]:
    return {
        MANAGED_BY_LABEL: MANAGER,
        JOB_LABEL: subject.key.name,
        RUN_LABEL: order.run,
        STAGE_LABEL: order.stage,
        ATTEMPT_LABEL: str(order.attempt),
    }


def _owner(subject: Subject) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": subject.key.name,
        "uid": subject.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _manifest_of(subject: Subject) -> str:
    """What the trainer is told: name and spec, without what only concerns Kubernetes."""
    deciding = subject.job.spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,
        include={"model", "dataset", "method", "training", "evaluation", "output"},
    )
    metadata = {"name": subject.key.name, "namespace": subject.key.namespace}
    return json.dumps({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": deciding})


def _pod_spec(spec: FineTuneJobSpec, order: StageOrder, settings: Settings, manifest: str) -> Manifest:
    template, claims = spec.pod_template, _claims(spec)
    secrets = dict.fromkeys([*settings.image_pull_secrets, *(secret.name for secret in template.image_pull_secrets)])
    optional: Manifest = {
        "imagePullSecrets": [{"name": name} for name in secrets],
        "nodeSelector": template.node_selector,
        "tolerations": _plain(template.tolerations),
        "serviceAccountName": template.service_account_name,
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name if order.stage == "train" else None,
        "schedulerName": template.scheduler_name,
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, order, settings, manifest, claims)],
        "volumes": _volumes(spec, settings, claims),
        **{name: value for name, value in optional.items() if value},
    }


def _container(
    spec: FineTuneJobSpec, order: StageOrder, settings: Settings, manifest: str, claims: list[str]
) -> Manifest:
    mounts: list[Manifest] = [{"name": "cache", "mountPath": CACHE_PATH}, {"name": "tmp", "mountPath": "/tmp"}]
    mounts += [
        {"name": f"claim-{number}", "mountPath": f"{CLAIMS_PATH}/{claim}"} for number, claim in enumerate(claims)
    ]
    if settings.trainer_ca_config_map:
        mounts.append({"name": "ca", "mountPath": CA_PATH, "readOnly": True})
    return {
        "name": CONTAINER,
        "image": settings.trainer_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": _arguments(order),
        "env": _environment(spec, order, settings, manifest),
        "envFrom": [{"secretRef": {"name": name}} for name in _secrets(spec)],
        "ports": [{"name": "http", "containerPort": TRAINER_PORT}],
        "resources": _resources(spec, order),
        "terminationMessagePath": LAST_WORD_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _arguments(order: StageOrder) -> list[str]:
    if order.stage != "train":
        return [order.stage]
    known = ["--run-id", order.run_id, "--digest", order.digest] if order.run_id and order.digest else []
    fewer = [TOKENS_FLAG, str(order.micro_batch_tokens)] if order.micro_batch_tokens else []
    return ["run", *known, *fewer]


def _environment(spec: FineTuneJobSpec, order: StageOrder, settings: Settings, manifest: str) -> list[Manifest]:
    """Later entries win: the job's own over the operator's, and the contract over both."""
    cpu = spec.resources.cpu if order.stage == "train" else spec.resources.prepare.cpu
    ours = {
        JOB_VARIABLE: manifest,
        CACHE_VARIABLE: CACHE_PATH,
        CLAIMS_VARIABLE: CLAIMS_PATH,
        LAST_WORD_VARIABLE: LAST_WORD_PATH,
        "OMP_NUM_THREADS": str(whole_cores(cpu)),
    }
    trusted = {"SSL_CERT_FILE": f"{CA_PATH}/ca.crt"} if settings.trainer_ca_config_map else {}
    chosen = {entry.name: entry.value for entry in spec.pod_template.env}
    merged = settings.trainer_env | trusted | chosen | ours
    return [{"name": name, "value": value} for name, value in merged.items()]


def _secrets(spec: FineTuneJobSpec) -> list[str]:
    """Names of the Secrets that the pods see, each once."""
    references = (spec.model.secret_ref, spec.dataset.secret_ref, spec.output.secret_ref)
    return list(dict.fromkeys(reference.name for reference in references if reference))


def _claims(spec: FineTuneJobSpec) -> list[str]:
    """Names of the volume claims that pvc:// URIs point to, each once."""
    uris = (spec.model.uri, spec.dataset.uri, spec.output.uri)
    return list(dict.fromkeys(uri.split("/")[2] for uri in uris if uri.startswith("pvc://")))


def _volumes(spec: FineTuneJobSpec, settings: Settings, claims: list[str]) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "cache", "emptyDir": {"sizeLimit": spec.resources.storage}},
        {"name": "tmp", "emptyDir": {"sizeLimit": spec.resources.storage}},
    ]
    volumes += [
        {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, claim in enumerate(claims)  # a claim's name may be longer than a volume's, and have dots
    ]
    if settings.trainer_ca_config_map:
        volumes.append({"name": "ca", "configMap": {"name": settings.trainer_ca_config_map}})
    return volumes


def _resources(spec: FineTuneJobSpec, order: StageOrder) -> Manifest:
    """Memory is limited to what is asked for; CPU is not, for a throttled loader starves a GPU."""
    asked = spec.resources if order.stage == "train" else spec.resources.prepare
    resources: Manifest = {"requests": {"cpu": asked.cpu, "memory": asked.memory}, "limits": {"memory": asked.memory}}
    if order.stage == "train" and spec.resources.gpus:
        resources["limits"][spec.resources.gpu_resource] = str(spec.resources.gpus)
    return resources


def whole_cores(cpu: str) -> int:
    """Threads for an amount of CPU: 1500m gives 2."""
    amount = int(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)
    return max(1, math.ceil(amount))


def _plain(models: list[Any]) -> list[Manifest]:
    return [model.model_dump(mode="json", by_alias=True, exclude_none=True) for model in models]
