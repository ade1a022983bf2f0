"""How many loops a model that stops by itself gives each token: by the kind of word, and by position."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from loopviz.checks import FieldError, check_one_of
from loopviz.engine import Pieces
from loopviz.engine.work import Work
from loopviz.lab.headline import number, same, tied
from loopviz.lab.reading.intervals import FIGURE_DRAWS, mean_interval
from loopviz.lab.reading.reach import ROW_BYTES
from loopviz.lab.reading.token_classes import CLASSES, RULES, token_classes
from loopviz.lab.reading.windows import CorpusParams
from loopviz.lab.task import Row, Subject, Task, column, param, register, titled
from loopviz.model import LoopCache

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from loopviz.model import LoopLlamaForCausalLM

NAME, ORDER = "loop_use", 100
TITLE = {"en": "Loops by kind of word", "zh": "各类词的循环数"}

BINS = 16  # positions are drawn in at most so many groups
# Huginn's threshold (arXiv 2502.05171); one entry a token, so that a token may stop after its first step.
USUAL = {
    "loop_strategy": "dynamic_stop",
    "convergence_criterion": "kl",
    "kl_threshold": 5e-4,
    "kv_cache_mode": "merge_strategy",
    "merge_strategy": "last",
}


@dataclass(frozen=True)
class LoopUseParams(CorpusParams):
    """Parameters of the loop-count distribution."""

    loop: dict[str, Any] = param(
        USUAL,
        "Loop settings; loop_strategy must be dynamic_stop. The usual threshold is tight enough to tell tokens apart.",
        "循环设置；loop_strategy 必须为 dynamic_stop。默认阈值足够严，能区分各词元。",
        kind="loop",
    )

    def view(self, subject: Subject) -> LoopLlamaForCausalLM:
        """The model as it is measured.

        Raises:
            ValueError: no looped block that stops by itself, or more KV slots than steps that every token runs.
        """
        try:
            view = subject.view(self.loop)
        except FieldError as error:
            if error.rule != "slots_over_floor":
                raise
            floor = error.places["floor"]
            raise FieldError(error.field, error.value, "slots_over_floor_or_last", floor=floor) from None
        if not any(block.dynamic for block in view.config.loop_blocks()):
            strategy, layers = view.config.loop_strategy, view.config.loop_layers
            both = f"{strategy!r}, loop_layers={layers!r}"
            raise FieldError("loop_strategy", strategy, "nothing_stops_by_itself", shown=both)
        return view


def _cells(subject: Subject, params: LoopUseParams) -> int:
    windows = params.windows(subject)
    read = sum(part.ids.numel() for part in windows.batches(params.batch, unpadded=True))
    return read * len(params.view(subject).config.loop_blocks())


def _work(subject: Subject, params: LoopUseParams) -> Work:
    """A reading through the cache, and a row a token and block."""
    shape, reach = subject.shape(params.view(subject)), params.reach(subject)
    return reach.cached(shape) + reach.text + Work(kept=reach.tokens * len(shape.loops) * ROW_BYTES)


def _run(subject: Subject, params: LoopUseParams) -> Iterator[Row]:
    view = params.view(subject)
    windows = params.windows(subject)
    ids = windows.text.tolist()
    pieces = Pieces(subject.tokenizer)
    texts = [pieces.add(token) for token in ids]
    special = set(subject.tokenizer.all_special_ids)
    classes = token_classes(texts, [token in special for token in ids])
    for part in windows.batches(params.batch, unpadded=True):
        cache = LoopCache(view.config)
        starts = part.starts.tolist()
        for position in range(part.ids.shape[1]):
            with torch.no_grad():
                tokens = part.ids[:, position : position + 1].to(view.device)  # [B, 1]
                view.model(input_ids=tokens, past_key_values=cache, use_cache=True)
            report = view.last_pass
            steps = [block.tolist() for block in report.steps]
            for row, start in enumerate(starts):
                index = start + position
                for block, (loops, reasons) in enumerate(zip(steps, report.reasons, strict=True)):
                    yield {
                        "index": index,
                        "position": position,
                        "token": texts[index],
                        "class": classes[index],
                        "block": block,
                        "loops": loops[row],
                        "reason": reasons[row],
                    }


def distribution(table: pd.DataFrame, by: str, bins: int = BINS) -> pd.DataFrame:
    """How often each number of loops occurs in each group.

    Args:
        table: of the task.
        by: ``"class"``, or ``"position"`` in at most ``bins`` groups of equal width.

    Returns:
        Columns ``group`` (a class, or the group's first position), ``loops``, ``tokens``, ``share`` (of the group).

    Raises:
        ValueError: another ``by``.
    """
    check_one_of("by", by, ("class", "position"))
    group = table["class"]
    if by == "position" and len(table):
        group = _binned(table, bins)
    counts = table.groupby([group.rename("group"), "loops"]).size().rename("tokens").reset_index()
    counts["share"] = counts["tokens"] / counts.groupby("group")["tokens"].transform("sum")
    return counts


def means(table: pd.DataFrame, by: str, bins: int = BINS) -> pd.DataFrame:
    """Mean loops of each group, with a 95 % bootstrap interval over windows (:func:`mean_interval`).

    Args:
        table: of the task.
        by: ``"class"``, or ``"position"``, as :func:`distribution` takes it.

    Returns:
        Columns ``group``, ``mean``, ``low``, ``high`` (empty where too few windows hold the group).
    """
    import pandas as pd

    window = table["index"] - table["position"]
    group = table["class"] if by == "class" else _binned(table, bins)
    rows = []
    for name, own in table.groupby(group.rename("group")):
        parts = own["loops"].astype("float64").groupby(window[own.index]).agg(["sum", "count"])
        low, high = mean_interval(parts["sum"].to_numpy(), parts["count"].to_numpy(), FIGURE_DRAWS, 0)
        rows.append({"group": name, "mean": float(own["loops"].mean()), "low": low, "high": high})
    return pd.DataFrame(rows, columns=["group", "mean", "low", "high"])


def _binned(table: pd.DataFrame, bins: int) -> pd.Series:
    """The first position of each row's group."""
    width = -(-(int(table["position"].max()) + 1) // bins) if len(table) else 1
    return table["position"] // width * width


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """How long each class of words is looped over, and all of them: a row a block and class that occurs.

    Columns: block, class, tokens, ``mean_loops`` and its standard error (as if tokens were independent; empty for one
    token), and for every number of loops that occurs the percentage of the class that ran so many.
    """
    import pandas as pd

    counts = sorted(set(table["loops"].tolist()))
    rows = []
    for block, own in table.groupby("block"):
        for name in (*CLASSES, "all"):
            loops = own["loops"] if name == "all" else own.loc[own["class"] == name, "loops"]
            if len(loops):
                shares = {f"{n} loops, %": round(100 * float((loops == n).mean()), 1) for n in counts}
                error = float(loops.astype("float64").sem()) if len(loops) > 1 else None
                mean = float(loops.mean())
                rows.append(
                    {"block": block, "class": name, "tokens": len(loops), "mean_loops": mean, "error": error, **shares}
                )
    return pd.DataFrame(
        rows, columns=["block", "class", "tokens", "mean_loops", "error", *(f"{n} loops, %" for n in counts)]
    )


COLUMNS = tuple(
    column(name, "", en, zh)
    for name, en, zh in (
        ("index", "Place: of the token in the text read, from 0", "位置：词元在所读文本中的序号，从 0 起"),
        ("position", "Position: in its window, from 0", "窗口内位置：从 0 起"),
        ("token", "Token: the text it adds", "词元：它带来的文本"),
        ("class", "Class: the kind of word it belongs to", "类别：所属词的种类"),
        ("block", "Block: looped block, from 0", "块：循环块编号，从 0 起"),
        ("loops", "Loops: steps the block ran", "循环数：块运行的步数"),
        ("reason", "Stopped by: the rule that held, or max", "停止原因：成立的规则，或 max"),
    )
)

WORDS = {
    "en": {
        "question": "Which tokens does the model loop over longer, and does it matter where they stand?",
        "how": "The text is read token by token through the cache, in windows that each start afresh, and the model stops by "
        "its own rule (dynamic_stop) at each token. In the figure each class and each position has its mean with a 95 % bootstrap "
        "interval over windows (2,000 resamplings, seed 0; none under 6 windows). " + RULES["en"],
        "cost": "One decode of the text, several windows at once.",
    },
    "zh": {
        "question": "模型对哪些词元循环得更久？与它们所处的位置有关吗？",
        "how": "经缓存逐个词元读入文本，各窗口都从头开始；模型在每个词元上按自己的规则（dynamic_stop）停止。"
        "图中每一类和每个位置给出平均值及按窗口重抽样的 95% 自助法区间（重抽样 2,000 次，种子 0；少于 6 个窗口时不给出）。"
        + RULES["zh"],
        "cost": "对文本做一次解码，多个窗口同时进行。",
    },
}

_PLOT = {
    "en": {
        "punctuation": "punctuation",
        "function": "function word",
        "name": "name",
        "number": "number",
        "other": "other",
        "share": "share of the class",
        "loops": "loops",
        "series": "{n} loops",
        "position": "position in the window",
        "mean": "mean loops",
        "hover": "{group}: {tokens} of {all} tokens ran {n} loops ({share:.1%})",
        "hover_position": "positions {first} to {last}: {mean:.2f} loops on average",
    },
    "zh": {
        "punctuation": "标点",
        "function": "虚词",
        "name": "专名",
        "number": "数字",
        "other": "其他",
        "share": "占该类的比例",
        "loops": "循环数",
        "series": "{n} 步",
        "position": "窗口内位置",
        "mean": "平均循环数",
        "hover": "{group}：{all} 个词元中有 {tokens} 个循环 {n} 步（{share:.1%}）",
        "hover_position": "位置 {first} 到 {last}：平均 {mean:.2f} 步",
    },
}


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Left: how the tokens of each class spread over numbers of loops. Right: mean loops along the window."""
    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words = _PLOT[lang]
    right = {"title": {"text": words["position"]}, "domain": [0.58, 1.0], "anchor": "y2"}
    return table_figures.figure(
        [*_bars(table, words), _line(table, words)],
        x=words["share"],
        y="",
        barmode="stack",
        xaxis={"domain": [0.0, 0.46], "tickformat": ".0%", "range": [0, 1]},
        xaxis2=right,
        yaxis2={"title": {"text": words["mean"]}, "anchor": "x2"},
        legend={"orientation": "h", "traceorder": "normal"},
    )


def _bars(table: pd.DataFrame, words: dict[str, str]) -> list[go.Bar]:
    import plotly.graph_objects as go

    from loopviz.figures import theme

    counts = distribution(table, "class")
    total = counts.groupby("group")["tokens"].sum()
    names = {row["group"]: _named(row, words) for row in means(table, "class").to_dict("records")}
    tints = theme.loop_tints(int(counts["loops"].max()))
    bars = []
    for n in sorted(set(counts["loops"].tolist())):
        rows = counts[counts["loops"] == n].set_index("group")
        rows = rows.loc[[name for name in reversed(CLASSES) if name in rows.index]]
        hover = [
            words["hover"].format(group=words[name], tokens=row["tokens"], all=total[name], n=n, share=row["share"])
            for name, row in rows.iterrows()
        ]
        bars.append(
            go.Bar(
                y=[names[name] for name in rows.index],
                x=rows["share"].tolist(),
                orientation="h",
                name=words["series"].format(n=n),
                marker={"color": tints[n - 1]},
                text=hover,
                textposition="none",
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return bars


def _named(row: dict[str, Any], words: dict[str, str]) -> str:
    """A class with its mean loops, and the interval where there is one."""
    known = row["low"] is not None and row["low"] == row["low"]
    interval = f" ({row['low']:.2f}–{row['high']:.2f})" if known else ""
    return f"{words[row['group']]}<br>{row['mean']:.2f}{interval}"


def _line(table: pd.DataFrame, words: dict[str, str]) -> go.Scatter:
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    found = means(table, "position")
    firsts = found["group"].tolist()
    lasts = [*(first - 1 for first in firsts[1:]), int(table["position"].max())]
    hover = [
        words["hover_position"].format(first=first, last=last, mean=mean)
        for first, last, mean in zip(firsts, lasts, found["mean"], strict=True)
    ]
    return go.Scatter(
        x=[(first + last) / 2 for first, last in zip(firsts, lasts, strict=True)],
        y=found["mean"].tolist(),
        error_y=table_figures.arms(found["mean"], found["low"], found["high"]),
        mode="lines+markers",
        xaxis="x2",
        yaxis="y2",
        showlegend=False,
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        **table_figures.series(0),
    )


_HEADLINE = {
    "en": {
        "classes": "Longest over {high}: {most} loops on average{as_high}. Shortest over {low}: {least}{as_low}. All tokens: {mean}.",
        "alike": "All tokens are looped over alike: {mean} loops on average.",
    },
    "zh": {
        "classes": "{high}循环最久：平均 {most} 步{as_high}。{low}最短：{least} 步{as_low}。全部词元：{mean} 步。",
        "alike": "所有词元的循环都一样：平均 {mean} 步。",
    },
}
PLURALS = {"punctuation": "punctuation", "function": "function words", "name": "names", "number": "numbers"}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The class of words that is looped over longest, and the shortest; by the mean over its tokens."""
    if not rows:
        return ""
    loops: dict[str, list[int]] = {}
    for row in rows:
        loops.setdefault(row["class"], []).append(row["loops"])
    means = {name: statistics.fmean(found) for name, found in loops.items()}
    low, high = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
    called = {**_PLOT[lang], **({"other": "other words"} | PLURALS if lang == "en" else {"other": "其他词"})}
    key = "alike" if same(means[low], means[high]) else "classes"
    said = {"least": number(means[low]), "most": number(means[high])}
    said |= {f"as_{end}": tied([*means], means.__getitem__, name, lang) for end, name in (("low", low), ("high", high))}
    mean = number(statistics.fmean(row["loops"] for row in rows))
    return _HEADLINE[lang][key].format(low=called[low], high=called[high], mean=mean, **said)


# Some seconds with a model of this project, on the story that the Lab offers.
FIRST = {"limit_tokens": 256, "window": 32}  # of fewer than six windows there is no interval
register(
    Task(
        NAME,
        LoopUseParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        summary=summary,
        first=FIRST,
        work=_work,
        headline=headline,
        intervals=True,
    )
)
