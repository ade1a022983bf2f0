"""What the Explore page's events do, free of Gradio: tests call it as Gradio does."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from loopviz.app import settings as st
from loopviz.app import steer
from loopviz.app.live import SEND_EVERY, Registry, Run, messages
from loopviz.app.models import ModelRefused, ModelRoom, short_name
from loopviz.app.presets import matching
from loopviz.app.questions import Questions, View
from loopviz.app.readable import unread_share
from loopviz.app.texts import text
from loopviz.app.wire import wire

log = logging.getLogger(__name__)

_NOT_ASKED = object()


def status(line: str, bad: bool = False) -> str:
    """The message that shows one line; what the page shows otherwise stays."""
    return wire({"kind": "status", "text": line, "bad": bad})


def over(ticket: str, line: str, bad: bool = True, **more: Any) -> str:
    """The message that ends what a page asked for by `ticket` before there was anything to show."""
    return wire({"kind": "status", "text": line, "bad": bad, "over": True, "ticket": ticket, **more})


def unforeseen(error: Exception, lang: str, what: str) -> str:
    """What a visitor is told of an error in `what` that nobody foresaw; the log has it whole, under its reference."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return text(lang, "refused.memory")
    ref = secrets.token_hex(4)
    log.error("%s failed, reference %s", what, ref, exc_info=error)
    return text(lang, "refused.unexpected", ref=ref)


def _suited(values: Mapping[str, Any], model: str) -> bool:
    """Whether the settings are for `model`: it has been there, or a link has set them; so they are where nothing is said."""
    return values.get(st.SUITS, model) == model


class Service:
    """The runs of a page's visitors: checked, started, watched, stopped.

    Args:
        every: seconds between two messages of a run.
    """

    def __init__(self, room: ModelRoom, registry: Registry, every: float = SEND_EVERY) -> None:
        self.room = room
        self.registry = registry
        self.every = every
        self.questions = Questions(registry, room)
        self._refused: dict[str, list[st.Problem]] = {}  # by session, from a run to the event that shows them

    # --- checking -------------------------------------------------------------------------------------------------

    def problems(self, values: Mapping[str, Any], lang: str, prompt: Any = _NOT_ASKED) -> list[st.Problem]:
        """Everything that would be refused, as far as it can be known now.

        A model not loaded yet cannot say, nor is it asked of settings that were another's: they are about to become its
        own (:meth:`own_settings`).
        """
        cleaned, found = st.clean(values, lang)
        loaded = self.room.ready(cleaned["model"])
        if loaded is not None and not found and _suited(values, cleaned["model"]):
            found = st.check_loop(cleaned, loaded.model, lang)
            if cleaned["chat"] and not getattr(loaded.tokenizer, "chat_template", None):
                found.append(st.Problem("chat", text(lang, "refused.chat")))
        return found if prompt is _NOT_ASKED else [*st.check_prompt(prompt, lang), *found]

    def prompt_hint(self, model: str, prompt: str, lang: str) -> str:
        """What the model's own tokenizer says of a prompt that it can hardly read; "" of one that it can.

        A script that the tokenizer never learned words of comes to the model as single bytes, or as its unknown token.
        """
        loaded = self.room.ready(model)
        if loaded is None or not isinstance(prompt, str):
            return ""
        share = unread_share(loaded.tokenizer, prompt)
        if share is None:
            return ""
        kind, value = share
        shown = f"{value:.0%}" if kind == "unknown" else f"{value:.1f}"
        return text(lang, f"prompt.{kind}", share=shown)

    def own_settings(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values to change as the model arrives; None when it is not there, or the settings are for it already.

        A preset that was chosen before any model was there is kept.
        """
        cleaned, _ = st.clean(values)
        loaded = self.room.ready(cleaned["model"])
        if loaded is None or _suited(values, cleaned["model"]):
            return None
        chosen = None if values[st.SUITS] else matching(cleaned)
        kept = () if chosen is None else chosen.values
        return {k: v for k, v in st.suit_model(cleaned, loaded.model.config).items() if k not in kept}

    def model_problem(self, name: str) -> list[st.Problem]:
        """Why the model could not be loaded, if it could not; Run tries again."""
        now = self.room.status(name)
        return [st.Problem("model", now.step)] if now.state == "failed" else []

    def refused(self, session: str) -> list[st.Problem]:
        """What the session's last run was refused for; told once."""
        return self._refused.pop(session, [])

    # --- running --------------------------------------------------------------------------------------------------

    def run(
        self, prompt: str, values: Mapping[str, Any], lang: str, session: str, view: View | None = None
    ) -> Iterator[str]:
        """One run: messages for the live part. Whatever goes wrong becomes a message; nothing typed is lost.

        Args:
            view: the panels to draw, and how to look at them; what only a panel that is on needs is recorded for it.
        """
        self._refused.pop(session, None)
        try:
            yield from self._run(prompt, values, lang, session, view or View())
        except (ModelRefused, ValueError) as error:
            control = "model" if isinstance(error, ModelRefused) else st.control_of(str(error))
            yield self._refuse(session, lang, [st.Problem(control, str(error))])
        except Exception as error:
            yield self._refuse(session, lang, [st.Problem("prompt", unforeseen(error, lang, "run"))])

    def _refuse(self, session: str, lang: str, problems: list[st.Problem]) -> str:
        while len(self._refused) > 1000:  # sessions that never came back
            self._refused.pop(next(iter(self._refused)), None)
        self._refused[session] = problems
        if len(problems) == 1:
            return status(text(lang, "refused", reason=problems[0].reason), bad=True)
        return status(text(lang, "refused.several", n=len(problems)), bad=True)

    def _run(self, prompt: str, values: Mapping[str, Any], lang: str, session: str, view: View) -> Iterator[str]:
        if problems := self.problems(values, lang, prompt):
            yield self._refuse(session, lang, problems)
            return
        loaded = yield from self._wait_for(st.clean(values, lang)[0]["model"], lang)
        if (own := self.own_settings(values)) is not None:  # Run was pressed before it was there
            values = {**values, **own, st.SUITS: loaded.name}
        cleaned, _ = st.clean(values, lang)
        if problems := self.problems(values, lang, prompt):
            yield self._refuse(session, lang, problems)
            return

        from loopviz.engine import Steering, StreamSettings, run_meta, stream
        from loopviz.model import direct_lens_misleads

        model = loaded.model.with_loop(**st.loop_fields(cleaned))
        extras = view.extras_of(direct_lens_misleads(model.config, loaded.model.config))
        wanted = StreamSettings(record="full", extras=extras, **st.stream_fields(cleaned))
        named, steering = short_name(loaded.name), Steering()
        meta = run_meta(model, loaded.tokenizer, prompt, wanted, model_name=named, steering=steering)
        run = Run(meta, view.panels, session, view.fresh(lang))
        run.values, run.steering, run.loop = cleaned, steering, steer.live_fields(cleaned, cleaned)
        frames = stream(model, loaded.tokenizer, prompt, wanted, stop=run.stop, steering=steering)
        self.registry.begin(run)
        sent = 0
        try:
            yield status(text(lang, "live.reading"))
            for message in messages(run, frames, every=self.every):
                if not sent:
                    self.registry.supersede(run)
                sent += 1
                yield message
            if not sent:
                yield status(text(lang, f"live.end.{run.end}"))
        finally:
            run.end = run.end or "stopped"
            run.finished.set()
            if not len(run):
                self.registry.drop(run)

    def _wait_for(self, name: str, lang: str) -> Iterator[str]:
        """Yield what is being done until the model is there, and return it. ModelRefused when it cannot be had."""
        for line in self._waiting(name, lang):
            yield status(f"{line} · {text(lang, 'live.wait_model')}")
        return self.room.get(name, lang)

    def _waiting(self, name: str, lang: str) -> Iterator[str]:
        """Load a model in a thread of its own; meanwhile, yield each new line about it. ModelRefused at the end."""
        if self.room.ready(name) is not None:
            return
        refused: list[ModelRefused] = []

        def fetch() -> None:
            try:
                self.room.get(name, lang)
            except ModelRefused as error:
                refused.append(error)

        thread = threading.Thread(target=fetch, name="loopviz-load", daemon=True)
        thread.start()
        said = None
        while thread.is_alive():
            line = self.room.status(name).tell(lang)
            if line != said:
                said = line
                yield line
            thread.join(0.25)
        if refused:
            raise refused[0]

    def fetch(self, name: str, lang: str) -> None:
        """Begin to load a model, unless one is being loaded; its status says how that goes."""
        if self.room.busy():
            return

        def get() -> None:
            with contextlib.suppress(ModelRefused):  # the status says why
                self.room.get(name, lang)

        threading.Thread(target=get, name="loopviz-load", daemon=True).start()

    def load(self, name: Any, lang: str) -> Iterator[tuple[str, bool]]:
        """Load a model a visitor named: lines to show, each with whether it is bad news."""
        name, problems = st.clean_name(name, lang)
        if problems:
            return
        try:
            for line in self._waiting(name, lang):
                yield line, False
            yield "", False
        except ModelRefused as error:
            yield text(lang, "refused", reason=str(error)), True

    def steer(self, values: Mapping[str, Any], lang: str, session: str) -> tuple[str | None, dict[str, str]]:
        """The form was changed: a run of the session being made takes of it what it can take.

        Returns:
            What to say, or None; and the controls whose values are for the next run (see :func:`steer.waiting`).
        """
        runs = [run for run in self.registry.of_session(session) if not run.finished.is_set()]
        if not runs or runs[-1].steering is None:
            return None, {}
        run, cleaned = runs[-1], st.clean(values)[0]
        if not _suited(values, cleaned["model"]) and cleaned["model"] == run.values["model"]:
            return None, {}  # about to become the settings the run was begun with
        later = steer.waiting(cleaned, run.values)
        if self.problems(values, lang):  # told beside the controls
            return None, later
        same_model = cleaned["model"] == run.values["model"]
        wanted = steer.live_fields(cleaned, run.values) if same_model else run.loop
        changed = {name: value for name, value in wanted.items() if run.loop[name] != value}
        if not changed:
            return (status(text(lang, "live.later")) if later else None), later
        try:
            run.steering.set_loop(**changed)
        except ValueError as error:
            return status(text(lang, "live.not_now", reason=str(error)), bad=True), later
        run.loop = wanted
        return status(steer.told(changed, lang)), later

    def stop(self, session: str) -> str | None:
        """Stop the session's run and return the message that ends it on the page, or None when nothing ran."""
        last = None
        for run in self.registry.of_session(session):
            if not run.finished.is_set():
                run.stop.set()
                run.finished.wait(10)
                last = run
        if last is None:
            return None
        return wire(last.ending()) if len(last) else status(text(last.focus.lang, "live.end.stopped"))
