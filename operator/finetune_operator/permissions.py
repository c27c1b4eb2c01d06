"""Every right that the operator uses. RBAC manifests are made from this table; a test fails on one too many or few."""

from dataclasses import dataclass
from typing import Literal

from finetune_api.crd import PLURAL
from finetune_api.job import GROUP

Scope = Literal["jobs", "operator", "cluster"]


@dataclass(frozen=True)
class Permission:
    """One rule of a Role."""

    group: str
    """API group; empty for the core group."""
    resource: str
    verbs: tuple[str, ...]
    scope: Scope
    """jobs: wherever jobs run; operator: in the operator's own namespace; cluster: things without a namespace."""
    reason: str
    names: tuple[str, ...] = ()
    """Only objects of these names; empty for all."""


PERMISSIONS = (
    Permission(GROUP, PLURAL, ("get", "list", "watch"), "jobs", "the jobs to carry out"),
    Permission(GROUP, f"{PLURAL}/status", ("patch",), "jobs", "to say how they stand"),
    Permission("batch", "jobs", ("create", "delete", "list", "watch"), "jobs", "stages of a run"),
    Permission("", "pods", ("list", "watch"), "jobs", "why a stage waits, and the trainer's last word"),
    Permission(
        "", "services", ("create", "delete", "list", "watch"), "jobs", "how pods that train together find each other"
    ),
    Permission("", "events", ("create", "list"), "jobs", "to tell the story; to learn why a pod could not be made"),
    Permission("coordination.k8s.io", "leases", ("create",), "operator", "one of several replicas leads"),
    Permission(
        "coordination.k8s.io",
        "leases",
        ("get", "update"),
        "operator",
        "one of several replicas leads",
        ("finetune-operator",),
    ),
)
