"""One visitor's teaching: a session in a thread of its own, what has become of it, and the messages that show it.

The copy of the model that is taught is in memory while it is taught, and again while what was learned is measured to be kept. In
between what was learned lies in the run's folder, and nobody's memory is held by it.

The messages: :mod:`loopviz.app.contract`. The page's script: `assets/web/teach/main.js`.
"""

from __future__ import annotations

import gc
import secrets
import shutil
import threading
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.app.controls import clean, defaults
from loopviz.app.controls.link_word import PageState, encode
from loopviz.app.controls.model_name import short_name
from loopviz.app.sessions.faults import kinds, unforeseen
from loopviz.app.sessions.memory_budget import Keeper
from loopviz.app.sessions.messages import wire
from loopviz.app.sessions.waiting_line import Place
from loopviz.app.teach import pictures
from loopviz.app.texts import pick_language, text
from loopviz.trace.weight import deep_bytes

if TYPE_CHECKING:
    from loopviz.train.teach_door import Prepared
    from loopviz.train.teach_recipe import TeachRecipe
    from loopviz.train.teach_session import Event, TeachSession
    from loopviz.train.teach_trainer import Closing
    from loopviz.train.trainer import Progress

SEND_EVERY = 0.7  # seconds; each message has its pictures whole
KEPT = "my-loop"  # the folder that is kept, as the command that is shown calls it
_STEP_BYTES = 120  # of a step, as it is remembered
_TRAINED_BYTES = 16  # a trained number, its gradient and the optimiser's two moments


class TeachRun:
    """A teaching. Its methods may be called from any thread.

    Args:
        prepared: what is taught, looked at already.
        base: the model's name.
        session: whose it is; compared, never sent.
        ticket: the page's own name for what it asked for; it may end it.
        words: an error's words in a language.

    Attributes:
        place: that it is made in; None: it waits for nobody.
        learned: by what recipe, with the hash of its base, once what was learned lies in its folder; None: nothing does.
        kept: what was kept of it, as the page is told; None: nothing yet.
        prompt: the fixed one.
        linked: whether a link may name folders of this machine.
    """

    def __init__(
        self,
        prepared: Prepared,
        base: str,
        session: str = "",
        ticket: str = "",
        lang: str = "en",
        words: Callable[[BaseException, str], str] = lambda error, lang: str(error),
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.prepared, self.base, self.words = prepared, base, words
        self.session, self.ticket, self.lang = session, ticket, lang
        self.prompt, self.linked = "", False
        self.phase = "loading"
        self.end: str | None = None  # done, stopped, memory, error
        self.reason = ""
        self.opened = False
        self.keeper: Keeper | None = None
        self.place: Place | None = None
        self.finished = threading.Event()
        self.learned: TeachRecipe | None = None
        self.kept: dict[str, Any] | None = None
        self.steps: list[tuple[int, float, int]] = []
        self.measured: list[tuple[int, tuple[int, ...], tuple[float, ...]]] = []
        self.settling: list[pictures.Settling] = []
        self.progress: Progress | None = None  # once its model is here
        self.trained = 0  # numbers
        self._data_bytes = deep_bytes([prepared.task.train, prepared.task.test])
        self._stop, self._word = threading.Event(), "stopped"
        self._paused = threading.Event()
        self._drawn: tuple[Any, dict[str, Any]] = (None, {})
        self._forgotten = False
        self._lock = threading.Lock()

    # --- what ends it, and what rests it ----------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes: its text, what it remembers, and what is trained while it is. The copy of the model is asked for
        besides, before it begins (`loopviz.train.teach_door.check_memory`), and is gone when it has ended."""
        trained = 0 if self.finished.is_set() else self.trained * _TRAINED_BYTES
        remembered = _STEP_BYTES * (len(self.steps) + 10 * (len(self.measured) + len(self.settling)))
        return self._data_bytes + remembered + trained

    @property
    def halted(self) -> str | None:
        """Its end, if it is to end before it is done."""
        return self._word if self._stop.is_set() else None

    def halt(self, end: str = "stopped") -> None:
        """End it, in the middle of a pass too; what was learned until then can be kept."""
        if not self._stop.is_set():
            self._word = end
        self._stop.set()

    def halter(self) -> Callable[[], None]:
        """What ends what is being done now, and nothing that is done later: the teaching, and not the keeping of it."""
        return self._stop.set

    def pause(self, on: bool) -> None:
        """Rest after the step at hand, or go on."""
        if on:
            self._paused.set()
        else:
            self._paused.clear()

    @property
    def left(self) -> float | None:
        """Seconds that it still takes, by those that its steps have taken; None: not known."""
        progress = self.progress
        if progress is None or self.end is not None or not progress.step:
            return None
        return progress.seconds / progress.step * (self.prepared.recipe.steps - progress.step)

    # --- teaching ---------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Teach, to the last step or until it is stopped; never raises."""
        end, reason = "error", ""
        try:
            end = self._teach()
        except kinds() as error:
            reason = self._said(error, "teaching")
        finally:
            self._ended(end, reason)

    def _teach(self) -> str:
        """How it ended. The copy of the model lives no longer than this."""
        if self.halted is not None:
            return self.halted
        session = self.prepared.begin()
        self.progress, self.trained = session.trainer.progress, session.trainer.trained
        self.phase = "training"
        try:
            for event in session.going(self._stop):
                self._take(event)
                if self.keeper is not None and not self.keeper.weigh(self):
                    self.halt("memory")
                if len(self.steps) < self.prepared.recipe.steps:
                    self._rest()
        finally:
            if self.steps:
                session.save()
                self.learned = session.recipe
        return self.halted or "done"

    def _said(self, error: BaseException, what: str) -> str:
        """What a visitor is told of an error: a refusal's own words (the loss is no number any more), else where the log has it."""
        from loopviz.train.trainer import TrainingError

        if isinstance(error, TrainingError):
            return text(self.lang, "teach.diverged", step=len(self.steps) + 1, lr=self.prepared.recipe.optimizer.lr)
        own = isinstance(error, ValueError)
        said = self.words(error, self.lang) if own else unforeseen(error, self.lang, what)
        return text(self.lang, "refused", reason=said)

    def _take(self, event: Event) -> None:
        from loopviz.train.trainer import Evaluated, Stepped

        with self._lock:
            if isinstance(event, Stepped):
                self.steps.append((event.step, event.loss, event.loops or 1))
            elif isinstance(event, Evaluated):
                self.measured.append((event.step, event.result.loops, event.result.loss))  # type: ignore[union-attr]
            else:
                self.settling.append((event.step, event.mean, event.last))

    def _rest(self) -> None:
        """Between two steps: while it is paused its place is another's; and let others go before."""
        if self.place is None:
            return
        gone = self._stop.is_set
        if self._paused.is_set():
            self.phase = "paused"
            for _ in self.place.step_aside(lambda: not self._paused.is_set(), gone):
                self.phase = "line"
        for _ in self.place.give_way(gone):
            self.phase = "line"
        self.phase = "training"

    def _ended(self, end: str, reason: str) -> None:
        gc.collect()  # a model's parts know each other: only so is its memory another's at once
        self.phase, self.end, self.reason = "over", end, reason
        with self._lock:
            self.finished.set()
            if self._forgotten:
                self._leave_nothing()
        if self.keeper is not None:
            self.keeper.settled(self)

    # --- keeping ----------------------------------------------------------------------------------------------------

    @property
    def keepable(self) -> bool:
        """Whether there is something to keep: at least one step was made, and it is there, or will be once it has ended."""
        return bool(self.steps) and (self.learned is not None or not self.finished.is_set())

    def begin_to_keep(self) -> bool:
        """It computes again, unless it was let go of meanwhile, or there is nothing to keep in the end."""
        with self._lock:
            if self._forgotten or self.learned is None:
                return False
            self._stop = threading.Event()
            self.finished.clear()
        self.phase = "keeping"
        return True

    def keep(self) -> None:
        """Measure what was learned, and write it as `loopviz teach` does; never raises."""
        reason = ""
        try:
            if self.kept is None and self.learned is not None:
                self.kept = self._measured(self.learned)
        except kinds() as error:
            reason = self._said(error, "keeping")
        finally:
            self._ended(self.end or "stopped", reason)

    def _measured(self, learned: TeachRecipe) -> dict[str, Any] | None:
        """What is kept; None where it was stopped. The copy of the model lives no longer than this."""
        session = self.prepared.again(learned)
        closing = session.closed(self._stop)
        return None if closing is None else self._written(session, closing)

    def _written(self, session: TeachSession, closing: Closing) -> dict[str, Any]:
        folder = self.prepared.folder / KEPT
        loops = session.keep(folder, closing, self.prepared.command)
        packed = self.prepared.folder / f"{KEPT}.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, f"{KEPT}/{path.relative_to(folder).as_posix()}")
            for path in sorted(self.logs.glob("*.csv")):
                archive.write(path, f"{KEPT}/run/{path.name}")
        at = closing.taught.loops.index(loops)
        return {
            "name": packed.name,
            "bytes": packed.stat().st_size,
            "loops": loops,
            "taught": closing.taught.perplexity[at],
            "naive": closing.naive.perplexity[at],
            "plain": closing.plain.perplexity[0],
        }

    @property
    def logs(self) -> Path:
        """Where its logs are."""
        from loopviz.train.teach_door import LOGS

        return self.prepared.folder / LOGS

    @property
    def file(self) -> Path | None:
        """What was kept, packed; None: nothing is."""
        return None if self.kept is None else self.prepared.folder / self.kept["name"]

    def forget(self) -> None:
        """Nobody will ask for it any more: its files go, as soon as its thread has let go of them."""
        with self._lock:
            self._forgotten = True
            if self.finished.is_set():
                self._leave_nothing()

    def _leave_nothing(self) -> None:
        shutil.rmtree(self.prepared.folder, ignore_errors=True)

    # --- what is told -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Everything there is."""
        recipe, progress = self.prepared.recipe, self.progress
        return {
            "kind": "snapshot",
            "run": self.id,
            "ticket": self.ticket,
            "model": short_name(self.base),
            "phase": self.phase,
            "step": len(self.steps),
            "steps": recipe.steps,
            "tokens": 0 if progress is None else progress.tokens,
            "seconds": 0.0 if progress is None else progress.seconds,
            "eta": self.left,
            "trained": self.trained,
            "seed": recipe.seed,
            "command": self.prepared.command,
            "end": self.end,
            "reason": self.reason,
            **self._pictures(),
            "kept": None if self.kept is None else self._told_of(self.kept),
        }

    def _pictures(self) -> dict[str, Any]:
        """The pictures, drawn anew where there is something new."""
        with self._lock:
            steps, measured, settling = list(self.steps), list(self.measured), list(self.settling)
        now = (self.lang, len(steps), len(measured), len(settling))
        if self._drawn[0] != now:
            lang, recipe = self.lang, self.prepared.recipe
            before = settling[0] if settling else None
            after = settling[-1] if len(settling) > 1 else None
            figures = {
                "loss": pictures.loss(lang, steps, measured, recipe.steps, recipe.loops.most),
                "by_loops": pictures.by_loops(lang, measured, recipe.loops.min, recipe.loops.most),
                "curves": pictures.curves(lang, before, after),
            }
            said = pictures.summaries(lang, steps, measured, before, after)
            self._drawn = (now, {"figures": figures, "summaries": said})
        return self._drawn[1]

    def _told_of(self, kept: dict[str, Any]) -> dict[str, Any]:
        values = {name: f"{kept[name]:.2f}" for name in ("taught", "naive", "plain")}
        said = text(self.lang, "teach.kept.said", loops=kept["loops"], **values)
        command = f"python -m loopviz run --model {short_name(self.base)} --adapter {KEPT} --prompt '...'"
        told = {name: kept[name] for name in ("name", "bytes", "loops")}
        return told | {"said": said, "command": command, "link": self._link()}

    def _link(self) -> str | None:
        """The word of a link to Compare: what was kept, beside the model without it."""
        if not self.linked:
            return None
        values = clean({**defaults(), "model": self.base}, self.lang)[0]
        return encode(PageState(values, self.prompt, beside=str(self.prepared.folder / KEPT)), lang=self.lang)[0]

    def look(self, lang: Any) -> dict[str, Any]:
        """Everything, in another language."""
        self.lang = pick_language(lang)
        return self.snapshot()


def messages(
    run: TeachRun,
    work: Callable[[], None],
    *,
    every: float = SEND_EVERY,
    ended: Callable[[], None] = lambda: None,
) -> Generator[str, None, None]:
    """A teaching's messages while `work` (of the run) is done in a thread of its own. Closing this generator stops it, and does not wait.

    Args:
        ended: called, by that thread, when nothing computes for it any more.
    """

    halt = run.halter()

    def whole() -> None:
        try:
            work()
        finally:
            ended()

    try:
        threading.Thread(target=whole, name="loopviz-teach", daemon=True).start()
    except BaseException:
        ended()
        raise
    try:
        yield wire(run.snapshot())
        while not run.finished.wait(every):
            yield wire(run.snapshot())
        yield wire(run.snapshot())
    finally:
        halt()
