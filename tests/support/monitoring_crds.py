"""The resources of the Prometheus operator, from its Go module."""

import json
import subprocess
import tempfile
from pathlib import Path

from cluster.binaries import find_go

MODULE = "github.com/prometheus-operator/prometheus-operator"
VERSION = "v0.85.0"
SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
KINDS = ("podmonitors", "prometheusrules", "servicemonitors")


def find_monitoring_crds() -> list[Path]:
    """Files of the CRDs that the chart makes objects of; the module, 4 MB, is downloaded once."""
    command = [find_go(), "mod", "download", "-json", f"{MODULE}@{VERSION}"]
    with tempfile.TemporaryDirectory() as folder:
        told = json.loads(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout)
    assert told["Sum"] == SUM
    examples = Path(told["Dir"], "example", "prometheus-operator-crd")
    return [examples / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]
