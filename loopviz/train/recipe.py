"""A recipe: everything that decides a training run, except where its files are.

Recipes are JSON: the standard library reads it on every Python we support (`tomllib` needs 3.11), values have types
(in an .ini everything is text), and the same form goes into checkpoints and model cards. What a comment would say
stands in `notes`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from loopviz.checks import FieldError, check_counts, check_number, check_one_of, check_whole
from loopviz.fields import typed_values

TASKS = ("text", "arrows")
LOOP_LLAMA, TTT = "loop_llama", "ttt"
MODEL_TYPES = (LOOP_LLAMA, TTT)
SAMPLERS = ("fixed", "uniform", "poisson", "lognormal_poisson", "hops")
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "trapezoid")
DTYPES = ("float32", "float16", "bfloat16")
PRECISIONS = ("float32", "bfloat16")


class RecipeError(ValueError):
    """A recipe that cannot be trained: the message names the field, its value and the rule."""


def _as_recipe(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """A section's `__post_init__`, whose refusals are the recipe's."""

    @functools.wraps(check)
    def checked(section: Any) -> None:
        try:
            check(section)
        except FieldError as error:
            raise RecipeError(str(error)) from None

    return checked


def _check_or_null(name: str, value: int | float | None, low: float) -> None:
    """Refuse a number below `low`; null says something else."""
    if value is not None and value < low:
        raise FieldError(name, value, "at_least_or_null", low=low)


def _check_at_most(name: str, value: float, high: float, called: str) -> None:
    """Refuse a number above another field's."""
    if value > high:
        raise FieldError(name, value, "at_most", high=f"{called}={high}")


@dataclass(frozen=True)
class Loops:
    """How many loop steps each optimisation step runs.

    Attributes:
        sampler: `fixed`: always `mean`. `uniform`: from `min` to `max`, each equally often. `poisson`: 1 + Poisson(mean - 1). `lognormal_poisson`: as arXiv 2502.05171,
            section 3: tau ~ Normal(log(mean - 1) - sigma^2 / 2, sigma), 1 + Poisson(exp(tau)). `hops` (arrows only):
            from the batch's deepest chain to `extra` more. Draws above `max` become `max`.
        mean: mean of the draws before clipping, >= 1; a whole number for `fixed`. Not used by `hops` and `uniform`.
        sigma: of `lognormal_poisson`, > 0.
        max: most steps a draw may give.
        min: fewest, of `uniform`, in 1..`max`.
        extra: of `hops`: steps beyond the deepest chain, at most.
        later_from: first 0-based optimisation step at which `later_mean` and `later_max` take the place of `mean` and
            `max`: more loops once there is something to refine. `None`: never.
        later_mean: see `later_from`.
        later_max: see `later_from`.
    """

    sampler: str = "poisson"
    mean: float = 4.0
    sigma: float = 0.5
    max: int = 10
    extra: int = 3
    later_from: int | None = None
    later_mean: float = 8.0
    later_max: int = 16
    min: int = 1

    @_as_recipe
    def __post_init__(self) -> None:
        check_one_of("loops.sampler", self.sampler, SAMPLERS)
        check_number("loops.mean", self.mean, 1)
        check_number("loops.sigma", self.sigma, 0, above=True)
        check_number("loops.max", self.max, 1)
        check_number("loops.extra", self.extra, 0)
        if self.sampler == "fixed" and self.mean != int(self.mean):
            raise RecipeError(f"loops.mean={self.mean!r}: must be a whole number with loops.sampler='fixed'")
        check_number("loops.min", self.min, 1)
        _check_at_most("loops.min", self.min, self.max, "loops.max")
        if self.sampler not in ("hops", "uniform"):
            _check_at_most("loops.mean", self.mean, self.max, "loops.max")
        if self.later_from is not None:
            _check_or_null("loops.later_from", self.later_from, 0)
            if self.sampler in ("hops", "uniform"):
                raise RecipeError(
                    f"loops.later_from={self.later_from}: loops.sampler={self.sampler!r} knows no later; use null"
                )
            dataclasses.replace(self, mean=self.later_mean, max=self.later_max, later_from=None)  # by the same rules

    def at(self, step: int) -> Loops:
        """The settings at a 0-based optimisation step."""
        if self.later_from is None or step < self.later_from:
            return self
        return dataclasses.replace(self, mean=self.later_mean, max=self.later_max, later_from=None)

    @property
    def most(self) -> int:
        """Most steps any draw of the run may give."""
        return self.max if self.later_from is None else max(self.max, self.later_max)


@dataclass(frozen=True)
class Optimizer:
    """How weights move.

    Attributes:
        name: `adamw`, or `muon`: torch.optim.Muon for the layers' matrices (its rate matched to AdamW's, so that one
            `lr` serves both) and AdamW for embeddings, head, norms and injections.
        lr: highest learning rate, > 0.
        betas: AdamW's.
        momentum: Muon's.
        weight_decay: of matrices and embeddings; norms have none.
        decay_embeddings: whether embeddings decay too; not when their size matters (`embedding_rms`).
        clip: largest norm of the whole gradient, > 0.
    """

    name: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.95
    decay_embeddings: bool = True
    weight_decay: float = 0.1
    clip: float = 1.0

    @_as_recipe
    def __post_init__(self) -> None:
        check_one_of("optimizer.name", self.name, OPTIMIZERS)
        check_number("optimizer.lr", self.lr, 0, above=True)
        for beta in self.betas:
            check_number("optimizer.betas", beta, 0, 1, below=True)
        check_number("optimizer.momentum", self.momentum, 0, 1, below=True)
        check_number("optimizer.weight_decay", self.weight_decay, 0)
        check_number("optimizer.clip", self.clip, 0, above=True)


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the run, as a share of `optimizer.lr`.

    Attributes:
        name: `cosine`: falls from the end of the warm-up on. `trapezoid`: stays, then falls in a straight line.
        warmup: steps of linear rise.
        decay: of `trapezoid`: share of all steps that the fall takes, in (0, 1].
        final: share of the rate that is left at the last step, in [0, 1].
    """

    name: str = "cosine"
    warmup: int = 100
    decay: float = 0.3
    final: float = 0.05

    @_as_recipe
    def __post_init__(self) -> None:
        check_one_of("schedule.name", self.name, SCHEDULES)
        check_number("schedule.warmup", self.warmup, 0)
        check_number("schedule.decay", self.decay, 0, 1, above=True)
        check_number("schedule.final", self.final, 0, 1)


@dataclass(frozen=True)
class Evaluation:
    """What is measured on held-out data, and how often.

    Attributes:
        every: steps between evaluations.
        loops: loop counts that are measured, ascending.
        tokens: text: predicted tokens of an evaluation while training (the closing one takes all).
        problems: arrows: problems a cell while training.
        final_problems: arrows: problems a cell of the closing matrix.
        positions: text: windows, in tokens, in which the closing evaluation takes the loss by place; ascending, and they
            may be longer than what is trained at. `()`: none.
    """

    every: int = 250
    loops: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24)
    tokens: int = 16384
    problems: int = 100
    final_problems: int = 500
    positions: tuple[int, ...] = ()

    @_as_recipe
    def __post_init__(self) -> None:
        check_counts("evaluation.loops", self.loops)
        if self.positions:
            check_counts("evaluation.positions", self.positions)
        for name in ("every", "tokens", "problems", "final_problems"):
            check_number(f"evaluation.{name}", getattr(self, name), 1)


@dataclass(frozen=True)
class Arrows:
    """The task "follow the arrows" (`task="arrows"`).

    Attributes:
        nodes: nodes of a graph, 3..26, named a, b, c ...
        arrows: arrows of a problem; every problem has as many, so its length says nothing about its depth.
        max_hops: longest chain asked for.
        start_hops: chain length the curriculum starts with.
        promote_at: held-out accuracy at the present depth that adds a hop, in (0, 1].
        rehearsal: share of problems whose length is drawn from all lengths up to the present depth, in [0, 1].
    """

    nodes: int = 16
    arrows: int = 12
    max_hops: int = 8
    start_hops: int = 1
    promote_at: float = 0.95
    rehearsal: float = 0.5

    @_as_recipe
    def __post_init__(self) -> None:
        check_number("arrows.nodes", self.nodes, 3, 26)
        if not self.max_hops <= self.arrows <= self.nodes - 2:
            raise RecipeError(
                f"arrows.arrows={self.arrows}: must be in arrows.max_hops={self.max_hops}..arrows.nodes - 2="
                f"{self.nodes - 2} (another node must be an end too)"
            )
        check_number("arrows.max_hops", self.max_hops, 1)
        check_number("arrows.start_hops", self.start_hops, 1)
        _check_at_most("arrows.start_hops", self.start_hops, self.max_hops, "arrows.max_hops")
        check_number("arrows.promote_at", self.promote_at, 0, 1, above=True)
        check_number("arrows.rehearsal", self.rehearsal, 0, 1)


Settings = TypeVar("Settings", bound="AsJson")


class AsJson:
    """What a dataclass of settings with sections reads itself from and writes itself to."""

    @classmethod
    def from_dict(cls: type[Settings], values: Mapping[str, Any]) -> Settings:
        """From JSON's types.

        Raises:
            RecipeError: an unknown or missing field, a value of another type, or one that breaks a rule.
        """
        try:
            return cls(**typed_values(cls, values))
        except FieldError as error:
            raise RecipeError(str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data; `from_dict` takes it back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]

    def with_values(self: Settings, values: Mapping[str, Any]) -> Settings:
        """With some values replaced, named as `field` or `section.field`.

        Raises:
            RecipeError: an unknown field, or a value that breaks a rule.
        """
        changed = self.to_dict()
        for path, value in values.items():
            section, _, leaf = path.rpartition(".")
            place = changed if not section else changed.get(section)
            if not isinstance(place, dict):
                raise RecipeError(f"{path}={value!r}: this recipe has no section {section!r}")
            place[leaf] = value
        return type(self).from_dict(changed)


@dataclass(frozen=True)
class Recipe(AsJson):
    """A training run. `Recipe.load(name_or_file)`, `recipe.with_values({"optimizer.lr": 2e-3})`.

    Attributes:
        name: of the model.
        task: `text` or `arrows`.
        model_type: what is trained, as its `config.json` says: `loop_llama`, a Llama with a loop or a plain one, or `ttt`,
            which has no loop (`task="text"`).
        model: fields of `LoopLlamaConfig`, or of `TTTConfig`; `vocab_size` and the end token come from the tokenizer.
        steps: optimisation steps.
        batch: sequences a step.
        length: text: tokens a sequence (arrows: decided by the task, not used).
        vocab_size: text: entries of the BPE tokenizer, >= 257 (all bytes and the end mark).
        held_out: text: share of the text, at its end, that is held out when no file is given for it.
        backprop_steps: gradients flow through this many last loop steps; `None` through all.
        embedding_rms: root mean square of the embeddings' numbers at the start, the final norm set so that logits start
            with a standard deviation of 1; `None`: as Llama starts (0.02). With injection and loop norm, whose output
            has a root mean square of 1, 1 lets state and input weigh alike in each step; as Llama starts the input is
            a fiftieth of the state, and the loop drifts instead of settling.
        dropout: on embeddings and on what every layer adds to the residual stream.
        precision: of the matrix products in training: `bfloat16` (autocast; weights, state and sums stay float32) is
            several times faster where the processor has bfloat16 units, and slower where it has none.
        seed: of weights, batches, loop counts and dropout.
        checkpoint_every: steps between checkpoints.
        compile: `torch.compile` each layer: slower start, faster steps; needs a C++ compiler.
        threads: CPU threads; `None`: torch's choice.
        use: loop fields of the finished model that differ from training, like `{"loop_strategy": "dynamic_stop"}`.
        save_dtype: of the weights in the finished folder; the closing evaluation measures those.
        notes: why the values are what they are; for people.

    Raises:
        RecipeError: naming the field, its value and the rule it breaks.
    """

    name: str
    task: str
    model: dict[str, Any]
    steps: int
    batch: int
    model_type: str = LOOP_LLAMA
    length: int = 128
    vocab_size: int = 2048
    held_out: float = 0.05
    backprop_steps: int | None = None
    embedding_rms: float | None = None
    dropout: float = 0.0
    seed: int = 0
    checkpoint_every: int = 250
    compile: bool = False
    precision: str = "float32"
    threads: int | None = None
    use: dict[str, Any] = field(default_factory=dict)
    save_dtype: str = "float16"
    notes: str = ""
    loops: Loops | None = field(default_factory=Loops)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    evaluation: Evaluation = field(default_factory=Evaluation)
    arrows: Arrows | None = None

    @_as_recipe
    def __post_init__(self) -> None:
        check_one_of("task", self.task, TASKS)
        check_one_of("model_type", self.model_type, MODEL_TYPES)
        check_one_of("save_dtype", self.save_dtype, DTYPES)
        check_one_of("precision", self.precision, PRECISIONS)
        for name, least in {"steps": 1, "batch": 1, "length": 2, "vocab_size": 257, "checkpoint_every": 1}.items():
            check_number(name, getattr(self, name), least)
        for name in ("backprop_steps", "threads"):
            _check_or_null(name, getattr(self, name), 1)
        check_number("held_out", self.held_out, 0, 1, above=True, below=True)
        if self.embedding_rms is not None and not self.embedding_rms > 0:
            raise RecipeError(f"embedding_rms={self.embedding_rms!r}: must be > 0, or null")
        check_number("dropout", self.dropout, 0, 1, below=True)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        _check_at_most("schedule.warmup", self.schedule.warmup, self.steps, "steps")
        self._check_ttt()
        self._check_loops()

    def _check_ttt(self) -> None:
        """What a recipe of a TTT model cannot ask for."""
        if self.model_type != TTT:
            return
        if self.loops is not None:
            raise RecipeError("loops=given: model_type='ttt' has no loop; use null")
        if self.task != "text":
            raise RecipeError(f"task={self.task!r}: model_type='ttt' is trained on text; use 'text'")
        if self.use:
            raise RecipeError(f"use.{next(iter(self.use))}: model_type='ttt' has no loop fields; leave it out")
        if self.compile:
            raise RecipeError("compile=True: model_type='ttt' is not compiled; use false")

    def _check_loops(self) -> None:
        """The rules that join the model, its loops and the task."""
        layers = self.model.get("loop_layers")
        if (layers is None) != (self.loops is None):
            raise RecipeError(
                f"loops={'null' if self.loops is None else 'given'}, model.loop_layers={layers!r}: a model with a loop "
                "needs loops, a plain one must have loops=null"
            )
        if layers is not None and any(isinstance(item, (list, tuple)) for item in layers):
            raise RecipeError(f"model.loop_layers={layers!r}: one block [first, last] can be trained, not several")
        if self.model.get("loop_strategy", "fixed_count") != "fixed_count":
            raise RecipeError(
                f"model.loop_strategy={self.model['loop_strategy']!r}: training runs a drawn number of steps, so it must "
                "be 'fixed_count'; the finished model can be set to 'dynamic_stop'"
            )
        if (self.task == "arrows") != (self.arrows is not None):
            raise RecipeError(f"task={self.task!r}: arrows settings belong to task='arrows', and only to it")
        if self.evaluation.positions and (self.task != "text" or self.loops is not None):
            raise RecipeError(
                f"evaluation.positions={list(self.evaluation.positions)}: measured of text, without a loop; use []"
            )
        hops = self.loops if self.loops is not None and self.loops.sampler == "hops" else None
        if hops is not None and self.arrows is None:
            raise RecipeError("loops.sampler='hops': only arrows problems have hops; use 'poisson'")
        if hops is not None and self.arrows is not None and hops.max < self.arrows.max_hops:
            raise RecipeError(f"loops.max={hops.max}: must be >= arrows.max_hops={self.arrows.max_hops}")
        if self.backprop_steps is None:
            return
        if self.loops is None:
            raise RecipeError(f"backprop_steps={self.backprop_steps}: nothing loops in this model; use null")
        if self.model.get("loop_injection", "none") == "none" and self.backprop_steps < self.loops.most:
            raise RecipeError(
                f"backprop_steps={self.backprop_steps}: without injection nothing before the loop would get a gradient "
                f"when more steps run (up to {self.loops.most}); use null, or model.loop_injection='add'"
            )

    @classmethod
    def load(cls, name_or_file: str | Path) -> Recipe:
        """One of `names()`, or a JSON file.

        Raises:
            RecipeError: there is no such recipe, the file is not JSON, or the recipe breaks a rule.
        """
        name = str(name_or_file)
        place = resources.files(__package__) / "recipes" / f"{name}.json" if name in names() else Path(name)
        if not place.is_file():
            raise RecipeError(f"recipe={name!r}: neither a file nor one of {', '.join(names())}")
        try:
            values = json.loads(place.read_text("utf-8"))
        except ValueError as error:
            raise RecipeError(f"recipe={name!r}: not JSON ({error})") from None
        if not isinstance(values, dict):
            raise RecipeError(f"recipe={name!r}: must be a JSON object, not {type(values).__name__}")
        return cls.from_dict(values)


def names() -> list[str]:
    """The recipes that come with LoopViz."""
    return sorted(
        item.name[: -len(".json")]
        for item in (resources.files(__package__) / "recipes").iterdir()
        if item.name.endswith(".json")
    )


def changes_of(items: Sequence[str]) -> dict[str, Any]:
    """`FIELD=VALUE` of `--set`, the value as JSON where it is some, as `with_values` takes them.

    Raises:
        RecipeError: no equals sign.
    """
    changes: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise RecipeError(f"--set {item}: write FIELD=VALUE")
        try:
            changes[name.strip()] = json.loads(value)
        except ValueError:
            changes[name.strip()] = value  # text needs no quotes
    return changes
