"""A running stage, as phase and sentence. Pure."""

from finetune_api.run import Progress, Stage
from finetune_api.status import Phase
from finetune_operator.crew import Crew, find_leaving
from finetune_operator.observed import StageName

PHASES: dict[Stage, Phase] = {
    "prepare": "Preparing",
    "train": "Training",
    "evaluate": "Evaluating",
    "publish": "Evaluating",
}


def phase_of(stage: StageName, prepared: bool, progress: Progress | None) -> Phase:
    """The phase of a stage whose pod runs. Rows that are prepared are only read once more."""
    if progress is None or (prepared and progress.stage == "prepare"):
        return "Preparing" if stage == "prepare" else "Training"
    return PHASES[progress.stage]


def describe(phase: Phase, progress: Progress | None) -> str:
    """A running stage in a few words. Numbers that change all the time stand in status.progress."""
    doing = {"Preparing": "Preparing the data", "Training": "Training", "Evaluating": "Comparing base and adapter"}[
        phase
    ]
    return f"{doing}: {progress.message}." if progress and progress.message else f"{doing}."


def describe_departure(crew: Crew) -> str | None:
    """What becomes of a stage one of whose pods was told to leave its node, if one was."""
    pod = find_leaving(crew)
    if pod is None:
        return None
    if len(crew) == 1:
        return f"The pod was told to leave node {pod.node}; it saves its work, and another goes on from there."
    return f"Pod {pod.index} was told to leave node {pod.node}; all stop and go on together from the last checkpoint."
