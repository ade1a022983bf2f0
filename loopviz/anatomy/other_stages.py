"""The stages that models have which are no plain Llama: what they have instead of its stages, and more; as data.

Each is in a table by what decides it; :mod:`loopviz.anatomy.way` chooses. Importing this needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from .stage_list import ALL, Stage

_MODELING = "loopviz.model.modeling:LoopLlamaModel."
_JOINED = ("loopviz.model.layers:PlacedNormLayer._joined", "joined: Tensor")
_START = "loopviz.model.start_state:start_state"
PLAIN: Mapping[str, Stage] = {stage.name: stage for stage in ALL}
Exit = Literal["", "gate", "weighted"]


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


SCALED = Stage(
    "scaled",
    ("scaled",),
    ("H",),
    r"x = c\, E[\mathrm{token}]",
    _MODELING + "_embedded",
    ("embedding",),
    "embeds * self.config.embedding_scale",
    drawn=("embedding", "scaled"),
)
STARTS = {
    "random": replace(
        PLAIN["embedding"],
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
STARTS["zeros"] = replace(
    STARTS["random"], formula=r"s_0 = 0", line="torch.zeros_like(entry)", variant="zeros", about="start_zeros"
)
ROUNDED = {
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


NORM_QUERY, NORM_KEY = _normed_heads("query", "q", "N"), _normed_heads("key", "k", "K")


def _said(what: str, raw: bool, letter: str) -> str:
    """What attention or MLP says, of a normed state or of the state itself."""
    of = letter if raw else "\\hat " + letter
    return rf"\mathrm{{{what}}}({of})"


NORM_ATTENDED = {
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
NORM_DOWN = {
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
NORM_STREAM = _norm("norm_stream", "", "normed_stream", _gained("x'", "g_2", "h"), _JOINED, ("between",), "between")
NORM_RESULT = _norm("norm_result", "", "normed_result", _gained("y", "g_2'", "h'"), _JOINED, ("result",), "result")
_STEP_END = ("result", "norm_result")
STEP_NORM = {
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
LEFT_NORM = replace(
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


READ_OUT = {
    (exit, read_normed, all_normed): _read_out(exit, read_normed, all_normed)
    for exit in ("gate", "weighted")
    for read_normed, all_normed in ((False, False), (True, False), (True, True))
    if read_normed or exit == "gate"  # weights are put on what the head reads, which is normed
}


# -- what is otherwise in a stage that a plain Llama has ---------------------------------------------------------------


def _projected(name: str, letter: str, bias: str, reads_raw: str) -> dict[tuple[bool, bool], Stage]:
    """A projection of the state, normed or as it is, with a bias or without."""
    plain, found = PLAIN[name], {}
    for raw in (False, True):
        for biased in (False, True):
            formula = plain.formula.replace(rf"\hat {letter}", letter) if raw else plain.formula
            changes: dict[str, Any] = {"reads": (reads_raw,), "about": f"{name}_raw"} if raw else {}
            variant = "_".join(word for word, holds in (("raw", raw), ("bias", biased)) if holds)
            found[raw, biased] = replace(
                plain, formula=formula + (f" + {bias}" if biased else ""), variant=variant, **changes
            )
    return found


PROJECTED: Mapping[str, Mapping[tuple[bool, bool], Stage]] = {
    "query": _projected("query", "x", "b_q", "state"),
    "key": _projected("key", "x", "b_k", "state"),
    "value": _projected("value", "x", "b_v", "state"),
    "gate": _projected("gate", "x'", "b_{gate}", "between"),
    "up": _projected("up", "x'", "b_{up}", "between"),
}
ATTENDED = {
    False: PLAIN["attended"],
    True: replace(PLAIN["attended"], formula=PLAIN["attended"].formula + " + b_o", variant="bias"),
}
DOWN = {
    False: PLAIN["down"],
    True: replace(PLAIN["down"], formula=PLAIN["down"].formula + " + b_{down}", variant="bias"),
}
EMBEDDING = {
    False: PLAIN["embedding"],
    True: replace(PLAIN["embedding"], formula=r"E[\mathrm{token}]", variant="scaled"),
}
ROPE = {
    False: PLAIN["rope"],
    True: replace(PLAIN["rope"], reads=("norm_query", "norm_key"), drawn=("normed_query", "turned"), variant="normed"),
}
KEYS = {
    False: PLAIN["keys"],
    True: replace(
        PLAIN["keys"],
        formula=r"K = [\tilde k_0 \dots \tilde k_t],\; V = [\tilde v_0 \dots \tilde v_t]",
        reads=("rounded",),
        code="loopviz.model.cache_layer:LoopCacheLayer.read",
        line="",
        variant="rounded",
        about="keys_rounded",
    ),
}


def _states() -> dict[tuple[str, str, bool], Stage]:
    """The state that enters: by what is said to change it, by where it comes from, and whether the layer's norms stand elsewhere."""
    plain, found = PLAIN["state"], {}
    sources = {"": plain.reads, "start": ("start",), "both": ("scaled", "embedding", "start")}
    for about, placed in (("", False), ("", True), ("stream", True), ("normed", False), ("normed", True)):
        for source, reads in sources.items():
            variant = "_".join(
                word for word in (about, source, "placed" if placed and about != "stream" else "") if word
            )
            code = "loopviz.model.layers:PlacedNormLayer" if placed else plain.code
            found[about, source, placed] = replace(
                plain, reads=reads, code=code, variant=variant, about=f"state_{about}" if about else ""
            )
    return found


STATE = _states()
BETWEEN = {
    "sum": PLAIN["between"],
    "raw": replace(PLAIN["between"], formula=r"x' = x + \hat a", reads=("state", "norm_attended"), variant="branch",
                   drawn=("state", "normed_attended", "between"), code=_JOINED[0], line=_JOINED[1], about="between_branch"),
    "stream": replace(PLAIN["between"], formula=r"h = x + \mathrm{attention}(\hat x)", variant="stream", code=_JOINED[0], line=_JOINED[1]),
}  # fmt: skip
NORM_MLP = {
    False: PLAIN["norm_mlp"],
    True: replace(PLAIN["norm_mlp"], reads=("norm_stream",), variant="stream", drawn=("normed_stream", "normed_between", "layer_norm_mlp", "gain_mlp")),
}  # fmt: skip


def _results() -> dict[tuple[str, bool], Stage]:
    """The second sum: by what is added to what, and whether something follows before the state leaves."""
    plain, found = PLAIN["result"], {}
    kinds: dict[str, dict[str, Any]] = {
        "": {},
        "branch": {"formula": r"y = x' + \hat m", "reads": ("between", "norm_down"), "drawn": ("between", "normed_down", "result")},
        "stream": {"formula": r"h' = x' + \mathrm{mlp}(\hat x')", "reads": ("norm_stream", "down"), "drawn": ("normed_stream", "down", "result")},
    }  # fmt: skip
    for kind, changes in kinds.items():
        for then in (True,) if kind == "stream" else (False, True):  # a norm always follows the sum there
            variant = "_".join(word for word, holds in ((kind, kind), ("then", then)) if holds)
            words: dict[str, Any] = {"title": "result_then", "about": "result_then"} if then else {}
            code: dict[str, Any] = {"code": _JOINED[0], "line": _JOINED[1]} if kind else {}
            found[kind, then] = replace(plain, variant=variant, **changes, **words, **code)
    return found


RESULT = _results()
FINAL_NORM = {
    False: PLAIN["final_norm"],
    True: replace(PLAIN["final_norm"], reads=(*_STEP_END, "left_norm"), variant="other"),
}
HEAD = {
    True: PLAIN["head"],
    False: replace(PLAIN["head"], formula=r"\ell = W_{head}\, s", reads=("step_norm", "read_out"), variant="normed"),
}


def _others() -> Iterator[Stage]:
    one_by_one: tuple[Mapping[Any, Stage], ...] = (
        EMBEDDING, STARTS, STATE, *PROJECTED.values(), NORM_QUERY, NORM_KEY, ROPE, ROUNDED, KEYS, ATTENDED, NORM_ATTENDED,
        BETWEEN, NORM_MLP, DOWN, NORM_DOWN, RESULT, STEP_NORM, READ_OUT, FINAL_NORM, HEAD,
    )  # fmt: skip
    for table in one_by_one:
        yield from (stage for stage in table.values() if stage not in ALL)
    yield from (SCALED, NORM_STREAM, NORM_RESULT, LEFT_NORM)


# All that is in no plain Llama's list.
OTHERS: tuple[Stage, ...] = tuple(_others())
