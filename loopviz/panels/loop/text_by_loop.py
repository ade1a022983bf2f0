"""Text by loop: what every loop step would have chosen at each place of the text that was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from loopviz.figures import labels
from loopviz.figures.edits import Op, Path, fill
from loopviz.panels.kit import follower, parts

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

NAME = "text_by_loop"
GROUP = "words"
ORDER = 22
CODE: tuple[str, ...] = (
    "loopviz.panels.loop.text_by_loop:rows",
    "loopviz.trace.recording.recorder:Reading._lens_columns",
    "loopviz.model.exit_lens:exit_states",
)  # what computes it; the page links there
NEEDS: tuple[str, ...] = ()  # the exit lens needs "exit"; without it the panel says so when that lens is chosen
CHOICES = 24  # places of the text shown at most
ROWS = 8  # different texts shown at most, beside the one written; of more, one row says how many are left out
LEAST_ROWS = 4  # rows there is room for from the start
LINES, LINE = 3, 42  # lines of a text, and columns of a line: what a phone holds
_FOLLOWER = follower.Follower()

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What would fewer loops have chosen?",
        "question": "If the loop had stopped after step r at every word, which words would it have chosen?",
        "how": "A row is a number of loop steps r, or several that choose the same, from the top down: the most likely "
        "next word after step r, at each place of the text generated up to the selected token. Every word is chosen "
        "given the text that was really written, not given the row's own words: so a row is not the text a model with "
        "fewer loops would write, it is its choice at each place. A word that stopped before step r keeps the choice of "
        "its last step. The direct lens skips the layers after the block: in a model that was not trained for it, its words "
        "may make no sense; the exit lens reads what the model would really say. Underlined: not what the last step chose "
        "there. The row “written” appears where the text written is not what the last step chose, as under sampling. At "
        "most the last 24 words, fewer when they are long. At most 8 rows: where there are more, one row names the steps it "
        "stands for and says how many different texts are left out.",
        "formula": r"w_t(r)=\arg\max_v\ p^{(t)}_{\min(r,N_t)}(v)\qquad\text{given the tokens written before place }t",
        "units": "Words (tokens) as the model's tokenizer cuts them.",
        "source": "The most likely token of every loop step, recorded in this run; through the lens chosen above (see “What "
        "would it say if it stopped here?”).",
        "cost": "Nothing beyond what every run records with the direct lens. The exit lens runs the layers after the "
        "block once more for every loop step.",
        "no_data": "Nothing read yet: the texts appear with the first word generated",
        "not_recorded": "the exit lens was not recorded in this run: run again with it, or choose the direct lens",
        "prompt": "token {token} is inside the prompt: no word was generated yet",
        "step": "stopped after step r",
        "words": "underlined: not what the last step chose",
        "written": "written",
        "hover": "stopped after step r = %{y}<br>not the last step's choice: %{customdata}",
        "left_out": "… {count} more texts are not shown",
        "last_one": "the last word",
        "last": "the last {all} words",
        "at_one": "At the last generated word",
        "at": "At the last {all} generated words",
        "head": "{last} · {lens}<br>words that differ, by row: {counts}",
        "summary": "{at}, up to {token}, {block}, {lens}: {rows}.",
        "one": "stopping after step {steps} changes {count} of them",
        "one_other": "stopping after step {steps} changes it",
        "one_same": "stopping after step {steps} does not change it",
        "unseen": "steps {steps} choose {count} more texts, not told here",
        "text": ": “{text}”",
    },
    "zh": {
        "title": "循环更少会选哪些词？",
        "question": "如果每个词都在第 r 步之后停下，会选出哪些词？",
        "how": "一行是一个循环步数 r（选择相同的几个步数合为一行），自上而下：在截至所选词元的已生成文本的每个位置，第 r 步之后最可能的下一个词。"
        "每个词都是在真正写出的文本之后选择的，而不是接着该行自己的词：因此一行并不是循环更少的模型会写出的文本，而是它在每个位置上的选择。"
        "在第 r 步之前就停止的词保留其最后一步的选择。直接透镜跳过块之后的各层："
        "若模型没有为此训练过，选出的词可能毫无意义；出口透镜读出的才是模型真正会说的。下划线：与最后一步的选择不同。若写出的文本不是最后一步的选择（例如采样时），会多出“写出”一行。"
        "最多显示最后 24 个词，词长时更少。最多 8 行：超出时有一行写明它代表哪些步、略去了多少种不同的选择。",
        "formula": r"w_t(r)=\arg\max_v\ p^{(t)}_{\min(r,N_t)}(v)\qquad\text{given the tokens written before place }t",
        "units": "词（词元），按模型分词器的切分。",
        "source": "本次运行记录的每个循环步最可能的词元，经由上方选择的透镜（见“如果停在这里，它会说什么？”）。",
        "cost": "直接透镜：除每次运行本来就记录的内容外，没有额外开销。出口透镜：每个循环步要把块之后的各层再计算一次。",
        "no_data": "尚未读入词元：生成第一个词后出现",
        "not_recorded": "本次运行没有记录出口透镜：请用它重新运行，或选择直接透镜",
        "prompt": "词元 {token} 在提示词之内：尚未生成词",
        "step": "在第 r 步后停下",
        "words": "下划线：与最后一步的选择不同",
        "written": "写出",
        "hover": "在第 %{y} 步后停下<br>与最后一步的选择不同：%{customdata}",
        "left_out": "……还有 {count} 种文字未显示",
        "last_one": "最后一个词",
        "last": "最后 {all} 个词",
        "at_one": "最后一个生成词",
        "at": "最后 {all} 个生成词",
        "head": "{last} · {lens}<br>各行不同的词数：{counts}",
        "summary": "截至{token}的{at}，{block}，{lens}：{rows}。",
        "one": "在第 {steps} 步后停下会改变其中 {count} 个",
        "one_other": "在第 {steps} 步后停下会改变它",
        "one_same": "在第 {steps} 步后停下不会改变它",
        "unseen": "第 {steps} 步还有 {count} 种文字，此处略去",
        "text": "：“{text}”",
    },
}


class Row(NamedTuple):
    """One text: its name on the axis, the first and last step it stands for (0: none), and for every place the piece
    chosen and whether the last step chose another; or ``left_out``, so many texts that are not shown."""

    name: str
    steps: tuple[int, int]
    pieces: list[tuple[str, bool]]
    left_out: int = 0

    @property
    def differ(self) -> int:
        return sum(other for _, other in self.pieces)


def _steps_that_choose_anew(said: list[follower.Said]) -> list[int]:
    """The steps, 1 first, at which at least one place changes its choice: each begins a row."""
    starts = {1}
    for column in said:
        starts |= {r for r in range(2, len(column.ids) + 1) if column.ids[r - 1][0] != column.ids[r - 2][0]}
    return sorted(starts)


def _name(first: int, last: int, final: bool) -> str:
    """``1``, ``2–4``, ``5+``: the steps a row stands for; the final row's are all later ones too."""
    if first == last:
        return str(first)
    return f"{first}+" if final else f"{first}–{last}"


def rows(frames: Sequence[Mapping[str, Any]], block: int, lens: str, written: str = "written") -> list[Row]:
    """The texts of ``frames``: what they would have chosen after every step, and what was written if it differs.

    Args:
        frames: those whose next token was generated, in order; all recorded.
        block, lens: where the choices are read.
        written: the name of the row of the text really written.
    """
    said = [follower.chosen_by(frame, block, lens) for frame in frames]
    starts = _steps_that_choose_anew(said)
    ends = [*(start - 1 for start in starts[1:]), max(len(column.ids) for column in said)]
    stretches = list(zip(starts, ends, strict=True))
    unseen = stretches[ROWS - 2 : -1] if len(stretches) > ROWS else []
    out = []
    for start, end in stretches:
        if (start, end) in unseen:
            if start == unseen[0][0]:
                whole = (start, unseen[-1][1])
                out.append(Row(_name(*whole, False), whole, [], len(unseen)))
            continue
        at = [min(start, len(column.ids)) - 1 for column in said]
        choices = [
            (column.texts[i][0], column.ids[i][0] != column.ids[-1][0]) for column, i in zip(said, at, strict=True)
        ]
        out.append(Row(_name(start, end, end == ends[-1]), (start, end), choices))
    real = [
        (frame["next_text"], frame["next_id"] != column.ids[-1][0]) for frame, column in zip(frames, said, strict=True)
    ]
    if any(other for _, other in real):
        out.append(Row(written, (0, 0), real))
    return out


@lru_cache(maxsize=4096)
def _inline(text: str, other: bool) -> tuple[str, int]:
    """A piece as it stands in a running text, and the columns it takes: its own blanks kept, underlined if ``other``."""
    shown = labels.show_token(text, width=16)
    used = labels.columns(labels.plain(shown))
    before = after = ""
    if text.strip(" "):  # show_token strips blanks at the ends, but shows a piece that is nothing else
        before, after = " " * text.startswith(" "), " " * text.endswith(" ")
    shown = f"<u>{shown}</u>" if other else shown
    return f"{before}{shown}{after}", used + len(before) + len(after)


def _wrap(pieces: list[tuple[str, int]]) -> list[str]:
    """Pieces (text and columns) in lines of at most ``LINE`` columns."""
    lines, width = [""], 0
    for shown, used in pieces:
        if width and width + used > LINE:
            lines, width = [*lines, ""], 0
        lines[-1] += shown
        width += used
    return [line.strip(" ").replace("</u><u>", "") for line in lines]


def _most(pieces: list[tuple[str, int]]) -> int:
    """No more of the last ``pieces`` than this can fit in ``LINES`` lines, wherever the lines break; at least 1."""
    room = accumulate(used for _, used in reversed(pieces))
    return max(1, sum(width <= LINES * LINE for width in room))


def _counted(key: str, count: int, words: dict[str, str]) -> str:
    """How many last words, in words; one is said without its number."""
    return words[f"{key}_one" if count == 1 else key].format(all=count)


def _row_told(row: Row, words: dict[str, str]) -> str:
    """What the summary says of a row."""
    if row.left_out:
        return words["unseen"].format(steps=row.name, count=row.left_out)
    if len(row.pieces) == 1:
        return words["one_other" if row.differ else "one_same"].format(steps=row.name)
    return words["one"].format(steps=row.name, count=row.differ)


def _fitting(found: list[Row]) -> tuple[list[Row], list[list[str]]]:
    """The rows cut to as many of their last places as fit in ``LINES`` lines in every row, and those lines."""
    inline = [[_inline(*piece) for piece in row.pieces] for row in found]
    count = min(_most(pieces) for pieces in inline if pieces)
    while True:
        lines = [_wrap(pieces[-count:]) if pieces else [] for pieces in inline]
        if count == 1 or max(map(len, lines)) <= LINES:
            return [row._replace(pieces=row.pieces[-count:]) for row in found], lines
        count -= 1


def _window(
    meta: Mapping[str, Any], frames: Sequence[Mapping[str, Any]], at: int, coming: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The last frames up to position ``at`` whose next token was generated, at most ``CHOICES``.

    ``coming`` is the frame of position ``len(frames)``, for ``at`` there.
    """
    start = max(meta["prompt_tokens"] - 1, at + 1 - CHOICES, 0)
    return [*frames[start : at + 1], *[coming] * (at == len(frames) and start <= at)]


def _missing(meta: Mapping[str, Any], count: int, frame: Mapping[str, Any] | None, focus: Focus) -> str:
    """What to say instead of texts; "" when there are some."""
    words = TEXTS[focus.lang]
    if frame is None:
        return follower.unread(count, focus, words["no_data"])
    if silent := follower.silent(meta, frame, focus, words["not_recorded"]):
        return silent
    inside = frame["index"] < meta["prompt_tokens"] - 1
    return words["prompt"].format(token=frame["index"]) if inside else ""


def _chosen(trace: Trace, count: int, frame: Mapping[str, Any] | None, focus: Focus) -> dict[Path, Any]:
    """All that depends on which token is selected, by path, when ``count`` frames are there.

    ``frame`` is the selected one: of ``trace``, or the one that comes next.
    """
    meta, words = trace.meta, TEXTS[focus.lang]
    missing = _missing(meta, count, frame, focus)
    found: list[Row] = []
    lines: list[list[str]] = []
    head = " "
    if frame is not None and not missing:
        window = _window(meta, trace.frames, frame["index"], frame)
        found, lines = _fitting(rows(window, focus.block, follower.lens_of(meta, focus), words["written"]))
        head = words["head"].format(
            last=_counted("last", len(found[0].pieces), words),
            lens=follower.lens_name(meta, focus),
            counts=" · ".join("…" if row.left_out else str(row.differ) for row in found),
        )
    step = focus.step or -1
    here = next((i for i, row in enumerate(found) if row.steps[0] <= step <= row.steps[1]), None)
    return {
        **parts.row_outlined(here, 0.48),
        ("data", 0, "x"): [0] * len(found),
        ("data", 0, "y"): [row.name for row in found],
        ("data", 0, "text"): [
            words["left_out"].format(count=row.left_out) if row.left_out else "<br>".join(text)
            for row, text in zip(found, lines, strict=True)
        ],
        ("data", 0, "customdata"): ["…" if row.left_out else f"{row.differ}/{len(row.pieces)}" for row in found],
        **_height(len(found)),
        ("layout", "yaxis", "range"): [max(len(found), 1) - 0.5, -0.5],  # the first step above
        ("layout", "title", "text"): head,
        **parts.notice(missing),
    }


def _height(count: int) -> dict[Path, Any]:
    """The figure's height, by path: of four rows, or of all there may be."""
    height = 52 + 46 + 52 * (LEAST_ROWS if count <= LEAST_ROWS else ROWS + 1)
    return {("layout", "height"): height, ("layout", "title", "y"): 1 - 20 / height}


def _skeleton(meta: Mapping[str, Any], focus: Focus) -> dict[str, Any]:
    """The figure without any token. A run without the block asked for has no traces, only the words that say so."""
    words = TEXTS[focus.lang]
    margin = {"l": 44, "r": 4, "t": 52, "b": 10}
    layout, there = parts.block_layout(meta, focus, words, 260, margin, follower.lens_asks(meta, focus))
    if not there:
        return {"data": [], "layout": layout}
    layout |= {
        "xaxis": {
            "title": {"text": words["words"]},
            "range": [0, 1],
            "showticklabels": False,
            "ticks": "",
            "showgrid": False,
            "fixedrange": True,
        },
        "yaxis": {"type": "category", "title": {"text": words["step"]}, "range": [0.5, -0.5], "showgrid": False},
        "showlegend": False,
        "shapes": [parts.row_outline(width=1.5, half=0.48)],
    }
    texts = {
        "type": "scatter",
        "mode": "text",
        "x": [],
        "y": [],
        "text": [],
        "customdata": [],
        "textposition": "middle right",
        "textfont": {"size": 13},
        "cliponaxis": False,
        "hovertemplate": words["hover"] + "<extra></extra>",
    }
    return {"data": [texts], "layout": layout}


def data(trace: Trace, focus: Focus) -> dict[str, Any]:
    """The figure of ``trace``: the choices of every loop step of ``focus.block`` over the text up to the selected token."""
    shown, at = _skeleton(follower.settled(trace, focus), focus), focus.selected(len(trace))
    if shown["data"]:
        fill(shown, _chosen(trace, len(trace), None if at is None else trace.frames[at], focus))
    return shown


figure = follower.checked(data)


@follower.redrawn(data)
def patch(trace: Trace, frame: Mapping[str, Any], focus: Focus) -> list[Op]:
    """The edits ``frame`` brings: the texts one place further, when the newest token is followed."""
    if labels.missing_block(trace.meta, focus.block, focus.lang):
        return []
    return _FOLLOWER.patch(trace, frame, focus, lambda count, chosen: _chosen(trace, count, chosen, focus))


def summary(trace: Trace, focus: Focus) -> str:
    """One sentence: how many choices every row changes, and the first one's text."""
    absent = labels.missing_block(trace.meta, focus.block, focus.lang)
    words, at = TEXTS[focus.lang], focus.selected(len(trace))
    if absent:
        return absent
    frame = None if at is None else trace.frames[at]
    if missing := _missing(trace.meta, len(trace), frame, focus):
        return missing
    assert at is not None  # else that is what is missing
    assert frame is not None
    found, lines = _fitting(
        rows(
            _window(trace.meta, trace.frames, at, frame),
            focus.block,
            follower.lens_of(trace.meta, focus),
            words["written"],
        )
    )
    chosen = [row for row in found if row.name != words["written"]]
    told = [_row_told(row, words) for row in chosen]
    told[0] += words["text"].format(text=" ".join(lines[0]))
    shown = words["summary"].format(
        at=_counted("at", len(found[0].pieces), words),
        token=labels.token_label(frame, focus.lang),
        block=labels.block_label(trace.meta["blocks"][focus.block], focus.block, focus.lang),
        lens=follower.lens_name(trace.meta, focus),
        rows="; ".join(told) if focus.lang == "en" else "；".join(told),
    )
    return labels.plain(shown)
