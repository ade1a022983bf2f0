"""State trajectory: where the state of a token goes, loop step by loop step, seen along the run's principal axes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, append, changes, fill, put, splice
from loopviz.panels.kit import around, parts, rest_distance, small_map, trajectories, view
from loopviz.panels.kit.follower import (
    Follower,
    asks,
    checked,
    choice,
    redrawn,
    settled,
    skipped,
    unread,
)
from loopviz.panels.kit.routes import RUNNING, Route, Seen, route_of

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "state_trajectory"
GROUP = "thinking"
ORDER = 15
CODE: tuple[str, ...] = (
    "loopviz.panels.kit.trajectories:fit",
    "loopviz.panels.kit.trajectories:ending",
    "loopviz.panels.kit.trajectories:to_last",
    "loopviz.trace.recording.recorder:Reading._packed",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ()
HEIGHT = 326
OTHERS = 64  # end points of other tokens on the small map
NEAR = 12  # paths of other tokens kept on screen
POINTS = 400  # and at most so many points of them, for blocks of many steps

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Where does the thought go?",
        "question": "Loop by loop, where does a token's state move, and does it come to rest?",
        "how": "A state is a long list of numbers; here it is a point. The pink path is the selected token: it starts at "
        "the open circle (s₀, what enters the block) and takes one stretch a loop step; the filled mark is its end, "
        "coloured by why it stopped. A number is the loop step after which the token was there (left out where there is no room "
        "for it). Dark grey paths are pinned tokens, faint ones up to 12 neighbours: those before the newest token, or those around "
        "a token you chose. The small map shows the whole: the end points of up to 64 tokens, and framed in it the part that is "
        "drawn large. Beside it: how far each state still was from the last one, as part of its length, on a log axis; a "
        "straight fall is a path that comes to rest at a steady rate (where it never rests, the last state is only where it was "
        "stopped). Only the direction of a state is drawn (it is scaled to "
        "length 1, as the norms before every layer and before the head do). The axes are the directions along which the "
        "first tokens' states differ most (principal components); they are fitted once, on the states s₀…s_N of the "
        "prompt's tokens (every k-th token if that is more than 256 states; generated tokens join in until there are 12 "
        "states), and then stay; each axis has its own scale, and the view is fitted to the selected and the pinned paths (what of "
        "other paths lies beyond it is left out). How a path ends is judged in all "
        "dimensions and with lengths, not in the picture. δ_r is the length of step r and q the larger of the last two "
        "ratios δ_N/δ_{N−1}, δ_{N−1}/δ_{N−2}. Fixed point: the last step is at most 0.001 of the state's length, or q < 1 "
        "and all steps still to come, each q times the one before, would add up to at most 0.05 of it. Settling: q ≤ 0.8, "
        "but not there yet. Orbit: the last two states are back, within half a mean step, where they were p ≥ 2 steps "
        "earlier; with several slots read in turn (V ≥ 2, serial) loops that read different slots may go round like that for "
        "ever, each true to its own notes. Drift: none of these. Below 4 steps it is too early to tell.",
        "formula": r"x_r=\Big(\tfrac{s_r}{\lVert s_r\rVert}-\mu\Big)U^{\top},\quad \delta_r=\lVert s_r-s_{r-1}\rVert,\quad "
        r"q=\max\Big(\tfrac{\delta_N}{\delta_{N-1}},\tfrac{\delta_{N-1}}{\delta_{N-2}}\Big),\quad "
        r"\text{fixed: } \delta_N\le 0.001\,\lVert s_N\rVert \ \text{ or }\ \tfrac{q}{1-q}\,\delta_N\le 0.05\,\lVert s_N\rVert,\quad "
        r"\frac{\lVert s_r-s_N\rVert}{\lVert s_N\rVert}",
        "units": "No units: coordinates of states scaled to length 1, and a distance as part of a length. The percentage at an axis is its share of the "
        "variance of the states it was fitted on.",
        "source": "Loop states recorded in this run as float16; projected on the server, where the states stay. μ is the "
        "mean of the directions the axes were fitted on and U their first principal components, each turned so that its "
        "largest entry is positive. A float16 is rounded to 0.0005 of itself: distances below the dotted line are rounding.",
        "cost": "Recording keeps every loop state of every token in memory (2 bytes a number); the page receives only two "
        "or three numbers a state.",
        "no_data": "Nothing read yet: the path appears with the first tokens",
        "fitting": "The axes are not fitted yet: they wait for the whole prompt and at least 12 states",
        "not_recorded": "This token's loop states were not recorded",
        "axis_1": "component 1",
        "axis_2": "component 2",
        "axis_3": "component 3",
        "share": "{axis} ({percent} %)",
        "whole": "the whole run",
        "others": "other ends",
        "near": "neighbours",
        "pinned": "pinned",
        "selected": "selected",
        "starts": "start",
        "ends": "end",
        "dims": "Dimensions",
        "dims_2": "2-D",
        "dims_3": "3-D",
        "hover_others": "%{text}<br>end of its path",
        "hover_pinned": "pinned token %{text}",
        "hover_selected": "loop step r, ‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r</sub>‖<br>%{customdata}",
        "step": "loop step r",
        "rest": "‖s<sub>r</sub>−s<sub>N</sub>‖ / ‖s<sub>N</sub>‖",
        "hover_rest": "after step %{x}, from where it ended:<br>‖s<sub>r</sub> − s<sub>N</sub>‖ / ‖s<sub>N</sub>‖ = %{y}",
        "hover_rests": "pinned, after step %{x}, from where it ended:<br>‖s<sub>r</sub> − s<sub>N</sub>‖ / ‖s<sub>N</sub>‖ = %{y}",
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
        "实心标记是终点，颜色表示停止原因。数字表示经过几步之后到达该处（放不下时省略）。深灰色路径是固定显示的词元，浅灰色路径是至多 12 个相邻词元：最新词元之前的，或所选词元前后的。"
        "小图是全貌：最多 64 个词元的终点，方框是放大画出的部分。旁边一图：每个状态离最后一个状态还有多远（占其长度的比例，对数坐标）；直线下降表示以固定的比例停下来"
        "（若始终没有停下来，最后一个状态只是它被停止的地方）。"
        "图中只画状态的方向（缩放到长度 1，正如每层之前和输出头之前的归一化所做的）。坐标轴是最先读入的词元的状态差异最大的方向（主成分）；"
        "只拟合一次，用提示词各词元的状态 s₀…s_N（若超过 256 个状态则每隔 k 个词元取一个；不足 12 个状态时再加入生成的词元），"
        "之后保持不变；各轴有各自的比例，视野随所选和固定的路径调整（其他路径在视野之外的部分不画出）。路径如何结束是在全部维度中、连同长度一起判断的，不是看图判断。"
        "δ_r 是第 r 步的长度，q 是最后两个比值 δ_N/δ_{N−1}、δ_{N−1}/δ_{N−2} 中较大的一个。不动点：最后一步不超过状态长度的 0.001，"
        "或者 q < 1 且此后各步（每步为前一步的 q 倍）加起来不超过其 0.05。趋稳：q ≤ 0.8，但尚未到达。"
        "轨道：最后两个状态都回到了 p ≥ 2 步之前的位置（相差不超过平均步长的一半）；若轮流读取几个槽位（V ≥ 2，串行），读取不同槽位的循环可能就这样一直绕下去，各自忠于自己的笔记。漂移：以上都不是。少于 4 步时无法判断。",
        "formula": r"x_r=\Big(\tfrac{s_r}{\lVert s_r\rVert}-\mu\Big)U^{\top},\quad \delta_r=\lVert s_r-s_{r-1}\rVert,\quad "
        r"q=\max\Big(\tfrac{\delta_N}{\delta_{N-1}},\tfrac{\delta_{N-1}}{\delta_{N-2}}\Big),\quad "
        r"\text{fixed: } \delta_N\le 0.001\,\lVert s_N\rVert \ \text{ or }\ \tfrac{q}{1-q}\,\delta_N\le 0.05\,\lVert s_N\rVert,\quad "
        r"\frac{\lVert s_r-s_N\rVert}{\lVert s_N\rVert}",
        "units": "无单位：缩放到长度 1 的状态的坐标，以及占长度比例的距离。轴上的百分比是该轴在拟合所用状态的方差中所占的比例。",
        "source": "本次运行中以 float16 记录的循环状态；在服务器上投影，状态本身不发送。μ 是拟合所用方向的均值，U 是其前几个主成分，各轴的正向取为绝对值最大的分量为正。float16 会舍入到自身的 0.0005：点线以下的距离只是舍入误差。",
        "cost": "记录时，每个词元的每个循环状态都保留在内存中（每个数 2 字节）；页面只收到每个状态的两三个数。",
        "no_data": "尚未读入词元：读入最初的词元后路径出现",
        "fitting": "坐标轴尚未拟合：需要读完提示词，并至少有 12 个状态",
        "not_recorded": "没有记录该词元的循环状态",
        "axis_1": "成分 1",
        "axis_2": "成分 2",
        "axis_3": "成分 3",
        "share": "{axis}（{percent} %）",
        "whole": "全貌",
        "others": "其他终点",
        "near": "相邻词元",
        "pinned": "固定",
        "selected": "所选",
        "starts": "起点",
        "ends": "终点",
        "dims": "维数",
        "dims_2": "二维",
        "dims_3": "三维",
        "hover_others": "%{text}<br>路径的终点",
        "hover_pinned": "固定显示的词元 %{text}",
        "hover_selected": "循环步 r，‖s<sub>r</sub> − s<sub>r−1</sub>‖ / ‖s<sub>r</sub>‖<br>%{customdata}",
        "step": "循环步 r",
        "rest": "‖s<sub>r</sub>−s<sub>N</sub>‖ / ‖s<sub>N</sub>‖",
        "hover_rest": "第 %{x} 步之后，离它结束的地方：<br>‖s<sub>r</sub> − s<sub>N</sub>‖ / ‖s<sub>N</sub>‖ = %{y}",
        "hover_rests": "固定显示的词元，第 %{x} 步之后，离它结束的地方：<br>‖s<sub>r</sub> − s<sub>N</sub>‖ / ‖s<sub>N</sub>‖ = %{y}",
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

# Traces: other tokens' ends on the small map, and the selected path there; neighbours' paths, pinned ones, the selected one, the
# marks at both ends of each; and how far from where they ended the selected and the pinned tokens are.
REST, MAPPED, NEIGHBOURS, PINNED, CHOSEN, STARTS, ENDS, AWAY, AWAY_PINNED = range(9)
_PATHS = dict(
    zip(range(NEIGHBOURS, AWAY), ("near", "pinned", "selected", "starts", "ends"), strict=True)
)  # in 2-D or in space
SYMBOLS_3D = {**theme.STOP_SYMBOLS, "max": "cross", "other": "x"}  # plotly draws fewer symbols in 3-D
_SIZES: dict[int, dict[str, float]] = {  # px of marks; perspective makes those in space look larger
    2: {"near": 3, "pinned": 4, "selected": 6, "starts": 11, "ends": 11},
    3: {"near": 2, "pinned": 2.5, "selected": 4, "starts": 7, "ends": 7},
}
_VIEW = {"eye": {"x": 1.55, "y": 1.55, "z": 0.85}, "center": {"x": 0, "y": 0, "z": -0.12}}  # all titles are inside
_NOWHERE: tuple[list[float], ...] = ([],) * trajectories.AXES
_FOLLOWER = Follower()
Frame = Mapping[str, Any]
LARGE, SIDE = (0, 0.58), (0.76, 1)  # of the figure's width: the paths, and what is beside them
DISTANCE, MAP = (0.52, 1), (0, 0.26)  # of its height: the distance, and the small map below it


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


def _steps(route: Route, shown: view.View, taken: Sequence[view.Box]) -> list[str]:
    """The names of a path's points, "" where there is no room for one; its two ends have marks of their own."""
    last = len(route.points) - 1
    names = ["" if r in (0, last) else str(r) for r in range(last + 1)]
    free = view.apart(view.shares(shown, route.points.tolist()), names, taken)
    return [name if one else "" for name, one in zip(names, free, strict=True)]


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
        ("data", CHOSEN, "customdata"): list(_hops(route, focus.lang)) if route else [],
        ("data", CHOSEN, "marker", "size"): sizes if focus.step else small,
        **_points(MAPPED, route.drawn if route else _NOWHERE, 2),
        ("data", AWAY, "y"): rest_distance.drawn(route) if route else [],
    }


def _marks(
    meta: Mapping[str, Any], seen: Seen, frames: Sequence[Frame], shown: view.View, focus: Focus
) -> dict[Path, Any]:
    """The pinned paths, the marks at both ends of every path shown whole, and the numbers on the selected one."""
    at, whole_ones = focus.selected(len(frames)), _routes(meta, seen, frames, focus)
    pinned, texts, names, kinds, ends = [], [], [], [], []
    for frame, route in whole_ones:
        name = _name(frame)
        if frame["index"] != at:
            pinned.append(route)
            texts += [*(f"{name} · {hop}" for hop in _hops(route, focus.lang)), ""]
        names.append(name)
        kinds.append(theme.stop_kind(frame["blocks"][focus.block]["stop_reason"]))
        ends.append(_ends(route.ending, focus.lang)["kind"])
    routes, symbols = [route for _, route in whole_ones], theme.STOP_SYMBOLS if focus.dims == 2 else SYMBOLS_3D
    both = [view.shares(shown, route.points.tolist()) for route in routes]
    steps, away = rest_distance.joined(pinned)
    places = view.beside(both, names)
    numbered = bool(whole_ones) and whole_ones[0][0]["index"] == at
    return {
        ("data", CHOSEN, "text"): _steps(routes[0], shown, view.boxes(both, names, places)) if numbered else [],
        **_points(PINNED, _joined(pinned, slice(None), gap=True), focus.dims),
        ("data", PINNED, "text"): texts,
        **_points(STARTS, _joined(routes, slice(1)), focus.dims),
        ("data", STARTS, "text"): names,
        **_points(ENDS, _joined(routes, slice(-1, None)), focus.dims),
        ("data", ENDS, "text"): names,
        ("data", ENDS, "customdata"): ends,
        ("data", ENDS, "textposition"): places,
        ("data", ENDS, "marker", "color"): [theme.COLOURS[f"stop_{kind}"] for kind in kinds],
        ("data", ENDS, "marker", "symbol"): [symbols[kind] for kind in kinds],
        ("data", AWAY_PINNED, "x"): steps,
        ("data", AWAY_PINNED, "y"): away,
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


def _rest(meta: Mapping[str, Any], seen: Seen, shown: Sequence[Frame], focus: Focus) -> dict[Path, Any]:
    """The end points of ``shown``, other tokens than the selected one. A token without states leaves a gap."""
    basis = seen.basis
    shown = [] if basis is None else shown
    routes = [] if basis is None else [route_of(meta, focus.block, frame, basis) for frame in shown]
    return {
        **_points(REST, _joined(routes, slice(-1, None)), 2),
        ("data", REST, "text"): [_name(frame) for frame in shown],
    }


def _others(frames: Sequence[Frame], focus: Focus) -> list[Frame]:
    """Whose end points are shown.

    Following the newest, a token takes the place of the one ``OTHERS`` before it, so that one edit is enough.
    """
    found = around.others(frames, focus, OTHERS)
    full = focus.token is None and len(frames) - 1 > OTHERS
    return sorted(found, key=lambda frame: frame["index"] % OTHERS) if full else found


def near_paths(steps: int) -> int:
    """How many neighbours' paths are drawn where a path has room for so many steps."""
    return max(1, min(NEAR, POINTS // (steps + 2)))


def _neighbour(
    meta: Mapping[str, Any], seen: Seen, frame: Frame, steps: int, focus: Focus
) -> dict[Path, list[float | None]]:
    """The path of one neighbour, by axis, padded to the room there is, with a gap after it."""
    route = None if seen.basis is None else route_of(meta, focus.block, frame, seen.basis)
    columns = _NOWHERE if route is None else route.drawn
    return {
        ("data", NEIGHBOURS, "xyz"[axis]): [*columns[axis], *[None] * (steps + 2 - len(columns[axis]))]
        for axis in range(focus.dims)
    }


def _near(meta: Mapping[str, Any], seen: Seen, frames: Sequence[Frame], focus: Focus) -> dict[Path, list[float | None]]:
    """The paths of all neighbours, by axis."""
    steps = meta["blocks"][focus.block]["room"]
    count = near_paths(steps)
    out: dict[Path, list[float | None]] = {
        ("data", NEIGHBOURS, "xyz"[axis]): [None] * (count * (steps + 2)) for axis in range(focus.dims)
    }
    for frame in around.others(frames, focus, count) if seen.basis is not None else []:
        start = around.place(frame["index"], focus, count) * (steps + 2)
        for path, values in _neighbour(meta, seen, frame, steps, focus).items():
            out[path][start : start + len(values)] = values
    return out


def _joins(meta: Mapping[str, Any], seen: Seen, frames: Sequence[Frame], frame: Frame, focus: Focus) -> list[Op]:
    """The edits that add one token to the others: an end point, and a path."""
    ops: list[Op] = []
    if (other := around.coming(frames, frame, focus, OTHERS)) is not None:
        values, at = _rest(meta, seen, [other], focus), other["index"]
        if focus.token is None and at >= OTHERS:
            ops += [put((*path, at % OTHERS), value[0]) for path, value in values.items()]
        else:
            ops += [append(path, value) for path, value in values.items()]
    steps = meta["blocks"][focus.block]["room"]
    count = near_paths(steps)
    if (other := around.coming(frames, frame, focus, count)) is not None:
        start = around.place(other["index"], focus, count) * (steps + 2)
        ops += [splice(path, start, values) for path, values in _neighbour(meta, seen, other, steps, focus).items()]
    return ops


def _axes(seen: Seen, shown: view.View, routes: Sequence[Route], focus: Focus) -> dict[Path, Any]:
    """The axes' titles and ranges, and what goes by them beside the paths."""
    words, out = TEXTS[focus.lang], dict[Path, Any]()
    place: Path = ("layout",) if focus.dims == 2 else ("layout", "scene")
    for i in range(focus.dims):
        axis, title = (*place, f"{'xyz'[i]}axis"), words[f"axis_{i + 1}"]
        if seen.basis is not None and seen.basis.shares:
            title = words["share"].format(axis=title, percent=f"{100 * seen.basis.shares[i]:.1f}")
        out[(*axis, "title", "text")] = title
        out[(*axis, "range")] = list(shown[i])
    return {**out, **small_map.framed(0, shown if routes else None), **rest_distance.reach(routes)}


def _data(focus: Focus) -> list[dict[str, Any]]:
    words, dims = TEXTS[focus.lang], focus.dims
    ink = {"color": theme.INK}
    looks: dict[int, dict[str, Any]] = {
        NEIGHBOURS: {"mode": "lines", "line": {"color": theme.FAINT, "width": 1.5}, "hoverinfo": "skip"},
        PINNED: {"mode": "lines+markers", "line": {**ink, "width": 1.5}, "marker": dict(ink)},
        CHOSEN: {
            "mode": "lines+markers+text",
            "customdata": [],
            "textposition": "top center",
            "textfont": {"size": 10},
            "line": {"color": theme.SELECTED, "width": 3},
            "marker": {"color": theme.SELECTED, "line": {"width": 0}},
        },
        STARTS: {"mode": "markers", "marker": {**ink, "symbol": "circle-open", "line": {"width": 2}}},
        ENDS: {
            "mode": "markers+text",
            "customdata": [],
            "textposition": [],
            "textfont": {"size": 11},
            "marker": {"color": [], "symbol": [], "line": {"color": theme.MARK_EDGE, "width": 1}},
        },
    }
    selects = {
        PINNED: {"token": "text"},
        CHOSEN: {"step": "customdata"},
        STARTS: {"token": "text"},
        ENDS: {"token": "text"},
    }
    paths = []
    for place, name in _PATHS.items():
        # beyond the view nothing of a neighbour is drawn; marks and names at its edge are whole
        flat = {"type": "scatter", "cliponaxis": place == NEIGHBOURS}
        one: dict[str, Any] = {**(flat if dims == 2 else {"type": "scatter3d"}), **looks[place], "name": words[name]}
        one |= {"xyz"[axis]: [] for axis in range(dims)}
        if place != NEIGHBOURS:
            one["marker"] = {**one["marker"], "size": _SIZES[dims][name]}
            one |= {
                "text": [],
                "hovertemplate": words[f"hover_{name}"] + "<extra></extra>",
                "meta": {"select": selects[place]},
            }
        paths.append(one)
    return [*small_map.traces(words), *paths, *rest_distance.traces(words)]


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    dims = choice(words["dims"], [(2, words["dims_2"]), (3, words["dims_3"])], focus.dims)
    margin = {"l": 52, "r": 16, "t": 56, "b": 10}
    layout, there = parts.block_layout(meta, focus, words, HEIGHT, margin, asks(meta, focus, {}, dims=dims))
    layout["title"]["y"] = 1 - 20 / HEIGHT
    if not there:
        return {"data": [], "layout": layout}
    layout |= rest_distance.axes(words, SIDE, DISTANCE) | small_map.axes(words, SIDE, MAP)
    layout["shapes"] = [small_map.frame(), rest_distance.rounding()]
    if focus.dims == 2:
        axis: dict[str, Any] = {"nticks": 5}
        layout |= {"xaxis": {**axis, "domain": list(LARGE), "title": {}}, "yaxis": {**axis, "title": {}}}
    else:
        axis = {"color": theme.INK, "gridcolor": theme.INK, "showbackground": False, "nticks": 4, "zeroline": False}
        axis |= {"tickfont": {"size": 10}, "showspikes": False, "showline": True, "linecolor": theme.INK}
        title = {"font": {"size": 11}}
        layout["scene"] = {f"{name}axis": {**axis, "title": dict(title)} for name in "xyz"}
        layout["scene"] |= {
            "aspectmode": "cube",
            "camera": copy.deepcopy(_VIEW),
            "domain": {"x": list(LARGE), "y": [0, 1]},
        }
    layout |= {"showlegend": True, "legend": {"y": -0.22, "yanchor": "top", "x": 0}}
    return {"data": _data(focus), "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: the paths of the selected and the pinned tokens on the run's principal axes, among their
    neighbours'; beside them how far each state is from the last, and the whole run small."""
    meta, frames = settled(trace, focus), trace.frames
    shown = _skeleton(meta, focus)
    if shown["data"]:
        seen = RUNNING.over(trace, focus.block)
        fill(shown, _rest(meta, seen, _others(frames, focus), focus))
        fill(shown, _near(meta, seen, frames, focus))
        fill(shown, _followed(meta, seen, frames, focus))
    return shown


figure = checked(data)


def _followed(meta: Mapping[str, Any], seen: Seen, frames: Sequence[Frame], focus: Focus) -> dict[Path, Any]:
    """All that depends on which token is selected, by path: paths, marks, words, and the view they fill."""
    routes = [route for _, route in _routes(meta, seen, frames, focus)]
    shown = view.fitted(np.concatenate([route.points for route in routes])) if routes else ((-1.0, 1.0),) * 3
    return {
        **_chosen(meta, seen, frames, focus),
        **_marks(meta, seen, frames, shown, focus),
        **_axes(seen, shown, routes, focus),
    }


@redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: its path when it is shown, an end point and a faint path when it is one of the others."""
    if labels.missing_block(trace.meta, focus.block, focus.lang):
        return []
    before, after = RUNNING.over(trace, focus.block), RUNNING.after(trace, focus.block, frame)
    meta, old, new = settled(trace, focus, frame), trace.frames, [*trace.frames, frame]
    fitted, ops = before.basis is not after.basis, list[Op]()
    if fitted:  # all that waited for the axes
        waited = _rest(meta, before, [], focus) | _near(meta, before, [], focus)
        ops += changes(waited, _rest(meta, after, _others(new, focus), focus) | _near(meta, after, new, focus))
    elif after.basis is not None:
        ops += _joins(meta, after, old, frame, focus)

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
