"""What can be measured of a run: the closed list, each a function of the run's Trace.

What a step "would say" is read through the exit lens: its state continued through the rest of the model, so that it is what
the model says with so many loops. `kl` and `change` are what the stopping criteria look at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from loopviz.checks import FieldError, shortened
from loopviz.lessons.schema import LessonMeasure
from loopviz.lessons.tables import CELL, Table, cell
from loopviz.trace.packed import decode_states
from loopviz.trace.schema import Frame
from loopviz.trace.trace import Trace

Kind = Literal["text", "number", "flag", "words", "curve"]
Measured = Union[bool, float, str, list[str], list[Union[float, None]]]  # noqa: UP007
EXIT = "exit"  # the extra that records the exit lens


@dataclass(frozen=True)
class Measurement:
    """One that there is.

    Attributes:
        kind: of its value: a text, a number, whether something is so, a word or a number a loop.
        take: `take(trace, asked, other)`: the value; `other` is the trace it is compared with, where it is.
        takes: what may be said beside `what` and `run`; `needs`: of these, what must be.
        exits: whether the run must record the exit lens.
        shown: how a number is written: `loops`, `mean`, `share`, `bytes`, `table` or `plain`.
    """

    kind: Kind
    take: Callable[[Any, LessonMeasure, Any], Measured]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    exits: bool = False
    shown: str = "plain"


def kind_of(asked: LessonMeasure) -> Kind:
    """What kind of value a measurement gives: of a curve at one loop, a number."""
    kind = MEASUREMENTS[asked["what"]].kind
    return "number" if kind == "curve" and "loop" in asked else kind


def measure(asked: LessonMeasure, traces: Mapping[str, Trace | Table]) -> Measured:
    """A measurement of a step's runs.

    Args:
        traces: of the runs that have been made, by name; of a measurement of the Lab its table.

    Raises:
        FieldError: the run has nothing to measure there: no such word, no loop, fewer loops.
    """
    return MEASUREMENTS[asked["what"]].take(traces[asked["run"]], asked, traces.get(asked.get("other", "")))


# --- where -----------------------------------------------------------------------------------------------------------------


def frame_at(trace: Trace, asked: LessonMeasure) -> Frame:
    """The frame that is asked about: of a word its last token's, else of the prompt's last token."""
    prompt = trace.meta["prompt_tokens"]
    if "word" not in asked:
        if len(trace.frames) < prompt:
            raise FieldError("run", asked["run"], "lesson_cut_short")
        return trace.frames[prompt - 1]
    ends = list(word_ends(trace, asked["word"].strip()))
    nth = asked.get("nth", 1)
    if len(ends) < nth:
        raise FieldError("word", asked["word"], "lesson_no_word", text=shortened(trace.text), n=len(ends))
    return trace.frames[ends[nth - 1]]


def word_ends(trace: Trace, word: str) -> list[int]:
    """Where a word ends in a run's text, as positions of tokens: it may be several tokens long."""
    pieces, found = [frame["text"] for frame in trace.frames], []
    for first in range(len(pieces)):
        said = ""
        for last in range(first, len(pieces)):
            said += pieces[last]
            if said.strip() == word and pieces[first].strip():
                found.append(last)
                break
            if len(said.strip()) > len(word):
                break
    return found


def _steps(trace: Trace, asked: LessonMeasure) -> tuple[Frame, Any]:
    frame = frame_at(trace, asked)
    if not frame["blocks"] or not frame["blocks"][-1]["n_steps"]:
        raise FieldError("run", asked["run"], "lesson_no_loop")
    return frame, frame["blocks"][-1]


def _at(asked: LessonMeasure, values: list[Any]) -> Any:
    """All of a list by loop, or its entry at the loop that is asked for."""
    if "loop" not in asked:
        return values
    if not 1 <= asked["loop"] <= len(values):
        raise FieldError("loop", asked["loop"], "lesson_few_loops", n=len(values))
    found = values[asked["loop"] - 1]
    if found is None:
        raise FieldError("loop", asked["loop"], "lesson_undefined")
    return found


# --- what ------------------------------------------------------------------------------------------------------------------


def _text(trace: Trace, asked: LessonMeasure, other: Any) -> str:
    prompt = sum(len(frame["text"]) for frame in trace.frames[: trace.meta["prompt_tokens"]])
    return trace.text[prompt:]


def _answer(trace: Trace, asked: LessonMeasure, other: Any) -> str:
    return trace.frames[trace.meta["prompt_tokens"] - 1]["next_text"].strip() if trace.frames else ""


def guesses_of(trace: Trace, asked: LessonMeasure) -> list[str]:
    """What each loop would say after the word that is asked about, best guess only."""
    _, block = _steps(trace, asked)
    return [texts[0].strip(" ") for texts in block["steps"]["exit_topk_texts"]]


def stands(trace: Trace) -> tuple[list[tuple[str, float | None]], tuple[str, float | None]]:
    """After the prompt: where each loop's state stands (the direct lens), and what the model said then; with probabilities.

    For a picture of the way: what would be said, the exit lens, is further on where layers after the loop go on by themselves.
    """
    frame = frame_at(trace, {"what": "guesses", "run": ""})
    steps = frame["blocks"][-1]["steps"] if frame["blocks"] else None
    pairs = zip(steps["topk_texts"], steps["topk_logprobs"], strict=True) if steps is not None else ()
    said = frame["next_text"].strip(), _share(frame["next_logprob"])
    return [(texts[0].strip(), _share(logs[0])) for texts, logs in pairs], said


def _share(logprob: float | None) -> float | None:
    return None if logprob is None else math.exp(logprob)


def _guesses(trace: Trace, asked: LessonMeasure, other: Any) -> Any:
    return _at(asked, guesses_of(trace, asked))


def _settles(trace: Trace, asked: LessonMeasure, other: Any) -> float:
    said = guesses_of(trace, asked)
    return 1 + max((r for r, word in enumerate(said, start=1) if word != said[-1]), default=0)


def _lost(trace: Trace, asked: LessonMeasure, other: Any) -> float:
    said = guesses_of(trace, asked)
    return next((r for r, word in enumerate(said, start=1) if word != said[0]), 0)


def _loops(trace: Trace, asked: LessonMeasure, other: Any) -> float:
    return _steps(trace, asked)[1]["n_steps"]


def _every_loops(trace: Trace, asked: LessonMeasure) -> list[int]:
    if not trace.frames or not trace.frames[0]["blocks"]:
        raise FieldError("run", asked["run"], "lesson_no_loop")
    return [frame["blocks"][-1]["n_steps"] for frame in trace.frames]


def _mean_loops(trace: Trace, asked: LessonMeasure, other: Any) -> float:
    counts = _every_loops(trace, asked)
    return sum(counts) / len(counts)


def _hardest_word(trace: Trace, asked: LessonMeasure, other: Any) -> str:
    counts = _every_loops(trace, asked)
    return trace.frames[counts.index(max(counts))]["text"].strip(" ")


def _chance(trace: Trace, asked: LessonMeasure, other: Any) -> Any:
    _, block = _steps(trace, asked)
    return _at(asked, [None if p is None else math.exp(p) for p in block["steps"]["exit_logprob"]])


def _change(trace: Trace, asked: LessonMeasure, other: Any) -> Any:
    _, block = _steps(trace, asked)
    return _at(asked, [None if cos is None else max(0.0, 1 - cos) for cos in block["steps"]["cosine"]])


def _kl(trace: Trace, asked: LessonMeasure, other: Any) -> Any:
    return _at(asked, list(_steps(trace, asked)[1]["steps"]["kl"]))


def perplexities(trace: Trace, asked: LessonMeasure) -> list[float | None]:
    """Of the prompt, by loop: `exp` of the mean of minus log p of its next token; a token that stopped earlier stays as it is."""
    read = trace.frames[: trace.meta["prompt_tokens"] - 1]  # what comes after the last one is the model's own
    if not read:
        raise FieldError("run", asked["run"], "lesson_one_token")
    rows = [frame["blocks"][-1]["steps"]["exit_logprob"] if frame["blocks"] else [] for frame in read]
    most = max(map(len, rows))
    if not all(rows):
        raise FieldError("run", asked["run"], "lesson_no_loop")
    found: list[float | None] = []
    for r in range(most):
        said = [row[min(r, len(row) - 1)] for row in rows]
        known = [p for p in said if p is not None]
        found.append(math.exp(-sum(known) / len(known)) if len(known) == len(said) else None)
    return found


def _perplexity(trace: Trace, asked: LessonMeasure, other: Any) -> Any:
    return _at(asked, perplexities(trace, asked))


def _best_loop(trace: Trace, asked: LessonMeasure, other: Any) -> float:
    found = [math.inf if one is None else one for one in perplexities(trace, asked)]
    return 1 + found.index(min(found))


def _same_text(trace: Trace, asked: LessonMeasure, other: Any) -> bool:
    return _text(trace, asked, None) == _text(other, asked, None)


def _orbit(trace: Trace, asked: LessonMeasure, other: Any) -> float:
    """Loops of one turn: 1 where the state comes to rest, 0 where it does neither."""
    from loopviz.panels.kit.trajectories import ending

    _, block = _steps(trace, asked)
    if block["states"] is None:
        raise FieldError("run", asked["run"], "lesson_no_loop")
    end = ending(decode_states(block["states"], trace.meta["shape"]["hidden"]))
    if end.kind == "few":
        raise FieldError("run", asked["run"], "lesson_few_loops", n=block["n_steps"])
    return {"fixed": 1, "settling": 1}.get(end.kind, end.period or 0)


def _memory(trace: Trace, asked: LessonMeasure, other: Any) -> float:
    return trace.frames[-1]["kv"]["bytes_used"] if trace.frames else 0


_WORD = ("word", "nth")
MEASUREMENTS: Mapping[str, Measurement] = {
    "text": Measurement("text", _text),  # what it wrote
    "answer": Measurement("text", _answer),  # the first token of that
    "guess": Measurement("text", _guesses, (*_WORD, "loop"), ("loop",), exits=True),  # at one loop
    "guesses": Measurement("words", _guesses, _WORD, exits=True),  # at each
    "settles": Measurement(
        "number", _settles, _WORD, exits=True, shown="loops"
    ),  # from when on the guess is the last one
    "lost": Measurement(
        "number", _lost, _WORD, exits=True, shown="loops"
    ),  # when it is first another than at loop 1; 0: never
    "loops": Measurement("number", _loops, _WORD, shown="loops"),  # that a word took
    "mean_loops": Measurement("number", _mean_loops, shown="mean"),  # over all words of the run
    "hardest_word": Measurement("text", _hardest_word),  # the first of those that took the most loops
    "chance": Measurement(
        "curve", _chance, (*_WORD, "loop"), exits=True, shown="share"
    ),  # of the word that comes next in the text
    "change": Measurement("curve", _change, (*_WORD, "loop")),  # 1 - cos of a state and the one before
    "kl": Measurement("curve", _kl, (*_WORD, "loop")),  # nats, by which a loop moves the guess (direct lens)
    "perplexity": Measurement("curve", _perplexity, ("loop",), exits=True),  # of the prompt
    "best_loop": Measurement("number", _best_loop, exits=True, shown="loops"),  # at which that is lowest
    "same_text": Measurement("flag", _same_text, ("other",), ("other",)),  # whether two runs wrote the same
    "orbit": Measurement(
        "number", _orbit, _WORD, shown="loops"
    ),  # after how many loops the state is back; 1: at rest; 0: neither
    "memory": Measurement("number", _memory, shown="bytes"),  # the KV cache at the end
    CELL: Measurement(  # of a table of the Lab
        "number",
        lambda table, asked, other: cell(table, asked),
        ("column", "row", "called"),
        ("column", "called"),
        shown="table",
    ),
}
