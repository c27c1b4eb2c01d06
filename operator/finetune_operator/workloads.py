"""The batch/v1 Jobs that carry out stages, built as plain objects. Pure; no object is ever read here."""

import json
import math
from typing import Any

from finetune_api.contract import (
    CACHE_PATH,
    CACHE_VARIABLE,
    CLAIMS_PATH,
    CLAIMS_VARIABLE,
    JOB_VARIABLE,
    LAST_WORD_PATH,
    LAST_WORD_VARIABLE,
    NODES_LABEL,
    QUEUE_LABEL,
    TEMPLATE_ANNOTATION,
    TRAINER_PORT,
)
from finetune_api.job import API_VERSION, KIND, FineTuneJobSpec
from finetune_api.run import ExitCode
from finetune_operator.observed import CONTAINER, TOKENS_FLAG, Subject
from finetune_operator.orders import Manifest, StageOrder, digest_of, labels_of, name_of, nodes_of, owner_of
from finetune_operator.rendezvous import indexed, meeting_variables, service_of
from finetune_operator.settings import Settings
from finetune_operator.volumes import CA_PATH, build_mounts, build_volumes

GRACE_SECONDS = 120
"""Time to save after a stop signal."""
USER = 65532


def build_job(subject: Subject, order: StageOrder, settings: Settings) -> Manifest:
    """The Job of one attempt at a stage."""
    spec = subject.job.spec
    queue = _queue_of(spec, order)
    labels, template = labels_of(subject, order), _pod_template(subject, order, settings)
    job_spec: Manifest = {
        "backoffLimit": 0,  # attempts are counted and spaced by the operator, by the kind of failure
        "podFailurePolicy": {"rules": FAILURE_RULES},
        "podReplacementPolicy": "Failed",
        **indexed(nodes_of(spec, order)),
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
            "annotations": {TEMPLATE_ANNOTATION: digest_of(queue, template)},
            "ownerReferences": [owner_of(subject)],
        },
        "spec": job_spec,
    }


def template_of(subject: Subject, order: StageOrder, settings: Settings) -> str:
    """Digest of what the pods of an attempt are made from. A Job whose pod never ran is made anew when it differs."""
    return digest_of(_queue_of(subject.job.spec, order), _pod_template(subject, order, settings))


def _queue_of(spec: FineTuneJobSpec, order: StageOrder) -> str | None:
    return spec.queue_name if order.stage == "train" else None


def _pod_template(subject: Subject, order: StageOrder, settings: Settings) -> Manifest:
    template, nodes = subject.job.spec.pod_template, nodes_of(subject.job.spec, order)
    together = {NODES_LABEL: str(nodes)} if nodes > 1 else {}
    labels = template.labels | labels_of(subject, order) | together
    return {
        "metadata": {"labels": labels, "annotations": template.annotations},
        "spec": _pod_spec(subject, order, settings),
    }


FAILURE_RULES = [
    # An evicted, preempted or drained pod is replaced and goes on from its checkpoint; so is one that was told to stop.
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {
        "action": "Ignore",
        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [ExitCode.STOPPED.value]},
    },
]


TOLD = dict.fromkeys(("model", "dataset", "method", "training", "evaluation", "output"), True) | {
    "resources": {"nodes", "gpus", "gpu_memory"}
}


def _manifest_of(subject: Subject) -> str:
    """What the trainer is told: name and spec as they were written, without what only concerns Kubernetes.

    Of the resources it is told of the accelerators: whether they are enough is seen before they are asked for.
    """
    deciding = subject.job.spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,
        exclude_unset=True,  # the trainer has the same defaults, and its report tells them from what was asked for
        include=TOLD,
    )
    metadata = {"name": subject.key.name, "namespace": subject.key.namespace}
    return json.dumps({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": deciding})


def _pod_spec(subject: Subject, order: StageOrder, settings: Settings) -> Manifest:
    spec, template = subject.job.spec, subject.job.spec.pod_template
    secrets = dict.fromkeys([*settings.image_pull_secrets, *(secret.name for secret in template.image_pull_secrets)])
    optional: Manifest = {
        "imagePullSecrets": [{"name": name} for name in secrets],
        "nodeSelector": template.node_selector,
        "tolerations": _plain(template.tolerations),
        "serviceAccountName": template.service_account_name,
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name if order.stage == "train" else None,
        "schedulerName": template.scheduler_name,
        "subdomain": service_of(name_of(subject, order)) if nodes_of(spec, order) > 1 else None,
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
        "containers": [_container(subject, order, settings)],
        "volumes": build_volumes(spec, settings),
        **{name: value for name, value in optional.items() if value},
    }


def _container(subject: Subject, order: StageOrder, settings: Settings) -> Manifest:
    spec = subject.job.spec
    return {
        "name": CONTAINER,
        "image": settings.trainer_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": _arguments(order),
        "env": _environment(subject, order, settings),
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
        "volumeMounts": build_mounts(spec, settings),
    }


def _arguments(order: StageOrder) -> list[str]:
    if order.stage != "train":
        return [order.stage]
    known = ["--run-id", order.run_id, "--digest", order.digest] if order.run_id and order.digest else []
    fewer = [TOKENS_FLAG, str(order.micro_batch_tokens)] if order.micro_batch_tokens else []
    return ["run", *known, *fewer]


def _environment(subject: Subject, order: StageOrder, settings: Settings) -> list[Manifest]:
    """Later entries win: the job's own over the operator's, and the contract over both."""
    spec = subject.job.spec
    cpu = spec.resources.cpu if order.stage == "train" else spec.resources.prepare.cpu
    ours = {
        JOB_VARIABLE: _manifest_of(subject),
        CACHE_VARIABLE: CACHE_PATH,
        CLAIMS_VARIABLE: CLAIMS_PATH,
        LAST_WORD_VARIABLE: LAST_WORD_PATH,
        "OMP_NUM_THREADS": str(whole_cores(cpu)),
    }
    trusted = {"SSL_CERT_FILE": f"{CA_PATH}/ca.crt"} if settings.trainer_ca_config_map else {}
    chosen = {entry.name: entry.value for entry in spec.pod_template.env}
    merged = settings.trainer_env | trusted | chosen | ours | meeting_variables(subject, order)
    return [{"name": name, "value": value} for name, value in merged.items()]


def _secrets(spec: FineTuneJobSpec) -> list[str]:
    """Names of the Secrets that the pods see, each once."""
    references = (spec.model.secret_ref, spec.dataset.secret_ref, spec.output.secret_ref)
    return list(dict.fromkeys(reference.name for reference in references if reference))


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
