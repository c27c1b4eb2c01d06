"""The methods, each with its settings and what holds for it by default."""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from finetune_api.schema import (
    ARTICLE,
    BOTTLENECK_PRACTICE,
    LORA_PRACTICE,
    PREFIX_PRACTICE,
    PRODUCT,
    Model,
    Source,
    cel_rules,
    listed,
)

ALL_LINEAR = "all-linear"
ALL_LINEAR_ALONE = "all-linear stands alone: it already means every linear layer"
FULL_UNQUANTISED = (
    "full fine-tuning trains the weights themselves, which it cannot while they are quantised: leave quantization "
    "out, or choose another type"
)
INIT_UNQUANTISED = (
    "init orthogonal, pissa and olora work on the base's weights, which must not be quantised: set quantization to none"
)

Method = Literal["lora", "full", "prefix", "bottleneck"]
Quantization = Literal["nf4", "int8", "none"]
LoraInit = Literal["default", "gaussian", "orthogonal", "pissa", "olora"]

PARTS: tuple[Literal["lora", "prefix", "bottleneck"], ...] = ("lora", "prefix", "bottleneck")
"""Methods that have settings of their own, under their own name."""
CHANGING_INITS = ("pissa", "olora")
"""Initialisations that take out of the base what they put into the adapter."""
UNQUANTISED_INITS = ("orthogonal", *CHANGING_INITS)


def _not_its(part: str) -> str:
    return f"{part} holds settings of type {part}: leave it out, or set type to {part}"


def _all_linear_alone(modules: list[str]) -> list[str]:
    if ALL_LINEAR in modules and len(modules) > 1:
        raise ValueError(ALL_LINEAR_ALONE)
    return modules


TargetModules = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(
        min_length=1,
        max_length=64,
        json_schema_extra=cel_rules((f"!('{ALL_LINEAR}' in self) || size(self) == 1", ALL_LINEAR_ALONE)),
    ),
    AfterValidator(_all_linear_alone),
]


class LoraSpec(Model):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1, le=512), ARTICLE] = 16
    """Rank of the update matrices. 8 to 16 suits most domains."""
    alpha: Annotated[int, Field(ge=1, le=1024), LORA_PRACTICE] = 32
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1), ARTICLE] = 0.05
    """Dropout on the adapter's input while training. Layers that read the same input share what is dropped."""
    target_modules: Annotated[TargetModules, LORA_PRACTICE] = [ALL_LINEAR]
    """Layers that get an adapter, by name. The single entry all-linear takes every linear layer but the output head."""
    rslora: Annotated[bool, PRODUCT] = False
    """Scale by alpha / sqrt(rank), so that high ranks learn as fast as low ones (Kalajdzievski 2023, arXiv
    2312.03732)."""
    dora: Annotated[bool, PRODUCT] = False
    """Learn the length of each weight's rows apart from their direction (Liu et al. 2024, arXiv 2402.09353). Slower."""
    init: Annotated[LoraInit, PRODUCT] = "default"
    """Where the matrices start. orthogonal, pissa and olora need an unquantised base;
    the last two start from its own main directions."""


class PrefixSpec(Model):
    """Prefix tuning: trained keys and values before every row, in every layer (Li & Liang 2021, arXiv 2101.00190)."""

    length: Annotated[int, Field(ge=1, le=1024), PREFIX_PRACTICE] = 50
    """Virtual tokens."""
    init: Annotated[Literal["rows", "zero"], PREFIX_PRACTICE] = "rows"
    """Where the prefix starts: from what the base makes of the first training rows, or from zero."""


class BottleneckSpec(Model):
    """Small networks of two layers after the blocks of the base (Houlsby et al. 2019, arXiv 1902.00751)."""

    width: Annotated[int, Field(ge=1, le=4096), BOTTLENECK_PRACTICE] = 64
    """Width of the narrow layer between the two."""
    placement: Annotated[Literal["pfeiffer", "houlsby"], BOTTLENECK_PRACTICE] = "pfeiffer"
    """pfeiffer: after each feed-forward block (Pfeiffer et al. 2021, arXiv 2005.00247). houlsby: after attention,
    too."""
    dropout: Annotated[float, Field(ge=0, lt=1), PRODUCT] = 0.0
    """Dropout on the adapter's input while training."""


class MethodDefaults(NamedTuple):
    """What holds for a method unless the manifest says otherwise."""

    quantization: Quantization
    learning_rate: float
    rate_source: Source


METHOD_DEFAULTS: dict[Method, MethodDefaults] = {
    "lora": MethodDefaults("nf4", 2e-5, ARTICLE),
    "full": MethodDefaults("none", 2e-5, ARTICLE),
    "prefix": MethodDefaults("nf4", 5e-3, PREFIX_PRACTICE),
    "bottleneck": MethodDefaults("nf4", 1e-4, BOTTLENECK_PRACTICE),
}


def by_method(value: Callable[[MethodDefaults], str]) -> str:
    """What each method has by default, for instance: nf4 for lora and prefix, none for full."""
    methods: dict[str, list[str]] = {}
    for name, defaults in METHOD_DEFAULTS.items():
        methods.setdefault(value(defaults), []).append(name)
    return ", ".join(f"{each} for {listed(names, 'and')}" for each, names in methods.items())


STORAGE = (
    "Storage of the frozen base: nf4 (4 bit, QLoRA), int8, or none. "
    f"Default: {by_method(lambda defaults: defaults.quantization)}."
)


class MethodSpec(Model):
    """How the model is adapted."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            ("self.type != 'full' || !has(self.quantization) || self.quantization == 'none'", FULL_UNQUANTISED),
            *((f"self.type == '{part}' || !has(self.{part})", _not_its(part)) for part in PARTS),
            (
                f"!has(self.lora) || !(self.lora.init in {list(UNQUANTISED_INITS)}) || "
                "(has(self.quantization) && self.quantization == 'none')",
                INIT_UNQUANTISED,
            ),
        )
    )

    type: Annotated[Method, ARTICLE] = "lora"
    """lora: small matrices beside a frozen base. full: every weight. prefix: keys and values before every row.
    bottleneck: small networks after the blocks of a frozen base."""
    quantization: Annotated[Quantization | None, Field(description=STORAGE), ARTICLE] = None
    lora: LoraSpec | None = None
    """Settings of method lora."""
    prefix: PrefixSpec | None = None
    """Settings of method prefix."""
    bottleneck: BottleneckSpec | None = None
    """Settings of method bottleneck."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.type == "full" and self.storage != "none":
            raise ValueError(FULL_UNQUANTISED)
        for part in PARTS:
            if part != self.type and getattr(self, part) is not None:
                raise ValueError(_not_its(part))
        if self.lora is not None and self.lora.init in UNQUANTISED_INITS and self.storage != "none":
            raise ValueError(INIT_UNQUANTISED)
        return self

    @property
    def defaults(self) -> MethodDefaults:
        """What holds for this method unless the manifest says otherwise."""
        return METHOD_DEFAULTS[self.type]

    @property
    def storage(self) -> Quantization:
        """How the base is stored, chosen or by default."""
        return self.quantization or self.defaults.quantization

    @property
    def part(self) -> "LoraSpec | PrefixSpec | BottleneckSpec | None":
        """The settings of its own that the method has, chosen or by default."""
        parts = {"lora": LoraSpec, "prefix": PrefixSpec, "bottleneck": BottleneckSpec}
        return (getattr(self, self.type) or parts[self.type]()) if self.type in parts else None
