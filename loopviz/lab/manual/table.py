"""The table of the manual's experiment: its columns, its words, its figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from loopviz.lab.headline import known, least, number, same, tied
from loopviz.lab.task import Row, column

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

BASELINE = "baseline"  # the configuration without a loop
BARS = 0.8  # of a number of loops' place in the plot that bars take


def counted_text(counts: Iterable[tuple[Any, int]]) -> str:
    """Counts as a cell holds them: `5: 812, 6: 40`."""
    return ", ".join(f"{name}: {times}" for name, times in counts)


def counts_of(cell: str) -> dict[str, int]:
    """What :func:`counted_text` wrote."""
    return {name: int(times) for name, _, times in (part.rpartition(": ") for part in cell.split(", "))}


COLUMNS = (
    column("configuration", "", "configuration: baseline is the model without a loop", "配置：baseline 为不循环的模型"),
    column("perplexity", "", "perplexity: through the cache, token by token", "困惑度：逐词元经过缓存"),
    column(
        "difference",
        "nats",
        "against the baseline: loss less the baseline's, on the same tokens; below 0 the loop helps",
        "与基线之差：同样词元上的损失减去基线的损失；小于 0 表示循环有帮助",
    ),
    column(
        "difference_low",
        "nats",
        "difference, low: lower end of its 95 % interval, windows drawn in pairs",
        "差的下限：其 95 % 区间的下端，窗口成对抽取",
    ),
    column("difference_high", "nats", "difference, high: upper end of it", "差的上限：该区间的上端"),
    column(
        "bleu",
        "0-100",
        "BLEU: sacrebleu, of all continuations as one corpus, against the texts' own",
        "BLEU：sacrebleu，全部续写作为一个语料，对照文本自身的后文",
    ),
    column("rouge_1", "0-100", "ROUGE-1: F1 of the words in common; mean", "ROUGE-1：共有词的 F1；平均"),
    column("rouge_2", "0-100", "ROUGE-2: F1 of the pairs of words in common; mean", "ROUGE-2：共有二元词组的 F1；平均"),
    column(
        "rouge_l",
        "0-100",
        "ROUGE-L: F1 of the longest common subsequence of words; mean",
        "ROUGE-L：最长公共词子序列的 F1；平均",
    ),
    column("chrf", "0-100", "chrF: character n-grams shared with the reference", "chrF：与参考共有的字符 n 元组"),
    column(
        "mean_loops",
        "loops",
        "mean loops: steps a looped block ran at a token; 1 without a loop",
        "平均循环：循环块在每个词元上运行的步数；不循环时为 1",
    ),
    column("loops", "", "loops: how many tokens ran how many steps", "循环分布：多少词元运行了多少步"),
    column(
        "reasons",
        "",
        "stopped by: count, or the rule that held, or max, and at how many tokens",
        "停止原因：count（次数）、成立的规则或 max，以及各有多少词元",
    ),
    column(
        "tokens_per_second",
        "tokens/s",
        "reading speed: tokens a second, all windows of a pass together",
        "读入速度：每秒词元数，同一前向的所有窗口合计",
    ),
    column(
        "write_tokens_per_second",
        "tokens/s",
        "writing speed: tokens a second, all prompts of a pass together",
        "生成速度：每秒词元数，同一前向的所有提示合计",
    ),
    column(
        "peak_bytes",
        "bytes",
        "peak memory: most that torch held at once, on top of the weights, for one window as a prompt and two new tokens; CPU: "
        "each allocation counted by its profiler; CUDA: max_memory_allocated",
        "内存峰值：以一个窗口为提示并生成两个新词元时，torch 在权重之外同时占用的最大字节数；CPU 上由其性能分析器逐次统计分配，"
        "CUDA 上为 max_memory_allocated",
    ),
    column(
        "kv_bytes_per_token",
        "bytes",
        "KV cache a token: keys and values in use, over all layers and slots",
        "每词元 KV 缓存：所有层与槽中在用的键与值",
    ),
    column("kv_bytes", "bytes", "KV cache: of that window, in use at the end", "KV 缓存：该窗口结束时在用的字节数"),
    column(
        "low",
        "",
        "perplexity, low: lower end of its 95 % bootstrap interval over windows; empty under 6 windows, too few to tell",
        "困惑度下限：其按窗口自助法 95 % 区间的下端；少于 6 个窗口时为空，不足以判断",
    ),
    column("high", "", "perplexity, high: upper end of it", "困惑度上限：该区间的上端"),
    column("nats", "nats", "loss: mean -log p of a token", "损失：每个词元 -log p 的平均值"),
    column(
        "seconds",
        "s",
        "seconds: of reading, the same passes in every row; with others at work on this machine it says little",
        "秒：读入用时，每行的前向次数相同；机器上另有任务时说明不了什么",
    ),
    column("tokens", "tokens", "tokens: how many were predicted", "词元：预测的数量"),
    column(
        "windows",
        "windows",
        "windows: stretches of the text, each from an empty cache",
        "窗口：文本分成的段数，每段从空缓存开始",
    ),
    column("prompts", "", "prompts: that were continued", "提示：被续写的数量"),
    column("written_tokens", "tokens", "written: tokens, end marks left out", "所写：词元数，不含结束符"),
    column("signature", "", "signature: how BLEU was computed", "签名：BLEU 的计算方式"),
    column("asked", "", "asked for: the configuration as it was written", "所要求的：配置原文"),
    column(
        "own",
        "",
        "the model's own: fields that stay with the weights",
        "模型自带：随权重保留的字段",
    ),
    column(
        "gave_way",
        "",
        "gave way: fields that nobody asked for and that had to change; of the baseline: what it leaves out",
        "让步：未被要求而必须改变的字段；对基线：略去的部分",
    ),
)

WORDS = {
    "en": {
        "question": "What do loops buy, and what do they cost, against the same model without them?",
        "how": "One row without a loop, every layer once (what a model was trained with to enter each step, and the norm before it, is "
        "left out there), and one for each configuration, by default the manual's three as written, with the manual's defaults for what "
        "they do not name; which layers loop and what enters a step stay the model's. All read the same text token by token through their "
        "cache, each token given the true ones before it (perplexity, its paired difference to the baseline, loops, reading speed), and "
        "continue the same beginnings with the likeliest token each time (BLEU, ROUGE, chrF against the real continuation; one of many "
        "good ones, so scores stay low and serve to compare). Peak memory and KV cache are those of one window alone.",
        "cost": "For each row: a pass for each token of a window, windows side by side, and one for each token written.",
    },
    "zh": {
        "question": "与不循环的同一模型相比，循环带来什么，代价又是什么？",
        "how": "一行不循环，每层只过一次（训练时每步注入的内容与步前的归一化在此略去）；每个配置一行，默认即手册所写的三个，未写明的字段取手册的默认值；"
        "哪些层循环、每步注入什么仍按模型自带。各行都逐词元经缓存读入同一文本，每个词元之前给的都是真实词元（困惑度、与基线的成对差、循环次数、读入速度），"
        "并对同样的开头每次取最可能的词元续写（BLEU、ROUGE、chrF，对照真实后文；真实后文只是众多好的续写之一，所以分数偏低，用于比较）。内存峰值与 KV 缓存为单独一个窗口的。",
        "cost": "每一行：窗口内每个词元一次前向（多个窗口并行），以及所写的每个词元一次前向。",
    },
}

_PLOT = {
    "en": {
        "loops": "loops at a token",
        "share": "share of tokens",
        "time": "reading, ms/token",
        "kv": "KV, kB/token",
        "perplexity": "perplexity (lower is better)",
        "bar": "{name}<br>{n} loops: {times:,} of {all:,} tokens ({share:.1%})<br>stopped by {reasons}",
        "point": "{name}<br>perplexity {perplexity:.4g}{interval}<br>ROUGE-L {rouge_l:.3g}<br>{cost}",
        "interval": " ({low:.4g} to {high:.4g})",
    },
    "zh": {
        "loops": "每个词元的循环次数",
        "share": "词元比例",
        "time": "读入，毫秒/词元",
        "kv": "KV，kB/词元",
        "perplexity": "困惑度（越低越好）",
        "bar": "{name}<br>{n} 步：{all:,} 个词元中的 {times:,} 个（{share:.1%}）<br>停止原因 {reasons}",
        "point": "{name}<br>困惑度 {perplexity:.4g}{interval}<br>ROUGE-L {rouge_l:.3g}<br>{cost}",
        "interval": "（{low:.4g} 到 {high:.4g}）",
    },
}


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Above: how the tokens spread over numbers of loops. Below: perplexity against time and against the cache."""
    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, rows = _PLOT[lang], table.to_dict("records")
    traces = [trace for index, row in enumerate(rows) for trace in _traces(row, index, len(rows), words)]
    most = max(int(n) for row in rows for n in counts_of(row["loops"]))
    y = {"title": {"text": words["perplexity"]}, "domain": [0.0, 0.42], "anchor": "x2"}
    return table_figures.figure(
        traces,
        x=words["loops"],
        y=words["share"],
        xaxis={"anchor": "y", "tick0": 1, "dtick": 1, "range": [0.5, most + 0.5]},
        yaxis={"domain": [0.58, 1.0], "tickformat": ".0%", "range": [0, 1.02]},
        xaxis2={"title": {"text": words["time"]}, "domain": [0.0, 0.47], "anchor": "y2", "rangemode": "tozero"},
        yaxis2=y,
        xaxis3={"title": {"text": words["kv"]}, "domain": [0.53, 1.0], "anchor": "y3", "rangemode": "tozero"},
        yaxis3={"domain": [0.0, 0.42], "anchor": "x3", "matches": "y2", "showticklabels": False},
        barmode="overlay",
        height=640,
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom"},
    )


_HEADLINE = {
    "en": {
        "better": "Best: {name}, perplexity {plain} → {best} against no loop, with {loops} loops a token{also}.",
        "even": "No configuration changes the perplexity of {plain} without a loop; {name} stands at {best}{also}.",
        "worse": "No configuration beats the model without a loop ({plain}); nearest: {name} with {best}{also}.",
        "alone": "Without a loop: perplexity {best}.",
        "only": "{name}: perplexity {best}.",
    },
    "zh": {
        "better": "最好：{name}，与不循环相比困惑度 {plain} → {best}，每个词元循环 {loops} 步{also}。",
        "even": "没有配置改变不循环时的困惑度 {plain}；{name} 为 {best}{also}。",
        "worse": "没有配置胜过不循环的模型（{plain}）；最接近的是 {name}：{best}{also}。",
        "alone": "不循环：困惑度 {best}。",
        "only": "{name}：困惑度 {best}。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The configuration of the least perplexity against the baseline; of those that look the same, of the fewest loops."""
    found = known(rows, "perplexity", "mean_loops")
    if not found:
        return ""
    words, plain = _HEADLINE[lang], next((row for row in found if row["configuration"] == BASELINE), None)
    others = [row for row in found if row is not plain]
    best = least(others or found, lambda row: row["perplexity"], lambda row: row["mean_loops"])
    as_few = [row for row in others if same(row["mean_loops"], best["mean_loops"])]
    said = {"also": tied(as_few, lambda row: row["perplexity"], best, lang)}
    said |= {"name": best["configuration"], "best": number(best["perplexity"]), "loops": number(best["mean_loops"])}
    if plain is None or not others:
        return words["alone" if best is plain else "only"].format(**said)
    alike = same(best["perplexity"], plain["perplexity"])
    key = "even" if alike else "better" if best["perplexity"] < plain["perplexity"] else "worse"
    return words[key].format(**said, plain=number(plain["perplexity"]))


def _traces(row: Row, index: int, of: int, words: dict[str, str]) -> list[Any]:
    """A configuration's bars, beside those of the others at each number of loops, and its two points."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures
    from loopviz.figures.labels import escape

    name, style = escape(row["configuration"]), table_figures.series(index)
    counts = counts_of(row["loops"])
    total = sum(counts.values())
    hover = [
        words["bar"].format(name=name, n=n, times=times, all=total, share=times / total, reasons=escape(row["reasons"]))
        for n, times in counts.items()
    ]
    bars = go.Bar(
        x=[int(n) for n in counts],
        y=[times / total for times in counts.values()],
        name=name,
        legendgroup=name,
        width=BARS / of,
        offset=BARS * (index / of - 0.5),  # said here: left to itself the group is as wide as the widest gap
        marker={"color": style["line"]["color"]},
        text=hover,
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )
    return [bars, *_costs_of(row, name, style, words)]


def _costs_of(row: Row, name: str, style: dict[str, Any], words: dict[str, str]) -> list[Any]:
    """A configuration's perplexity over each of its two costs, with the interval where there is one."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    known = row["low"] is not None and row["low"] == row["low"]
    interval = words["interval"].format(low=row["low"], high=row["high"]) if known else ""
    bar = table_figures.arms([row["perplexity"]], [row["low"]], [row["high"]])
    points = []
    costs = (
        ("x2", "y2", "time", 1000 / row["tokens_per_second"]),
        ("x3", "y3", "kv", row["kv_bytes_per_token"] / 1000),
    )
    for xaxis, yaxis, label, x in costs:
        said = f"{words[label]}: {x:.4g}"
        values = {key: row[key] for key in ("perplexity", "rouge_l")}
        points.append(
            go.Scatter(
                x=[x],
                y=[row["perplexity"]],
                xaxis=xaxis,
                yaxis=yaxis,
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=False,
                error_y=bar,
                text=[words["point"].format(name=name, interval=interval, cost=said, **values)],
                hovertemplate="%{text}<extra></extra>",
                marker={**style["marker"], "color": style["line"]["color"], "size": 11},
            )
        )
    return points
