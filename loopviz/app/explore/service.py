"""What the Explore page's events do, free of Gradio: tests call it as Gradio does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from loopviz.app import controls as st
from loopviz.app.controls.model_name import short_name
from loopviz.app.controls.refusal import told
from loopviz.app.explore import live_changes
from loopviz.app.explore.answers import Questions, View, as_prompt, text_up_to
from loopviz.app.explore.run import SEND_EVERY, Run, Runs, in_turns, messages
from loopviz.app.sessions import bounds
from loopviz.app.sessions.chosen_precision import is_overflow, overflow, way_out
from loopviz.app.sessions.job import Job, Jobs, Refused, status
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.sessions.waiting_line import Place, Places
from loopviz.app.texts import text
from loopviz.checks import FieldError
from loopviz.engine.engine import Engine, EngineLost, Request
from loopviz.worker import ended_by

if TYPE_CHECKING:
    from loopviz.trace import Frame

_NOT_ASKED = object()
WONDER = 0.3  # seconds after which somebody who pressed Run wonders what is being done


class Wish(Job):
    """A run that was asked for.

    Attributes:
        form: which may be changed until the run has begun; the model too.
        view: how its visitor looks at runs.
        begun: whether changes of the form go to the run from now on (:meth:`Service.steer`).
        gives_way: whether what was set may give way to a model that cannot have it, as on the page, where the control shows it. A
            program sees no control: what it set is so, or is refused.
    """

    page, what = "explore", "run"

    def __init__(
        self,
        service: Service,
        prompt: Any,
        form: st.Form,
        lang: str,
        session: str,
        view: View,
        n: int | None = None,
        gives_way: bool = True,
    ) -> None:
        super().__init__(service.registry, lang, session, n)
        self.gives_way = gives_way
        self.service, self.prompt, self.form, self.view, self.begun = service, prompt, form, view, False

    @property
    def model(self) -> str:
        """Of the form as it stands."""
        form = self.form
        return form.model

    @property
    def precision(self) -> str:
        """Of the form as it stands."""
        form = self.form
        return form.precision

    @property
    def mark(self) -> dict[str, Any]:
        """Its number among its page's starts."""
        return {"n": self.start.n}

    def check(self) -> None:
        """Refuse what is known to be wrong with the form."""
        self.service.wishes[self.session] = self
        self.refuse(self.form)

    def refuse(self, form: st.Form) -> None:
        """Raise Refused for all that is wrong with a form, and the prompt."""
        with ended_by(self.start.over.is_set):
            problems = self.service.problems(form, self.lang, self.prompt, self.view.extras)
        if problems:
            raise Refused(*problems)

    def cost(self, loaded: Engine) -> bounds.Cost:
        """By the form as it stands."""
        values, extras, wording = self.form.settings, self.view.extras_of(False), self.form.settings.wording
        return bounds.cost_of_run(loaded, values, loaded.prompt_tokens(self.prompt, **wording), extras)

    def seconds_of_reading(self, loaded: Engine, form: st.Form) -> float:
        """About how long its prompt is read under a form; ValueError where it cannot be read."""
        tokens = loaded.prompt_tokens(self.prompt, **form.settings.wording)
        return bounds.seconds_of_reading(loaded, form.settings, tokens, self.view.extras_of(False))

    def make(self, loaded: Engine, place: Place) -> Iterator[str]:
        """Run the form as it stands."""
        return self.service._make(self, loaded, place)

    def close(self) -> None:
        """The form's changes are no run's any more."""
        if self.service.wishes.get(self.session) is self:
            del self.service.wishes[self.session]

    def beside(self, error: BaseException) -> str:
        """The model's name, the control of a field, or else the prompt."""
        return error.field if isinstance(error, ModelRefused) else st.control_of(error)

    def waits(self, line: str) -> str:
        """That it begins by itself."""
        return f"{line} · {text(self.lang, 'live.wait_model')}"

    def refused(self, refused: Refused) -> Iterator[str]:
        """Its last message, with what is told beside the controls, and a way out where there is one.

        `beside`: by control, what it says; `open`: the groups of controls that say something; `keep`: what a button says
        that shortens the prompt; `act`: a button, and the model that it runs, or the precision in which it runs all this.
        """
        problems, lang = refused.problems, self.lang
        beside = {problem.control: text(lang, "refused", reason=problem.reason) for problem in reversed(problems)}
        opened = [group for group in st.GROUPS if any(c.group == group and c.name in beside for c in st.CONTROLS)]
        more: dict[str, Any] = {"beside": beside, "open": opened}
        keep = self.service.too_long(self.prompt, self.form) if "prompt" in beside else None
        if keep is not None:
            more["keep"] = text(lang, "prompt.keep", n=keep)
        if len(problems) > 1:
            line = text(lang, "refused.several", n=len(problems))
        elif keep is not None:
            line = text(lang, "refused.beside")  # it is told there, with a way out
        else:
            line = beside[problems[0].control]
        if model := next((problem.model for problem in problems if problem.model), ""):
            more["act"] = {"label": text(lang, "refused.has", model=model), "model": model}
        elif [*beside] == ["precision"] and (act := way_out(self.precision, self.service.room, lang)) is not None:
            more["act"] = act
        return self.last(line, True, **more)


class Service(Jobs):
    """The runs of a page's visitors: checked, started, watched, stopped.

    Args:
        every: seconds between two messages of a run.
        places: in which runs are made; those of all pages are the same.
    """

    def __init__(
        self, room: ModelRoom, registry: Runs, every: float = SEND_EVERY, places: Places | None = None
    ) -> None:
        super().__init__(room, registry.keeper, places)
        self.registry = registry
        self.every = every
        self.questions = Questions(registry, room, self.carried)
        self.wishes: dict[str, Wish] = {}  # by session: what it has asked for, until that has ended

    # --- checking -------------------------------------------------------------------------------------------------

    def problems(
        self, values: Mapping[str, Any] | st.Form, lang: str, prompt: Any = _NOT_ASKED, extras: Collection[str] = ()
    ) -> list[st.Problem]:
        """Everything that would be refused, as far as it can be known now.

        A model not loaded yet cannot say, nor is it asked of settings that were another's: they are about to become its
        own (:meth:`suited`).

        Args:
            extras: what would be recorded beyond what every run records.
        """
        form = st.Form.read(values)
        wrong = [] if prompt is _NOT_ASKED else st.check_prompt(prompt, lang)
        found, loaded = form.problems(lang), self._ready(form)
        if loaded is not None and not found and form.suited:
            try:
                found = st.check_loop(form.settings, loaded, lang)
            except EngineLost:  # not known now; a run says so as it begins
                return wrong
            if form.settings.chat and not loaded.describe().chats:
                found.append(st.Problem("template", text(lang, "refused.chat"), st.HAS["template"]))
            if not found:
                asked = None if prompt is _NOT_ASKED or wrong else prompt
                found = self._too_much(loaded, form.settings, asked, extras, lang)
        return [*wrong, *found]

    def _too_much(
        self, loaded: Engine, settings: st.RunSettings, prompt: str | None, extras: Collection[str], lang: str
    ) -> list[st.Problem]:
        """What of a run is more than this server's limits allow; of one without a prompt, as if it were a token long."""
        tokens = 1
        if prompt is not None:
            try:
                tokens = loaded.prompt_tokens(prompt, **settings.wording)
            except ValueError:  # told in its own words as the run begins
                return []
        return bounds.of_run(loaded, settings, tokens, extras, self.room.profile, lang)

    def _ready(self, form: st.Form) -> Engine | None:
        """The model of a form, if it is here so."""
        return self.room.ready(form.model, form.precision)

    def prompt_hint(self, model: str, prompt: str, lang: str, precision: str = "") -> str:
        """What the model's own tokenizer says of a prompt that it can hardly read; "" of one that it can.

        A script that the tokenizer never learned words of comes to the model as single bytes, or as its unknown token.
        """
        loaded = self.room.ready(model, precision)
        if loaded is None or not isinstance(prompt, str):
            return ""
        try:
            share = loaded.unread_share(prompt)
        except ValueError:  # told in its own words as a run begins
            share = None
        if share is None:
            return ""
        kind, value = share
        shown = f"{value:.0%}" if kind == "unknown" else f"{value:.1f}"
        return text(lang, f"prompt.{kind}", share=shown)

    def suited(self, values: Mapping[str, Any] | st.Form) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The values to change as the model arrives (:func:`loopviz.app.controls.suited`), and those that gave way.

        None when it is not there, or the settings are for it already.
        """
        form = st.Form.read(values)
        loaded = self._ready(form)
        return None if loaded is None or form.suited else self._suit(form, loaded)

    @staticmethod
    def _suit(form: st.Form, loaded: Engine) -> tuple[dict[str, Any], dict[str, Any]]:
        described = loaded.describe()
        found, gave = st.suited(form.settings, described, form.touched)
        if form.settings.chat and not described.chats:  # set by the visitor, or by a link for another model
            found = found.changed({"template": "none"})
            gave |= {"template": "chat"} if "template" in form.touched else {}
        return {name: value for name, value in found.items() if form.settings[name] != value}, gave

    def own_settings(self, values: Mapping[str, Any] | st.Form) -> dict[str, Any] | None:
        """As :meth:`suited`: the values to change only."""
        found = self.suited(values)
        return None if found is None else found[0]

    def model_problem(self, name: str, lang: str = "en", precision: str = "") -> list[st.Problem]:
        """Why the model could not be loaded, if it could not, beside what is to be chosen otherwise; Run tries again."""
        now = self.room.status(name, precision)
        return [st.Problem(now.field, now.reason(lang))] if now.state == "failed" else []

    # --- running --------------------------------------------------------------------------------------------------

    def run(
        self,
        prompt: str,
        values: Mapping[str, Any] | st.Form,
        lang: str,
        session: str,
        view: View | None = None,
        n: int | None = None,
    ) -> Iterator[str]:
        """One run: messages for the live part. Whatever goes wrong becomes a message; nothing typed is lost.

        What the session ran or waited for before is over as this begins.

        Args:
            view: the panels to draw, and how to look at them; what only a panel that is on needs is recorded for it.
            n: the start's number on its page, which comes back with the messages; None for the next.
        """
        return self.carry_out(Wish(self, prompt, st.Form.read(values), lang, session, view or View(), n))

    def _make(self, wish: Wish, loaded: Engine, place: Place) -> Iterator[str]:
        """The run itself, of the form as it stands now: from here on changes go by :meth:`steer`."""
        wish.begun, form = True, wish.form
        suited = form.suited
        if not suited:  # Run was pressed before it was there
            changes, gave = self._suit(form, loaded)
            if not wish.gives_way:  # what is set otherwise is refused below, in its own words
                changes = {name: value for name, value in changes.items() if name not in gave}
            form = form.changed(changes, suits=form.model)
        wish.refuse(form)
        opening = None  # a message more holds up what comes after it
        if not suited:  # the form shows what runs: it asks for the model's own settings, which it has not got yet
            opening = wish.say(text(wish.lang, "live.reading"), suit=True)
        elif wish.seconds_of_reading(loaded, form) > WONDER:
            opening = wish.say(text(wish.lang, "live.reading"))
        run, made = self._begin(wish, form.settings, loaded)
        frames = in_turns(run, place.turn, made, wish.lang, wish.mark)
        told = messages(run, frames, every=self.every)
        try:
            yield from wish.show(run, told, self.room.profile.seconds_run, opening)
        except FieldError as error:
            if not is_overflow(error):
                raise
            raise overflow(wish.lang) from None
        finally:
            run.end = run.end or run.halted
            run.finished.set()
            if not len(run):
                self.registry.drop(run)

    @staticmethod
    def _begin(wish: Wish, asked: st.RunSettings, loaded: Engine) -> tuple[Run, Iterator[Frame]]:
        """A run of a form that is for `loaded`, and the frames that will be its."""
        loop, view = st.loop_fields(asked), wish.view
        extras = view.extras_of(loaded.describe(loop).lens_misleads)
        settings = {"record": "full", "extras": extras, **st.stream_fields(asked)}
        with ended_by(wish.start.over.is_set):
            made = loaded.start(Request(wish.prompt, loop, settings, short_name(loaded.name)), wish.start.over)
        run = Run(made.meta, view.panels, wish.session, view.fresh(wish.lang))
        run.values, run.steer, run.loop = asked, made.steer, live_changes.live_fields(asked, asked)
        run.n, run.stop = wish.start.n, wish.start.over
        return run, made.frames

    # --- the settings of a run ---------------------------------------------------------------------------------------

    def settings_of(self, run_id: Any) -> tuple[dict[str, Any], str, list[str]] | None:
        """The controls' values and the prompt a run was made under, and what of it they cannot hold; None: no such run.

        Args:
            run_id: as the page knows it; the recorded run is everybody's.
        """
        run, trace = self.registry.get(run_id), self.questions.trace(run_id)
        if trace is None:
            return None
        if run is not None and run.values:
            return dict(run.values), str(trace.meta["prompt"]), []
        values, lost = st.of_run(trace.meta)
        return dict(values), str(trace.meta["prompt"]), lost

    def branched(
        self, run_id: Any, values: Mapping[str, Any], token: int, loops: int
    ) -> tuple[dict[str, Any], str] | None:
        """The values and the prompt that go on from a token of a run with so many loops; None: it has no such token.

        Where words stop by themselves, `loops` is the most that any may take: fewer remain possible.

        Args:
            values: those under which the run was made (:meth:`settings_of`).
            token: the last one that is read again.
            loops: held to what the controls offer.
        """
        trace = self.questions.trace(run_id)
        if trace is None or not 0 <= token < len(trace):
            return None
        count = st.BY_NAME["loop_count"]
        loops = int(min(max(loops, count.low), count.high))
        changed: dict[str, Any] = {"loop_count": loops}
        if values["loop_strategy"] == "dynamic_stop":
            changed = {"max_loop_count": loops, "min_loop_count": min(loops, values["min_loop_count"])}
        settings = {**values, **changed, **st.AS_IT_IS}  # the text has been through the template once
        return settings | st.fitted(settings), as_prompt(trace, text_up_to(trace, token))

    # --- a prompt that is too long ------------------------------------------------------------------------------------

    def too_long(self, prompt: Any, values: Mapping[str, Any] | st.Form) -> int | None:
        """How many tokens of a prompt can be kept that the model's context cannot hold; None for one that fits.

        As many as leave room for the new tokens asked for, or for half of the context.
        """
        form = st.Form.read(values)
        settings, loaded = form.settings, self._ready(form)
        if loaded is None or not isinstance(prompt, str) or not prompt.strip():
            return None
        try:
            prompt.encode()
        except UnicodeEncodeError:  # no text, and told so
            return None
        context = loaded.describe().max_position_embeddings
        try:
            if len(prompt) <= st.PROMPT_LIMIT and loaded.tokens(prompt, **settings.wording) <= context:
                return None
        except ValueError:  # told in its own words as a run begins
            return None
        return int(context - min(settings.max_new_tokens, context // 2))

    def shortened(self, prompt: Any, values: Mapping[str, Any] | st.Form) -> str | None:
        """The end of a prompt that is too long, of as many tokens as :meth:`too_long` says; None for one that fits."""
        form = st.Form.read(values)
        keep, loaded = self.too_long(prompt, form), self._ready(form)
        if keep is None or loaded is None:
            return None
        try:
            return loaded.end_of(prompt[-st.PROMPT_LIMIT :], keep, **form.settings.wording)
        except ValueError:  # told in its own words as a run begins
            return None

    def steer(self, values: Mapping[str, Any] | st.Form, lang: str, session: str) -> tuple[str | None, dict[str, str]]:
        """The form was changed: a run of the session being made takes of it what it can take.

        Returns:
            What to say, or None; and the controls whose values are for the next run (see :func:`live_changes.waiting`).
        """
        form, wish = st.Form.read(values), self.wishes.get(session)
        if wish is not None and not wish.begun:  # it starts with what the form shows then
            wish.form = form
            return None, {}
        runs = [run for run in self.registry.of_session(session) if not run.finished.is_set()]
        if not runs or runs[-1].steer is None:
            return None, {}
        run = runs[-1]
        if (own := self.own_settings(form)) is not None:  # about to become those of its model
            form = form.changed(own, suits=form.model)
        later = live_changes.waiting(form.settings, run.values)
        if self.problems(form, lang, str(run.trace.meta["prompt"]), run.trace.meta["settings"]["extras"]):
            return None, later  # told beside the controls
        same_model = form.model == run.values["model"]
        wanted = live_changes.live_fields(form.settings, run.values) if same_model else run.loop
        changed = {name: value for name, value in wanted.items() if run.loop[name] != value}
        if not changed:
            return (status(text(lang, "live.later")) if later else None), later
        try:
            run.steer(**changed)
        except ValueError as error:
            return status(text(lang, "live.not_now", reason=told(error, lang)), bad=True), later
        run.loop = wanted
        return status(live_changes.told(changed, lang)), later

    def stop(self, session: str, n: int | None = None) -> None:
        """Tell what the session runs or waits for to end, up to its start number `n`; waits for nothing.

        That it has ended is said by the run itself, when it has.
        """
        self.starts.stop(session, n)
        for run in self.registry.of_session(session):
            if n is None or run.n <= n:
                run.stop.set()

    def leave(self, session: str) -> None:
        """A visitor left: stop what runs or waits for them and keep nothing."""
        self.forget(session, self.registry)
