"""Models and datasets from folders and buckets: what is downloaded, what is refused, and with which words."""

import json
import uuid
from pathlib import Path

import pytest

from finetune_api.training import ModelSpec
from finetune_trainer.errors import DataRejected, ModelNotLoadable, StorageError
from finetune_trainer.fetch import FetchedData, fetch_dataset, fetch_model, is_data
from finetune_trainer.store import Store, open_store
from support.s3_server import S3Server

MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "tokenizer.model": b"pieces",
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": b"weights",
}
NEVER = {
    "pytorch_model.bin": b"pickle",
    "optimizer.pt": b"pickle",
    "modeling_custom.py": b"import os",
    "consolidated.safetensors": b"the same weights again",
    "original/model.safetensors": b"the same weights again",
}


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket."""
    s3_server.point_here(monkeypatch)
    return open_store(s3_server.make_bucket(f"bucket-{uuid.uuid4().hex[:12]}"))


def fill(store: Store, files: dict[str, bytes]) -> Store:
    for path, content in files.items():
        store.write(path, content)
    return store


def local(folder: Path, files: dict[str, bytes]) -> Store:
    return fill(open_store(f"file://{folder}"), files)


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def texts(data: FetchedData) -> list[bytes]:
    return [file.read_bytes() for file in data.files]


def spec(uri: str) -> ModelSpec:
    return ModelSpec(uri=uri)


def test_a_local_model_is_used_where_it_is(tmp_path: Path) -> None:
    model = local(tmp_path / "model", MODEL)
    assert fetch_model(spec(model.uri), tmp_path / "cache") == tmp_path / "model"
    assert not (tmp_path / "cache").exists()


def test_a_model_in_a_bucket_is_downloaded_without_anything_that_could_be_code(bucket: Store, tmp_path: Path) -> None:
    model = fill(bucket.under("models/base"), MODEL | NEVER)

    folder = fetch_model(spec(model.uri), tmp_path)

    assert names_below(folder) == set(MODEL)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert names_below(tmp_path) == {(folder / name).relative_to(tmp_path).as_posix() for name in MODEL}


def test_without_weights_the_rest_arrives_and_the_weights_join_it_later(bucket: Store, tmp_path: Path) -> None:
    model = fill(bucket.under("base"), MODEL)

    folder = fetch_model(spec(model.uri), tmp_path, weights=False)
    assert names_below(folder) == set(MODEL) - {"model.safetensors"}

    assert fetch_model(spec(model.uri), tmp_path) == folder
    assert names_below(folder) == set(MODEL)


def test_an_unchanged_file_is_not_downloaded_again_and_a_changed_one_is(bucket: Store, tmp_path: Path) -> None:
    model = fill(bucket.under("base"), MODEL)
    folder = fetch_model(spec(model.uri), tmp_path)
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")

    again = fetch_model(spec(model.uri), tmp_path)
    assert (again / "model.safetensors").read_bytes() == b"WEIGHTS"

    model.write("model.safetensors", b"newer weights")
    changed = fetch_model(spec(model.uri), tmp_path)
    assert (changed / "model.safetensors").read_bytes() == b"newer weights"


def test_a_file_that_a_killed_download_left_short_is_downloaded_again(bucket: Store, tmp_path: Path) -> None:
    model = fill(bucket.under("base"), MODEL)
    folder = fetch_model(spec(model.uri), tmp_path)
    (folder / "model.safetensors").write_bytes(b"wei")

    fetch_model(spec(model.uri), tmp_path)

    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_missing_model_names_its_uri(bucket: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for uri in (f"file://{tmp_path}/no-model", f"file://{tmp_path}/empty", bucket.uri_of("base")):
        with pytest.raises(ModelNotLoadable, match=f"{uri} does not exist or is empty"):
            fetch_model(spec(uri), tmp_path)
    with pytest.raises(ModelNotLoadable, match="the bucket s3://no-such-bucket does not exist"):
        fetch_model(spec("s3://no-such-bucket/base"), tmp_path)


def test_a_folder_without_configuration_is_no_model(tmp_path: Path) -> None:
    model = local(tmp_path / "model", {"model.safetensors": b""})
    with pytest.raises(ModelNotLoadable, match=r"is no model: it holds no config\.json"):
        fetch_model(spec(model.uri), tmp_path)


@pytest.mark.parametrize("weights", [True, False])
def test_a_model_with_pickled_weights_only_is_refused_with_the_way_to_convert_it(tmp_path: Path, weights: bool) -> None:
    model = local(tmp_path / "model", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(ModelNotLoadable, match=r"holds no safetensors weights.+Convert it once.+save_pretrained"):
        fetch_model(spec(model.uri), tmp_path, weights=weights)


def test_a_damaged_configuration_is_told(tmp_path: Path) -> None:
    model = local(tmp_path / "model", MODEL | {"config.json": b"{"})
    with pytest.raises(ModelNotLoadable, match=r"config\.json is damaged"):
        fetch_model(spec(model.uri), tmp_path)


@pytest.mark.parametrize("kind", ["never-heard-of", None])
def test_a_model_that_needs_its_own_code_is_refused(tmp_path: Path, kind: str | None) -> None:
    config = {"model_type": kind, "auto_map": {"AutoModelForCausalLM": "modeling_custom.Custom"}}
    model = local(tmp_path / "model", MODEL | {"config.json": json.dumps(config).encode()})
    with pytest.raises(ModelNotLoadable, match="needs code from its repository to load; that is never run"):
        fetch_model(spec(model.uri), tmp_path)


def test_a_model_that_brings_code_it_does_not_need_is_loaded_without_it(tmp_path: Path) -> None:
    config = {"model_type": "phi3", "auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}}
    model = local(tmp_path / "model", MODEL | {"config.json": json.dumps(config).encode()})
    assert fetch_model(spec(model.uri), tmp_path) == tmp_path / "model"


def test_a_dataset_may_be_one_file_or_a_folder_and_is_used_where_it_is(tmp_path: Path) -> None:
    data = local(tmp_path / "data", {"b.csv": b"b", "a.jsonl": b"a", "more/c.parquet": b"c", "README.md": b""})

    assert fetch_dataset(f"{data.uri}/a.jsonl", tmp_path).files == [tmp_path / "data" / "a.jsonl"]
    assert fetch_dataset(f"{data.uri}/", tmp_path).files == [
        tmp_path / "data" / name for name in ("a.jsonl", "b.csv", "more/c.parquet")
    ]


def test_the_same_data_has_the_same_fingerprint_wherever_it_lies(bucket: Store, tmp_path: Path) -> None:
    files = {"a.jsonl": b"one", "more/b.jsonl": b"two"}
    here = local(tmp_path / "here", files)
    there = fill(bucket.under("clinic/2026"), files)

    for path in ("", "/a.jsonl"):
        want = fetch_dataset(here.uri + path, tmp_path / "cache")
        got = fetch_dataset(there.uri + path, tmp_path / "cache")
        assert got.fingerprint == want.fingerprint
        assert texts(got) == texts(want)
    assert want.fingerprint.startswith("sha256:")
    assert got.files[0].name == "a.jsonl"


def test_a_fingerprint_changes_with_a_name_or_a_content(tmp_path: Path) -> None:
    variants = [{"a.csv": b"1"}, {"b.csv": b"1"}, {"a.csv": b"2"}, {"a.csv": b"1", "b.csv": b""}]
    stores = [local(tmp_path / str(number), files) for number, files in enumerate(variants)]
    assert len({fetch_dataset(store.uri, tmp_path).fingerprint for store in stores}) == len(variants)


def test_a_dataset_that_changes_in_its_bucket_is_downloaded_again(bucket: Store, tmp_path: Path) -> None:
    bucket.write("rows.jsonl", b"one")
    assert texts(fetch_dataset(bucket.uri_of("rows.jsonl"), tmp_path)) == [b"one"]
    bucket.write("rows.jsonl", b"two")
    assert texts(fetch_dataset(bucket.uri_of("rows.jsonl"), tmp_path)) == [b"two"]


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("rows.jsonl", True),
        ("train/ROWS.CSV", True),
        ("README.md", False),
        ("dataset_infos.json", False),
        (".cache/rows.jsonl", False),
        ("_SUCCESS.json", False),
    ],
)
def test_a_data_file_is_known_by_its_suffix_unless_it_is_hidden(name: str, want: bool) -> None:
    assert is_data(name) is want


def test_a_missing_dataset_is_rejected_by_its_uri(bucket: Store, tmp_path: Path) -> None:
    local(tmp_path / "notes", {"README.md": b""})
    for uri in (f"file://{tmp_path}/gone.jsonl", f"file://{tmp_path}/notes", bucket.uri_of("gone.csv"), bucket.uri):
        with pytest.raises(DataRejected, match=f"{uri} does not exist or holds no data file"):
            fetch_dataset(uri, tmp_path)
    with pytest.raises(DataRejected, match="the bucket s3://no-such-bucket does not exist"):
        fetch_dataset("s3://no-such-bucket/rows.jsonl", tmp_path)


def test_a_dataset_behind_wrong_keys_is_a_matter_of_storage(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("rows.jsonl", b"one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="refused the credentials"):
        fetch_dataset(bucket.uri_of("rows.jsonl"), tmp_path)
