"""Generation quality: what a configuration writes, against references and by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig

from loopviz.checks import (
    ABSENT,
    FieldError,
    check_characters,
    check_counts,
    check_number,
    check_one_of,
    check_whole,
    inside,
)
from loopviz.engine import context_length, encode_prompt
from loopviz.engine.pieces import decode
from loopviz.engine.work import Shape, Work, generating
from loopviz.lab.experiment import read_file
from loopviz.lab.headline import TIED, known, least, number, percent
from loopviz.lab.reading.beginnings import beginnings
from loopviz.lab.reading.full_pass import fixed
from loopviz.lab.reading.intervals import FIGURE_DRAWS, mean_interval
from loopviz.lab.reading.reach import ROW_BYTES
from loopviz.lab.reading.text_scores import TOKENIZERS, bleu_interval, distinct, repetition, score, score_all
from loopviz.lab.task import (
    MOST_BATCH,
    MOST_LOOPS,
    MOST_SEED,
    MOST_WINDOW,
    Row,
    Subject,
    Task,
    column,
    param,
    register,
    titled,
)
from loopviz.prompt_templates import TEMPLATES, check_template
from loopviz.text_file import END, lines_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from loopviz.model import LoopLlamaForCausalLM

NAME, ORDER = "quality", 90
TITLE = {"en": "Generation quality", "zh": "生成质量"}


MOST_PROMPTS = 10_000
BLEU_DRAWS = 500  # of the interval that the figure has: each draw is a corpus scored anew
MOST_TEMPERATURE = 100.0  # the engine's
SCORE_SECONDS = 2e-6  # of a score against a reference, for each pair of its tokens and the text's


@dataclass(frozen=True)
class QualityParams:
    """Parameters of the generation-quality measurement."""

    text: str = param(
        "",
        "A text: the beginning of each document (they end at lines <|endoftext|>) is a prompt, what follows it the reference.",
        "一段文本：每篇文档（以单独一行 <|endoftext|> 结束）的开头作为提示，其后的内容作为参考。",
        kind="text",
    )
    file: str = param("", "The same from a UTF-8 text file.", "同上，来自 UTF-8 文本文件。", kind="file")
    pairs: str = param(
        "",
        'JSON lines file instead: {"prompt": "...", "reference": "..."} a line; without reference only the text is scored.',
        '或 JSON lines 文件：每行 {"prompt": "...", "reference": "..."}；没有 reference 时只对文本本身打分。',
        kind="file",
    )
    chat: bool = param(False, "Put the prompts of pairs in the chat template.", "把 pairs 的提示放进对话模板。")
    template: str = param(
        "none",
        "How the prompts of pairs are put: as they are, in the chat template (as with chat), as Alpaca's or Vicuna's instruction.",
        "pairs 的提示的写法：原样、对话模板（同 chat）、Alpaca 或 Vicuna 的指令格式。",
        choices=TEMPLATES,
    )
    input: str = param(
        "",
        "With Alpaca's form: what the instructions are about, the same for every prompt.",
        "用 Alpaca 格式时：指令所针对的内容（每个提示相同）。",
        kind="text",
    )
    prompts: int = param(16, "Prompts at most.", "最多使用的提示数。", low=1, high=MOST_PROMPTS)
    prompt_tokens: int = param(
        32,
        "Tokens of a prompt cut from a text, at most: it ends with a word.",
        "从文本切出的提示的最多词元数：在词尾处切断。",
        low=1,
        high=MOST_WINDOW,
    )
    new_tokens: int = param(
        48,
        "Tokens written at most; of a text, the length of the references too.",
        "最多生成的词元数；对文本也是参考的长度。",
        low=1,
        high=MOST_WINDOW,
    )
    loop: dict[str, Any] | None = param(
        {}, "Loop settings; null: without a loop.", "循环设置；null 表示不循环。", kind="loop"
    )
    loops: tuple[int, ...] = param(
        (),
        "Loop counts to compare (fixed); none: the setting as it is.",
        "要比较的（固定）循环次数；不填则按设置本身。",
        low=1,
        high=MOST_LOOPS,
    )
    do_sample: bool = param(False, "Sample (else the likeliest token each time).", "抽样（否则每次取最可能的词元）。")
    temperature: float = param(1.0, "Of sampling.", "抽样温度。", low=0, high=MOST_TEMPERATURE)
    top_p: float = param(
        1.0,
        "Of sampling: smallest set of tokens with this probability.",
        "抽样：概率之和达到此值的最小词元集合。",
        low=0,
        high=1,
    )
    seed: int = param(0, "Seed of sampling.", "抽样的随机种子。", low=0, high=MOST_SEED)
    tokenize: str = param(
        "auto",
        "Of BLEU: 13a; zh for Chinese; ja-mecab; char (of ROUGE-L too); auto: by the references' script.",
        "BLEU 的分词：13a；中文用 zh；ja-mecab；char（也用于 ROUGE-L）；auto 按参考的文字选择。",
        choices=TOKENIZERS,
    )
    batch: int = param(8, "Prompts at once.", "同时处理的提示数。", low=1, high=MOST_BATCH)

    def __post_init__(self) -> None:
        given = [name for name in ("text", "file", "pairs") if getattr(self, name)]
        if len(given) != 1:
            rule = "one_text_several" if given else "one_text_none"
            raise FieldError("text", ABSENT, rule, also=("file", "pairs"), given=", ".join(given))
        check_characters("text", self.text)
        check_template(self.template, self.input, chat=self.chat)
        if self.template != "none" and not self.pairs:
            raise FieldError("template", self.template, "template_of_pairs")
        for name in ("prompts", "prompt_tokens", "new_tokens", "batch"):
            check_whole(name, getattr(self, name), 1)
        check_whole("seed", self.seed, 0)
        if self.loops:
            check_counts("loops", self.loops)
        for name, most in (("temperature", float("inf")), ("top_p", 1.0)):
            check_number(name, getattr(self, name), 0.0, most)
            if getattr(self, name) == 0:
                raise FieldError(name, getattr(self, name), "above_sampling", shown="0")
        check_one_of("tokenize", self.tokenize, TOKENIZERS, quoted=False)

    def views(self, subject: Subject) -> list[tuple[int | None, LoopLlamaForCausalLM]]:
        """What is measured: loop count (None: as set) and a view.

        Raises:
            ValueError: settings that are refused, or loop counts of a model without a loop.
        """
        view = subject.view(self.loop)
        if self.loops and not view.config.loop_blocks():
            raise FieldError("loops", self.loops, "no_loop_for_counts")
        return [(count, fixed(view, count)) for count in self.loops] or [(None, view)]


@dataclass(frozen=True)
class Exercise:
    """A prompt's tokens and the text that should follow (None: unknown)."""

    ids: list[int]
    reference: str | None


def exercises(subject: Subject, params: QualityParams) -> list[Exercise]:
    """The prompts and their references.

    Raises:
        ValueError: a text too short for one prompt and its reference, a file that is no JSON lines of prompts (by line),
            or more tokens than the model's context.
    """
    context = context_length(subject.model) - params.new_tokens
    if params.pairs:
        lines = [(n, line) for n, line in enumerate(lines_of(read_file(params.pairs)), 1) if line.strip()]
        found = [_exercise(subject, params, n, line, context) for n, line in lines[: params.prompts]]
        if not found:
            raise FieldError("pairs", Path(params.pairs).name, "pairs_empty")
        return found
    if params.prompt_tokens > context:
        whole = context_length(subject.model)
        new = params.new_tokens
        raise FieldError("prompt_tokens", params.prompt_tokens, "prompt_over_context", new=new, context=whole)
    each = params.prompt_tokens + params.new_tokens
    text = params.text or read_file(params.file)
    found = [
        Exercise(*pair)
        for pair in islice(beginnings(subject.tokenizer, text, params.prompt_tokens, params.new_tokens), params.prompts)
    ]
    if not found:
        raise FieldError("text", ABSENT, "text_no_document", each=each)
    return found


def _exercise(subject: Subject, params: QualityParams, number: int, line: str, context: int) -> Exercise:
    where = f"{Path(params.pairs).name!r}, line {number}"
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise FieldError("pairs", ABSENT, "not_json", shown=where, said=error) from None
    reference = value.get("reference") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str) or not isinstance(reference, str | None):
        raise FieldError("pairs", ABSENT, "pairs_shape", shown=where)
    try:
        wording: dict[str, Any] = {"chat": params.chat, "template": params.template, "input": params.input}
        ids = encode_prompt(subject.tokenizer, value["prompt"], context=context, **wording)
    except ValueError as error:
        raise inside(f"pairs={where}", error) from None
    return Exercise(ids, reference)


def _decode(subject: Subject, ids: list[int]) -> str:
    return decode(subject.tokenizer, ids, skip_special_tokens=True)


@torch.no_grad()
def write(view: LoopLlamaForCausalLM, prompts: list[list[int]], params: QualityParams) -> list[list[int]]:
    """What the model writes after each prompt, without the token that ended it.

    Args:
        view: the configuration; prompts of different lengths are padded at the left.
    """
    longest, eos = max(map(len, prompts)), view.generation_config.eos_token_id
    ends = set() if eos is None else {eos} if isinstance(eos, int) else set(eos)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    sampling = {"temperature": params.temperature, "top_p": params.top_p, "top_k": 0} if params.do_sample else {}
    settings = GenerationConfig(
        max_new_tokens=params.new_tokens,
        do_sample=params.do_sample,
        eos_token_id=eos,
        pad_token_id=min(ends, default=0),
        **sampling,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        out = view.generate(ids.to(view.device), attention_mask=mask.to(view.device), generation_config=settings)
    return [_until(row, ends) for row in out[:, longest:].tolist()]


def _until(ids: list[int], ends: set[int]) -> list[int]:
    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return ids[:stop]


def _cells(subject: Subject, params: QualityParams) -> int:
    return len(params.views(subject)) * (len(exercises(subject, params)) + 1)


def work_of(subject: Subject, shape: Shape, params: Any, configurations: int) -> Work:
    """Writing the prompts' continuations, and scoring them; `params`: of `quality`, or of a task that has its fields."""
    room = max(1, shape.context - params.new_tokens)
    prompts, length = params.prompts, min(params.prompt_tokens, room)
    if getattr(params, "pairs", ""):
        text = read_file(params.pairs)
        prompts = min(prompts, 1 + text.count("\n"))
        length = min(room, subject.tokens_in(text))
    else:
        text = params.text or read_file(params.file)
        prompts = min(prompts, 1 + text.count(END))
    new = min(params.new_tokens, shape.context)
    scored = prompts * SCORE_SECONDS * new * new
    written = generating(shape, prompts, length, new, params.batch).times(configurations)
    rows = configurations * (prompts + 1)
    return written + Work(python=configurations * scored, kept=rows * (ROW_BYTES + 40 * (length + 2 * new)))


def _work(subject: Subject, params: QualityParams) -> Work:
    view, counts = subject.view(params.loop), params.loops or (None,)
    shape = subject.shape(view)
    mean = None if counts[0] is None else sum(counts) / len(counts)
    return work_of(subject, shape if mean is None else shape.at(mean), params, len(counts))


def _run(subject: Subject, params: QualityParams) -> Iterator[Row]:
    views, found = params.views(subject), exercises(subject, params)
    for count, view in views:
        written: list[list[int]] = []
        for start in range(0, len(found), params.batch):
            some = found[start : start + params.batch]
            for offset, (exercise, ids) in enumerate(
                zip(some, write(view, [exercise.ids for exercise in some], params), strict=True)
            ):
                written.append(ids)
                yield _row(subject, params, count, start + offset, exercise, ids)
        yield _total(subject, params, count, found, written)


def _row(
    subject: Subject, params: QualityParams, count: int | None, number: int, exercise: Exercise, ids: list[int]
) -> Row:
    text, reference = _decode(subject, ids), exercise.reference
    scores = None if reference is None else score(text, reference, params.tokenize)
    return {
        "loops": count,
        "prompt": number,
        "bleu": None if scores is None else scores.bleu,
        "rouge_l": None if scores is None else scores.rouge_l,
        "chrf": None if scores is None else scores.chrf,
        "distinct_1": distinct([ids], 1),
        "distinct_2": distinct([ids], 2),
        "repetition_4": repetition(ids, 4),
        "tokens": len(ids),
        "prompt_text": _decode(subject, exercise.ids),
        "written": text,
        "reference": reference,
        "signature": None,
    }


def _total(
    subject: Subject, params: QualityParams, count: int | None, found: list[Exercise], written: list[list[int]]
) -> Row:
    """The row of all prompts together."""
    known = [
        (_decode(subject, ids), x.reference) for x, ids in zip(found, written, strict=True) if x.reference is not None
    ]
    texts, references = [text for text, _ in known], [reference for _, reference in known]
    scores, signature = score_all(texts, references, params.tokenize) if known else (None, None)
    repeated = [value for value in (repetition(ids, 4) for ids in written) if value is not None]
    return {
        "loops": count,
        "prompt": None,
        "bleu": None if scores is None else scores.bleu,
        "rouge_l": None if scores is None else scores.rouge_l,
        "chrf": None if scores is None else scores.chrf,
        "distinct_1": distinct(written, 1),
        "distinct_2": distinct(written, 2),
        "repetition_4": sum(repeated) / len(repeated) if repeated else None,
        "tokens": sum(map(len, written)),
        "prompt_text": None,
        "written": None,
        "reference": None,
        "signature": signature,
    }


COLUMNS = tuple(
    column(*told)
    for told in (
        ("loops", "", "Loops: fixed count; empty: as set", "循环数：固定次数；空为按设置"),
        ("prompt", "", "Prompt: from 0; empty: all together", "提示：从 0 起；空为全部合计"),
        ("bleu", "0-100", "BLEU: sacrebleu, against the reference", "BLEU：sacrebleu，对照参考"),
        (
            "rouge_l",
            "0-100",
            "ROUGE-L: F1 of the longest common subsequence; all: mean",
            "ROUGE-L：最长公共子序列的 F1；合计为平均",
        ),
        ("chrf", "0-100", "chrF: character n-grams shared with the reference", "chrF：与参考共有的字符 n 元组"),
        (
            "distinct_1",
            "",
            "distinct-1: different tokens over all tokens written",
            "distinct-1：不同词元数 / 所写词元数",
        ),
        (
            "distinct_2",
            "",
            "distinct-2: different pairs of tokens over all pairs",
            "distinct-2：不同的二元组数 / 全部二元组数",
        ),
        (
            "repetition_4",
            "",
            "Repetition: share of 4-token runs that occurred before; all: mean",
            "重复：之前出现过的四元组比例；合计为平均",
        ),
        ("tokens", "", "Tokens: written, end mark left out", "词元数：所写的，不含结束符"),
        ("prompt_text", "", "Prompt's text: as the model read it", "提示文本：模型读到的"),
        ("written", "", "Written: the model's continuation", "所写：模型的续写"),
        ("reference", "", "Reference: what should follow", "参考：应有的后文"),
        ("signature", "", "Signature: how BLEU was computed", "签名：BLEU 的计算方式"),
    )
)

WORDS = {
    "en": {
        "question": "Is what the model writes near to the references, and does it repeat itself?",
        "how": "The model continues each prompt. With references: BLEU and chrF of sacrebleu (a row: of the single text; the "
        "last row: of all texts as one corpus, which is not the mean) and ROUGE-L of rouge-score. A text's own continuation "
        "is one of many good ones, so these scores stay low and serve to compare settings. Without: distinct-n (arXiv "
        "1510.03055) and the share of repeated runs of four tokens (seq-rep-4, arXiv 1908.04319), both on the model's own "
        "tokens: models with different tokenizers cannot be compared by them. The figure's bars are 95 % bootstrap intervals over "
        "prompts (seed 0; none under 6 prompts), for the means and for BLEU, whose parts are added up anew (Koehn 2004); chrF and "
        "distinct-n have none.",
        "cost": "One generation a prompt and loop count, several prompts at once.",
    },
    "zh": {
        "question": "模型写出的内容与参考接近吗？会不会重复自己？",
        "how": "模型续写每个提示。有参考时：sacrebleu 的 BLEU 与 chrF（每行为单个文本；最后一行为全部文本作为一个语料，并非平均值），以及 rouge-score 的 ROUGE-L。"
        "文本自身的后文只是众多好的续写之一，所以这些分数偏低，用于比较不同设置。无参考时：distinct-n（arXiv 1510.03055）和重复的四词元片段比例"
        "（seq-rep-4，arXiv 1908.04319），两者都按模型自己的词元计算：分词器不同的模型不能用它们比较。"
        "图中的误差线为按提示重抽样的 95% 自助法区间（种子 0；少于 6 个提示时不给出），用于平均值以及 BLEU（重新累加各部分，Koehn 2004）；"
        "chrF 与 distinct-n 没有区间。",
        "cost": "每个提示、每个循环次数生成一次，多个提示同时进行。",
    },
}

_PLOT = {
    "en": {"x": "loops", "set": "as set", "y": "score, 0 to 100", "y2": "share", "repetition_4": "repetition"},
    "zh": {"x": "循环数", "set": "按设置", "y": "分数，0 到 100", "y2": "比例", "repetition_4": "重复"},
}
_NAMES = {"bleu": "BLEU", "rouge_l": "ROUGE-L", "chrf": "chrF", "distinct_1": "distinct-1", "distinct_2": "distinct-2"}


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Scores of all prompts together by loops: against references on the left axis, of the text alone on the right."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures

    rows = table[table["prompt"].isna()]
    if rows.empty:
        return table_figures.empty(lang)
    words, traces = _PLOT[lang], []
    x = [words["set"] if value != value or value is None else str(int(value)) for value in rows["loops"].astype(object)]
    for index, name in enumerate(("bleu", "rouge_l", "chrf", "distinct_1", "distinct_2", "repetition_4")):
        alone = name.startswith(("distinct", "repetition"))
        values = [None if value != value else float(value) for value in rows[name].astype(float)]
        ends = _intervals(table, rows, name)
        traces.append(
            go.Scatter(
                x=x,
                y=values,
                error_y=table_figures.arms(values, [low for low, _ in ends], [high for _, high in ends]),
                name=_NAMES.get(name) or words[name],
                mode="lines+markers",
                yaxis="y2" if alone else "y",
                hovertemplate="%{x}: %{y:.3g}",
                **table_figures.series(index),
            )
        )
    right = {
        "title": {"text": words["y2"]},
        "overlaying": "y",
        "side": "right",
        "range": [0, 1],
        "showgrid": False,
        "tickmode": "auto",
    }
    axis = {"type": "category"}
    return table_figures.figure(
        traces, x=words["x"], y=words["y"], xaxis=axis, yaxis={"rangemode": "tozero"}, yaxis2=right
    )


def _intervals(table: pd.DataFrame, totals: pd.DataFrame, name: str) -> list[tuple[float | None, float | None]]:
    """The bootstrap intervals over prompts of each total; none of scores that cannot be had of parts of a corpus."""
    if name not in ("bleu", "rouge_l", "repetition_4"):
        return [(None, None)] * len(totals)
    found = []
    for _, total in totals.iterrows():
        loops = total["loops"]
        same = table["loops"].isna() if loops is None or loops != loops else table["loops"] == loops
        found.append(_interval(table[same & table["prompt"].notna()], name, total["signature"]))
    return found


def tokenizer_in(signature: object) -> str:
    """The tokenizer that a signature of BLEU names (`tok:ja-mecab-0.996-IPA`), of `TOKENIZERS`; "auto" where it names none."""
    parts = str(signature).split("|")
    named = next((part.removeprefix("tok:") for part in parts if part.startswith("tok:")), "")
    return next((known for known in TOKENIZERS if known != "auto" and named.startswith(known)), "auto")


def _interval(rows: pd.DataFrame, name: str, signature: object) -> tuple[float | None, float | None]:
    """Of one loop count's rows, a prompt each; BLEU's by the tokenizer of the point that it is of."""
    if name == "bleu":
        pairs = rows[rows["reference"].notna()]
        texts, references = pairs["written"].tolist(), pairs["reference"].tolist()
        return bleu_interval(texts, references, BLEU_DRAWS, 0, tokenizer_in(signature))
    found = rows[name].dropna().astype("float64").to_numpy()
    return mean_interval(found, np.ones(len(found)), FIGURE_DRAWS, 0)


def settings(subject: Subject, row: Row, params: QualityParams) -> dict[str, Any] | None:
    """The loop fields of the model that wrote a row; None for a model without a loop."""
    view = next(view for count, view in params.views(subject) if count == row["loops"])
    if not view.config.loop_blocks():
        return None
    counts = ("loop_strategy", "loop_count", "max_loop_count") if row["loops"] is not None else ()
    return {**(params.loop or {}), **{name: getattr(view.config, name) for name in counts}}


_HEADLINE = {
    "en": {
        "near": "Nearest to the references {at}: ROUGE-L {best}.",
        "repeats": "It repeats itself least {at}: {best} of its runs of four tokens.",
        "near_alone": "Against the references, {at}: ROUGE-L {best}.",
        "repeats_alone": "It repeats {best} of its runs of four tokens, {at}.",
        "far": " Farthest {at}: {worst}{also}.",
        "even": " Every number of loops does as well.",
        "set": "as set",
        "one": "with one loop",
        "loops": "with {n} loops",
    },
    "zh": {
        "near": "{at}最接近参考：ROUGE-L {best}。",
        "repeats": "{at}重复最少：四词元片段中的 {best}。",
        "near_alone": "对照参考（{at}）：ROUGE-L {best}。",
        "repeats_alone": "四词元片段中有 {best} 是重复（{at}）。",
        "far": "{at}最差：{worst}{also}。",
        "even": "各循环次数都一样。",
        "set": "按设置",
        "one": "循环 1 次时",
        "loops": "循环 {n} 次时",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """Of all prompts together: the loops that come nearest to the references; without these, that repeat least."""
    words, totals = _HEADLINE[lang], [row for row in rows if row["prompt"] is None]
    near = known(totals, "rouge_l")
    found, name, sign = (near, "rouge_l", -1) if near else (known(totals, "repetition_4"), "repetition_4", 1)
    if not found:
        return ""

    def at(row: Row) -> str:
        count = row["loops"]
        return words["set"] if count is None else words["one"] if count == 1 else words["loops"].format(n=count)

    def shown(row: Row) -> str:
        return number(row[name]) if near else percent(row[name])

    best = least(found, lambda row: sign * row[name], lambda row: row["loops"] or 0)
    worst = max(found, key=lambda row: sign * row[name])
    alone = "_alone" if len(found) == 1 else ""
    told = words[("near" if near else "repeats") + alone].format(at=at(best), best=shown(best))
    if len(found) > 1:
        also = TIED[lang] if sum(shown(row) == shown(worst) for row in found) > 1 else ""
        far = words["far"].format(at=at(worst), worst=shown(worst), also=also)
        told += words["even"] if shown(best) == shown(worst) else far
    return told


# Some seconds with a model of this project, on the story that the Lab offers.
FIRST = {"prompts": 8, "new_tokens": 24}  # of fewer than six prompts there is no interval
register(
    Task(
        NAME,
        QualityParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        settings,
        first=FIRST,
        work=_work,
        headline=headline,
        fits=("prompts",),
        asks=("loops",),
        intervals=True,
    )
)
