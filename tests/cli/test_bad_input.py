"""Every bad input ends with a sentence and its exit code: no traceback, and nothing that looks like a result."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from finetune_api.run import ExitCode
from support.cli import Ended, finetune, make_job, triage, write_job, write_records
from support.s3_server import S3Server, s3_server

__all__ = ["s3_server"]

LINES = 4
LETTERS = 900


@dataclass(frozen=True)
class Place:
    """A folder with good data and a good model, for one bad input."""

    folder: Path
    good_model: Path

    @property
    def data(self) -> Path:
        """Forty good rows."""
        return write_records(self.folder / "rows.jsonl", triage(40))

    def text(self, text: str | bytes) -> Path:
        """A manifest of exactly this text."""
        path = self.folder / "job.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def job(self, data: Path | None = None, model: Path | None = None, **spec: Any) -> Path:
        """A manifest that is good but for what is given."""
        job = make_job(model or self.good_model, data or self.data, self.folder / "out", **spec)
        return write_job(self.folder / "job.yaml", job)

    def rows(self, text: str | bytes, name: str = "bad.jsonl", **spec: Any) -> Path:
        """A manifest over a data file of exactly this text."""
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.job(data=path, **spec)

    def records(self, records: list[dict[str, Any]], **spec: Any) -> Path:
        """A manifest over these records."""
        return self.job(data=write_records(self.folder / "bad.jsonl", records), **spec)

    def copied_model(self) -> Path:
        """A copy of the good model to spoil."""
        return Path(shutil.copytree(self.good_model, self.folder / "model"))


def unknown_field(place: Place) -> Path:
    return place.job(colour="blue")


def misspelt_field(place: Place) -> Path:
    return place.job(training={"learningrate": 1e-4})


def wrong_types(place: Place) -> Path:
    return place.job(training={"epochs": "three", "batchSize": 2.5})


def rank_zero(place: Place) -> Path:
    return place.job(method={"lora": {"rank": 0}})


def not_yaml(place: Place) -> Path:
    return place.text("apiVersion: x\nkind: [unclosed\n")


def binary_manifest(place: Place) -> Path:
    return place.text(b"\xff\xfe\x00\x01")


def two_documents(place: Place) -> Path:
    text = place.job().read_text()
    return place.text(f"{text}---\n{text}")


def empty_manifest(place: Place) -> Path:
    return place.text("")


def missing_manifest(place: Place) -> Path:
    return place.folder / "nowhere.yaml"


def manifest_is_a_folder(place: Place) -> Path:
    return place.folder


def missing_model(place: Place) -> Path:
    return place.job(model=place.folder / "no-model")


def encoder_model(place: Place) -> Path:
    model = place.copied_model()
    change_json(model / "config.json", {"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    return place.job(model=model)


def model_with_own_code(place: Place) -> Path:
    model = place.copied_model()
    change_json(model / "config.json", {"model_type": "ours", "auto_map": {"AutoConfig": "ours.OursConfig"}})
    return place.job(model=model)


def pickled_weights(place: Place) -> Path:
    model = place.copied_model()
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    return place.job(model=model)


def cut_weights(place: Place) -> Path:
    model = place.copied_model()
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return place.job(model=model)


def garbage_weights(place: Place) -> Path:
    model = place.copied_model()
    (model / "model.safetensors").write_bytes(b"<html>404 not found</html>" * 50)
    return place.job(model=model)


def damaged_model_config(place: Place) -> Path:
    model = place.copied_model()
    (model / "config.json").write_text('{"model_type": ')
    return place.job(model=model)


def missing_tokenizer(place: Place) -> Path:
    model = place.copied_model()
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (model / file).unlink(missing_ok=True)
    return place.job(model=model)


def damaged_tokenizer(place: Place) -> Path:
    model = place.copied_model()
    (model / "tokenizer.json").write_text('{"version": "1.0", ')
    return place.job(model=model)


def tokenizer_without_end(place: Place) -> Path:
    model = place.copied_model()
    change_json(model / "tokenizer_config.json", {"eos_token": None})
    return place.job(model=model)


def weights_with_nan(place: Place) -> Path:
    model = place.copied_model()
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    return place.job(model=model)


def missing_dataset(place: Place) -> Path:
    return place.job(data=place.folder / "nowhere.jsonl")


def folder_without_data(place: Place) -> Path:
    (place.folder / "notes").mkdir()
    (place.folder / "notes" / "readme.txt").write_text("no rows here")
    return place.job(data=place.folder / "notes")


def empty_dataset(place: Place) -> Path:
    return place.rows("")


def latin_dataset(place: Place) -> Path:
    lines = [json.dumps(row).encode() for row in triage(20)]
    lines[6] = '{"prompt": "Grüße", "completion": "today"}'.encode("latin-1")
    return place.rows(b"\n".join(lines))


def broken_json_far_down(place: Place) -> Path:
    lines = [json.dumps(row) for row in triage(5000)]
    lines[4710] = lines[4710][:-1]
    return place.rows("\n".join(lines))


def rows_without_answer(place: Place) -> Path:
    rows: list[dict[str, Any]] = [*triage(20)]
    rows[3] = {"prompt": "what now?"}
    rows[11] = {"prompt": "and now?", "completion": ""}
    return place.records(rows)


def thousands_of_bad_rows(place: Place) -> Path:
    return place.records([{"prompt": f"what {number}?", "completion": ""} for number in range(3000)])


def unknown_columns(place: Place) -> Path:
    return place.records([{"ticket": "a", "label": "b"}] * 20)


def identical_rows(place: Place) -> Path:
    return place.records(triage(1) * 50)


def five_rows(place: Place) -> Path:
    return place.records([*triage(5)])


def one_group(place: Place) -> Path:
    rows = [{**row, "patient": "p1" if number < 38 else f"q{number}"} for number, row in enumerate(triage(40))]
    return place.records(rows, dataset=dataset_by(place, "patient"))


def missing_group_column(place: Place) -> Path:
    return place.records([*triage(40)], dataset=dataset_by(place, "patient"))


def every_row_too_long(place: Place) -> Path:
    return place.job(training={"maxLength": 16})


def unknown_target_modules(place: Place) -> Path:
    return place.job(method={"quantization": "none", "lora": {"targetModules": ["query_key_value"]}})


def one_misspelt_target_module(place: Place) -> Path:
    return place.job(method={"quantization": "none", "lora": {"targetModules": ["q_proj", "v_porj"]}})


def missing_shard(place: Place) -> Path:
    model = place.copied_model()
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {
        "model.norm.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors",
    }
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    return place.job(model=model)


def output_below_a_file(place: Place) -> Path:
    (place.folder / "file").write_text("I am a file")
    return place.job(output={"uri": f"file://{place.folder}/file/out"})


def output_in_proc(place: Place) -> Path:
    return place.job(output={"uri": "file:///proc/finetune"})


def output_to_a_hub(place: Place) -> Path:
    return place.job(output={"uri": "hf://me/adapters"})


def output_by_ftp(place: Place) -> Path:
    return place.job(output={"uri": "ftp://server/adapters"})


def unmounted_claim(place: Place) -> Path:
    return place.job(output={"uri": "pvc://adapters/clinic"})


INVALID, DATA, MODEL = ExitCode.INVALID_CONFIG, ExitCode.DATA_REJECTED, ExitCode.MODEL_NOT_LOADABLE
STORAGE, DIVERGED = ExitCode.STORAGE, ExitCode.DIVERGED
CASES: list[tuple[Callable[[Place], Path], ExitCode, list[str]]] = [
    (unknown_field, INVALID, ["spec.colour", "unknown field", "Known fields here: model"]),
    (misspelt_field, INVALID, ["spec.training.learningrate", "Did you mean learningRate?"]),
    (wrong_types, INVALID, ["spec.training.epochs", "'three'", "spec.training.batchSize", "2.5", "a whole number"]),
    (rank_zero, INVALID, ["spec.method.lora.rank", "at least 1, got 0"]),
    (not_yaml, INVALID, ["job.yaml", "line 3, column 1"]),
    (binary_manifest, INVALID, ["job.yaml", "not UTF-8"]),
    (two_documents, INVALID, ["job.yaml", "2 YAML documents", "Give one FineTuneJob per file."]),
    (empty_manifest, INVALID, ["job.yaml", "a FineTuneJob is a mapping", "got nothing"]),
    (missing_manifest, INVALID, ["nowhere.yaml", "No such file"]),
    (manifest_is_a_folder, INVALID, ["cannot be read", "Is a directory"]),
    (missing_model, MODEL, ["no-model", "does not exist"]),
    (encoder_model, MODEL, ["/model", "BertForMaskedLM", "not a causal language model", "Name a"]),
    (model_with_own_code, MODEL, ["/model", "code", "never run"]),
    (pickled_weights, MODEL, ["/model", "safetensors"]),
    (cut_weights, MODEL, ["model.safetensors", "Download it again"]),
    (garbage_weights, MODEL, ["model.safetensors", "Download it again"]),
    (damaged_model_config, MODEL, ["config.json", "damaged"]),
    (missing_tokenizer, MODEL, ["/model", "no tokenizer"]),
    (damaged_tokenizer, MODEL, ["/model", "tokenizer"]),
    (tokenizer_without_end, MODEL, ["/model", "no end-of-sequence token"]),
    (weights_with_nan, DIVERGED, ["loss", "nan"]),
    (missing_dataset, DATA, ["nowhere.jsonl", "does not exist"]),
    (folder_without_data, DATA, ["/notes", "no data file", ".jsonl"]),
    (empty_dataset, DATA, ["bad.jsonl", "no rows"]),
    (latin_dataset, DATA, ["bad.jsonl, row 7", "not UTF-8", "Fix or remove"]),
    (broken_json_far_down, DATA, ["bad.jsonl, row 4711", "not valid JSON", "Fix or remove"]),
    (rows_without_answer, DATA, ["row 4:", "row 12:", '"completion"', "Fix or remove these rows"]),
    (thousands_of_bad_rows, DATA, ["row 1:", "2995 more rows", "Fix or remove these rows"]),
    (unknown_columns, DATA, ["ticket, label", "Rename", "prompt-completion"]),
    (identical_rows, DATA, ["bad.jsonl", "identical", "Give different examples"]),
    (five_rows, DATA, ["5 usable rows", "at least 8", "Add examples"]),
    (one_group, DATA, ['"p1"', '"patient"', "38 of 40 rows", "choose another groupBy"]),
    (missing_group_column, DATA, ["groupBy", '"patient"', "prompt, completion"]),
    (every_row_too_long, DATA, ["All 40 rows", "training.maxLength", "Raise"]),
    (unknown_target_modules, INVALID, ["targetModules", "query_key_value", "q_proj", "all-linear"]),
    (one_misspelt_target_module, INVALID, ["targetModules", "is called v_porj", "v_proj"]),
    (missing_shard, MODEL, ["/model", "model-00002-of-00002.safetensors"]),
    (output_below_a_file, STORAGE, ["/file/out", "a file is where a folder is needed"]),
    (output_in_proc, STORAGE, ["/proc/finetune", "choose another place"]),
    (output_to_a_hub, INVALID, ["spec.output.uri", "can be read but not written"]),
    (output_by_ftp, INVALID, ["spec.output.uri", "must start with s3://", "ftp://server"]),
    (unmounted_claim, STORAGE, ["pvc://adapters", "not mounted"]),
]


def dataset_by(place: Place, column: str) -> dict[str, Any]:
    return {"uri": f"file://{place.folder}/bad.jsonl", "split": {"groupBy": column}}


def change_json(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def place(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FINETUNE_PVC_ROOT", str(tmp_path / "volumes"))
    return Place(tmp_path, tiny_llama)


def message_of(ended: Ended) -> str:
    """What the command says went wrong: everything after the lines of progress."""
    return ended.err[ended.err.index("finetune: ") :]


def require_plain_refusal(ended: Ended, code: ExitCode, words: list[str], output: Path) -> None:
    """The right exit code and words, a bearable length, no traceback, nothing that looks like a finished run."""
    assert "Traceback" not in ended.err
    assert ended.code == code, ended.err
    message = message_of(ended)
    assert [word for word in words if word not in message] == [], message
    assert len(message.splitlines()) <= LINES, message
    assert len(message) <= LETTERS, message
    assert ended.out == ""
    assert [*output.rglob("manifest.json"), *output.rglob("current.json")] == []


@pytest.mark.parametrize(("make", "code", "words"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_bad_input_ends_with_a_sentence(
    place: Place, make: Callable[[Place], Path], code: ExitCode, words: list[str]
) -> None:
    require_plain_refusal(finetune("run", make(place)), code, words, place.folder / "out")


@pytest.mark.parametrize("make", [cut_weights, missing_tokenizer, latin_dataset, one_group])
def test_a_plan_refuses_bad_input_too(place: Place, make: Callable[[Place], Path]) -> None:
    [(code, words)] = [(case[1], case[2]) for case in CASES if case[0] is make]
    require_plain_refusal(finetune("plan", make(place)), code, words, place.folder / "out")


def test_a_repaired_input_runs(place: Place) -> None:
    assert finetune("run", rows_without_answer(place)).code == DATA
    write_records(place.folder / "bad.jsonl", triage(40))
    ended = finetune("run", place.folder / "job.yaml")
    assert ended.code == 0, ended.err
    assert len([*(place.folder / "out").rglob("runs/*/manifest.json")]) == 1


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size, unmounted in the end. Skips where mounting is not permitted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def in_a_process(manifest: Path) -> Ended:
    """`finetune run` in a process of its own, which gives up what it holds when it ends, whatever happened."""
    command = [sys.executable, "-m", "finetune_cli", "run", str(manifest)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def test_a_full_disk_ends_with_a_sentence_and_the_run_goes_on_with_more_room(place: Place) -> None:
    with small_disk(place.folder / "disk", "100k") as disk:
        manifest = place.job(output={"uri": f"file://{disk}/out"})
        words = [str(disk), "disk is full", "free some space"]
        require_plain_refusal(in_a_process(manifest), STORAGE, words, disk / "out")
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        ended = finetune("run", manifest)
        assert ended.code == 0, ended.err
        [run] = (disk / "out/default/triage/runs").iterdir()
        assert finetune("verify", run).code == 0


def test_an_output_that_another_process_writes_to_is_refused_and_named(place: Place) -> None:
    manifest = place.job()
    assert finetune("run", place.job(training={"learningRate": 1e-9, "epochs": 1, "maxEpochs": 1})).code == 0
    [first] = (place.folder / "out/default/triage/runs").iterdir()
    shutil.rmtree(place.folder / "out/default/triage/runs" / first.name)
    code = (
        "import sys\n"
        "from finetune_trainer.attempts import claim\n"
        "from finetune_trainer.store import open_store\n"
        f"with claim(open_store('file://{first}')):\n"
        "    print('claimed', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"claimed\n"
        words = ["Another run", f"process {other.pid}", "wait for it or stop it"]
        require_plain_refusal(finetune("run", manifest), STORAGE, words, place.folder / "out")
        assert other.stdin is not None
        other.stdin.close()
    assert finetune("run", manifest).code == 0


def test_a_missing_bucket_ends_with_its_name(
    place: Place, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.point_here(monkeypatch)
    manifest = place.job(output={"uri": "s3://no-such-bucket/adapters"})
    words = ["s3://no-such-bucket", "does not exist", "create it"]
    require_plain_refusal(finetune("run", manifest), STORAGE, words, place.folder)


def test_wrong_credentials_end_with_the_variables_to_check(
    place: Place, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.point_here(monkeypatch)
    bucket = s3_server.make_bucket("clinic-adapters")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    manifest = place.job(output={"uri": f"{bucket}/adapters"})
    words = [bucket, "refused the credentials", "AWS_SECRET_ACCESS_KEY"]
    require_plain_refusal(finetune("run", manifest), STORAGE, words, s3_server.folder / "clinic-adapters")


def test_a_stop_signal_ends_with_how_to_go_on(place: Place) -> None:
    job = place.job(training={"epochs": 500, "maxEpochs": 500, "batchSize": 8, "learningRate": 1e-3})
    command = [sys.executable, "-m", "finetune_cli", "run", str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if re.match(r"train\s+[1-9]\d*/", line):
                break
        process.terminate()
        rest = process.stderr.read()
        code = process.wait()
        assert process.stdout is not None
        ended = Ended(code, process.stdout.read(), seen + rest)
    require_plain_refusal(ended, ExitCode.STOPPED, ["Stopped after step", "run again to go on"], place.folder / "none")
    assert [*(place.folder / "out").rglob("checkpoints/*/manifest.json")]
    assert [*(place.folder / "out").rglob("runs/*/manifest.json")] == []
