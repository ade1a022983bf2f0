"""What the Compare page's events do: comparisons checked, started, stopped, asked about.

Importing this needs no torch; the measurements are `loopviz.lab.tasks.compare`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from loopviz.app import contract
from loopviz.app import controls as st
from loopviz.app.compare import recorded
from loopviz.app.compare.request import Asked, Setup
from loopviz.app.compare.run import SEND_EVERY, ComparisonRun, messages
from loopviz.app.controls.about import about_loop
from loopviz.app.controls.face import plain_face
from loopviz.app.controls.link_word import PageState, decode, encode
from loopviz.app.controls.model_name import short_name
from loopviz.app.sessions import bounds
from loopviz.app.sessions.chosen_precision import InPrecision, face_of, is_overflow, overflow, refusals
from loopviz.app.sessions.job import Jobs, Refused
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.model_notes import together
from loopviz.app.sessions.model_status import Status
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.table_file import file_of
from loopviz.app.sessions.tickets import is_ticket
from loopviz.app.sessions.ttt_models import either_room
from loopviz.app.sessions.untrusted import read
from loopviz.app.sessions.waiting_line import Place
from loopviz.app.texts import pick_language, text
from loopviz.checks import FieldError
from loopviz.engine.engine import Description, Engine, TTTDescription
from loopviz.engine.work import Shape
from loopviz.worker import ended_by

GONE = dumps({"kind": "gone"})
KINDS = {"linear": "Linear", "mlp": "MLP"}  # of TTT layers, as they are called
CHARACTERS_A_TOKEN = 4  # about, of a text whose cost is told before it is read
CHECK_LIMIT = 40_000  # characters of a question that holds all the page's settings


def described(engines: Mapping[str, Engine]) -> dict[str, Description | TTTDescription]:
    """What models are, by name."""
    return {name: loaded.describe() for name, loaded in engines.items()}


def about(setup: Setup, described: Description | TTTDescription | None, lang: str) -> str:
    """The line about a card: what its model runs."""
    if isinstance(described, TTTDescription):
        shown = {"kind": KINDS[described.kind], "layers": described.layers, "heads": described.heads}
        said = text(lang, "compare.ttt.about", **shown, batch=described.mini_batch)
        linked = setup.card.base and setup.card.base_model == setup.of
        return f"{said} {text(lang, 'compare.ttt.linked')}" if linked else said
    plain = setup.card.plain or (setup.fixed and (described is None or not described.blocks))
    blocks = [] if plain else [st.block_of(setup.form.settings)]
    return " · ".join(about_loop(blocks, lang))


class ComparisonJob(InPrecision):
    """A comparison that was asked for.

    Attributes:
        engines: the models, by name.
        reasons: by place, why a card is refused; the others are compared.
        setups: those.
    """

    page, what, later = "compare", "comparison", True

    def __init__(self, service: Comparisons, asked: Asked, session: str) -> None:
        super().__init__(service.runs, asked.lang, session, asked.n, asked.ticket)
        self.service, self.room, self.asked = service, service.room, asked
        self.model, self.others, self.precision = asked.model, asked.others, asked.precision
        self.engines: dict[str, Engine] = {}
        self.reasons: dict[int, str] = {}
        self.setups: list[Setup] = []

    def check(self) -> None:
        """Refuse what no model needs to be asked about."""
        if problems := self.asked.problems():
            raise Refused(problems[0])

    def prepare(self, loaded: Engine) -> None:
        """Refuse cards by themselves; all of it when none is left, or those that are left are too much together."""
        service, asked = self.service, self.asked
        self.engines = service.engines(asked) | self.held | {asked.model: loaded}
        setups, tokens = asked.setups(described(self.engines)), service.tokens(asked, loaded)
        self.reasons = service.refused(setups, self.engines, asked, tokens)
        for setup in setups:  # loaded for another card's sake, and let go again, or given up
            if setup.of not in self.engines:
                self.reasons.setdefault(setup.place, text(self.lang, "model.given_up", name=short_name(setup.of)))
        self.setups = [setup for setup in setups if setup.place not in self.reasons]
        if not self.setups:
            line, reasons = text(self.lang, "compare.all_refused"), {str(at): said for at, said in self.reasons.items()}
            raise Refused(st.Problem("", line), line=line, reasons=reasons)
        if (problem := service.too_much(self.setups, self.engines, self.lang, tokens)) is not None:
            raise Refused(problem)

    def cost(self, loaded: Engine) -> bounds.Cost:
        """Of all its cards."""
        cards = self.service.costs(self.setups, self.engines)
        prompt, continuation = self.service.tokens(self.asked, loaded)
        work = bounds.work_of_comparison(cards, prompt, cards[0].values["max_new_tokens"], continuation)
        return bounds.Cost(sum(self.service.seconds(self.asked, self.setups, {}, self.engines).values()), work.bytes)

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """Compare."""
        with ended_by(self.start.over.is_set):
            run = self.service.prepared(self.asked, self.setups, self.engines, self.session)
        run.refused, run.turn = self.reasons, place.turn
        return self._shown(run)

    def _shown(self, run: ComparisonRun) -> Iterator[str]:
        """The comparison's messages; numbers that grew beyond float16 are told beside the precision."""
        try:
            yield from self.show(
                run, messages(run, every=self.service.every), self.service.room.profile.seconds_compare
            )
        except FieldError as error:
            if not is_overflow(error):
                raise
            raise overflow(self.lang) from None


class Comparisons:
    """The comparisons of a page's visitors: checked, started, watched, stopped.

    Args:
        jobs: what all pages of the server share; here models of either kind may be named.
    """

    def __init__(self, jobs: Jobs, every: float = SEND_EVERY) -> None:
        self.room, self.every = either_room(jobs.room), every
        self.jobs = jobs.among(self.room)
        self.runs: Registry[ComparisonRun] = Registry(jobs.keeper)

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, payload: Any, session: str) -> Iterator[str]:
        """One comparison: messages for the page. Whatever goes wrong becomes a message.

        What the session compared or waited for before is over as this begins.
        """
        return self.jobs.carry_out(ComparisonJob(self, Asked.read(payload, self.room.default), session))

    def engines(self, asked: Asked) -> dict[str, Engine]:
        """The models that are here of those that cards are of, by name."""
        found = {name: self.room.ready(name, asked.precision) for name in (asked.model, *asked.others)}
        return {name: loaded for name, loaded in found.items() if loaded is not None}

    def refused(
        self, setups: list[Setup], engines: Mapping[str, Engine], asked: Asked, tokens: tuple[int, int] = (1, 0)
    ) -> dict[int, str]:
        """Which cards their loaded models, or the server, refuse, and why; of a model that is not here, why it cannot be had.

        Args:
            engines: by name, those that are here.
            tokens: of the prompt and the continuation.
        """
        reasons: dict[int, str] = {}
        for setup in setups:
            if (problem := self._problem(setup, engines, asked, tokens)) is not None:
                reasons[setup.place] = problem.reason
        return reasons

    def _problem(
        self, setup: Setup, engines: Mapping[str, Engine], asked: Asked, tokens: tuple[int, int]
    ) -> st.Problem | None:
        """The first that is wrong with a card; None of one whose model is on its way."""
        lang, settings, loaded = asked.lang, setup.form.settings, engines.get(setup.of)
        if problems := setup.problems(lang):
            return problems[0]
        if loaded is None:
            now = self.room.status(setup.of, asked.precision)
            return st.Problem("model", now.reason(lang)) if now.state == "failed" else None
        main = engines.get(asked.model, loaded)
        if not setup.card.plain and not setup.fixed and (problems := st.check_loop(settings, loaded, lang)):
            return problems[0]
        if settings.chat and not main.describe().chats:
            return st.Problem("template", text(lang, "refused.chat"))
        return self.too_much([setup], engines, lang, tokens)

    @staticmethod
    def tokens(asked: Asked, loaded: Engine) -> tuple[int, int]:
        """Tokens of the prompt and the continuation; of what cannot be read, which is told as it begins, as if short."""
        try:
            prompt = loaded.prompt_tokens(asked.prompt, **asked.everybodys().settings.wording)
            after = loaded.tokens(asked.continuation, marks=False) if asked.continuation else 0
        except ValueError:
            return 1, 0
        return prompt, after

    def too_much(
        self, setups: list[Setup], engines: Mapping[str, Engine], lang: str, tokens: tuple[int, int]
    ) -> st.Problem | None:
        """What of these cards together is more than this server's limits allow."""
        made = [setup for setup in setups if setup.of in engines]
        slowest = bounds.Slowest([engines[name] for name in dict.fromkeys(setup.of for setup in made)])
        return bounds.of_comparison(self.costs(made, engines), slowest, *tokens, self.room.profile, lang)

    @staticmethod
    def costs(setups: list[Setup], engines: Mapping[str, Engine]) -> list[bounds.Compared]:
        """What of each card decides its cost."""

        def shape(setup: Setup) -> Shape:
            loaded = engines[setup.of]
            if setup.fixed:
                return loaded.describe().shape
            return bounds.shape_of(loaded, None if setup.card.plain else setup.form.settings)

        return [bounds.Compared(shape(setup), setup.form.settings, setup.card.sweep) for setup in setups]

    def prepared(self, asked: Asked, setups: list[Setup], engines: Mapping[str, Engine], session: str) -> ComparisonRun:
        """The comparison of these cards, not begun yet."""
        from loopviz.lab import TASKS
        from loopviz.lab.comparison.remote import comparison_of
        from loopviz.lab.experiment import Experiment
        from loopviz.lab.measure import subject_of

        task, places = TASKS["compare"], [setup.place for setup in setups]
        sampling = st.stream_fields(setups[0].form.settings)
        models = tuple("" if setup.of == asked.model else setup.of for setup in setups)
        params = task.params(
            prompt=asked.prompt,
            continuation=asked.continuation,
            names=tuple(asked.names()[place] for place in places),
            loops=tuple(setup.loop for setup in setups),
            sweeps=tuple(setup.card.sweep for setup in setups) if any(setup.card.sweep for setup in setups) else (),
            models=models if any(models) else (),
            baseline=places.index(asked.baseline) if asked.baseline in places else 0,
            **sampling,
        )
        beside = {name: engines[name] for name in dict.fromkeys(models) if name}
        subject = subject_of(engines[asked.model], paths=self.room.local, beside=beside)
        links = {setup.place: self._link(setup, asked) for setup in setups}
        comparison = comparison_of(subject, params)
        experiment = Experiment(task, subject, params)
        return ComparisonRun(comparison, experiment, places, links, session, asked.lang, asked.ticket)

    def _link(self, setup: Setup, asked: Asked) -> str | None:
        """The word of the address that opens a configuration in Explore; None of a TTT model, which has a page of its own."""
        if setup.learns:
            return None
        return encode(
            PageState(values=setup.form.settings, prompt=asked.prompt), local=self.room.local, lang=asked.lang
        )[0]

    def forget(self, session: str) -> None:
        """A visitor left: stop what runs or waits for them and keep nothing."""
        self.jobs.forget(session, self.runs)

    # --- questions: strings of JSON both ways, nothing in a question is trusted ---------------------------------------

    def check(self, question: Any) -> str:
        """`{lang, model, linked, look, shared, cards}`, as for a comparison: where the model is, what applies, what would be refused.

        `base`: once the model is there, the values that suit it; `looped`: whether they are a loop of its own.
        """
        asked = Asked.read(read(question, contract.Compare, CHECK_LIMIT), self.room.default)
        how: dict[str, Any] = {"look": asked.look, "precision": asked.precision}
        now = self.room.want(asked.model, asked.lang, linked=asked.linked, **how)
        unagreed = asked.unagreed
        states = {name: self.room.want(name, asked.lang, linked=name in unagreed, **how) for name in asked.others}
        engines = self.engines(asked)  # after it was asked where they are: one that is ready is here
        answer: dict[str, Any] = {"kind": "checked", "model": self._model(asked, [now, *states.values()], engines)}
        known = described(engines)
        own = known.get(asked.model)
        looped = own if isinstance(own, Description) else None
        answer["base"] = None if looped is None else st.defaults() | st.brought(looped)
        answer["looped"] = looped is None or bool(looped.blocks)
        setups = asked.setups(known)
        reasons = self.refused(setups, engines, asked)
        costs = self.seconds(asked, setups, reasons, engines)
        tell = lambda seconds: bounds.about(seconds, asked.lang)  # noqa: E731
        answer["cards"] = [
            self._checked(setup, reasons.get(setup.place), known.get(setup.of), asked.lang)
            | {"cost": tell(costs[setup.place]) if setup.place in costs else ""}
            | {"fixed": setup.fixed, "state": states.get(setup.of, now).state}
            for setup in setups
        ]
        answer["cost"] = tell(sum(costs.values())) if costs else ""
        shared = [control for control in st.CONTROLS if control.group == "sampling"]
        form = asked.everybodys()
        problems = form.problems(asked.lang)
        answer["shared"] = {
            control.name: plain_face(control, form.settings, problems, asked.lang) for control in shared
        }
        return dumps(answer)

    def _model(self, asked: Asked, statuses: list[Status], engines: Mapping[str, Engine]) -> dict[str, Any]:
        """Where the page's model is, the first of `statuses`; what all are held in, and what is to be known of those that are here."""
        now, problems = statuses[0], [*asked.misnamed, *refusals(statuses, asked.lang)]
        return {
            "name": asked.model,
            "state": now.state,
            "text": now.tell(asked.lang),
            "precision": face_of(asked.precision, problems, self.room, asked.lang),
            "notes": together([*engines.values()], asked.lang),
        }

    def seconds(
        self, asked: Asked, setups: list[Setup], reasons: Mapping[int, str], engines: Mapping[str, Engine]
    ) -> dict[int, float]:
        """About how long each card that is not refused takes here, by place."""
        prompt, after = (math.ceil(n / CHARACTERS_A_TOKEN) for n in asked.lengths)
        here = [setup for setup in setups if setup.of in engines and setup.place not in reasons]
        taken = [setup for setup in here if not setup.form.errors]
        works = [card.work(max(1, prompt), card.values["max_new_tokens"], after) for card in self.costs(taken, engines)]
        pairs = zip(taken, works, strict=True)
        return {setup.place: work.seconds(engines[setup.of].rate()) for setup, work in pairs}

    @staticmethod
    def _checked(
        setup: Setup, refused: str | None, described: Description | TTTDescription | None, lang: str
    ) -> dict[str, Any]:
        """What a card shows of its settings: a line about them, each control as it stands, and what gave way."""
        idle, settings, problems = setup.card.plain or setup.fixed, setup.form.settings, setup.problems(lang)
        own = [control for control in st.CONTROLS if control.group in st.LOOP_GROUPS]
        if refused is None and problems:
            refused = problems[0].reason
        return {
            "about": about(setup, described, lang),
            "refused": refused,
            "values": {} if idle or problems else {c.name: settings[c.name] for c in own},
            "gave": setup.form.gave,
            "controls": {} if idle else {c.name: plain_face(c, settings, problems, lang) for c in own},
        }

    def opening(self, question: Any) -> str:
        """`{word, lang}`: what a link to the page (see `loopviz.app.controls.link_word`) brings: values, prompt, a model beside."""
        asked = read(question, contract.OpenLink, CHECK_LIMIT)
        lang = pick_language(asked.get("lang"))
        state, problems = decode(asked.get("word"), default_model=self.room.default, local=self.room.local, lang=lang)
        said = [problem.reason for problem in problems]
        brought = {"values": dict(state.values), "prompt": state.prompt, "beside": state.beside, "said": said}
        return dumps({"kind": "opening", **brought})

    def _kept(self, asked: Mapping[str, Any]) -> ComparisonRun | None:
        """The comparison that a question is about: a visitor's own, or the recorded one."""
        if asked.get("run") == recorded.RUN:
            return recorded.run_in(pick_language(asked.get("lang")), self.room.local)
        return self.runs.get(asked.get("run"))

    def look(self, question: Any) -> str:
        """`{run, lang, view, axes}`: everything of the comparison, drawn so."""
        asked = read(question, contract.LookCompared)
        run = self._kept(asked)
        return GONE if run is None else dumps(run.look(asked))

    def stop(self, question: Any) -> str:
        """`{ticket, place}`: end the configuration of one card; without a place all, also what has not begun yet."""
        asked = read(question, contract.StopCompared)
        ticket, place = asked.get("ticket"), asked.get("place")
        if place is None:
            self.jobs.starts.cancel(ticket)
        for run in self.runs:
            if is_ticket(ticket) and run.ticket == ticket:
                run.halt() if place is None else run.stop(place)
        return dumps({"kind": "ok"})

    def download(self, question: Any) -> str:
        """`{run, kind}`: the table so far as a file: `{"name", "data"}`, base64."""
        asked = read(question, contract.Download)
        run = self._kept(asked)
        return GONE if run is None else dumps(file_of(run.experiment, asked.get("kind")))
