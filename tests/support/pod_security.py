"""The Pod Security Standard `restricted`, as Kubernetes' documentation states it, field by field."""

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
HOST = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")
ANNOTATIONS = ("container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/")

Object = dict[str, Any]


def find_violations(template: Object) -> list[str]:
    """Everything in a pod template that the standard forbids."""
    pod = template["spec"]
    found = [f"{name} is set" for name in HOST if pod.get(name)]
    found += [
        f"annotation {name}" for name in template["metadata"].get("annotations", {}) if name.startswith(ANNOTATIONS)
    ]
    found += [f"volume {volume['name']}" for volume in pod.get("volumes", []) if not set(volume) - {"name"} <= VOLUMES]
    context = pod.get("securityContext", {})
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.append("seccompProfile")
    if context.get("sysctls") or context.get("seLinuxOptions") or context.get("windowsOptions"):
        found.append("sysctls, seLinuxOptions or windowsOptions")
    for part in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(part, []):
            found += [f"{container['name']}: {problem}" for problem in _of_container(container, context)]
    return found


def _of_container(container: Object, pod: Object) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("privileged") or context.get("procMount", "Default") != "Default":
        yield "privileged or procMount"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are not dropped"
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if context.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runAsUser is 0"
    if "seccompProfile" in context and context["seccompProfile"]["type"] == "Unconfined":
        yield "seccompProfile is Unconfined"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "hostPort"
