"""What the page's script may ask, and what it is told: strings of JSON both ways, and nothing in a question is trusted.

A run is found by its unguessable id, or is the recorded one, which is everybody's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.explore import first_run, snapshot
from loopviz.app.explore import replay as playing
from loopviz.app.explore.run import Run, Runs
from loopviz.app.sessions.carried import Carried, CarriedRun
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.model_notes import together
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.untrusted import read
from loopviz.app.texts import pick_language
from loopviz.panels import PANELS, Focus, hero
from loopviz.panels.kit.follower import said
from loopviz.prompt_templates import template_of, written
from loopviz.trace import Frame, Trace

LARGEST_POSITION = 1_000_000
LONGEST_PIECE = 400  # characters of one token


def read_focus(asked: Any) -> Focus | None:
    """A focus as asked for; None when it is none, or points beyond any run."""
    try:
        focus = Focus.from_json(asked)
    except (ValueError, TypeError):
        return None
    far = max(focus.token or 0, focus.block, focus.step or 0, focus.layer or 0, *focus.pins, 0) > LARGEST_POSITION
    return None if far else focus


def read_panels(asked: Any) -> snapshot.Panels:
    """The panels asked for, in the page's order; those a page opens with when nothing well-formed was asked."""
    if not isinstance(asked, list):
        return first_run.opening_panels()
    return {name: panel for name, panel in PANELS.items() if name in asked}


def _place(asked: Mapping[str, Any], key: str, default: int) -> int:
    value = asked.get(key)
    return value if value is not None and 0 <= value <= LARGEST_POSITION else default


def text_up_to(trace: Trace, token: int) -> str:
    """The run's text up to and with a token."""
    return "".join(frame["text"] for frame in trace.frames[: token + 1])


def as_prompt(trace: Trace, said: str) -> str:
    """`said`, a beginning of the run's text and perhaps something more, without a mark that was not typed, nor a template's."""
    settings, first = trace.meta["settings"], trace.frames[0]["text"]
    template = template_of(settings)
    typed = written(template, trace.meta["prompt"], settings.get("input", "")).strip()
    begins = "".join(frame["text"] for frame in trace.frames[1:9]).strip()[: len(typed)]
    marked = first.strip() and begins and not typed.startswith(first.strip()) and typed.startswith(begins)
    return said[len(first) :] if marked and template != "chat" else said


@dataclass(frozen=True)
class View:
    """How a visitor looks at runs.

    Args:
        panels: those that are drawn: of the open group those that are on.
        focus: from where.
        on: those that are on in groups that are not open, at least.
    """

    panels: snapshot.Panels = field(default_factory=first_run.opening_panels)
    focus: Focus = field(default_factory=Focus)
    on: snapshot.Panels = field(default_factory=first_run.usual_panels)

    @classmethod
    def read(cls, wishes: Any) -> View:
        """From what the page's script keeps for the next run: `{panels, focus, on}`; whatever is not well-formed is usual."""
        asked = read(wishes, contract.View)
        if "panels" not in asked:
            asked["panels"], asked["on"] = list(first_run.opening_panels()), list(first_run.usual_panels())
        on = read_panels(asked.get("on", []))
        return cls(read_panels(asked["panels"]), read_focus(asked.get("focus")) or Focus(), on)

    @property
    def every(self) -> snapshot.Panels:
        """All panels that are on, in the page's order."""
        return {name: panel for name, panel in PANELS.items() if name in self.panels or name in self.on}

    @property
    def extras(self) -> tuple[str, ...]:
        """What a run must record to be looked at so, beyond what every run records; nothing for a panel that is off."""
        lens = {"exit"} if self.focus.lens == "exit" else set()
        return tuple(sorted(lens.union(*map(snapshot.needs, self.every.values()))))

    def extras_of(self, misleads: bool) -> tuple[str, ...]:
        """:attr:`extras`, and the exit lens where the direct one `misleads`: words are read above the panels, whichever are on.

        A visitor who has chosen the direct lens is shown that, and the run spared the other.
        """
        return tuple(sorted({*self.extras, "exit"})) if misleads and self.focus.lens is None else self.extras

    def fresh(self, lang: str) -> Focus:
        """Where a new run is looked at from: as before, but for what belonged to the old run's tokens, blocks and gate."""
        return replace(self.focus, token=None, step=None, pins=(), block=0, threshold=None, lang=lang)


class Questions:
    """The page's questions, each answered from a string to a string."""

    _as_prompt = staticmethod(as_prompt)

    def __init__(self, registry: Runs, room: ModelRoom, carried: Carried | None = None) -> None:
        self._registry = registry
        self._room = room
        self._carried = Carried(registry.keeper) if carried is None else carried  # an empty one is false

    def trace(self, run_id: Any) -> Trace | None:
        """The trace of a run that the page knows by this id; the recorded one is everybody's."""
        if run_id == first_run.RUN:
            return first_run.stored()
        run = self._registry.get(run_id)
        return None if run is None else run.trace

    def resync(self, question: Any) -> str:
        """`{run, epoch, seq}`: what the page lacks of the run."""
        asked = read(question, contract.Resync)
        run = self._registry.get(asked.get("run"))
        if run is None:
            return _GONE
        return dumps(run.since(asked.get("epoch"), asked.get("seq")))

    def focus(self, question: Any) -> str:
        """`{run, focus, panels, shown, epoch}`: the run drawn as seen from there, by these panels.

        `shown`: of a finished run, how many of its tokens; null for all.
        """
        asked = read(question, contract.Look)
        run, stored = self._registry.get(asked.get("run")), self._recorded(asked)
        if run is None and stored is None:
            return _GONE
        focus = read_focus(asked.get("focus"))
        shown = _place(asked, "shown", LARGEST_POSITION)
        panels = read_panels(asked["panels"]) if "panels" in asked else None
        if stored is not None:
            return dumps(playing.snapshot(stored, **self._view(asked, 1), shown=shown))
        return dumps(run.since(-1, -1) if focus is None else run.look(focus, panels, shown))

    def advance(self, question: Any) -> str:
        """`{run, epoch, from, to, split, focus, panels}`: go through a finished run, forward by edits, back by a snapshot."""
        asked = read(question, contract.Advance)
        run, stored = self._registry.get(asked.get("run")), self._recorded(asked)
        way = {"first": _place(asked, "from", 0), "last": _place(asked, "to", LARGEST_POSITION)}
        way["most"] = self._room.profile.answer_messages
        way["split"] = asked.get("split", False)
        if stored is not None:
            return dumps(playing.advance(stored, **self._view(asked, 0), **way))
        return _GONE if run is None else dumps(self._of(run, asked, way))

    @staticmethod
    def _of(run: Run, asked: Mapping[str, Any], way: dict[str, Any]) -> dict[str, Any]:
        # edits fit only the figures they were made for
        return run.advance(**way) if asked.get("epoch") == run.epoch else run.since(-1, -1)

    @staticmethod
    def _recorded(asked: Mapping[str, Any]) -> Trace | None:
        return first_run.stored() if asked.get("run") == first_run.RUN else None

    @staticmethod
    def _view(asked: Mapping[str, Any], later: int) -> dict[str, Any]:
        """How the stored run is looked at: all of it is in the question, for the server keeps nothing of its visitors."""
        trace = first_run.stored()
        return {
            "focus": read_focus(asked.get("focus")) or Focus(),
            "panels": read_panels(asked.get("panels")),
            "run": first_run.RUN,
            "epoch": _place(asked, "epoch", 0) + later,
            "end": None if trace is None else first_run.ending(trace),
        }

    def explain(self, question: Any) -> str:
        """`{run, focus, shown}`: what is said of the word in focus, or of the newest of the tokens shown."""
        asked = read(question, contract.Explain)
        trace = self.trace(asked.get("run"))
        if trace is None:
            return _GONE
        shown = _place(asked, "shown", LARGEST_POSITION)
        focus = read_focus(asked.get("focus")) or Focus()
        told = hero.explain(snapshot.until(trace, shown), focus)
        return dumps({"kind": "told", "run": asked["run"], "explained": told})

    def carry(self, question: Any) -> str:
        """`{run}`: the visitor goes to another page and takes the run along, as far as it has been made."""
        run = self._registry.get(read(question, contract.Carry).get("run"))
        if run is None or not len(run):
            return _GONE
        trace = Trace(run.trace.meta, run.trace.frames[: len(run)])
        named = run.values.get("model") if run.values else None
        self._carried.take(CarriedRun(run.id, trace, str(named or trace.meta["model"]), own=not run.opened))
        return dumps({"kind": "ok"})

    def text_until(self, question: Any) -> str:
        """`{run, token, piece}`: the run's text as a prompt to go on from: `{"prompt"}`.

        All of it, or up to and with `token`, and then `piece`. Without the beginning-of-text mark that the tokenizer
        would add once more.
        """
        asked = read(question, contract.TextUntil)
        trace = self.trace(asked.get("run"))
        if trace is None or not len(trace):
            return _GONE
        piece = asked.get("piece")
        token = _place(asked, "token", len(trace) - 1)
        short = piece is not None and len(piece) <= LONGEST_PIECE
        until = text_up_to(trace, token) + piece if short else trace.text
        return dumps({"kind": "text", "prompt": as_prompt(trace, until)})

    def guesses(self, question: Any) -> str:
        """`{run, token}`: what a token's state says after each loop of its last block, and what the model said then.

        All loops: a strip shows no more than fit, a graph to follow needs each. Straight from the state (the direct lens): where
        a loop has come to. The layers after it may go on from there by themselves, and what they say is the answer.
        """
        asked = read(question, contract.AskGuesses)
        trace = self.trace(asked.get("run"))
        if trace is None:
            return _GONE
        token = _place(asked, "token", LARGEST_POSITION)
        steps, came = _guesses(trace.frames[token]) if token < len(trace) else ([], ("", None))
        return dumps({"kind": "guesses", "run": asked["run"], "token": token, "steps": steps, "said": came})

    def model_status(self, question: Any) -> str:
        """`{lang, model, precision, again, linked, look}`: where the model the visitor has chosen is; the one the page started with when none is named.

        Whoever asks wants it: it begins to be loaded; one that failed is tried once more if asked `again`.
        `linked`: a link named it, and the visitor has not agreed to it yet. `look`: they do not want it (any more).
        """
        asked = read(question, contract.AskModel)
        lang = pick_language(asked.get("lang"))
        name, problems = st.clean_name(asked.get("model", self._room.default), lang)
        if problems:
            return dumps({"state": "failed", "text": problems[0].reason, "lang": lang})
        how: dict[str, Any] = {wish: asked.get(wish, False) for wish in ("again", "linked", "look")}
        precision = asked.get("precision", "")
        if precision not in st.BY_NAME["precision"].choices:
            precision = ""
        now = self._room.want(name, lang, **how, precision=precision)
        loaded = self._room.ready(name, precision) if now.state == "ready" else None
        notes = None if loaded is None else together([loaded], lang)
        answer = {"state": now.state, "text": now.tell(lang), "lang": lang}
        return dumps(answer if notes is None else {**answer, "notes": notes})


Guess = tuple[str, float | None]  # a piece, and its probability


def _guess(piece: str, logprob: float | None) -> Guess:
    return piece, None if logprob is None else round(math.exp(logprob), 4)


def _guesses(frame: Frame) -> tuple[list[Guess], Guess]:
    """The likeliest next piece after each loop of a token's last block, by its state alone; and the piece that came."""
    steps = []
    if frame["blocks"]:
        words = said(frame["blocks"][-1], "direct")
        rows = zip(words.texts, words.logprobs, strict=True)
        steps = [_guess(texts[0], logs[0]) for texts, logs in rows if texts]
    return steps, _guess(frame["next_text"], frame["next_logprob"])


_GONE = dumps({"kind": "gone"})
