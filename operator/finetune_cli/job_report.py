"""`report`: what a finished run found, and where it is."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from finetune_api.run import result_at
from finetune_cli.cluster import ClusterError, LiveJob
from finetune_cli.comparison import print_comparison
from finetune_cli.layout import print_line
from finetune_trainer.wording import byte_size

ONLY_INSIDE = ("file://", "pvc://")


def print_job_report(console: Console, live: LiveJob) -> None:
    """Metrics with their intervals, and the places of report and adapter. Raises ClusterError."""
    status = live.status
    folder = run_folder(live)
    run = folder.rpartition("/")[2]
    console.print(Text(f"{live.job.metadata.namespace}/{live.job.metadata.name}  run {run}", style="bold"))
    console.print()
    result = result_at(status.adapter.uri) if status.adapter else "adapter"
    if status.evaluation is not None:
        print_comparison(console, status.evaluation, result)
    if status.adapter is not None:
        place = f"{result.capitalize()}:"
        print_line(console, f"{place:<8} {status.adapter.uri} ({byte_size(status.adapter.size_bytes)})")
        print_line(console, f"         {status.adapter.digest}")
        if status.adapter.merged_uri is not None:
            print_line(console, f"Merged:  {status.adapter.merged_uri}")
    print_line(console, f"Report:  {folder}/report.html")
    if status.current is not None and status.current.run_id != run:
        print_line(console, f"In use:  {status.current.uri}, of the earlier run {status.current.run_id}")


def save_report(live: LiveJob, file: Path) -> None:
    """Download the page of the run. Raises ClusterError or RunError."""
    folder = run_folder(live)
    if folder.startswith(ONLY_INSIDE):
        raise ClusterError(
            f"{folder} is only reachable inside the cluster. Copy report.html from a pod that mounts it."
        )
    try:
        from finetune_trainer.store import open_store
    except ImportError as error:
        message = "Downloading needs the store client: pip install 'finetune-operator[trainer]'."
        raise ClusterError(message) from error
    page = open_store(folder).read("report.html")
    try:
        file.write_bytes(page)
    except OSError as error:
        raise ClusterError(f"{file} cannot be written: {error.strerror}.") from error


def run_folder(live: LiveJob) -> str:
    """Where the current run is stored. Raises ClusterError if it is not complete."""
    status, metadata = live.status, live.job.metadata
    if status.run is None or status.run.id is None or status.run.outcome not in ("Succeeded", "Rejected"):
        raise ClusterError(f"The current run of {metadata.name} has no report yet. It is {live.standing}")
    root = live.job.spec.output.uri.rstrip("/")
    return f"{root}/{metadata.namespace}/{metadata.name}/runs/{status.run.id}"
