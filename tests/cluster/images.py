"""Container images without a registry: a base from Debian's packages, builds by buildah, import into containerd."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cluster import namespaces
from cluster.binaries import build_go_file, find_static_binary
from cluster.build_settings import write_build_settings

CACHE = Path(__file__).parents[2] / ".cache" / "images"
PAUSE_SOURCE = Path(__file__).parent / "pause" / "pause.go"
BASE_IMAGE = "localhost/base:trixie"
PAUSE_IMAGE = "localhost/pause:tests"
S3_IMAGE = "localhost/versitygw:tests"
SUITE = "trixie"
BASE_PACKAGES = ("ca-certificates", "python-is-python3", "python3", "python3-pip", "python3-venv")
# Downloads, logs, and what debootstrap took over from this machine.
NOT_IN_BASE = ("var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "dev/*", "etc/hostname", "etc/resolv.conf")
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


def make_base() -> str:
    """The image that stands in for `python:3.13-slim`: Debian with Python. Some 40 s once, then cached."""
    archive = CACHE / f"base-{SUITE}.tar"
    if not archive.exists():
        _bootstrap(archive)
    if not has_image(BASE_IMAGE):
        _build_from_files("FROM scratch\nADD base.tar /\n", {"base.tar": archive}, BASE_IMAGE)
    return BASE_IMAGE


def make_pause() -> str:
    """The image of the container that holds a pod's namespaces: one static program."""
    dockerfile = 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n'
    _build_from_files(dockerfile, {"pause": build_go_file(PAUSE_SOURCE)}, PAUSE_IMAGE)
    return PAUSE_IMAGE


def make_s3() -> str:
    """The image of the S3 server: one static program, too."""
    dockerfile = 'FROM scratch\nCOPY versitygw /versitygw\nENTRYPOINT ["/versitygw"]\n'
    _build_from_files(dockerfile, {"versitygw": find_static_binary("versitygw")}, S3_IMAGE)
    return S3_IMAGE


def build_image(dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str] | None = None) -> str:
    """Build `tag` (with its registry's part, `localhost/…`); steps that did not change come from the cache.

    The machine's certificates and package index are there while it is built, and not in the image.
    """
    settings = write_build_settings(CACHE / "settings")
    flags = [
        "--isolation=chroot",
        "--layers",
        "--quiet",
        *(f"--volume={ours}:{theirs}:ro" for theirs, ours in settings.items()),
        *(f"--build-arg={name}={value}" for name, value in (arguments or {}).items()),
    ]
    _buildah("bud", *flags, f"--file={dockerfile}", f"--tag={tag}", str(context))
    return tag


def has_image(tag: str) -> bool:
    """Whether `tag` was built before."""
    command = [*_command("inspect"), "--type=image", tag]
    return subprocess.run(command, env=_environment(), capture_output=True).returncode == 0


def load_image(node_folder: Path, tag: str) -> None:
    """Give a node an image: a stream into containerd, for an archive of gigabytes would be one more copy of them."""
    # Of buildah's formats only Docker's leaves the layers as they are; the others compress them on the way.
    pushed = shlex.join([*_command("push"), "--quiet", tag, f"docker-archive:/dev/stdout:{tag}"])
    imported = shlex.join([*namespaces.enter(node_folder), "ctr", "--namespace=k8s.io", "images", "import", "-"])
    _run(["bash", "-c", f"set -o pipefail; {pushed} | {imported}"])


def _bootstrap(archive: Path) -> None:
    with tempfile.TemporaryDirectory(dir=_make_cache()) as folder:
        root, packed = Path(folder) / "root", Path(folder) / "base.tar"
        include = f"--include={','.join(BASE_PACKAGES)}"
        _run(["debootstrap", "--variant=minbase", include, SUITE, str(root)])
        left_out = [f"--exclude=./{path}" for path in NOT_IN_BASE]
        _run(["tar", "--create", f"--file={packed}", "--numeric-owner", *left_out, f"--directory={root}", "."])
        packed.replace(archive)


def _build_from_files(dockerfile: str, files: Mapping[str, Path], tag: str) -> None:
    with tempfile.TemporaryDirectory(dir=_make_cache()) as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text(dockerfile)
        for name, path in files.items():
            _run(["cp", "--reflink=auto", str(path), str(context / name)])
        _buildah("bud", "--isolation=chroot", "--layers", "--quiet", f"--tag={tag}", folder)


def _buildah(*arguments: str) -> None:
    _run([*_command(arguments[0]), *arguments[1:]])


def _command(verb: str) -> list[str]:
    policy = _make_cache() / "policy.json"
    policy.write_text(POLICY)
    storage = [f"--root={CACHE / 'storage'}", f"--runroot={CACHE / 'run'}", "--storage-driver=overlay"]
    return ["buildah", *storage, verb, *([] if verb == "inspect" else [f"--signature-policy={policy}"])]


def _environment() -> dict[str, str]:
    temporary = _make_cache() / "temporary"
    temporary.mkdir(exist_ok=True)
    return os.environ | {"TMPDIR": str(temporary)}


def _make_cache() -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


def _run(command: list[str]) -> None:
    done = subprocess.run(command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command[:3])} … failed:\n{done.stdout[-4000:]}")
