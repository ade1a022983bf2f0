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
from loopviz.app.controls.face import face
from loopviz.app.controls.link_word import PageState, decode, encode
from loopviz.app.sessions import bounds
from loopviz.app.sessions.job import Job, Jobs, Refused
from loopviz.app.sessions.messages import dumps
from loopviz.app.sessions.registry import Registry
from loopviz.app.sessions.table_file import file_of
from loopviz.app.sessions.tickets import is_ticket
from loopviz.app.sessions.untrusted import read
from loopviz.app.sessions.waiting_line import Place
from loopviz.app.texts import pick_language, text
from loopviz.engine.engine import Engine
from loopviz.worker import ended_by

GONE = dumps({"kind": "gone"})
CHARACTERS_A_TOKEN = 4  # about, of a text whose cost is told before it is read
CHECK_LIMIT = 40_000  # characters of a question that holds all the page's settings


def _face(control: st.Control, values: Mapping[str, Any], problems: list[st.Problem], lang: str) -> dict[str, Any]:
    """A control as the page's script shows it: the line under it, whether it applies, whether it is refused."""
    made = face(control, values, problems, lang)
    return {"info": made["info"], "on": made["interactive"], "bad": bool(made["elem_classes"])}


class ComparisonJob(Job):
    """A comparison that was asked for.

    Attributes:
        reasons: by place, why a card is refused; the others are compared.
        setups: those.
    """

    page, what = "compare", "comparison"

    def __init__(self, service: Comparisons, asked: Asked, session: str) -> None:
        super().__init__(service.runs, asked.lang, session, asked.n, asked.ticket)
        self.service, self.asked, self.model = service, asked, asked.model
        self.reasons: dict[int, str] = {}
        self.setups: list[Setup] = []

    def check(self) -> None:
        """Refuse what no model needs to be asked about."""
        if problems := self.asked.problems():
            raise Refused(problems[0])

    def prepare(self, loaded: Engine) -> None:
        """Refuse cards by themselves; all of it when none is left, or those that are left are too much together."""
        service, asked = self.service, self.asked
        setups, tokens = asked.setups(loaded.describe()), service.tokens(asked, loaded)
        self.reasons = service.refused(setups, loaded, self.lang, tokens)
        self.setups = [setup for setup in setups if setup.place not in self.reasons]
        if not self.setups:
            line, reasons = text(self.lang, "compare.all_refused"), {str(at): said for at, said in self.reasons.items()}
            raise Refused(st.Problem("", line), line=line, reasons=reasons)
        if (problem := service.too_much(self.setups, loaded, self.lang, tokens)) is not None:
            raise Refused(problem)

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """Compare."""
        with ended_by(self.start.over.is_set):
            run = self.service.prepared(self.asked, self.setups, loaded, self.session)
        run.refused = self.reasons
        return self.show(run, messages(run, every=self.service.every), self.service.room.profile.seconds_compare)


class Comparisons:
    """The comparisons of a page's visitors: checked, started, watched, stopped.

    Args:
        jobs: what all pages of the server share.
    """

    def __init__(self, jobs: Jobs, every: float = SEND_EVERY) -> None:
        self.jobs, self.room, self.every = jobs, jobs.room, every
        self.runs: Registry[ComparisonRun] = Registry(jobs.keeper)

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, payload: Any, session: str) -> Iterator[str]:
        """One comparison: messages for the page. Whatever goes wrong becomes a message.

        What the session compared or waited for before is over as this begins.
        """
        return self.jobs.carry_out(ComparisonJob(self, Asked.read(payload, self.room.default), session))

    def refused(
        self, setups: list[Setup], loaded: Engine, lang: str, tokens: tuple[int, int] = (1, 0)
    ) -> dict[int, str]:
        """Which cards the loaded model, or the server, refuses, and why.

        Args:
            tokens: of the prompt and the continuation.
        """
        reasons, chats = {}, loaded.describe().chats
        for setup in setups:
            settings, problems = setup.form.settings, setup.problems(lang)
            if not problems and not setup.card.plain:
                problems = st.check_loop(settings, loaded, lang)
            if not problems and settings.chat and not chats:
                problems = [st.Problem("chat", text(lang, "refused.chat"))]
            if not problems and (told := self.too_much([setup], loaded, lang, tokens)):
                problems = [told]
            if problems:
                reasons[setup.place] = problems[0].reason
        return reasons

    @staticmethod
    def tokens(asked: Asked, loaded: Engine) -> tuple[int, int]:
        """Tokens of the prompt and the continuation; of what cannot be read, which is told as it begins, as if short."""
        try:
            prompt = loaded.prompt_tokens(asked.prompt, chat=asked.everybodys().settings.chat)
            after = loaded.tokens(asked.continuation, marks=False) if asked.continuation else 0
        except ValueError:
            return 1, 0
        return prompt, after

    def too_much(self, setups: list[Setup], loaded: Engine, lang: str, tokens: tuple[int, int]) -> st.Problem | None:
        """What of these cards together is more than this server's limits allow."""
        return bounds.of_comparison(self.costs(setups, loaded), loaded, *tokens, self.room.profile, lang)

    @staticmethod
    def costs(setups: list[Setup], loaded: Engine) -> list[bounds.Compared]:
        """What of each card decides its cost."""
        return [
            bounds.Compared(bounds.shape_of(loaded, None if card.plain else form.settings), form.settings, card.sweep)
            for _, card, form in setups
        ]

    def prepared(self, asked: Asked, setups: list[Setup], loaded: Engine, session: str) -> ComparisonRun:
        """The comparison of these cards, not begun yet."""
        from loopviz.lab import TASKS
        from loopviz.lab.experiment import Experiment
        from loopviz.lab.measure import subject_of
        from loopviz.lab.tasks.compare import Comparison

        task, places = TASKS["compare"], [setup.place for setup in setups]
        sampling = st.stream_fields(setups[0].form.settings)
        params = task.params(
            prompt=asked.prompt,
            continuation=asked.continuation,
            names=tuple(asked.names()[place] for place in places),
            loops=tuple(setup.loop for setup in setups),
            sweeps=tuple(setup.card.sweep for setup in setups) if any(setup.card.sweep for setup in setups) else (),
            baseline=places.index(asked.baseline) if asked.baseline in places else 0,
            **sampling,
        )
        subject = subject_of(loaded)
        links = {setup.place: self._link(setup.form.settings, asked) for setup in setups}
        comparison = Comparison(subject, params)
        experiment = Experiment(task, subject, params)
        return ComparisonRun(comparison, experiment, places, links, session, asked.lang, asked.ticket)

    def _link(self, settings: st.RunSettings, asked: Asked) -> str | None:
        """The word of the address that opens a configuration in Explore."""
        return encode(PageState(values=settings, prompt=asked.prompt), local=self.room.local, lang=asked.lang)[0]

    def forget(self, session: str) -> None:
        """A visitor left: stop what runs or waits for them and keep nothing."""
        self.jobs.forget(session, self.runs)

    # --- questions: strings of JSON both ways, nothing in a question is trusted ---------------------------------------

    def check(self, question: Any) -> str:
        """`{lang, model, linked, look, shared, cards}`, as for a comparison: where the model is, what applies, what would be refused.

        `base`: once the model is there, the values that suit it; `looped`: whether they are a loop of its own.
        """
        asked = Asked.read(read(question, contract.Compare, CHECK_LIMIT), self.room.default)
        loaded = self.room.ready(asked.model)
        now = self.room.want(asked.model, asked.lang, linked=asked.linked, look=asked.look)
        answer: dict[str, Any] = {
            "kind": "checked",
            "model": {"name": asked.model, "state": now.state, "text": now.tell(asked.lang)},
        }
        described = None if loaded is None else loaded.describe()
        answer["base"] = None if described is None else st.defaults() | st.brought(described)
        answer["looped"] = described is None or bool(described.blocks)
        setups = asked.setups(described)
        reasons = {} if loaded is None else self.refused(setups, loaded, asked.lang)
        costs = {} if loaded is None else self.seconds(asked, setups, reasons, loaded)
        tell = lambda seconds: bounds.about(seconds, asked.lang)  # noqa: E731
        answer["cards"] = [
            self._checked(setup, reasons.get(setup.place), asked.lang)
            | {"cost": tell(costs[setup.place]) if setup.place in costs else ""}
            for setup in setups
        ]
        answer["cost"] = tell(sum(costs.values())) if costs else ""
        shared = [control for control in st.CONTROLS if control.group == "sampling"]
        form = asked.everybodys()
        problems = form.problems(asked.lang)
        answer["shared"] = {control.name: _face(control, form.settings, problems, asked.lang) for control in shared}
        return dumps(answer)

    def seconds(
        self, asked: Asked, setups: list[Setup], reasons: Mapping[int, str], loaded: Engine
    ) -> dict[int, float]:
        """About how long each card that is not refused takes here, by place."""
        prompt, after = (math.ceil(n / CHARACTERS_A_TOKEN) for n in asked.lengths)
        taken = [setup for setup in setups if setup.place not in reasons and not setup.form.errors]
        works = [card.work(max(1, prompt), card.values["max_new_tokens"], after) for card in self.costs(taken, loaded)]
        rate = loaded.rate()
        return {setup.place: work.seconds(rate) for setup, work in zip(taken, works, strict=True)}

    @staticmethod
    def _checked(setup: Setup, refused: str | None, lang: str) -> dict[str, Any]:
        """What a card shows of its settings: a line about them, each control as it stands, and what gave way."""
        plain, settings, problems = setup.card.plain, setup.form.settings, setup.problems(lang)
        own = [control for control in st.CONTROLS if control.group in st.LOOP_GROUPS]
        if refused is None and problems:
            refused = problems[0].reason
        return {
            "about": " · ".join(about_loop([] if plain else [st.block_of(settings)], lang)),
            "refused": refused,
            "values": {} if plain or problems else {c.name: settings[c.name] for c in own},
            "gave": setup.form.gave,
            "controls": {} if plain else {c.name: _face(c, settings, problems, lang) for c in own},
        }

    def opening(self, question: Any) -> str:
        """`{word, lang}`: what a link to the page (see `loopviz.app.controls.link_word`) brings: values and prompt."""
        asked = read(question, contract.OpenLink, CHECK_LIMIT)
        lang = pick_language(asked.get("lang"))
        state, problems = decode(asked.get("word"), default_model=self.room.default, local=self.room.local, lang=lang)
        said = [problem.reason for problem in problems]
        return dumps({"kind": "opening", "values": dict(state.values), "prompt": state.prompt, "said": said})

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
