"""The node's own mount, process and network namespaces, and its link to the machine.

Killing their first process ends all their processes and removes their mounts, addresses, routes and packet filters.
They have no way out: what a pod sends to the world is refused.
"""

import os
import signal
import subprocess
from pathlib import Path

from cluster import processes

FIRST = Path(__file__).parent / "configuration" / "namespaces.sh"
NAME = "namespaces"
# The range for benchmarks (RFC 2544), which no network of a user's machine has.
RANGE = "198.18.0.0/15"
PODS = "198.18.0.0/24"
SERVICES = "198.19.0.0/24"
MACHINE_ADDRESS = "198.18.1.1"
NODE_ADDRESS = "198.18.1.2"
LINK = "finetuning"
LAST_RESORT = "4000000000"
START_SECONDS = 20.0


def create(folder: Path) -> None:
    """Make the namespaces with data in `folder`, and routes from the machine to their pods and services."""
    flags = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
    (folder / "entered").unlink(missing_ok=True)
    processes.start(folder, NAME, ["unshare", *flags, "sh", str(FIRST), str(folder)])
    processes.wait_for(folder, NAME, (folder / "entered").exists, START_SECONDS)
    # Without the link, an address of a pod would be looked for in the world.
    _ip("route", "replace", "blackhole", RANGE, "metric", LAST_RESORT)
    _ip("link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", str(_find_first(folder)))
    _ip("address", "add", f"{MACHINE_ADDRESS}/30", "dev", LINK)
    _ip("link", "set", LINK, "up")
    inside = ["nsenter", f"--net=/proc/{_find_first(folder)}/ns/net"]
    for arguments in (
        ("address", "add", f"{NODE_ADDRESS}/30", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        # The node's own packets to a service need some route before kube-proxy's rules turn them elsewhere.
        ("route", "add", SERVICES, "dev", "eth0"),
    ):
        subprocess.run([*inside, "ip", *arguments], check=True)
    for network in (PODS, SERVICES):
        _ip("route", "add", network, "via", NODE_ADDRESS)


def enter(folder: Path) -> list[str]:
    """What comes before a command that runs inside and ends with the process that was started."""
    target = f"--target={_find_first(folder)}"
    return ["nsenter", target, "--mount", "--net", "--pid", "--", "setpriv", "--pdeathsig=TERM", "--"]


def enter_network(folder: Path) -> list[str]:
    """What comes before a command that runs on the machine, but in the node's network."""
    return ["nsenter", f"--net=/proc/{_find_first(folder)}/ns/net", "--"]


def destroy(folder: Path) -> None:
    """End everything inside, at once, and wait until it has ended."""
    if processes.is_alive(folder, NAME):
        # Its parent ends only after every process inside has ended.
        os.kill(_find_first(folder), signal.SIGKILL)
    processes.stop(folder, NAME)
    for arguments in (("link", "delete", LINK), ("route", "delete", "blackhole", RANGE)):
        subprocess.run(["ip", *arguments], capture_output=True)


def _find_first(folder: Path) -> int:
    # Seen from the machine, the first process of the namespaces is the child of the one that made them.
    parent = processes.read_pid(folder, NAME)
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text())


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
