"""The models a server holds: loaded once, in the background, shared by every run.

What is held of each is its engine (:class:`loopviz.engine.engine.Engine`), and nothing here looks behind it. Importing this
module needs no torch: PyTorch and transformers are imported by the thread that loads the first model, after the page can
already be seen.
"""

from __future__ import annotations

import gc
import logging
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from loopviz.app.controls.controls import CLUSTER, SERVER
from loopviz.app.controls.examples import OFFERED, UNLISTED
from loopviz.app.controls.model_name import short_name
from loopviz.app.controls.refusal import told
from loopviz.app.profile import LOCAL, Profile
from loopviz.app.sessions.faults import noted
from loopviz.app.sessions.load_times import LoadTimes
from loopviz.app.sessions.model_status import Status, Words
from loopviz.app.sessions.model_variants import (
    COME_ALONG,
    HeldElsewhere,
    Key,
    Variant,
    is_of_precision,
    name_of,
    precision_of,
    timed,
)
from loopviz.app.sessions.private_paths import without_paths
from loopviz.app.texts import text
from loopviz.checks import RuleError
from loopviz.engine.address import engine_address
from loopviz.engine.engine import Engine, LoadLimits, Prepared
from loopviz.worker import WorkerEnded, ended_by

log = logging.getLogger(__name__)
LINGER = 1.8  # seconds that a page's look counts: it looks again in half of that while it is open
LOOK = 0.2  # seconds between two looks of who waits
TURN = 0.0005  # seconds that a thread has Python's lock while others wait for it, as long as PyTorch is imported
_USUAL_TURN = sys.getswitchinterval()
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(/[\w./-]+\.gguf)?", re.ASCII | re.IGNORECASE)


class ModelRefused(ValueError):
    """A model that cannot be had; the message says why and what to do.

    Attributes:
        field: the control it is about: "model", or "precision" where the model is to be had otherwise.
    """

    def __init__(self, said: str, field: str = "model") -> None:
        super().__init__(said)
        self.field = field


class GivenUp(Exception):
    """Nobody wants a model any more that is being loaded."""


@dataclass
class _Loading:
    """A model being loaded, and who wants it.

    `until`: when a page's look at it stops counting. `first`: of its process: PyTorch is waited for too. `usual`: seconds it took last.
    `key`: its name, or that with a precision that is not the server's. `like`: one held already, whose weights it has.
    """

    key: Key
    waiters: int = 0
    until: float = 0.0
    first: bool = False
    began: float = field(default_factory=time.monotonic)
    usual: float | None = None
    done: threading.Event = field(default_factory=threading.Event)
    loaded: Engine | None = None
    words: Words | None = None  # why it cannot be had; None with no model: it was given up
    field: str = "model"  # the control that is about
    like: Key | None = None

    @property
    def name(self) -> str:
        """Of the model."""
        return name_of(self.key)

    def unwanted(self) -> bool:
        """Whether nobody waits for it, and no page has looked lately."""
        return not self.waiters and time.monotonic() > self.until


@contextmanager
def _in_short_turns() -> Iterator[None]:
    """While PyTorch is imported: whoever answers pages takes Python's lock back sooner.

    To answer with a file takes several turns of it, a page takes dozens of files, and importing would keep it for 5 ms each time.
    """
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_TURN)


def _first() -> bool:
    """Whether a model that is loaded now is its process's first: PyTorch is waited for too."""
    return "torch" not in sys.modules


class ModelRoom:
    """The models of one server.

    Each is loaded in a thread of its own, so that none waits for another: those that visitors name take turns, and all see
    to it that memory holds what is being loaded together. What nobody wants any more is given up, its download included.

    A visitor may want one in another precision than the server's (`precision` of the methods; "": the server's): that is a model
    of its own here, one for all who want it so, and it is a visitor's even where the model is ours: it takes turns, is within the
    limits of the profile, and goes when it is needed least. The default model stays what it is for everybody else.

    Args:
        default: the model loaded at the start and offered first.
        profile: what visitors may do. Folders and files of this machine are theirs to name only where it says so; the
            default model always may be one.
        load: how to load a name (with what to tell of it, and whether it may be a path; and `precision`, where another than the
            server's is wanted); for tests.

    Attributes:
        when_let_go: called with each model that is held no longer, so that nobody holds it who does not compute with it. They
            wait for nothing, and ask nothing here.
    """

    def __init__(
        self,
        default: str,
        *,
        profile: Profile = LOCAL,
        load: Callable[..., Engine] | None = None,
    ) -> None:
        # What visitors call it is not where it lies on the machine, unless they may know.
        self.default = default if profile.paths else short_name(default)
        self._default_path = default
        self.profile = profile
        self._load = load
        self._lock = threading.Lock()
        self._held: OrderedDict[Key, Engine] = OrderedDict()  # the last is the one needed last
        self._like: dict[Key, Key] = {}  # of those held, whose weights they have
        self._loads: dict[Key, _Loading] = {}
        self._status: dict[Key, Status] = {}
        self._turns = threading.BoundedSemaphore(profile.model_loads)
        self._reserved: dict[Key, int] = {}  # bytes of memory that loads are about to take
        self._needed: dict[Key, float] = {}  # when each that is held was needed last
        self._patience: threading.Timer | None = None
        self._expected = False  # whether a page is on its way, whose visitor will ask
        self._resting: threading.Timer | None = None
        self.when_let_go: list[Callable[[Engine], None]] = []
        self._times = LoadTimes(profile.store)

    # --- what may be had ------------------------------------------------------------------------------------------

    def offered(self, name: str) -> bool:
        """Whether a model is ours, or the host's own choice: nobody is asked before it is loaded."""
        return name == self.default or name in OFFERED or name in UNLISTED

    def _ours(self, key: Key) -> bool:
        """Whether a model is offered, and in the server's own precision."""
        return not isinstance(key, Variant) and self.offered(key)

    def _key(self, name: str, precision: str) -> Key:
        """By what a model is held that is wanted in a precision."""
        if precision == "exact" and self.precision == "auto" and self._exactly(name):
            return name
        return Variant(name, precision) if precision not in ("", SERVER, self.precision) else name

    def _exactly(self, name: str) -> bool:
        """Whether `auto` holds a model exactly, as far as that is known."""
        held = self._held.get(name)
        return name in COME_ALONG or (held is not None and held.describe().dtype == "float32")

    @property
    def precision(self) -> str:
        """What models are held in where nobody chooses otherwise; "cluster" where they are a cluster's, whose host chose it."""
        return CLUSTER if self.profile.engine else self.profile.precision

    @property
    def names(self) -> list[str]:
        """The models that a page lists: the default first, then ours, then those that the host allows."""
        return [*dict.fromkeys([self.default, *OFFERED, *self.profile.named_models])]

    def refusal(self, name: str, offered: Sequence[str] | None = None) -> Words | None:
        """Why a model may not be had here, by its name alone; None for one that may be asked for.

        Args:
            offered: what is named as offered; None: what this room lists.
        """
        profile = self.profile
        if self.offered(name) or name in profile.named_models:
            return None
        names = ", ".join(self.names if offered is None else offered)
        hub = _HUB_NAME.fullmatch(name) is not None and ".." not in name
        if hub and not profile.any_model:
            return lambda lang: text(lang, "model.not_offered", names=names)
        if hub or profile.paths:
            return None
        key = "model.no_hub_id" if profile.any_model else "model.no_paths"
        return lambda lang: text(lang, key, names=names)

    def told(self, lang: str) -> str:
        """What is said under the field for a model's name: what may be named here."""
        profile = self.profile
        if profile.any_model:
            return text(lang, "model.info" if profile.paths else "model.info.hub")
        if profile.named_models:
            return text(lang, "model.info.named", names=", ".join(profile.named_models))
        return text(lang, "model.info.offered")

    @property
    def local(self) -> bool:
        """Whether visitors may name folders and files of this machine."""
        return self.profile.paths

    def warm_when_asked(self, latest: float) -> None:
        """Load the default model in the background once somebody asks how far it is, or after `latest` seconds.

        Importing PyTorch takes a core for some seconds: until a page is on its way (:meth:`expect`) nobody needs it.
        """
        with self._lock:
            self._patience = self._warm_after(latest)

    def expect(self, within: float) -> None:
        """A page has been sent, whose visitor will ask: what :meth:`warm_when_asked` waits for begins within so many seconds.

        By then its scripts are there, and while the browser draws, the server has nothing to do. The first page counts.
        """
        with self._lock:
            if self._patience is not None and not self._expected:
                self._expected = True
                self._patience.cancel()
                self._patience = self._warm_after(within)

    def _warm_after(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._warm_now)
        timer.daemon = True
        timer.start()
        return timer

    def _warm_now(self) -> None:
        with self._lock:
            timer, self._patience = self._patience, None
        if timer is not None:  # only the first who comes
            timer.cancel()
            self.warm()

    def warm(self) -> threading.Thread:
        """Start loading the default model in the background, and return at once."""
        began, usual = time.monotonic(), self._times.last(self.default, _first())
        self._status[self.default] = Status("importing", self.default, began=began, usual=usual)
        thread = threading.Thread(target=self._warm, name="loopviz-model", daemon=True)
        thread.start()
        return thread

    def _warm(self) -> None:
        try:
            with _in_short_turns():
                self.get(self.default)
            # a million objects of PyTorch and Gradio that stay: looking through them for cycles takes a fifth of a second,
            # in which no token is made and nothing is sent
            gc.freeze()
        except ModelRefused:
            log.warning("%s", self.status(self.default).tell("en"))

    def words(self, error: BaseException, lang: str = "en") -> str:
        """An error's words as visitors may read them: where they may name no paths, without the machine's."""
        return told(error, lang) if self.local else without_paths(told(error, lang))

    # --- loading --------------------------------------------------------------------------------------------------

    def ready(self, name: str, precision: str = "") -> Engine | None:
        """The model if it is loaded; never waits."""
        key = self._key(name, precision)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)  # somebody works with it
                self._needed[key] = time.monotonic()
            return self._held.get(key)

    def held(self) -> int:
        """How many models are held now."""
        with self._lock:
            return len(self._held)

    def holds(self, loaded: Engine) -> bool:
        """Whether a model is one of those held now; who asks works with it."""
        with self._lock:
            key = next((key for key, held in self._held.items() if held is loaded), None)
            if key is not None:
                self._held.move_to_end(key)
            return key is not None

    def seen(self, name: str) -> Status:
        """Where the model is now; nothing begins."""
        return self._now(name)

    def status(self, name: str, precision: str = "") -> Status:
        """Where the model is now. Whoever asks is there to see it: what was to wait for that begins."""
        self._warm_now()
        return self._now(self._key(name, precision))

    def _now(self, key: Key) -> Status:
        name, precision = name_of(key), precision_of(key)
        words = self.refusal(name)
        if words is not None:
            return Status("failed", name, words("en"), words=words)
        return self._status.get(key, Status("waiting", name, precision=precision))

    def want(
        self,
        name: str,
        lang: str = "en",
        again: bool = False,
        linked: bool = False,
        look: bool = False,
        precision: str = "",
    ) -> Status:
        """Where the model is now; one that is not here begins to be loaded, in the background.

        It is loaded for whoever asks as long as they go on asking: a page that was closed counts for `LINGER` seconds.

        Args:
            again: try once more what has failed.
            linked: a link named it: what is neither here nor offered is not fetched or opened until the visitor agrees.
            look: whoever asks does not want it (any more): nothing begins for them.
        """
        self._warm_now()
        key = self._key(name, precision)
        if self.refusal(name) is not None:
            return self._now(key)
        with self._lock:
            now, loading = self._now(key), self._loads.get(key)
            if look or key in self._held or (now.state == "failed" and not again):
                return now
            if linked and not self.offered(name):
                return Status("ask", name) if loading is None else now
            if loading is None:
                if len(self._loads) < self.profile.models_wanted:
                    self._begin(key)
                return Status("waiting", name, precision=precision_of(key))
            loading.until = max(loading.until, time.monotonic() + LINGER)
            return self._now(key)

    def get(self, name: str, lang: str = "en", gone: Callable[[], bool] = lambda: False, precision: str = "") -> Engine:
        """The model, loaded first if need be (this waits).

        Args:
            gone: once it says so, nobody waits here any more.

        Raises:
            ModelRefused: the name is not allowed here, the model cannot be loaded, or `gone()`.
        """
        words = self.refusal(name)
        if words is not None:
            raise ModelRefused(words(lang))
        key = self._key(name, precision)
        while True:
            with self._lock:
                if key in self._held:
                    self._held.move_to_end(key)
                    return self._held[key]
                loading = self._loads.get(key) or self._begin(key)
                loading.waiters += 1
            try:
                while not loading.done.wait(LOOK):
                    if gone():
                        raise ModelRefused(text(lang, "model.given_up", name=short_name(name)))
            finally:
                with self._lock:
                    loading.waiters -= 1
            if loading.loaded is not None:
                return loading.loaded
            if loading.words is not None:
                raise ModelRefused(loading.words(lang), loading.field)
            # given up just as we came: once more

    def _begin(self, key: Key) -> _Loading:
        """Load a model in a thread of its own. Called with the lock."""
        loading = self._loads[key] = _Loading(key, until=time.monotonic() + LINGER, first=_first())
        loading.usual = self._times.last(timed(key), loading.first)
        if key == self.default:
            loading.until = float("inf")
        state = "loading" if self._held else "importing"
        self._status[key] = self._told(loading, state, "resolve")
        threading.Thread(target=self._work, args=(loading,), name="loopviz-load", daemon=True).start()
        return loading

    @staticmethod
    def _told(loading: _Loading, state: str, *step: Any, **sizes: int) -> Status:
        """Where a model is that is being loaded, and what its weights are and take."""
        how: dict[str, Any] = {"began": loading.began, "usual": loading.usual, "precision": precision_of(loading.key)}
        return Status(state, loading.name, *step, **(how | sizes))

    def _work(self, loading: _Loading) -> None:
        """A load's thread: whatever happens ends as a model, as words, or as given up."""
        key, status = loading.key, None
        how: dict[str, Any] = {"precision": precision_of(key)}
        try:
            with self._turn(loading):
                loaded = self._fetch(loading)
            status = Status("ready", loading.name, layers=loaded.layers, parameters=loaded.parameters, **how)
        except BaseException as error:  # panics of native code are no Exception
            loading.words = self._why(loading.name, error)
            loading.field = self._blamed(loading, error)
        if status is not None and self.offered(loading.name) and loading.like is None:
            self._times.took(timed(key), loading.first, time.monotonic() - loading.began)
        with self._lock:
            if status is not None:
                loading.loaded = self._held[key] = loaded
                self._needed[key] = time.monotonic()
                if loading.like is not None:
                    self._like[key] = loading.like
                self._let_go(self.profile.model_bytes, keep=key)
                self._look_later()
            elif loading.words is not None:
                how["field"] = loading.field
                status = Status("failed", loading.name, loading.words("en"), words=loading.words, **how)
            self._status.pop(key, None)
            if status is not None:
                self._status[key] = status
            for old in [n for n, s in self._status.items() if s.state == "failed"][:-32]:
                del self._status[old]
            del self._loads[key]
        loading.done.set()

    def _blamed(self, loading: _Loading, error: BaseException) -> str:
        """The control that is about: the precision where that was chosen, and is what failed."""
        chosen = isinstance(loading.key, Variant)
        return "precision" if chosen and (is_of_precision(error) or loading.name in self._held) else "model"

    def _fetch(self, loading: _Loading) -> Engine:
        name = loading.name
        local = self.profile.paths or name == self.default
        path = self._default_path if name == self.default else name

        sizes: dict[str, int] = {}

        def progress(stage: str, share: float | None) -> None:
            if loading.unwanted():
                raise GivenUp
            self._status[loading.key] = self._told(loading, "loading", stage, share, **sizes)

        chosen = precision_of(loading.key)
        if self._load is not None:
            return self._load(path, progress, local, **({"precision": chosen} if chosen else {}))
        if (address := engine_address(self.profile.engine)) is not None:
            if chosen:
                raise HeldElsewhere(chosen)
            from loopviz.engine.ray_engine import remote_engine

            return remote_engine(path, address)
        from loopviz.engine.lent_card import declared
        from loopviz.engine.local import prepare

        with ended_by(loading.unwanted):
            prepared = prepare(
                name,
                path,
                self._load_limits(),
                bounded=not self._ours(loading.key),
                apart=path not in OFFERED and path not in UNLISTED,
                allow_paths=local,
                progress=progress,
                unwanted=loading.unwanted,
                precision=chosen or self.profile.precision,
                chosen=bool(chosen),
                device=self.profile.device,
                card=declared(),
            )
            if (found := self._same(prepared, loading)) is not None:
                return found
            need = prepared.need
            sizes = {"need": need, "weights": prepared.n_weights, "stored": prepared.n_bytes}
            progress("weights", None)  # said before a byte of them is read: it may have to wait for that memory
            with self._memory(need, loading):
                loaded = prepared.load()
        loaded.rate()  # measured now, and not when somebody waits
        return loaded

    def _same(self, prepared: Prepared, loading: _Loading) -> Engine | None:
        """The model with the weights of one that is held, where that is what it would be; None: they are to be read."""
        with self._lock:
            held = {key: one for key, one in self._held.items() if name_of(key) == loading.name}
        for key, one in held.items():
            if (found := prepared.same(one)) is not None:
                loading.like = key
                return found
        return None

    def _load_limits(self) -> LoadLimits:
        """What a stranger's model may be here."""
        profile = self.profile
        return LoadLimits(
            layers=profile.layers,
            vocabulary=profile.vocabulary,
            weight_bytes=profile.one_model_bytes,
            download_bytes=profile.download_bytes,
            tokenizer_seconds=profile.tokenizer_seconds,
            tokenizer_bytes=profile.tokenizer_bytes,
        )

    @contextmanager
    def _turn(self, loading: _Loading) -> Iterator[None]:
        """Models that visitors name are loaded a few at a time; ours wait for nobody."""
        if self._ours(loading.key):
            yield
            return
        while not self._turns.acquire(timeout=LOOK):
            if loading.unwanted():
                raise GivenUp
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _memory(self, need: int, loading: _Loading) -> Iterator[None]:
        """Wait until memory holds `need` bytes beside what others are loading; other models make room first.

        Those that are offered do not wait: what others are loading has been counted before, and may be in memory by now.
        """
        from loopviz.engine.local import free_memory

        while True:
            with self._lock:
                taken = sum(self._reserved.values())
                while need > free_memory() and self._let_go_one(keep=loading.key):
                    gc.collect()
                alone = not taken or self._ours(loading.key)
                if alone or need + taken <= free_memory():
                    self._reserved[loading.key] = need
                    break
            if loading.unwanted():
                raise GivenUp
            time.sleep(LOOK)
        try:
            yield
        finally:
            with self._lock:
                del self._reserved[loading.key]

    def _why(self, name: str, error: BaseException) -> Words | None:
        """What a visitor is told of an error; None of a load that was given up."""
        if isinstance(error, GivenUp) or (isinstance(error, WorkerEnded) and error.why == "over"):
            return None
        code, values = getattr(error, "code", None), getattr(error, "values", None)
        if isinstance(error, MemoryError):
            return lambda lang: text(lang, "refused.memory")
        if isinstance(values, dict):  # CheckpointTooLarge
            return lambda lang: text(lang, f"limit.{code}", name=short_name(name), **values)
        if isinstance(error, RuleError):
            bare = error.with_traceback(None)  # the words are kept, what was loaded is not
            return lambda lang: self.words(bare, lang)
        if isinstance(error, (ValueError, OSError)):
            said = self.words(error)
            return lambda lang: said
        ref = noted(error, f"loading {name!r}")
        return lambda lang: text(lang, "refused.unexpected", ref=ref)

    # --- letting go -----------------------------------------------------------------------------------------------

    def _let_go(self, most: int, keep: Key) -> None:
        """Hold no more than so many bytes beside the default model: what is needed least goes first."""
        while sum(held.n_bytes for key, held in self._held.items() if self._counts(key)) > most:
            if not self._let_go_one(keep):
                return

    def _counts(self, key: Key) -> bool:
        """Whether a model's bytes are its own: not the default's, nor those of another that is held."""
        return key != self.default and self._like.get(key) not in self._held

    def _let_go_one(self, keep: Key) -> bool:
        """Let go of the model that was needed least lately; never the default, nor `keep`. One in use by a run lives on."""
        gone = next((key for key in self._held if key not in (self.default, keep)), None)
        if gone is None:
            return False
        self._drop(gone)
        return True

    def _drop(self, key: Key) -> None:
        loaded = self._held.pop(key)
        self._status.pop(key, None)
        self._needed.pop(key, None)
        self._like.pop(key, None)
        for tell in self.when_let_go:
            tell(loaded)

    def _look_later(self) -> None:
        """Look for idle models after a while, as long as there is one that may become idle. Called with the lock."""
        idle = self.profile.model_seconds
        if idle is not None and self._resting is None and any(key != self.default for key in self._held):
            self._resting = threading.Timer(idle / 4, self._let_idle_go)
            self._resting.daemon = True
            self._resting.start()

    def _let_idle_go(self) -> None:
        """Let go of models that nobody has needed for as long as one may be held so; one in use by a run lives on."""
        idle = self.profile.model_seconds
        with self._lock:
            self._resting = None
            until = time.monotonic() - (idle or 0)
            for key in [key for key, needed in self._needed.items() if needed <= until and key != self.default]:
                self._drop(key)
            self._look_later()
