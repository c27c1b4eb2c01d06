"""What we publish is run: every example manifest, and every command of the README, with the real small model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.documents import load_yaml
from finetune_api.problems import parse_job
from finetune_trainer.manifest import verify
from finetune_trainer.store import open_store

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "manifests" / "examples").glob("*.yaml"))
IN_A_CLUSTER = [ROOT / "manifests" / "examples" / "cluster.yaml"]
"""Run by tests/e2e."""
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-euc", script], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("example", [path for path in EXAMPLES if path not in IN_A_CLUSTER], ids=lambda path: path.name)
def test_every_example_runs_and_its_adapter_is_better(example: Path) -> None:
    ended = shell(f"finetune run -o yaml {example.relative_to(ROOT)}")
    assert ended.returncode == 0, ended.stderr
    job = parse_job(load_yaml(ended.stdout))
    assert job.status is not None
    assert job.status.phase == "Succeeded"
    assert job.status.evaluation is not None
    deciding = next(m for m in job.status.evaluation.metrics if m.name == job.status.evaluation.primary_metric)
    assert deciding.name == "exactMatch"
    assert deciding.ci[0] > 0.2
    assert job.status.run is not None
    run = open_store(job.spec.output.uri).under(f"default/{job.metadata.name}/runs/{job.status.run.id}")
    assert verify(run) == []


def test_the_adapter_of_the_quickstart_gives_the_reported_answers_in_plain_peft() -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from finetune_api.report import Report

    run = max((ROOT / "runs" / "default" / "clinic-triage" / "runs").glob("*/manifest.json")).parent
    report = Report.model_validate_json((run / "report.json").read_bytes())
    quantized = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(
        ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct", quantization_config=quantized, dtype=torch.bfloat16
    )
    model = PeftModel.from_pretrained(base, run / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    same = 0
    for sample in report.samples:
        chat = [{"role": "user", "content": sample.prompt}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            answer = model.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids["input_ids"].shape[1] :]
        same += tokenizer.decode(answer, skip_special_tokens=True).strip() == sample.adapter
    # One of eight may flip: answers were generated in padded batches, whose sums round differently.
    assert same >= len(report.samples) - 1


def readme_commands() -> list[str]:
    """Lines of the shell blocks of the README."""
    return commands_in((ROOT / "README.md").read_text())


def commands_in(text: str) -> list[str]:
    """Lines of the shell blocks of a text."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_the_two_commands_on_top_are_targets_of_the_makefile() -> None:
    first_two = readme_commands()[:2]
    assert first_two == ["make quickstart", "make test"]
    for command in first_two:
        assert shell(f"{command} --dry-run").returncode == 0


def test_every_other_command_of_the_readme_works() -> None:
    here = [command for command in readme_commands()[2:] if command not in cluster_commands()]
    ended = shell("\n".join(here).replace("source .venv/bin/activate", "true"))
    assert ended.returncode == 0, ended.stderr
    for word in ("is valid", "learningRate", "every file is as it was published", '"department": "dental"'):
        assert word in ended.stdout
    assert "Nothing to do" in ended.stderr


def cluster_commands() -> list[str]:
    """The commands of the README that need a cluster."""
    return commands_in((ROOT / "README.md").read_text().split("## In a cluster")[1].split("\n## ")[0])


def test_the_cluster_commands_of_the_readme_are_those_of_the_end_to_end_run() -> None:
    images, install, apply, watch = cluster_commands()
    assert shell(f"{images} --dry-run BUILDER=docker").returncode == 0
    assert install.startswith("helm install finetune-operator charts/finetune-operator --namespace finetune-system")
    assert ROOT / apply.removeprefix("kubectl apply -f ") in IN_A_CLUSTER
    assert watch == "kubectl get finetunejobs --watch"


def test_the_example_manifest_of_the_readme_is_valid() -> None:
    [manifest] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert parse_job(load_yaml(manifest)).metadata.name == "clinic-triage"


def test_every_page_the_docs_link_to_exists() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"
