"""RoPE past the trained length: perplexity by position, beside the same words read within it; and its two forms, which agree."""

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
from loopviz.anatomy.llama import repeat_kv, rotary_frequencies
from loopviz.checks import FieldError, check_whole
from loopviz.engine import context_length
from loopviz.engine.work import Work
from loopviz.lab.headline import known, number
from loopviz.lab.progress import Progress
from loopviz.lab.reading.full_pass import nats
from loopviz.lab.reading.one_pass import PassParams
from loopviz.lab.reading.reach import Reach
from loopviz.lab.reading.windows import TextWindows, cut, encode
from loopviz.lab.task import MOST_TOKENS, MOST_WINDOW, Row, Subject, Task, column, param, register, titled
from loopviz.model import LoopLlamaForCausalLM

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NAME, ORDER = "rope_length", 220
TITLE = {"en": "RoPE past the trained length", "zh": "超出训练长度的 RoPE"}

TIMES = 2  # the trained length, where no length is said
BATCH = 4
QUERIES = 8  # of a stretch whose scores are computed in both forms


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
    loop: dict[str, Any] | None = param(
        {},
        "Loop fields to change; null measures the model without its loop.",
        "要更改的循环设置；null 表示去掉循环。",
        kind="loop",
    )

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
    keys = 3 * 4 * shape.heads * shape.head_dim * long.length * 4
    return long.whole(shape) + near.whole(shape) + long.text + Work(kept=keys + 16 * tokens)


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


@torch.no_grad()
def scores_of_both_forms(model: LoopLlamaForCausalLM, ids: Tensor, first: int, last: int) -> tuple[float, float]:
    """The largest difference of the first layer's scores in RoPE's two forms, and the largest score.

    Queries of some positions from `first` to `last` against all keys before them, of the tokens' embeddings. The projections of
    Meta's form are transformers' with their rows permuted (:func:`loopviz.anatomy.rope.projection_to_pairs`).

    Args:
        ids: `[T]`.
    """
    config, layer = model.config, model.model.layers[0]
    wide = torch.promote_types(model.dtype, torch.float32)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    positions = torch.arange(last + 1, device=ids.device)
    some = torch.linspace(first, last, min(QUERIES, last - first + 1), device=ids.device).round().long().unique()
    states = layer.input_layernorm(model.model.embed_tokens(ids[: last + 1])).to(wide)  # [T, H]
    frequencies = rotary_frequencies(config).to(device=ids.device, dtype=wide)
    found = []
    for turn, order in ((rope.rotate_halves, None), (rope.rotate_pairs, rope.projection_to_pairs)):
        turned = {}
        for name, count in heads.items():
            projection = getattr(layer.self_attn, name)
            weight, bias = projection.weight.to(wide), projection.bias
            if order is not None:
                weight, bias = order(weight, count), None if bias is None else order(bias, count)
            rows, at = (states[some], some) if name == "q_proj" else (states, positions)
            made = torch.nn.functional.linear(rows, weight, None if bias is None else bias.to(wide))
            turned[name] = turn(made.unflatten(-1, (count, -1)).transpose(0, 1), frequencies, at)  # [N, T, D]
        keys = repeat_kv(turned["k_proj"][None], heads["q_proj"] // heads["k_proj"])[0]
        found.append(turned["q_proj"] @ keys.transpose(1, 2) / config.head_dim**0.5)  # [N, Q, T]
    seen = positions <= some[:, None]
    one, other = (scores.masked_fill(~seen, 0.0) for scores in found)
    return float((one - other).abs().max()), float(one.abs().max())


@torch.no_grad()
def _run(subject: Subject, params: LengthParams) -> Iterator[Row | float]:
    view, (long, near) = subject.view(params.loop), params.windows(subject)
    trained, progress = context_length(subject.model), Progress(2)
    place, position, loss = yield from progress.part(1, losses(view, long))
    near_place, _, near_loss = yield from progress.part(1, losses(view, near))
    within = np.full(max(place.max(), near_place.max()) + 1, np.nan)
    within[near_place] = near_loss
    first = torch.from_numpy(np.array(long.text[: long.longest], dtype=np.int64)).to(view.device)
    for start, end in _spans(params, _longest(long, params, subject)):
        here = (position >= start) & (position <= end)
        apart, largest = scores_of_both_forms(view, first, start, end)
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
        "seen": "From its first words up to the line the long reading does as well as the short ones; past the line the two "
        "curves show what new positions cost.",
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
        "seen": "读过最初几个词之后、竖线之前，整段读入与短窗口一样好；越过竖线之后，两条曲线之差就是新位置的代价。",
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
        "within": "Up to position {last} perplexity is {there}: the text does not reach past the {trained} it is made for.",
        "forms": " RoPE's two forms agree: scores are at most {forms} apart, of up to {scores}.",
    },
    "zh": {
        "beyond": "在第 {first} 到 {last} 个位置，困惑度为 {there}；同样的词在设计长度 {trained} 之内读：{near}。",
        "within": "到第 {last} 个位置，困惑度为 {there}：文本没有超出设计长度 {trained}。",
        "forms": "RoPE 的两种写法一致：打分最多相差 {forms}（最大 {scores}）。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """The furthest stretch, and how far the two forms are apart at most."""
    found, words = known(rows, "perplexity", "near_perplexity"), _HEADLINE[lang]
    if not found:
        return ""
    last, worst = found[-1], max(found, key=lambda row: row["forms"])
    said = {name: f"{last[name]:,}" for name in ("first", "last", "trained")}
    said |= {"there": number(last["perplexity"]), "near": number(last["near_perplexity"])}
    forms = words["forms"].format(forms=number(worst["forms"]), scores=number(worst["scores"]))
    return words["beyond" if last["beyond"] else "within"].format(**said) + forms


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
        asks=("length",),
        group="anatomy",
    )
)
