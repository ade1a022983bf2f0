"""A checkpoint looked over: what it is, what a page's controls hold of it, and whether it computes as it should."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.checks import check_characters
from loopviz.engine import context_length
from loopviz.engine.pieces import decode, encode
from loopviz.engine.work import Work
from loopviz.lab.experiment import read_file
from loopviz.lab.reading.cached import through_cache
from loopviz.lab.reading.full_pass import nats
from loopviz.lab.reading.reach import ROW_BYTES, Reach
from loopviz.lab.reading.windows import apart
from loopviz.lab.reading.windows import encode as encode_text
from loopviz.lab.task import MOST_TOKENS, MOST_WINDOW, Row, Subject, Task, column, param, register, titled
from loopviz.loop_fields import BLOCK_FIELDS
from loopviz.model.interrupt import check
from loopviz.model.packed import quantization_of
from loopviz.model.precision import has_one_table, held_in, held_words, weight_count
from loopviz.paths import ASSETS

if TYPE_CHECKING:
    from loopviz.model import LoopLlamaForCausalLM

NAME, ORDER = "checkpoint", 110
TITLE = {"en": "Check my checkpoint", "zh": "检查我的检查点"}

BUNDLED = ASSETS / "texts" / "little-stories.txt"
SENTENCE = "The little loop read 3 words: 'one', \"two\" – and über, 三."
FINE, NOTE, BAD = "fine", "note", "problem"
CACHED = 32  # tokens that are read once more one by one
CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # nats that a pass and a cache may part; in two bytes a number, more
CLOSE_ELSE = 0.25
SURE = 0.95  # of a vocabulary's uniform guess: a loss above that share of it says that nothing was learnt, or is read


@dataclass(frozen=True)
class CheckpointParams:
    """Parameters of the check."""

    text: str = param(
        "", "Text of the sanity run; without one, a bundled story.", "试运行用的文本；不填则用自带的故事。", kind="text"
    )
    file: str = param("", "UTF-8 text file instead.", "或 UTF-8 文本文件。", kind="file")
    limit_tokens: int = param(256, "Tokens read at most.", "最多读入的词元数。", low=2, high=MOST_TOKENS)
    window: int = param(128, "Tokens a window.", "每个窗口的词元数。", low=2, high=MOST_WINDOW)
    loop: dict[str, Any] = param(
        {},
        "Loop settings of the looped run; of a model without a loop of its own: two loops of a block in the middle.",
        "循环运行的设置；模型本身不循环时：中间的块循环两次。",
        kind="loop",
    )

    def __post_init__(self) -> None:
        if self.file:
            object.__setattr__(self, "text", "")  # what is not read is in no manifest
        elif not self.text:
            object.__setattr__(self, "text", BUNDLED.read_text(encoding="utf-8"))
        check_characters("text", self.text)

    def read(self) -> str:
        """The text."""
        return self.text or read_file(self.file)

    def reach(self, subject: Subject) -> Reach:
        """About how much of it is read."""
        window = min(self.window, context_length(subject.model))
        return Reach.of(min(self.limit_tokens, subject.tokens_in(self.read())), window, 0, 8)

    def looped(self, subject: Subject) -> LoopLlamaForCausalLM:
        """The model as it is looped: its own loop with these settings, or a block in the middle."""
        view = subject.view(dict(self.loop))
        if view.config.loop_blocks():
            return view
        layers = view.config.num_hidden_layers
        middle = (layers // 3, max(layers // 3, layers // 2 - 1))
        return subject.view({**self.loop, "loop_layers": middle, "loop_count": 2})


def _work(subject: Subject, params: CheckpointParams) -> Work:
    """Two whole passes over the text, and a few tokens one by one."""
    shape, reach = subject.shape(params.looped(subject)), params.reach(subject)
    few = Reach.of(CACHED, CACHED, 0, 1)
    found = reach.whole(shape) + reach.whole(shape.plain) + few.cached(shape.plain) + reach.text
    return found + Work(kept=20 * ROW_BYTES)


def _run(subject: Subject, params: CheckpointParams) -> Iterator[Row]:
    yield from _what_it_is(subject)
    yield from _weights(subject)
    yield from _sanity(subject, params)


def _found(name: str, verdict: str, value: str, **numbers: float) -> Row:
    number = next(iter(numbers.values()), None)
    told = number if number is None or math.isfinite(number) else None  # in a message there are no others
    return {"check": name, "verdict": verdict, "value": value, "number": told}


def _what_it_is(subject: Subject) -> Iterator[Row]:
    """What its files say, as it was read."""
    model, config = subject.model, subject.model.config
    parameters = weight_count(model)
    heads = f"{config.num_attention_heads} query and {config.num_key_value_heads} key/value heads of {config.head_dim}"
    sizes = f"{config.num_hidden_layers} layers of {config.hidden_size}, {heads}; {parameters:,} parameters"
    yield _found("sizes", FINE, sizes, parameters=parameters)
    yield _found("dtype", FINE, held_words(model))
    tied = has_one_table(model)
    yield _found("tied", FINE, "yes" if tied else "no")
    yield _found("rope", FINE, _rope(config), context=config.max_position_embeddings)
    yield _tokenizer(subject)
    yield _found("notes", NOTE if subject.notes else FINE, ", ".join(subject.notes), n=len(subject.notes))
    blocks = config.loop_blocks()
    said = "; ".join(f"{block.a}-{block.b}: {block.strategy}, at most {block.max_steps} times" for block in blocks)
    yield _found("loop", FINE, said, blocks=len(blocks))
    beyond = beyond_controls(config)
    yield _found("controls", NOTE if beyond else FINE, ", ".join(beyond), n=len(beyond))


def _rope(config: Any) -> str:
    rope: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    kind, theta = rope.get("rope_type", "default"), rope.get("rope_theta", getattr(config, "rope_theta", None))
    factor = f", factor {rope['factor']:g}" if isinstance(rope.get("factor"), (int, float)) else ""
    based = f", theta {theta:,.0f}" if isinstance(theta, (int, float)) else ""
    return f"{kind}{based}{factor}; context {config.max_position_embeddings:,}"


def _tokenizer(subject: Subject) -> Row:
    """What it is, and whether a sentence comes back as it went in. One that knows few characters cannot hold it all: a note."""
    tokenizer, rows = subject.tokenizer, subject.model.config.vocab_size
    ids = encode(tokenizer, SENTENCE, add_special_tokens=False)
    back = decode(tokenizer, ids)
    whole = back.strip() == SENTENCE
    chat = "chat template" if getattr(tokenizer, "chat_template", None) else "no chat template"
    said = f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens of {rows:,} rows, {chat}"
    verdict = BAD if len(tokenizer) > rows and max(ids, default=0) >= rows else FINE if whole else NOTE
    return _found(
        "tokenizer", verdict, said + ("" if whole else f"; a sentence came back as {back[:60]!r}"), tokens=len(ids)
    )


def beyond_controls(config: Any) -> list[str]:
    """The loop fields of a configuration that a page's controls cannot hold, by name: several blocks, or a value past an end."""
    blocks = config.loop_blocks()
    if len(blocks) > 1:
        return ["loop_layers"]
    found = []
    for field in BLOCK_FIELDS if blocks else ():
        value, dial = getattr(blocks[0], field.block), field.dial
        if any(not need.holds(getattr(blocks[0], _block_name(need.field))) for need in field.needs):
            continue  # it does not act
        odd = field.kind == "choice" and (value not in field.names or value in dial.kept_back)
        beyond = field.kind in ("whole", "number") and not dial.scale and not dial.low <= value <= dial.high
        found += [field.name] if odd or beyond else []
    return found


def _block_name(name: str) -> str:
    return next(field.block for field in BLOCK_FIELDS if field.name == name)


@torch.no_grad()
def _weights(subject: Subject) -> Iterator[Row]:
    """Whether every number of it is one."""
    broken = []
    for name, parameter in subject.model.named_parameters():
        check()  # Stop works between tensors
        if not bool(torch.isfinite(parameter).all()):
            broken.append(name)
    said = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
    yield _found("finite", BAD if broken else FINE, said, n=len(broken))


@torch.no_grad()
def _sanity(subject: Subject, params: CheckpointParams) -> Iterator[Row]:
    """A short text through it: plain, looped, and token by token."""
    window = min(params.window, context_length(subject.model))
    ids = encode_text(subject.tokenizer, params.read(), params.limit_tokens)
    if len(ids) < 2:
        yield _found("plain", NOTE, "the text has fewer than two tokens for this tokenizer")
        return
    text = apart(ids, window).first()[None]  # [1, T]
    uniform = math.log(subject.model.config.vocab_size)
    plain, looped = subject.view(None), params.looped(subject)
    for name, view in (("plain", plain), ("looped", looped)):
        loss = _loss(view, ids, window)
        perplexity = math.exp(min(700.0, loss)) if math.isfinite(loss) else math.nan
        verdict = BAD if not math.isfinite(loss) else NOTE if loss > SURE * uniform else FINE
        yield _found(name, verdict, "" if math.isfinite(loss) else "its loss is no number", perplexity=perplexity)
    yield _cache(plain, text[:, :CACHED])


def _loss(view: LoopLlamaForCausalLM, ids: Any, window: int) -> float:
    """Mean loss of the text's tokens, nats, each window read afresh."""
    total, count = 0.0, 0
    for part in apart(ids, window).batches(8, unpadded=True):
        tokens = part.ids.to(view.device)
        states = view.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        losses = nats(view, states, tokens[:, 1:])[part.counted.to(view.device)]
        total, count = total + float(losses.sum()), count + losses.numel()
    return total / max(count, 1)


def _cache(view: LoopLlamaForCausalLM, ids: Tensor) -> Row:
    """Whether it says the same, read at once and token by token."""
    ids = ids.to(view.device)
    at_once = view(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)  # [1, T, vocab]
    parts = [logits for _, logits in through_cache(view, ids)]
    apart_by = float((torch.cat(parts, dim=1).float().log_softmax(-1) - at_once).abs().max())
    rounded = quantization_of(view) == "int8"  # LLM.int8 rounds by what is read together
    close = CLOSE_ELSE if rounded else CLOSE.get(held_in(view), CLOSE_ELSE)
    return _found("cache", FINE if apart_by <= close else BAD, f"within {close:g}", nats=apart_by)


COLUMNS = tuple(
    column(*told)
    for told in (
        ("check", "", "Check: what was looked at", "检查项：查看的内容"),
        (
            "verdict",
            "",
            "Verdict: fine; note, to be known; problem",
            "结论：正常（fine）、需知道（note）、有问题（problem）",
        ),
        ("value", "", "Found: as the files say, or as it came out", "结果：文件所写，或测得"),
        (
            "number",
            "",
            "Number: parameters, context, tokens, notes, perplexity (plain, looped), or the largest difference in nats (cache)",
            "数值：参数量、上下文、词元数、说明条数、困惑度（plain、looped）或最大差（cache，奈特）",
        ),
    )
)

WORDS = {
    "en": {
        "question": "Is this checkpoint whole, does it compute as it should, and what of it can the pages hold?",
        "how": "That it loads says already: it is a Llama, every tensor is there with the shape its configuration gives, and no key of its "
        "metadata asks for what a Llama here does not compute (such a key is refused by name as it loads). Then: every weight must "
        "be a finite number; a text is read once plain and once looped, and its perplexity must be a number; 32 tokens "
        "are read at once and one by one through the cache, and what it says next must agree. A loss near that of a blind guess "
        "over the vocabulary is noted: the wrong tokenizer looks like that. “notes” are what its files' reader noted, “controls” "
        "the loop settings that Explore's controls cannot hold.",
        "cost": "Some seconds: two passes over the text, and up to 32 tokens once more, at once and one by one.",
    },
    "zh": {
        "question": "这个检查点完整吗？计算正常吗？页面能容纳它的哪些设置？",
        "how": "它能加载就已说明：它是 Llama，每个张量都在且形状与配置一致，元数据中没有任何键要求这里的 Llama 不计算的内容（这样的键在加载时会按名称被拒绝）。"
        "此外：每个权重都须为有限数；同一文本分别不循环与循环地读一遍，困惑度须为数值；32 个词元一次读入与经缓存逐个读入，"
        "所说的下一个词须一致。若损失接近对词表的盲猜则加以提示：分词器不对时就会这样。“notes”是读取其文件时的说明，"
        "“controls”是“探索”页的控件无法容纳的循环设置。",
        "cost": "几秒：对文本前向两次，再将至多 32 个词元一次读入并逐个读入。",
    },
}

_SAID = {
    "en": {
        "whole": "Nothing was found wrong: the checkpoint is whole and, on this text, computes as it should.",
        "noted": "The checkpoint is whole and computes; to be known: {names}.",
        "broken": "Something is wrong with this checkpoint: {names}.",
        "part": "The check was not finished.",
        "short": "The checkpoint loads; the text has fewer than two tokens for its tokenizer, too few to try it on.",
        "perplexity": "Perplexity of the text: {plain:.4g} plain, {looped:.4g} looped.",
        "sizes": "sizes",
        "tokenizer": "the tokenizer cannot hold every character",
        "tokenizer.problem": "the tokenizer gives tokens that the model has no row for",
        "notes": "what its files' reader noted ({value})",
        "controls": "loop settings that the controls cannot hold ({value})",
        "plain": "it hardly knows this text (plain)",
        "looped": "it hardly knows this text (looped)",
        "plain.problem": "its loss on the text is no number (plain)",
        "looped.problem": "its loss on the text is no number (looped)",
        "finite": "weights that are no numbers ({value})",
        "cache": "read one by one it says something else than read at once",
    },
    "zh": {
        "whole": "没有发现问题：检查点完整，在这段文本上计算正常。",
        "noted": "检查点完整，可以计算；需知道：{names}。",
        "broken": "这个检查点有问题：{names}。",
        "part": "检查没有做完。",
        "short": "检查点可以加载；这段文本对其分词器而言不足两个词元，无法试算。",
        "perplexity": "文本的困惑度：不循环 {plain:.4g}，循环 {looped:.4g}。",
        "sizes": "尺寸",
        "tokenizer": "分词器不能容纳所有字符",
        "tokenizer.problem": "分词器给出的词元在模型中没有对应的行",
        "notes": "读取其文件时的说明（{value}）",
        "controls": "控件无法容纳的循环设置（{value}）",
        "plain": "它几乎不认识这段文本（不循环）",
        "looped": "它几乎不认识这段文本（循环）",
        "plain.problem": "它在这段文本上的损失不是数值（不循环）",
        "looped.problem": "它在这段文本上的损失不是数值（循环）",
        "finite": "有些权重不是数值（{value}）",
        "cache": "逐个读入与一次读入的结果不同",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """What came out, in a sentence or two."""
    if not rows:
        return ""
    words, found = _SAID[lang], {row["check"]: row for row in rows}
    mark = "、" if lang == "zh" else ", "

    def named(verdict: str) -> str:
        names = [name for name, row in found.items() if row["verdict"] == verdict]
        told = (words.get(f"{name}.{verdict}", words.get(name, name)) for name in names)
        return mark.join(said.format(value=found[name]["value"]) for said, name in zip(told, names, strict=True))

    if broken := named(BAD):
        said = words["broken"].format(names=broken)
    elif "cache" not in found:
        plain = found.get("plain")
        return words["short" if plain and plain["verdict"] == NOTE and plain["number"] is None else "part"]
    else:
        said = words["noted"].format(names=noted) if (noted := named(NOTE)) else words["whole"]
    measured = {name: found[name]["number"] for name in ("plain", "looped") if name in found}
    if len(measured) == 2 and None not in measured.values():
        space = "" if lang == "zh" else " "
        said += space + words["perplexity"].format(**measured)
    return said


register(
    Task(
        NAME,
        CheckpointParams,
        COLUMNS,
        lambda subject, params: 12,
        _run,
        titled(TITLE, WORDS),
        first={"limit_tokens": 128, "window": 64},
        work=_work,
        headline=headline,
    )
)
