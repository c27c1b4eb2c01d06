"""Programs of Debian packages that the node needs."""

import os
import shutil
import subprocess
from pathlib import Path

LIST = Path(__file__).parent / "packages.txt"
CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
FOLDERS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *CNI_FOLDERS))


def find_program(name: str) -> Path | None:
    """Where a program is installed, CNI plugins included."""
    found = shutil.which(name, path=FOLDERS)
    return Path(found) if found else None


def find_missing() -> list[str]:
    """Packages of `packages.txt` whose program is not there."""
    rows = [line.split() for line in LIST.read_text().splitlines() if not line.startswith("#")]
    return [package for package, program in rows if find_program(program) is None]


def find_problem() -> str | None:
    """Why a node cannot be run here, in one sentence."""
    if os.geteuid() != 0:
        return "The tests' own Kubernetes node needs root: run as root, or set KUBECONFIG to a cluster."
    missing = " ".join(find_missing())
    if missing:
        return f"The tests' own Kubernetes node needs Debian packages: run `apt-get install {missing}` first."
    return None


def require_packages() -> None:
    """RuntimeError if a node cannot be run here."""
    problem = find_problem()
    if problem is not None:
        raise RuntimeError(problem)


def install_missing() -> None:
    """Install with apt-get what is missing; RuntimeError where that is not possible."""
    missing = find_missing()
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "--quiet"], env=quiet, check=True)
        command = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *missing]
        subprocess.run(command, env=quiet, check=True)
    require_packages()
