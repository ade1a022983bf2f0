"""LLaMA 1, 2 and 3 in numbers: parameters, cache and operations of a token, what logits cost; the loaded model beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopviz.anatomy import families
from loopviz.checks import check_whole
from loopviz.engine.work import NOTHING, Work
from loopviz.lab.headline import byte_words, is_finite, known, number
from loopviz.lab.task import MOST_WINDOW, Row, Subject, Task, column, param, register, titled
from loopviz.lab.walk import Walk
from loopviz.model.precision import weight_count

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "llama_sizes", 270
TITLE = {"en": "LLaMA 1, 2, 3 in numbers", "zh": "LLaMA 1、2、3 的数字"}

HALF = 2  # bytes of a number in the published models' weights and caches


@dataclass(frozen=True)
class SizesParams:
    """Parameters of the table of sizes."""

    context: int = param(
        2048, "Tokens that are read: for attention's operations and the logits.", "读入的词元数：用于注意力的运算量和输出分数。", low=1, high=MOST_WINDOW
    )  # fmt: skip
    loop: dict[str, Any] | None = param(
        {},
        "Loop fields of the loaded model to change; null counts it without its loop.",
        "要更改的所载入模型的循环设置；null 表示不计循环。",
        kind="loop",
    )

    def __post_init__(self) -> None:
        check_whole("context", self.context, 1)


def _cells(subject: Subject, params: SizesParams) -> int:
    return len(families.SIZES) + 1


def _work(subject: Subject, params: SizesParams) -> Work:
    subject.view(params.loop)  # refused now
    return NOTHING


def _run(subject: Subject, params: SizesParams) -> Iterator[Row]:
    view = subject.view(params.loop)
    for size in families.SIZES.values():
        yield _row(size.name, size.generation, size.tokens, size, params.context)
    shape = subject.shape(view)
    own = _row(_called(subject.name), None, None, view.config, params.context)
    products, attention, output = _gflop(view.config, params.context)
    yield {
        **own,
        "parameters": weight_count(subject.model),
        "kv_bytes": HALF * shape.kv_bytes / shape.itemsize,
        "runs": shape.calls,
        "gflop": (products * shape.calls + attention * shape.key_calls) / shape.layers + output,
    }


def _is_own(row: Row) -> bool:
    """Whether it is the loaded model's: it is of no generation, which a table's own form writes as NaN."""
    return not is_finite(row["generation"])


def _called(name: str) -> str:
    """A model's name without the folder it lies in."""
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def _gflop(config: Any, context: int) -> tuple[float, float, float]:
    """Operations for one more token, each layer run once: with the layers' weights, of attention, of the head."""
    bare, output = families.flops(config), families.logits_cost(config, 1).flops
    return (bare - output) / 1e9, (families.flops(config, context) - bare) / 1e9, output / 1e9


def _row(name: str, generation: int | None, tokens: float | None, config: Any, context: int) -> Row:
    last, every = (families.logits_cost(config, positions) for positions in (1, context))
    return {
        "model": name,
        "generation": generation,
        "runs": int(config.num_hidden_layers),
        "width": int(config.hidden_size),
        "heads": int(config.num_attention_heads),
        "kv_heads": families.key_value_heads(config),
        "inner": int(config.intermediate_size),
        "vocabulary": int(config.vocab_size),
        "context": int(config.max_position_embeddings),
        "trained_on": None if tokens is None else tokens / families.T,
        "parameters": families.parameters(config),
        "group": int(config.num_attention_heads) // families.key_value_heads(config),
        "kv_bytes": families.kv_bytes(config, HALF),
        "gflop": families.flops(config, context) / 1e9,
        "last_bytes": last.bytes,
        "all_bytes": every.bytes,
        "all_gflop": (every.flops - last.flops) / 1e9,
    }


COLUMNS = tuple(
    column(*told)
    for told in (
        ("model", "", "Model: a published size, or the one that is loaded", "模型：公布的规模，或所载入的模型"),
        ("generation", "", "Generation: 1, 2 or 3", "代：1、2 或 3"),
        ("runs", "", "Layers: runs of a layer for a token, loops counted; at most, where a loop may stop early", "层数：每个词元的层运行次数，循环计入；循环可能提前停下时为上限"),
        ("width", "", "Width: numbers in a state", "宽度：一个状态的数的个数"),
        ("heads", "", "Heads: of queries", "查询头数"),
        ("kv_heads", "", "K/V heads: keys and values", "键值头数：键和值"),
        ("inner", "", "Middle: width of the MLP", "中间：前馈层的宽度"),
        ("vocabulary", "", "Vocabulary: tokens that there are", "词表：词元的种类数"),
        ("context", "tokens", "Context: it was published with", "上下文：公布时的长度"),
        ("trained_on", "", "Trained on: trillions of tokens, at least", "训练：至少用的词元数（万亿）"),
        ("parameters", "", "Parameters: numbers in its weights", "参数：权重中数的个数"),
        ("group", "", "Sharing: query heads that read one K/V head", "共用：读同一键值头的查询头数"),
        ("kv_bytes", "bytes", "Cache: of a token, two bytes a number, with a loop's slots", "缓存：每个词元，每数两字节，含循环各槽"),
        ("gflop", "", "GFLOP: for one more token, with as many runs and all slots that they read, at most", "运算量：再写一个词元，十亿次（GFLOP），按上述次数和所读的全部槽计，为上限"),
        ("last_bytes", "bytes", "Last logits: of the last position alone, as LLaMA 1's forward gives", "末位分数：只算最后一个位置（LLaMA 1 的做法）"),
        ("all_bytes", "bytes", "All logits: of every position, as Llama 2's gives", "全部分数：算每个位置（Llama 2 的做法）"),
        ("all_gflop", "", "All logits, GFLOP: that they cost more", "全部分数多出的运算：十亿次（GFLOP）"),
    )
)  # fmt: skip

WORDS = {
    "en": {
        "question": "What changed from LLaMA 1 to LLaMA 3, in bytes and operations?",
        "how": "The published sizes, each with its source in loopviz/anatomy/families.py, and the loaded model: parameters, "
        "bytes that a token leaves in the cache, operations for one more token, and what the head costs when it answers for "
        "the last position alone, as LLaMA 1's code does, or for all of a prompt. Computed from the shapes.",
        "cost": "Arithmetic.",
        "seen": "From LLaMA 1 to 3 models grow faster than the cache of a token: the large ones share keys and values.",
        "why": "The cache has two numbers for each K/V head, head width and layer; grouped queries keep 8 heads however wide "
        "the model is.",
        "looping": "A loop adds runs of a layer, and where it keeps a slot a step cache too, but no parameter: it moves up in "
        "this picture, and not to the right.",
    },
    "zh": {
        "question": "从 LLaMA 1 到 LLaMA 3，字节和运算量变了多少？",
        "how": "公布的各规模（来源均写在 loopviz/anatomy/families.py 中）和所载入的模型：参数、一个词元留在缓存中的字节、再写一个词元的运算量，"
        "以及输出层只为最后一个位置（如 LLaMA 1 的代码）或为整个提示作答时的代价。全部由形状算出。",
        "cost": "只有算术。",
        "seen": "从 LLaMA 1 到 3，模型比每个词元的缓存增长得更快：大模型共用键和值。",
        "why": "缓存对每个键值头、每个头宽、每层存两个数；分组查询无论模型多宽都只保留 8 个头。",
        "looping": "循环增加层的运行次数，若每步一个槽也增加缓存，却不增加参数：在图中它往上走，而不往右走。",
    },
}

_PLOT = {
    "en": {"x": "parameters", "y": "cache of a token, kB", "of": "LLaMA {n}", "own": "{model}"},
    "zh": {"x": "参数", "y": "每个词元的缓存（kB）", "of": "LLaMA {n}", "own": "{model}"},
}


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Cache against parameters, a line a generation, and the loaded model."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    if table.empty:
        return table_figures.empty(lang)
    words, lines = _PLOT[lang], []
    rows = table.to_dict("records")
    own = [row for row in rows if _is_own(row)]
    groups = [(words["of"].format(n=n), [row for row in rows if row["generation"] == n]) for n in (1, 2, 3)]
    groups += [(words["own"].format(model=row["model"]), [row]) for row in own]
    for i, (name, part) in enumerate(group for group in groups if group[1]):
        lines.append(
            go.Scatter(
                x=[row["parameters"] for row in part],
                y=[row["kv_bytes"] / 1e3 for row in part],
                text=[row["model"] for row in part],
                name=name,
                mode="lines+markers",
                hovertemplate="%{text}<br>%{x:,}<br>%{y:.4g} kB<extra></extra>",
                **table_figures.series(i),
            )
        )
    log = {"type": "log", "dtick": 1}
    return table_figures.figure(lines, x=words["x"], y=words["y"], xaxis=log, yaxis=log)


_HEADLINE = {
    "en": {
        "first": "A token takes {bytes} of cache in {model}.",
        "last": " In {model}, where {group} query heads share keys and values, it takes {bytes}, with {times} parameters.",
        "own": " In {model}, which runs at most {runs} layers for it, {bytes}.",
    },
    "zh": {
        "first": "在 {model} 中，每个词元的缓存占 {bytes}。",
        "last": "在 {model} 中每 {group} 个查询头共用键和值，只占 {bytes}，参数为 {times} 个。",
        "own": "在 {model} 中，一个词元最多经过 {runs} 次层运行，占 {bytes}。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The last of LLaMA 1, the last of all, and the loaded model."""
    found, words = known(rows, "parameters", "kv_bytes"), _HEADLINE[lang]
    parts = {
        "first": [row for row in found if row["generation"] == 1],
        "last": [row for row in found if row["generation"] == 3],
        "own": [row for row in found if _is_own(row)],
    }
    said = ""
    for key, part in parts.items():
        if part:
            row = part[-1]
            told = {"model": row["model"], "group": row["group"], "runs": number(row["runs"])}
            said += words[key].format(**told, bytes=byte_words(row["kv_bytes"]), times=number(row["parameters"]))
    return said


_SIZE = {
    "en": {
        "said": "{model}: {parameters} parameters. One more token takes {bytes} of cache and {gflop} GFLOP",
        "own": "{model}: {parameters} parameters. One more token takes {bytes} of cache and at most {gflop} GFLOP",
        "shared": "; {group} query heads share keys and values.",
        "each": "; every query head has keys and values of its own.",
    },
    "zh": {
        "said": "{model}：{parameters} 个参数。再写一个词元需要 {bytes} 缓存、{gflop} GFLOP 运算",
        "own": "{model}：{parameters} 个参数。再写一个词元需要 {bytes} 缓存，至多 {gflop} GFLOP 运算",
        "shared": "；每 {group} 个查询头共用键和值。",
        "each": "；每个查询头都有自己的键和值。",
    },
}


def size_said(rows: Sequence[Row], lang: str) -> str:
    """One size, by itself."""
    found, words = known(rows, "parameters", "kv_bytes", "gflop", "group"), _SIZE[lang]
    if not found:
        return ""
    row = found[-1]
    told = {
        "parameters": number(row["parameters"]),
        "bytes": byte_words(row["kv_bytes"]),
        "gflop": number(row["gflop"]),
    }
    shared = words["shared" if row["group"] > 1 else "each"].format(group=number(row["group"]))
    return words["own" if _is_own(row) else "said"].format(model=row["model"], **told) + shared


FIRST = {"context": 2048}
register(
    Task(
        NAME,
        SizesParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        fits=(),
        work=_work,
        headline=headline,
        walk=Walk("model", {"en": "Model", "zh": "模型"}, lambda row: row["parameters"], size_said),
        asks=("context",),
        group="anatomy",
    )
)
