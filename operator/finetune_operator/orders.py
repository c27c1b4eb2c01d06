"""One attempt at a stage: what is asked for, and how all that is made for it is named, labelled and owned. Pure."""

import hashlib
from dataclasses import dataclass
from typing import Any

from finetune_api.contract import ATTEMPT_LABEL, JOB_LABEL, MANAGED_BY_LABEL, MANAGER, RUN_LABEL, STAGE_LABEL
from finetune_api.identity import canonical
from finetune_api.job import API_VERSION, KIND, FineTuneJobSpec
from finetune_operator.observed import StageName, Subject

NAME_KEPT = 36
"""Characters of the job's name that its children carry; labels and pod names end at 63."""

Manifest = dict[str, Any]


@dataclass(frozen=True)
class StageOrder:
    """One attempt at one stage of one run."""

    run: str
    stage: StageName
    attempt: int
    run_id: str | None = None
    """Known once the data was prepared."""
    digest: str | None = None
    micro_batch_tokens: int | None = None
    """Instead of the manifest's, after a failure for want of memory."""
    deadline_seconds: int | None = None

    @property
    def key(self) -> tuple[str, StageName, int]:
        """The attempt, as the children that are made for it know it."""
        return self.run, self.stage, self.attempt


def run_key(uid: str, spec_digest: str, token: str) -> str:
    """Eight hex digits that name a run's children: equal for equal reasons to run, across restarts of the operator."""
    return digest_of(uid, spec_digest, token)


def digest_of(*parts: object) -> str:
    """Eight hex digits that are equal for equal parts."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:8]


def name_of(subject: Subject, order: StageOrder) -> str:
    """Name of the Job, for instance clinic-triage-3f9a1c2b-train-1."""
    return f"{subject.key.name[:NAME_KEPT].rstrip('-')}-{order.run}-{order.stage}-{order.attempt}"


def nodes_of(spec: FineTuneJobSpec, order: StageOrder) -> int:
    """How many pods carry out the stage together."""
    return spec.resources.nodes if order.stage == "train" else 1


def labels_of(subject: Subject, order: StageOrder) -> dict[str, str]:
    """Labels by which all that was made for the attempt is found."""
    return {
        MANAGED_BY_LABEL: MANAGER,
        JOB_LABEL: subject.key.name,
        RUN_LABEL: order.run,
        STAGE_LABEL: order.stage,
        ATTEMPT_LABEL: str(order.attempt),
    }


def owner_of(subject: Subject) -> Manifest:
    """Owner reference: what has it is removed with the FineTuneJob."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": subject.key.name,
        "uid": subject.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
