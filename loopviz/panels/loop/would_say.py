"""Would say: the most likely next words after every loop step of one token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels, theme
from loopviz.figures.edits import Op, Path, fill
from loopviz.panels.kit import follower, parts

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "would_say"
GROUP = "words"
ORDER = 20
CODE: tuple[str, ...] = (
    "loopviz.model.measures:log_probs",
    "loopviz.trace.metrics:top_k",
    "loopviz.trace.recording.recorder:Reading._lens_columns",
    "loopviz.model.exit_lens:exit_states",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ()  # the exit lens needs "exit"; without it the panel says so when that lens is chosen
ROWS = 16  # steps shown at most
MANY = 8  # more rows than these are lower
PLACES = 5  # words a step at most
CELLS = 48  # words in all, about: what a token costs to send
WIDTHS = (10, 6)  # columns of text the winner's cell and the others hold on a phone

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What would it say if it stopped here?",
        "question": "Which next words are most likely after each loop step of the selected token, and when does the winner change?",
        "how": "A row is a loop step, from the top down; left to right stand the most likely next words after it, best "
        "first, each with its probability. The brighter a cell, the more likely the word; the brightest is the likeliest shown. The "
        "wide column is the winner: what the model would "
        "say if it stopped there; a triangle marks a step at which the winner changed. ␣ is a space, ↵ a new line, … a "
        "part of a character. The exit lens goes on through the "
        "layers after the block, as the model itself would: it shows what the model would really say. The direct lens reads the "
        "state at once by the final norm and head: where layers follow that were not trained for it, its words may make no "
        "sense. A page records the exit lens by itself where that is so. At most 16 steps are shown: of more, the "
        "first and the last, those where the winner changed, then the earliest. Up to five words a step, down to three "
        "when a block may run many steps.",
        "formula": r"p_r=\mathrm{softmax}(W_{\text{head}}\,\mathrm{norm}(s_r))\ \text{(direct)},\qquad "
        r"p_r=\mathrm{softmax}(W_{\text{head}}\,\mathrm{norm}(\mathrm{coda}(s_r)))\ \text{(exit)}",
        "units": "Probability: 0 to 1. Log probability: nats.",
        "source": "Recorded in this run, in float32, after every loop step, before temperature or any other sampling "
        "setting.",
        "cost": "Nothing beyond what every run records with the direct lens. The exit lens runs the layers after the "
        "block once more for every loop step; it is recorded by itself where the direct lens misleads.",
        "no_data": "Nothing read yet: the words appear with the first token",
        "not_recorded": "the exit lens was not recorded in this run: run again with it, or choose the direct lens",
        "place": "place, most likely first",
        "step": "loop step r",
        "bar": "probability",
        "flip": "winner changed",
        "hover_winner": "step r = %{y} says “%{text}”<br>p = %{z}<br>log p (nats) = %{customdata}",
        "hover": "step r = %{y}, place %{x}: “%{text}”<br>p = %{z}<br>log p (nats) = %{customdata}",
        "hover_flip": "step r = %{y}: the winner changed<br>%{text}",
        "whole": "in full “{text}”",
        "came": "this is what came next",
        "head": "{token} · {lens}<br>step {steps} says “{text}” ({p}){since}",
        "since": ", as since step {step}",
        "always": ", as at every step",
        "summary": "{token}, {block}, {lens}. Most likely next word by loop step: {winners}. It changes {flips} times. The "
        "last step gives its word {p}.",
        "one": "step {steps} “{text}”",
    },
    "zh": {
        "title": "如果停在这里，它会说什么？",
        "question": "所选词元的每个循环步之后，最可能的下一个词是哪些？第一名何时改变？",
        "how": "一行是一个循环步，自上而下；从左到右是该步之后最可能的下一个词及其概率，最可能的在最前。格子越亮，概率越高；最亮的是所显示的最高概率。最宽的一列是第一名："
        "若停在该步，模型会说的词；三角标出第一名改变的步。␣ 是空格，↵ 是换行，… 是字符的一部分。出口透镜像模型本身那样走完块之后的各层：显示的是模型真正会说的。"
        "直接透镜立即用最后的归一化与输出头读出状态：若之后的层没有为此训练过，读出的词可能毫无意义；这种情况下页面会自动记录出口透镜。最多显示 16 步：超出时取第一步、最后一步、第一名改变的步，其余取最早的。"
        "每步最多五个词，块的步数较多时减到三个。",
        "formula": r"p_r=\mathrm{softmax}(W_{\text{head}}\,\mathrm{norm}(s_r))\ \text{(direct)},\qquad "
        r"p_r=\mathrm{softmax}(W_{\text{head}}\,\mathrm{norm}(\mathrm{coda}(s_r)))\ \text{(exit)}",
        "units": "概率：0 到 1。对数概率：奈特（nat）。",
        "source": "本次运行中每个循环步之后以 float32 记录，未经温度或其他采样设置。",
        "cost": "直接透镜：除每次运行本来就记录的内容外，没有额外开销。出口透镜：每个循环步要把块之后的各层再计算一次；在直接透镜会误导时自动记录。",
        "no_data": "尚未读入词元：读入第一个词元后出现",
        "not_recorded": "本次运行没有记录出口透镜：请用它重新运行，或选择直接透镜",
        "place": "名次，最可能的在前",
        "step": "循环步 r",
        "bar": "概率",
        "flip": "第一名改变",
        "hover_winner": "第 %{y} 步会说“%{text}”<br>p = %{z}<br>log p (nat) = %{customdata}",
        "hover": "第 %{y} 步，第 %{x} 名：“%{text}”<br>p = %{z}<br>log p (nat) = %{customdata}",
        "hover_flip": "第 %{y} 步：第一名改变<br>%{text}",
        "whole": "完整为“{text}”",
        "came": "实际的下一个词就是它",
        "head": "{token} · {lens}<br>第 {steps} 步会说“{text}”（{p}）{since}",
        "since": "，自第 {step} 步起如此",
        "always": "，每一步都如此",
        "summary": "{token}，{block}，{lens}。各循环步最可能的下一个词：{winners}。共改变 {flips} 次。最后一步给它的概率为 {p}。",
        "one": "第 {steps} 步“{text}”",
    },
}

WINNER, OTHERS, FLIPS = 0, 1, 2  # traces
_FOLLOWER = follower.Follower()


def places(meta: Mapping[str, Any], max_steps: int) -> int:
    """How many words a step are shown for a block of ``max_steps`` steps."""
    fit = max(3, min(PLACES, CELLS // min(max_steps, ROWS)))
    return max(1, min(fit, meta["top_k"]))


def flips(ids: list[list[int]]) -> list[int]:
    """The steps (1-based) whose most likely token is not the one of the step before."""
    return [r for r in range(2, len(ids) + 1) if ids[r - 1][:1] != ids[r - 2][:1]]


def shown_steps(ids: list[list[int]]) -> list[int]:
    """The steps (1-based) that get a row: all, or ``ROWS`` of them by the rule of the panel's text."""
    steps = range(1, len(ids) + 1)
    if len(ids) <= ROWS:
        return list(steps)
    ranked = dict.fromkeys([1, len(ids), *flips(ids), *steps])  # in order of precedence, each once
    return sorted(list(ranked)[:ROWS])


def _probability(logprob: float | None) -> float | None:
    return None if logprob is None else math.exp(logprob)


def _share(logprob: float | None) -> float | None:
    """A probability as a cell says it: two digits, and of what is hardly possible no more than a hundredth of a per cent."""
    value = _probability(logprob)
    if value is None or value < 0.001:
        return None if value is None else round(value, 4)
    return labels.sig(value, 2) if value < 0.995 or value == 1 else 0.99  # what is not certain is not said to be


def _note(logprob: float | None, whole: str, cut: str, came: bool, lang: str) -> float | str | None:
    """A cell's last hover line: log p, and the whole word where the cell cuts it, and whether it came next."""
    words, value = TEXTS[lang], labels.sig(logprob, 3)
    more = [words["whole"].format(text=whole)] if whole != cut else []
    more += [words["came"]] if came else []
    return value if not more else f"{labels.number(logprob, lang)}<br>{'<br>'.join(more)}"


def _cells(came: int | None, said: follower.Said, steps: list[int], count: int, lang: str) -> dict[str, list[list]]:
    """The heatmap's matrices, a row a step of ``steps``, ``count`` places each; ``came``: the token that came next."""
    cells: dict[str, list[list]] = {"z": [], "text": [], "customdata": []}
    for r in steps:
        ids, logs, texts = said.ids[r - 1][:count], said.logprobs[r - 1][:count], said.texts[r - 1][:count]
        cut = [labels.show_piece(text, WIDTHS[place > 0]) for place, text in enumerate(texts)]
        whole = [labels.show_piece(text) for text in texts]
        cells["z"].append([_share(value) for value in logs])
        cells["text"].append(cut)
        notes = zip(ids, logs, whole, cut, strict=True)
        cells["customdata"].append([_note(log, full, short, token == came, lang) for token, log, full, short in notes])
    return cells


def _head(meta: Mapping[str, Any], frame: Mapping[str, Any], said: follower.Said, focus: Focus) -> str:
    words, last = TEXTS[focus.lang], len(said.ids)
    since = max(flips(said.ids), default=1)
    return labels.fill(
        words["head"],
        token=labels.token_label(frame, focus.lang, width=16),
        lens=follower.lens_name(meta, focus),
        steps=last,
        text=labels.show_piece(said.texts[-1][0], width=12),
        p=labels.percent(_probability(said.logprobs[-1][0]), focus.lang),
        since=_since(since, last, words),
    )


def _since(since: int, last: int, words: dict[str, str]) -> str:
    """Since when the last step's word has been ahead."""
    if since == last:
        return ""
    return words["always"] if since == 1 else words["since"].format(step=since)


def _missing(meta: Mapping[str, Any], frames: int, frame: Mapping[str, Any] | None, focus: Focus) -> str:
    """What to say instead of words; "" when there are some."""
    words = TEXTS[focus.lang]
    if frame is None:
        return follower.unread(frames, focus, words["no_data"])
    return follower.silent(meta, frame, focus, words["not_recorded"])


def _chosen(meta: Mapping[str, Any], frames: int, frame: Mapping[str, Any] | None, focus: Focus) -> dict[Path, Any]:
    """All that depends on which token is selected, by path."""
    missing = _missing(meta, frames, frame, focus)
    said, steps, head = follower.Said([], [], []), [], " "
    if frame is not None:
        head = labels.token_label(frame, focus.lang)
        block = frame["blocks"][focus.block]
        if block["n_steps"] and not missing:
            said = follower.said(block, follower.lens_of(meta, focus))
            steps, head = shown_steps(said.ids), _head(meta, frame, said, focus)
    count = places(meta, meta["blocks"][focus.block]["room"])
    names = [str(r) for r in steps]
    turns = [r for r in flips(said.ids) if r in steps]
    came = None if frame is None else frame["next_id"]
    cells = _cells(came, said, steps, count, focus.lang)
    most = max((p for row in cells["z"] for p in row if p), default=1)
    return {
        ("layout", "coloraxis", "cmax"): most,
        ("layout", "coloraxis", "colorbar", "tickvals"): [0, most],
        ("data", WINNER, "y"): names,
        **{("data", WINNER, key): [row[:1] for row in rows] for key, rows in cells.items()},
        ("data", OTHERS, "y"): names,
        **{("data", OTHERS, key): [row[1:] for row in rows] for key, rows in cells.items()},
        ("data", FLIPS, "x"): [-_gutter(count) / 2] * len(turns),
        ("data", FLIPS, "y"): [str(r) for r in turns],
        ("data", FLIPS, "text"): [
            " → ".join(f"“{labels.show_piece(said.texts[step - 1][0])}”" for step in (r - 1, r)) for r in turns
        ],
        ("layout", "yaxis", "range"): [
            max(len(steps), follower.LEAST_ROOM) - 0.5,
            -0.5,
        ],  # the first above: text is read down
        **parts.row_outlined(steps.index(focus.step) if focus.step in steps else None),
        ("layout", "title", "text"): head,
        **parts.notice(missing),
    }


def _gutter(count: int) -> float:
    """Width of the strip of marks left of the winner, in places."""
    return 0.06 * (count + 0.5)


def _data(lang: str, count: int, few: bool) -> list[dict[str, Any]]:
    words = TEXTS[lang]
    grid = {
        "type": "heatmap",
        "y": [],
        "z": [],
        "text": [],
        "customdata": [],
        "texttemplate": "“%{text}”<br>%{z:.2~p}",
        "coloraxis": "coloraxis",
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
    }
    font = {"color": theme.ON_SCALE}
    winner = {
        **grid,
        "x": [0, 1.5],  # edges
        "textfont": {**font, "size": 12 if few else 11, "weight": 600},
        "hovertemplate": words["hover_winner"] + "<extra></extra>",
    }
    others = {
        **grid,
        "x": [place - 0.5 for place in range(2, count + 2)],
        "textfont": {**font, "size": 10},
        "hovertemplate": words["hover"] + "<extra></extra>",
    }
    marks = {
        "type": "scatter",
        "mode": "markers",
        "name": words["flip"],
        "showlegend": True,
        "x": [],
        "y": [],
        "text": [],
        "marker": {"symbol": "triangle-right", "size": 11, "color": theme.INK},
        "hovertemplate": words["hover_flip"] + "<extra></extra>",
    }
    return [winner, others, marks]


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    margin = {"l": 44, "r": 8, "t": 52, "b": 80}
    layout, there = parts.block_layout(meta, focus, words, 260, margin, follower.lens_asks(meta, focus))
    if not there:
        return {"data": [], "layout": layout}
    steps = meta["blocks"][focus.block]["room"]
    rows, count = min(steps, ROWS), places(meta, steps)
    height = 52 + 80 + max((36 if rows <= MANY else 29) * rows, 150)
    layout |= {
        "height": height,
        "title": {"text": " ", "y": 1 - 20 / height},
        "xaxis": {
            "title": {"text": words["place"]},
            "range": [-_gutter(count), count + 0.5],
            "tickvals": [0.75, *range(2, count + 1)],
            "ticktext": [str(place) for place in range(1, count + 1)],
            "showgrid": False,
        },
        "yaxis": {
            "type": "category",
            "title": {"text": words["step"]},
            "showgrid": False,
        },
        "coloraxis": {
            "cmin": 0,
            "cmax": 1,
            "colorscale": theme.LIGHT_SCALE,
            "colorbar": parts.flat_bar(words["bar"], [0, 1], length=0.5, tickformat=".2~p"),
        },
        "shapes": [parts.row_outline("x", count + 0.5)],
        "showlegend": True,
        "legend": {"x": 1, "xanchor": "right", "y": 0, "yref": "container", "yanchor": "bottom"},
    }
    return {"data": _data(focus.lang, count, rows <= MANY), "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: the most likely next words of the selected token by loop step of ``focus.block``."""
    meta, at = follower.settled(trace, focus), focus.selected(len(trace))
    shown = _skeleton(meta, focus)
    if shown["data"]:
        fill(shown, _chosen(meta, len(trace), None if at is None else trace.frames[at], focus))
    return shown


figure = follower.checked(data)


@follower.redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: its own words, when the newest token is followed."""
    if labels.missing_block(trace.meta, focus.block, focus.lang):
        return []
    meta = follower.settled(trace, focus, frame)
    return _FOLLOWER.patch(trace, frame, focus, lambda frames, chosen: _chosen(meta, frames, chosen, focus))


def _runs(ids: list[list[int]]) -> list[tuple[int, int]]:
    """Stretches of steps with one winner: first and last step of each."""
    starts = [1, *flips(ids)]
    return list(zip(starts, [start - 1 for start in starts[1:]] + [len(ids)], strict=True))


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: the winner of every step, and how sure the last one is."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if absent:
        return absent
    frame = None if at is None else trace.frames[at]
    if missing := _missing(trace.meta, len(trace), frame, focus):
        return missing
    assert frame is not None  # else that is what is missing
    said = follower.said(frame["blocks"][focus.block], follower.lens_of(trace.meta, focus))
    winners = [
        words["one"].format(
            steps=first if first == last else f"{first}–{last}", text=labels.show_token(said.texts[first - 1][0])
        )
        for first, last in _runs(said.ids)
    ]
    shown = labels.fill(
        words["summary"],
        token=labels.token_label(frame, focus.lang),
        block=labels.block_label(trace.meta["blocks"][focus.block], focus.block, focus.lang),
        lens=follower.lens_name(trace.meta, focus),
        winners=", ".join(winners) if focus.lang == "en" else "、".join(winners),
        flips=len(flips(said.ids)),
        p=labels.percent(_probability(said.logprobs[-1][0]), focus.lang),
    )
    return labels.plain(shown)
