"""KV projection: what this run's way of keeping K and V would cost in models people deploy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, fill
from loopviz.loop_fields import EXACT, kept_by_layer
from loopviz.panels.kit import follower, parts
from loopviz.panels.kit.focus import BATCHES, CONTEXTS

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "kv_projection"
GROUP = "memory"
ORDER = 34
CODE: tuple[str, ...] = (
    "loopviz.panels.loop.kv_projection:plain_bytes",
    "loopviz.panels.loop.kv_projection:factors",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ()
HEIGHT = 430
ITEMSIZE = 2  # bytes of a bfloat16
SCALE_BYTES = 4  # of a head of K/V in 8 bits

# Published shapes (each model's config.json): layers, key/value heads, head dimension, longest context it was made for.
MODELS: dict[str, tuple[int, int, int, int]] = {
    "SmolLM2-135M": (30, 3, 64, 8192),
    "Llama-3.2-1B": (16, 8, 64, 131072),
    "Llama-3.2-3B": (28, 8, 128, 131072),
    "Llama-3-8B": (32, 8, 128, 8192),
    "Llama-3-70B": (80, 8, 128, 8192),
}
TOLD = "Llama-3-8B"  # the one a summary speaks of

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What would this cost in a real model?",
        "question": "How much memory would the KV cache of well-known models take, kept as this run keeps it?",
        "how": "A group of bars is a published model, at the context and batch chosen above. Plain: that model as it is. "
        "This run: the same fraction of its layers loops as here, and every looped layer holds as many slots as here; so "
        "the bytes of plain are multiplied by this run's slots held per layer, on average over its layers. Unrolled: the same "
        "fraction of layers, with a separate cache for every loop step, at this run's mean number of loops up to the "
        "selected token. Only K and V are counted: no weights, no activations. A context longer than a model was made "
        "for is counted all the same. Where this run keeps K and V in 8 bits (kv_cache_dtype), its bars do too: a byte a number, and 4 for "
        "the scale of each token's key and value of a head; the factor above the bars is then that of Llama-3-8B.",
        "formula": r"\text{bytes} = T\,B\cdot 2\,D\,K\cdot 2\cdot L\cdot f,\qquad f_{\text{plain}}=1,\quad "
        r"f_{\text{run}}=\frac{\text{slots held, summed over this run's layers}}{L_{\text{run}}},\quad "
        r"f_{\text{unrolled}}=1+\frac{\sum_{\text{blocks}}(\overline{N}-1)(b-a+1)}{L_{\text{run}}}",
        "units": "Bytes with decimal prefixes (1 GB = 1000 MB). T: tokens of context, B: sequences at once, D: size of a "
        "head, K: key/value heads, L: layers, N: loops; 2 bytes a number (bfloat16).",
        "source": "Shapes from the models' published configurations; slots held and loops counted in this run, up to the "
        "selected token. A calculation, not a measurement: none of these models was run.",
        "cost": "Nothing beyond what every run records.",
        "no_data": "Nothing read yet: the bars appear with the first token",
        "context": "context",
        "batch": "batch",
        "tokens": "{count} tokens",
        "model": "model",
        "bytes": "KV cache",
        "plain": "plain",
        "used": "this run's cache",
        "unrolled": "unrolled",
        "hover": "%{{y}}, {name}<br>%{{x:.4s}}B<br>%{{customdata}}",
        "shape": "{layers} layers, {heads} KV heads of {dim}, made for {limit} tokens",
        "head": "{context} tokens × batch {batch}, bfloat16<br>beside plain: this run × {used} · unrolled × {unrolled}",
        "summary": "As of {token}, this run's cache takes {used_ratio} times, an unrolled one {unrolled_ratio} times the "
        "bytes of a plain Llama: at {context} tokens and batch {batch} in bfloat16, {model} would hold {plain} plain, {used} "
        "kept as in this run, {unrolled} unrolled.",
    },
    "zh": {
        "title": "换成真实模型要多少内存？",
        "question": "若按本次运行的方式保存，常见模型的 KV 缓存会占多少内存？",
        "how": "一组柱子是一个公开发布的模型，上下文长度与批大小在上方选择。普通：模型原样。本次运行：与这里相同比例的层参与循环，"
        "每个循环层持有与这里相同数量的槽位；因此等于普通的字节数乘以本次运行平均每层持有的槽位数。展开：相同比例的层，每个循环步各有一份缓存，"
        "循环次数取本次运行截至所选词元的平均值。只计算 K 与 V，不含权重和激活。上下文超过模型设计长度时仍照样计算。"
        "若本次运行以 8 位保存 K 与 V（kv_cache_dtype），它的柱子也如此：每个数 1 字节，每个词元每个头的键和值各另有 4 字节的缩放系数；"
        "柱子上方的倍数此时是 Llama-3-8B 的。",
        "formula": r"\text{bytes} = T\,B\cdot 2\,D\,K\cdot 2\cdot L\cdot f,\qquad f_{\text{plain}}=1,\quad "
        r"f_{\text{run}}=\frac{\text{slots held, summed over this run's layers}}{L_{\text{run}}},\quad "
        r"f_{\text{unrolled}}=1+\frac{\sum_{\text{blocks}}(\overline{N}-1)(b-a+1)}{L_{\text{run}}}",
        "units": "字节，十进制前缀（1 GB = 1000 MB）。T：上下文词元数，B：同时处理的序列数，D：每个头的维度，K：键/值头数，"
        "L：层数，N：循环次数；每个数 2 字节（bfloat16）。",
        "source": "模型形状取自其公开的配置；持有的槽位与循环次数取自本次运行，截至所选词元。这是计算而非实测：并未运行这些模型。",
        "cost": "除每次运行本来就记录的内容外，没有额外开销。",
        "no_data": "尚未读入词元：读入第一个词元后柱子出现",
        "context": "上下文",
        "batch": "批大小",
        "tokens": "{count} 个词元",
        "model": "模型",
        "bytes": "KV 缓存",
        "plain": "普通",
        "used": "本次运行的缓存",
        "unrolled": "展开",
        "hover": "%{{y}}，{name}<br>%{{x:.4s}}B<br>%{{customdata}}",
        "shape": "{layers} 层，{heads} 个 KV 头，每头 {dim} 维，设计长度 {limit} 个词元",
        "head": "{context} 个词元 × 批大小 {batch}，bfloat16<br>与普通相比：本次运行 × {used} · 展开 × {unrolled}",
        "summary": "截至{token}，本次运行的缓存是普通 Llama 的 {used_ratio} 倍，展开是 {unrolled_ratio} 倍：上下文 {context} 个词元、"
        "批大小 {batch}、bfloat16 时，{model} 普通需要 {plain}，按本次运行的方式 {used}，展开 {unrolled}。",
    },
}

_FOLLOWER = follower.Follower()
KINDS = ("plain", "used", "unrolled")  # traces, and the frame's bytes_*
_COLOURS = {"plain": "plain", "used": "kv_used", "unrolled": "unrolled"}
_PATTERNS = {"plain": "", "used": "/", "unrolled": "."}


def plain_bytes(model: str, context: int, batch: int) -> int:
    """Bytes of the KV cache of ``model`` as published: ``batch`` sequences of ``context`` tokens, bfloat16."""
    layers, heads, dim, _ = MODELS[model]
    return 2 * dim * heads * ITEMSIZE * layers * context * batch


def factors(meta: Mapping[str, Any], frame: Mapping[str, Any], dim: int) -> dict[str, float]:
    """How many times a plain Llama's bytes each way of ``KINDS`` takes in this run, up to ``frame``.

    Args:
        meta: of the run: what it keeps K/V in.
        dim: of a head of the model that is asked about, which a scale of K/V in 8 bits is shared by.
    """
    kv = frame["kv"]
    found = {kind: kv[f"bytes_{kind}"] / kv["bytes_plain"] for kind in KINDS}
    kept = kept_by_layer(((*block["layers"], block["kv_dtype"]) for block in meta["blocks"]), len(kv["slots"]))
    if set(kept) == {EXACT}:
        return found
    rounded = (1 + SCALE_BYTES / dim) / ITEMSIZE  # of a number's bytes
    held = sum((1 if dtype == EXACT else rounded) * sum(own) for dtype, own in zip(kept, kv["slots"], strict=True))
    return found | {"used": held / (len(kept) * (frame["index"] + 1))}


def _sizes(kind: str, meta: Mapping[str, Any], frame: Mapping[str, Any], focus: Focus) -> list[int]:
    """A bar's bytes for every model: exact for plain, else to four digits."""
    found = []
    for model, (_, _, dim, _) in MODELS.items():
        factor, size = factors(meta, frame, dim)[kind], plain_bytes(model, focus.context, focus.batch)
        found.append(size if factor == 1 else int(labels.sig(size * factor)))
    return found


def _chosen(meta: Mapping[str, Any], frames: int, frame: Mapping[str, Any] | None, focus: Focus) -> dict[Path, Any]:
    """All that depends on which token is selected, by path."""
    words = TEXTS[focus.lang]
    missing, head = "", " "
    if frame is None:
        missing = follower.unread(frames, focus, words["no_data"])
    else:
        ratios = {kind: f"{factor:.3g}" for kind, factor in factors(meta, frame, MODELS[TOLD][2]).items()}
        head = words["head"].format(context=f"{focus.context:,}", batch=focus.batch, **ratios)
    return {
        **{("data", i, "x"): [] if frame is None else _sizes(kind, meta, frame, focus) for i, kind in enumerate(KINDS)},
        ("layout", "title", "text"): head,
        **parts.notice(missing),
    }


def _data(lang: str) -> list[dict[str, Any]]:
    words = TEXTS[lang]
    shapes = [
        words["shape"].format(layers=layers, heads=heads, dim=dim, limit=f"{limit:,}")
        for layers, heads, dim, limit in MODELS.values()
    ]
    return [
        {
            "type": "bar",
            "orientation": "h",
            "name": words[kind],
            "x": [],
            "y": list(MODELS),
            "customdata": list(shapes),
            "texttemplate": "%{x:.3s}B",
            "textposition": "outside",
            "textangle": 0,
            "cliponaxis": False,
            "textfont": {"size": 11},
            "marker": {
                "color": theme.COLOURS[_COLOURS[kind]],
                "pattern": {"shape": _PATTERNS[kind], "size": 5, "fillmode": "overlay", "solidity": 0.2},
            },
            "hovertemplate": words["hover"].format(name=words[kind]) + "<extra></extra>",
        }
        for kind in KINDS
    ]


def _choices(focus: Focus) -> dict[str, Any]:
    words = TEXTS[focus.lang]
    contexts = [(count, words["tokens"].format(count=f"{count // 1024}k")) for count in CONTEXTS]
    return {
        "context": follower.choice(words["context"], contexts, focus.context),
        "batch": follower.choice(words["batch"], [(count, str(count)) for count in BATCHES], focus.batch),
    }


def _skeleton(focus: Focus) -> dict[str, Any]:
    """The figure without any token."""
    words = TEXTS[focus.lang]
    layout = {
        "template": theme.template(),
        "height": HEIGHT,
        "margin": {"l": 20, "r": 62, "t": 52, "b": 10},
        "title": {"text": " ", "y": 1 - 20 / HEIGHT},
        "annotations": [labels.message(words["no_data"])],
        "barmode": "group",
        "bargap": 0.22,
        "xaxis": {
            "title": {"text": words["bytes"]},
            "tickformat": "~s",
            "ticksuffix": "B",
            "rangemode": "tozero",
            "nticks": 5,
        },
        "yaxis": {
            "type": "category",
            "title": {"text": words["model"]},
            "range": [len(MODELS) - 0.5, -0.5],  # the first above
            "showgrid": False,
        },
        "legend": {"y": -0.16, "yanchor": "top", "x": 0},
        "meta": {"choices": _choices(focus)},
    }
    return {"data": _data(focus.lang), "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: bytes of published models at ``focus.context`` and ``focus.batch``, kept in three ways."""
    at = focus.selected(len(trace))
    frame = None if at is None else trace.frames[at]
    return fill(_skeleton(focus), _chosen(trace.meta, len(trace), frame, focus))


figure = follower.checked(data)


def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: bars whose factor has moved, when the newest token is followed."""
    return _FOLLOWER.patch(trace, frame, focus, lambda frames, chosen: _chosen(trace.meta, frames, chosen, focus))


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: how many times plain the other ways take, and one model's three sizes."""
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if at is None:
        return follower.unread(len(trace), focus, words["no_data"])
    frame = trace.frames[at]
    told = list(MODELS).index(TOLD)
    sizes = {kind: labels.show_bytes(_sizes(kind, trace.meta, frame, focus)[told]) for kind in KINDS}
    ratios = {f"{kind}_ratio": f"{factor:.3g}" for kind, factor in factors(trace.meta, frame, MODELS[TOLD][2]).items()}
    shown = words["summary"].format(
        context=f"{focus.context:,}",
        batch=focus.batch,
        token=labels.token_label(frame, focus.lang),
        model=TOLD,
        **sizes,
        **ratios,
    )
    return labels.plain(shown)
