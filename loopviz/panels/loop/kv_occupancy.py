"""KV occupancy: what the cache holds, by layer and slot, and what that costs in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, append, fill
from loopviz.panels.kit import follower, parts

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "kv_occupancy"
GROUP = "memory"
ORDER = 30
CODE: tuple[str, ...] = (
    "loopviz.trace.recording.recorder:KVMeter.frames",
    "loopviz.model.cache:LoopCache.occupancy",
)  # what computes it; the page links there

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What does looping cost in memory?",
        "question": "How many tokens does every slot of the cache hold, and how many bytes is that beside other ways to do it?",
        "how": "Above: the model's memory of what it read (KV cache), a column a layer, a square a slot; the lighter a "
        "square, the more tokens it holds (where there is room, the number is written in it), and a dark one is empty. A layer that loops may own several slots; others own "
        "one. A slot whose loop step a token did not run holds a copy of that token's last step, so that every slot knows every "
        "word: so with more slots than loops the bytes in use grow as if all slots were written. Below: the bytes as the text grows: what this cache uses and has reserved (allocated), beside what the same "
        "model without loops (plain) and with a separate layer for each loop step (unrolled) would hold for the same "
        "tokens.",
        "formula": r"\text{bytes} = \text{tokens}\cdot 2\,D\,K\cdot\text{itemsize}\cdot\text{slots held, summed over layers},"
        r"\qquad L_{\text{unrolled}} = L+\sum_{\text{blocks}}(N_t-1)(b-a+1)",
        "units": "Tokens; bytes with decimal prefixes (1 kB = 1000 B, 1 MB = 1000 kB). D: size of a head, K: key/value heads; itemsize: "
        "bytes of a number. Of keys and values in 8 bits (kv_cache_dtype) that is 1, and each head's key and value of a token has 4 more for "
        "its scale; plain and unrolled are counted unrounded.",
        "source": "Counted in the cache of this run after every forward pass, for one sequence; plain and unrolled are "
        "counted from the same tokens and the loops each one ran.",
        "cost": "Nothing beyond what every run records.",
        "no_data": "Nothing read yet: the cache is empty",
        "layer": "physical layer",
        "slot": "slot",
        "position": "token position",
        "bytes": "KV cache",
        "block": "block {block}: layers {a}–{b} loop",
        "used": "in use",
        "allocated": "allocated",
        "plain": "plain Llama",
        "unrolled": "unrolled",
        "hover_slot": "layer %{x}, slot %{y}<br>tokens held: %{z}",
        "hover_bytes": "token %{{x}}<br>{name}: %{{y:.4s}}B (%{{y:,d}} bytes)",
        "head": "After {token}<br>{used} in use · {allocated} allocated<br>plain Llama {plain} · unrolled {unrolled}",
        "summary": "After {token} the KV cache of the {tokens} tokens read takes {used} ({allocated} allocated); a plain "
        "Llama would hold {plain}, an unrolled one {unrolled}.",
    },
    "zh": {
        "title": "循环要付出多少内存？",
        "question": "缓存的每个槽位存了多少个词元？与其他做法相比占多少字节？",
        "how": "上图：模型对已读内容的记忆（KV 缓存），一列是一层，一格是一个槽位；格子越亮，存的词元越多（放得下时写出数目），深色的格子是空的。"
        "循环的层可以有多个槽位，其余的层只有一个。词元没有运行到的循环步，其槽位保存该词元最后一步的副本，使每个槽位都有每个词："
        "因此槽位多于循环次数时，使用的字节数仍按全部槽位增长。下图：随文本增长的字节数：本缓存实际使用的和已预留的（已分配），"
        "以及对同样的词元，不循环的同一模型（普通 Llama）和每个循环步各用一层的模型（展开）需要保存的字节数。",
        "formula": r"\text{bytes} = \text{tokens}\cdot 2\,D\,K\cdot\text{itemsize}\cdot\text{slots held, summed over layers},"
        r"\qquad L_{\text{unrolled}} = L+\sum_{\text{blocks}}(N_t-1)(b-a+1)",
        "units": "词元数；字节用十进制前缀（1 kB = 1000 B，1 MB = 1000 kB）。D：每个头的维度，K：键/值头数；itemsize：每个数的字节数。"
        "以 8 位保存的键和值（kv_cache_dtype）为 1，每个词元每个头的键和值各另有 4 字节的缩放系数；普通与展开按未舍入计算。",
        "source": "每次前向之后在本次运行的缓存中（单个序列）统计；普通与展开的数值由同样的词元和各自实际的循环步数算出。",
        "cost": "除每次运行本来就记录的内容外，没有额外开销。",
        "no_data": "尚未读入词元：缓存为空",
        "layer": "物理层",
        "slot": "槽位",
        "position": "词元位置",
        "bytes": "KV 缓存",
        "block": "块 {block}：第 {a}–{b} 层循环",
        "used": "使用中",
        "allocated": "已分配",
        "plain": "普通 Llama",
        "unrolled": "展开",
        "hover_slot": "第 %{x} 层，槽位 %{y}<br>存有 %{z} 个词元",
        "hover_bytes": "词元 %{{x}}<br>{name}：%{{y:.4s}}B（%{{y:,d}} 字节）",
        "head": "{token} 之后<br>使用中 {used} · 已分配 {allocated}<br>普通 Llama {plain} · 展开 {unrolled}",
        "summary": "{token} 之后，已读 {tokens} 个词元的 KV 缓存占 {used}（已分配 {allocated}）；普通 Llama 需要 {plain}，"
        "展开的模型需要 {unrolled}。",
    },
}

WRITTEN = 48  # up to so many slots, how many tokens each holds is written in it
GRID = 0
LINES = {"used": 1, "allocated": 2, "plain": 3, "unrolled": 4}  # traces, and the frame's bytes_*
_COLOURS = {"used": "kv_used", "allocated": "kv_allocated", "plain": "plain", "unrolled": "unrolled"}
HERE = 0  # the shape at the selected token
_FOLLOWER = follower.Follower()


def _slots(meta: Mapping[str, Any]) -> int:
    """Slots of the layer that owns most: rows of the grid."""
    owned = [spec["slots"] if spec["kv_mode"] == "virtual_layers" else 1 for spec in meta["blocks"]]
    return max([1, *owned])


def _head(frame: Mapping[str, Any], lang: str, words: str = "head") -> str:
    sizes = {name: labels.show_bytes(frame["kv"][f"bytes_{name}"]) for name in LINES}
    return labels.fill(TEXTS[lang][words], token=labels.token_label(frame, lang), tokens=frame["index"] + 1, **sizes)


def _chosen(frames: int, frame: Mapping[str, Any] | None, focus: Focus) -> dict[Path, Any]:
    """All that depends on which token is selected, by path.

    The grid's ``z`` is one short list a layer (drawn transposed), so layers without slots to spare cost two characters.
    """
    words = TEXTS[focus.lang]
    missing = ""
    if frame is None:
        missing = follower.unread(frames, focus, words["no_data"])
    at = -1 if frame is None else frame["index"]
    return {
        ("data", GRID, "z"): [] if frame is None else frame["kv"]["slots"],
        ("data", GRID, "zmax"): at + 1 or 1,
        ("layout", "title", "text"): " " if frame is None else _head(frame, focus.lang),
        ("layout", "shapes", HERE, "x0"): at,
        ("layout", "shapes", HERE, "x1"): at,
        ("layout", "shapes", HERE, "visible"): frame is not None,
        **parts.notice(missing),
    }


def _data(meta: Mapping[str, Any], lang: str) -> list[dict[str, Any]]:
    words, written = TEXTS[lang], meta["shape"]["layers"] * _slots(meta) <= WRITTEN
    grid = {
        "type": "heatmap",
        "z": [],
        "transpose": True,
        "x0": 0,
        "dx": 1,
        "y0": 0,
        "dy": 1,
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorscale": theme.LIGHT_SCALE if written else theme.SCALE,
        **({"texttemplate": "%{z}", "textfont": {"color": theme.ON_SCALE, "size": 11}} if written else {}),
        "showscale": False,
        "hoverongaps": False,
        "hovertemplate": words["hover_slot"] + "<extra></extra>",
        "meta": {"select": {}},
    }
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "xaxis": "x2",
            "yaxis": "y2",
            "name": words[name],
            "x0": 0,
            "dx": 1,
            "y": [],
            "line": {
                "color": theme.COLOURS[_COLOURS[name]],
                "dash": theme.DASHES[_COLOURS[name]],
                "width": 3 if name == "used" else 2,
                "shape": "hv" if name == "allocated" else "linear",
            },
            "hovertemplate": words["hover_bytes"].format(name=words[name]) + "<extra></extra>",
        }
        for name in LINES
    ]
    return [grid, *lines]


def _shapes(meta: Mapping[str, Any], lang: str) -> list[dict[str, Any]]:
    here = {
        "type": "line",
        "xref": "x2",
        "yref": "y2 domain",
        "x0": -1,
        "x1": -1,
        "y0": 0,
        "y1": 1,
        "visible": False,
        "line": {"color": theme.SELECTED, "width": 1.5},
    }
    blocks = [
        {
            "type": "line",
            "xref": "x",
            "yref": "y domain",
            "x0": spec["layers"][0] - 0.5,
            "x1": spec["layers"][1] + 0.5,
            "y0": 1.04,
            "y1": 1.04,
            "line": {"color": theme.INK, "width": 2},
            "label": {
                "text": TEXTS[lang]["block"].format(block=i, a=spec["layers"][0], b=spec["layers"][1]),
                "textposition": "middle",
                "yanchor": "bottom",
                "font": {"size": 11},
            },
        }
        for i, spec in enumerate(meta["blocks"])
    ]
    return [here, *blocks]


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token."""
    words, layers, slots = TEXTS[focus.lang], meta["shape"]["layers"], _slots(meta)
    grid = max(40, min(22 * slots, 200))  # px
    height = grid + 360
    plot = height - 92 - 70  # px between the margins, about
    split = 1 - grid / plot
    layout = {
        "template": theme.template(),
        "height": height,
        "margin": {"l": 58, "r": 12, "t": 92, "b": 10},
        "title": {"text": " ", "y": 1 - 20 / height},
        "annotations": [labels.message(words["no_data"])],
        "xaxis": {
            "anchor": "y",
            "range": [-0.5, layers - 0.5],
            "title": {"text": words["layer"]},
            "showgrid": False,
            "tick0": 0,
            "dtick": max(1, -(-layers // 15)),
        },
        "yaxis": {
            "domain": [split, 1],
            "range": [-0.5, slots - 0.5],
            "title": {"text": words["slot"]},
            "showgrid": False,
            "tick0": 0,
            "dtick": -(-slots // 8),
        },
        "xaxis2": {"anchor": "y2", "title": {"text": words["position"]}},
        "yaxis2": {
            "domain": [0, split - 62 / plot],  # room for the grid's axis
            "anchor": "x2",
            "title": {"text": words["bytes"]},
            "tickformat": "~s",
            "ticksuffix": "B",
            "rangemode": "tozero",
            "nticks": 6,
        },
        "shapes": _shapes(meta, focus.lang),
        "legend": {"y": -0.2, "yanchor": "top", "x": 0},
        "meta": {"select": {"token": "x"}},
    }
    return {"data": _data(meta, focus.lang), "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: slots held at the selected token above, bytes over all tokens below."""
    frames, shown = trace.frames, _skeleton(trace.meta, focus)
    held: list[Mapping[str, Any]] = [frame["kv"] for frame in frames]
    for name, place in LINES.items():
        shown["data"][place]["y"] = [kv[f"bytes_{name}"] for kv in held]
    at = focus.selected(len(frames))
    return fill(shown, _chosen(len(frames), None if at is None else frames[at], focus))


figure = follower.checked(data)


def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: a point a line; the grid and the line across when the newest token is followed."""
    ops = [append(("data", place, "y"), [frame["kv"][f"bytes_{name}"]]) for name, place in LINES.items()]
    return ops + _FOLLOWER.patch(trace, frame, focus, lambda count, chosen: _chosen(count, chosen, focus))


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: the selected token and the four byte counts after it."""
    at = focus.selected(len(trace))
    if at is None:
        if not len(trace):
            return TEXTS[focus.lang]["no_data"]
        return labels.COMMON[focus.lang]["not_yet"].format(token=focus.token)
    return labels.plain(_head(trace.frames[at], focus.lang, "summary"))
