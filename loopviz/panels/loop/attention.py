"""Attention: where one layer of the block looks from the selected token, loop step by loop step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, fill
from loopviz.panels.kit import follower, parts
from loopviz.trace import decode_floats

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "attention"
GROUP = "words"
ORDER = 60
CODE: tuple[str, ...] = (
    "loopviz.trace.recording.attention:attention_weights",
    "loopviz.trace.recording.attention:_layer",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ("attention",)
ROWS = 16  # steps shown at most
POSITIONS = 20  # positions shown at most, and one column for all others
SLOTS = 16  # slots shown at most, the last with all further ones
CELLS = 240  # of one map at most, about: what a token costs to send

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Where does it look, loop by loop?",
        "question": "Which earlier words does the selected token attend to in one layer, and does that change from loop to loop?",
        "how": "A row is a loop step, from the bottom up. Above: how the attention is shared among the positions read so "
        "far, as the mean of the layer's query heads and the sum of a position's slots; the 20 positions attended most "
        "over all steps (fewer when there are many steps) stand in the order of the text, all others together in the "
        "last column. Below, where all slots are read at once (parallel): the share of every slot. And, for every query "
        "head: the share of its attention that moved to other positions since the step before; heads beyond what fits "
        "are averaged in a last column, those that move most stay. Of more than 16 steps, evenly spaced ones are shown; steps not run stay blank. "
        "The colour grows with the square root, so that small shares can be told apart.",
        "formula": r"A_r(p)=\frac{1}{H}\sum_{h}\sum_{\text{slots}}A_r^{(h)}(p,\text{slot}),\qquad "
        r"\mathrm{TV}_r^{(h)}=\tfrac12\sum_p\left|A_r^{(h)}(p)-A_{r-1}^{(h)}(p)\right|",
        "units": "Per cent of the token's attention: a row of a map above, or of the slots, adds up to 100. Change: per cent, "
        "0 (nothing moved) to 100 (everything did).",
        "source": "Softmax weights of the layer's own attention in this run, stored in 16 bits.",
        "cost": "The weights of every layer of the block are computed once more at every loop step, beside the model's own "
        "attention, and kept: they grow with the text.",
        "no_data": "Nothing read yet: the maps appear with the first token",
        "not_recorded": "attention was not recorded in this run: switch it on and run again",
        "choose": "layer",
        "one_layer": "layer {layer}",
        "position": "position and text",
        "slot": "slot",
        "head_axis": "query head",
        "step": "loop step r",
        "others": "all others",
        "further": "{first}+",
        "caption_slots": "share of each slot",
        "caption_heads": "moved since the step before",
        "bar": "share, %",
        "hover_map": "to %{x}<br>step r = %{y}: %{z} % of the attention",
        "hover_slots": "slot %{x}, step r = %{y}: %{z} % of the attention",
        "hover_heads": "head %{x}, step r = %{y}<br>%{z} % moved since the step before",
        "head": "{token} · layer {layer}<br>last step: most to {most} ({share})",
        "head_none": "{token} · layer {layer}",
        "summary": "{token}, layer {layer}: at loop step {step} it attends most to {most}.{moved}",
        "one": "{position} “{text}” ({share})",
        "moved": " From the step before, {mean} of a head's attention moved on average.",
    },
    "zh": {
        "title": "每次循环它在看哪里？",
        "question": "在某一层里，所选词元关注之前的哪些词？从一次循环到下一次有变化吗？",
        "how": "一行是一个循环步，自下而上。上图：注意力如何分配给至今读入的各位置，取该层各查询头的平均，一个位置的各槽位相加；"
        "各步合计最受关注的 20 个位置（步数多时更少）按文本顺序排列，其余合并在最后一列。下图：若一次读取全部槽位（并行），显示每个槽位的份额；"
        "以及每个查询头自前一步以来移到其他位置的注意力份额；放不下的头在最后一列取平均，保留变化最大的头。超过 16 步时显示等间隔的步；没有运行的步留空。"
        "颜色随平方根增长，使小的份额也能区分。",
        "formula": r"A_r(p)=\frac{1}{H}\sum_{h}\sum_{\text{slots}}A_r^{(h)}(p,\text{slot}),\qquad "
        r"\mathrm{TV}_r^{(h)}=\tfrac12\sum_p\left|A_r^{(h)}(p)-A_{r-1}^{(h)}(p)\right|",
        "units": "占该词元注意力的百分比：上图的一行、槽位图的一行之和为 100。变化：百分比，0（没有移动）到 100（全部移动）。",
        "source": "本次运行中该层自身注意力的 softmax 权重，以 16 位保存。",
        "cost": "每个循环步都在模型自身的注意力之外再计算一次块中各层的权重并保存：保存量随文本增长。",
        "no_data": "尚未读入词元：读入第一个词元后出现",
        "not_recorded": "本次运行没有记录注意力：请打开后重新运行",
        "choose": "层",
        "one_layer": "第 {layer} 层",
        "position": "位置与文本",
        "slot": "槽位",
        "head_axis": "查询头",
        "step": "循环步 r",
        "others": "其余",
        "further": "{first}+",
        "caption_slots": "各槽位的份额",
        "caption_heads": "自前一步以来的变化",
        "bar": "份额，%",
        "hover_map": "看向 %{x}<br>第 %{y} 步：注意力的 %{z} %",
        "hover_slots": "槽位 %{x}，第 %{y} 步：注意力的 %{z} %",
        "hover_heads": "头 %{x}，第 %{y} 步<br>自前一步以来移动了 %{z} %",
        "head": "{token} · 第 {layer} 层<br>最后一步最关注 {most}（{share}）",
        "head_none": "{token} · 第 {layer} 层",
        "summary": "{token}，第 {layer} 层：在第 {step} 步最关注 {most}。{moved}",
        "one": "{position}“{text}”（{share}）",
        "moved": "与前一步相比，平均每个头有 {mean} 的注意力发生移动。",
    },
}

_FOLLOWER = follower.Follower()
MAP, HEADS, BY_SLOT = 0, 1, 2  # traces; the last only where all slots are read at once


class Seen(NamedTuple):
    """One layer's attention from one token, a row a step that is shown."""

    steps: list[int]
    weights: np.ndarray  # [rows, t + 1]
    slots: np.ndarray  # [rows, S]
    change: list[list[float | None]]  # [rows][heads]


def layer_of(spec: Mapping[str, Any], focus: Focus) -> int:
    """The physical layer shown: the one in focus if the block has it, else the block's first."""
    a, b = spec["layers"]
    return focus.layer if focus.layer is not None and a <= focus.layer <= b else a


def shown_steps(count: int) -> list[int]:
    """The steps (1-based) of ``count`` that get a row: all, or ``ROWS`` evenly spaced ones, first and last among them."""
    if count <= ROWS:
        return list(range(1, count + 1))
    return [1 + round(i * (count - 1) / (ROWS - 1)) for i in range(ROWS)]


def _parallel(spec: Mapping[str, Any]) -> bool:
    """Whether a step reads several slots at once."""
    return spec["kv_mode"] == "virtual_layers" and spec["attention_mode"] == "parallel" and spec["slots"] > 1


def columns(spec: Mapping[str, Any], most: int) -> int:
    """How many columns, of at most ``most``, a map of this block has."""
    return max(8, min(most, CELLS // min(spec["room"], ROWS)))


def _read(frame: Mapping[str, Any], spec: Mapping[str, Any], focus: Focus) -> Seen:
    block, layer = frame["blocks"][focus.block], layer_of(spec, focus) - spec["layers"][0]
    recorded = block["attention"]["layers"][layer]
    weights = decode_floats(recorded["weights"], frame["index"] + 1)
    owned = len(frame["kv"]["slots"][spec["layers"][0] + layer])
    steps = shown_steps(len(weights))
    rows = [step - 1 for step in steps]
    # a step that left the layer out attended to nothing: blank, not zero
    weights = np.where(weights.any(axis=1, keepdims=True), weights.astype(float), np.nan)
    return Seen(
        steps,
        weights[rows],
        np.where(np.isnan(weights[rows, :1]), np.nan, decode_floats(recorded["slots"], owned)[rows].astype(float)),
        [recorded["change"][row] for row in rows],
    )


def most_attended(weights: np.ndarray, count: int) -> list[int]:
    """The ``count`` positions with the most attention over all rows of ``weights``, in the order of the text."""
    return sorted(np.argsort(-np.nansum(weights, axis=0), kind="stable")[:count].tolist())


def _percent(values: np.ndarray) -> list[list[float | None]]:
    """Per cents to two digits, 0.01 at the finest; None for an undefined one."""
    v = 100 * values
    rounded = np.where(v >= 9.95, np.rint(v), np.where(v >= 0.995, np.round(v, 1), np.round(v, 2))).tolist()
    return [[None if v != v else int(v) if v.is_integer() else v for v in row] for row in rounded]


def _positions(
    seen: Seen, frames: Sequence[Mapping[str, Any]], count: int, lang: str
) -> tuple[list[str], list[list[float | None]]]:
    """Column names and per cents of the map; ``frames`` are those of all positions."""
    kept = most_attended(seen.weights, count)
    names = [f"{p} {labels.show_token(frames[p]['text'], width=8)}" for p in kept]
    shares = seen.weights[:, kept]
    if len(kept) < seen.weights.shape[1]:
        names.append(TEXTS[lang]["others"])
        rest = np.clip(seen.weights.sum(1) - shares.sum(1), 0, None)
        shares = np.concatenate([shares, rest[:, None]], axis=1)
    return names, _percent(shares)


def _by_slot(seen: Seen, lang: str) -> tuple[list[str], list[list[float | None]]]:
    """Column names and per cents of the slots."""
    owned, shares = seen.slots.shape[1], seen.slots
    if owned <= SLOTS:
        return [str(slot) for slot in range(owned)], _percent(shares)
    names = [*map(str, range(SLOTS - 1)), TEXTS[lang]["further"].format(first=SLOTS - 1)]
    return names, _percent(np.concatenate([shares[:, : SLOTS - 1], shares[:, SLOTS - 1 :].sum(1)[:, None]], axis=1))


def _by_head(seen: Seen, count: int, lang: str) -> tuple[list[str], list[list[float | None]]]:
    """Column names and per cents of the heads: those that change most over all steps, the mean of the others last."""
    change = np.array([[np.nan if v is None else v for v in row] for row in seen.change], dtype=float)
    heads = change.shape[1]
    kept = list(range(heads)) if heads <= count else most_attended(np.nan_to_num(change), count - 1)
    names, shown = [str(head) for head in kept], change[:, kept]
    if len(kept) < heads:
        others = np.delete(change, kept, axis=1)
        known = np.isfinite(others)
        mean = np.where(known.any(1), np.where(known, others, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan)
        names, shown = [*names, TEXTS[lang]["others"]], np.concatenate([shown, mean[:, None]], axis=1)
    return names, _percent(shown)


def _missing(frames: int, frame: Mapping[str, Any] | None, focus: Focus) -> str:
    """What to say instead of the maps; "" when there is something to show."""
    words = TEXTS[focus.lang]
    if frame is None:
        return follower.unread(frames, focus, words["no_data"])
    block = frame["blocks"][focus.block]
    if not block["attention"]:
        return follower.skipped(block, focus) or words["not_recorded"]
    layer = layer_of({"layers": block["layers"]}, focus)
    if block["layers_run"] and not any(layer in ran for ran in block["layers_run"]):
        return labels.COMMON[focus.lang]["left_out"].format(layer=layer)
    return ""


def _most(seen: Seen, frames: Sequence[Mapping[str, Any]], lang: str, count: int) -> list[dict[str, str]]:
    """The positions the last step attends to most, best first: position, text, share."""
    ran = seen.weights[np.isfinite(seen.weights[:, 0])]  # the steps shown in which the layer ran
    last = ran[-1] if len(ran) else np.zeros(seen.weights.shape[1])
    return [
        {
            "position": str(p),
            "text": labels.show_token(frames[p]["text"], width=12),
            "share": labels.percent(float(last[p]), lang),
        }
        for p in np.argsort(-last, kind="stable")[:count].tolist()
    ]


def _maps(
    spec: Mapping[str, Any], frames: Sequence[Mapping[str, Any]], seen: Seen | None, lang: str
) -> dict[Path, Any]:
    """The maps' data by path; empty ones without ``seen``."""
    empty: tuple[list[str], list[list[float | None]]] = [], []
    found = {
        MAP: _positions(seen, frames, columns(spec, POSITIONS), lang) if seen else empty,
        HEADS: _by_head(seen, columns(spec, CELLS), lang) if seen else empty,
    }
    if _parallel(spec):
        found[BY_SLOT] = _by_slot(seen, lang) if seen else empty
    names = [str(step) for step in seen.steps] if seen else []
    out: dict[Path, Any] = {}
    for place, (x, z) in found.items():
        out |= {("data", place, "x"): x, ("data", place, "y"): names, ("data", place, "z"): z}
    return out


def _chosen(
    spec: Mapping[str, Any], trace: Trace, count: int, frame: Mapping[str, Any] | None, focus: Focus
) -> dict[Path, Any]:
    """All that depends on which token is selected, by path, when ``count`` frames are there.

    ``frame`` is the selected one: of ``trace``, or the one that comes next; ``spec`` its block's settings.
    """
    words = TEXTS[focus.lang]
    frames = trace.frames if frame is None or frame["index"] < len(trace.frames) else [*trace.frames, frame]
    missing = _missing(count, frame, focus)
    seen = None if frame is None or missing else _read(frame, spec, focus)
    head = " "
    if frame is not None:
        token = labels.token_label(frame, focus.lang, width=12)
        head = words["head_none"].format(token=token, layer=layer_of(spec, focus))
    if seen and seen.steps:
        (most,) = _most(seen, frames, focus.lang, 1)
        named = f"{most['position']} “{most['text']}”"
        head = words["head"].format(token=token, layer=layer_of(spec, focus), most=named, share=most["share"])
    steps = seen.steps if seen else []
    return {
        **_maps(spec, frames, seen, focus.lang),
        **parts.row_outlined(steps.index(focus.step) if focus.step in steps else None),
        ("layout", "title", "text"): head,
        **parts.notice(missing),
    }


def _data(spec: Mapping[str, Any], lang: str) -> list[dict[str, Any]]:
    words = TEXTS[lang]
    kinds = [("map", "", "", {"token": "x", "step": "y"}), ("heads", "2", "2", {"step": "y"})]
    kinds += [("slots", "3", "2", {"step": "y"})] if _parallel(spec) else []
    return [
        {
            "type": "heatmap",
            "xaxis": f"x{x}",
            "yaxis": f"y{y}",
            "x": [],
            "y": [],
            "z": [],
            "coloraxis": "coloraxis",
            "xgap": 1,
            "ygap": 1,
            "hoverongaps": False,
            "hovertemplate": words[f"hover_{kind}"] + "<extra></extra>",
            "meta": {"select": select},
        }
        for kind, x, y, select in kinds
    ]


def _axes(spec: Mapping[str, Any], rows: int, height: int, words: dict[str, str]) -> dict[str, Any]:
    """The axes of the maps: one above, one or two side by side below."""
    map_px = height - 52 - 80 - GAP  # of both maps together
    below = map_px / 2 / (map_px + GAP)
    above = 1 - below
    y = {"type": "category", "title": {"text": words["step"]}, "range": [-0.5, rows - 0.5], "showgrid": False}
    x = {"type": "category", "showgrid": False}
    split = 0.34 if _parallel(spec) else 0
    axes = {
        "xaxis": {**x, "title": {"text": words["position"]}, "anchor": "y", "tickangle": -90},
        "yaxis": {**y, "anchor": "x", "domain": [above, 1]},
        "xaxis2": {**x, "title": {"text": words["head_axis"]}, "anchor": "y2", "domain": [split and split + 0.03, 1]},
        "yaxis2": {**y, "anchor": "x3" if split else "x2", "domain": [0, below]},  # of both lower maps
    }
    if split:
        axes["xaxis3"] = {**x, "title": {"text": words["slot"]}, "anchor": "y2", "domain": [0, split]}
    return axes


GAP = 138  # px between the maps above and below: names of positions, an axis title, a caption


def _choice(spec: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    words = TEXTS[focus.lang]
    layers = range(spec["layers"][0], spec["layers"][1] + 1)
    options = [(layer, words["one_layer"].format(layer=layer)) for layer in layers]
    return follower.choice(words["choose"], options, layer_of(spec, focus))


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    margin = {"l": 44, "r": 8, "t": 52, "b": 80}
    layout, there = parts.block_layout(
        meta, focus, words, 300, margin, follower.asks(meta, focus, {"token": "x", "step": "y"})
    )
    if not there:
        return {"data": [], "layout": layout}
    spec = meta["blocks"][focus.block]
    rows = min(spec["room"], ROWS)
    height = 52 + 80 + GAP + 2 * max(84, min(18 * rows, 240))
    captions = [parts.caption(words["caption_heads"], "x2 domain", "y2 domain")]
    captions += [parts.caption(words["caption_slots"], "x3 domain", "y2 domain")] if _parallel(spec) else []
    layout |= {
        "height": height,
        "title": {"text": " ", "y": 1 - 20 / height},
        "annotations": [*layout["annotations"], *captions],
        **_axes(spec, rows, height, words),
        "coloraxis": {
            "cmin": 0,
            "cmax": 100,
            "colorscale": [[float(at) * float(at), colour] for at, colour in theme.SCALE],  # by the square root
            "colorbar": parts.flat_bar(words["bar"], [0, 10, 25, 50, 100]),
        },
        "shapes": [parts.row_outline()],
        "meta": follower.asks(meta, focus, {"token": "x", "step": "y"}, layer=_choice(spec, focus)),
    }
    return {"data": _data(spec, focus.lang), "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: attention of one layer from the selected token by loop step, its slots and its change."""
    meta, at = follower.settled(trace, focus), focus.selected(len(trace))
    shown = _skeleton(meta, focus)
    if shown["data"]:
        fill(
            shown,
            _chosen(meta["blocks"][focus.block], trace, len(trace), None if at is None else trace.frames[at], focus),
        )
    return shown


figure = follower.checked(data)


@follower.redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: its own attention, when it is selected."""
    if labels.missing_block(trace.meta, focus.block, focus.lang):
        return []
    spec = follower.settled(trace, focus, frame)["blocks"][focus.block]
    return _FOLLOWER.patch(trace, frame, focus, lambda count, chosen: _chosen(spec, trace, count, chosen, focus))


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: what the last step attends to most, and how much moved since the step before."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if absent:
        return absent
    frame = None if at is None else trace.frames[at]
    if missing := _missing(len(trace), frame, focus):
        return missing
    assert frame is not None  # else that is what is missing
    spec = trace.meta["blocks"][focus.block]
    seen = _read(frame, spec, focus)
    known = [v for v in seen.change[-1] if v is not None]
    moved = words["moved"].format(mean=labels.percent(sum(known) / len(known), focus.lang)) if known else ""
    most = [words["one"].format(**one) for one in _most(seen, trace.frames, focus.lang, 3)]
    shown = words["summary"].format(
        token=labels.token_label(frame, focus.lang),
        layer=layer_of(spec, focus),
        step=seen.steps[-1],
        most=", ".join(most) if focus.lang == "en" else "、".join(most),
        moved=moved,
    )
    return labels.plain(shown)
