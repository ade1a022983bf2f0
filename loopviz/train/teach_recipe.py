"""What decides how a stock Llama is taught to loop, except where its files are: a LoRA on a block that is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from loopviz.checks import check_number, check_one_of, check_whole
from loopviz.loop_fields import BY_NAME, NAMES
from loopviz.machine import QUANTIZATIONS

from .recipe import (
    PRECISIONS,
    AsJson,
    Evaluation,
    Loops,
    Optimizer,
    RecipeError,
    Schedule,
    _as_recipe,
    _check_or_null,
)

TEXT, INSTRUCTIONS = "text", "instructions"
KINDS = (TEXT, INSTRUCTIONS)


@dataclass(frozen=True)
class Lora:
    """peft's LoRA on the looped layers: W + (alpha / rank) B A, B zero at the start.

    Attributes:
        rank: columns of B and rows of A, >= 1.
        alpha: > 0.
        dropout: on what enters A, in [0, 1).
        targets: names of the layers' linear maps.
        per_step: one LoRA a loop step (:mod:`loopviz.model.step_adapters`), as many as the loops that are drawn at most; loops
            beyond them use the last one's.
    """

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    per_step: bool = False

    @_as_recipe
    def __post_init__(self) -> None:
        check_number("lora.rank", self.rank, 1)
        check_number("lora.alpha", self.alpha, 0, above=True)
        check_number("lora.dropout", self.dropout, 0, 1, below=True)
        if type(self.per_step) is not bool:
            raise RecipeError(f"lora.per_step={self.per_step!r}: must be true or false")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise RecipeError(f"lora.targets={list(self.targets)}: name at least one linear map, none twice")


@dataclass(frozen=True)
class TeachRecipe(AsJson):
    """A run of `loopviz teach`. Settings it shares with :class:`~loopviz.train.recipe.Recipe` mean the same.

    Attributes:
        base: name or folder of the model that is taught.
        loop: fields of the loop (`loopviz.loop_fields`); `loop_layers` is the block, one pair.
        base_sha256: hash of the block's weights (`loopviz.model.checkpoints.adapter.fingerprint`); a resumed run wants the same.
        kind: `text`, or `instructions`: prompts and responses, the loss on the responses alone.
        template: of instructions, how a prompt is written; "": the model's own chat template, if it has one.
        closing_tokens: predicted tokens of the closing evaluation, at most.
        steps, batch, length, held_out, backprop_steps, seed, checkpoint_every, precision, threads, notes, loops, optimizer,
            schedule, evaluation: as in a recipe.
        lora: the adapter.
        quantization: how bitsandbytes packs the layers' weights underneath (QLoRA; :mod:`loopviz.model.quantization`); None: they are floats.

    Raises:
        RecipeError: naming the field, its value and the rule it breaks.
    """

    base: str
    loop: dict[str, Any]
    base_sha256: str = ""
    kind: str = TEXT
    template: str = ""
    steps: int = 200
    batch: int = 4
    length: int = 128
    held_out: float = 0.05
    closing_tokens: int = 8192
    backprop_steps: int | None = None
    seed: int = 0
    checkpoint_every: int = 25
    precision: str = "float32"
    quantization: str | None = None
    threads: int | None = None
    notes: str = ""
    loops: Loops = field(default_factory=lambda: Loops(sampler="uniform", max=4))
    lora: Lora = field(default_factory=Lora)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=3e-4, weight_decay=0.001))
    schedule: Schedule = field(default_factory=lambda: Schedule("trapezoid", warmup=10))
    evaluation: Evaluation = field(
        default_factory=lambda: Evaluation(every=50, loops=(1, 2, 3, 4, 5, 6, 7, 8), tokens=2048)
    )

    # What a trainer asks of a recipe, and is never otherwise here.
    task: ClassVar[str] = "text"
    compile: ClassVar[bool] = False
    dropout: ClassVar[float] = 0.0

    @_as_recipe
    def __post_init__(self) -> None:
        check_one_of("kind", self.kind, KINDS)
        check_one_of("precision", self.precision, PRECISIONS)
        if self.quantization is not None:
            check_one_of("quantization", self.quantization, QUANTIZATIONS)
        least = {"steps": 1, "batch": 1, "length": 2, "closing_tokens": 1, "checkpoint_every": 1}
        for name, low in least.items():
            check_number(name, getattr(self, name), low)
        for name in ("backprop_steps", "threads"):
            _check_or_null(name, getattr(self, name), 1)
        check_number("held_out", self.held_out, 0, 1, above=True, below=True)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        if self.schedule.warmup > self.steps:
            raise RecipeError(f"schedule.warmup={self.schedule.warmup}: must be <= steps={self.steps}")
        if self.template and self.kind != INSTRUCTIONS:
            raise RecipeError(
                f"template={self.template!r}: plain text has none; leave it out, or give prompts and responses"
            )
        if self.evaluation.positions:
            raise RecipeError(f"evaluation.positions={list(self.evaluation.positions)}: not measured of a loop; use []")
        self._check_loop()

    def _check_loop(self) -> None:
        for name, value in self.loop.items():
            if name not in NAMES:
                raise RecipeError(f"loop.{name}={value!r}: not a loop field; there are {', '.join(NAMES)}")
        layers = self.loop.get("loop_layers")
        if not _is_pair(layers):
            raise RecipeError(f"loop.loop_layers={layers!r}: one block (first, last) is taught; name it")
        wanted = {"loop_strategy": "fixed_count", "layer_chooser": "none", "exit_selection": "last"}
        for name, value in wanted.items():
            if self.loop.get(name, value) != value:
                raise RecipeError(
                    f"loop.{name}={self.loop[name]!r}: teaching runs a drawn number of whole steps; use {value!r}"
                )
        if self.loops.sampler == "hops":
            raise RecipeError("loops.sampler='hops': only arrows problems have hops; use 'uniform'")
        BY_NAME["loop_count"].check(self.loops.most)

    @property
    def step_adapters(self) -> int:
        """How many loop steps have a LoRA of their own; 0: all have the same."""
        return self.loops.most if self.lora.per_step else 0

    @property
    def fields(self) -> Mapping[str, Any]:
        """The model's loop while it is taught: room for every count, each step with keys and values of its own."""
        most = max(self.loops.most, self.evaluation.loops[-1])
        own_slots = {"virtual_attention_mode": "serial", "virtual_layer_count": self.loops.most}
        counts = {"loop_strategy": "fixed_count", "loop_count": self.loops.most, "max_loop_count": most}
        return {**own_slots, **counts, **self.loop, "loop_layers": tuple(self.loop["loop_layers"])}


def _is_pair(layers: Any) -> bool:
    return isinstance(layers, (list, tuple)) and len(layers) == 2 and all(isinstance(layer, int) for layer in layers)
