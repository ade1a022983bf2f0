"""Cost: where a pass spends its time, by part and by loop step, how fast the run is, and how much memory it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, append, fill
from loopviz.panels.kit import follower, parts
from loopviz.panels.kit.running import Running
from loopviz.trace.pace import Pace, Sharing
from loopviz.trace.schema import PARTS

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "cost"
GROUP = "cost"
ORDER = 90
CODE: tuple[str, ...] = (
    "loopviz.engine.usage:PassClock",
    "loopviz.engine.usage:MemoryMeter",
    "loopviz.trace.pace:Pace",
    "loopviz.trace.pace:Sharing",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ()
HEIGHT = 640

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Where does the time go?",
        "question": "How long does a pass take, in which part and which loop step, and what does the run need?",
        "how": "A pass is one run of the model over the tokens it reads at once: the whole prompt in the first pass, then "
        "one token a pass. All times are of a pass, not of a token; the prompt's pass is long because it reads many "
        "tokens. First picture: its parts, for the selected token's pass and on average over the passes of generated "
        "tokens: layers before the loop (prelude), all loop steps and layers between loops (block), layers after it (coda), the "
        "head that turns the state into words and the choice of the token, and what LoopViz does to record it. Then: the time "
        "of every loop step of the block shown, for the selected pass and on average over the passes that ran the step. Then: "
        "the speed at every generated token, and how much more memory there is after every pass than after the first.",
        "formula": r"\text{tokens/s}=\frac{1000\cdot\text{generated tokens read}}"
        r"{\text{clock after the last}-\text{clock after the prompt's pass}},\qquad "
        r"\text{passes/s in the model}=\frac{1000\cdot\text{generated passes}}{\sum\text{pass ms}}",
        "units": "Milliseconds of wall time. Tokens a second by the clock: all that goes on from the prompt's pass to the last "
        "token counts, as in the line under the text and in the command line's table (wall_ms in a trace). Passes a second in "
        "the model alone: its forward pass and its head (pass_ms), without recording, choosing the token and drawing, so that "
        "this is what the model could do if nobody watched. Runs of one model at the same time share passes: such a pass's times are of "
        "all that they did in it together, and both speeds are this run's alone, while it shared. Memory: MB, decimal (1 MB = 1,000,000 bytes).",
        "source": "Clocks around the parts of every pass in this run; on a GPU work counts where it is waited for. Process "
        "memory is the resident memory of the whole server process, all its models and runs; GPU memory is what is allocated "
        "on the model's device.",
        "cost": "Nothing beyond what every run records: a few clock readings a pass.",
        "no_data": "Nothing read yet: times appear with the first pass",
        "ms": "ms of a pass",
        "pass": "pass",
        "step": "loop step r",
        "step_ms": "ms of a step",
        "position": "token position",
        "speed": "tokens/s",
        "memory": "MB more",
        "row_selected": "selected",
        "row_mean": "mean",
        "prelude": "prelude",
        "block": "block",
        "coda": "coda",
        "head_part": "head",
        "recording": "recording",
        "steps_selected": "selected",
        "steps_mean": "mean",
        "process": "process memory",
        "device": "GPU memory",
        "hover_part": "{part}: %{{x}} ms<br>%{{y}}",
        "hover_steps_selected": "selected pass<br>step r = %{x}: %{y} ms",
        "hover_steps_mean": "mean of generated passes<br>step r = %{x}: %{y} ms",
        "hover_speed": "token %{x}: %{y} tokens/s by the clock%{text}",
        "hover_shared": ", in a pass of {runs} runs",
        "hover_process": "after token %{x}<br>process memory %{y} MB more than after the first pass",
        "hover_device": "after token %{x}<br>GPU memory %{y} MB more than after the first pass",
        "no_steps": "no step times in this pass",
        "rate": "{rate} tokens/s by the clock over {count} generated tokens",
        "rate_one": "{rate} tokens/s by the clock over one generated token",
        "model": "{rate} passes/s in the model alone",
        "shared": "passes shared by {runs} runs on average",
        "no_rate": "no generated token has been timed yet",
        "took": "{token}: pass of {ms} ms",
        "took_shared": "{token}: pass of {ms} ms, shared by {runs} runs",
        "took_many": "{token}: pass of {count} tokens, {ms} ms",
        "held": "{process} MB in the process",
        "held_gpu": "{process} MB in the process, {device} MB on the GPU",
        "summary": "{rate}. {took}; most of it in: {part}. Memory: {held}.",
    },
    "zh": {
        "title": "时间花在哪里？",
        "question": "一次前向需要多久，花在哪个部分、哪个循环步？整个运行需要多少资源？",
        "how": "一次前向是模型对一次读入的词元运行一遍：第一次读入整个提示词，之后每次一个词元。所有时间都按一次前向计，不是按词元；"
        "提示词的前向较长，因为它读入许多词元。第一幅图：各部分的时间，分别是所选词元的那次前向，以及生成词元各次前向的平均："
        "循环之前的层（前段）、所有循环步与循环之间的层（循环块）、之后的层（后段）、把状态变成词的输出头以及选取词元，还有 LoopViz 自己的记录工作。"
        "接着：所示块每个循环步的时间，所选前向的，以及运行过该步的各次前向的平均。然后：每个生成词元处的速度，以及每次前向之后比第一次前向之后多用的内存。",
        "formula": r"\text{tokens/s}=\frac{1000\cdot\text{generated tokens read}}"
        r"{\text{clock after the last}-\text{clock after the prompt's pass}},\qquad "
        r"\text{passes/s in the model}=\frac{1000\cdot\text{generated passes}}{\sum\text{pass ms}}",
        "units": "毫秒（实际经过的时间）。按时钟的每秒词元数：从提示词的前向到最后一个词元之间的一切都计入，与文字下方的一行和命令行的表相同（轨迹中的 wall_ms）。"
        "仅模型的每秒前向次数：前向与输出头的时间（pass_ms），不含记录、选取词元与绘图，即无人观看时模型所能达到的。同一模型同时进行的运行共用前向：这样一次前向的时间是其中所有运行共同所用，两种速度则是本次运行自己在共用期间的。内存：MB，十进制（1 MB = 1,000,000 字节）。",
        "source": "本次运行中每次前向各部分的计时；在 GPU 上，工作算在等待它完成的地方。进程内存是整个服务器进程的常驻内存，"
        "包括其中所有模型与运行；GPU 内存是模型所在设备上已分配的内存。",
        "cost": "除每次运行都记录的内容外没有额外开销：每次前向读几次时钟。",
        "no_data": "尚未读入词元：第一次前向之后出现时间",
        "ms": "一次前向的毫秒数",
        "pass": "前向",
        "step": "循环步 r",
        "step_ms": "每步毫秒",
        "position": "词元位置",
        "speed": "词元/秒",
        "memory": "多用 MB",
        "row_selected": "所选",
        "row_mean": "平均",
        "prelude": "前段",
        "block": "循环块",
        "coda": "后段",
        "head_part": "输出头",
        "recording": "记录",
        "steps_selected": "所选",
        "steps_mean": "平均",
        "process": "进程内存",
        "device": "GPU 内存",
        "hover_part": "{part}：%{{x}} 毫秒<br>%{{y}}",
        "hover_steps_selected": "所选前向<br>第 %{x} 步：%{y} 毫秒",
        "hover_steps_mean": "生成词元各次前向的平均<br>第 %{x} 步：%{y} 毫秒",
        "hover_speed": "词元 %{x}：按时钟 %{y} 词元/秒%{text}",
        "hover_shared": "，该前向由 {runs} 个运行共用",
        "hover_process": "词元 %{x} 之后<br>进程内存比第一次前向之后多 %{y} MB",
        "hover_device": "词元 %{x} 之后<br>GPU 内存比第一次前向之后多 %{y} MB",
        "no_steps": "这次前向没有各步的时间",
        "rate": "{count} 个生成词元，按时钟 {rate} 词元/秒",
        "rate_one": "一个生成词元，按时钟 {rate} 词元/秒",
        "model": "仅模型每秒 {rate} 次前向",
        "shared": "前向平均由 {runs} 个运行共用",
        "no_rate": "尚无生成词元的用时",
        "took": "{token}：前向 {ms} 毫秒",
        "took_shared": "{token}：前向 {ms} 毫秒，由 {runs} 个运行共用",
        "took_many": "{token}：{count} 个词元的前向 {ms} 毫秒",
        "held": "进程占 {process} MB",
        "held_gpu": "进程占 {process} MB，GPU 占 {device} MB",
        "summary": "{rate}。{took}；其中最多的是：{part}。内存：{held}。",
    },
}

PART = {part: i for i, part in enumerate(PARTS)}  # traces
STEPS_SELECTED, STEPS_MEAN, SPEED, PROCESS, DEVICE = range(len(PARTS), len(PARTS) + 5)
HERE = (0, 1)  # shapes at the selected token: across speed, across memory
MISSING, NO_STEPS = 0, 1  # annotations
_HATCH = {"recording": "/"}
_FOLLOWER = follower.Follower()
Frame = Mapping[str, Any]


# --- sums over the run

NO_PACE = Pace()
ALONE = Sharing()


@dataclass(frozen=True)
class Mean:
    """A mean that can grow; undefined numbers are left out."""

    total: float = 0.0
    count: int = 0

    def plus(self, value: float | None) -> Mean:
        """With one more value."""
        return self if value is None else Mean(self.total + value, self.count + 1)

    @property
    def value(self) -> float | None:
        """None without any value."""
        return self.total / self.count if self.count else None


@dataclass(frozen=True)
class Spent:
    """What the complete passes of generated tokens took so far, milliseconds.

    Args:
        until: position after the pass the last frame belongs to.
        pace: tokens a second by the clock.
        passes: those whose time is known; ``ms`` is their time in the model.
        parts: by part; steps: by loop step of the block.
        gpu: some frame knew of GPU memory.
        sharing: how many runs shared the passes.
    """

    until: int = 0
    pace: Pace = NO_PACE
    passes: int = 0
    ms: float = 0.0
    parts: tuple[Mean, ...] = (Mean(),) * len(PARTS)
    steps: tuple[Mean, ...] = ()
    gpu: bool = False
    sharing: Sharing = ALONE


def _spend(spent: Spent, meta: Mapping[str, Any], block: int, frame: Frame) -> Spent:
    index, count, ms = frame["index"], frame["pass_tokens"], frame["pass_ms"]
    until = spent.until if index < spent.until else index + count
    gpu = spent.gpu or frame["memory"]["device"] is not None
    pace = spent.pace.plus(frame)
    if frame["phase"] != "generated" or index + 1 < until:
        return replace(spent, until=until, pace=pace, gpu=gpu)
    taken = _steps(frame, block)
    steps = spent.steps + (Mean(),) * (len(taken) - len(spent.steps))
    return Spent(
        until,
        pace,
        spent.passes + (ms is not None),
        spent.ms + (ms or 0),
        tuple(mean.plus(frame["parts"][part]) for mean, part in zip(spent.parts, PARTS, strict=True)),
        tuple(mean.plus(taken[r] if r < len(taken) else None) for r, mean in enumerate(steps)),
        gpu,
        spent.sharing.plus(frame),
    )


RUNNING: Running[Spent] = Running(lambda meta, block: Spent(), _spend)


def _steps(frame: Frame, block: int) -> list[float | None]:
    """The time of every loop step of ``block`` in the pass of ``frame``; none when not recorded, or no such block."""
    return frame["blocks"][block]["steps"]["ms"] if block < len(frame["blocks"]) else []


def _whole(frames: Sequence[Frame], at: int) -> Frame:
    """The last frame of the pass that read token ``at``: a pass recorded in chunks is complete in that one."""
    count = frames[at]["pass_tokens"]
    if count == 1:
        return frames[at]
    first = 0
    while first + frames[first]["pass_tokens"] <= at:
        first += frames[first]["pass_tokens"]
    return frames[min(first + count, len(frames)) - 1]


# --- parts of the figure, by path


def _number(value: float | None, lang: str) -> str:
    """Three digits, or all of a whole number's."""
    return f"{value:,.0f}" if value is not None and value >= 1000 else labels.number(value, lang)


def _rate(spent: Spent, lang: str) -> str:
    """Both rates that are known, by their names, and with how many others the passes were shared."""
    words, told = TEXTS[lang], []
    if spent.pace.rate is not None:
        key = "rate_one" if spent.pace.tokens == 1 else "rate"
        told.append(words[key].format(rate=_number(spent.pace.rate, lang), count=spent.pace.tokens))
    if spent.ms:
        told.append(words["model"].format(rate=_number(1000 * spent.passes / spent.ms, lang)))
    if told and spent.sharing.shared:
        told.append(words["shared"].format(runs=_number(spent.sharing.mean, lang)))
    return " · ".join(told) or words["no_rate"]


def _took(frame: Frame, whole: Frame, lang: str) -> str:
    runs = frame["pass_runs"] or 1
    words = TEXTS[lang]["took_many" if frame["pass_tokens"] > 1 else "took_shared" if runs > 1 else "took"]
    token = labels.token_label(frame, lang, width=12)
    return words.format(token=token, count=frame["pass_tokens"], ms=_number(_total(whole), lang), runs=runs)


def _total(frame: Frame) -> float | None:
    """All parts of a pass together, milliseconds; None when none is known."""
    known = [ms for ms in frame["parts"].values() if ms is not None]
    return sum(known) if known else None


def _more(frame: Frame, first: Frame, kind: str) -> float | None:
    """Megabytes of memory beyond those after the run's first pass."""
    now, then = frame["memory"][kind], first["memory"][kind]
    return None if now is None or then is None else round((now - then) / 1e6, 1) + 0.0  # no -0.0


def _speed(frame: Frame, before: Frame | None) -> float | None:
    """Tokens a second from the frame before to this one, by the clock; None for the prompt's."""
    if before is None or frame["phase"] != "generated":
        return None
    return labels.sig(Pace().plus({**before, "phase": "prompt"}).plus(frame).rate, 3)


def _held(frame: Frame, lang: str) -> str:
    memory = frame["memory"]
    words = TEXTS[lang]["held" if memory["device"] is None else "held_gpu"]
    sizes = {name: "" if memory[name] is None else f"{memory[name] / 1e6:,.0f}" for name in ("process", "device")}
    return words.format(**sizes)


def _shown(meta: Mapping[str, Any], spent: Spent, frames: Sequence[Frame], focus: Focus) -> dict[Path, Any]:
    """All but the lines over the tokens."""
    lang, at = focus.lang, focus.selected(len(frames))
    words = TEXTS[lang]
    whole = None if at is None else _whole(frames, at)
    missing, no_steps, head = "", "", _rate(spent, lang)
    if at is None or whole is None:
        missing = follower.unread(len(frames), focus, words["no_data"])
    else:
        head = f"{head}<br>{_took(frames[at], whole, lang)}<br>{_held(frames[at], lang)}"
    steps = [] if whole is None else [labels.sig(ms, 3) for ms in _steps(whole, focus.block)]
    if whole is not None and not steps:
        no_steps = labels.missing_block(meta, focus.block, lang) or words["no_steps"]
    out: dict[Path, Any] = {
        ("layout", "title", "text"): head if frames else " ",
        **parts.notice(missing, MISSING),
        **parts.notice(no_steps, NO_STEPS),
        ("data", STEPS_SELECTED, "y"): steps,
        ("data", STEPS_MEAN, "y"): [labels.sig(mean.value, 3) for mean in spent.steps],
        ("data", PROCESS, "showlegend"): spent.gpu,
        ("data", DEVICE, "showlegend"): spent.gpu,
    }
    for part, mean in zip(PARTS, spent.parts, strict=True):
        selected = None if whole is None else whole["parts"][part]
        out["data", PART[part], "x"] = [labels.sig(mean.value, 3), labels.sig(selected, 3)]
    for shape in HERE:
        out["layout", "shapes", shape, "x0"] = out["layout", "shapes", shape, "x1"] = -1 if at is None else at
        out["layout", "shapes", shape, "visible"] = at is not None
    return out


def _points(first: Frame, before: Frame | None, frame: Frame, lang: str) -> dict[Path, Any]:
    """One token's points of the lines over the tokens; ``first`` is the run's, ``before`` the one before it, if any."""
    runs = frame["pass_runs"] or 1
    return {
        ("data", SPEED, "y"): _speed(frame, before),
        ("data", SPEED, "text"): TEXTS[lang]["hover_shared"].format(runs=runs) if runs > 1 else "",
        ("data", PROCESS, "y"): _more(frame, first, "process"),
        ("data", DEVICE, "y"): _more(frame, first, "device"),
    }


def _data(lang: str) -> list[dict[str, Any]]:
    words = TEXTS[lang]
    parts = [
        {
            "type": "bar",
            "orientation": "h",
            "name": words["head_part" if part == "head" else part],
            "x": [None, None],
            "y": [words["row_mean"], words["row_selected"]],
            "texttemplate": words["head_part" if part == "head" else part] + " %{x}",
            "textposition": "inside",
            "insidetextanchor": "middle",
            "insidetextfont": {"color": theme.on(theme.COLOURS[f"part_{part}"])},
            "textangle": 0,
            "marker": {
                "color": theme.COLOURS[f"part_{part}"],
                "line": {"color": theme.MARK_EDGE, "width": 0.5},
                "pattern": {
                    "shape": _HATCH.get(part, ""),
                    "solidity": 0.15,
                    "fillmode": "overlay",
                    "fgcolor": theme.off(theme.COLOURS[f"part_{part}"]),  # words stand on it
                },
            },
            "hovertemplate": words["hover_part"].format(part=words["head_part" if part == "head" else part])
            + "<extra></extra>",
            "meta": {"select": {}},
        }
        for part in PARTS
    ]
    lines = [
        ("steps_selected", 2, theme.SELECTED, "solid", {"x0": 1, "dx": 1, "mode": "lines+markers"}),
        ("steps_mean", 2, theme.INK, "dot", {"x0": 1, "dx": 1, "mode": "lines+markers"}),
        ("speed", 3, theme.INK, "solid", {"x0": 0, "dx": 1, "mode": "lines", "showlegend": False, "text": []}),
        ("process", 4, theme.INK, "solid", {"x0": 0, "dx": 1, "mode": "lines", "showlegend": False}),
        ("device", 4, theme.INK, "dash", {"x0": 0, "dx": 1, "mode": "lines", "showlegend": False}),
    ]
    return [
        *parts,
        *(
            {
                "type": "scatter",
                "xaxis": f"x{min(axis, 3)}",
                "yaxis": f"y{axis}",
                "name": words[name],
                "y": [],
                "line": {"color": colour, "width": 2, "dash": dash},
                "hovertemplate": words[f"hover_{name}"] + "<extra></extra>",
                "meta": {"select": {"step": "x"} if axis == 2 else {"token": "x"}},
                **more,
            }
            for name, axis, colour, dash, more in lines
        ),
    ]


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token."""
    words = TEXTS[focus.lang]
    blocks = meta["blocks"]
    most = blocks[focus.block]["room"] if focus.block < len(blocks) else 1
    across = {"type": "line", "y0": 0, "y1": 1, "x0": -1, "x1": -1, "visible": False}
    across["line"] = {"color": theme.SELECTED, "width": 1.5}
    layout: dict[str, Any] = {
        "template": theme.template(),
        "height": HEIGHT,
        "margin": {"l": 56, "r": 12, "t": 78, "b": 10},
        "title": {"text": " ", "y": 1 - 20 / HEIGHT},
        "annotations": [
            labels.message(words["no_data"]),
            labels.message("") | {"xref": "x2 domain", "yref": "y2 domain", "font": {"size": 12}},
        ],
        "barmode": "stack",
        "bargap": 0.25,
        "uniformtext": {"mode": "hide", "minsize": 9},
        "xaxis": {"anchor": "y", "title": {"text": words["ms"]}, "rangemode": "tozero", "nticks": 6},
        "yaxis": {
            "anchor": "x",
            "domain": [0.84, 1],
            "type": "category",
            "title": {"text": words["pass"]},
            "categoryarray": [words["row_mean"], words["row_selected"]],
            "showgrid": False,
        },
        "xaxis2": {
            "anchor": "y2",
            "title": {"text": words["step"]},
            "range": [0.5, most + 0.5],
            "tick0": 1,
            "dtick": -(-most // 12),
        },
        "yaxis2": {
            "anchor": "x2",
            "domain": [0.51, 0.7],
            "title": {"text": words["step_ms"]},
            "rangemode": "tozero",
            "nticks": 4,
        },
        "xaxis3": {"anchor": "y4", "title": {"text": words["position"]}},
        "yaxis3": {
            "anchor": "x3",
            "domain": [0.21, 0.37],
            "title": {"text": words["speed"]},
            "rangemode": "tozero",
            "nticks": 4,
        },
        "yaxis4": {
            "anchor": "x3",
            "domain": [0, 0.16],
            "title": {"text": words["memory"]},
            "rangemode": "tozero",
            "nticks": 4,
        },
        "shapes": [{**across, "xref": "x3", "yref": f"y{axis} domain"} for axis in (3, 4)],
        "showlegend": True,
        "legend": {"y": -0.1, "yanchor": "top", "x": 0, "traceorder": "normal"},
        "meta": follower.asks(meta, focus, {"token": "x"}),
    }
    return {"data": _data(focus.lang), "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: parts of a pass, loop steps, speed and memory over the tokens, from above."""
    frames, shown = trace.frames, _skeleton(follower.settled(trace, focus), focus)
    for before, frame in zip([None, *frames], frames, strict=False):
        for path, value in _points(frames[0], before, frame, focus.lang).items():
            shown["data"][path[1]][path[2]].append(value)
    return fill(shown, _shown(trace.meta, RUNNING.over(trace, focus.block), frames, focus))


figure = follower.checked(data)


@follower.redrawn(data, layout_only=True)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: a point a line, the means, and the selected pass when it moves or grows."""
    had, spent = len(trace), RUNNING.around(trace, focus.block, frame)
    frames = (trace.frames, [*trace.frames, frame])

    def shown(count: int, _: Frame | None) -> dict[Path, Any]:
        return _shown(trace.meta, spent(count), frames[count - had], focus)

    first, before = (trace.frames[0], trace.frames[-1]) if had else (frame, None)
    ops = [append(path, [value]) for path, value in _points(first, before, frame, focus.lang).items()]
    return ops + _FOLLOWER.patch(trace, frame, focus, shown, always=True)


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: speed, the selected token's pass and its longest part, memory."""
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if at is None:
        return follower.unread(len(trace), focus, words["no_data"])
    frame, whole = trace.frames[at], _whole(trace.frames, at)
    known = {part: ms for part, ms in whole["parts"].items() if ms is not None}
    longest = max(known, key=lambda part: known[part]) if known else None
    part = words["head_part" if longest == "head" else longest] if longest else labels.COMMON[focus.lang]["undefined"]
    shown = labels.fill(
        words["summary"],
        rate=_rate(RUNNING.over(trace, focus.block), focus.lang),
        took=_took(frame, whole, focus.lang),
        part=part,
        held=_held(frame, focus.lang),
    )
    return labels.plain(shown)
