"""What the Anatomy page's events do: a run is shown, a token of it is read again, its layers and loop steps are told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.anatomy.check import Check, CheckRun, checks_of, need
from loopviz.app.anatomy.packing import pack
from loopviz.app.anatomy.recorded import recorded
from loopviz.app.anatomy.run import Look, layer_message, messages, run_message
from loopviz.app.sessions import bounds, questions
from loopviz.app.sessions.carried import CarriedRun
from loopviz.app.sessions.job import Job, Jobs, Refused
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.models import ModelRefused
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.tickets import is_ticket, number
from loopviz.app.sessions.untrusted import fitting, read
from loopviz.app.sessions.waiting_line import Place
from loopviz.app.texts import pick_language, text
from loopviz.checks import FieldError
from loopviz.engine.engine import Engine, EngineLost, Reading

GONE = dumps({"kind": "gone"})


def no(field: str, said: str) -> Refused:
    """A refusal in one sentence, beside a field."""
    return Refused(st.Problem(field, said), line=said)


class Dissection(Job):
    """A token of a run that is to be read again.

    Attributes:
        source: the run; known from :meth:`check` on.
        reading: it, read again by its model; known from :meth:`prepare` on.
    """

    page, what = "anatomy", "token of a run"

    def __init__(self, service: Anatomy, asked: Mapping[str, Any], session: str) -> None:
        ticket = asked["ticket"] if is_ticket(asked.get("ticket")) else ""
        super().__init__(service.runs, pick_language(asked.get("lang")), session, number(asked.get("n")), ticket)
        self.service, self.asked, self.model = service, asked, service.room.default
        self.position = 0
        self.source: CarriedRun | None = None
        self.reading: Reading | None = None

    def check(self) -> None:
        """Refuse a run that is gone, a token that it does not have, a model that may not be had here."""
        self.source = self.service.source(self.asked.get("run"))
        if self.source is None:
            raise no("run", text(self.lang, "anatomy.gone"))
        last = len(self.source.trace) - 1
        self.position = self.asked.get("token", last)
        if not 0 <= self.position <= last:
            said = text(self.lang, "anatomy.no_token", token=self.position, last=last)
            raise no("token", said)
        if len(self.source.trace) < self.source.trace.meta["prompt_tokens"]:
            raise no("run", text(self.lang, "anatomy.cut"))
        self.model = self.asked.get("model") or self.source.made_by
        # as it was made here, so that what is read is what was recorded; a cluster's models are held as its host chose
        if self.source.own and "model" not in self.asked and not self.service.room.profile.engine:
            self.precision = st.precision_of(self.source.trace.meta, "float32")
        name, problems = st.clean_name(self.model, self.lang)
        if problems:
            raise Refused(st.Problem("model", problems[0].reason))
        self.model = name
        if (words := self.service.room.refusal(name)) is not None:
            raise Refused(st.Problem("model", words(self.lang)))
        if not ("model" in self.asked or self.asked.get("agreed") or self.service.free(self.source)):
            raise no("model", text(self.lang, "anatomy.ask_model", model=name))

    def prepare(self, loaded: Engine) -> None:
        """Refuse a model that cannot have made the run, and what needs more memory than may be used here."""
        assert self.source is not None
        try:
            self.reading = self.service.reading(self.session, self.source, loaded)
        except EngineLost:  # nothing is wrong with the run
            raise
        except ValueError as error:
            why = self.service.room.words(error, self.lang)
            made = isinstance(error, FieldError) and error.rule == "anatomy_lora_on_norm"  # by this very model
            key = "anatomy.not_written" if made else "anatomy.other_model"
            said = text(self.lang, key, model=loaded.name, reason=why)
            raise no("model", said) from error
        profile = self.service.room.profile
        room = max(0, profile.run_bytes - self.source.nbytes)  # the run is part of what is kept
        need, limit = self.reading.need(self.position), min(profile.work_bytes, room)
        if need > limit:
            sizes = {"need": bounds.size(need, self.lang), "limit": bounds.size(limit, self.lang)}
            raise no("token", text(self.lang, "anatomy.too_large", **sizes))

    def cost(self, loaded: Engine) -> bounds.Cost:
        """What the reading holds."""
        return bounds.UNKNOWN if self.reading is None else bounds.Cost(bytes=self.reading.need(self.position))

    def beside(self, error: BaseException) -> str:
        """The model's name, where it cannot be had."""
        return "model" if isinstance(error, ModelRefused) else super().beside(error)

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """Read the token."""
        assert self.source is not None
        assert self.reading is not None
        look = Look(self.source, loaded, self.reading, self.position, self.session, self.ticket)
        need = bounds.size(self.reading.need(self.position), self.lang)
        opening = self.say(text(self.lang, "anatomy.reading", token=self.position, need=need))
        return self.show(look, messages(look), self.service.room.profile.seconds_run, opening)


class Anatomy:
    """The looks of a page's visitors.

    Args:
        jobs: what all pages of the server share.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.room = jobs, jobs.room
        self.runs: Registry[Look] = Registry(jobs.keeper)
        self.checks: Registry[CheckRun] = Registry(jobs.keeper)
        self.room.when_let_go.append(self._let_go)

    def _let_go(self, loaded: Engine) -> None:
        """A model is held no longer: nor is what was read by it, which would hold it. What is being read is read to its end."""
        for look in self.runs:
            if look.engine is loaded and look.finished.is_set():
                self.runs.drop(look)

    def run(self, payload: Any, session: str) -> Iterator[str]:
        """A token, read again, or a check against transformers: messages for the page. Whatever goes wrong becomes a message.

        Args:
            payload: `contract.Dissect` from the page's script; nothing in it is trusted.
        """
        asked = fitting(payload, contract.Dissect)
        if asked.get("check"):

            def may_load(name: str) -> bool:
                return self.may_load(name, self.source(asked.get("run")))

            return self.jobs.carry_out(Check(self.jobs, self.checks, asked, session, may_load))
        return self.jobs.carry_out(Dissection(self, asked, session))

    def free(self, source: CarriedRun) -> bool:
        """Whether a run's model may be loaded without asking: a stranger's file may name any."""
        return source.own or self._known(source.made_by)

    def may_load(self, name: str, source: CarriedRun | None) -> bool:
        """Whether a model may be loaded without asking for a run: by another name than the run's the visitor chose it."""
        if source is None:  # who named it is not known any more
            return self._known(name)
        return name != st.clean_name(source.made_by, "en")[0] or self.free(source)

    def _known(self, name: str) -> bool:
        """Whether a model is the host's own choice, or here."""
        room = self.room
        return room.offered(name) or name in room.profile.named_models or room.ready(name) is not None

    def source(self, run: Any) -> CarriedRun | None:
        """A run by its id: the recorded one, one that was taken along, or None."""
        return recorded() if run in (None, "", contract.RECORDED) else self.jobs.carried.get(run)

    def reading(self, session: str, source: CarriedRun, loaded: Engine) -> Reading:
        """The run, read again by a model; what the visitor's last look has read of it is used. ValueError as the engine."""
        for look in reversed(self.runs.of_session(session)):
            if look.source.trace is source.trace and look.engine is loaded:
                return look.reading
        return loaded.read_again(source.trace)

    def forget(self, session: str) -> None:
        """A visitor left: stop what runs or waits for them and keep nothing."""
        self.jobs.forget(session, self.runs)
        self.jobs.forget(checks_of(session), self.checks)

    # --- questions: strings of JSON both ways, nothing in a question is trusted ---------------------------------------

    def show(self, question: Any) -> str:
        """`{run, lang}`: a run's words and its model, before any of it is read; the recorded one where none is named."""
        asked = read(question, contract.ShowRun)
        lang, found = pick_language(asked.get("lang")), self.source(asked.get("run"))
        if found is None:
            return GONE
        return dumps(run_message(found, lang, self.free(found)))

    def model(self, question: Any) -> str:
        """`{model, lang, linked, look}`: where a model is, as on the Lab."""
        return questions.where_is(read(question, contract.AskLabModel), self.room, self.room.default)

    def layer(self, question: Any) -> str:
        """`{look, layer, step, lang}`: a layer in a loop step of the token that was read."""
        asked = read(question, contract.AskLayer)
        look, lang = self._look(asked), pick_language(asked.get("lang"))
        if look is None or look.token is None:
            return GONE
        layer, step = asked.get("layer", 0), asked.get("step", 0)
        if (no := self._absent(look, layer, (step,), lang)) is not None:
            return no
        return self._told(lang, lambda token: layer_message(token.layer(layer, step)), look)

    def beside(self, question: Any) -> str:
        """`{look, layer, step, other, lang}`: what two loop steps of a layer have in common, stage by stage."""
        asked = read(question, contract.AskBeside)
        look, lang = self._look(asked), pick_language(asked.get("lang"))
        if look is None or look.token is None:
            return GONE
        layer, step, other = (asked.get(name, 0) for name in ("layer", "step", "other"))
        if (no := self._absent(look, layer, (step, other), lang)) is not None:
            return no

        def told(token: Any) -> dict[str, Any]:
            stages = token.beside(layer, step, other).stages
            return {"kind": "beside", "stages": {name: pair and list(pair) for name, pair in stages.items()}}

        return self._told(lang, told, look)

    def distance(self, question: Any) -> str:
        """`{look, layer, step, head, column, most, lang}`: a query head's score with a column's key by the distance between the two,
        from 0 to `most`; of more than are told at a time, those around the run's own."""
        asked = read(question, contract.AskDistance)
        look, lang = self._look(asked), pick_language(asked.get("lang"))
        if look is None or look.token is None:
            return GONE
        layer, step, head, column = (asked.get(name, 0) for name in ("layer", "step", "head", "column"))
        if (no := self._absent(look, layer, (step,), lang)) is not None:
            return no
        most, many = max(asked.get("most", 64), 1), self.room.profile.distances

        def told(token: Any) -> dict[str, Any]:
            found = token.distances(layer, step, head, column, most, many)
            return {"kind": "distance", "from": found.first, "scores": pack(found.scores)}

        return self._told(lang, told, look)

    def draw(self, question: Any) -> str:
        """`{look, temperature, top_k, top_p, lang}`: what the next token would be drawn from."""
        asked = read(question, contract.AskDraw)
        look, lang = self._look(asked), pick_language(asked.get("lang"))
        if look is None or look.token is None:
            return GONE
        how = (asked.get("temperature", 1.0), asked.get("top_k", 0), asked.get("top_p", 1.0))

        def told(token: Any) -> dict[str, Any]:
            return {"kind": "draw", **dataclasses.asdict(token.draw(*how))}

        return self._told(lang, told, look)

    def need(self, question: Any) -> str:
        """`{article, model, lang}`: what a check takes, before it is begun; nothing of a model that is not here. The article's
        configuration is computed where the default model is."""
        asked = read(question, contract.AskNeed)
        lang = pick_language(asked.get("lang"))
        named = None if asked.get("article") else asked.get("model")
        name, problems = st.clean_name(named or self.room.default, lang)
        loaded = None if problems else self.room.ready(name)
        if loaded is None:
            return dumps({"kind": "need", "refused": False, "text": text(lang, "anatomy.check.later")})
        return dumps(need(self.jobs, loaded, asked.get("article", False), lang))

    def stop(self, question: Any) -> str:
        """`{ticket}`: end what was asked for by this ticket, also what has not begun yet."""
        return questions.stop(read(question, contract.StopMeasured), self.jobs.starts, (*self.runs, *self.checks))

    def _look(self, asked: Mapping[str, Any]) -> Look | None:
        """The look that is asked about; None also once its model is held no longer, which may have been as it was read."""
        look = self.runs.get(asked.get("look"))
        if look is not None and look.finished.is_set() and not self.room.holds(look.engine):
            self.runs.drop(look)
            return None
        return look

    @staticmethod
    def _absent(look: Look, layer: int, steps: tuple[int, ...], lang: str) -> str | None:
        """The answer of a layer or loop step that the token did not run; None for one that it did."""
        assert look.token is not None
        layers = look.source.trace.meta["shape"]["layers"]
        if not 0 <= layer < layers:
            return _no("layer", text(lang, "anatomy.no_layer", layer=layer, last=layers - 1))
        ran = [step for each, _, step in look.token.picture.runs if each == layer]
        missing = next((step for step in steps if step not in ran), None)
        if missing is None:
            return None
        if not ran:
            return _no("layer", text(lang, "anatomy.left_out", layer=layer))
        if ran == [0]:
            return _no("step", text(lang, "anatomy.no_loop", layer=layer))
        return _no("step", text(lang, "anatomy.no_step", step=missing, layer=layer, last=max(ran)))

    def _told(self, lang: str, answer: Any, look: Look) -> str:
        """An answer made of the token; one that was let go of meanwhile is gone, what it refuses is said."""
        try:
            return dumps(answer(look.token))
        except ValueError as error:
            newest = self.runs.of_session(look.session)
            if not newest or newest[-1] is not look:
                return GONE
            return _no("", text(lang, "refused", reason=self.room.words(error, lang)))


def _no(field: str, said: str) -> str:
    return dumps({"kind": "no", "field": field, "text": said})
