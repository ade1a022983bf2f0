"""A file of prompts, a row each: what the model writes, how long it loops over it, and how sure it is."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from loopviz.checks import ABSENT, FieldError, check_characters, inside
from loopviz.engine import StreamSettings, context_length, encode_prompt, limits
from loopviz.engine.many import AT_ONCE, stream_many
from loopviz.engine.pieces import decode
from loopviz.engine.work import NOTHING, Work, head, one_pass
from loopviz.engine.work import run as run_work
from loopviz.lab.experiment import read_file
from loopviz.lab.headline import same, tied
from loopviz.lab.reading.full_pass import nats
from loopviz.lab.reading.intervals import mean_interval
from loopviz.lab.reading.prompt_rows import PromptRow, place_of, prompt_rows
from loopviz.lab.reading.reach import ROW_BYTES
from loopviz.lab.task import MOST_WINDOW, Row, Subject, Task, column, param, register, titled
from loopviz.prompt_templates import TEMPLATES, written

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from loopviz.model import LoopLlamaForCausalLM
    from loopviz.trace import Frame

NAME, ORDER = "prompts", 95
TITLE = {"en": "A list of prompts", "zh": "提示列表"}

MOST_ROWS = 10_000
# As many as an interval needs.
SAMPLE = """name,prompt
girl,"Once upon a time, there was a little girl named Lily."
robot,Once there was a robot who
dog,The big dog was sad because
bird,A little bird could not fly
ball,Tim had a red ball and
rain,It was a rainy day and
"""


@dataclass(frozen=True)
class PromptsParams:
    """Parameters of the measurement of a list of prompts."""

    csv: str = param(
        "",
        "A table with a column prompt, a prompt a row (and name, if you like); parted by commas, semicolons or tabs.",
        "含“prompt”列的表格，每行一个提示（可另有“name”列）；以逗号、分号或制表符分隔。",
        kind="text",
    )
    file: str = param("", "The same from a CSV file; it is used in place of the table above.", "同上，来自 CSV 文件；给出时代替上面的表格。", kind="file")  # fmt: skip
    rows: int = param(64, "Prompts at most.", "最多使用的提示数。", low=1, high=MOST_ROWS)
    max_new_tokens: int = param(
        32, "Tokens written after each, at most.", "每个提示之后最多生成的词元数。", low=1, high=MOST_WINDOW
    )
    loop: dict[str, Any] | None = param(
        {}, "Loop settings; null: without a loop.", "循环设置；null 表示不循环。", kind="loop"
    )
    do_sample: bool = param(False, "Draw tokens at random; otherwise the likeliest.", "随机抽取词元；否则取最可能的。")
    temperature: float = param(
        1.0, "Of sampling.", "采样温度。", low=limits.MIN_TEMPERATURE, high=limits.MAX_TEMPERATURE
    )
    top_p: float = param(
        1.0,
        "Sample among the likeliest of this total probability.",
        "只在总概率达到此值的最可能者中采样。",
        low=0,
        high=1,
    )
    seed: int = param(
        0,
        "Seed of sampling, the same for every prompt.",
        "采样的随机种子（每个提示相同）。",
        low=0,
        high=limits.MAX_SEED,
    )
    chat: bool = param(False, "Put the prompts into the model's chat template.", "把提示放入模型的对话模板。")
    template: str = param(
        "none",
        "How each prompt is put: as it is, in the model's chat template (as with chat), as Alpaca's or Vicuna's instruction.",
        "每个提示的写法：原样、模型的对话模板（同 chat）、Alpaca 或 Vicuna 的指令格式。",
        choices=TEMPLATES,
    )
    input: str = param(
        "",
        "With Alpaca's form: what the instructions are about, the same for every prompt.",
        "用 Alpaca 格式时：指令所针对的内容（每个提示相同）。",
        kind="text",
    )

    def __post_init__(self) -> None:
        if not self.csv and not self.file:
            raise FieldError("csv", ABSENT, "prompts_one", also=("file",))
        if self.file:
            object.__setattr__(self, "csv", "")  # what is not read is in no manifest
        check_characters("csv", self.csv)
        self.settings()

    def settings(self) -> StreamSettings:
        """How tokens are chosen; ValueError names the field that is refused."""
        same = {
            name: getattr(self, name)
            for name in ("max_new_tokens", "do_sample", "temperature", "top_p", "seed", "chat", "template", "input")
        }
        return StreamSettings(**same, record="off", top_tokens=1)

    @property
    def given(self) -> str:
        """The parameter that holds the prompts."""
        return "file" if self.file else "csv"

    @property
    def called(self) -> str:
        """What holds them is called in messages."""
        return Path(self.file).name if self.file else "csv"

    def prompts(self) -> list[PromptRow]:
        """The prompts that are used.

        Raises:
            FieldError: a table that is none, or a row of it that cannot be used; with row and column.
        """
        return self._table[: self.rows]

    @cached_property
    def _table(self) -> list[PromptRow]:
        """All of them, read once: progress, cost and the measurement ask for them."""
        return prompt_rows(read_file(self.file) if self.file else self.csv, self.called, self.given)


def _checked(subject: Subject, params: PromptsParams) -> list[tuple[PromptRow, list[int]]]:
    """The prompts with their tokens; every one is looked at before the first is run."""
    found, context = [], context_length(subject.model)
    for row in params.prompts():
        try:
            ids = encode_prompt(subject.tokenizer, row.prompt, context=context, **params.settings().wording)
        except ValueError as error:
            raise inside(place_of(row, params.called, params.given), error) from None
        found.append((row, ids))
    return found


def _cells(subject: Subject, params: PromptsParams) -> int:
    return len(_checked(subject, params))


def _work(subject: Subject, params: PromptsParams) -> Work:
    """Each prompt's pass for its perplexity, and its run."""
    shape, found = subject.shape(subject.view(params.loop)), NOTHING
    for row in params.prompts():
        tokens = min(shape.context, max(1, subject.tokens_in(written(params.template, row.prompt, params.input))))
        found += run_work(shape, tokens, params.max_new_tokens, recorded=False)
        found += one_pass(shape, tokens, cached=False) + head(shape, tokens)
        found += Work(kept=ROW_BYTES + 8 * len(row.prompt) + 40 * params.max_new_tokens)
    return replace(found, kv=found.kv * min(AT_ONCE, len(params.prompts())))  # each holds its own


def _run(subject: Subject, params: PromptsParams) -> Iterator[Row | float]:
    view, found, settings = subject.view(params.loop), _checked(subject, params), params.settings()
    frames: list[list[Frame]] = [[] for _ in found]  # of each prompt those of the passes that chose tokens
    read, done, each = 0.0, 0, settings.max_new_tokens + 1
    for place, frame in stream_many(view, subject.tokenizer, [row.prompt for row, _ in found], settings):
        if frame["index"] < len(found[place][1]) - 1:
            continue
        frames[place].append(frame)
        ended = frame["finish"] is not None
        read += 1 if not ended else each - len(frames[place]) + 1
        yield read / (each * len(found))
        while done < len(found) and frames[done] and frames[done][-1]["finish"] is not None:
            yield _row(subject, view, *found[done], frames[done])
            done += 1


def _row(subject: Subject, view: LoopLlamaForCausalLM, row: PromptRow, ids: list[int], frames: list[Frame]) -> Row:
    ended = frames[-1]["finish"] == "eos"
    written = [frame["next_id"] for frame in frames]
    loops = [block["n_steps"] for frame in frames for block in frame["blocks"]]
    reasons = Counter(block["stop_reason"] for frame in frames for block in frame["blocks"])
    logps = [frame["next_logprob"] for frame in frames if frame["next_logprob"] is not None]
    return {
        "row": row.number,
        "name": row.name,
        "loops_mean": statistics.fmean(loops) if loops else 1.0,
        "loops_most": max(loops, default=1),
        "reasons": ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "plain",
        "perplexity": math.exp(min(700.0, -statistics.fmean(logps))) if logps else None,
        "prompt_perplexity": _prompt_perplexity(view, ids),
        "prompt_tokens": len(ids),
        "tokens": len(written) - ended,
        "end": frames[-1]["finish"] or "",
        "prompt": row.prompt,
        "written": decode(subject.tokenizer, written[:-1] if ended else written),
    }


@torch.no_grad()
def _prompt_perplexity(view: LoopLlamaForCausalLM, ids: list[int]) -> float | None:
    """exp of the mean loss of the prompt's tokens after its first, in one pass without a cache; None of a single token."""
    if len(ids) < 2:
        return None
    tokens = torch.tensor([ids], device=view.device)  # [1, T]
    states = view.model(input_ids=tokens, use_cache=False).last_hidden_state  # [1, T, H]
    return math.exp(min(700.0, float(nats(view, states[:, :-1], tokens[:, 1:]).mean())))


COLUMNS = tuple(
    column(*told)
    for told in (
        ("row", "", "Row: of the file, its header being 1", "行：文件中的行号，表头为 1"),
        ("name", "", "Name: as the file has it", "名称：文件中所写"),
        ("loops_mean", "loops", "Mean loops: of the tokens written", "平均循环数：所写词元的平均"),
        ("loops_most", "loops", "Most loops: of a token written", "最多循环数：所写词元中的最大值"),
        ("reasons", "", "Stopped by: the rule that held, and for how many tokens", "停止原因：成立的规则及词元数"),
        (
            "perplexity",
            "",
            "Perplexity: of what it wrote, under its own distribution before sampling settings",
            "困惑度：所写文本在模型自身分布（未经采样设置）下的困惑度",
        ),
        (
            "prompt_perplexity",
            "",
            "Prompt's perplexity: of its tokens after the first, read in one pass",
            "提示的困惑度：首个之后的词元，一次读入",
        ),
        ("prompt_tokens", "tokens", "Prompt's tokens: read", "提示词元数：读入的"),
        ("tokens", "tokens", "Tokens: written, end mark left out", "词元数：所写的，不含结束符"),
        ("end", "", "End: eos, the model ended it; length, as many as asked; context, it was full", "结束：模型自行结束（eos）、达到数量（length）、上下文已满（context）"),
        ("prompt", "", "Prompt: as the file has it", "提示：文件中所写"),
        ("written", "", "Written: the model's continuation", "所写：模型的续写"),
    )
)  # fmt: skip

WORDS = {
    "en": {
        "question": "What does the model write after each of your prompts, how many loops does it take, how sure is it?",
        "how": "Each prompt is run by itself, as on Explore with the same settings and seed. Loops and stop reasons are those of the "
        "passes that chose tokens; several looped blocks count together. Perplexity of what was written: exp(−mean log p) of the "
        "chosen tokens under the model's own distribution; low is sure, not good. In the figure: the mean of all prompts, with a "
        "95 % bootstrap interval over prompts (2,000 resamplings, seed 0; none under 6 prompts).",
        "cost": "One run a prompt, and one pass over it.",
    },
    "zh": {
        "question": "模型在您的每个提示之后写什么？用了多少循环？有多确定？",
        "how": "每个提示单独运行，与“探索”页在相同设置和种子下一样。循环数与停止原因取自选出词元的各次前向；多个循环块合并计算。"
        "所写文本的困惑度：所选词元在模型自身分布下的 exp(−平均 log p)；低表示确定，不表示好。图中为所有提示的平均值，"
        "附按提示重抽样的 95% 自助法区间（重抽样 2,000 次，种子 0；少于 6 个提示时不给出）。",
        "cost": "每个提示运行一次，并再读入一次。",
    },
}

_PLOT = {
    "en": {
        "x": "mean loops",
        "y": "perplexity of what it wrote",
        "prompts": "prompts",
        "mean": "mean",
        "hover": "row {row} {name}<br>{prompt}",
        "said": "mean of {n}: {loops:.2f} loops, perplexity {ppl:.3g}",
    },
    "zh": {
        "x": "平均循环数",
        "y": "所写文本的困惑度",
        "prompts": "提示",
        "mean": "平均",
        "hover": "第 {row} 行 {name}<br>{prompt}",
        "said": "{n} 个提示的平均：{loops:.2f} 个循环，困惑度 {ppl:.3g}",
    },
}
_SHOWN = 60  # characters of a prompt beside its mark


def plot(table: pd.DataFrame, lang: str, draws: int = 2_000, seed: int = 0) -> go.Figure:
    """A mark a prompt: mean loops against perplexity; and the mean of all, with bootstrap intervals both ways."""
    import plotly.graph_objects as go

    from loopviz.figures import labels, table_figures

    rows = table[table["perplexity"].notna()]
    if rows.empty:
        return table_figures.empty(lang)
    words = _PLOT[lang]
    hover = [
        words["hover"].format(
            row=row["row"], name=labels.plain(str(row["name"])), prompt=labels.plain(str(row["prompt"])[:_SHOWN])
        )
        for _, row in rows.iterrows()
    ]
    loops, losses = rows["loops_mean"].astype(float).to_numpy(), rows["perplexity"].astype(float).to_numpy()
    marks = go.Scatter(
        x=loops.tolist(),
        y=losses.tolist(),
        mode="markers",
        name=words["prompts"],
        text=hover,
        hovertemplate="%{text}<br>%{x:.2f}, %{y:.4g}<extra></extra>",
        marker={**table_figures.series(1)["marker"], "opacity": 0.6},
    )
    x, y = float(loops.mean()), float(losses.mean())
    mean = go.Scatter(
        x=[x],
        y=[y],
        error_x=_arms(loops, draws, seed),
        error_y=_arms(losses, draws, seed),
        mode="markers",
        name=words["mean"],
        text=[words["said"].format(n=len(rows), loops=x, ppl=y)],
        hovertemplate="%{text}<extra></extra>",
        marker={**table_figures.series(0)["marker"], "size": 13},
    )
    return table_figures.figure([marks, mean], x=words["x"], y=words["y"], showlegend=True)


def _arms(values: Any, draws: int, seed: int) -> dict[str, Any]:
    """A bootstrap interval as the arms of a mark."""
    import numpy as np

    from loopviz.figures import table_figures

    low, high = mean_interval(values, np.ones(len(values)), draws, seed)
    return table_figures.arms([float(values.mean())], [low], [high], thickness=2)


def settings(subject: Subject, row: Row, params: PromptsParams) -> dict[str, Any] | None:
    """The loop fields of the model that wrote a row; None for one without a loop."""
    return params.loop if params.loop is not None and subject.view(params.loop).config.loop_blocks() else None


_HEADLINE = {
    "en": {
        "one": "{loops} loops on average over the words written after the one prompt; perplexity of what was written: {ppl}.",
        "even": "{n} prompts: {loops} loops over each of them. Surest in row {sure}: perplexity {ppl}{as_sure}.",
        "many": "{n} prompts: {loops} loops on average; least over row {low}: {least}{as_low}, most over row {high}: {most}{as_high}. "
        "Surest in row {sure}: perplexity {ppl}{as_sure}.",
    },
    "zh": {
        "one": "一个提示之后所写的词平均循环 {loops} 次；所写文本的困惑度：{ppl}。",
        "even": "{n} 个提示：每个都循环 {loops} 次。第 {sure} 行最确定：困惑度 {ppl}{as_sure}。",
        "many": "{n} 个提示：平均循环 {loops} 次；第 {low} 行最少：{least}{as_low}，第 {high} 行最多：{most}{as_high}。第 {sure} 行最确定：困惑度 {ppl}{as_sure}。",
    },
}


def headline(rows: Sequence[Row], lang: str) -> str:
    """Which prompts were looped over longest and shortest, and where the model was surest."""
    found = [row for row in rows if row["perplexity"] is not None]
    if not found:
        return ""
    low, high = (pick(found, key=lambda row: row["loops_mean"]) for pick in (min, max))
    sure = min(found, key=lambda row: row["perplexity"])
    mean = f"{statistics.fmean(row['loops_mean'] for row in found):.3g}"
    alike = same(low["loops_mean"], high["loops_mean"])
    ties = {"as_sure": tied(found, lambda row: row["perplexity"], sure, lang)}
    ties |= {
        f"as_{end}": tied(found, lambda row: row["loops_mean"], row, lang)
        for end, row in (("low", low), ("high", high))
    }
    return _HEADLINE[lang]["one" if len(found) == 1 else "even" if alike else "many"].format(
        n=len(found),
        loops=mean,
        low=low["row"],
        least=f"{low['loops_mean']:.3g}",
        high=high["row"],
        most=f"{high['loops_mean']:.3g}",
        sure=sure["row"],
        ppl=f"{sure['perplexity']:.3g}",
        **ties,
    )


# Some seconds with a model of this project.
FIRST = {"csv": SAMPLE, "max_new_tokens": 24}
register(
    Task(
        NAME,
        PromptsParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        settings,
        first=FIRST,
        work=_work,
        intervals=True,
        headline=headline,
        fits=("rows",),
        asks=("csv",),
    )
)
