"""What the Explore page's events do, free of Gradio: tests call it as Gradio does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loopviz.app.controls import settings as st
from loopviz.app.controls.model_name import short_name
from loopviz.app.controls.refusal import told
from loopviz.app.explore import first_run, live_changes
from loopviz.app.explore.answers import Questions, View
from loopviz.app.explore.prompt_words import unread_share
from loopviz.app.explore.run import SEND_EVERY, Registry, Run, messages
from loopviz.app.sessions import bounds
from loopviz.app.sessions.faults import kinds, unforeseen
from loopviz.app.sessions.job import Jobs, full, in_line, status
from loopviz.app.sessions.models import Loaded, ModelRefused, ModelRoom
from loopviz.app.sessions.tickets import Start
from loopviz.app.sessions.waiting_line import LineFull, Places
from loopviz.app.texts import text
from loopviz.worker import ended_by

_NOT_ASKED = object()


@dataclass
class Wish:
    """A run as it was asked for; its values are those of the form, until the run has begun."""

    prompt: str
    values: Mapping[str, Any]
    lang: str
    session: str
    view: View
    start: Start
    begun: bool = False


def _chats(loaded: Loaded) -> bool:
    """Whether the model has a chat template."""
    return bool(getattr(loaded.tokenizer, "chat_template", None))


def _tokens(loaded: Loaded, prompt: str, chat: bool) -> int:
    """How many tokens a prompt becomes, in the chat template if asked; ValueError where the tokenizer cannot say."""
    from loopviz.engine.pieces import chat_text, encode

    if chat and _chats(loaded):
        return len(encode(loaded.tokenizer, chat_text(loaded.tokenizer, prompt), add_special_tokens=False))
    return len(encode(loaded.tokenizer, prompt))


def _suited(values: Mapping[str, Any], model: str) -> bool:
    """Whether the settings are for `model`: it has been there, or a link has set them; so they are where nothing is said."""
    return values.get(st.SUITS, model) == model


class Service(Jobs):
    """The runs of a page's visitors: checked, started, watched, stopped.

    Args:
        every: seconds between two messages of a run.
        places: in which runs are made; those of all pages are the same.
    """

    def __init__(
        self, room: ModelRoom, registry: Registry, every: float = SEND_EVERY, places: Places | None = None
    ) -> None:
        super().__init__(room, registry.keeper, places)
        self.registry = registry
        self.every = every
        self.questions = Questions(registry, room)
        self._wishes: dict[str, Wish] = {}  # by session: what it has asked for, until that has ended
        self._refused: dict[str, list[st.Problem]] = {}  # by session, from a run to the event that shows them

    # --- checking -------------------------------------------------------------------------------------------------

    def problems(
        self, values: Mapping[str, Any], lang: str, prompt: Any = _NOT_ASKED, extras: Collection[str] = ()
    ) -> list[st.Problem]:
        """Everything that would be refused, as far as it can be known now.

        A model not loaded yet cannot say, nor is it asked of settings that were another's: they are about to become its
        own (:meth:`suited`).

        Args:
            extras: what would be recorded beyond what every run records.
        """
        cleaned, found = st.clean(values, lang)
        loaded = self.room.ready(cleaned["model"])
        if loaded is not None and not found and _suited(values, cleaned["model"]):
            found = st.check_loop(cleaned, loaded.model, lang)
            if cleaned["chat"] and not _chats(loaded):
                found.append(st.Problem("chat", text(lang, "refused.chat"), st.HAS["chat"]))
            if not found:
                found = self._too_much(loaded, cleaned, prompt, extras, lang)
        return found if prompt is _NOT_ASKED else [*st.check_prompt(prompt, lang), *found]

    def _too_much(
        self, loaded: Loaded, cleaned: Mapping[str, Any], prompt: Any, extras: Collection[str], lang: str
    ) -> list[st.Problem]:
        """What of a run is more than this server's limits allow; of one without a prompt, as if it were a token long."""
        tokens = 1
        if prompt is not _NOT_ASKED and not st.check_prompt(prompt, lang):
            from loopviz.engine import context_length, encode_prompt

            try:
                context = context_length(loaded.model)
                tokens = len(encode_prompt(loaded.tokenizer, prompt, chat=cleaned["chat"], context=context))
            except ValueError:  # told in its own words as the run begins
                return []
        return bounds.of_run(loaded, cleaned, tokens, extras, self.room.profile, lang)

    def prompt_hint(self, model: str, prompt: str, lang: str) -> str:
        """What the model's own tokenizer says of a prompt that it can hardly read; "" of one that it can.

        A script that the tokenizer never learned words of comes to the model as single bytes, or as its unknown token.
        """
        loaded = self.room.ready(model)
        if loaded is None or not isinstance(prompt, str):
            return ""
        try:
            share = unread_share(loaded.tokenizer, prompt)
        except ValueError:  # told in its own words as a run begins
            share = None
        if share is None:
            return ""
        kind, value = share
        shown = f"{value:.0%}" if kind == "unknown" else f"{value:.1f}"
        return text(lang, f"prompt.{kind}", share=shown)

    def suited(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The values to change as the model arrives (:func:`loopviz.app.controls.settings.suited`), and those that gave way.

        None when it is not there, or the settings are for it already.
        """
        cleaned, _ = st.clean(values)
        loaded = self.room.ready(cleaned["model"])
        if loaded is None or _suited(values, cleaned["model"]):
            return None
        return self._suit(cleaned, values.get(st.TOUCHED, ()), loaded)

    @staticmethod
    def _suit(
        cleaned: Mapping[str, Any], touched: Collection[str], loaded: Loaded
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        found, gave = st.suited(cleaned, loaded.model.config, touched)
        if cleaned["chat"] and not _chats(loaded):  # set by the visitor, or by a link for another model
            found["chat"] = False
            gave |= {"chat": True} if "chat" in touched else {}
        return {name: value for name, value in found.items() if cleaned[name] != value}, gave

    def own_settings(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """As :meth:`suited`: the values to change only."""
        found = self.suited(values)
        return None if found is None else found[0]

    def model_problem(self, name: str, lang: str = "en") -> list[st.Problem]:
        """Why the model could not be loaded, if it could not; Run tries again."""
        now = self.room.status(name)
        return [st.Problem("model", now.reason(lang))] if now.state == "failed" else []

    def refused(self, session: str) -> list[st.Problem]:
        """What the session's last run was refused for; told once."""
        return self._refused.pop(session, [])

    # --- running --------------------------------------------------------------------------------------------------

    def run(
        self,
        prompt: str,
        values: Mapping[str, Any],
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
        start = self.starts.begin(session, n)
        for earlier in self.registry.of_session(session):
            if not start.replaced:
                earlier.stop.set()
        if start.over.is_set():
            yield from self._ended(start, lang)
            return
        self._refused.pop(session, None)
        wish = Wish(prompt, values, lang, session, view or View(), start)
        self._wishes[session] = wish
        try:
            yield from self._run(wish)
        except LineFull:
            if not start.replaced:
                yield status(full(self.places, lang), True, n=start.n, over=True, full=True)
        except (ModelRefused, ValueError) as error:
            if start.over.is_set():  # a tokenizer, or a load, that was ended for it
                yield from self._ended(start, lang)
                return
            control = "model" if isinstance(error, ModelRefused) else st.control_of(error)
            yield from self._refuse(wish, [st.Problem(control, self.room.words(error, lang))])
        except kinds() as error:
            yield from self._refuse(wish, [st.Problem("prompt", unforeseen(error, lang, "run"))])
        finally:
            if self._wishes.get(session) is wish:
                del self._wishes[session]

    @staticmethod
    def _ended(start: Start, lang: str) -> Iterator[str]:
        """The last word of a start that came to nothing; none when another has taken its place."""
        if not start.replaced:
            yield status(text(lang, "live.end.stopped"), n=start.n, over=True)

    def _refuse(self, wish: Wish, problems: list[st.Problem]) -> Iterator[str]:
        if wish.start.replaced:
            return
        while len(self._refused) > 1000:  # sessions that never came back
            self._refused.pop(next(iter(self._refused)), None)
        self._refused[wish.session] = problems
        about_prompt = problems[0].control == "prompt"
        if len(problems) > 1:
            line = text(wish.lang, "refused.several", n=len(problems))
        elif about_prompt and self.too_long(wish.prompt, wish.values) is not None:
            line = text(wish.lang, "refused.beside")  # it is told there, with a way out
        else:
            line = text(wish.lang, "refused", reason=problems[0].reason)
        way: dict[str, Any] = {}
        if model := next((problem.model for problem in problems if problem.model), ""):
            way["act"] = {"label": text(wish.lang, "refused.has", model=model), "model": model}
        yield status(line, True, n=wish.start.n, over=True, **way)

    def _run(self, wish: Wish) -> Iterator[str]:
        lang, start = wish.lang, wish.start
        with ended_by(start.over.is_set):
            problems = self.problems(wish.values, lang, wish.prompt, wish.view.extras)
        if problems:
            yield from self._refuse(wish, problems)
            return
        over = start.over.is_set
        while not over():
            # what is waited for is the form as it stands: it may be changed meanwhile, the model too
            name = st.clean(wish.values, lang)[0]["model"]
            for line in self.waiting(name, lang, over):
                yield status(f"{line} · {text(lang, 'live.wait_model')}", n=start.n)
            if over():
                break
            loaded = self.room.get(name, lang, over)
            with self.places.join("explore") as place:
                for ahead in place.wait(over):
                    yield status(in_line(ahead, lang), n=start.n)
                if not over() and st.clean(wish.values, lang)[0]["model"] == name:
                    yield from self._make(wish, loaded)
                    return
        yield from self._ended(start, lang)

    def _make(self, wish: Wish, loaded: Loaded) -> Iterator[str]:
        """The run itself, of the form as it stands now: from here on changes go by :meth:`steer`."""
        prompt, lang, session, view, start = wish.prompt, wish.lang, wish.session, wish.view, wish.start
        wish.begun, values = True, wish.values
        cleaned, _ = st.clean(values, lang)
        if not _suited(values, cleaned["model"]):  # Run was pressed before it was there
            cleaned |= self._suit(cleaned, values.get(st.TOUCHED, ()), loaded)[0]
            values = {**values, **cleaned, st.SUITS: cleaned["model"]}
        with ended_by(start.over.is_set):
            problems = self.problems(values, lang, prompt, view.extras)
        if problems:
            yield from self._refuse(wish, problems)
            return

        from loopviz.engine import Steering, StreamSettings, run_meta, stream
        from loopviz.model import direct_lens_misleads

        model = loaded.model.with_loop(**st.loop_fields(cleaned))
        extras = view.extras_of(direct_lens_misleads(model.config, loaded.model.config))
        wanted = StreamSettings(record="full", extras=extras, **st.stream_fields(cleaned))
        named, steering = short_name(loaded.name), Steering()
        with ended_by(start.over.is_set):
            meta = run_meta(model, loaded.tokenizer, prompt, wanted, model_name=named, steering=steering)
        run = Run(meta, view.panels, session, view.fresh(lang))
        run.values, run.steering, run.loop = cleaned, steering, live_changes.live_fields(cleaned, cleaned)
        run.n, run.stop = start.n, start.over
        with ended_by(start.over.is_set):
            frames = stream(model, loaded.tokenizer, prompt, wanted, stop=run.stop, steering=steering)
        self.registry.begin(run)
        sent = 0
        try:
            with bounds.deadline(self.room.profile.seconds_run, lambda: run.halt("time")):
                # the form shows what runs: it asks for the model's own settings if it has not got them yet
                yield status(text(lang, "live.reading"), n=start.n, suit=True)
                for message in messages(run, frames, every=self.every):
                    if not sent and not start.replaced:
                        self.registry.supersede(run)
                    sent += 1
                    yield message
            if not sent and not start.replaced:
                yield status(text(lang, f"live.end.{run.end}"), n=start.n, over=True)
        finally:
            run.end = run.end or run.halted
            run.finished.set()
            if not len(run):
                self.registry.drop(run)

    # --- the settings of a run ---------------------------------------------------------------------------------------

    def settings_of(self, run_id: Any) -> tuple[dict[str, Any], str, list[str]] | None:
        """The controls' values and the prompt a run was made under, and what of it they cannot hold; None: no such run.

        Args:
            run_id: as the page knows it; the recorded run is everybody's.
        """
        run = self.registry.get(run_id)
        trace = first_run.stored() if run_id == first_run.RUN else None if run is None else run.trace
        if trace is None:
            return None
        if run is not None and run.values:
            return dict(run.values), str(trace.meta["prompt"]), []
        values, lost = st.of_run(trace.meta)
        return values, str(trace.meta["prompt"]), lost

    # --- a prompt that is too long ------------------------------------------------------------------------------------

    def too_long(self, prompt: Any, values: Mapping[str, Any]) -> int | None:
        """How many tokens of a prompt can be kept that the model's context cannot hold; None for one that fits.

        As many as leave room for the new tokens asked for, or for half of the context.
        """
        cleaned, _ = st.clean(values)
        loaded = self.room.ready(cleaned["model"])
        if loaded is None or not isinstance(prompt, str) or not prompt.strip():
            return None
        try:
            prompt.encode()
        except UnicodeEncodeError:  # no text, and told so
            return None
        from loopviz.engine import context_length

        context = context_length(loaded.model)
        try:
            if len(prompt) <= st.PROMPT_LIMIT and _tokens(loaded, prompt, cleaned["chat"]) <= context:
                return None
        except ValueError:  # told in its own words as a run begins
            return None
        return int(context - min(cleaned["max_new_tokens"], context // 2))

    def shortened(self, prompt: Any, values: Mapping[str, Any]) -> str | None:
        """The end of a prompt that is too long, of as many tokens as :meth:`too_long` says; None for one that fits."""
        keep = self.too_long(prompt, values)
        loaded = self.room.ready(st.clean(values)[0]["model"])
        if keep is None or loaded is None:
            return None
        try:
            return self._cut(loaded, prompt[-st.PROMPT_LIMIT :], keep, st.clean(values)[0]["chat"])
        except ValueError:  # told in its own words as a run begins
            return None

    @staticmethod
    def _cut(loaded: Loaded, tail: str, keep: int, chat: bool) -> str:
        """The end of a text, of at most `keep` tokens."""
        from loopviz.engine.pieces import decode, encode

        ids = encode(loaded.tokenizer, tail, add_special_tokens=False)
        over = 0  # what the chat template adds, and what the cut changed
        for _ in range(8):
            cut = decode(loaded.tokenizer, ids[-max(1, keep - over) :]).lstrip("\ufffd")
            more = _tokens(loaded, cut, chat) - keep
            if more <= 0:
                break
            over += more
        return cut

    def steer(self, values: Mapping[str, Any], lang: str, session: str) -> tuple[str | None, dict[str, str]]:
        """The form was changed: a run of the session being made takes of it what it can take.

        Returns:
            What to say, or None; and the controls whose values are for the next run (see :func:`live_changes.waiting`).
        """
        wish = self._wishes.get(session)
        if wish is not None and not wish.begun:  # it starts with what the form shows then
            wish.values = values
            return None, {}
        runs = [run for run in self.registry.of_session(session) if not run.finished.is_set()]
        if not runs or runs[-1].steering is None:
            return None, {}
        run = runs[-1]
        if (own := self.own_settings(values)) is not None:  # about to become those of its model
            values = {**values, **own, st.SUITS: st.clean(values)[0]["model"]}
        cleaned = st.clean(values)[0]
        later = live_changes.waiting(cleaned, run.values)
        if self.problems(values, lang, str(run.trace.meta["prompt"]), run.trace.meta["settings"]["extras"]):
            return None, later  # told beside the controls
        same_model = cleaned["model"] == run.values["model"]
        wanted = live_changes.live_fields(cleaned, run.values) if same_model else run.loop
        changed = {name: value for name, value in wanted.items() if run.loop[name] != value}
        if not changed:
            return (status(text(lang, "live.later")) if later else None), later
        try:
            run.steering.set_loop(**changed)
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
        self.starts.leave(session)
        self.registry.forget(session)
