"""Layers run: for every token, how many loop steps each layer of the block ran, and in which steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, append, extend, fill
from loopviz.panels.kit import follower, parts
from loopviz.panels.kit.running import Running
from loopviz.trace.changes import blocks_at

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "layers_run"
GROUP = "words"
ORDER = 27
CODE: tuple[str, ...] = (
    "loopviz.model.choosers:influence",
    "loopviz.model.choosers:difficulty",
    "loopviz.model.modeling:LoopLlamaModel._run_step",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ()
USUAL = False  # without a chooser of layers every row is alike

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Which layers ran for each word?",
        "question": "How many loop steps did every layer run for each token, and which layers did the chooser leave out?",
        "how": "Left: a column a token, a row a layer of the block; the colour is how many loop steps of this token the layer "
        "ran, from one (dark) to as many as there are (bright). Blank: the layer did not run for this token at all; a blank "
        "column is a token that skipped the block. Hold the pointer over a cell to read in which steps it ran, where not in all. The "
        "outlined column is selected, and a click selects another. Right: the selected token, step by step; a filled cell "
        "is a layer that ran in that step. A layer that is left out hands its input on unchanged; its key and value of "
        "this token are then those of the last step it ran, or are made from the state that passed it by. Which layers run "
        "is the chooser's word before every step: by the layers' influence, by how hard the input is, or by a rule of your "
        "own. Without a chooser all layers run in every step. Layer runs: one token through one layer once.",
        "formula": r"c_\ell(t)=\left|\{\,r\le N_t:\ \text{layer }\ell\text{ ran in step }r\,\}\right|,\qquad"
        r"\text{left out}=1-\frac{\sum_t\sum_\ell c_\ell(t)}{\sum_t N_{\max}(b-a+1)}",
        "units": "Loop steps; layer runs: one token through one layer once. Layer runs count work, not time.",
        "source": "The layers that ran in each step of this run, kept for every token even when the recorder is off. N_max is "
        "max_loop_count under dynamic_stop and loop_count under fixed_count: what a chooser leaves out and what an early "
        "stop saves both count as left out.",
        "cost": "Nothing beyond what every run keeps.",
        "no_data": "Nothing read yet: a column appears with every token",
        "x": "token: position and text",
        "layer": "layer",
        "step": "step r",
        "chosen": "selected token",
        "bar": "steps run",
        "hover": "token %{x}<br>layer %{y}, steps run: %{z}%{text}",
        "hover_step": "layer %{y} ran in step %{x}<extra></extra>",
        "by": "chooser {name}, threshold {threshold}",
        "no_chooser": "no chooser: all layers run in every step",
        "work": "layer runs: {runs} of {all} ({share} % left out)",
        "took": "{token}: layer runs {runs}, loop steps {steps}",
        "passed": "{token}: block skipped",
        "summary": "{block}, {by}: {work}; tokens read: {tokens}. Selected: {selected}.",
    },
    "zh": {
        "title": "每个词运行了哪些层？",
        "question": "对每个词元，每一层运行了多少个循环步，选择器跳过了哪些层？",
        "how": "左图：一列是一个词元，一行是块中的一层；颜色是该层为这个词元运行的循环步数，从一步（暗）到全部（亮）。空白：该层完全没有为这个词元运行；"
        "整列空白的词元跳过了这个块。指向一格可读出它在哪些步运行（若不是全部）。带框的列是所选词元，点击可选择另一个。右图：所选词元逐步的情况，"
        "填色的格表示该层在该步运行。被跳过的层把输入原样传下去；这个词元在该层的键和值取它最后一次运行的那一步，若从未运行，则由经过它的状态计算。"
        "哪些层运行由选择器在每一步之前决定：按层的影响力、按输入的难度，或按您自己的规则。没有选择器时，所有层在每一步都运行。"
        "层运行数：一个词元通过一层一次算一次。",
        "formula": r"c_\ell(t)=\left|\{\,r\le N_t:\ \text{layer }\ell\text{ ran in step }r\,\}\right|,\qquad"
        r"\text{left out}=1-\frac{\sum_t\sum_\ell c_\ell(t)}{\sum_t N_{\max}(b-a+1)}",
        "units": "循环步；层运行数：一个词元通过一层一次算一次。层运行数衡量计算量，不是时间。",
        "source": "本次运行中每一步运行的层，即使记录器关闭也会保留。N_max 在 dynamic_stop 下是 max_loop_count，在 fixed_count 下是 loop_count："
        "选择器跳过的与提前停止省下的都算作未运行。",
        "cost": "除每次运行都保留的内容外，没有额外开销。",
        "no_data": "尚未读入词元：每读入一个词元出现一列",
        "x": "词元：位置与文本",
        "layer": "层",
        "step": "第 r 步",
        "chosen": "所选词元",
        "bar": "运行步数",
        "hover": "词元 %{x}<br>第 %{y} 层运行了 %{z} 步%{text}",
        "hover_step": "第 %{y} 层在第 %{x} 步运行<extra></extra>",
        "by": "选择器 {name}，阈值 {threshold}",
        "no_chooser": "没有选择器：所有层在每一步都运行",
        "work": "层运行数 {runs} / {all}（{share} % 未运行）",
        "took": "{token}：层运行数 {runs}，循环步数 {steps}",
        "passed": "{token}：跳过了这个块",
        "summary": "{block}，{by}：{tokens} 个词元，{work}。所选：{selected}。",
    },
}

MAP, STEPS = 0, 1  # traces
COLUMN = 0  # shapes
CELLS = 240  # of the selected token's grid at most: what a token costs to send
_FOLLOWER = follower.Follower()
Frame = Mapping[str, Any]


@dataclass(frozen=True)
class Tally:
    """What a block's tokens so far took.

    Args:
        tokens: how many there are.
        runs: layer runs, summed over them.
        every: layer runs if all layers had run the most steps that held for each token.
    """

    tokens: int = 0
    runs: int = 0
    every: int = 0


def _count(tally: Tally, meta: Mapping[str, Any], block: int, frame: Frame) -> Tally:
    spec = blocks_at(meta, frame["index"])[block]
    ran = frame["blocks"][block]
    every = spec["max_steps"] * (spec["layers"][1] - spec["layers"][0] + 1)
    return Tally(tally.tokens + 1, tally.runs + sum(map(len, steps_of(ran))), tally.every + every)


RUNNING: Running[Tally] = Running(lambda meta, block: Tally(), _count)


def tells_of(meta: Mapping[str, Any]) -> bool:
    """Whether a run has a chooser of layers: this panel is then on unless it was switched off."""
    return any(spec["chooser"] != "none" for spec in meta["blocks"])


def steps_of(block: Mapping[str, Any]) -> list[list[int]]:
    """Per layer of a token's block the steps, from 1, that the layer ran."""
    a, b = block["layers"]
    if not block["layers_run"]:
        return [list(range(1, block["n_steps"] + 1)) for _ in range(a, b + 1)]
    return [[r for r, ran in enumerate(block["layers_run"], start=1) if layer in ran] for layer in range(a, b + 1)]


def _which(steps: list[int]) -> str:
    """``1–3, 5``."""
    spans: list[list[int]] = []
    for step in steps:
        if spans and step == spans[-1][1] + 1:
            spans[-1][1] = step
        else:
            spans.append([step, step])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in spans)


def _words(meta: Mapping[str, Any], tally: Tally, frame: Frame | None, focus: Focus) -> dict[str, str]:
    """What the title and the summary say of ``tally`` (of one token or more) and the selected token."""
    words, spec = TEXTS[focus.lang], meta["blocks"][focus.block]
    by = words["no_chooser"]
    if spec["chooser"] != "none":
        threshold = labels.number(spec["layer_threshold"], focus.lang)
        by = words["by"].format(name=labels.escape(spec["chooser"]), threshold=threshold)
    share = f"{100 * (1 - tally.runs / tally.every):.1f}"
    if frame is None:
        selected = labels.COMMON[focus.lang]["not_yet"].format(token=focus.token)
    else:
        block = frame["blocks"][focus.block]
        selected = words["took" if block["n_steps"] else "passed"].format(
            token=labels.token_label(frame, focus.lang, width=12),
            steps=block["n_steps"],
            runs=sum(map(len, steps_of(block))),
        )
    work = words["work"].format(runs=f"{tally.runs:,}", all=f"{tally.every:,}", share=share)
    return {"by": by, "work": work, "tokens": str(tally.tokens), "selected": selected}


def _shown_steps(spec: Mapping[str, Any]) -> int:
    """The selected token's steps that the grid on the right has room for: the first ones, where they are too many."""
    return max(1, min(spec["room"], CELLS // (spec["layers"][1] - spec["layers"][0] + 1)))


def _chosen(meta: Mapping[str, Any], tally: Tally, frame: Frame | None, focus: Focus) -> dict[Path, Any]:
    """All that depends on how many tokens there are and which is selected, by path."""
    words, spec = TEXTS[focus.lang], meta["blocks"][focus.block]
    missing = "" if tally.tokens else words["no_data"]
    ran: list[list[int]] = [[] for _ in range(spec["layers"][0], spec["layers"][1] + 1)]
    if frame is not None:
        ran = steps_of(frame["blocks"][focus.block])
    said = {} if missing else _words(meta, tally, frame, focus)
    return {
        **{  # by step (drawn transposed): it often stays what it was
            ("data", STEPS, "z", i): [1 if i + 1 in steps else None for steps in ran] for i in range(_shown_steps(spec))
        },
        ("layout", "title", "text"): " " if missing else "<br>".join(said[name] for name in ("by", "work", "selected")),
        **parts.notice(missing),
        **parts.column_outlined(COLUMN, None if frame is None else frame["index"]),
    }


def _ticks(top: int) -> list[int]:
    """Whole numbers along the colours, seven at most."""
    return list(range(1, top + 1, -(-top // 7)))


def _data(spec: Mapping[str, Any], lang: str) -> list[dict[str, Any]]:
    words, top, (a, b) = TEXTS[lang], spec["room"], spec["layers"]
    shared_look = {"type": "heatmap", "transpose": True, "y0": a, "dy": 1, "colorscale": theme.SCALE}
    return [
        {
            **shared_look,
            "x": [],
            "z": [],
            "text": [],
            "zmin": 1 if top > 1 else 0,
            "zmax": top,
            "hoverongaps": False,
            "colorbar": parts.flat_bar(words["bar"], _ticks(top), length=0.6),
            "hovertemplate": words["hover"] + "<extra></extra>",
        },
        {
            **shared_look,
            "xaxis": "x2",
            "yaxis": "y",
            "x0": 1,
            "dx": 1,
            "z": [[None] * (b - a + 1) for _ in range(_shown_steps(spec))],
            "zmin": 0,
            "zmax": 1.25,  # a middle colour: filled or not is all it says
            "showscale": False,
            "xgap": 2,
            "ygap": 2,
            "hoverongaps": False,
            "hovertemplate": words["hover_step"],
            "meta": {"select": {"step": "x"}},
        },
    ]


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    margin = {"l": 44, "r": 8, "t": 92, "b": 10}
    layout, there = parts.block_layout(meta, focus, words, 300, margin, follower.asks(meta, focus, {"token": "x"}))
    if not there:
        return {"data": [], "layout": layout}
    spec = meta["blocks"][focus.block]
    a, b = spec["layers"]
    height = 92 + 130 + max(110, min(24 * (b - a + 1), 420))
    room = _shown_steps(spec)
    layout |= {
        "height": height,
        "margin": {"l": 44, "r": 8, "t": 92, "b": 130},
        "title": {"text": " ", "y": 1 - 20 / height},
        "annotations": [*layout["annotations"], parts.caption(words["chosen"], "x2 domain", "paper")],
        "xaxis": {
            "type": "category",
            "domain": [0, 0.72],
            "title": {"text": words["x"]},
            "showgrid": False,
            "tickangle": -90,
        },
        "yaxis": {
            "title": {"text": words["layer"]},
            "range": [a - 0.5, b + 0.5],
            "tick0": a,
            "dtick": -(-(b - a + 1) // 12),
            "showgrid": False,
        },
        "xaxis2": {
            "domain": [0.76, 1],
            "anchor": "y",
            "title": {"text": words["step"]},
            "range": [0.5, room + 0.5],
            "tick0": 1,
            "dtick": -(-room // 6),
            "showgrid": False,
        },
        "shapes": [parts.column_outline(a - 0.5, b + 0.5)],
    }
    return {"data": _data(spec, focus.lang), "layout": layout}


def _added(frame: Frame, focus: Focus) -> list[Op]:
    """What one token appends: its column."""
    block = frame["blocks"][focus.block]
    ran, n = steps_of(block), block["n_steps"]
    return [
        append(("data", MAP, "x"), [parts.column_name(frame)]),
        append(("data", MAP, "z"), [[len(steps) or None for steps in ran]]),
        append(("data", MAP, "text"), [[f": {_which(s)}" if 0 < len(s) < n else "" for s in ran]]),
    ]


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: steps run by token and layer on the left, the selected token's steps on the right."""
    meta, frames = follower.settled(trace, focus), trace.frames
    shown = _skeleton(meta, focus)
    if shown["data"]:
        extend(shown, (op for frame in frames for op in _added(frame, focus)))
        at = focus.selected(len(frames))
        fill(shown, _chosen(meta, RUNNING.over(trace, focus.block), None if at is None else frames[at], focus))
        shown["layout"]["shapes"] += parts.change_marks(meta, len(frames))
    return shown


figure = follower.checked(data)


@follower.redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: one more column, the sums, and the steps of the newest token when it is followed."""
    meta = follower.settled(trace, focus, frame)
    if labels.missing_block(meta, focus.block, focus.lang):
        return []
    tally = RUNNING.around(trace, focus.block, frame)
    follow = _FOLLOWER.patch(
        trace, frame, focus, lambda count, chosen: _chosen(meta, tally(count), chosen, focus), always=True
    )
    return _added(frame, focus) + follow


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: the chooser, the layer runs made of those there might have been, and the selected token's."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if absent:
        return absent
    if not len(trace):
        return words["no_data"]
    meta = follower.settled(trace, focus)
    shown = words["summary"].format(
        block=labels.block_label(meta["blocks"][focus.block], focus.block, focus.lang),
        **_words(meta, RUNNING.over(trace, focus.block), None if at is None else trace.frames[at], focus),
    )
    return labels.plain(shown)
