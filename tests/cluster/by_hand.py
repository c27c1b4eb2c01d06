"""The tests' own Kubernetes by hand, to look at what a test did."""

import time

from cluster.binaries import SOURCES, find_binary
from cluster.node import FOLDER, Node, claim, remove_node
from cluster.packages import install_missing

USAGE = """usage: python tests/cluster up | down | build | install
  up       one node on this machine, as root; prints the line that lets kubectl find it
  down     end it and remove every trace
  build    only find or build the binaries of Kubernetes (ten minutes the first time)
  install  only install the Debian packages that the node needs, as root"""


def main(arguments: list[str]) -> int:
    """Do what the only argument says; return the exit status."""
    actions = {"up": bring_up, "down": take_down, "build": build, "install": install_missing}
    if len(arguments) != 1 or arguments[0] not in actions:
        print(USAGE)
        return 2
    try:
        actions[arguments[0]]()
    except RuntimeError as error:
        print(error)
        return 1
    return 0


def bring_up() -> None:
    """Start a node that stays."""
    build()
    started = time.monotonic()
    node = Node()
    node.start(guarded=False)
    print(f"The node is ready after {time.monotonic() - started:.0f} s. `python tests/cluster down` ends it.")
    print(f"export KUBECONFIG={node.plane.kubeconfig}")


def take_down() -> None:
    """End the node, unless a test uses it."""
    with claim(FOLDER, ending=True):
        remove_node(FOLDER)


def build() -> None:
    """Find or build every binary."""
    for name in SOURCES:
        print(f"{name}: {find_binary(name)}")
