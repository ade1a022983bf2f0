"""Key similarity: how far the key a layer writes moves from one loop step to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, fill
from loopviz.panels.kit import follower, parts
from loopviz.panels.kit.running import Running

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "key_similarity"
GROUP = "memory"
ORDER = 32
CODE: tuple[str, ...] = (
    "loopviz.trace.recording.keys:KeyRecorder.columns",
    "loopviz.panels.loop.key_similarity:means",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ("keys",)
CELLS = 160  # of one map at most: what a token costs to send
WRITTEN = 48  # up to so many cells a map, its numbers are written in them
LOW = -5  # powers of ten: the colours' lower end; the upper is 1

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "When is it safe to share one slot?",
        "question": "How different is the key each layer writes at a loop step from the one it wrote at the step before?",
        "how": "A column is a loop step, a row a layer of the block. Left: the selected token; right: the mean over all "
        "tokens up to it. The colour is 1 − cosine of the key at step r and the one at step r − 1, logarithmic: the "
        "darker, the more alike. Where a column is dark in every row, a slot shared by these two steps holds nearly the "
        "same key either way; where it is bright, sharing throws something away. Only keys are compared: values are not. "
        "A token that stopped earlier has no such step and does not count in the mean. With more cells than fit, evenly "
        "spaced steps are shown, the last included.",
        "formula": r"1-\cos\!\left(K_r^{(\ell)}, K_{r-1}^{(\ell)}\right),\qquad "
        r"\frac{1}{|\{t:\,N_t\ge r\}|}\sum_{t:\,N_t\ge r}\left(1-\cos\!\left(K_{r,t}^{(\ell)}, K_{r-1,t}^{(\ell)}\right)\right)",
        "units": "1 − cosine: no unit, 0 (same direction) to 2 (opposite). Colours are logarithmic, from 1e-5 to 1; what "
        "lies outside takes the colour of that end.",
        "source": "Keys as written to the cache in this run, all key/value heads of a layer as one vector. Position does "
        "not matter: both keys are rotated alike (RoPE).",
        "cost": "One comparison of two keys for every layer, loop step and token; the keys themselves are not kept.",
        "no_data": "Nothing read yet: the maps appear with the first token",
        "not_recorded": "keys were not recorded in this run: switch them on and run again",
        "one_step": "this block runs one loop step: there is no step before to compare with",
        "step": "loop step r",
        "layer": "layer",
        "chosen": "this token",
        "mean": "mean so far",
        "bar": "1 − cos",
        "hover_chosen": "layer %{y}, step r = %{x}<br>1 − cos = 10<sup>%{z}</sup>, this token",
        "hover_mean": "layer %{y}, step r = %{x}<br>1 − cos = 10<sup>%{z}</sup>, mean so far",
        "head": "{token}, mean of up to {count} tokens<br>last step: at most {value} on average, layer {layer}",
        "head_none": "{token}",
        "summary": "{token}, {block}: the mean of 1 − cosine between the keys of a loop step and the step before, over up to {count} "
        "tokens that ran it, in the layer where it is largest: {steps}.",
        "one": "step {step} {value} (layer {layer})",
        "nothing": "no step to compare yet",
    },
    "zh": {
        "title": "何时可以共用一个槽位？",
        "question": "每一层在某个循环步写入的键，与它在前一步写入的键相差多少？",
        "how": "一列是一个循环步，一行是块中的一层。左：所选词元；右：截至该词元的所有词元的平均。颜色是第 r 步与第 r − 1 步的键的 1 − 余弦，"
        "对数刻度：越暗越相似。若一列各行都暗，这两步共用一个槽位时存的键几乎相同；若一列较亮，共用就会丢掉一些东西。只比较键，不比较值。"
        "更早停止的词元没有该步，不计入平均。格子过多时显示等间隔的步，包括最后一步。",
        "formula": r"1-\cos\!\left(K_r^{(\ell)}, K_{r-1}^{(\ell)}\right),\qquad "
        r"\frac{1}{|\{t:\,N_t\ge r\}|}\sum_{t:\,N_t\ge r}\left(1-\cos\!\left(K_{r,t}^{(\ell)}, K_{r-1,t}^{(\ell)}\right)\right)",
        "units": "1 − 余弦：无单位，0（方向相同）到 2（相反）。颜色为对数，从 1e-5 到 1；超出的取该端的颜色。",
        "source": "本次运行写入缓存的键，一层的所有键/值头作为一个向量。与位置无关：两个键的旋转（RoPE）相同。",
        "cost": "每层、每个循环步、每个词元比较一次两个键；键本身不保存。",
        "no_data": "尚未读入词元：读入第一个词元后出现",
        "not_recorded": "本次运行没有记录键：请打开后重新运行",
        "one_step": "该块只运行一个循环步：没有前一步可比较",
        "step": "循环步 r",
        "layer": "层",
        "chosen": "该词元",
        "mean": "至今平均",
        "bar": "1 − cos",
        "hover_chosen": "第 %{y} 层，第 %{x} 步<br>1 − cos = 10<sup>%{z}</sup>，该词元",
        "hover_mean": "第 %{y} 层，第 %{x} 步<br>1 − cos = 10<sup>%{z}</sup>，至今平均",
        "head": "{token}，最多 {count} 个词元的平均<br>最后一步：平均最多 {value}，第 {layer} 层",
        "head_none": "{token}",
        "summary": "{token}，{block}：相邻循环步的键之间 1 − 余弦在运行了该步的词元（最多 {count} 个）上的平均，取最大的一层：{steps}。",
        "one": "第 {step} 步 {value}（第 {layer} 层）",
        "nothing": "尚无可比较的步",
    },
}

CHOSEN, MEAN = 0, 1  # traces

Sums = list[list[tuple[float, int]]]  # per layer and step (entry r - 1): the sum of 1 - cos, and over how many tokens


def _nothing(meta: Mapping[str, Any], block: int) -> Sums:
    spec = meta["blocks"][block]
    return [[] for _ in range(spec["layers"][0], spec["layers"][1] + 1)]


def _more(sums: Sums, meta: Mapping[str, Any], block: int, frame: Mapping[str, Any]) -> Sums:
    """The sums with ``frame`` as well; a step that token did not run, or an undefined cosine, adds nothing."""
    recorded = frame["blocks"][block]["key_cosine"]
    if not recorded:
        return sums
    return [
        [
            (total + (1 - column[r]), count + 1) if r < len(column) and column[r] is not None else (total, count)
            for r, (total, count) in enumerate([*row, *[(0.0, 0)] * (len(column) - len(row))])
        ]
        for row, column in zip(sums, recorded, strict=True)
    ]


_FOLLOWER = follower.Follower()
RUNNING: Running[Sums] = Running(start=_nothing, step=_more)


def shown_steps(spec: Mapping[str, Any]) -> list[int]:
    """The steps (from 2) that get a column: all, or evenly spaced ones when they are too many for the block's layers."""
    last = spec["room"]
    most = max(2, CELLS // (spec["layers"][1] - spec["layers"][0] + 1))
    if last - 1 <= most:
        return list(range(2, last + 1))
    return [2 + round(i * (last - 2) / (most - 1)) for i in range(most)]


def _power(value: float | None) -> float | None:
    return None if value is None else round(labels.log_z(value), 2)


def means(sums: Sums, steps: int) -> list[list[float | None]]:
    """Per layer and step (entry r - 1) the mean of 1 - cos, for ``steps`` steps; None where no token counts."""
    return [_padded([total / count if count else None for total, count in row], steps) for row in sums]


def _padded(row: list[float | None], steps: int) -> list[float | None]:
    return row[:steps] + [None] * (steps - len(row))


def _distances(block: Mapping[str, Any] | None, spec: Mapping[str, Any]) -> list[list[float | None]]:
    """One token's 1 - cos per layer and step, padded to the block's maximum; None where there is none."""
    layers, last = spec["layers"][1] - spec["layers"][0] + 1, spec["room"]
    recorded = block["key_cosine"] if block else []
    return [_padded([None if v is None else 1 - v for v in column], last) for column in recorded or [[]] * layers]


def _largest(rows: list[list[float | None]], step: int, first: int) -> tuple[float, int] | None:
    """The largest value at ``step`` and its physical layer (``first`` is the block's first); None when there is none."""
    found = [(value, first + i) for i, row in enumerate(rows) if (value := row[step - 1]) is not None]
    return max(found, default=None)


def _missing(meta: Mapping[str, Any], frames: int, frame: Mapping[str, Any] | None, focus: Focus) -> str:
    """What to say instead of the maps; "" when there is something to show."""
    words = TEXTS[focus.lang]
    if frame is None:
        return follower.unread(frames, focus, words["no_data"])
    if not frame["blocks"][focus.block]["key_cosine"]:
        return follower.skipped(frame["blocks"][focus.block], focus) or words["not_recorded"]
    return words["one_step"] if meta["blocks"][focus.block]["max_steps"] < 2 else ""


def _head(spec: Mapping[str, Any], frame: Mapping[str, Any], rows: list[list[float | None]], focus: Focus) -> str:
    words, token = TEXTS[focus.lang], labels.token_label(frame, focus.lang, width=12)
    worst = _largest(rows, frame["blocks"][focus.block]["n_steps"], spec["layers"][0])
    if worst is None:
        return words["head_none"].format(token=token)
    return labels.fill(
        words["head"], token=token, count=frame["index"] + 1, value=labels.number(worst[0], focus.lang), layer=worst[1]
    )


def _chosen(
    meta: Mapping[str, Any], frames: int, frame: Mapping[str, Any] | None, sums: Sums, focus: Focus
) -> dict[Path, Any]:
    """All that depends on which token is selected, by path; ``sums`` are those up to it."""
    spec = meta["blocks"][focus.block]
    missing = _missing(meta, frames, frame, focus)
    block = None if frame is None or missing else frame["blocks"][focus.block]
    both = {
        CHOSEN: _distances(block, spec),
        MEAN: means(sums if block else _nothing(meta, focus.block), spec["room"]),
    }
    head = " " if frame is None else labels.token_label(frame, focus.lang, width=12)
    out: dict[Path, Any] = {
        ("layout", "title", "text"): _head(spec, frame, both[MEAN], focus) if block and frame is not None else head,
        **parts.notice(missing),
    }
    steps = shown_steps(spec)
    for place, rows in both.items():  # by row: a mean's row often stays what it was
        out |= {("data", place, "z", i): [_power(row[r - 1]) for r in steps] for i, row in enumerate(rows)}
    return out


def _data(spec: Mapping[str, Any], lang: str) -> list[dict[str, Any]]:
    words, steps = TEXTS[lang], shown_steps(spec)
    layers = range(spec["layers"][0], spec["layers"][1] + 1)
    written = len(steps) * len(layers) <= WRITTEN and len(steps) <= 6
    maps = []
    for kind, x in (("chosen", "x"), ("mean", "x2")):
        maps.append(
            {
                "type": "heatmap",
                "xaxis": x,
                "yaxis": "y",
                "x": [str(step) for step in steps],
                "y0": layers[0],
                "dy": 1,
                "z": [[None] * len(steps) for _ in layers],
                "coloraxis": "coloraxis",
                "xgap": 1,
                "ygap": 1,
                "hoverongaps": False,
                "hovertemplate": words[f"hover_{kind}"] + "<extra></extra>",
            }
        )
        if written:
            maps[-1] |= {
                "texttemplate": "10<sup>%{z:.1f}</sup>",
                "textfont": {"size": 13, "color": theme.ON_SCALE},
            }
    return maps


def _shapes(spec: Mapping[str, Any], focus: Focus) -> list[dict[str, Any]]:
    """The outline of the step pointed at, in both maps."""
    steps = shown_steps(spec)
    if focus.step not in steps:
        return []
    at = steps.index(focus.step)
    return [
        {
            "type": "rect",
            "xref": axis,
            "yref": "y domain",
            "x0": at - 0.5,
            "x1": at + 0.5,
            "y0": 0,
            "y1": 1,
            "line": {"color": theme.SELECTED, "width": 2},
        }
        for axis in ("x", "x2")
    ]


def _bar(lang: str) -> dict[str, Any]:
    powers = list(range(LOW, 1))
    texts = [f"1e{power}" if power < -2 else f"{10**power:g}" for power in powers]
    return parts.flat_bar(TEXTS[lang]["bar"], powers, ticktext=texts)


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    margin = {"l": 44, "r": 8, "t": 72, "b": 84}
    layout, there = parts.block_layout(meta, focus, words, 260, margin, follower.asks(meta, focus, {"step": "x"}))
    if not there:
        return {"data": [], "layout": layout}
    spec = meta["blocks"][focus.block]
    a, b = spec["layers"]
    height = 72 + 84 + max(130, min(22 * (b - a + 1), 400))
    axis = {"type": "category", "title": {"text": words["step"]}, "showgrid": False}
    layout |= {
        "height": height,
        "title": {"text": " ", "y": 1 - 20 / height},
        "annotations": [
            *layout["annotations"],
            parts.caption(words["chosen"], "x domain", "paper"),
            parts.caption(words["mean"], "x2 domain", "paper"),
        ],
        "xaxis": {**axis, "domain": [0, 0.485]},
        "xaxis2": {**axis, "domain": [0.515, 1], "anchor": "y"},
        "yaxis": {
            "title": {"text": words["layer"]},
            "range": [a - 0.5, b + 0.5],
            "tick0": a,
            "dtick": -(-(b - a + 1) // 12),
            "showgrid": False,
        },
        "coloraxis": {"cmin": LOW, "cmax": 0, "colorscale": theme.LIGHT_SCALE, "colorbar": _bar(focus.lang)},
    }
    if outline := _shapes(spec, focus):  # a figure of plotly's leaves an empty list out, and its data must not differ
        layout["shapes"] = outline
    return {"data": _data(spec, focus.lang), "layout": layout}


def _sums_at(trace: Trace, at: int | None, block: int) -> Sums:
    """The sums up to position ``at`` of ``trace``."""
    if at is None:
        return _nothing(trace.meta, block)
    if at == len(trace.frames) - 1:
        return RUNNING.over(trace, block)
    sums = _nothing(trace.meta, block)
    for frame in trace.frames[: at + 1]:
        sums = _more(sums, trace.meta, block, frame)
    return sums


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: 1 − cos of neighbouring steps' keys, of the selected token and on average up to it."""
    meta, at = follower.settled(trace, focus), focus.selected(len(trace))
    shown = _skeleton(meta, focus)
    if shown["data"]:
        frame = None if at is None else trace.frames[at]
        fill(shown, _chosen(meta, len(trace), frame, _sums_at(trace, at, focus.block), focus))
    return shown


figure = follower.checked(data)


@follower.redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings when it is selected: its own map, and the rows of the mean that moved."""
    if labels.missing_block(trace.meta, focus.block, focus.lang):
        return []
    meta = follower.settled(trace, focus, frame)

    def chosen(count: int, selected: Mapping[str, Any] | None) -> dict[Path, Any]:
        if selected is not None and selected is frame:
            sums = RUNNING.after(trace, focus.block, frame)
        else:
            sums = _sums_at(trace, None if selected is None else selected["index"], focus.block)
        return _chosen(meta, count, selected, sums, focus)

    return _FOLLOWER.patch(trace, frame, focus, chosen)


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: for every step shown, the layer whose keys moved most on average."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if absent:
        return absent
    frame, meta = None if at is None else trace.frames[at], follower.settled(trace, focus)
    if missing := _missing(meta, len(trace), frame, focus):
        return missing
    assert frame is not None  # else that is what is missing
    spec = meta["blocks"][focus.block]
    rows = means(_sums_at(trace, at, focus.block), spec["room"])
    worst = [(step, _largest(rows, step, spec["layers"][0])) for step in shown_steps(spec)]
    told = [
        words["one"].format(step=step, value=labels.number(found[0], focus.lang), layer=found[1])
        for step, found in worst
        if found is not None
    ]
    shown = labels.fill(
        words["summary"],
        token=labels.token_label(frame, focus.lang),
        block=labels.block_label(spec, focus.block, focus.lang),
        count=frame["index"] + 1,
        steps=(", " if focus.lang == "en" else "、").join(told) or words["nothing"],
    )
    return labels.plain(shown)
