"""State trajectory: where the state of a token goes, loop step by loop step, seen along the run's principal axes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, append, changes, fill, put
from loopviz.panels.kit import parts, trajectories
from loopviz.panels.kit.follower import Follower, asks, checked, choice, skipped, unread
from loopviz.panels.kit.routes import RUNNING, Route, Seen, route_of

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "state_trajectory"
ORDER = 15
CODE: tuple[str, ...] = (
    "loopviz.panels.kit.trajectories:fit",
    "loopviz.panels.kit.trajectories:ending",
    "loopviz.trace.recording.recorder:Reading._packed",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ()
HEIGHT = 460
OTHERS = 64  # end points of other tokens kept on screen

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Where does the thought go?",
        "question": "Loop by loop, where does a token's state move, and does it come to rest?",
        "how": "A state is a long list of numbers; here it is a point. The pink path is the selected token: it starts at "
        "the open circle (s₀, what enters the block) and takes one stretch a loop step; the filled mark is its end, "
        "coloured by why it stopped. Grey paths are pinned tokens, grey dots the end points of up to 64 others: those before "
        "the newest token, or those around a token you chose. Only the direction of a state is drawn (it is scaled to "
        "length 1, as the norms before every layer and before the head do). The axes are the directions along which the "
        "first tokens' states differ most (principal components); they are fitted once, on the states s₀…s_N of the "
        "prompt's tokens (every k-th token if that is more than 256 states; generated tokens join in until there are 12 "
        "states), and then stay; each axis has its own scale, and the view is fitted to the selected and the pinned paths (ends "
        "of other tokens beyond it are left out). How a path ends is judged in all "
        "dimensions and with lengths, not in the picture. δ_r is the length of step r and q the larger of the last two "
        "ratios δ_N/δ_{N−1}, δ_{N−1}/δ_{N−2}. Fixed point: the last step is at most 0.001 of the state's length, or q < 1 "
        "and all steps still to come, each q times the one before, would add up to at most 0.05 of it. Settling: q ≤ 0.8, "
        "but not there yet. Orbit: the last two states are back, within half a mean step, where they were p ≥ 2 steps "
        "earlier; with several slots read in turn (V ≥ 2, serial) loops that read different slots may go round like that for "
        "ever, each true to its own notes. Drift: none of these. Below 4 steps it is too early to tell.",
        "formula": r"x_r=\Big(\tfrac{s_r}{\lVert s_r\rVert}-\mu\Big)U^{\top},\quad \delta_r=\lVert s_r-s_{r-1}\rVert,\quad "
        r"q=\max\Big(\tfrac{\delta_N}{\delta_{N-1}},\tfrac{\delta_{N-1}}{\delta_{N-2}}\Big),\quad "
        r"\text{fixed: } \delta_N\le 0.001\,\lVert s_N\rVert \ \text{ or }\ \tfrac{q}{1-q}\,\delta_N\le 0.05\,\lVert s_N\rVert",
        "units": "No units: coordinates of states scaled to length 1. The percentage at an axis is its share of the "
        "variance of the states it was fitted on.",
        "source": "Loop states recorded in this run as float16; projected on the server, where the states stay. μ is the "
        "mean of the directions the axes were fitted on and U their first principal components, each turned so that its "
        "largest entry is positive.",
        "cost": "Recording keeps every loop state of every token in memory (2 bytes a number); the page receives only two "
        "or three numbers a state.",
        "no_data": "Nothing read yet: the path appears with the first tokens",
        "fitting": "The axes are not fitted yet: they wait for the whole prompt and at least 12 states",
        "not_recorded": "This token's loop states were not recorded",
        "axis_1": "component 1",
        "axis_2": "component 2",
        "axis_3": "component 3",
        "share": "{axis} ({percent} %)",
        "others": "other ends",
        "pinned": "pinned",
        "selected": "selected",
        "starts": "start",
        "ends": "end",
        "dims": "Dimensions",
        "dims_2": "2-D",
        "dims_3": "3-D",
        "hover_others": "%{text}<br>end of its path",
        "hover_pinned": "pinned token %{text}",
        "hover_selected": "loop step r, ‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r</sub>‖<br>%{text}",
        "hover_starts": "token %{text}<br>s<sub>0</sub>: enters the block",
        "hover_ends": "token %{text}<br>end of its path: %{customdata}",
        "entry": "s₀",
        "fixed": "fixed point",
        "settling": "settling",
        "orbit": "orbit of {period} steps",
        "drift": "drift",
        "few": "too few steps to tell",
        "head": "{token}: {steps} loops, stopped by {why}<br>{kind} · last step {moved}, turn {turned}",
        "part": "{percent} % of ‖s‖",
        "degrees": "{angle}°",
        "summary": "{token}, {block}: after {steps} loop steps, stopped by {why}: {kind}. The last step moved the state by "
        "{moved} and turned it by {turned}. The axes drawn hold {share} of the variance they were fitted on.",
    },
    "zh": {
        "title": "思路走向何处？",
        "question": "一个词元的状态随循环一步步移动到哪里？它会停下来吗？",
        "how": "状态是一长串数字；这里把它画成一个点。粉色路径是所选词元：从空心圆出发（s₀，进入块的状态），每个循环步走一段；"
        "实心标记是终点，颜色表示停止原因。灰色路径是固定显示的词元，灰点是最多 64 个其他词元的终点：最新词元之前的，或所选词元前后的。"
        "图中只画状态的方向（缩放到长度 1，正如每层之前和输出头之前的归一化所做的）。坐标轴是最先读入的词元的状态差异最大的方向（主成分）；"
        "只拟合一次，用提示词各词元的状态 s₀…s_N（若超过 256 个状态则每隔 k 个词元取一个；不足 12 个状态时再加入生成的词元），"
        "之后保持不变；各轴有各自的比例，视野随所选和固定的路径调整（视野之外的其他终点不画出）。路径如何结束是在全部维度中、连同长度一起判断的，不是看图判断。"
        "δ_r 是第 r 步的长度，q 是最后两个比值 δ_N/δ_{N−1}、δ_{N−1}/δ_{N−2} 中较大的一个。不动点：最后一步不超过状态长度的 0.001，"
        "或者 q < 1 且此后各步（每步为前一步的 q 倍）加起来不超过其 0.05。趋稳：q ≤ 0.8，但尚未到达。"
        "轨道：最后两个状态都回到了 p ≥ 2 步之前的位置（相差不超过平均步长的一半）；若轮流读取几个槽位（V ≥ 2，串行），读取不同槽位的循环可能就这样一直绕下去，各自忠于自己的笔记。漂移：以上都不是。少于 4 步时无法判断。",
        "formula": r"x_r=\Big(\tfrac{s_r}{\lVert s_r\rVert}-\mu\Big)U^{\top},\quad \delta_r=\lVert s_r-s_{r-1}\rVert,\quad "
        r"q=\max\Big(\tfrac{\delta_N}{\delta_{N-1}},\tfrac{\delta_{N-1}}{\delta_{N-2}}\Big),\quad "
        r"\text{fixed: } \delta_N\le 0.001\,\lVert s_N\rVert \ \text{ or }\ \tfrac{q}{1-q}\,\delta_N\le 0.05\,\lVert s_N\rVert",
        "units": "无单位：缩放到长度 1 的状态的坐标。轴上的百分比是该轴在拟合所用状态的方差中所占的比例。",
        "source": "本次运行中以 float16 记录的循环状态；在服务器上投影，状态本身不发送。μ 是拟合所用方向的均值，U 是其前几个主成分，各轴的正向取为绝对值最大的分量为正。",
        "cost": "记录时，每个词元的每个循环状态都保留在内存中（每个数 2 字节）；页面只收到每个状态的两三个数。",
        "no_data": "尚未读入词元：读入最初的词元后路径出现",
        "fitting": "坐标轴尚未拟合：需要读完提示词，并至少有 12 个状态",
        "not_recorded": "没有记录该词元的循环状态",
        "axis_1": "成分 1",
        "axis_2": "成分 2",
        "axis_3": "成分 3",
        "share": "{axis}（{percent} %）",
        "others": "其他终点",
        "pinned": "固定",
        "selected": "所选",
        "starts": "起点",
        "ends": "终点",
        "dims": "维数",
        "dims_2": "二维",
        "dims_3": "三维",
        "hover_others": "%{text}<br>路径的终点",
        "hover_pinned": "固定显示的词元 %{text}",
        "hover_selected": "循环步 r，‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r</sub>‖<br>%{text}",
        "hover_starts": "词元 %{text}<br>s<sub>0</sub>：进入块的状态",
        "hover_ends": "词元 %{text}<br>路径的终点：%{customdata}",
        "entry": "s₀",
        "fixed": "不动点",
        "settling": "趋稳",
        "orbit": "周期为 {period} 步的轨道",
        "drift": "漂移",
        "few": "步数太少，无法判断",
        "head": "{token}：循环 {steps} 步，停止原因：{why}<br>{kind} · 最后一步 {moved}，转动 {turned}",
        "part": "‖s‖ 的 {percent} %",
        "degrees": "{angle}°",
        "summary": "{token}，{block}：循环 {steps} 步，停止原因：{why}；{kind}。最后一步移动了{moved}，转动了 {turned}。"
        "所画的轴占拟合所用方差的 {share}。",
    },
}

REST, PINNED, CHOSEN, STARTS, ENDS = range(5)  # traces: other tokens' ends, pinned paths, the selected one, marks
_TRACES = ("others", "pinned", "selected", "starts", "ends")
SYMBOLS_3D = {**theme.STOP_SYMBOLS, "max": "cross", "other": "x"}  # plotly draws fewer symbols in 3-D
_SIZES: dict[int, dict[str, float]] = {  # px of marks; perspective makes those in space look larger
    2: {"others": 4, "pinned": 4, "selected": 6, "starts": 11, "ends": 11},
    3: {"others": 2.5, "pinned": 2.5, "selected": 4, "starts": 7, "ends": 7},
}
_VIEW = {"eye": {"x": 1.55, "y": 1.55, "z": 0.85}, "center": {"x": 0, "y": 0, "z": -0.12}}  # all titles are inside
_NOWHERE: tuple[list[float], ...] = ([],) * trajectories.AXES
_FOLLOWER = Follower()
Frame = Mapping[str, Any]
View = tuple[tuple[float, float], ...]  # low and high of each axis
ROOM = 0.12  # around the paths shown, as part of what they span
LEAST_SPAN = 0.02  # of an axis: states hardly apart are not blown up to fill it
MARK = (0.03, 0.03)  # half of what a mark takes of a phone's plot, across and up
LETTER = (0.024, 0.07)  # what a column of a name takes, and its height


# --- one token, in words and numbers


def _points(place: int, columns: Sequence[Sequence[float | None]], dims: int) -> dict[Path, Any]:
    """The coordinates of a trace, a list an axis."""
    return {("data", place, "xyz"[axis]): list(columns[axis]) for axis in range(dims)}


def _joined(routes: Sequence[Route | None], part: slice, gap: bool = False) -> list[list[float | None]]:
    """``part`` of the coordinates of ``routes`` one after the other, a list an axis; a gap where there is no route, and, if asked for, after each."""
    out: list[list[float | None]] = [[] for _ in range(trajectories.AXES)]
    for route in routes:
        for axis, column in enumerate(out):
            column += [None] if route is None else route.drawn[axis][part]
            column += [None] if gap else []
    return out


def _name(frame: Frame) -> str:
    return f"{frame['index']} {labels.show_token(frame['text'], width=10)}"


@lru_cache(maxsize=256)
def _hops(route: Route, lang: str) -> tuple[str, ...]:
    """What the hover says of each state of a path: its step, and how far that step went."""
    return (
        TEXTS[lang]["entry"],
        *(f"{r}: {labels.number(part, lang)}" for r, part in enumerate(route.ending.parts, 1)),
    )


@lru_cache(maxsize=256)
def _ends(ending: trajectories.Ending, lang: str) -> dict[str, str]:
    """How the path ends, in words."""
    words, undefined = TEXTS[lang], labels.COMMON[lang]["undefined"]
    moved, turned = ending.moved, ending.turned
    return {
        "kind": words[ending.kind].format(period=ending.period),
        "moved": undefined if moved is None else words["part"].format(percent=labels.number(100 * moved, lang)),
        "turned": undefined if turned is None else words["degrees"].format(angle=labels.number(turned, lang)),
    }


# --- parts of the figure, by path


def _chosen(meta: Mapping[str, Any], seen: Seen, frames: Sequence[Frame], focus: Focus) -> dict[Path, Any]:
    """The path and the words of the selected token."""
    words, at = TEXTS[focus.lang], focus.selected(len(frames))
    frame = None if at is None else frames[at]
    missing, head, route = "", " ", None
    if frame is None:
        missing = unread(len(frames), focus, words["no_data"])
    elif frame["blocks"][focus.block]["states"] is None:
        missing = skipped(frame["blocks"][focus.block], focus) or words["not_recorded"]
    elif seen.basis is None:
        missing = words["fitting"]
    else:
        block, route = frame["blocks"][focus.block], route_of(meta, focus.block, frame, seen.basis)
        assert route is not None  # the states are there
        head = labels.fill(
            words["head"],
            token=labels.token_label(frame, focus.lang, width=12),
            steps=block["n_steps"],
            why=labels.stop_label(block["stop_reason"], focus.lang),
            **_ends(route.ending, focus.lang),
        )
    small = _SIZES[focus.dims]["selected"]
    sizes = [2 * small if r == focus.step else small for r in range(len(route.points))] if route else []
    return {
        ("layout", "title", "text"): head,
        **parts.notice(missing),
        **_points(CHOSEN, route.drawn if route else _NOWHERE, focus.dims),
        ("data", CHOSEN, "text"): list(_hops(route, focus.lang)) if route else [],
        ("data", CHOSEN, "marker", "size"): sizes if focus.step else small,
    }


def _marks(meta: Mapping[str, Any], seen: Seen, frames: Sequence[Frame], view: View, focus: Focus) -> dict[Path, Any]:
    """The pinned paths, and the marks at both ends of every path shown."""
    at, shown = focus.selected(len(frames)), _routes(meta, seen, frames, focus)
    pinned, texts, names, kinds, ends = [], [], [], [], []
    for frame, route in shown:
        name = _name(frame)
        if frame["index"] != at:
            pinned.append(route)
            texts += [*(f"{name} · {hop}" for hop in _hops(route, focus.lang)), ""]
        names.append(name)
        kinds.append(theme.stop_kind(frame["blocks"][focus.block]["stop_reason"]))
        ends.append(_ends(route.ending, focus.lang)["kind"])
    routes, symbols = [route for _, route in shown], theme.STOP_SYMBOLS if focus.dims == 2 else SYMBOLS_3D
    return {
        **_points(PINNED, _joined(pinned, slice(None), gap=True), focus.dims),
        ("data", PINNED, "text"): texts,
        **_points(STARTS, _joined(routes, slice(1)), focus.dims),
        ("data", STARTS, "text"): names,
        **_points(ENDS, _joined(routes, slice(-1, None)), focus.dims),
        ("data", ENDS, "text"): names,
        ("data", ENDS, "customdata"): ends,
        ("data", ENDS, "textposition"): _beside(routes, names, view),
        ("data", ENDS, "marker", "color"): [theme.COLOURS[f"stop_{kind}"] for kind in kinds],
        ("data", ENDS, "marker", "symbol"): [symbols[kind] for kind in kinds],
    }


def _routes(meta: Mapping[str, Any], seen: Seen, frames: Sequence[Frame], focus: Focus) -> list[tuple[Frame, Route]]:
    """The paths shown whole, the selected token's first, then the pinned ones'; those without states left out."""
    at = focus.selected(len(frames))
    places = [] if at is None else [at]
    places += [pin for pin in focus.pins if pin < len(frames) and pin != at]
    if seen.basis is None:
        return []
    found = [(frames[i], route_of(meta, focus.block, frames[i], seen.basis)) for i in places]
    return [(frame, route) for frame, route in found if route is not None]


def _view(routes: Sequence[Route]) -> View:
    """The range of each axis in which the paths shown fill the plot, with some room around them."""
    if not routes:
        return ((-1.0, 1.0),) * trajectories.AXES
    every = np.concatenate([route.points for route in routes])  # [n, 3]
    ranges = []
    for low, high in zip(every.min(axis=0).tolist(), every.max(axis=0).tolist(), strict=True):
        room = max(ROOM * (high - low), LEAST_SPAN / 2 - (high - low) / 2)
        ranges.append((labels.sig(low - room) or 0.0, labels.sig(high + room) or 0.0))
    return tuple(ranges)


def _beside(routes: Sequence[Route], names: Sequence[str], view: View) -> list[str]:
    """Where the name of each path's end goes: inside the plot, off the other ends and names, else away from its start."""
    shares = [
        [(route.drawn[axis][i] - view[axis][0]) / (view[axis][1] - view[axis][0]) for axis in (0, 1)]
        for route in routes
        for i in (0, -1)
    ]  # of the plot, across and up: each path's start and end
    taken: list[tuple[float, float, float, float]] = [
        (x - MARK[0], x + MARK[0], y - MARK[1], y + MARK[1]) for x, y in shares
    ]
    out = []
    for i, name in enumerate(names):
        (from_x, from_y), (x, y) = shares[2 * i], shares[2 * i + 1]
        ups = ("top", "bottom") if y >= from_y else ("bottom", "top")
        sides = ("right", "left") if x >= from_x else ("left", "right")
        places = [f"{up} {side}" for side in sides for up in (*ups, "middle")]
        boxes = {place: _box(place, x, y, labels.columns(labels.plain(name))) for place in places}
        others = [box for j, box in enumerate(taken) if j != 2 * i + 1]
        best = min(places, key=lambda place: (_outside(boxes[place]), sum(_meet(boxes[place], box) for box in others)))
        taken.append(boxes[best])
        out.append(best)
    return out


def _box(place: str, x: float, y: float, columns: int) -> tuple[float, float, float, float]:
    """The part of the plot a name of so many columns takes beside (x, y): left, right, bottom, top."""
    up, side = place.split()
    wide, high = LETTER[0] * columns, LETTER[1]
    bottom = {"top": y, "middle": y - high / 2, "bottom": y - high}[up]
    return (x, x + wide, bottom, bottom + high) if side == "right" else (x - wide, x, bottom, bottom + high)


def _outside(box: tuple[float, float, float, float]) -> float:
    """How far a box sticks out of the plot."""
    return max(0.0, -box[0]) + max(0.0, box[1] - 1) + max(0.0, -box[2]) + max(0.0, box[3] - 1)


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def _rest(meta: Mapping[str, Any], seen: Seen, shown: Sequence[Frame], focus: Focus) -> dict[Path, Any]:
    """The end points of ``shown``, other tokens than the selected one. A token without states leaves a gap."""
    basis = seen.basis
    shown = [] if basis is None else shown
    routes = [] if basis is None else [route_of(meta, focus.block, frame, basis) for frame in shown]
    return {
        **_points(REST, _joined(routes, slice(-1, None)), focus.dims),
        ("data", REST, "text"): [_name(frame) for frame in shown],
    }


def _others(frames: Sequence[Frame], focus: Focus) -> list[Frame]:
    """Whose end points are shown: the tokens before the newest one, or those around the one selected.

    Following the newest, a token takes the place of the one ``OTHERS`` before it, so that one edit is enough.
    """
    if focus.token is None:
        newest = max(0, len(frames) - 1)
        last = [*range(max(0, newest - OTHERS), newest)]
        return [frames[i] for i in sorted(last, key=lambda i: i % OTHERS if newest > OTHERS else i)]
    first = _first_around(focus.token)
    return [frame for frame in frames[first : first + OTHERS + 1] if frame["index"] != focus.token]


def _first_around(token: int) -> int:
    return max(0, token - OTHERS // 2)


def _axes(seen: Seen, view: View, focus: Focus) -> dict[Path, Any]:
    """The axes' titles and ranges."""
    words, out = TEXTS[focus.lang], dict[Path, Any]()
    place: Path = ("layout",) if focus.dims == 2 else ("layout", "scene")
    for i in range(focus.dims):
        axis, title = (*place, f"{'xyz'[i]}axis"), words[f"axis_{i + 1}"]
        if seen.basis is not None and seen.basis.shares:
            title = words["share"].format(axis=title, percent=f"{100 * seen.basis.shares[i]:.1f}")
        out[(*axis, "title", "text")] = title
        out[(*axis, "range")] = list(view[i])
    return out


def _data(focus: Focus) -> list[dict[str, Any]]:
    words = TEXTS[focus.lang]
    flat: dict[str, Any] = {"type": "scatter", "cliponaxis": False} if focus.dims == 2 else {"type": "scatter3d"}
    if focus.dims == 2:  # an end beyond the view is left out; marks and names at its edge are whole
        clipped: tuple[dict[str, Any], ...] = ({"cliponaxis": True}, *[{}] * (len(_TRACES) - 1))
    else:
        clipped = ({},) * len(_TRACES)
    looks: tuple[dict[str, Any], ...] = (
        {"mode": "markers", "marker": {"color": theme.INK, "opacity": 0.45}},
        {
            "mode": "lines+markers",
            "line": {"color": theme.INK, "width": 1.5},
            "marker": {"color": theme.INK},
        },
        {
            "mode": "lines+markers",
            "line": {"color": theme.SELECTED, "width": 3},
            "marker": {"color": theme.SELECTED, "line": {"width": 0}},
        },
        {"mode": "markers", "marker": {"color": theme.INK, "symbol": "circle-open", "line": {"width": 2}}},
        {
            "mode": "markers+text",
            "customdata": [],
            "textposition": [],
            "textfont": {"size": 11},
            "marker": {"color": [], "symbol": [], "line": {"color": theme.MARK_EDGE, "width": 1}},
        },
    )
    selects = ({"token": "text"}, {"token": "text"}, {"step": "text"}, {"token": "text"}, {"token": "text"})
    return [
        {
            **flat,
            **clip,
            **look,
            "marker": {**look["marker"], "size": _SIZES[focus.dims][name]},
            "name": words[name],
            **{"xyz"[axis]: [] for axis in range(focus.dims)},
            "text": [],
            "hovertemplate": words[f"hover_{name}"] + "<extra></extra>",
            "meta": {"select": select},
        }
        for name, look, clip, select in zip(_TRACES, looks, clipped, selects, strict=True)
    ]


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words, absent = TEXTS[focus.lang], labels.missing_block(meta, focus.block, focus.lang)
    dims = choice(words["dims"], [(2, words["dims_2"]), (3, words["dims_3"])], focus.dims)
    layout: dict[str, Any] = {
        "template": theme.template(),
        "height": HEIGHT,
        "margin": {"l": 52, "r": 16, "t": 56, "b": 10},
        "title": {"text": " ", "y": 1 - 20 / HEIGHT},
        "annotations": [labels.message(absent or words["no_data"])],
        "meta": asks(meta, focus, {}, dims=dims),
    }
    if absent:
        layout |= {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
        return {"data": [], "layout": layout}
    if focus.dims == 2:
        axis: dict[str, Any] = {"nticks": 6}
        layout |= {"xaxis": {**axis, "title": {}}, "yaxis": {**axis, "title": {}}}
    else:
        axis = {"color": theme.INK, "gridcolor": theme.INK, "showbackground": False, "nticks": 4, "zeroline": False}
        axis |= {"tickfont": {"size": 10}, "showspikes": False, "showline": True, "linecolor": theme.INK}
        title = {"font": {"size": 11}}
        layout["scene"] = {f"{name}axis": {**axis, "title": dict(title)} for name in "xyz"}
        layout["scene"] |= {"aspectmode": "cube", "camera": copy.deepcopy(_VIEW)}
        layout["margin"] |= {"l": 0, "r": 0}
    layout |= {"showlegend": True, "legend": {"y": -0.16 if focus.dims == 2 else -0.02, "yanchor": "top", "x": 0}}
    return {"data": _data(focus), "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: the paths of the selected and the pinned tokens on the run's principal axes."""
    meta, frames, shown = trace.meta, trace.frames, _skeleton(trace.meta, focus)
    if shown["data"]:
        seen = RUNNING.over(trace, focus.block)
        fill(shown, _rest(meta, seen, _others(frames, focus), focus))
        fill(shown, _followed(meta, seen, frames, focus))
    return shown


figure = checked(data)


def _followed(meta: Mapping[str, Any], seen: Seen, frames: Sequence[Frame], focus: Focus) -> dict[Path, Any]:
    """All that depends on which token is selected, by path: paths, marks, words, and the view they fill."""
    view = _view([route for _, route in _routes(meta, seen, frames, focus)])
    return {
        **_chosen(meta, seen, frames, focus),
        **_marks(meta, seen, frames, view, focus),
        **_axes(seen, view, focus),
    }


def _joins(meta: Mapping[str, Any], seen: Seen, frame: Frame, focus: Focus) -> list[Op]:
    """The edits that add one token to the others' end points."""
    values, at = _rest(meta, seen, [frame], focus), frame["index"]
    if focus.token is None and at >= OTHERS:
        return [put((*path, at % OTHERS), value[0]) for path, value in values.items()]
    return [append(path, value) for path, value in values.items()]


def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: its path when it is shown, an end point when it is one of the others, wider axes."""
    meta = trace.meta
    if labels.missing_block(meta, focus.block, focus.lang):
        return []
    before, after = RUNNING.over(trace, focus.block), RUNNING.after(trace, focus.block, frame)
    old, new = trace.frames, [*trace.frames, frame]
    fitted = before.basis is not after.basis
    ops: list[Op] = []
    if fitted:
        ops += changes(_rest(meta, before, [], focus), _rest(meta, after, _others(new, focus), focus))
    elif after.basis is not None:
        if focus.token is None:
            ops += _joins(meta, after, old[-1], focus)
        elif frame["index"] != focus.token and 0 <= frame["index"] - _first_around(focus.token) <= OTHERS:
            ops += _joins(meta, after, frame, focus)

    def shown(count: int, _: Frame | None) -> dict[Path, Any]:
        seen, frames = (before, old) if count == len(old) else (after, new)
        return _followed(meta, seen, frames, focus)

    return ops + _FOLLOWER.patch(trace, frame, focus, shown, always=fitted or frame["index"] in focus.pins)


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: the selected token, its loops, and how its path ends."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if absent:
        return absent
    if at is None:
        return unread(len(trace), focus, words["no_data"])
    seen, frame = RUNNING.over(trace, focus.block), trace.frames[at]
    block = frame["blocks"][focus.block]
    if block["states"] is None:
        return skipped(block, focus) or words["not_recorded"]
    if seen.basis is None:
        return words["fitting"]
    route = route_of(trace.meta, focus.block, frame, seen.basis)
    assert route is not None  # the states are there
    share = sum(seen.basis.shares[: focus.dims]) if seen.basis.shares else None
    shown = labels.fill(
        words["summary"],
        token=labels.token_label(frame, focus.lang),
        block=labels.block_label(trace.meta["blocks"][focus.block], focus.block, focus.lang),
        steps=block["n_steps"],
        why=labels.stop_label(block["stop_reason"], focus.lang),
        share=labels.COMMON[focus.lang]["undefined"] if share is None else f"{100 * share:.1f} %",
        **_ends(route.ending, focus.lang),
    )
    return labels.plain(shown)
