"""The control group of the node's pods: version 1 with its controllers apart, hybrid, or version 2."""

import contextlib
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
ROOT = "/finetuning"
CONTROLLERS = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")


def create() -> None:
    """Make the group under every hierarchy."""
    for hierarchy in _hierarchies():
        group = hierarchy / ROOT.strip("/")
        group.mkdir(exist_ok=True)
        # A version 1 group has no processors until it is given some.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / file).exists():
                (group / file).write_text((hierarchy / file).read_text())
        for control in (hierarchy, group):
            _enable_controllers(control)


def remove() -> None:
    """Remove the group with all groups below it; their processes have ended."""
    for hierarchy in _hierarchies():
        root = hierarchy / ROOT.strip("/")
        for group in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
            group.rmdir()
        if root.exists():
            root.rmdir()


def _hierarchies() -> list[Path]:
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    return sorted({path.resolve() for path in MOUNT.iterdir() if (path / "cgroup.procs").exists()})


def _enable_controllers(group: Path) -> None:
    for controller in CONTROLLERS if (group / "cgroup.subtree_control").exists() else ():
        # Not every kernel has every controller.
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
