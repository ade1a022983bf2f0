"""The tour as the page plays it: its steps (:mod:`loopviz.app.texts.tour`) filled with what the recorded run holds.

Which word is hard, which easy, where the guess changes is found by rule, so that another recording gets another tour
that is true of it. "Loops" are those of the first looped block, which a page just opened shows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loopviz.app.controls import about
from loopviz.app.explore import first_run, snapshot
from loopviz.app.server.glossary import Piece
from loopviz.app.sessions.messages import dumps
from loopviz.app.texts import table, text
from loopviz.app.texts.tour import STEPS, Question, Step
from loopviz.panels import PANELS, Focus
from loopviz.panels.hero.telling import turns
from loopviz.panels.kit.follower import lens_of, said
from loopviz.trace import Frame, Trace

_LINK = re.compile(r"\[([^\]]+)\]\(#(\w+)\)")


@dataclass(frozen=True)
class Found:
    """Positions of the words the tour speaks of; None where the run has none.

    hard: took the most loops, and more than half of all words did.
    easy: took the fewest of all words that are no marks, and fewer than `hard`.
    turn: changed its likeliest next word most often, and ended on another than it began with.
    """

    hard: int | None
    easy: int | None
    turn: int | None


def _loops(frame: Frame) -> int:
    return frame["blocks"][0]["n_steps"] if frame["blocks"] else 0


def _winners(meta: Mapping[str, Any], frame: Frame) -> list[str]:
    """The likeliest next token after each loop step, as the model would say it; none when they were not recorded."""
    if not frame["blocks"]:
        return []
    return [texts[0] for texts in said(frame["blocks"][0], lens_of(meta, Focus())).texts if texts]


def find(trace: Trace) -> Found:
    """The words the tour speaks of, among those the model wrote: a prompt's words share one number of loops.

    Of words that take equally many loops the first one that is a word, and not a mark or a part of one, is taken.
    """
    written = [frame for frame in trace.frames if frame["phase"] == "generated" and frame["blocks"]]
    if not written:
        return Found(None, None, None)

    def words(frames: list[Frame]) -> list[Frame]:
        return [frame for frame in frames if re.search(r"\w{2}", frame["text"])] or frames

    counts = sorted(map(_loops, written))
    most, middle = counts[-1], counts[len(counts) // 2]
    hard = words([frame for frame in written if _loops(frame) == most])[0] if most > middle else None
    easy = min(words(written), key=_loops)  # the first of the least
    turning = {frame["index"]: turns(trace.meta, frame, Focus()) for frame in written}
    turn = max(written, key=lambda frame: turning[frame["index"]])
    places = [hard, easy if _loops(easy) < most else None, turn if turning[turn["index"]] else None]
    return Found(*(None if frame is None else frame["index"] for frame in places))


def _calms(trace: Trace, found: Found) -> bool:
    if found.hard is None:
        return False
    steps = trace.frames[found.hard]["blocks"][0]["steps"]
    curves = [[None if c is None else 1 - c for c in steps["cosine"]], steps["kl"], steps["rel_delta"]]
    ends = [(curve[0], curve[-1]) for curve in curves if curve and None not in (curve[0], curve[-1])]
    return len(ends) == len(curves) and all(last < 0.1 * first for first, last in ends)


# What a step's words may take for granted, each checked in the run itself.
CLAIMS: Mapping[str, Callable[[Trace, Found], bool]] = {
    # the run loops
    "loops": lambda trace, found: any(_loops(frame) > 1 for frame in trace.frames),
    # the model went on from the prompt
    "goes_on": lambda trace, found: 0 < trace.meta["prompt_tokens"] < len(trace) - 1,
    # some words took more loops than most, others fewer
    "uneven": lambda trace, found: found.hard is not None and found.easy is not None,
    # the loop is stopped where the guess hardly moves any more, and by nothing else
    "stops_by_kl": lambda trace, found: (
        [(block["strategy"], block["criterion"]) for block in trace.meta["blocks"][:1]] == [("dynamic_stop", "kl")]
    ),
    # at the last loop over the hard word all three curves are less than a tenth of what they were at the first
    "calms": _calms,
    # what a panel would read off after a loop is what the model would say
    "true_lens": lambda trace, found: bool(trace.meta["blocks"]) and lens_of(trace.meta, Focus()) != "direct",
    # a word after which the likeliest next word changed from loop to loop
    "turns": lambda trace, found: found.turn is not None,
    # there is a panel that needs more than every run records
    "has_more": lambda trace, found: _panel() is not None,
}


def _panel() -> str | None:
    """The first panel that is off until a visitor asks, because it needs more than every run records."""
    return next((name for name, panel in PANELS.items() if snapshot.needs(panel) and not snapshot.usual(panel)), None)


def _shown(piece: str) -> str:
    """A token as one line without the space before it."""
    return piece.strip(" ").replace("\n", "↵") or "␣"


def facts(trace: Trace, lang: str) -> dict[str, Any]:
    """All that steps may name, of the stored run and of the page, by name; a word the run lacks has no facts."""
    found, name = find(trace), _panel()
    made: dict[str, Any] = {
        "prompt": trace.meta["prompt_tokens"],
        "hidden": trace.meta["shape"]["hidden"],
        "panel_name": name,
        "panel": table(lang).get(f"panel.{name}", name),
        "memory": " · ".join(about.memory(block, lang) for block in trace.meta["blocks"]),
        "ways": text(lang, "presets"),
        "run": text(lang, "run"),
        "how": text(lang, "live.details"),
    }
    for role, at in (("hard", found.hard), ("easy", found.easy), ("turn", found.turn)):
        if at is None:
            continue
        frame, reason = trace.frames[at], trace.frames[at]["blocks"][0]["stop_reason"]
        loops = _loops(frame)
        made |= {role: at, f"{role}_text": _shown(frame["text"]), f"{role}_loops": loops, f"{role}_read": at + 1}
        made[f"{role}_step"] = min(2, loops)
        known = f"live.reason.{reason}"
        made[f"{role}_why"] = table(lang).get(known, reason)  # a registered criterion's name
    if found.turn is not None:
        made |= _turn_facts(_winners(trace.meta, trace.frames[found.turn]))
    if trace.meta["blocks"]:
        first, last = trace.meta["blocks"][0]["layers"]
        made["looped"] = last - first + 1
    return made


def _turn_facts(winners: list[str]) -> dict[str, Any]:
    """Of the word after which the guess changed: where it came to stay, and what an earlier end would have given.

    The loop asked about is the last whose guess is neither the first nor the last one, where there is one: else the first.
    """
    final = len(winners)
    while final > 1 and winners[final - 2] == winners[-1]:
        final -= 1
    between = [r for r, winner in enumerate(winners, start=1) if winner not in (winners[0], winners[-1])]
    cut = between[-1] if between else 1
    answers = list(dict.fromkeys(map(_shown, winners)))
    chosen = [_shown(winners[0]), _shown(winners[cut - 1]), _shown(winners[-1])]
    answers = [answer for answer in answers if answer in chosen]
    return {
        "turn_first": _shown(winners[0]),
        "turn_last": _shown(winners[-1]),
        "turn_step": final,
        "cut": cut,
        "cut_text": _shown(winners[cut - 1]),
        "cut_answers": answers,
        "cut_right": answers.index(_shown(winners[cut - 1])),
    }


def steps(trace: Trace) -> list[Step]:
    """The steps whose claims hold for `trace`."""
    found = find(trace)
    return [step for step in STEPS if all(CLAIMS[claim](trace, found) for claim in step.claims)]


def _pieces(words: str, known: Mapping[str, Any]) -> list[Piece]:
    """`words` in pieces, filled in; a token's text is never read as a link."""
    pieces: list[Piece] = []
    done = 0
    for link in _LINK.finditer(words):
        pieces += [words[done : link.start()].format(**known), [link[1].format(**known), link[2]]]
        done = link.end()
    pieces.append(words[done:].format(**known))
    return [piece for piece in pieces if piece]


def _valued(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, str) and value.startswith("@"):
        return known[value[1:]]
    return [_valued(item, known) for item in value] if isinstance(value, tuple) else value


def played(step: Step, known: Mapping[str, Any], lang: str) -> dict[str, Any]:
    """A step as the page plays it: `{key, target, title, words, focus, shown, play, panels, asks}`.

    `focus` is whole, but for the language; `shown` is the number of tokens, null for all.
    """
    said = step.said(lang)
    return {
        "key": step.key,
        "target": step.target.format(**known),
        "title": said.title,
        "words": _pieces(said.words, known),
        "focus": _focused(step.focus, known),
        "shown": known[step.shown] if step.shown else None,
        "play": step.play,
        "panels": [_valued(name, known) for name in step.panels],
        "asks": None if step.asks is None else _asked(step.asks, known, lang),
    }


def _focused(focus: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """A whole focus but for its language, of the fields that are not as on a page just opened."""
    whole = Focus.from_json({name: _valued(value, known) for name, value in focus.items()}).to_json()
    del whole["lang"]
    return whole


def _asked(question: Question, known: Mapping[str, Any], lang: str) -> dict[str, Any]:
    right, wrong = (_pieces(words, known) for words in question.said(lang))
    return {
        "answers": known[question.answers],
        "right": known[question.right],
        "focus": _focused(question.focus, known),
        "told": {"right": right, "wrong": wrong},
    }


@functools.cache
def document(lang: str) -> bytes | None:
    """The tour in `lang` as JSON: `{"steps": [...]}`, each as :func:`played`; None when there is no stored run."""
    trace = first_run.stored()
    if trace is None:
        return None
    known = facts(trace, lang)
    return dumps({"steps": [played(step, known, lang) for step in steps(trace)]}).encode()
