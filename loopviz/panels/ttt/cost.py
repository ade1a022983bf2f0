"""Cost: bytes that are kept between words, beside those of attention, and the time of a word, by how much was read."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from loopviz.figures import theme
from loopviz.panels.ttt import parts
from loopviz.trace.schema import kv_bytes_of

if TYPE_CHECKING:
    from loopviz.panels.ttt.focus import TTTFocus
    from loopviz.trace.trace import Trace

NAME = "cost"
CODE: tuple[str, ...] = ("loopviz.trace.recording.ttt:state_bytes", "loopviz.trace.schema:kv_bytes_of")
CONTEXTS = [2**power for power in range(4, 15)]  # tokens: 16 to 16,384
MS = [base * 10.0**power for power in range(-2, 5) for base in (1, 2, 5)]  # ticks; by itself Plotly writes 20 as 2
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What does reading more cost?",
        "question": "How many bytes must be kept to go on after so many words, and how long does a word take?",
        "how": "Above, by arithmetic from the models' configurations, for text of any length: this model keeps its weights, which do "
        "not grow; attention keeps a key and a value of every word (KV cache), in attention of this model's own sizes and in models "
        "that come along. Both axes grow by doubling. Below, measured in this run: milliseconds a word, of the model and its head, "
        "without what is computed for these pictures; several words that are read in one pass share its time.",
        "formula": r"\text{state}=2\,L\,H\,|\theta|\,b+n_c\,L\,C\,k\,b_w,\qquad \text{KV}(T)=2\,T\,L\,H_{kv}\,D\,b",
        "source": "TTT, arXiv 2407.04620, section 1 (figure 1) and 2.1; bytes: TTTCache.nbytes of this run's cache, and "
        "configurations of the others. b: bytes of a number; |θ| numbers of an inner model; twice, for the gradients gathered; "
        "n_c convolutions a layer, where there are any, keep their last k inputs of width C.",
        "state": "this model's state",
        "attention": "attention of the same sizes (KV)",
        "other": "{name} (KV)",
        "same": "{name}: attention of the same sizes (KV)",
        "bytes": "bytes kept",
        "context": "words read (tokens)",
        "ms": "ms a word",
        "in_run": "this run",
        "hover": "%{x} words: %{y:.3s}B",
        "hover_ms": "word %{x}: %{y} ms",
        "no_data": "Its state takes {state}, whatever is read. Nothing measured yet: times come with the first words.",
        "head": "its state takes {state} whatever is read; attention of the same sizes needs more from {cross} words on; here {ms} ms a generated word (median)",
        "head_prompt": "its state takes {state} whatever is read; attention of the same sizes needs more from {cross} words on",
        "summary": "The state takes {state} whatever is read; keys and values of attention of the same sizes take more from {cross} words on.",
    },
    "zh": {
        "title": "读得更多要付出什么？",
        "question": "读了这么多词之后要继续，须保留多少字节？一个词要多久？",
        "how": "上图由各模型的配置算出，适用于任意长度的文本：这个模型保留自己的权重，不会增长；注意力为每个词保留键与值（KV 缓存），"
        "列出与本模型同样大小的注意力以及随附的模型。两轴均为倍增。下图为本次运行实测：每个词的毫秒数，含模型与输出头，不含为这些图所做的计算；"
        "一次前向读入的几个词平分其时间。",
        "formula": r"\text{state}=2\,L\,H\,|\theta|\,b+n_c\,L\,C\,k\,b_w,\qquad \text{KV}(T)=2\,T\,L\,H_{kv}\,D\,b",
        "source": "TTT，arXiv 2407.04620，第 1 节（图 1）与 2.1 节；字节数：本次运行缓存的 TTTCache.nbytes，其他模型按其配置。b：每个数的字节数；"
        "|θ|：内层模型的数的个数；乘二，因为还存有累积的梯度；每层若有 n_c 个卷积，各保留最近 k 个宽度为 C 的输入。",
        "state": "本模型的状态",
        "attention": "同样大小的注意力（KV）",
        "other": "{name}（KV）",
        "same": "{name}：同样大小的注意力（KV）",
        "bytes": "保留的字节数",
        "context": "读入的词数（词元）",
        "ms": "每词毫秒",
        "in_run": "本次运行",
        "hover": "%{x} 个词：%{y:.3s}B",
        "hover_ms": "第 %{x} 个词：%{y} 毫秒",
        "no_data": "无论读多少，状态占 {state}。尚无实测：时间随第一批词出现。",
        "head": "无论读多少，状态占 {state}；同样大小的注意力从 {cross} 个词起需要更多；这里每个生成的词 {ms} 毫秒（中位数）",
        "head_prompt": "无论读多少，状态占 {state}；同样大小的注意力从 {cross} 个词起需要更多",
        "summary": "无论读多少，状态占 {state}；同样大小的注意力的键与值从 {cross} 个词起占得更多。",
    },
}
HEIGHT = 460
OTHERS, DASHES = theme.SETUP_COLOURS[2:], theme.SETUP_DASHES[2:]


def _size(amount: float) -> str:
    return f"{amount / 2**20:.1f} MiB" if amount >= 2**20 else f"{amount / 2**10:.0f} KiB"


def _said(trace: Trace, key: str, lang: str) -> str:
    words, meta = TEXTS[lang], trace.meta["ttt"]
    cross = meta["state_bytes"] // kv_bytes_of(trace.meta["shape"]) + 1
    made = [
        frame["pass_ms"] for frame in trace.frames if frame["phase"] == "generated" and frame["pass_ms"] is not None
    ]
    if key == "head":
        key = "no_data" if not len(trace) else "head" if made else "head_prompt"
    ms = parts.number(median(made)) if made else ""
    return words[key].format(state=_size(meta["state_bytes"]), cross=f"{cross:,}", ms=ms)


def data(trace: Trace, focus: TTTFocus) -> dict[str, Any]:
    """The figure of `trace`: bytes by context, milliseconds a token by context."""
    words, meta = TEXTS[focus.lang], trace.meta["ttt"]
    hover: dict[str, Any] = {"hovertemplate": words["hover"], "meta": {"select": {}}}
    one = kv_bytes_of(trace.meta["shape"])
    lines = [
        parts.line(words["state"], CONTEXTS, [meta["state_bytes"]] * len(CONTEXTS), parts.LEARNED, **hover),
        parts.line(words["attention"], CONTEXTS, [one * n for n in CONTEXTS], parts.BEFORE, "dash", **hover),
    ]
    for (name, each), colour, dash in zip(meta["kv_beside"].items(), OTHERS, DASHES, strict=False):
        if each == one:  # the line is there: it has its name
            lines[1]["name"] = words["same"].format(name=name)
            continue
        kept = [each * n for n in CONTEXTS]
        lines.append(parts.line(words["other"].format(name=name), CONTEXTS, kept, colour, dash, **hover))
    known = [frame for frame in trace.frames if frame["pass_ms"] is not None]
    took = {
        "type": "scatter",
        "mode": "markers",
        "name": words["in_run"],
        "showlegend": False,
        "x": [frame["index"] for frame in known],
        "y": [parts.short((frame["pass_ms"] or 0) / frame["pass_tokens"]) for frame in known],
        "xaxis": "x2",
        "yaxis": "y2",
        "marker": {"color": parts.LEARNED, "size": 5},
        "hovertemplate": words["hover_ms"] + "<extra></extra>",
    }
    ticks = {"type": "log", "tickvals": CONTEXTS[::2], "ticktext": [f"{n:,}" for n in CONTEXTS[::2]]}
    axes = {
        "xaxis": {"title": {"text": words["context"]}, "showgrid": False, **ticks},
        "yaxis": {
            "title": {"text": words["bytes"]},
            "type": "log",
            "domain": [0.56, 1],
            "tickformat": "~s",
            "nticks": 5,
        },
        "xaxis2": {"title": {"text": parts.WORDS[focus.lang]["token"]}, "anchor": "y2", "showgrid": False},
        "yaxis2": {"title": {"text": words["ms"]}, "domain": [0, 0.3], "type": "log", "tickvals": MS},
    }
    return {"data": [*lines, took], "layout": parts.layout(HEIGHT, _said(trace, "head", focus.lang), **axes)}


figure, patch = parts.checked(data), parts.patched(data)


def summary(trace: Trace, focus: TTTFocus) -> str:
    """One sentence: the state's bytes, and from where on attention takes more."""
    return _said(trace, "summary", focus.lang)
