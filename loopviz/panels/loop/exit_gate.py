"""Exit gate: how likely a learned gate is to stop after every loop step, and which step any threshold would have read out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, append, extend, fill
from loopviz.panels.kit import follower, parts
from loopviz.panels.kit.running import Growing, Running
from loopviz.trace.changes import blocks_at
from loopviz.trace.exits import read_out_step

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "exit_gate"
GROUP = "thinking"
ORDER = 26
USUAL = False  # most models have no gate
CODE: tuple[str, ...] = (
    "loopviz.model.exit_gate:exit_pdf",
    "loopviz.model.exit_gate:exit_steps",
    "loopviz.trace.recording.recorder:BlockRun.gates",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ()
HEIGHT = 470

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "When does the gate say stop?",
        "question": "After which loop step would the learned gate read every token out, at any threshold?",
        "how": "Some models (Ouro) learned a gate: after every loop step it says how likely it is to stop there. Above: a column "
        "a token, a row a loop step; the colour is that probability, the dots are the step the token is read out from. Below: "
        "the selected token's probabilities as bars, and their sum so far as a line: the token is read out at the first step "
        "at which the line reaches the threshold (dashed), else at its last. Move the slider: the dots show at once what "
        "another threshold would have chosen, from the values this run recorded; nothing is run again. That is exact for each "
        "word given the text before it; with another threshold another word might have been written, and then another text: "
        "“Run with threshold q” makes that run. In the published way all loops run and the gate only chooses among them, so what "
        "is “not needed” would be saved by a model that really stops there.",
        "formula": r"\lambda_r=\sigma(w\cdot s_r+b),\qquad p_r=\lambda_r\prod_{j<r}(1-\lambda_j)\ (r<N),\quad p_N=\prod_{j<N}(1-\lambda_j),\qquad "
        r"\text{read out: the first } r \text{ with } \sum_{j\le r}p_j\ge q",
        "units": "Probabilities; loop steps.",
        "source": "What the gate said in this run, kept for every token even when the recorder is off; s_r is the normed state. The rule "
        "is Ouro's (arXiv 2510.25741).",
        "cost": "Nothing beyond what every run keeps.",
        "no_data": "Nothing read yet: a column appears with every token",
        "no_gate": "No gate chose in this run: the last loop step was read out. A model with a learned gate (Ouro, stories-loop) shows it "
        "here, with “Which loop is read out” set to the gate",
        "not_kept": "A gate chose in this run, but what it said was not kept: an earlier release recorded it. Run it again to see the gate here",
        "position": "token position",
        "step": "loop step r",
        "bar": "p_r",
        "curve": "sum of p so far",
        "sum": "p and its sum",
        "dots": "read out",
        "slider": "Threshold q",
        "run": "Run with threshold {q}",
        "hover": "token %{x}<br>step %{y}: p = %{z:.3g}<extra></extra>",
        "hover_dot": "token %{x}: read out at step %{y}<extra></extra>",
        "hover_p": "step %{x}: p = %{y:.3g}<extra></extra>",
        "hover_cdf": "by step %{x}: %{y:.3g}<extra></extra>",
        "line": "q = {q}",
        "head": "{what}<br>{selected}",
        "chosen": "q = {q}: read out at step {mean} on average ({tokens} tokens); {share} % of the loop steps were not needed",
        "own": "read out at step {mean} on average ({tokens} tokens); {share} % of the loop steps were not needed",
        "weighted": "all steps were read out, by their probabilities ({tokens} tokens)",
        "one": "{token}: step {step} of {steps}",
        "one_mixed": "{token}: on average step {step} of {steps}",
        "summary": "{what}. Selected: {selected}.",
    },
    "zh": {
        "title": "门何时说停？",
        "question": "在任一阈值下，学到的门会在哪个循环步之后读出每个词元？",
        "how": "有些模型（Ouro）学到了一个门：每个循环步之后，它给出停在此处的概率。上图：一列是一个词元，一行是一个循环步；颜色是这个概率，点是该词元被读出的那一步。"
        "下图：所选词元的各步概率（柱）及其累计和（线）：累计和首次达到阈值（虚线）的那一步读出，若未达到则在最后一步。移动滑块：点会立即显示另一个阈值会选哪一步，"
        "用的是本次运行记录的数值，不会重新运行。在给定前文时，这对每个词都是精确的；换一个阈值可能写出另一个词，随后的文本也就不同：“用阈值 q 运行”会真正运行一次。"
        "按发表的做法，所有循环都会运行，门只是在其中选择；因此“不需要”的循环，只有真正停下的模型才会省下。",
        "formula": r"\lambda_r=\sigma(w\cdot s_r+b),\qquad p_r=\lambda_r\prod_{j<r}(1-\lambda_j)\ (r<N),\quad p_N=\prod_{j<N}(1-\lambda_j),\qquad "
        r"\text{read out: the first } r \text{ with } \sum_{j\le r}p_j\ge q",
        "units": "概率；循环步。",
        "source": "本次运行中门所说的，即使记录器关闭也会保留；s_r 为归一化后的状态。规则取自 Ouro（arXiv 2510.25741）。",
        "cost": "除每次运行都保留的内容外，没有额外开销。",
        "no_data": "尚未读入词元：每读入一个词元出现一列",
        "no_gate": "本次运行中没有门作选择：读出的是最后一个循环步。有学到的门的模型（Ouro、stories-loop），在“读出哪一次循环”选择门之后，会显示在这里",
        "not_kept": "本次运行中有门作选择，但它所说的没有保留：由较早的版本录制。重新运行即可在此看到门",
        "position": "词元位置",
        "step": "循环步 r",
        "bar": "p_r",
        "curve": "p 的累计和",
        "sum": "p 及其累计和",
        "dots": "读出",
        "slider": "阈值 q",
        "run": "用阈值 {q} 运行",
        "hover": "词元 %{x}<br>第 %{y} 步：p = %{z:.3g}<extra></extra>",
        "hover_dot": "词元 %{x}：在第 %{y} 步读出<extra></extra>",
        "hover_p": "第 %{x} 步：p = %{y:.3g}<extra></extra>",
        "hover_cdf": "到第 %{x} 步为止：%{y:.3g}<extra></extra>",
        "line": "q = {q}",
        "head": "{what}<br>{selected}",
        "chosen": "q = {q}：{tokens} 个词元平均在第 {mean} 步读出；{share} % 的循环步不需要",
        "own": "{tokens} 个词元平均在第 {mean} 步读出；{share} % 的循环步不需要",
        "weighted": "按概率读出全部各步（{tokens} 个词元）",
        "one": "{token}：第 {step} 步（共 {steps} 步）",
        "one_mixed": "{token}：平均第 {step} 步（共 {steps} 步）",
        "summary": "{what}。所选：{selected}。",
    },
}

MAP, DOTS, BARS, CURVE = range(4)  # traces
COLUMN, LINE = range(2)  # shapes
STEP = 0.01  # of the slider
_FOLLOWER = follower.Follower()
Frame = Mapping[str, Any]


def tells_of(meta: Mapping[str, Any]) -> bool:
    """Whether a run has a gate that chooses: this panel is then on unless it was switched off."""
    return any(spec["exit_selection"] != "last" for spec in meta["blocks"])


def read_out(block: Mapping[str, Any], threshold: float | None) -> int | None:
    """The step a token is read out from: the first by which the gate's probabilities come to the threshold, else its last.

    Args:
        block: of a token, with a gate.
        threshold: q; None: as it was in the run. There all steps may have been read out: then None.
    """
    if threshold is None:
        return block["gate"]["read_out"]
    reached = (r for r, total in enumerate(block["gate"]["cdf"], 1) if total is not None and total >= threshold)
    return next(reached, block["n_steps"])


def _at(block: Mapping[str, Any], threshold: float | None) -> float:
    """The step that is drawn: where all were read out, the mean by the gate's probabilities."""
    step = read_out(block, threshold)
    return read_out_step(block["gate"]) if step is None else step


@dataclass(frozen=True)
class Tally:
    """What a gate said of a block's tokens so far.

    Args:
        tokens: how many there are.
        asked: of them, those of which the gate spoke.
        read: the steps these were read out from, summed.
        ran: the steps they ran, summed.
        mixed: how many of them were read out from all steps.
        lost: of the tokens, those that a gate chose for in a recording that did not keep what it said.
    """

    tokens: int = 0
    asked: int = 0
    read: int = 0
    ran: int = 0
    mixed: int = 0
    lost: int = 0


@lru_cache(maxsize=round(1 / STEP) + 2)  # all that the slider can ask for, and the run's own
def running(threshold: float | None) -> Running[Tally]:
    """The tally under a threshold; None: as the run was."""

    def count(so_far: Tally, meta: Mapping[str, Any], block: int, frame: Frame) -> Tally:
        one = frame["blocks"][block]
        if one["gate"] is None:
            chose = one["n_steps"] > 0 and blocks_at(meta, frame["index"])[block]["exit_selection"] != "last"
            return replace(so_far, tokens=so_far.tokens + 1, lost=so_far.lost + chose)
        step = read_out(one, threshold)
        return replace(
            so_far,
            tokens=so_far.tokens + 1,
            asked=so_far.asked + 1,
            read=so_far.read + (step or one["n_steps"]),
            ran=so_far.ran + one["n_steps"],
            mixed=so_far.mixed + (step is None),
        )

    return Running(lambda meta, block: Tally(), count)


def _words(tally: Tally, frame: Frame | None, focus: Focus) -> dict[str, str]:
    """What the title and the summary say of ``tally`` (of a token that the gate spoke of, or more) and the selected token."""
    words = TEXTS[focus.lang]
    key = "weighted" if tally.mixed == tally.asked else "own" if focus.threshold is None else "chosen"
    what = labels.fill(
        words[key],
        q=f"{focus.threshold or 0:g}",
        mean=f"{tally.read / tally.asked:.2f}",
        tokens=str(tally.asked),
        share=f"{100 * (1 - tally.read / tally.ran):.0f}",
    )
    return {"what": what, "selected": _one(frame, focus)}


def _one(frame: Frame | None, focus: Focus) -> str:
    """What is said of the selected token."""
    words = TEXTS[focus.lang]
    if frame is None:
        return labels.COMMON[focus.lang]["not_yet"].format(token=focus.token)
    block, token = frame["blocks"][focus.block], labels.token_label(frame, focus.lang, width=12)
    if block["gate"] is None:
        return token
    step = read_out(block, focus.threshold)
    if step is None:
        return words["one_mixed"].format(token=token, step=f"{_at(block, None):.2f}", steps=block["n_steps"])
    return words["one"].format(token=token, step=step, steps=block["n_steps"])


def _missing(tally: Tally, lang: str) -> str:
    """What to say where there is nothing to see."""
    if tally.asked:
        return ""
    return TEXTS[lang]["not_kept" if tally.lost else "no_gate" if tally.tokens else "no_data"]


def _chosen(trace: Trace, tally: Tally, frame: Frame | None, focus: Focus) -> dict[Path, Any]:
    """All that depends on how many tokens there are and which is selected, by path; ``frame`` is of ``trace`` or the one to come."""
    missing = _missing(tally, focus.lang)
    gate = None if frame is None else frame["blocks"][focus.block]["gate"]
    column = None if frame is None or gate is None else _columns_before(trace, focus.block, frame["index"])
    return {
        ("data", BARS, "y"): [] if gate is None else list(gate["p"]),
        ("data", CURVE, "y"): [] if gate is None else list(gate["cdf"]),
        ("layout", "title", "text"): " "
        if missing
        else TEXTS[focus.lang]["head"].format(**_words(tally, frame, focus)),
        **parts.notice(missing),
        **parts.column_outlined(COLUMN, column),
    }


def _columns_before(trace: Trace, block: int, index: int) -> int:
    """How many columns stand before that of a token, of the trace or the next one: one for each of which the gate spoke."""
    return _COLUMNS.over(trace, block)[index]


def _count_columns(so_far: Growing, meta: Mapping[str, Any], block: int, frame: Frame) -> Growing:
    return so_far.added(so_far[so_far.count - 1] + (frame["blocks"][block]["gate"] is not None))


_COLUMNS: Running[Growing] = Running(lambda meta, block: Growing([0], 1), _count_columns)  # before each token


def _marks(trace: Trace, meta: Mapping[str, Any], block: int) -> list[dict[str, Any]]:
    """Where the loop's settings changed, among the columns."""
    marks = parts.change_marks(meta, len(trace))
    for mark in marks:
        mark["x0"] = mark["x1"] = _columns_before(trace, block, round(mark["x0"] + 0.5)) - 0.5
    return marks


def _added(frame: Frame, focus: Focus, room: int) -> list[Op]:
    """What one token appends: its column and its dot; nothing where the gate was not asked."""
    block = frame["blocks"][focus.block]
    gate, name = block["gate"], parts.column_name(frame)
    if gate is None:
        return []
    return [
        append(("data", MAP, "x"), [name]),
        append(("data", MAP, "z"), [[*gate["p"], *[None] * (room - len(gate["p"]))]]),
        append(("data", DOTS, "x"), [name]),
        append(("data", DOTS, "y"), [labels.sig(_at(block, focus.threshold))]),
    ]


def _data(lang: str) -> list[dict[str, Any]]:
    words = TEXTS[lang]
    below: dict[str, Any] = {"xaxis": "x2", "yaxis": "y2", "x0": 1, "dx": 1, "y": [], "meta": {"select": {"step": "x"}}}
    return [
        {
            "type": "heatmap",
            "transpose": True,
            "x": [],
            "y0": 1,
            "dy": 1,
            "z": [],
            "zmin": 0,
            "zmax": 1,
            "colorscale": theme.SCALE,
            "hoverongaps": False,
            "colorbar": parts.flat_bar(words["bar"], [0.25, 0.5, 0.75, 1], length=0.5),
            "hovertemplate": words["hover"],
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": words["dots"],
            "x": [],
            "y": [],
            "marker": {"size": 8, "color": theme.SELECTED, "line": {"color": theme.MARK_EDGE, "width": 1}},
            "hovertemplate": words["hover_dot"],
        },
        {
            "type": "bar",
            "name": words["bar"],
            **below,
            "marker": {"color": theme.COLOURS["cosine"], "line": {"width": 0}},
            "hovertemplate": words["hover_p"],
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": words["curve"],
            **below,
            "line": {"color": theme.COLOURS["kl"], "width": 2},
            "hovertemplate": words["hover_cdf"],
        },
    ]


def _shapes(threshold: float | None, room: int, lang: str) -> list[dict[str, Any]]:
    line = {
        "type": "line",
        "xref": "x2 domain",
        "yref": "y2",
        "x0": 0,
        "x1": 1,
        "y0": threshold or 0,
        "y1": threshold or 0,
        "visible": threshold is not None,
        "line": {"color": theme.SELECTED, "width": 1.5, "dash": "dash"},
        "label": {
            "text": TEXTS[lang]["line"].format(q=f"{threshold or 0:g}"),
            "textposition": "start",
            "yanchor": "bottom",
            "font": {"size": 11},
        },
    }
    return [parts.column_outline(0.5, room + 0.5), line]


def _asks(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """`layout.meta`: the slider of a run with a gate, and a button that runs with what it stands at."""
    words, select = TEXTS[focus.lang], {"token": "x"}
    spec = meta["blocks"][focus.block] if focus.block < len(meta["blocks"]) else None
    if spec is None or spec["exit_selection"] == "last":
        return follower.asks(meta, focus, select)
    own = spec["exit_threshold"] if spec["exit_selection"] == "gate" else None
    at = focus.threshold if focus.threshold is not None else 1.0 if own is None else own
    asked = follower.asks(meta, focus, select, threshold=follower.slider(words["slider"], 0.0, 1.0, STEP, at))
    if focus.threshold is not None and focus.threshold != own:
        asked["act"] = {"label": words["run"].format(q=f"{focus.threshold:g}"), "exit_threshold": focus.threshold}
    return asked


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    margin = {"l": 44, "r": 8, "t": 72, "b": 64}
    layout, there = parts.block_layout(meta, focus, words, HEIGHT, margin, _asks(meta, focus))
    layout["title"]["y"] = 1 - 20 / HEIGHT
    if not there:
        return {"data": [], "layout": layout}
    spec = meta["blocks"][focus.block]
    room, threshold = spec["room"], focus.threshold
    if threshold is None and spec["exit_selection"] == "gate":
        threshold = spec["exit_threshold"]
    ticks = {"tick0": 1, "dtick": -(-room // 8), "showgrid": False}
    layout |= {
        "showlegend": False,
        "bargap": 0.3,
        "xaxis": {"type": "category", "title": {"text": words["position"]}, "showgrid": False, "tickangle": -90},
        "yaxis": {"domain": [0.62, 1], "title": {"text": words["step"]}, "range": [0.5, room + 0.5], **ticks},
        "xaxis2": {"anchor": "y2", "title": {"text": words["step"]}, "range": [0.5, room + 0.5], **ticks},
        "yaxis2": {"domain": [0, 0.28], "title": {"text": words["sum"]}, "range": [0, 1.05], "nticks": 3},
        "shapes": _shapes(threshold, room, focus.lang),
    }
    return {"data": _data(focus.lang), "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: probabilities by token and step above, the selected token's below."""
    meta, frames = follower.settled(trace, focus), trace.frames
    shown = _skeleton(meta, focus)
    if shown["data"]:
        room = meta["blocks"][focus.block]["room"]
        extend(shown, (op for frame in frames for op in _added(frame, focus, room)))
        at, tally = focus.selected(len(frames)), running(focus.threshold).over(trace, focus.block)
        fill(shown, _chosen(trace, tally, None if at is None else frames[at], focus))
        shown["layout"]["shapes"] += _marks(trace, meta, focus.block)
    return shown


figure = follower.checked(data)


@follower.redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: its column and dot, the tally, and the newest token's curve when it is followed."""
    meta = follower.settled(trace, focus, frame)
    if labels.missing_block(meta, focus.block, focus.lang):
        return []
    tally = running(focus.threshold).around(trace, focus.block, frame)
    follow = _FOLLOWER.patch(
        trace, frame, focus, lambda count, chosen: _chosen(trace, tally(count), chosen, focus), always=True
    )
    return _added(frame, focus, meta["blocks"][focus.block]["room"]) + follow


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: at which steps tokens are read out, how many steps were not needed, and the selected token's."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    if absent:
        return absent
    tally, at = running(focus.threshold).over(trace, focus.block), focus.selected(len(trace))
    if missing := _missing(tally, focus.lang):
        return missing
    words = _words(tally, None if at is None else trace.frames[at], focus)
    return labels.plain(TEXTS[focus.lang]["summary"].format(**words))
