"""The reference lists every field once, and generated files are known to be stale when they are."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_origin

import pytest

from finetune_api.crd import job_schema
from finetune_api.job import FineTuneJobSpec
from finetune_api.reference import ENDINGS, build_reference
from finetune_api.run import ExitCode
from finetune_api.schema import Model, fields_of, nested_model
from finetune_api.status import FineTuneJobStatus

ROOT = Path(__file__).parents[2]
PAGE = build_reference()


def section(heading: str) -> list[str]:
    """Lines of the page below a heading, up to the next one."""
    lines = PAGE.splitlines()
    start = lines.index(heading) + 1
    end = next((i for i in range(start, len(lines)) if lines[i].startswith("#")), len(lines))
    return lines[start:end]


def row(heading: str, field: str) -> list[str]:
    """Cells of a field's row."""
    (line,) = [line for line in section(heading) if line.startswith(f"| `{field}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def objects(model: type[Model], path: str) -> dict[str, type[Model]]:
    """Every object below a model by its path."""
    found = {path: model}
    for name, field in fields_of(model).items():
        nested = nested_model(field.annotation)
        if nested:
            found |= objects(nested, f"{path}.{name}{'[]' if get_origin(field.annotation) is list else ''}")
    return found


@pytest.mark.parametrize(("root", "start"), [(FineTuneJobSpec, "spec"), (FineTuneJobStatus, "status")])
def test_every_field_has_a_row_in_its_objects_table(root: type[Model], start: str) -> None:
    for path, model in objects(root, start).items():
        heading = f"{'###' if '.' in path else '##'} {path}"
        for name in fields_of(model):
            assert row(heading, name)[0] == f"`{name}`"


def test_a_row_tells_type_bounds_default_origin_and_meaning() -> None:
    assert row("### spec.training", "weightDecay") == [
        "`weightDecay`",
        "number",
        "0 to 1",
        "`0.01`",
        "best-practice article",
        "AdamW's decoupled weight decay.",
    ]


def test_a_default_that_depends_on_the_method_is_told_for_each_with_its_origin() -> None:
    assert row("### spec.training", "learningRate")[2:5] == [
        "more than 0, at most 1",
        "2e-5 for lora and full, 0.005 for prefix, 0.0001 for bottleneck",
        "best-practice article for lora and full, PEFT's comparison of methods for prefix, common adapter practice for "
        "bottleneck",
    ]
    assert row("### spec.method", "quantization")[3:5] == [
        "nf4 for lora, prefix and bottleneck, none for full",
        "best-practice article",
    ]


def test_bounds_are_words() -> None:
    assert row("### spec.method.lora", "rank")[2] == "1 to 512"
    assert row("### spec.method.lora", "dropout")[2] == "0 to less than 1"
    assert row("### spec.method.lora", "targetModules")[1:3] == ["list of text", "1 to 64 entries: 1 to 256 characters"]
    assert row("### spec.method", "quantization")[2] == "`nf4`, `int8`, `none`"
    assert row("### spec.output", "uri")[2] == "at most 1024 characters"
    assert row("### status.evaluation.metrics[]", "ci")[2] == "2 entries"
    assert row("### spec.podTemplate", "labels")[1:3] == ["mapping to text", "at most 32 entries"]
    assert row("### spec.podTemplate", "tolerations")[1:3] == ["list of mapping", "at most 32 entries"]


def test_the_objects_of_a_list_have_a_table_of_their_own() -> None:
    assert row("### spec.podTemplate.tolerations[]", "operator")[2:5] == [
        "`Exists`, `Equal`",
        "`Equal`",
        "this product",
    ]
    assert row("### spec.podTemplate.env[]", "name")[3] == "required"
    assert row("### spec.podTemplate", "env")[-1].endswith("See [spec.podTemplate.env[]](#specpodtemplateenv).")


def test_a_field_that_may_be_left_out_without_effect_says_so() -> None:
    for heading, field in (
        ("### spec.podTemplate", "labels"),
        ("### spec.podTemplate", "env"),
        ("### spec.podTemplate", "priorityClassName"),
        ("### spec.output", "secretRef"),
        ("### spec.retrain", "schedule"),
        ("## spec", "queueName"),
    ):
        assert row(heading, field)[3] == "none"


def test_every_field_of_the_spec_is_required_or_tells_its_default_with_its_origin() -> None:
    for path, model in objects(FineTuneJobSpec, "spec").items():
        heading = f"{'###' if '.' in path else '##'} {path}"
        table = next(line for line in section(heading) if line.startswith("| Field |"))
        columns = [cell.strip() for cell in table.strip("|").split("|")]
        for name, field in fields_of(model).items():
            cells = dict(zip(columns, row(heading, name), strict=True))
            if cells["Default"] not in ("required", "none", ""):
                assert cells["Default from"], f"{path}.{name}"
            assert cells["Default"] or nested_model(field.annotation), f"{path}.{name}"


def test_a_field_without_a_default_value_says_what_happens_instead() -> None:
    assert row("### spec.training", "maxEpochs")[3] == "5, or `epochs` if higher"
    assert row("### spec.dataset", "format")[3] == "detected from the columns and shown"
    assert row("### spec.dataset", "uri")[3] == "required"


def test_rules_between_fields_are_listed() -> None:
    assert "Rule: maxEpochs must be at least epochs." in section("### spec.training")
    assert "Rule: test and validation together may take at most 0.8 of the rows." in section("### spec.dataset.split")
    (moved,) = [line for line in section("### spec.output") if "output.uri cannot be changed" in line]
    assert moved.startswith("Rule for `uri`: ")


def test_a_rule_that_several_fields_share_is_listed_once_with_their_names() -> None:
    (amount,) = [line for line in section("### spec.resources") if "must be an amount such as" in line]
    assert amount.startswith("Rule for `gpuMemory`, `memory`, `storage`: ")


def test_links_lead_to_headings() -> None:
    headings = {line.lstrip("# ") for line in PAGE.splitlines() if line.startswith("#")}
    targets = [part.partition("](#")[0] for part in PAGE.split("See [")[1:]]

    assert len(targets) == sum("properties" in node for node in walk(job_schema())) - 3  # root, spec and status
    assert set(targets) <= headings


def walk(schema: dict[str, object]) -> list[dict[str, object]]:
    properties, items = schema.get("properties"), schema.get("items")
    children = [*(properties.values() if isinstance(properties, dict) else ()), *([items] if items else [])]
    return [schema, *(node for child in children if isinstance(child, dict) for node in walk(child))]


def test_placeholders_in_angle_brackets_are_not_taken_for_html() -> None:
    assert "Where results go: &lt;uri>/&lt;namespace>/&lt;name>/runs/&lt;run id>/." in section("### spec.output")


def test_every_exit_code_is_explained() -> None:
    assert ENDINGS.keys() == set(ExitCode)
    assert "| 143 | `STOPPED` |" in PAGE


def test_the_committed_files_are_fresh() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )

    assert check.returncode == 0, check.stderr


def test_a_stale_file_is_named_and_written_anew(tmp_path: Path) -> None:
    for folder in ("scripts", "charts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    script = tmp_path / "scripts" / "generate.py"
    page = tmp_path / "docs" / "reference" / "finetunejob.md"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)

    assert run().returncode == 0
    assert run("--check").returncode == 0
    page.write_text(page.read_text(encoding="utf-8") + "by hand\n", encoding="utf-8")

    check = run("--check")
    assert (check.returncode, check.stderr) == (1, "docs/reference/finetunejob.md is stale: run `make generate`.\n")
    assert run().returncode == 0
    assert page.read_text(encoding="utf-8").endswith(PAGE)
