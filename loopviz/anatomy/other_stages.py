"""The stages that models have which are no plain Llama: what they have instead of its stages, and more; as data.

:class:`Traits` say how a layer differs, :func:`way` lists its stages in the order in which they are computed. Of none of these traits the
list is :data:`loopviz.anatomy.stage_list.ALL`. Importing this needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from .stage_list import ALL, Stage

_MODELING = "loopviz.model.modeling:LoopLlamaModel."
_JOINED = ("loopviz.model.layers:PlacedNormLayer._joined", "joined: Tensor")
_START = "loopviz.model.start_state:start_state"
_PLAIN: Mapping[str, Stage] = {stage.name: stage for stage in ALL}
Exit = Literal["", "gate", "weighted"]


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


# -- stages that a plain Llama has not ---------------------------------------------------------------------------------


def _norm(
    name: str, variant: str, tensor: str, formula: str, code: tuple[str, str], reads: tuple[str, ...], of: str
) -> Stage:
    """A norm of a vector `[H]`, drawn beside what it is given and its gain."""
    return Stage(
        name, (tensor,), ("H",), formula, code[0], reads, code[1], drawn=(of, tensor, f"gain_{name}"), variant=variant
    )


def _gained(made: str, gain: str, of: str) -> str:
    return rf"{made} = {gain} \odot \frac{{{of}}}{{\mathrm{{rms}}({of})}}"


_SCALED = Stage(
    "scaled",
    ("scaled",),
    ("H",),
    r"x = c\, E[\mathrm{token}]",
    _MODELING + "_embedded",
    ("embedding",),
    "embeds * self.config.embedding_scale",
    drawn=("embedding", "scaled"),
)
_STARTS = {
    "random": replace(
        _PLAIN["embedding"],
        name="start",
        tensors=("start",),
        formula=r"s_0 \sim \mathrm{N}(0, \sigma^2),\quad |s_{0,i}| \le 3\sigma",
        code=_START,
        line="table.to(entry.device)",
        reads=(),
        drawn=("start",),
        variant="random",
        about="start_random",
    ),
}
_STARTS["zeros"] = replace(
    _STARTS["random"], formula=r"s_0 = 0", line="torch.zeros_like(entry)", variant="zeros", about="start_zeros"
)
_ROUNDED = {
    kept: Stage(
        "rounded",
        ("kept_key", "kept_value"),
        ("K", "D"),
        rf"\tilde k = s\, {formula},\quad s = \frac{{\max_i |k_i|}}{{{largest}}}\quad (\tilde v\ \mathrm{{alike}})",
        "loopviz.model.kept_kv:rounded",
        ("rope", "value"),
        line,
        drawn=("turned_key", "kept_key", "value", "kept_value"),
        variant=kept,
        about=f"rounded_{kept}",
    )
    for kept, formula, largest, line in (
        ("int8", r"\mathrm{round}(k / s)", "127", "parts.round().to(torch.int8)"),
        ("fp8", r"\mathrm{E4M3}(k / s)", "448", "parts.to(torch.float8_e4m3fn)"),
    )
}


def _normed_heads(name: str, letter: str, axis: str) -> dict[str, Stage]:
    """The norm of queries or keys, by `qk_norm`."""
    of_head = _gained(rf"\hat {letter}_n", f"g_{letter}", f"{letter}_n")
    of_all = _gained(rf"\hat {letter}", f"g_{letter}", f"[{letter}_1 \\dots {letter}_{axis}]")
    code, reads = "loopviz.model.layers:NormedProjection.forward", (name,)
    drawn = (name, f"normed_{name}", f"gain_norm_{name}")
    return {
        kind: Stage(
            f"norm_{name}", (f"normed_{name}",), (axis, "D"), formula, code, reads, "self.norm(projected)", drawn, kind, about=f"norm_{name}_{kind}"
        )
        for kind, formula in (("head", of_head), ("full", of_all))
    }  # fmt: skip


_NORM_QUERY, _NORM_KEY = _normed_heads("query", "q", "N"), _normed_heads("key", "k", "K")


def _said(what: str, raw: bool, letter: str) -> str:
    """What attention or MLP says, of a normed state or of the state itself."""
    of = letter if raw else "\\hat " + letter
    return rf"\mathrm{{{what}}}({of})"


_NORM_ATTENDED = {
    raw: _norm(
        "norm_attended",
        "raw" if raw else "",
        "normed_attended",
        _gained(r"\hat a", "g_2", "a") + r",\quad a = " + _said("attention", raw, "x"),
        _JOINED,
        ("attended",),
        "attended",
    )
    for raw in (False, True)
}
_NORM_DOWN = {
    raw: _norm(
        "norm_down",
        "raw" if raw else "",
        "normed_down",
        _gained(r"\hat m", "g_2'", "m") + r",\quad m = " + _said("mlp", raw, "x'"),
        _JOINED,
        ("down",),
        "down",
    )
    for raw in (False, True)
}
_NORM_STREAM = _norm("norm_stream", "", "normed_stream", _gained("x'", "g_2", "h"), _JOINED, ("between",), "between")
_NORM_RESULT = _norm("norm_result", "", "normed_result", _gained("y", "g_2'", "h'"), _JOINED, ("result",), "result")
_STEP_END = ("result", "norm_result")
_STEP_NORM = {
    damped: _norm(
        "step_norm",
        "damped" if damped else "",
        "normed_step",
        _gained("s_r", "g", "d") + r",\quad d = s_{r-1} + \alpha\, (y - s_{r-1})"
        if damped
        else _gained("s_r", "g", "y"),
        (_MODELING + "_run_step", "return self.norm(state) if block.norms_steps"),
        _STEP_END,
        "damped",
    )
    for damped in (False, True)
}
_LEFT_NORM = replace(
    _norm(
        "left_norm",
        "",
        "left",
        _gained(r"\hat s", "g", "s_N"),
        (_MODELING + "_leave", "state = self.norm(state)"),
        (*_STEP_END, "read_out"),
        "left_from",
    ),
)


def _read_out(exit: Exit, read_normed: bool, all_normed: bool) -> Stage:
    """The state that is read out; a gate reads states after the final norm, which those of some loops have been through."""
    asked = "s" if all_normed else r"\hat s"
    read = r"\hat s" if read_normed and not all_normed else "s"
    gate = rf"\lambda_r = \sigma(w\, {asked}_r + b),\quad p_r = \lambda_r \prod_{{j<r}} (1 - \lambda_j),\quad p_N = \prod_{{j<N}} (1 - \lambda_j)"
    first = rf"{read}_{{r^*}},\quad r^* = \min \{{ r : p_1 + \dots + p_r \ge q \}}"
    variant = exit + ("_steps" if all_normed else "_normed" if read_normed else "")
    return Stage(
        "read_out",
        ("read_out",),
        ("H",),
        gate + r",\quad " + (first if exit == "gate" else rf"\sum_r p_r {read}_r"),
        "loopviz.model.exit_gate:read_out",
        (*_STEP_END, "step_norm"),
        "states.gather(0" if exit == "gate" else "states).sum(0)",
        drawn=("read_out",),
        variant=variant,
        about=f"read_out_{exit}",
    )


_READ_OUT = {
    (exit, read_normed, all_normed): _read_out(exit, read_normed, all_normed)
    for exit in ("gate", "weighted")
    for read_normed, all_normed in ((False, False), (True, False), (True, True))
    if read_normed or exit == "gate"  # weights are put on what the head reads, which is normed
}


# -- what is otherwise in a stage that a plain Llama has ---------------------------------------------------------------


def _projected(name: str, letter: str, bias: str, reads_raw: str) -> dict[tuple[bool, bool], Stage]:
    """A projection of the state, normed or as it is, with a bias or without."""
    plain, found = _PLAIN[name], {}
    for raw in (False, True):
        for biased in (False, True):
            formula = plain.formula.replace(rf"\hat {letter}", letter) if raw else plain.formula
            changes = {"reads": (reads_raw,), "about": f"{name}_raw"} if raw else {}
            variant = "_".join(word for word, holds in (("raw", raw), ("bias", biased)) if holds)
            found[raw, biased] = replace(
                plain, formula=formula + (f" + {bias}" if biased else ""), variant=variant, **changes
            )
    return found


_PROJECTED: Mapping[str, Mapping[tuple[bool, bool], Stage]] = {
    "query": _projected("query", "x", "b_q", "state"),
    "key": _projected("key", "x", "b_k", "state"),
    "value": _projected("value", "x", "b_v", "state"),
    "gate": _projected("gate", "x'", "b_{gate}", "between"),
    "up": _projected("up", "x'", "b_{up}", "between"),
}
_ATTENDED = {
    False: _PLAIN["attended"],
    True: replace(_PLAIN["attended"], formula=_PLAIN["attended"].formula + " + b_o", variant="bias"),
}
_DOWN = {
    False: _PLAIN["down"],
    True: replace(_PLAIN["down"], formula=_PLAIN["down"].formula + " + b_{down}", variant="bias"),
}
_EMBEDDING = {
    False: _PLAIN["embedding"],
    True: replace(_PLAIN["embedding"], formula=r"E[\mathrm{token}]", variant="scaled"),
}
_ROPE = {
    False: _PLAIN["rope"],
    True: replace(_PLAIN["rope"], reads=("norm_query", "norm_key"), drawn=("normed_query", "turned"), variant="normed"),
}
_KEYS = {
    False: _PLAIN["keys"],
    True: replace(
        _PLAIN["keys"],
        formula=r"K = [\tilde k_0 \dots \tilde k_t],\; V = [\tilde v_0 \dots \tilde v_t]",
        reads=("rounded",),
        code="loopviz.model.cache_layer:LoopCacheLayer.read",
        line="",
        variant="rounded",
        about="keys_rounded",
    ),
}


def _states() -> dict[tuple[str, str], Stage]:
    """The state that enters: by what is said to change it, and by where it comes from."""
    plain, found = _PLAIN["state"], {}
    sources = {"": plain.reads, "start": ("start",), "both": ("scaled", "embedding", "start")}
    for about in ("", "stream", "normed"):
        for source, reads in sources.items():
            variant = "_".join(word for word in (about, source) if word)
            found[about, source] = replace(plain, reads=reads, variant=variant, about=f"state_{about}" if about else "")
    return found


_STATE = _states()
_BETWEEN = {
    "sum": _PLAIN["between"],
    "raw": replace(_PLAIN["between"], formula=r"x' = x + \hat a", reads=("state", "norm_attended"), variant="branch",
                   drawn=("state", "normed_attended", "between"), code=_JOINED[0], line=_JOINED[1], about="between_branch"),
    "stream": replace(_PLAIN["between"], formula=r"h = x + \mathrm{attention}(\hat x)", variant="stream", code=_JOINED[0], line=_JOINED[1]),
}  # fmt: skip
_NORM_MLP = {
    False: _PLAIN["norm_mlp"],
    True: replace(_PLAIN["norm_mlp"], reads=("norm_stream",), variant="stream", drawn=("normed_stream", "normed_between", "layer_norm_mlp", "gain_mlp")),
}  # fmt: skip


def _results() -> dict[tuple[str, bool], Stage]:
    """The second sum: by what is added to what, and whether something follows before the state leaves."""
    plain, found = _PLAIN["result"], {}
    kinds: dict[str, dict[str, object]] = {
        "": {},
        "branch": {"formula": r"y = x' + \hat m", "reads": ("between", "norm_down"), "drawn": ("between", "normed_down", "result")},
        "stream": {"formula": r"h' = x' + \mathrm{mlp}(\hat x')", "reads": ("norm_stream", "down"), "drawn": ("normed_stream", "down", "result")},
    }  # fmt: skip
    for kind, changes in kinds.items():
        for then in (True,) if kind == "stream" else (False, True):  # a norm always follows the sum there
            variant = "_".join(word for word, holds in ((kind, kind), ("then", then)) if holds)
            words = {"title": "result_then", "about": "result_then"} if then else {}
            code = {"code": _JOINED[0], "line": _JOINED[1]} if kind else {}
            found[kind, then] = replace(plain, variant=variant, **changes, **words, **code)  # type: ignore[arg-type]
    return found


_RESULT = _results()
_FINAL_NORM = {
    False: _PLAIN["final_norm"],
    True: replace(_PLAIN["final_norm"], reads=(*_STEP_END, "left_norm"), variant="other"),
}
_HEAD = {
    True: _PLAIN["head"],
    False: replace(_PLAIN["head"], formula=r"\ell = W_{head}\, s", reads=("step_norm", "read_out"), variant="normed"),
}


# -- the way through a layer -------------------------------------------------------------------------------------------


def way(traits: Traits) -> tuple[Stage, ...]:
    """The stages of a run of a layer, and those before the first layer and after the last, in order."""
    return tuple(_way(traits))


def _way(t: Traits) -> Iterator[Stage]:
    yield _EMBEDDING[t.scaled]
    if t.scaled:
        yield _SCALED
    if t.start != "entry":
        yield _STARTS[t.start]
    yield from _attention(t)
    yield from _mlp(t)
    normed_on = t.placement == "pre_stream"
    if t.step_norm:
        yield _STEP_NORM[t.step_damped]
    if t.exit:
        yield _READ_OUT[t.exit, t.ends or t.step_norm or t.exit == "weighted", t.step_norm]
    if t.left_norm:
        yield _LEFT_NORM
    if t.final_norm:
        yield _FINAL_NORM[normed_on or t.left_norm]
    yield _HEAD[t.final_norm]
    yield _PLAIN["sampling"]


def _attention(t: Traits) -> Iterator[Stage]:
    raw, normed = t.placement == "branch", t.qk_norm != "none"
    source = "" if t.start == "entry" else "both" if t.injected else "start"
    yield _STATE["stream" if t.placement == "pre_stream" else "normed" if t.among_normed else "", source]
    if not raw:
        yield _PLAIN["norm"]
    for name in ("query", "key", "value"):
        yield _PROJECTED[name][raw, t.attention_bias]
    if normed:
        yield _NORM_QUERY[t.qk_norm]
        yield _NORM_KEY[t.qk_norm]
    yield _ROPE[normed]
    if t.kept != "exact":
        yield _ROUNDED[t.kept]
    yield _KEYS[t.kept != "exact"]
    for name in ("scores", "weights", "mixed"):
        yield _PLAIN[name]
    yield _ATTENDED[t.attention_bias]
    if t.placement in ("pre_branch", "branch"):
        yield _NORM_ATTENDED[raw]


def _mlp(t: Traits) -> Iterator[Stage]:
    raw, stream = t.placement == "branch", t.placement == "pre_stream"
    branch = t.placement in ("pre_branch", "branch")
    yield _BETWEEN["raw" if branch else "stream" if stream else "sum"]
    if stream:
        yield _NORM_STREAM
    if not raw:
        yield _NORM_MLP[stream]
    yield _PROJECTED["gate"][raw, t.mlp_bias]
    yield _PLAIN["swish"]
    yield _PROJECTED["up"][raw, t.mlp_bias]
    yield _PLAIN["product"]
    yield _DOWN[t.mlp_bias]
    if branch:
        yield _NORM_DOWN[raw]
    then = stream or t.step_norm or bool(t.exit) or t.left_norm
    yield _RESULT["stream" if stream else "branch" if branch else "", then]
    if stream:
        yield _NORM_RESULT


def _others() -> Iterator[Stage]:
    one_by_one: tuple[Mapping[object, Stage], ...] = (
        _EMBEDDING, _STARTS, _STATE, *_PROJECTED.values(), _NORM_QUERY, _NORM_KEY, _ROPE, _ROUNDED, _KEYS, _ATTENDED, _NORM_ATTENDED,
        _BETWEEN, _NORM_MLP, _DOWN, _NORM_DOWN, _RESULT, _STEP_NORM, _READ_OUT, _FINAL_NORM, _HEAD,
    )  # fmt: skip # type: ignore[assignment]
    for table in one_by_one:
        yield from (stage for stage in table.values() if stage not in ALL)
    yield from (_SCALED, _NORM_STREAM, _NORM_RESULT, _LEFT_NORM)


# All that is in no plain Llama's list.
OTHERS: tuple[Stage, ...] = tuple(_others())
