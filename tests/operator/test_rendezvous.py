"""How pods that train together find each other: an index, names, and the Service that is there when they are."""

import re
from typing import Any

import pytest

from finetune_api.contract import INDEX_LABEL, NODES_LABEL, RENDEZVOUS_PORT
from finetune_operator.observed import StageName
from finetune_operator.orders import StageOrder
from finetune_operator.rendezvous import build_service, leader_of, missing_services, service_of, useless_services
from finetune_operator.workloads import build_job
from support.objects import SETTINGS, Object, make_job, make_order, make_pod, make_service, make_subject

SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
"""What Kubernetes allows (RFC 1035); a Job's name may begin with a digit."""
ALONE, PAIR = make_subject(), make_subject(resources={"nodes": 2, "gpus": 4})
FIRST, SECOND = make_order(), make_order(attempt=2)


def built(order: StageOrder = FIRST, name: str = "clinic-triage", **resources: Any) -> Object:
    return build_job(make_subject(name=name, resources=resources), order, SETTINGS)


def variables_of(job: Object) -> dict[str, str]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


# Names.


@pytest.mark.parametrize("name", ["a", "clinic-triage", "7b", "x" * 63, "7" * 63, "a" * 35 + "-" + "b" * 27])
def test_the_others_call_the_first_pod_by_the_name_that_kubernetes_gives_it(name: str) -> None:
    order, subject = make_order(attempt=101), make_subject(name=name, resources={"nodes": 64})
    job, service = build_job(subject, order, SETTINGS), build_service(subject, order)
    pod = job["spec"]["template"]["spec"]

    # An Indexed Job gives its pods the host names JOB-INDEX.
    assert variables_of(job)["FINETUNE_LEADER"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert len(f"{job['metadata']['name']}-63") <= 63
    assert len(service["metadata"]["name"]) <= 63
    assert SERVICE_NAME.fullmatch(service["metadata"]["name"])


def test_a_service_has_the_name_of_its_job_where_kubernetes_allows_it() -> None:
    assert service_of("clinic-3f9a1c2b-train-1") == "clinic-3f9a1c2b-train-1"
    assert service_of("7b-3f9a1c2b-train-1") == "job-7b-3f9a1c2b-train-1"
    assert leader_of("7b-3f9a1c2b-train-1") == "7b-3f9a1c2b-train-1-0.job-7b-3f9a1c2b-train-1"


# Jobs.


def test_each_pod_is_told_how_many_there_are_and_where_they_meet() -> None:
    told = variables_of(built(nodes=2, gpus=8))

    assert (told["FINETUNE_NODES"], told["FINETUNE_PROCESSES"]) == ("2", "8")
    assert told["FINETUNE_RENDEZVOUS_PORT"] == str(RENDEZVOUS_PORT)


@pytest.mark.parametrize(("gpus", "want"), [(0, "1"), (1, "1"), (4, "4")])
def test_a_pod_that_trains_alone_has_a_process_for_each_accelerator_and_nobody_to_look_for(
    gpus: int, want: str
) -> None:
    told = variables_of(built(gpus=gpus))

    assert (told["FINETUNE_NODES"], told["FINETUNE_PROCESSES"]) == ("1", want)
    assert "FINETUNE_LEADER" not in told


@pytest.mark.parametrize("stage", ["prepare", "check"])
def test_however_many_train_one_pod_prepares_and_looks(stage: StageName) -> None:
    job, alone = built(make_order(stage), nodes=4), built(make_order(stage))

    assert variables_of(job).items() - variables_of(alone).items() == {
        ("FINETUNE_JOB", variables_of(job)["FINETUNE_JOB"])
    }
    assert not [name for name in variables_of(job) if name in ("FINETUNE_NODES", "FINETUNE_PROCESSES")]
    assert "completions" not in job["spec"]
    assert job["spec"]["template"]["metadata"] == alone["spec"]["template"]["metadata"]
    assert "subdomain" not in job["spec"]["template"]["spec"]


def test_several_pods_have_an_index_each_and_are_done_when_the_first_is() -> None:
    spec = built(nodes=4)["spec"]

    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 4)
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "Ignore"]
    assert spec["backoffLimit"] == 0


def test_pods_that_train_together_are_known_to_network_policies_and_no_others_are() -> None:
    together, alone = (built(nodes=nodes)["spec"]["template"]["metadata"]["labels"] for nodes in (2, 1))

    assert together[NODES_LABEL] == "2"
    assert NODES_LABEL not in alone


def test_one_pod_is_the_plain_job_it_always_was() -> None:
    alone = built()["spec"]

    assert not {"completionMode", "completions", "parallelism", "successPolicy"} & alone.keys()
    assert "subdomain" not in alone["template"]["spec"]


# Services.


def test_the_service_names_pods_that_are_not_ready_and_finds_those_of_its_job_alone() -> None:
    service, pod = build_service(PAIR, FIRST), make_pod(make_job(PAIR, FIRST), index=1).raw["metadata"]["labels"]
    other = make_pod(make_job(PAIR, SECOND)).raw["metadata"]["labels"]

    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"].items() <= pod.items()
    assert not service["spec"]["selector"].items() <= other.items()
    assert pod[INDEX_LABEL] == "1"


def test_the_service_goes_with_its_finetunejob() -> None:
    (owner,) = build_service(PAIR, FIRST)["metadata"]["ownerReferences"]

    assert (owner["kind"], owner["uid"], owner["blockOwnerDeletion"]) == ("FineTuneJob", PAIR.uid, False)


def test_a_service_is_kept_for_a_job_that_is_there_or_about_to_be_made() -> None:
    first, second = make_service(PAIR, FIRST).view(), make_service(PAIR, SECOND).view()
    jobs = [make_job(PAIR, FIRST).failed().view()]

    assert useless_services([first, second], jobs, []) == [second]
    assert useless_services([first, second], jobs, [SECOND]) == []
    assert useless_services([first, second], [], []) == [first, second]


def test_a_service_that_is_on_its_way_out_is_not_deleted_again() -> None:
    leaving = make_service(PAIR, FIRST)
    leaving.raw["metadata"]["deletionTimestamp"] = "2026-11-23T09:00:00Z"

    assert useless_services([leaving.view()], [], []) == []


def test_a_job_of_several_pods_that_lost_its_service_gets_another_as_long_as_it_goes_on() -> None:
    going, ended = make_job(PAIR, FIRST), make_job(PAIR, SECOND).complete()
    alone = make_job(ALONE, make_order(attempt=3))

    (order,) = missing_services([], [job.view() for job in (going, ended, alone)])
    assert (order.run, order.stage, order.attempt) == (FIRST.run, "train", 1)
    assert build_service(PAIR, order) == build_service(PAIR, FIRST)
    assert missing_services([make_service(PAIR, FIRST).view()], [going.view()]) == []
