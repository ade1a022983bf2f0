"""RoPE past the trained length: perplexity by position, beside the same words read within it; and whether its two forms agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from loopviz.anatomy import rope
from loopviz.anatomy.llama import rotary_frequencies
from loopviz.checks import FieldError, check_whole
from loopviz.engine import context_length
from loopviz.engine.work import Shape, Work
from loopviz.lab.headline import known, number
from loopviz.lab.progress import Progress
from loopviz.lab.reading.full_pass import nats
from loopviz.lab.reading.one_pass import PassParams
from loopviz.lab.reading.reach import Reach
from loopviz.lab.reading.windows import TextWindows, cut, encode
from loopviz.lab.task import MOST_TOKENS, MOST_WINDOW, Row, Subject, Task, column, loop_param, param, register, titled
from loopviz.lab.walk import Walk, until
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.interrupt import check
from loopviz.model.packed import dense_weight

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "rope_length", 220
TITLE = {"en": "RoPE past the trained length", "zh": "超出训练长度的 RoPE"}

TIMES = 2  # the trained length, where no length is said
BATCH = 4
QUERIES = 8  # of a stretch whose scores are computed in both forms
PIECE = 2**14  # tokens whose keys, or scores, are computed at once
KEYS = 0.1  # of a reading of the text, at most: what both forms of its keys take
AGREE = 1e-3  # of the largest score: two forms less apart differ by rounding alone


@dataclass(frozen=True)
class LengthParams(PassParams):
    """Parameters of the positions past the trained length."""

    tokens: int = param(4096, "Tokens to predict, at most.", "最多预测的词元数。", low=2, high=MOST_TOKENS)
    length: int = param(
        0,
        "Tokens read at once; 0: twice as many as the model was made for.",
        "一次读入的词元数；0 表示模型设计长度的两倍。",
        low=0,
        high=MOST_WINDOW,
    )
    stretches: int = param(16, "Stretches that the positions are put into.", "把各位置分成的段数。", low=1, high=256)
    loop: dict[str, Any] | None = loop_param()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("stretches", self.stretches, 1)
        if self.length == 1:
            raise FieldError("length", self.length, "at_least", low=2)

    def at_once(self, subject: Subject) -> int:
        """Predictions of the long reading."""
        return self.length or TIMES * context_length(subject.model)

    def expected(self, subject: Subject) -> int:
        """About how many tokens are read."""
        return max(2, min(self.tokens, subject.tokens_in(self.read())))

    def windows(self, subject: Subject) -> tuple[TextWindows, TextWindows]:
        """The text read long, from its beginning and anew where that ends; and in windows of the trained length, each token but
        those of the beginning with at least half of it to look back on."""
        ids = encode(subject.tokenizer, self.read(), self.tokens + 1)
        trained = context_length(subject.model)
        return cut(ids, self.at_once(subject), 0), cut(ids, trained, trained // 2)


def _spans(params: LengthParams, length: int) -> list[tuple[int, int]]:
    """Stretches of the positions 0 to length - 1, as first and last."""
    ends = [round(i * length / params.stretches) for i in range(params.stretches + 1)]
    return [(a, b - 1) for a, b in itertools.pairwise(ends) if b > a]


def _longest(long: TextWindows, params: LengthParams, subject: Subject) -> int:
    return min(params.at_once(subject), long.longest - 1)


def _cells(subject: Subject, params: LengthParams) -> int:
    long, _ = params.windows(subject)
    return len(_spans(params, _longest(long, params, subject)))


def _work(subject: Subject, params: LengthParams) -> Work:
    shape, tokens = subject.shape(subject.view(params.loop)), params.expected(subject)
    trained = context_length(subject.model)
    long = Reach.of(tokens, params.at_once(subject), 0, BATCH)
    near = Reach.of(tokens, trained, trained // 2, BATCH)
    read = long.whole(shape) + near.whole(shape) + long.text + _forms_work(shape, long.length, params.stretches)
    return read + Work(kept=16 * tokens)


def _forms_work(shape: Shape, length: int, stretches: int) -> Work:
    """Scores in both forms: keys once, then some queries of each stretch against all keys before it."""
    size, piece = max(4, shape.itemsize), min(PIECE, length)
    keys = 2 * length * shape.kv_heads * shape.head_dim
    return Work(
        passes=1 + stretches,
        layer_tokens=length + stretches * QUERIES,  # a token's layer multiplies more than both forms' projections
        pairs=QUERIES * stretches * length / 2,  # two products each, as attention's own
        states=(2 * keys + piece * (3 * shape.hidden + 4 * shape.kv_heads * shape.head_dim)) * size,
        attention=4 * shape.heads * QUERIES * piece * size,
    )


def losses(
    model: LoopLlamaForCausalLM, windows: TextWindows
) -> Generator[float, None, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each prediction that counts: which of the text it is, its position in its window, and its loss in nats.

    Yields:
        How much is done, in 0..1.
    """
    place, position, loss = [], [], []
    done = 0
    for part in windows.batches(BATCH):
        ids = part.ids.to(model.device)
        hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state
        found = nats(model, hidden, ids[:, 1:]).cpu()
        row, t = part.counted.nonzero(as_tuple=True)
        place.append((part.starts[row] + t).numpy())
        position.append(t.numpy())
        loss.append(found[row, t].numpy())
        done += len(part)
        yield done / len(windows)
    return np.concatenate(place), np.concatenate(position), np.concatenate(loss)


def _turned(model: LoopLlamaForCausalLM, name: str, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """A projection of the first layer in both forms of RoPE, transformers' and Meta's, `[N, T, D]` each.

    The projection of Meta's form is transformers' with its rows permuted (:func:`loopviz.anatomy.rope.projection_to_pairs`).

    Args:
        name: `q_proj` or `k_proj`.
        ids, positions: `[T]`; states are the tokens' embeddings.
    """
    config, layer = model.config, model.model.layers[0]
    count = config.num_attention_heads if name == "q_proj" else config.num_key_value_heads
    wide = torch.promote_types(model.dtype, torch.float32)
    states = layer.input_layernorm(model.model.embed_tokens(ids)).to(wide)  # [T, H]
    frequencies = rotary_frequencies(config).to(device=ids.device, dtype=wide)
    projection = getattr(layer.self_attn, name)
    weight, bias = dense_weight(projection).to(wide), None if projection.bias is None else projection.bias.to(wide)

    def heads(weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.nn.functional.linear(states, weight, bias).unflatten(-1, (count, -1)).transpose(0, 1)

    halves = rope.rotate_halves(heads(weight, bias), frequencies, positions)
    permuted = rope.projection_to_pairs(weight, count), None if bias is None else rope.projection_to_pairs(bias, count)
    return halves, rope.rotate_pairs(heads(*permuted), frequencies, positions)


@torch.no_grad()
def keys_of_both_forms(model: LoopLlamaForCausalLM, ids: Tensor) -> Generator[float, None, tuple[Tensor, Tensor]]:
    """The first layer's keys of a text in RoPE's two forms, `[K, T, D]` each, once for all its stretches.

    Args:
        ids: `[T]`.

    Yields:
        How much is done, in 0..1.
    """
    parts = []
    for positions in torch.arange(len(ids), device=ids.device).split(PIECE):
        check()
        parts.append(_turned(model, "k_proj", ids[positions], positions))
        yield (int(positions[-1]) + 1) / len(ids)
    one, other = (torch.cat(form, dim=1) for form in zip(*parts, strict=True))
    return one, other


@torch.no_grad()
def scores_of_both_forms(
    model: LoopLlamaForCausalLM, ids: Tensor, keys: tuple[Tensor, Tensor], first: int, last: int
) -> tuple[float, float]:
    """The largest difference of the first layer's scores in RoPE's two forms, and the largest score.

    Queries of some positions from `first` to `last` against all keys before them.

    Args:
        ids: `[T]`.
        keys: :func:`keys_of_both_forms` of them.
    """
    config = model.config
    some = torch.linspace(first, last, min(QUERIES, last - first + 1), device=ids.device).round().long().unique()
    queries = _turned(model, "q_proj", ids[some], some)  # [N, Q, D]
    apart, largest = [], []
    for positions in torch.arange(last + 1, device=ids.device).split(PIECE):
        check()
        hidden = positions > some[:, None]  # [Q, T]
        one, other = (
            # a K/V head's queries together: [K, N / K * Q, D] with [K, D, T]
            (query.reshape(len(key), -1, query.shape[-1]) @ key[:, positions].transpose(1, 2) / config.head_dim**0.5)
            .view(*query.shape[:2], -1)
            .masked_fill(hidden, 0.0)
            for query, key in zip(queries, keys, strict=True)
        )
        apart.append((one - other).abs().max())
        largest.append(one.abs().max())
    return float(torch.stack(apart).max()), float(torch.stack(largest).max())  # of NaN, NaN


@torch.no_grad()
def _run(subject: Subject, params: LengthParams) -> Iterator[Row | float]:
    view, (long, near) = subject.view(params.loop), params.windows(subject)
    trained, progress = context_length(subject.model), Progress(2 + KEYS)
    place, position, loss = yield from progress.part(1, losses(view, long))
    near_place, _, near_loss = yield from progress.part(1, losses(view, near))
    within = np.full(max(place.max(), near_place.max()) + 1, np.nan)
    within[near_place] = near_loss
    first = torch.from_numpy(np.array(long.text[: long.longest], dtype=np.int64)).to(view.device)
    keys = yield from progress.part(KEYS, keys_of_both_forms(view, first))
    for start, end in _spans(params, _longest(long, params, subject)):
        here = (position >= start) & (position <= end)
        apart, largest = scores_of_both_forms(view, first, keys, start, end)
        mean = float(loss[here].mean()) if here.any() else None
        same = float(within[place[here]].mean()) if here.any() else None
        yield {
            "first": start,
            "last": end,
            "trained": trained,
            "beyond": start >= trained,
            "tokens": int(here.sum()),
            "nats": mean,
            "perplexity": _exp(mean),
            "near_nats": same,
            "near_perplexity": _exp(same),
            "forms": apart,
            "scores": largest,
        }


def _exp(loss: float | None) -> float | None:
    return None if loss is None or loss > 700 else math.exp(loss)


COLUMNS = tuple(
    column(*told)
    for told in (
        ("first", "", "From: first position of the stretch", "自：该段的第一个位置"),
        ("last", "", "To: last position of it", "至：该段的最后一个位置"),
        ("trained", "tokens", "Made for: tokens that the model reads at once", "设计长度：模型一次能读的词元数"),
        ("beyond", "", "Beyond: whether the stretch begins past that", "超出：该段是否在此之后"),
        ("tokens", "tokens", "Tokens: predicted there", "词元：在该段预测的"),
        ("nats", "nats", "Loss: mean -log p of a token there", "损失：该段每个词元 −log p 的平均值"),
        ("perplexity", "", "Perplexity: exp of the loss", "困惑度：损失的指数"),
        ("near_nats", "nats", "Loss within: of the same words, read within the length it is made for", "长度内的损失：同样的词在设计长度内读"),
        ("near_perplexity", "", "Perplexity within: exp of it", "长度内的困惑度：其指数"),
        ("forms", "", "Forms apart: largest difference of the first layer's scores, complex pairs against rotate-half", "两种写法之差：第一层打分，复数写法与半转写法的最大差"),
        ("scores", "", "Of up to: the largest score there", "量级：该段最大的打分"),
    )
)  # fmt: skip

WORDS = {
    "en": {
        "question": "What happens at positions that the model has never been trained at?",
        "how": "The text is read in one piece longer than the model is made for, and its loss told by position; the same "
        "words are read again in windows of the length it is made for, each with at least half a window to look back on. "
        "Beside it, the first layer's queries and keys are turned in both forms of RoPE, Meta's complex pairs and transformers' "
        "rotate-half, after the permutation of rows that leads from one to the other.",
        "cost": "The text once in long pieces, and about twice in short ones.",
        "seen": "After the first words of each piece, up to the line, the long reading does as well as the short ones; past the "
        "line the two curves show what new positions cost.",
        "why": "RoPE turns a pair of numbers by an angle that grows with the position, so beyond the trained length slow pairs "
        "reach angles, and heads distances, that no training step has shown them.",
        "looping": "A looped layer meets the same angles in every step, so a mistake at a new position is put into the next "
        "loop as well: more loops do not repair what positions spoil.",
    },
    "zh": {
        "question": "在模型从未训练过的位置上会发生什么？",
        "how": "文本按超过设计长度的整段读入，损失按位置给出；同样的词再按设计长度的窗口读一遍，每个词至少能回看半个窗口。"
        "另外，第一层的查询和键用 RoPE 的两种写法旋转：Meta 的复数写法与半转写法（rotate-half），行的排列按两者之间的换序调整。",
        "cost": "文本以长段读一遍，以短段约读两遍。",
        "seen": "读过每段最初几个词之后、竖线之前，整段读入与短窗口一样好；越过竖线之后，两条曲线之差就是新位置的代价。",
        "why": "RoPE 把每对数转动一个随位置增大的角度，超出训练长度后，慢的数对转到、注意力头遇到了训练中从未出现过的角度和距离。",
        "looping": "循环的层在每一步都遇到同样的角度，所以新位置上的错误也会带进下一次循环：多循环并不能修好位置弄坏的东西。",
    },
}

_PLOT = {
    "en": {"x": "position", "y": "perplexity", "long": "read in one long piece", "near": "the same words, within the length",
           "trained": "made for {n}"},
    "zh": {"x": "位置", "y": "困惑度", "long": "整段读入", "near": "同样的词，在设计长度内", "trained": "设计长度 {n}"},
}  # fmt: skip


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Perplexity by position, both readings, and the length that the model is made for."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures, theme

    if table.empty:
        return table_figures.empty(lang)
    words, lines = _PLOT[lang], []
    middle = ((table["first"] + table["last"]) / 2).tolist()
    ends = [f"{a}–{b}" for a, b in zip(table["first"], table["last"], strict=True)]
    for i, (name, key) in enumerate((("long", "perplexity"), ("near", "near_perplexity"))):
        lines.append(
            go.Scatter(
                x=middle,
                y=table[key].tolist(),
                text=ends,
                name=words[name],
                mode="lines+markers",
                hovertemplate=f"{words[name]}<br>%{{text}}: %{{y:.4g}}<extra></extra>",
                **table_figures.series(i),
            )
        )
    trained = int(table["trained"].iloc[0])
    made = table_figures.figure(lines, x=words["x"], y=words["y"], yaxis={"type": "log"})
    if trained <= int(table["last"].max()):
        made.add_vline(
            x=trained,
            line={"dash": "dash", "width": 1, "color": theme.COLOURS["plain"]},
            annotation={"text": words["trained"].format(n=f"{trained:,}"), "showarrow": False, "yanchor": "bottom"},
        )
    return made


_HEADLINE = {
    "en": {
        "beyond": "At positions {first} to {last} perplexity is {there}; the same words read within the {trained} it is made "
        "for: {near}.",
        "partly": "At positions {first} to {last}, the last of them past the {trained} it is made for, perplexity is {there}; the "
        "same words read within that: {near}.",
        "within": "Up to position {last} perplexity is {there}; nothing of that was read past the {trained} it is made for.",
        "agree": " RoPE's two forms agree: scores are at most {forms} apart, of up to {scores}.",
        "differ": " RoPE's two forms do not agree: scores differ by up to {forms}, of up to {scores}.",
    },
    "zh": {
        "beyond": "在第 {first} 到 {last} 个位置，困惑度为 {there}；同样的词在设计长度 {trained} 之内读：{near}。",
        "partly": "在第 {first} 到 {last} 个位置（末尾部分超出设计长度 {trained}），困惑度为 {there}；同样的词在设计长度之内读：{near}。",
        "within": "到第 {last} 个位置，困惑度为 {there}；这些位置都没有超出设计长度 {trained}。",
        "agree": "RoPE 的两种写法一致：打分最多相差 {forms}（最大 {scores}）。",
        "differ": "RoPE 的两种写法不一致：打分相差可达 {forms}（最大 {scores}）。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The furthest stretch, and whether the two forms agree where they are furthest apart."""
    found, words = known(rows, "perplexity", "near_perplexity"), _HEADLINE[lang]
    if not found:
        return ""
    last = found[-1]
    where = "beyond" if last["beyond"] else "partly" if last["last"] >= last["trained"] else "within"
    said = {name: f"{last[name]:,}" for name in ("first", "last", "trained")}
    said |= {"there": number(last["perplexity"]), "near": number(last["near_perplexity"])}
    return words[where].format(**said) + _forms_said(rows, lang)


def _forms_said(rows: Sequence[Row], lang: str) -> str:
    found = known(rows, "forms", "scores")
    if not found:
        return ""
    worst = max(found, key=lambda row: row["forms"] / max(row["scores"], 1e-30))
    key = "agree" if worst["forms"] <= AGREE * worst["scores"] else "differ"
    return _HEADLINE[lang][key].format(forms=number(worst["forms"]), scores=number(worst["scores"]))


FIRST = {"tokens": 2048, "stretches": 8}
register(
    Task(
        NAME,
        LengthParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        first=FIRST,
        fits=("tokens",),
        work=_work,
        headline=headline,
        walk=Walk(
            "first",
            {"en": "From position", "zh": "起始位置"},
            lambda row: (row["first"] + row["last"]) / 2,
            headline,
            until,
        ),
        asks=("length",),
        group="anatomy",
    )
)
