"""What the operator reads from its environment."""

import pytest
from pydantic import ValidationError

from finetune_operator.settings import InvalidSettings, Settings, read_settings

IMAGE = {"FINETUNE_TRAINER_IMAGE": "registry.example/finetune-trainer@sha256:feed"}


def test_only_the_image_must_be_given() -> None:
    settings = read_settings(IMAGE)

    assert settings.trainer_image == "registry.example/finetune-trainer@sha256:feed"
    assert settings.leader_election
    assert settings.watch_namespaces == ()
    assert settings.trainer_env == {}


def test_every_field_has_its_variable() -> None:
    given = {
        "FINETUNE_TRAINER_IMAGE": "trainer",
        "FINETUNE_IMAGE_PULL_POLICY": "Always",
        "FINETUNE_IMAGE_PULL_SECRETS": "registry, mirror,",
        "FINETUNE_TRAINER_ENV": '{"HTTPS_PROXY": "http://proxy.example:3128"}',
        "FINETUNE_TRAINER_CA_CONFIG_MAP": "company-ca",
        "FINETUNE_WATCH_NAMESPACES": "clinic,lab",
        "FINETUNE_NAMESPACE": "ml",
        "FINETUNE_LEASE_NAME": "finetune",
        "FINETUNE_LEADER_ELECTION": "false",
        "FINETUNE_POD_NAME": "operator-0",
        "FINETUNE_WORKERS": "4",
        "FINETUNE_PROGRESS_SECONDS": "2.5",
        "FINETUNE_RETRY_BASE_SECONDS": "1",
        "FINETUNE_METRICS_PORT": "9090",
        "FINETUNE_HEALTH_PORT": "9091",
        "FINETUNE_WATCH_STALE_SECONDS": "60",
        "FINETUNE_LOG_LEVEL": "DEBUG",
    }
    assert {f"FINETUNE_{name.upper()}" for name in Settings.model_fields} == set(given)

    settings = read_settings(given)

    assert settings.image_pull_secrets == ("registry", "mirror")
    assert settings.trainer_env == {"HTTPS_PROXY": "http://proxy.example:3128"}
    assert settings.watch_namespaces == ("clinic", "lab")
    assert settings.leader_election is False
    assert (settings.workers, settings.progress_seconds, settings.metrics_port) == (4, 2.5, 9090)


def test_variables_that_are_empty_or_meant_for_others_do_not_matter() -> None:
    others = {"FINETUNE_WORKERS": "", "FINETUNE_SOMETHING": "x", "PATH": "/bin", "WORKERS": "3"}

    assert read_settings(IMAGE | others) == read_settings(IMAGE)


@pytest.mark.parametrize(
    ("variable", "value", "want"),
    [
        ("FINETUNE_WORKERS", "0", "FINETUNE_WORKERS: "),
        ("FINETUNE_WORKERS", "many", "FINETUNE_WORKERS: "),
        ("FINETUNE_PROGRESS_SECONDS", "0", "FINETUNE_PROGRESS_SECONDS: "),
        ("FINETUNE_METRICS_PORT", "70000", "FINETUNE_METRICS_PORT: "),
        ("FINETUNE_LEADER_ELECTION", "perhaps", "FINETUNE_LEADER_ELECTION: "),
        ("FINETUNE_LOG_LEVEL", "LOUD", "FINETUNE_LOG_LEVEL: "),
        ("FINETUNE_IMAGE_PULL_POLICY", "Sometimes", "FINETUNE_IMAGE_PULL_POLICY: "),
        ("FINETUNE_TRAINER_ENV", "HTTPS_PROXY=x", "FINETUNE_TRAINER_ENV: "),
        ("FINETUNE_TRAINER_ENV", '["HTTPS_PROXY"]', "FINETUNE_TRAINER_ENV: "),
        ("FINETUNE_TRAINER_ENV", '{"HTTPS_PROXY": 1}', "FINETUNE_TRAINER_ENV: "),
    ],
)
def test_a_variable_without_meaning_is_named(variable: str, value: str, want: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_settings(IMAGE | {variable: value})

    assert want in str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_settings({"FINETUNE_WORKERS": "0", "FINETUNE_LOG_LEVEL": "LOUD"})

    for variable in ("FINETUNE_TRAINER_IMAGE", "FINETUNE_WORKERS", "FINETUNE_LOG_LEVEL"):
        assert f"{variable}: " in str(caught.value)


def test_settings_do_not_change() -> None:
    settings = read_settings(IMAGE)

    with pytest.raises(ValidationError):
        settings.workers = 2  # type: ignore[misc]
