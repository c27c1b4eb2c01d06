"""What the pods keep files in: scratch space, volume claims, certificates. Pure."""

from finetune_api.contract import CACHE_PATH, CLAIMS_PATH
from finetune_api.job import FineTuneJobSpec
from finetune_operator.orders import Manifest
from finetune_operator.settings import Settings

CA_PATH = "/etc/finetune/ca"


def claims_of(spec: FineTuneJobSpec) -> list[str]:
    """Names of the volume claims that pvc:// URIs point to, each once."""
    uris = (spec.model.uri, spec.dataset.uri, spec.output.uri)
    return list(dict.fromkeys(uri.split("/")[2] for uri in uris if uri.startswith("pvc://")))


def build_volumes(spec: FineTuneJobSpec, settings: Settings) -> list[Manifest]:
    """The volumes of a pod."""
    volumes: list[Manifest] = [
        {"name": "cache", "emptyDir": {"sizeLimit": spec.resources.storage}},
        {"name": "tmp", "emptyDir": {"sizeLimit": spec.resources.storage}},
    ]
    volumes += [
        {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, claim in enumerate(claims_of(spec))  # a claim's name may be longer than a volume's, and have dots
    ]
    if settings.trainer_ca_config_map:
        volumes.append({"name": "ca", "configMap": {"name": settings.trainer_ca_config_map}})
    return volumes


def build_mounts(spec: FineTuneJobSpec, settings: Settings) -> list[Manifest]:
    """Where its container finds them."""
    mounts: list[Manifest] = [{"name": "cache", "mountPath": CACHE_PATH}, {"name": "tmp", "mountPath": "/tmp"}]
    mounts += [
        {"name": f"claim-{number}", "mountPath": f"{CLAIMS_PATH}/{claim}"}
        for number, claim in enumerate(claims_of(spec))
    ]
    if settings.trainer_ca_config_map:
        mounts.append({"name": "ca", "mountPath": CA_PATH, "readOnly": True})
    return mounts
