"""Configuration of a LoopLlama: which layers are repeated, until when, and how their KV is kept."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from itertools import pairwise
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig

from loopviz.checks import FieldError, check_finite, check_one_of, is_whole
from loopviz.loop_fields import ATTENTION_MODES as ATTENTION_MODES  # offered here too, with the three below
from loopviz.loop_fields import (
    BLOCK_FIELDS,
    BY_NAME,
    NAMES,
    NO_CHOOSER,
    NORM_PLACEMENTS,
    QK_NORMS,
    comes_with_loopviz,
)
from loopviz.loop_fields import INJECTIONS as INJECTIONS
from loopviz.loop_fields import KV_MODES as KV_MODES
from loopviz.loop_fields import LAYOUT_FIELDS as LAYOUT_FIELDS
from loopviz.loop_fields import STRATEGIES as STRATEGIES

from . import criteria, merges, published_criteria  # noqa: F401  they register LoopViz's own
from .block import LoopBlock
from .choosers import CHOOSERS


class _Default(int):
    """An int that remembers that nobody chose it (`min_loop_count` means something else when left alone)."""


DEFAULT_FLOOR = _Default(5)
LARGEST_SCALE = 1e6  # of embeddings; Huginn's is the root of the width


@strict
class LoopLlamaConfig(LlamaConfig):
    """Configuration of a `LoopLlamaForCausalLM`: a `transformers.LlamaConfig` plus the loop.

    With several blocks every field but `loop_layers` takes one value for all blocks or a list with one value a block.

    Args:
        loop_layers: `(a, b)`, inclusive range of physical layers that is repeated, or a list of such pairs (ascending,
            not overlapping), or `None` for a plain Llama.
        loop_strategy: `"fixed_count"` or `"dynamic_stop"`.
        loop_count: steps under `fixed_count`, >= 1.
        max_loop_count: hard upper bound under both strategies.
        min_loop_count: floor under `dynamic_stop`. In `merge_strategy` mode the floor is 1 unless this is set.
        cosine_threshold: in (0, 1].
        kl_threshold: >= 0, nats.
        convergence_criterion: `"cosine"`, `"kl"`, `"either"`, `"both"` or a registered criterion's name.
        kv_cache_mode: `"virtual_layers"` or `"merge_strategy"`.
        virtual_layer_count: `V` >= 1, KV slots a physical loop layer owns.
        virtual_attention_mode: `"parallel"` or `"serial"`.
        merge_strategy: `"ema"`, `"average"`, `"last"` or a registered merge's name.
        merge_ema_alpha: in (0, 1), weight kept on the OLD value.
        loop_damping: alpha in (0, 1]: `s_r = s_{r-1} + alpha * (g(x_r) - s_{r-1})`; 1 is the plain loop.
        loop_injection: what enters a step: `"none"` s_{r-1}; `"add"` s_{r-1} + e; `"linear"` W[s_{r-1}; e].
        loop_norm: an RMSNorm on `x_r` before each step.
        layer_chooser: which layers of a block run in a step: `"none"` all of them; `"influence"`, `"difficulty"` or a
            registered chooser's name (`loopviz.model.choosers`), asked before every step.
        layer_threshold: what the chooser compares with: `influence` a layer's block influence, in [0, 2]; `difficulty`
            the input's entropy as a share of the largest, in [0, 1]; a registered one says itself.
        criterion_threshold: >= 0, what a published criterion (`huginn_*`) compares with; 0 is its authors' own value.
        unreached_slots: `"refuse"`: under `dynamic_stop` V <= `min_loop_count`, so every slot is written in every pass;
            `"latest"` lifts that: the slots a row did not reach are filled with its latest K/V.
        loop_final_norm: the model's final norm inside the loop: `"none"`; `"every_step"`: s_r itself is normed;
            `"last_step"`: once, between the loop and what follows. Where the block ends the model it IS the final norm.
        loop_init: what s_0 is: `"entry"` e, `"zeros"`, `"random"` (a normal, cut at 3 standard deviations).
        loop_init_std: >= 0, of `"random"`.
        loop_init_seed: of `"random"`: the start of a token follows from seed, block and its place among the row's tokens,
            whatever else is in the batch or came in the same pass. In training it is drawn anew in every pass.
        exit_selection: which s_r a token is read out from, all loops having run: `"last"`; `"gate"`: the first r whose
            cumulated exit probability reaches `exit_threshold`; `"gate_weighted"`: all, by their exit probabilities.
        exit_threshold: in [0, 1], of `"gate"`.
        kv_cache_dtype: what a cache keeps keys and values in (`loopviz.model.kept_kv`): `"exact"`, as they are; `"int8"`, `"fp8"`:
            rounded once, as they are written, to 8 bits and a scale for each token and head. Also of the plain layers that
            follow a block, and of those before the first; a plain Llama keeps them exact. Without a cache nothing is rounded.
        norm_placement: of the layers (fixed when the model is built): `"pre"` x + f(n x); `"pre_branch"`
            x + n'(f(n x)); `"pre_stream"` n'(x + f(n x)); `"branch"` x + n(f x).
        embedding_scale: > 0, multiplies what the embedding gives (not `inputs_embeds`, and not a tied head).
        qk_norm: an RMSNorm on queries and keys before RoPE (fixed too): `"none"`; `"full"` over all heads together;
            `"head"` over each.

    Raises:
        ValueError: naming the field, its value and the rule it breaks.
    """

    model_type = "loop_llama"

    # What the table in `loopviz.loop_fields` says. `Any`: the values are checked, with messages that name the rule, in
    # `loop_blocks`.
    loop_layers: Any = None
    loop_strategy: Any = "fixed_count"
    loop_count: Any = 3
    max_loop_count: Any = 10
    min_loop_count: Any = DEFAULT_FLOOR
    cosine_threshold: Any = 0.95
    kl_threshold: Any = 0.01
    convergence_criterion: Any = "either"
    kv_cache_mode: Any = "virtual_layers"
    virtual_layer_count: Any = 5
    virtual_attention_mode: Any = "parallel"
    merge_strategy: Any = "ema"
    merge_ema_alpha: Any = 0.7
    loop_damping: Any = 1.0
    loop_injection: Any = "none"
    loop_norm: Any = False
    layer_chooser: Any = NO_CHOOSER
    layer_threshold: Any = 0.15
    criterion_threshold: Any = 0.0
    unreached_slots: Any = "refuse"
    loop_final_norm: Any = "none"
    loop_init: Any = "entry"
    loop_init_std: Any = 0.0
    loop_init_seed: Any = 0
    exit_selection: Any = "last"
    exit_threshold: Any = 1.0
    kv_cache_dtype: Any = "exact"

    # Of the layers, not of the loop (`loopviz.loop_fields.MODEL_FIELDS`).
    norm_placement: Any = "pre"
    embedding_scale: Any = 1.0
    qk_norm: Any = "none"

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop(IMPORTS, None)  # made anew from the names whenever it is saved
        super().__post_init__(**kwargs)
        check_one_of("norm_placement", self.norm_placement, NORM_PLACEMENTS)
        check_one_of("qk_norm", self.qk_norm, QK_NORMS)
        check_finite("embedding_scale", self.embedding_scale, 0, LARGEST_SCALE, above=True)
        self.tidy_loop()

    def tidy_loop(self) -> None:
        """Bring the loop's fields into their stored form and check them.

        LARGEST_SCALE = 1e6  # of embeddings; Huginn's is the root of the width

                Raises:
                    ValueError: naming the field, its value and the rule it breaks.
        """
        self.loop_layers = _tidy_layers(self.loop_layers)
        for name in LOOP_FIELDS:
            value = getattr(self, name)
            if name != "loop_layers" and isinstance(value, tuple):
                setattr(self, name, list(value))
        if not self.loop_layers:
            # Without a block the fields do nothing, but a wrong one is refused now, not when the loop is turned on. Lists
            # (one value a block) stay for then: a model of two blocks is a plain Llama in between.
            n = max((len(value) for name in LOOP_FIELDS if isinstance(value := getattr(self, name), list)), default=1)
            for index in range(n):
                self._resolve(index, (0, 0), n)
        self.loop_blocks()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> LoopLlamaConfig:
        """As transformers', but loop fields given as keywords are validated together with the stored ones."""
        loop = {name: kwargs.pop(name) for name in LOOP_FIELDS if name in kwargs}
        fields = {**config_dict, **loop}
        _check_registered(fields, fields.pop(IMPORTS, None) or {})
        # A plain Llama's folder says "llama"; what comes of it is a LoopLlama.
        return super().from_dict({**fields, "model_type": cls.model_type}, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As transformers'; a `min_loop_count` nobody set is left out, so that it stays unset after loading.

        Names that a user registered are saved with the module that registers them (`loop_imports`): who loads the model
        without it is told which one to import.
        """
        output = super().to_dict()
        if isinstance(self.min_loop_count, _Default):
            output.pop("min_loop_count", None)
        imports = self.own_imports()
        return output | ({IMPORTS: imports} if imports else {})

    def own_imports(self) -> dict[str, str]:
        """The names of registered functions in use that are not LoopViz's own, and the module that registers each."""
        return {
            name: function.__module__
            for field, registry in REGISTRIES.items()
            for name in _each(getattr(self, field))
            if (function := _function(registry.get(name))) is not None and not comes_with_loopviz(function)
        }

    def loop_fields(self) -> dict[str, Any]:
        """The loop's fields as plain JSON-able data (`min_loop_count` as it was set, or its default 5)."""
        fields = {name: getattr(self, name) for name in LOOP_FIELDS}
        fields["loop_layers"] = _as_lists(self.loop_layers)
        fields["min_loop_count"] = _strip_default(fields["min_loop_count"])
        return fields

    def loop_blocks(self) -> list[LoopBlock]:
        """The looped blocks with every field resolved and checked; empty for a plain Llama.

        Raises:
            ValueError: naming the field, its value and the rule it breaks.
        """
        key = self._loop_key()
        found = _RESOLVED.get(key)
        if found is None:
            pairs = block_ranges(self.loop_layers, self.num_hidden_layers)
            found = tuple(self._resolve(index, pair, len(pairs)) for index, pair in enumerate(pairs))
            if len(_RESOLVED) >= _MOST_RESOLVED:
                _RESOLVED.clear()
            _RESOLVED[key] = found
        return list(found)

    def _loop_key(self) -> Hashable:
        """All that the blocks are made of; they are asked for in every pass, and resolving them takes as long as a layer."""
        held = self.__dict__
        values = [held.get(name) for name in _DECISIVE]
        # 1, 1.0, True and a default of 1 are equal, and not the same: one may be refused; what may be changed in place is written out
        kinds = tuple(map(type, values))
        plain = tuple(value if type(value) in _PLAIN else repr(value) for value in values)
        registered = tuple((name, id(found)) for registry in REGISTRIES.values() for name, found in registry.items())
        return kinds, plain, registered

    def _resolve(self, index: int, pair: tuple[int, int], n_blocks: int) -> LoopBlock:
        def pick(name: str) -> Any:
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)):
                return value
            if len(value) != n_blocks:
                raise FieldError(name, value, "list_for_one_block" if n_blocks == 1 else "list_for_blocks", n=n_blocks)
            return value[index]

        found: dict[str, Any] = {
            field.block: field.check(pick(field.name)) for field in BLOCK_FIELDS if field.name != "layer_threshold"
        }
        # what other fields have a say in
        if found["kv_mode"] != "virtual_layers":
            found["slots"] = 1
            if isinstance(pick("min_loop_count"), _Default):
                found["floor"] = 1
        found["floor"] = int(found["floor"])
        found["layer_threshold"] = _layer_threshold(found["chooser"], pick("layer_threshold"))
        block = LoopBlock(index=index, a=pair[0], b=pair[1], **found)
        _check_counts(block)
        self._check_exits(block, index == n_blocks - 1)
        return block

    def _check_exits(self, block: LoopBlock, last: bool) -> None:
        """What reads the end of the model is for a block that can know it."""
        if self.loop_layers and block.exit_selection == "gate_weighted" and block.b < self.num_hidden_layers - 1:
            raise FieldError("exit_selection", "gate_weighted", "weighted_before_layers", block=block.index)
        if block.dynamic and not last and criteria.CRITERIA[block.criterion].reads_exit:
            raise FieldError("convergence_criterion", block.criterion, "criterion_of_last_block", block=block.index)


# Fields whose values are names of registered functions, and where those are registered.
REGISTRIES: dict[str, Mapping[str, Any]] = {
    field.name: field.registered for field in BLOCK_FIELDS if field.registered is not None
}
IMPORTS = "loop_imports"  # in a saved configuration: the module that registers each name that is not LoopViz's own

LOOP_FIELDS = NAMES
_DECISIVE = (*NAMES, "num_hidden_layers")
_PLAIN = {int, float, bool, str, type(None)}
_RESOLVED: dict[Hashable, tuple[LoopBlock, ...]] = {}
_MOST_RESOLVED = 1024


def _each(value: Any) -> list[str]:
    """A field's names, one for all blocks or one a block."""
    return [name for name in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(name, str)]


def _function(registered: Any) -> Any:
    return getattr(registered, "function", registered)


def _check_registered(fields: dict[str, Any], imports: dict[str, Any]) -> None:
    """Refuse names that a saved model needs and nobody has registered here, saying what registers them."""
    for field, registry in REGISTRIES.items():
        for name in _each(fields.get(field)):
            if name in registry or not isinstance(module := imports.get(name), str):
                continue
            rule = "registered_in_notebook" if module == "__main__" else "registered_by_module"
            raise FieldError(field, name, rule, module=module, known=", ".join(map(repr, registry)))


def block_ranges(loop_layers: Any, n_layers: int) -> list[tuple[int, int]]:
    """The looped ranges as pairs `(a, b)`, checked against the model's depth.

    Raises:
        ValueError: a layer outside `0..n_layers-1`, `a > b`, or ranges that overlap or do not ascend.
    """
    layers = _tidy_layers(loop_layers)
    if layers is None:
        return []
    pairs = list(layers) if isinstance(layers, list) else [layers]
    for a, b in pairs:
        for layer, part in ((a, "start"), (b, "end")):
            if not 0 <= layer < n_layers:
                wrong = {"layer": layer, "n": n_layers, "last": n_layers - 1}
                raise FieldError("loop_layers", loop_layers, "layer_outside", part=part, **wrong)
        if a > b:
            raise FieldError("loop_layers", loop_layers, "first_after_last", part="start", a=a, b=b)
    for (a, b), (c, d) in pairwise(pairs):
        if c <= b:
            raise FieldError("loop_layers", loop_layers, "blocks_overlap", one=(a, b), other=(c, d))
    return pairs


def _tidy_layers(value: Any) -> Any:
    """`None`, one pair of ints, or a list of pairs (JSON knows no tuples)."""
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        raise FieldError("loop_layers", value, "layers_shape")
    if len(value) == 0:
        raise FieldError("loop_layers", value, "layers_empty")

    def pair(item: Any) -> tuple[int, int]:
        if not isinstance(item, (list, tuple)) or len(item) != 2 or not all(is_whole(x) for x in item):
            raise FieldError("loop_layers", value, "layers_shape")
        return (int(item[0]), int(item[1]))

    if any(isinstance(item, (list, tuple)) for item in value):
        return [pair(item) for item in value]
    return pair(value)


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _strip_default(value: Any) -> Any:
    if isinstance(value, list):
        return [_strip_default(item) for item in value]
    return int(value) if isinstance(value, _Default) else value


def _layer_threshold(chooser: str, value: Any) -> float:
    """The threshold of a chooser of layers, whose range is the chooser's own."""
    field = BY_NAME["layer_threshold"]
    known = CHOOSERS.get(chooser)
    if known is None or (known.low, known.high) == (-math.inf, math.inf):
        return float(field.check(value))
    try:
        check_finite(field.name, value, known.low, known.high)
    except FieldError:
        own = {"range": f"[{known.low:g}, {known.high:g}]", "chooser": repr(chooser)}
        raise FieldError(field.name, value, "finite_in_for", **own) from None
    return float(value)


def _check_counts(block: LoopBlock) -> None:
    if not block.dynamic:
        if block.count > block.max_count:
            raise FieldError("loop_count", block.count, "count_over_max", most=block.max_count)
        return
    if block.max_count < block.floor:
        raise FieldError("max_loop_count", block.max_count, "max_under_floor", floor=block.floor)
    if block.kv_mode == "virtual_layers" and block.slots > block.floor and block.unreached == "refuse":
        raise FieldError("virtual_layer_count", block.slots, "slots_over_floor", floor=block.floor)
