"""How the pods of one training find each other: an index for each, and a Service that gives them names. Pure."""

from collections.abc import Sequence

from finetune_api.contract import (
    LEADER_VARIABLE,
    NODES_VARIABLE,
    PROCESSES_VARIABLE,
    RENDEZVOUS_PORT,
    RENDEZVOUS_VARIABLE,
)
from finetune_operator.observed import StageJob, StageService, Subject
from finetune_operator.orders import Manifest, StageOrder, labels_of, name_of, owner_of


def service_of(job: str) -> str:
    """Name of the Service of a Job's pods: that of the Job, but a Service's must not begin with a digit."""
    return f"job-{job}" if job[0].isdigit() else job


def leader_of(job: str) -> str:
    """Host name at which a Job's first pod is reached by the others."""
    return f"{job}-0.{service_of(job)}"


def meeting_variables(subject: Subject, order: StageOrder) -> dict[str, str]:
    """Variables that tell training processes how many they are and where they meet."""
    if order.stage != "train":
        return {}
    resources = subject.job.spec.resources
    return {
        NODES_VARIABLE: str(resources.nodes),
        PROCESSES_VARIABLE: str(max(1, resources.gpus)),
        RENDEZVOUS_VARIABLE: str(RENDEZVOUS_PORT),
        **({LEADER_VARIABLE: leader_of(name_of(subject, order))} if resources.nodes > 1 else {}),
    }


def indexed(nodes: int) -> Manifest:
    """The part of a Job's spec that makes several pods with an index each. The first speaks for all."""
    if nodes == 1:
        return {}
    return {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},  # from Kubernetes 1.31 on; before, all must succeed
    }


def build_service(subject: Subject, order: StageOrder) -> Manifest:
    """The headless Service that gives each pod of an attempt a host name as soon as it has an address."""
    labels = labels_of(subject, order)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service_of(name_of(subject, order)),
            "namespace": subject.key.namespace,
            "labels": labels,
            "ownerReferences": [owner_of(subject)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def useless_services(
    services: Sequence[StageService], jobs: Sequence[StageJob], orders: Sequence[StageOrder]
) -> list[StageService]:
    """Services whose Job is gone, or goes, and is not about to be made."""
    needed = {job.key for job in jobs} | {order.key for order in orders}
    return [service for service in services if service.key not in needed and not service.deleted]


def missing_services(services: Sequence[StageService], jobs: Sequence[StageJob]) -> list[StageOrder]:
    """Attempts of several pods that go on and have no Service: somebody deleted it."""
    served = {service.key for service in services}
    lacking = (job for job in jobs if job.nodes > 1 and not (job.ended or job.deleted))
    return [StageOrder(job.run, job.stage, job.attempt) for job in lacking if job.key not in served]
