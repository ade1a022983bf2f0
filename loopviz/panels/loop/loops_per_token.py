"""Loops per token: how often the block ran for every token, why it stopped, and what stopping saved."""

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

NAME = "loops_per_token"
GROUP = "thinking"
ORDER = 25
USUAL = False  # a page opens with two pictures of its first group, and this is a switch away
CODE: tuple[str, ...] = (
    "loopviz.panels.loop.loops_per_token:layer_passes",
    "loopviz.model.modeling:LoopLlamaModel._run_block",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ()
HEIGHT = 360

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "How many loops did each word take?",
        "question": "How many loop steps did each token take, why did it stop there, and how much work did stopping save?",
        "how": "Left: a bar a token, as tall as the loop steps it took, coloured by why it stopped; the outlined one is "
        "selected, and a click selects another. Right: how many tokens took so many steps. The dotted line is the mean. "
        "Tokens read in one pass, as the prompt is, stop together, so their bars are equally tall. Saved: the layer passes "
        "(one token through one layer) that were not run, beside always looping to the most steps this run allows; the "
        "share is of all layer passes that would have been: every layer, and every block at its most steps. Under a fixed "
        "count without a chooser of layers nothing can be saved.",
        "formula": r"\text{saved}=\sum_t \big(N_{\max}(b-a+1)-\text{layer passes of the block}_t\big),\qquad \text{share}=\frac{\text{saved}}"
        r"{\sum_t \big(L+\sum_{\text{blocks}}(N_{\max}-1)(b-a+1)\big)}",
        "units": "Loop steps; tokens; layer passes: one token through one layer. Layer passes count work, not time.",
        "source": "Loop steps and stop reasons of this run, kept for every token even when the recorder is off. N_max is "
        "max_loop_count under dynamic_stop and loop_count under fixed_count.",
        "cost": "Nothing beyond what every run keeps.",
        "no_data": "Nothing read yet: a bar appears with every token",
        "position": "token position",
        "loops": "loop steps N",
        "tokens": "tokens",
        "stop": "stop: {why}",
        "hover_bar": "token %{{x}} “%{{text}}”<br>loops: %{{y}}, stopped by {why}",
        "hover_bar_other": "token %{{x}} “%{{text}}”<br>loops: %{{y}}, stopped by {why} %{{customdata}}",
        "hover_count": "loops: %{{y}}, tokens: %{{x}}<br>stopped by {why}",
        "head": "{mean} loops on average (dotted), {tokens} tokens<br>{work}<br>{selected}",
        "saved": "{saved} of {all} layer passes saved ({share} %)",
        "fixed": "a fixed count: nothing to save",
        "selected": "{token}: {steps} loops, stopped by {why}",
        "summary": "{block}: {tokens} tokens took {mean} loop steps on average, from {least} to {most}; {work}. "
        "Selected: {selected}.",
    },
    "zh": {
        "title": "每个词循环了多少步？",
        "question": "每个词元循环了多少步，为什么停在那里，停止又省下了多少计算？",
        "how": "左图：一个词元一根柱，高度是它的循环步数，颜色表示停止原因；带框的是所选词元，点击可选择另一个。右图：各步数有多少词元。"
        "点线是平均值。一次前向读入的词元（例如提示词）同时停止，因此柱子一样高。节省：与总是循环到本次运行允许的最多步数相比，"
        "没有运行的层次数（一个词元通过一层算一次）；百分比以全部应有的层次数为分母：所有的层，每个块都循环到最多步数。固定次数且没有层选择器时没有可节省的。",
        "formula": r"\text{saved}=\sum_t \big(N_{\max}(b-a+1)-\text{layer passes of the block}_t\big),\qquad \text{share}=\frac{\text{saved}}"
        r"{\sum_t \big(L+\sum_{\text{blocks}}(N_{\max}-1)(b-a+1)\big)}",
        "units": "循环步；词元；层次数：一个词元通过一层算一次。层次数衡量计算量，不是时间。",
        "source": "本次运行的循环步数与停止原因，即使记录器关闭也会保留。N_max 在 dynamic_stop 下是 max_loop_count，在 fixed_count 下是 loop_count。",
        "cost": "除每次运行都保留的内容外，没有额外开销。",
        "no_data": "尚未读入词元：每读入一个词元出现一根柱",
        "position": "词元位置",
        "loops": "循环步数 N",
        "tokens": "词元数",
        "stop": "停止：{why}",
        "hover_bar": "词元 %{{x}}“%{{text}}”<br>循环 %{{y}} 步，停止原因：{why}",
        "hover_bar_other": "词元 %{{x}}“%{{text}}”<br>循环 %{{y}} 步，停止原因：{why} %{{customdata}}",
        "hover_count": "%{{x}} 个词元循环 %{{y}} 步<br>停止原因：{why}",
        "head": "{tokens} 个词元平均循环 {mean} 步（点线）<br>{work}<br>{selected}",
        "saved": "节省 {saved} / {all} 层次数（{share} %）",
        "fixed": "固定次数：没有可节省的",
        "selected": "{token}：循环 {steps} 步，停止原因：{why}",
        "summary": "{block}：{tokens} 个词元平均循环 {mean} 步，最少 {least} 步，最多 {most} 步；{work}。所选：{selected}。",
    },
}

BARS = {kind: i for i, kind in enumerate(theme.STOPS)}  # traces: a bar a token, and below a bar a number of loops
COUNTS = {kind: len(theme.STOPS) + i for i, kind in enumerate(theme.STOPS)}
MEAN, HERE = 0, 1  # shapes
_FOLLOWER = follower.Follower()
Frame = Mapping[str, Any]


@dataclass(frozen=True)
class Tally:
    """What a block's tokens so far took.

    Args:
        tokens: how many there are.
        steps: loop steps, summed over them.
        saved, every: :func:`layer_passes`, summed over them; N_max is the one that held for each.
        fixed: whether every token was read under a fixed count.
        counts: tokens by stop kind and loop steps.
    """

    tokens: int = 0
    steps: int = 0
    saved: int = 0
    every: int = 0
    fixed: bool = True
    counts: tuple[tuple[tuple[str, int], int], ...] = ()

    @property
    def taken(self) -> list[int]:
        """The different numbers of loop steps, in order."""
        return sorted({steps for (_, steps), _ in self.counts})


def _count(tally: Tally, meta: Mapping[str, Any], block: int, frame: Frame) -> Tally:
    ran, specs = frame["blocks"][block], blocks_at(meta, frame["index"])
    counts, key = dict(tally.counts), (theme.stop_kind(ran["stop_reason"]), ran["n_steps"])
    counts[key] = counts.get(key, 0) + 1
    a, b = ran["layers"]
    runs = sum(map(len, ran["layers_run"])) or ran["n_steps"] * (b - a + 1)
    saved, every = layer_passes({**meta, "blocks": specs}, block, 1, runs)
    return Tally(
        tally.tokens + 1,
        tally.steps + ran["n_steps"],
        tally.saved + saved,
        tally.every + every,
        tally.fixed and specs[block]["strategy"] == "fixed_count" and specs[block]["chooser"] == "none",
        tuple(sorted(counts.items())),
    )


RUNNING: Running[Tally] = Running(lambda meta, block: Tally(), _count)


def layer_passes(meta: Mapping[str, Any], block: int, tokens: int, runs: int) -> tuple[int, int]:
    """Layer passes saved in ``block``, and all there would have been.

    Args:
        meta: of the run, or of as much of it as had the same settings.
        block: looped block, 0-based.
        tokens: tokens read.
        runs: layer runs the block made, summed over them: its steps times its layers, less what a chooser left out.

    Returns:
        ``sum_t N_max (b - a + 1) - runs`` of the block; and ``L + sum over blocks of (N_max - 1)(b - a + 1)`` for every
        token: what the whole model runs when every block runs its most steps.
    """
    widths = [spec["layers"][1] - spec["layers"][0] + 1 for spec in meta["blocks"]]
    extra = sum((spec["max_steps"] - 1) * width for spec, width in zip(meta["blocks"], widths, strict=True))
    saved = tokens * meta["blocks"][block]["max_steps"] * widths[block] - runs
    return saved, tokens * (meta["shape"]["layers"] + extra)


def _words(tally: Tally, frame: Frame | None, focus: Focus) -> dict[str, str]:
    """What the title and the summary say of ``tally`` (of one token or more) and the selected token."""
    words = TEXTS[focus.lang]
    share = f"{100 * tally.saved / tally.every:.1f}"
    work = labels.fill(words["saved"], saved=f"{tally.saved:,}", all=f"{tally.every:,}", share=share)
    if tally.fixed:
        work = words["fixed"]
    if frame is None:
        selected = labels.COMMON[focus.lang]["not_yet"].format(token=focus.token)
    else:
        block = frame["blocks"][focus.block]
        selected = labels.fill(
            words["selected"],
            token=labels.token_label(frame, focus.lang, width=12),
            steps=block["n_steps"],
            why=labels.stop_label(block["stop_reason"], focus.lang),
        )
    return {
        "tokens": str(tally.tokens),
        "mean": f"{tally.steps / tally.tokens:.2f}",
        "work": work,
        "selected": selected,
    }


def _top(meta: Mapping[str, Any], tally: Tally, block: int) -> int:
    """The most steps there is room for."""
    return follower.room(max(tally.taken, default=0), meta["blocks"][block]["max_steps"])


def _tallied(meta: Mapping[str, Any], tally: Tally, focus: Focus) -> dict[Path, Any]:
    """The counts, the mean and the room for them, by path."""
    top, counts = _top(meta, tally, focus.block), dict(tally.counts)
    mean = round(tally.steps / tally.tokens, 2) if tally.tokens else 0
    return {
        **{
            ("data", place, "x"): [counts.get((kind, steps), 0) for steps in range(top + 1)]
            for kind, place in COUNTS.items()
        },
        ("layout", "yaxis", "range"): [0, top + 0.6],
        ("layout", "yaxis", "dtick"): -(-top // 8),
        ("layout", "shapes", MEAN, "y0"): mean,
        ("layout", "shapes", MEAN, "y1"): mean,
        ("layout", "shapes", MEAN, "visible"): bool(tally.tokens),
    }


def _chosen(tally: Tally, frame: Frame | None, focus: Focus) -> dict[Path, Any]:
    """The words and the outline of the selected token, by path; ``frame`` is its, None when there is none."""
    words = TEXTS[focus.lang]
    missing = "" if tally.tokens else words["no_data"]
    at, height = (None, 0) if frame is None else (frame["index"], frame["blocks"][focus.block]["n_steps"])
    return {
        ("layout", "title", "text"): labels.fill(words["head"], **_words(tally, frame, focus)) if not missing else " ",
        **parts.notice(missing),
        **parts.column_outlined(HERE, at),
        ("layout", "shapes", HERE, "y1"): height,
    }


def _data(lang: str) -> list[dict[str, Any]]:
    words = TEXTS[lang]
    why = {kind: labels.COMMON[lang][f"stopped_{kind}"] for kind in theme.STOPS}
    bars = [
        {
            "type": "bar",
            "name": words["stop"].format(why=why[kind]),
            "legendgroup": kind,
            "x": [],
            "y": [],
            "text": [],
            **({"customdata": []} if kind == "other" else {}),
            "textposition": "none",
            "marker": {"color": theme.COLOURS[f"stop_{kind}"], "line": {"width": 0}},
            "hovertemplate": words["hover_bar_other" if kind == "other" else "hover_bar"].format(why=why[kind])
            + "<extra></extra>",
        }
        for kind in theme.STOPS
    ]
    counts = [
        {
            "type": "bar",
            "orientation": "h",
            "xaxis": "x2",
            "legendgroup": kind,
            "showlegend": False,
            "x": [],
            "y0": 0,
            "dy": 1,
            "marker": {"color": theme.COLOURS[f"stop_{kind}"], "line": {"width": 0}},
            "hovertemplate": words["hover_count"].format(why=why[kind]) + "<extra></extra>",
            "meta": {"select": {}},
        }
        for kind in theme.STOPS
    ]
    return [*bars, *counts]


def _shapes() -> list[dict[str, Any]]:
    mean = {
        "type": "line",
        "xref": "paper",
        "yref": "y",
        "x0": 0,
        "x1": 1,
        "y0": 0,
        "y1": 0,
        "visible": False,
        "line": {"color": theme.INK, "width": 1.5, "dash": "dot"},
    }
    return [mean, parts.column_outline(0, 0)]


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    margin = {"l": 44, "r": 12, "t": 72, "b": 10}
    layout, there = parts.block_layout(meta, focus, words, HEIGHT, margin, follower.asks(meta, focus, {"token": "x"}))
    layout["title"]["y"] = 1 - 20 / HEIGHT
    if not there:
        return {"data": [], "layout": layout}
    layout |= {
        "barmode": "stack",
        "bargap": 0.12,
        "xaxis": {"domain": [0, 0.76], "title": {"text": words["position"]}, "showgrid": False},
        "yaxis": {
            "title": {"text": words["loops"]},
            "range": [0, 1],
            "tick0": 0,
            "dtick": 1,
        },
        "xaxis2": {
            "domain": [0.8, 1],
            "title": {"text": words["tokens"]},
            "rangemode": "tozero",
            "showgrid": False,
            "nticks": 3,
            "tickformat": "~s",
        },
        "showlegend": True,
        "legend": {"y": -0.22, "yanchor": "top", "x": 0},
        "shapes": _shapes(),
    }
    return {"data": _data(focus.lang), "layout": layout}


def _added(frame: Frame, block: int) -> list[Op]:
    """What one token appends: its bar."""
    ran = frame["blocks"][block]
    kind = theme.stop_kind(ran["stop_reason"])
    bar = [("x", frame["index"]), ("y", ran["n_steps"]), ("text", labels.show_token(frame["text"], width=12))]
    if kind == "other":
        bar.append(("customdata", labels.escape(ran["stop_reason"])))
    return [append(("data", BARS[kind], name), [value]) for name, value in bar]


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: loop steps by token on the left, tokens by loop steps on the right."""
    meta, frames = follower.settled(trace, focus), trace.frames
    shown = _skeleton(meta, focus)
    if shown["data"]:
        extend(shown, (op for frame in frames for op in _added(frame, focus.block)))
        tally, at = RUNNING.over(trace, focus.block), focus.selected(len(frames))
        fill(shown, _tallied(meta, tally, focus))
        fill(shown, _chosen(tally, None if at is None else frames[at], focus))
        shown["layout"]["shapes"] += parts.change_marks(meta, len(frames))
    return shown


figure = follower.checked(data)


@follower.redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: its bar, one more in the counts, the mean and what was saved."""
    meta = follower.settled(trace, focus, frame)
    if labels.missing_block(meta, focus.block, focus.lang):
        return []
    tally = RUNNING.around(trace, focus.block, frame)

    def shown(count: int, chosen: Frame | None) -> dict[Path, Any]:
        return _tallied(meta, tally(count), focus) | _chosen(tally(count), chosen, focus)

    return _added(frame, focus.block) + _FOLLOWER.patch(trace, frame, focus, shown, always=True)


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: loops on average, least and most, layer passes saved, and the selected token."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if absent:
        return absent
    if not len(trace):
        return words["no_data"]
    tally = RUNNING.over(trace, focus.block)
    shown = labels.fill(
        words["summary"],
        block=labels.block_label(trace.meta["blocks"][focus.block], focus.block, focus.lang),
        least=tally.taken[0],
        most=tally.taken[-1],
        **_words(tally, None if at is None else trace.frames[at], focus),
    )
    return labels.plain(shown)
