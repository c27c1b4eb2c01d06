"""The model card of an adapter: README.md in its folder, as PEFT and model hubs read it."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from finetune_api.report import Report
from finetune_trainer.page import METRIC_LABELS, QUANTIZATION_LABELS, labelled
from finetune_trainer.wording import (
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


def render_card(report: Report, adapter_files: Sequence[str] = ()) -> str:
    """README.md of an adapter. `adapter_files`: the files beside it, by their paths in the adapter's folder."""
    return (
        _environment()
        .get_template("card.md.j2")
        .render(
            report=report,
            front_matter=front_matter(report),
            evaluation=report.outcome.evaluation,
            sentence=verdict_sentence(report.outcome.evaluation)
            if report.outcome.evaluation
            else report.outcome.message,
            base=hub_name(report.model.uri) or "PATH/TO/BASE",
            hub_base=hub_name(report.model.uri),
            chat=report.data.format != "text",
            tokenizer_included=any(PurePosixPath(file).name == "tokenizer_config.json" for file in adapter_files),
            files=sorted(adapter_files),
        )
    )


def front_matter(report: Report) -> str:
    """The YAML that hubs read. Models and datasets that are not on a hub have no name there and are left out."""
    base, dataset = hub_name(report.model.uri), hub_name(report.data.uri)
    entries = {
        **({"base_model": base, "base_model_relation": "adapter"} if base else {}),
        **({"datasets": [dataset]} if dataset else {}),
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": [*([f"base_model:adapter:{base}"] if base else []), "lora", "transformers"],
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
