"""The fields of a loop, each declared once: its names, its default, what it may be, when it acts, how a page offers it.

A loop field costs three places: its row in :class:`LoopSettings` (and its type in :class:`BlockSettings`), how
``loopviz.model.configuration`` resolves it, and its words in ``loopviz.app.texts``. Configurations, blocks, the Meta of runs,
options of commands, controls, links and Compare read the rows.

On the ground floor: it imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from loopviz import checks

Strategy = Literal["fixed_count", "dynamic_stop"]
KVMode = Literal["virtual_layers", "merge_strategy"]
AttentionMode = Literal["parallel", "serial"]
Injection = Literal["none", "add", "linear"]
FinalNorm = Literal["none", "every_step", "last_step"]
Init = Literal["entry", "zeros", "random"]
ExitSelection = Literal["last", "gate", "gate_weighted"]
UnreachedSlots = Literal["refuse", "latest"]
KVDtype = Literal["exact", "int8", "fp8"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
KV_MODES: tuple[str, ...] = get_args(KVMode)
ATTENTION_MODES: tuple[str, ...] = get_args(AttentionMode)
INJECTIONS: tuple[str, ...] = get_args(Injection)
FINAL_NORMS: tuple[str, ...] = get_args(FinalNorm)
INITS: tuple[str, ...] = get_args(Init)
EXIT_SELECTIONS: tuple[str, ...] = get_args(ExitSelection)
UNREACHED_SLOTS: tuple[str, ...] = get_args(UnreachedSlots)
KV_DTYPES: tuple[str, ...] = get_args(KVDtype)
NO_CHOOSER = "none"  # every layer of the block runs in every step
EXACT = "exact"  # keys and values are kept as they are

# Far ends: a cache and a recorder keep account of every slot and step, before any of them is computed.
MOST_STEPS = 65_536
MOST_SLOTS = 4_096
LARGEST_SEED = 2**31 - 1
LARGEST_STD = 1_000.0  # of a random start: three of it are a number in float16 too

# Of a model's layers, not of its loop: they decide which weights there are, so a live model cannot change them.
NORM_PLACEMENTS = ("pre", "pre_branch", "pre_stream", "branch")
QK_NORMS = ("none", "full", "head")
MODEL_FIELDS: Mapping[str, Any] = {"norm_placement": "pre", "embedding_scale": 1.0, "qk_norm": "none"}  # name: default

# Stop rules as Huginn's authors published them, beside ours; each has a threshold of its own, which 0 stands for.
PUBLISHED_CRITERIA: Mapping[str, float] = {
    "huginn_latent_diff": 0.03,
    "huginn_cosine": 1e-3,
    "huginn_kl": 1e-3,
    "huginn_minp_kl": 1e-5,
    "huginn_entropy_diff": 1e-3,
    "huginn_argmax_stability": 5,
}

UNSAID: Any = object()  # what a row leaves to another of its entries


@dataclass(frozen=True)
class Needs:
    """A field acts only while another one is `among` some values, or `without` some.

    why: key of the reason a page gives where it is not so (`off.<why>` in its texts).
    """

    field: str
    why: str
    among: tuple[Any, ...] = ()
    without: tuple[Any, ...] = ()

    def holds(self, value: Any) -> bool:
        """Whether the field acts where the other one has this value."""
        return value in self.among if self.among else value not in self.without


@dataclass(frozen=True)
class Dial:
    """How a page offers a field: in a group of controls, between two ends.

    default: what the control starts at; UNSAID: the field's own default.
    low, high, step: of a number.
    scale: of a number whose slider shows the power of ten: of the value ("log"), or of how much it lacks to 1 ("log_gap").
    kept_back: choices that are not for pages: what commands and measurements may set.
    """

    group: Literal["loop", "kv", "step"]
    low: float = 0
    high: float = 0
    step: float = 1
    default: Any = UNSAID
    scale: Literal["", "log", "log_gap"] = ""
    kept_back: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoopField:
    """One field of a loop.

    name: of the configuration's field, the command's option, the page's control.
    kind: "layers", "choice", "whole", "number" or "flag".
    default: of the configuration.
    words: what its option's help says; of a choice, before its choices.
    dial: how a page offers it.
    block: its name in a block; meta: in the Meta of a run.
    choices: of LoopViz; more in `registered` where people register others by name.
    low, high, open: ends of a number, and which of them do not belong to it ("(" and ")"); rule: in other words than these.
    needs: when it acts; idle: what a command says where it does not.
    neutral: the value that changes nothing: what the plain model has, and what was so before there was the field. UNSAID: the
        default.
    since: the version of trace files that has it; 0: all of them.
    layout: whether it decides which K/V a cache holds, so that a cache made under another value cannot be continued.
    """

    name: str
    kind: Literal["layers", "choice", "whole", "number", "flag"]
    default: Any
    words: str
    dial: Dial
    block: str = ""
    meta: str = ""
    choices: tuple[str, ...] = ()
    registered: dict[str, Any] | None = None
    low: float = -math.inf
    high: float = math.inf
    open: str = ""
    rule: str = ""
    needs: tuple[Needs, ...] = ()
    idle: str = ""
    neutral: Any = UNSAID
    since: int = 0
    layout: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The choices there are: LoopViz's own, then those that people have registered in this process."""
        return (*self.choices, *(name for name in self.registered or () if name not in self.choices))

    @property
    def plain(self) -> Any:
        """The value that changes nothing."""
        return self.default if self.neutral is UNSAID else self.neutral

    def check(self, value: Any) -> Any:
        """The value as a block has it.

        Raises:
            FieldError: it is of another kind, or not within the ends.
        """
        if self.kind == "choice":
            checks.check_one_of(self.name, value, self.names)
        elif self.kind == "flag":
            checks.check_flag(self.name, value)
        elif self.kind == "whole":
            if self.rule == "whole_in":  # a number of nothing
                checks.check_whole(self.name, value, int(self.low), int(self.high))
            else:
                checks.check_kept(self.name, value, self.low, self.high)
        else:
            ends = {"above": "(" in self.open, "below": ")" in self.open}
            checks.check_finite(self.name, value, self.low, self.high, rule=self.rule, **ends)
            return float(value)
        return value


def _row(name: str, kind: Any, default: Any, words: str, dial: Dial, **more: Any) -> Any:
    """A field of :class:`LoopSettings`, with its row."""
    row = LoopField(name, kind, default, words, dial, **more)
    return dataclasses.field(default=default, metadata={"row": row})


_DYNAMIC = Needs("loop_strategy", "dynamic_only", among=("dynamic_stop",))
_VIRTUAL = Needs("kv_cache_mode", "virtual_only", among=("virtual_layers",))
_MERGING = Needs("kv_cache_mode", "merge_only", among=("merge_strategy",))
_WEIGHTED = Needs("merge_strategy", "ema_only", without=("average", "last", "first"))  # of others nothing is known
_PUBLISHED = Needs("convergence_criterion", "published_only", among=tuple(PUBLISHED_CRITERIA))
_RANDOM = Needs("loop_init", "random_only", among=("random",))
_GATED = Needs("exit_selection", "gate_only", among=("gate",))
_CHOSEN = Needs("layer_chooser", "chooser_only", without=(NO_CHOOSER,))
_UNDER_DYNAMIC = "without --loop-strategy dynamic_stop"


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The table: every field of a block, by its name there, with its type and its row."""

    strategy: str = _row(
        "loop_strategy", "choice", "fixed_count", "when a block stops looping", Dial("loop"), choices=STRATEGIES
    )
    count: int = _row(
        "loop_count",
        "whole",
        3,
        "loop steps under fixed_count",
        Dial("loop", 1, 32, default=4),
        low=1,
        high=MOST_STEPS,
        needs=(Needs("loop_strategy", "fixed_only", among=("fixed_count",)),),
        idle="under dynamic_stop, whose bound is max_loop_count",
        neutral=1,
    )
    max_count: int = _row(
        "max_loop_count",
        "whole",
        10,
        "upper bound of loop steps",
        Dial("loop", 1, 64),
        meta="max_steps",
        low=1,
        high=MOST_STEPS,
    )
    floor: int = _row(
        "min_loop_count",
        "whole",
        5,
        "steps before dynamic_stop may stop",
        Dial("loop", 1, 32),
        low=1,
        high=MOST_STEPS,
        needs=(_DYNAMIC,),
        idle=_UNDER_DYNAMIC,
    )
    criterion: str = _row(
        "convergence_criterion",
        "choice",
        "either",
        "what dynamic_stop looks at",
        Dial("loop"),
        choices=("either", "both", "cosine", "kl", *PUBLISHED_CRITERIA),
        registered={},
        needs=(_DYNAMIC,),
        idle=_UNDER_DYNAMIC,
    )
    # log sliders: the manual's thresholds are where they start
    cosine_threshold: float = _row(
        "cosine_threshold",
        "number",
        0.95,
        "dynamic_stop: stop at this cosine between steps",
        Dial("loop", -6.0, -0.1, 0.1, default=-1.3, scale="log_gap"),
        low=0,
        high=1,
        open="(",
        needs=(_DYNAMIC, Needs("convergence_criterion", "cosine_only", without=("kl", *PUBLISHED_CRITERIA))),
        idle=f"{_UNDER_DYNAMIC} and a criterion that looks at the cosine",
    )
    kl_threshold: float = _row(
        "kl_threshold",
        "number",
        0.01,
        "dynamic_stop: stop at this KL between steps (nats)",
        Dial("loop", -6.0, 1.0, 0.1, default=-2.0, scale="log"),
        low=0,
        rule="finite_nats",
        needs=(_DYNAMIC, Needs("convergence_criterion", "kl_only", without=("cosine", *PUBLISHED_CRITERIA))),
        idle=f"{_UNDER_DYNAMIC} and a criterion that looks at KL",
    )
    kv_mode: str = _row(
        "kv_cache_mode",
        "choice",
        "virtual_layers",
        "what a looped layer keeps of the steps",
        Dial("kv"),
        choices=KV_MODES,
        layout=True,
    )
    slots: int = _row(  # V; 1 in merge_strategy mode
        "virtual_layer_count",
        "whole",
        5,
        "KV slots of a looped layer, V",
        Dial("kv", 1, 64),
        low=1,
        high=MOST_SLOTS,
        needs=(_VIRTUAL,),
        idle="under --kv-cache-mode merge_strategy",
        neutral=1,
        layout=True,
    )
    attention_mode: str = _row(
        "virtual_attention_mode",
        "choice",
        "parallel",
        "which slots a step attends to",
        Dial("kv"),
        choices=ATTENTION_MODES,
        needs=(_VIRTUAL,),
        idle="under --kv-cache-mode merge_strategy",
        neutral="serial",
    )
    merge: str = _row(
        "merge_strategy",
        "choice",
        "ema",
        "how the steps' K/V become one entry",
        Dial("kv", kept_back=("first",)),
        choices=("ema", "average", "last", "first"),
        registered={},
        needs=(_MERGING,),
        idle="without --kv-cache-mode merge_strategy",
    )
    ema_alpha: float = _row(
        "merge_ema_alpha",
        "number",
        0.7,
        "weight kept on the old value",
        Dial("kv", 0.01, 0.99, 0.01),
        low=0,
        high=1,
        open="()",
        needs=(_MERGING, _WEIGHTED),
        idle="without --kv-cache-mode merge_strategy and a merge that weighs, as ema",
    )
    damping: float = _row(
        "loop_damping",
        "number",
        1.0,
        "part of each step that is taken, in (0, 1]",
        Dial("step", 0.05, 1.0, 0.05),
        low=0,
        high=1,
        open="(",
    )
    injection: str = _row(
        "loop_injection", "choice", "none", "what of the input enters each step", Dial("step"), choices=INJECTIONS
    )
    norm: bool = _row("loop_norm", "flag", False, "an RMSNorm before each step", Dial("step"))
    chooser: str = _row(
        "layer_chooser",
        "choice",
        NO_CHOOSER,
        "which layers of a block run in a step, none being all",
        Dial("step"),
        choices=(NO_CHOOSER, "influence", "difficulty"),
        registered={},
        since=4,
    )
    layer_threshold: float = _row(  # its ends are the chooser's
        "layer_threshold",
        "number",
        0.15,
        "what the chooser compares with: influence in [0, 2], difficulty in [0, 1]",
        Dial("step", 0.0, 2.0, 0.01),
        needs=(_CHOSEN,),
        idle="without --layer-chooser",
        neutral=0.0,
        since=4,
    )
    criterion_threshold: float = _row(
        "criterion_threshold",
        "number",
        0.0,
        "what a published stop rule compares with, 0 being its authors' own value",
        Dial("loop", 0.0, 10.0, 0.001),
        low=0,
        rule="finite_not_negative",
        needs=(_DYNAMIC, _PUBLISHED),
        idle=f"{_UNDER_DYNAMIC} and a criterion named huginn_*",
        since=5,
    )
    unreached: str = _row(
        "unreached_slots",
        "choice",
        "refuse",
        "slots that a row stopped before: none may be, or they get its latest K/V",
        Dial("kv"),
        choices=UNREACHED_SLOTS,
        needs=(_VIRTUAL, _DYNAMIC),
        idle=f"{_UNDER_DYNAMIC}, and under --kv-cache-mode merge_strategy",
        since=5,
    )
    final_norm: str = _row(
        "loop_final_norm",
        "choice",
        "none",
        "where the model's final norm stands in the loop besides its end",
        Dial("step"),
        choices=FINAL_NORMS,
        since=5,
    )
    init: str = _row("loop_init", "choice", "entry", "what the loop starts from", Dial("step"), choices=INITS, since=5)
    init_std: float = _row(
        "loop_init_std",
        "number",
        0.0,
        "standard deviation of a random start",
        Dial("step", 0.0, 2.0, 0.0001),
        low=0,
        high=LARGEST_STD,
        needs=(_RANDOM,),
        idle="without --loop-init random",
        since=5,
    )
    init_seed: int = _row(
        "loop_init_seed",
        "whole",
        0,
        "seed of a random start: the same token at the same place starts alike",
        Dial("step", 0, LARGEST_SEED),
        low=0,
        high=LARGEST_SEED,
        rule="whole_in",
        needs=(_RANDOM,),
        idle="without --loop-init random",
        since=5,
    )
    exit_selection: str = _row(
        "exit_selection",
        "choice",
        "last",
        "which loop a token is read out from: the last, where a learned gate says, or all by its weights",
        Dial("step"),
        choices=EXIT_SELECTIONS,
        since=5,
    )
    exit_threshold: float = _row(
        "exit_threshold",
        "number",
        1.0,
        "of the gate: read out at the first loop by which it has said exit with this probability",
        Dial("step", 0.0, 1.0, 0.01),
        low=0,
        high=1,
        needs=(_GATED,),
        idle="without --exit-selection gate",
        since=5,
    )
    kv_dtype: str = _row(
        "kv_cache_dtype",
        "choice",
        EXACT,
        "what the cache keeps keys and values in: as they are, or rounded to 8 bits by token and head",
        Dial("kv"),
        choices=KV_DTYPES,
        since=7,
        layout=True,
    )


class BlockSettings(TypedDict):
    """The same of a block in the Meta of a run, which keeps `max_count` as the most steps it may run."""

    strategy: Strategy
    count: int
    max_steps: int
    floor: int
    criterion: str
    cosine_threshold: float
    kl_threshold: float
    kv_mode: KVMode
    slots: int
    attention_mode: AttentionMode
    merge: str  # a registered one, as the criterion and the chooser
    ema_alpha: float
    damping: float
    injection: Injection
    norm: bool
    chooser: str  # of layers; "none": all of them run in every step
    layer_threshold: float  # what the chooser compares with
    criterion_threshold: float  # of a published stop rule; 0: its authors'
    unreached: UnreachedSlots
    final_norm: FinalNorm
    init: Init
    init_std: float
    init_seed: int
    exit_selection: ExitSelection
    exit_threshold: float  # of the gate
    kv_dtype: KVDtype  # also of the plain layers that follow the block; of those before the first, its own


LAYERS = LoopField(
    "loop_layers",
    "layers",
    None,
    "layers to repeat, first and last: 10-14; several blocks: 2-3,6-7",
    Dial("loop", 0, 999, default=(10, 14)),
    block="layers",
    meta="layers",
    layout=True,
)


def _rows(settings: Any) -> tuple[LoopField, ...]:
    """The rows of the table in its order, each with the names it has in a block and in a run's Meta."""
    own = [(entry.name, entry.metadata["row"]) for entry in dataclasses.fields(settings)]
    return tuple(dataclasses.replace(row, block=name, meta=row.meta or name) for name, row in own)


BLOCK_FIELDS = _rows(LoopSettings)  # those that a block has of its own
FIELDS = (LAYERS, *BLOCK_FIELDS)
BY_NAME: Mapping[str, LoopField] = {field.name: field for field in FIELDS}
NAMES = tuple(BY_NAME)
LAYOUT_FIELDS = tuple(field.name for field in FIELDS if field.layout)
NEWEST = max(field.since for field in FIELDS)  # the version of trace files that the newest field came with


def registry(name: str) -> dict[str, Any]:
    """What has been registered by name for a field; its module fills it."""
    registered = BY_NAME[name].registered
    assert registered is not None
    return registered


def comes_with_loopviz(registered: Any) -> bool:
    """Whether what is registered (a function, or something with `.function`) is one of this package's own."""
    function: Callable[..., Any] = getattr(registered, "function", registered)
    return (getattr(function, "__module__", None) or "").partition(".")[0] == "loopviz"


def kept_by_layer(blocks: Iterable[tuple[int, int, str]], layers: int) -> list[str]:
    """What the keys and values of each physical layer are kept in (`kv_cache_dtype`).

    A plain layer follows the block before it, those before the first block that one; a model without a block keeps all exact.

    Args:
        blocks: first and last layer of each, ascending, and what it asks for.
        layers: of the model.
    """
    asked = {layer: dtype for first, last, dtype in blocks for layer in range(first, last + 1)}
    kept = asked[min(asked)] if asked else EXACT
    found = []
    for layer in range(layers):
        kept = asked.get(layer, kept)
        found.append(kept)
    return found


def before(version: int) -> dict[str, Any]:
    """What blocks of trace files of a version had of the fields that came later, by their names in a Meta."""
    return {field.meta: field.plain for field in BLOCK_FIELDS if field.since > version}
