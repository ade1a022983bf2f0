"""What a comparison's table says and how it is drawn: columns in words, which way is better, the Pareto plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from loopviz.figures import theme
from loopviz.figures.labels import escape
from loopviz.lab.task import Column, column

if TYPE_CHECKING:
    import pandas as pd


COLUMNS: tuple[Column, ...] = (
    column("setup", "", "configuration: its name", "配置：其名称"),
    column(
        "swept",
        "loops",
        "sweep: loops that this row of a sweep runs; empty for what is none",
        "扫描：扫描中这一行的循环次数；不是扫描时为空",
    ),
    column("baseline", "", "baseline: the one the others are compared with", "基线：其他配置与之比较"),
    column(
        "loops_mean",
        "loops",
        "loops, mean: loop steps of the passes that chose the new tokens; 1 without a loop",
        "平均循环次数：选出新词元的各次前向的循环步数；不循环时为 1",
    ),
    column("loops_max", "loops", "loops, most: of any such pass", "最多循环次数：这些前向中的最大值"),
    column(
        "read_out_mean",
        "loops",
        "read out at, mean: loop step that an exit gate had the new tokens read out from (where all steps were, their mean by weight), "
        "summed over blocks as loops are; empty without a gate",
        "平均读出位置：出口门让新词元从哪个循环步读出（按权重读出全部步时为加权平均），与循环次数一样对各块求和；没有门时为空",
    ),
    column(
        "stops",
        "",
        "why it stopped: stop reasons, and how many passes each",
        "停止原因：各原因及其次数",
    ),
    column("new_tokens", "tokens", "new tokens: how many it chose", "新词元数：共选出多少个"),
    column(
        "finish",
        "",
        "text ended by: eos, length, context or stopped",
        "文本如何结束：模型自行结束、达到要求的长度、上下文已满，或被停止",
    ),
    column(
        "tokens_per_second",
        "1/s",
        "tokens a second: 1000 / ms a token",
        "每秒词元数：1000 / 每词元毫秒数",
    ),
    column(
        "ms_per_token",
        "ms",
        "ms a token: median pass of one token, in a second run of the first tokens, alone and with nothing recorded",
        "每词元毫秒数：单独且不做记录地重跑开头若干词元，取单词元前向时间的中位数",
    ),
    column(
        "kv_bytes_per_token",
        "bytes",
        "KV cache a token: bytes in use in the cache at the end, over the tokens it holds",
        "每词元 KV 缓存：结束时缓存占用的字节数除以其中的词元数",
    ),
    column(
        "memory",
        "",
        "kind of memory: kv, keys and values that grow with the text; state, a TTT model's weights, which learn and do not grow",
        "记忆种类：“kv”为随文本增长的键值，“state”为 TTT 模型边读边学、不增长的权重",
    ),
    column(
        "memory_bytes",
        "bytes",
        "memory at the end: bytes in use after its last pass, of keys and values or of a TTT model's state",
        "结束时的记忆：最后一次前向之后占用的字节数，为键值，或 TTT 模型的状态",
    ),
    column(
        "perplexity",
        "",
        "perplexity of the continuation: exp of its mean loss, read token by token through the cache after the prompt",
        "续文困惑度：在提示词之后逐词元经缓存读入续文，平均损失的指数",
    ),
    column(
        "fidelity_mean",
        "nats",
        "cache error, mean: KL(p_full ‖ p_cached) over the tokens read through the cache; 0 is exact",
        "缓存误差，平均：经缓存读入的各词元上的 KL(p_full ‖ p_cached)；0 为精确",
    ),
    column(
        "fidelity_worst", "nats", "cache error, worst: of any one of those tokens", "缓存误差，最大：其中最大的一个词元"
    ),
    column(
        "worst_token",
        "",
        "worst token: the one whose prediction the cache changed most",
        "误差最大的词元：缓存对其预测改变最大",
    ),
    column(
        "agreement",
        "share",
        "agreement: share of the baseline's greedy tokens that it would choose as well, given the baseline's text before each",
        "一致率：给定基线此前的文本，它也会选出的基线贪心词元所占比例",
    ),
    column(
        "same_until",
        "tokens",
        "same as the baseline for: tokens of its own text before the first that differs",
        "与基线相同的长度：自身文本中首个不同词元之前的词元数",
    ),
)
# Which way is better; what is not here has no better.
BETTER: dict[str, str] = {
    "loops_mean": "low",
    "loops_max": "low",
    "tokens_per_second": "high",
    "ms_per_token": "low",
    "kv_bytes_per_token": "low",
    "memory_bytes": "low",
    "perplexity": "low",
    "fidelity_mean": "low",
    "fidelity_worst": "low",
    "agreement": "high",
    "same_until": "high",
}
AXES = tuple(column.name for column in COLUMNS if column.name in BETTER)
# What the page shows together, each with the configuration's name: the verdict first.
GROUPS: dict[str, tuple[str, ...]] = {
    "buys": ("perplexity", "agreement", "fidelity_mean", "fidelity_worst", "worst_token", "same_until"),
    "costs": (
        "loops_mean",
        "read_out_mean",
        "ms_per_token",
        "kv_bytes_per_token",
        "memory",
        "memory_bytes",
        "tokens_per_second",
        "loops_max",
    ),
    "ran": ("baseline", "swept", "new_tokens", "finish", "stops"),
}
# In sight until all are asked for, three of each of the first two groups.
FIRST_SHOWN = ("setup", "kv_bytes_per_token", "ms_per_token", "loops_mean", "perplexity", "agreement", "fidelity_mean")
LEARNING_SHOWN = tuple(
    shown for name in FIRST_SHOWN for shown in (("memory", "memory_bytes") if name == "kv_bytes_per_token" else (name,))
)  # where a TTT model is among them
GATED_SHOWN = ("read_out_mean",)  # besides, where an exit gate chooses: how many loops run does not say what it chose
# What differs by no more than this, absolutely or as a share of the better value, does not differ: a time by what else the
# machine does, a divergence by the rounding of float32.
NOISE: dict[str, tuple[float, float]] = {
    "tokens_per_second": (0.0, 0.05),
    "ms_per_token": (0.0, 0.05),
    "perplexity": (0.0, 5e-4),
    "fidelity_mean": (1e-5, 1e-3),
    "fidelity_worst": (1e-5, 1e-3),
}
FIRST_AXES = ("kv_bytes_per_token", "perplexity")  # the two between which looping has something to win
MEMORY_AXES = (
    "memory_bytes",
    "perplexity",
)  # the same where a TTT model is among them: its state does not grow with tokens
WORDLESS_AXES = ("ms_per_token", "agreement")  # without a continuation there is no perplexity
LABELS = ("top center", "bottom center", "middle left", "middle right")
EDGE = 0.1  # of the plot's width: a name centred on a point nearer to its end may not fit
NEAR = (0.2, 0.1)  # of the plot's width and height: names of points nearer than this would overlap

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "question": "What does each way to loop, to stop and to remember cost, and what does it buy?",
        "how": "Every configuration continues the same prompt with the same seed; texts of one model are written together, in passes "
        "they share. Its speed is that of a second run, alone and with nothing recorded. Then the continuation, and the baseline's greedy tokens, are read after the prompt as a run "
        "would read them: the prompt in one pass, then token by token through the cache.",
        "cost": "For each configuration: its run, a second run of at most 33 tokens, one full pass over each text, and one "
        "pass for each token of the longer of the two texts.",
    },
    "zh": {
        "question": "每种循环、停止与记忆方式要付出什么，又换来什么？",
        "how": "每个配置以相同的种子续写同一提示词；同一模型的文本一起写出，共用前向。速度取自第二次单独且不做记录的运行。然后在提示词之后，像运行时那样读入给定续文以及基线的贪心词元："
        "提示词一次前向读入，其后逐词元经缓存读入。",
        "cost": "每个配置：一次运行，再加至多 33 个词元的第二次运行；对每段文字各一次完整前向；以及两段文字中较长者每个词元一次前向。",
    },
}
_SAID: dict[str, dict[str, str]] = {
    "en": {
        "front": "not beaten in both",
        "front_hover": "no other configuration is at least as good in both and better in one",
        "low": "{name} (lower is better)",
        "high": "{name} (higher is better)",
        "empty": "Nothing to draw yet: a point appears with each row that has both values",
        "missing": "without a value here: {names}",
        "loops": "%{customdata} loops",
    },
    "zh": {
        "front": "两项上都不被超越",
        "front_hover": "没有其他配置在两项上都不差且至少一项更好",
        "low": "{name}（越低越好）",
        "high": "{name}（越高越好）",
        "empty": "暂无可画：每有一行两个值都齐全，就出现一个点",
        "missing": "此处没有数值：{names}",
        "loops": "循环 %{customdata} 次",
    },
}


def first_axes(scored: bool, learning: bool) -> tuple[str, str]:
    """What the plot opens with.

    Args:
        scored: whether there is a perplexity, or may be.
        learning: whether a TTT model is among the configurations.
    """
    if not scored:
        return WORDLESS_AXES
    return MEMORY_AXES if learning else FIRST_AXES


def heading(name: str, lang: str) -> str:
    """A column's heading: its words up to the colon."""
    words = next(column.words[lang] for column in COLUMNS if column.name == name)
    return words.partition("：" if lang == "zh" else ": ")[0]


# Of axes whose heading does not say them.
_UNITS = {
    "en": {"bytes": ", bytes", "nats": ", nats", "tokens": ", tokens"},
    "zh": {"bytes": "（字节）", "nats": "（奈特）", "tokens": "（词元）"},
}


def _axis(name: str, lang: str) -> str:
    """An axis' title: the heading, its unit, and which way is better."""
    unit = next(column.unit for column in COLUMNS if column.name == name)
    return _SAID[lang][BETTER[name]].format(name=heading(name, lang) + _UNITS[lang].get(unit, ""))


def front(points: Sequence[tuple[float, float]], x: str, y: str) -> list[int]:
    """Which points no other beats: at least as good in both columns and better in one. In the order of `x`."""
    signs = [1 if BETTER[name] == "low" else -1 for name in (x, y)]
    costs = [(signs[0] * a, signs[1] * b) for a, b in points]
    kept = [
        i
        for i, one in enumerate(costs)
        if not any(other[0] <= one[0] and other[1] <= one[1] and other != one for other in costs)
    ]
    return sorted(kept, key=lambda i: points[i])


def pareto(
    rows: Sequence[Mapping[str, Any]], x: str, y: str, lang: str, places: Sequence[int] | None = None
) -> dict[str, Any]:
    """The plot of two columns against each other, as plain plotly data.

    Args:
        rows: of the table, finished or not.
        x, y: names from `AXES`.
        places: which colour, dash and symbol each row has; None: the rows' order.

    Raises:
        ValueError: a column that cannot be an axis.
    """
    for name in (x, y):
        if name not in AXES:
            raise ValueError(f"column={name!r}: cannot be an axis; there are {', '.join(AXES)}")
    said, places = _SAID[lang], places or range(len(rows))
    known = [(row, place) for row, place in zip(rows, places, strict=True) if row[x] is not None and row[y] is not None]
    points = [(float(row[x]), float(row[y])) for row, _ in known]
    best = front(points, x, y)
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [points[i][0] for i in best],
            "y": [points[i][1] for i in best],
            "line": {"color": theme.INK, "width": 1.5, "dash": "dot"},
            "name": said["front"],
            "hoverinfo": "skip",
        }
    ]
    swept: dict[int, list[int]] = {}  # by place, the points of a sweep in the order of its loops
    for i, (row, place) in enumerate(known):
        if row.get("swept") is not None:
            swept.setdefault(place, []).append(i)
    named = [i for i, (row, place) in enumerate(known) if row.get("swept") is None or i == swept[place][-1]]
    shown = [points[i] for i in named]
    wheres = dict(zip(named, inward(shown, label_places(shown), points), strict=True))
    for place, own in swept.items():
        data.append(
            _curve([(known[i][0], points[i]) for i in own], place, x, y, lang) | {"textposition": wheres[own[-1]]}
        )
    for i, (row, place) in enumerate(known):
        if row.get("swept") is None:
            data.append(_point(row["setup"], place, points[i], x, y, lang) | {"textposition": wheres[i]})
    missing = dict.fromkeys(escape(row["setup"]) for row in rows if row[x] is None or row[y] is None)
    note = said["empty"] if not known else said["missing"].format(names=", ".join(missing)) if missing else ""
    layout = {
        "height": 380,
        "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
        "xaxis": {"title": {"text": _axis(x, lang)}, "rangemode": "normal"},
        "yaxis": {"title": {"text": _axis(y, lang)}, "rangemode": "normal"},
        "showlegend": False,
        "annotations": [_note(note, 0.5 if not known else 1.02)] if note else [],
    }
    return {"data": data, "layout": layout}


def label_places(points: Sequence[tuple[float, float]]) -> list[str]:
    """Where each point's name is written: over it, unless a near one's is there already."""
    spans = [max(values, default=0) - min(values, default=0) or 1 for values in zip(*points, strict=True)]
    places: list[str] = []
    for i, one in enumerate(points):
        near = [
            places[k]
            for k, other in enumerate(points[:i])
            if abs(one[0] - other[0]) < NEAR[0] * spans[0] and abs(one[1] - other[1]) < NEAR[1] * spans[1]
        ]
        places.append(next((where for where in LABELS if where not in near), LABELS[0]))
    return places


def inward(
    named: Sequence[tuple[float, float]], places: Sequence[str], points: Sequence[tuple[float, float]]
) -> list[str]:
    """The places of names, those of points at an end of the plot turned to its middle: else they would be cut off."""
    low, high = min((x for x, _ in points), default=0), max((x for x, _ in points), default=0)
    sides = {True: "left", False: "right"}
    at_end = [high > low and not EDGE < (x - low) / (high - low) < 1 - EDGE for x, _ in named]
    turned = [sides[x > (low + high) / 2] for x, _ in named]
    return [
        where.replace("center", side) if end else where for where, side, end in zip(places, turned, at_end, strict=True)
    ]


def _point(name: str, place: int, point: tuple[float, float], x: str, y: str, lang: str) -> dict[str, Any]:
    hover = f"<b>{escape(name)}</b><br>{heading(x, lang)}: %{{x:.4g}}<br>{heading(y, lang)}: %{{y:.4g}}<extra></extra>"
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [point[0]],
        "y": [point[1]],
        "text": [escape(name)],
        "textfont": {"size": 11},
        "cliponaxis": False,
        "name": escape(name),
        "marker": {
            "color": theme.SETUP_COLOURS[place],
            "symbol": theme.SETUP_SYMBOLS[place],
            "size": 11,
            "line": {"color": theme.MARK_EDGE, "width": 1},
        },
        "hovertemplate": hover,
    }


def _curve(
    rows: Sequence[tuple[Mapping[str, Any], tuple[float, float]]], place: int, x: str, y: str, lang: str
) -> dict[str, Any]:
    """A sweep: its points joined in the order of its loops; the last one carries its name."""
    name, loops = rows[0][0]["setup"], [row["swept"] for row, _ in rows]
    made = _point(name, place, rows[0][1], x, y, lang)
    colour = theme.SETUP_COLOURS[place]
    return made | {
        "mode": "lines+markers+text",
        "x": [point[0] for _, point in rows],
        "y": [point[1] for _, point in rows],
        "text": ["" for _ in loops[1:]] + [escape(name)],
        "customdata": loops,
        "line": {"color": colour, "width": 2, "dash": theme.SETUP_DASHES[place]},
        "marker": made["marker"] | {"size": 8},
        "hovertemplate": made["hovertemplate"].replace("</b>", f"</b>, {_SAID[lang]['loops']}", 1),
    }


def _note(text: str, y: float) -> dict[str, Any]:
    return {
        "text": text,
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": y,
        "yanchor": "bottom" if y > 1 else "middle",
        "font": {"size": 12},
    }


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """The task's own plot: KV cache a token (memory, where a TTT model is among them) against perplexity; without a continuation, time against agreement."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    scored = any(row["perplexity"] is not None for row in rows)
    names = list(dict.fromkeys(row["setup"] for row in rows))
    places = [names.index(row["setup"]) for row in rows]  # rows of a sweep are one curve
    learning = any(row["memory"] == "state" for row in rows)
    figure = go.Figure(pareto(rows, *first_axes(scored, learning), lang, places))
    return figure.update_layout(template=theme.template())
