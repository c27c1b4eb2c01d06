"""The model card of an adapter or a tuned model: README.md in its folder, as PEFT and model hubs read it."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from finetune_api.methods import Method
from finetune_api.report import Report
from finetune_api.run import result_of
from finetune_trainer.page import METRIC_LABELS, QUANTIZATION_LABELS, labelled
from finetune_trainer.wording import (
    NOUNS,
    byte_size,
    count,
    counted,
    metric_difference,
    metric_interval,
    metric_value,
    moment,
    verdict_sentence,
)

HUB = "hf://"


class Kind(NamedTuple):
    """How cards and hubs present what was published."""

    title: str
    """What it is, up to the name of the base."""
    relation: str
    """What hubs call its relation to the base."""
    loader: Literal["peft", "transformers", "bottleneck"]
    """Which instructions load it."""
    library: str | None
    """What hubs show how to load; they know no library for bottleneck adapters."""
    tags: tuple[str, ...] = ()


KINDS: dict[Method, Kind] = {
    "lora": Kind("A LoRA adapter for", "adapter", "peft", "peft", ("lora",)),
    "full": Kind("All weights of", "finetune", "transformers", "transformers"),
    "prefix": Kind("A trained prefix for", "adapter", "peft", "peft", ("prefix-tuning",)),
    "bottleneck": Kind("Bottleneck adapters for", "adapter", "bottleneck", None, ("bottleneck-adapters",)),
}


def render_card(report: Report, files: Sequence[str] = ()) -> str:
    """README.md of what was published. `files`: those beside it, by their paths in its folder."""
    method, evaluation = report.model.method, report.outcome.evaluation
    result = result_of(method)
    return (
        _environment()
        .get_template("card.md.j2")
        .render(
            report=report,
            front_matter=front_matter(report),
            evaluation=evaluation,
            sentence=verdict_sentence(evaluation, result) if evaluation else report.outcome.message,
            noun=NOUNS[result],
            kind=KINDS[method],
            notes=method,
            quantization=report.model.quantization,
            base=hub_name(report.model.uri) or "PATH/TO/BASE",
            hub_base=hub_name(report.model.uri),
            chat=report.data.format != "text",
            tokenizer_included=any(PurePosixPath(file).name == "tokenizer_config.json" for file in files),
            files=sorted(files),
        )
    )


def front_matter(report: Report) -> str:
    """The YAML that hubs read. Models and datasets that are not on a hub have no name there and are left out."""
    base, dataset, kind = hub_name(report.model.uri), hub_name(report.data.uri), KINDS[report.model.method]
    entries = {
        **({"base_model": base, "base_model_relation": kind.relation} if base else {}),
        **({"datasets": [dataset]} if dataset else {}),
        **({"library_name": kind.library} if kind.library else {}),
        "pipeline_tag": "text-generation",
        "tags": [*([f"base_model:{kind.relation}:{base}"] if base else []), *kind.tags, "transformers"],
    }
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True).rstrip()


def hub_name(uri: str) -> str | None:
    """OWNER/NAME of something on a model hub."""
    return uri.removeprefix(HUB) if uri.startswith(HUB) else None


def plain(text: str) -> str:
    """Text on one line in which nothing is Markdown or HTML."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", line)


def code(text: str) -> str:
    """Text on one line as code, also inside a table."""
    line = " ".join(text.split()).replace("|", r"\|")
    longest = max((len(ticks) for ticks in re.findall("`+", line)), default=0)
    fence, room = "`" * (longest + 1), " " * (longest > 0)
    return f"{fence}{room}{line}{room}{fence}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("finetune_trainer"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "byte_size": byte_size,
        "code": code,
        "counted": counted,
        "labelled": labelled,
        "metric_difference": metric_difference,
        "metric_interval": metric_interval,
        "metric_value": metric_value,
        "moment": moment,
        "people": count,
        "plain": plain,
    }
    environment.globals |= {"metric_labels": METRIC_LABELS, "quantization_labels": QUANTIZATION_LABELS}
    return environment
