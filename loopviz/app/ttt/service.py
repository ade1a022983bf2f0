"""What the TTT page's events do: a run is made, looked at, steered; what it would have lost is read again."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.sessions import bounds, questions
from loopviz.app.sessions.job import Job, Jobs, Refused
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.sessions.tickets import is_ticket, number
from loopviz.app.sessions.ttt_models import ttt_room
from loopviz.app.sessions.untrusted import fitting, read
from loopviz.app.sessions.waiting_line import LineFull, Place, Places
from loopviz.app.texts import pick_language, text
from loopviz.app.ttt.files import TTTFiles
from loopviz.app.ttt.opened import TTTRuns
from loopviz.app.ttt.run import REST, SEND_EVERY, TTTRun, focus_of, messages, paced
from loopviz.checks import FieldError, check_finite, check_whole
from loopviz.engine.engine import Engine, RulesHeld, TTTEngine, TTTRequest
from loopviz.panels.ttt import TTTFocus, attention, forgetting, rules
from loopviz.trace import Trace

if TYPE_CHECKING:
    from loopviz.trace.schema import TTTChange

GONE = dumps({"kind": "gone"})
MOST_SCALE = 4.0  # of the slider
PACES = (4, 10, 25, 0)  # words a second; 0: as fast as it goes
# Whose name a field of the engine has on the page.
FIELDS = {"inner_lr_scale": "scale", "pace": "pace", "max_new_tokens": "max_new_tokens", "prompt": "prompt"}


class TTTJob(Job):
    """A run of a TTT model that was asked for."""

    page, what = "ttt", "run of a TTT model"

    def __init__(self, service: TTT, asked: Mapping[str, Any], session: str) -> None:
        ticket = asked["ticket"] if is_ticket(asked.get("ticket")) else ""
        super().__init__(service.runs, pick_language(asked.get("lang")), session, number(asked.get("n")), ticket)
        self.service, self.asked, self.model = service, asked, service.room.default

    def check(self) -> None:
        """Refuse a prompt that is none, a name that is none, numbers beyond the page's limits."""
        problems = st.check_prompt(self.asked.get("prompt"), self.lang)
        if problems:
            raise Refused(*problems)
        check_finite("inner_lr_scale", self.asked.get("scale", 1.0), 0, MOST_SCALE)
        if self.asked.get("pace", 0) not in PACES:
            raise FieldError("pace", self.asked["pace"], "one_of", choices=", ".join(map(str, PACES)))
        check_whole("max_new_tokens", self.asked.get("max_new_tokens", 64), 1, self.service.room.profile.ttt_tokens)
        name, problems = st.clean_name(self.asked.get("model") or self.model, self.lang)
        if problems:
            raise Refused(*problems)
        self.model = name
        if (words := self.service.room.refusal(name)) is not None:
            raise Refused(st.Problem("model", words(self.lang)))

    def beside(self, error: BaseException) -> str:
        """The field that a refusal is told beside."""
        if isinstance(error, ModelRefused):
            return "model"
        return FIELDS.get(error.field, "") if isinstance(error, FieldError) else super().beside(error)

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """Begin it."""
        engine, asked = cast(TTTEngine, loaded), self.asked
        settings = {"max_new_tokens": asked.get("max_new_tokens", 64)}
        request = TTTRequest(asked["prompt"], settings, float(asked.get("scale", 1.0)))
        handle = engine.start(request)
        run = TTTRun(engine, handle, focus_of(asked), self.session, self.ticket, self.service.room.words)
        profile = self.service.room.profile
        frames = paced(place.turn.of(handle.frames, run.stop.is_set), run.stop, asked.get("pace", 0))
        told = messages(run, frames, self.service.every, self.service.rest)
        return self.show(run, told, profile.seconds_run)


class TTT:
    """The TTT runs of a page's visitors.

    Args:
        jobs: what all pages of the server share; the models are a room of their own, the places and the memory the same.
        room: of TTT models; for tests.
    """

    def __init__(
        self, jobs: Jobs, room: ModelRoom | None = None, every: float = SEND_EVERY, rest: float = REST
    ) -> None:
        self.room = room or ttt_room(jobs.room)
        self.jobs, self.every, self.rest = jobs.among(self.room), every, rest
        self.runs = TTTRuns(self.room, jobs.keeper)
        self.files = TTTFiles(self.runs, self.room, jobs.files)
        self.readings = Places(self.room.profile.measurements_at_once, self.room.profile.readings_waiting)

    def run(self, payload: Any, session: str) -> Iterator[str]:
        """One run: messages for the page. Whatever goes wrong becomes a message.

        Args:
            payload: `contract.BeginTTT` from the page's script; nothing in it is trusted.
        """
        if fitting(payload, contract.BeginTTT).get("visit"):
            return iter([self.files.visit(session)])
        return self.jobs.carry_out(TTTJob(self, fitting(payload, contract.BeginTTT), session))

    def forget(self, session: str) -> None:
        """A visitor left: stop what runs for them and keep nothing."""
        self.jobs.forget(session, self.runs)

    # --- questions: strings of JSON both ways, nothing in a question is trusted ---------------------------------------

    def model(self, question: Any) -> str:
        """`{model, lang, linked, look}`: where a TTT model is."""
        return questions.where_is(read(question, contract.AskLabModel), self.room, self.room.default)

    def look(self, question: Any) -> str:
        """`{run, layer, head, token, lang}`: the run, looked at from there."""
        asked = read(question, contract.LookTTT)
        run = self.runs.get(asked.get("run"))
        return GONE if run is None else dumps(run.look(focus_of(asked)))

    def steer(self, question: Any) -> str:
        """`{run, forget, scale, lang}`: change a run from the next word on."""
        asked = read(question, contract.SteerTTT)
        run, lang = self.runs.get(asked.get("run")), pick_language(asked.get("lang"))
        if run is None:
            return GONE
        if run.finished.is_set():
            return _no("run", text(lang, "ttt.ended"))
        try:
            run.handle.steer(forget=asked.get("forget", False), inner_lr_scale=asked.get("scale"))
        except FieldError as error:
            return _no(FIELDS.get(error.field, ""), self.room.words(error, lang))
        return dumps({"kind": "ok"})

    def attention(self, question: Any) -> str:
        """`{run, layer, head, token, lang, visitor}`: what the control looks at in the mini-batch of this word."""
        asked = read(question, contract.AskAttention)
        run, lang = self._asked_about(asked), pick_language(asked.get("lang"))
        if run is None:
            return GONE
        focus, trace = focus_of(asked), run.trace  # it may grow meanwhile: the words of this mini-batch stay
        at = focus.selected(len(trace)) or 0

        def answer(left: threading.Event) -> str:
            found = run.engine.attention_beside(trace, at, left)
            if found is None:
                return _no("", text(lang, "ttt.control.none"))
            shown = (trace, focus, found.name, found.first, found.weights)
            told = {"kind": "attention", "figure": attention.data(*shown), "summary": attention.summary(*shown)}
            return dumps(told)

        return self._reading(run, "attention", lang, answer)

    def rules(self, question: Any) -> str:
        """`{run, layer, head, token, lang, visitor}`: what four inner rules hold of the run's text, in a layer."""
        asked = read(question, contract.AskAttention)
        run, lang = self._asked_about(asked), pick_language(asked.get("lang"))
        if run is None:
            return GONE
        if not run.finished.is_set():
            return _no("run", text(lang, "ttt.running"))
        focus = focus_of(asked)

        def answer(left: threading.Event) -> str:
            found = run.engine.inner_rules(run.trace, focus.layer, focus.head, left)
            if found is None:
                return _no("", rules.TEXTS[lang]["none"])
            return dumps({"kind": "rules", "rules": [_rule(run.trace, focus, found, name) for name in rules.RULES]})

        return self._reading(run, "rules", lang, answer)

    def forgetting(self, question: Any) -> str:
        """`{run, token, lang, visitor}`: what the words after this one cost with the memory set back after it, and without."""
        asked = read(question, contract.AskForgetting)
        run, lang = self._asked_about(asked), pick_language(asked.get("lang"))
        if run is None:
            return GONE
        if not run.finished.is_set():
            return _no("run", text(lang, "ttt.running"))
        last, token = len(run.trace) - forgetting.AFTER, asked.get("token", -1)
        if not 0 <= token <= last:
            return _no("token", text(lang, "ttt.no_token", token=token, last=max(0, last)))
        changes, undone = other_changes(run.trace, token + 1)

        def answer(left: threading.Event) -> str:
            shown = (run.trace, token, run.engine.read_under(run.trace, changes, left), undone, lang)
            figure, summary = forgetting.data(*shown), forgetting.summary(*shown)
            return dumps({"kind": "forgetting", "token": token, "figure": figure, "summary": summary})

        return self._reading(run, "forgetting", lang, answer)

    def _asked_about(self, asked: Mapping[str, Any]) -> TTTRun | None:
        """The run that a question is about, as the visitor's who asks."""
        return self.runs.get(asked.get("run"), self.files.session(asked.get("visitor", "")))

    def _reading(self, run: TTTRun, question: str, lang: str, answer: Callable[[threading.Event], str]) -> str:
        """What a question says for which a model reads: few at a time, none longer than a run may take, and none that nobody
        waits for any more. Gradio's threads are not held by it for long: who finds too many before is told so.

        Args:
            answer: given what is set once it is to be left.
        """
        try:
            with run.asked.answering(question) as left, self.readings.join("ttt") as place:
                soon = time.monotonic() + self.room.profile.reading_patience
                deque(place.wait(lambda: left.is_set() or time.monotonic() > soon), maxlen=0)
                if place.ahead() is not None and not left.is_set():
                    raise LineFull
                with bounds.deadline(self.room.profile.seconds_run, left.set):
                    return answer(left)
        except LineFull:
            return _no("", text(lang, "ttt.busy"))
        except ValueError as error:
            return _no("", text(lang, "refused", reason=self.room.words(error, lang)))

    def stop(self, question: Any) -> str:
        """`{ticket}`: end what was asked for by this ticket, also what has not begun yet."""
        return questions.stop(read(question, contract.StopMeasured), self.jobs.starts, self.runs)


def other_changes(trace: Trace, index: int) -> tuple[list[TTTChange], bool]:
    """A run's changes but for one: the memory is set back before the word at `index`, or no longer, where it was.

    Returns:
        The changes, in order; whether the run itself had forgotten there.
    """
    changes: list[TTTChange] = list(trace.meta["ttt"]["changes"])
    own = next((change for change in changes if change["index"] == index), None)
    if own is not None:
        turned: TTTChange = {**own, "forget": not own["forget"]}
        return [turned if change is own else change for change in changes], own["forget"]
    scale = trace.meta["ttt"]["inner_lr_scale"]
    for change in changes:
        if change["index"] < index:
            scale = change["inner_lr_scale"]
    added: TTTChange = {"index": index, "forget": True, "inner_lr_scale": scale}
    return sorted([*changes, added], key=lambda change: change["index"]), False


def _rule(trace: Trace, focus: TTTFocus, found: RulesHeld, name: str) -> dict[str, Any]:
    """An inner rule as the page takes it."""
    return {
        "name": name,
        "called": rules.TEXTS[focus.lang][name],
        "what": rules.what(name, found.fade, focus.lang),
        "figure": rules.data(trace, focus, name, found.rules[name]),
        "summary": rules.summary(trace, focus, name, found.rules[name]),
    }


def _no(field: str, said: str) -> str:
    return dumps({"kind": "no", "field": field, "text": said})
