"""Roles of Kubernetes, made from the table of permissions. Pure."""

from collections.abc import Sequence
from typing import Any

from finetune_api.crd import PLURAL
from finetune_api.job import GROUP, KIND
from finetune_operator.permissions import PERMISSIONS, Permission, Scope

RBAC_VERSION = "rbac.authorization.k8s.io/v1"
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to"
OPERATOR = "finetune-operator"
OPERATOR_NAMESPACE = "finetune-system"
SCOPES: tuple[Scope, ...] = ("jobs", "operator", "cluster")
READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")

Rule = dict[str, Any]
Manifest = dict[str, Any]


def build_rules() -> dict[str, list[Rule]]:
    """Rules by where they apply: the operator's three scopes, and `view` and `edit` for people."""
    users = {"view": [_rule(GROUP, PLURAL, READ)], "edit": [_rule(GROUP, PLURAL, READ + WRITE)]}
    return {scope: rules_of(scope) for scope in SCOPES} | users


def rules_of(scope: Scope) -> list[Rule]:
    """The operator's rules of one scope."""
    return [rule_of(permission) for permission in PERMISSIONS if permission.scope == scope]


def rule_of(permission: Permission) -> Rule:
    """One rule of a Role."""
    named = {"resourceNames": list(permission.names)} if permission.names else {}
    return _rule(permission.group, permission.resource, permission.verbs) | named


def build_operator_roles(watched: Sequence[str] = ()) -> list[Manifest]:
    """What the operator needs: a ClusterRole, or a Role in each watched namespace; and a Role in its own namespace."""
    cluster = [_role("ClusterRole", {"name": OPERATOR}, rules_of("jobs") + rules_of("cluster"))]
    narrow = [_role("Role", {"name": OPERATOR, "namespace": namespace}, rules_of("jobs")) for namespace in watched]
    leader = {"name": f"{OPERATOR}-leader", "namespace": OPERATOR_NAMESPACE}
    return [*(narrow or cluster), _role("Role", leader, rules_of("operator"))]


def build_user_roles() -> list[Manifest]:
    """ClusterRoles that add the jobs to Kubernetes' own roles view, edit and admin."""
    rules = build_rules()
    targets = {"view": ("view", "edit", "admin"), "edit": ("edit", "admin")}
    return [
        _role("ClusterRole", {"name": f"{KIND.lower()}-{name}", "labels": _aggregated(roles)}, rules[name])
        for name, roles in targets.items()
    ]


def _aggregated(roles: tuple[str, ...]) -> dict[str, str]:
    return {f"{AGGREGATE}-{role}": "true" for role in roles}


def _rule(group: str, resource: str, verbs: tuple[str, ...]) -> Rule:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


def _role(kind: str, metadata: dict[str, Any], rules: list[Rule]) -> Manifest:
    return {"apiVersion": RBAC_VERSION, "kind": kind, "metadata": metadata, "rules": rules}
