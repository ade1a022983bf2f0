"""The way through a layer: which stages a model has, in the order in which they are computed.

:class:`Traits` say how a layer differs from a plain Llama's, :func:`way` lists its stages. Of none of these traits the list is
:data:`loopviz.anatomy.stage_list.ALL`. Importing this needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import other_stages as other
from .other_stages import Exit as Exit
from .stage_list import Stage


@dataclass(frozen=True, kw_only=True)
class Traits:
    """How one run of a layer differs from a plain Llama's; the defaults are that.

    Attributes:
        placement: of the norms, `norm_placement`.
        qk_norm: as the field.
        attention_bias, mlp_bias: whether the projections add one.
        scaled: whether the embedding is multiplied.
        kept: what keys and values are kept in, `kv_cache_dtype` of this layer.
        start: what the loop starts from, where this run begins one: `loop_init`. What enters, e, is in a step's input where `injected`.
        step_norm: whether this run ends a step that the model's final norm ends; `step_damped`: and that is damped before.
        among_normed: whether states of such steps enter and leave.
        exit: how the state that is read out is chosen, where this run ends a loop with an exit gate: of normed states where the
            loop `ends` the model or norms its steps.
        left_norm: whether this run ends a loop, and the model's final norm follows.
        ends: whether the loop ends the model.
        final_norm: whether the model's final norm stands at its end, too.
    """

    placement: str = "pre"
    qk_norm: str = "none"
    attention_bias: bool = False
    mlp_bias: bool = False
    scaled: bool = False
    kept: str = "exact"
    start: str = "entry"
    injected: bool = False
    step_norm: bool = False
    step_damped: bool = False
    among_normed: bool = False
    exit: Exit = ""
    left_norm: bool = False
    ends: bool = False
    final_norm: bool = True


def way(traits: Traits) -> tuple[Stage, ...]:
    """The stages of a run of a layer, and those before the first layer and after the last, in order."""
    return tuple(_way(traits))


def _way(t: Traits) -> Iterator[Stage]:
    yield other.EMBEDDING[t.scaled]
    if t.scaled:
        yield other.SCALED
    if t.start != "entry":
        yield other.STARTS[t.start]
    yield from _attention(t)
    yield from _mlp(t)
    normed_on = t.placement == "pre_stream"
    if t.step_norm:
        yield other.STEP_NORM[t.step_damped]
    if t.exit:
        yield other.READ_OUT[t.exit, t.ends or t.step_norm or t.exit == "weighted", t.step_norm]
    if t.left_norm:
        yield other.LEFT_NORM
    if t.final_norm:
        yield other.FINAL_NORM[normed_on or t.left_norm]
    yield other.HEAD[t.final_norm]
    yield other.PLAIN["sampling"]


def _attention(t: Traits) -> Iterator[Stage]:
    raw, normed = t.placement == "branch", t.qk_norm != "none"
    source = "" if t.start == "entry" else "both" if t.injected else "start"
    changed = "stream" if t.placement == "pre_stream" else "normed" if t.among_normed else ""
    yield other.STATE[changed, source, t.placement != "pre"]
    if not raw:
        yield other.PLAIN["norm"]
    for name in ("query", "key", "value"):
        yield other.PROJECTED[name][raw, t.attention_bias]
    if normed:
        yield other.NORM_QUERY[t.qk_norm]
        yield other.NORM_KEY[t.qk_norm]
    yield other.ROPE[normed]
    if t.kept != "exact":
        yield other.ROUNDED[t.kept]
    yield other.KEYS[t.kept != "exact"]
    for name in ("scores", "weights", "mixed"):
        yield other.PLAIN[name]
    yield other.ATTENDED[t.attention_bias]
    if t.placement in ("pre_branch", "branch"):
        yield other.NORM_ATTENDED[raw]


def _mlp(t: Traits) -> Iterator[Stage]:
    raw, stream = t.placement == "branch", t.placement == "pre_stream"
    branch = t.placement in ("pre_branch", "branch")
    yield other.BETWEEN["raw" if branch else "stream" if stream else "sum"]
    if stream:
        yield other.NORM_STREAM
    if not raw:
        yield other.NORM_MLP[stream]
    yield other.PROJECTED["gate"][raw, t.mlp_bias]
    yield other.PLAIN["swish"]
    yield other.PROJECTED["up"][raw, t.mlp_bias]
    yield other.PLAIN["product"]
    yield other.DOWN[t.mlp_bias]
    if branch:
        yield other.NORM_DOWN[raw]
    then = stream or t.step_norm or bool(t.exit) or t.left_norm
    yield other.RESULT["stream" if stream else "branch" if branch else "", then]
    if stream:
        yield other.NORM_RESULT
