"""The models a server holds: loaded once, in the background, shared by every run.

Importing this module needs no torch: PyTorch and transformers are imported by the thread that loads the first model,
after the page can already be seen. A run makes its own `model.with_loop(**fields)` of a shared model.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loopviz.app.profile import LOCAL, Profile
from loopviz.app.texts import table, text

log = logging.getLogger(__name__)
# Models held beside the default, which always is; the least recently used goes first; one in use by a run lives until
# the run ends. Small ones cost nothing worth loading them again for.
KEEP = 2
SMALL = 64 * 2**20  # bytes of parameters
KEEP_SMALL = 16
MOST_WANTED = 8  # loads that wait for their turn; a page whose model is not among them asks again


class ModelRefused(ValueError):
    """A model that cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to run, with its tokenizer; `name` is what was asked for, `source` says where the weights came from."""

    name: str
    model: Any
    tokenizer: Any
    source: str = ""

    @property
    def layers(self) -> int:
        """Physical decoder layers, L."""
        return self.model.config.num_hidden_layers

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def small(self) -> bool:
        """Whether its parameters take less than `SMALL` bytes."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters()) < SMALL


@dataclass(frozen=True)
class Status:
    """Where a model is: `state` waiting, importing, loading, ready or failed.

    step: while loading, a stage of the loader; once failed, why. share: how much of the stage is done, 0 to 1, or None.
    """

    state: str
    name: str
    step: str = ""
    share: float | None = None
    layers: int = 0
    parameters: int = 0

    def tell(self, lang: str) -> str:
        """One line for the page."""
        key, step = f"model.{self.state}", self.step
        if self.state == "loading":
            step = table(lang).get(f"stage.{step}", step)
            step += "" if self.share is None else f" {self.share:.0%}"
        shown = {"name": short_name(self.name), "step": step, "reason": step}
        return text(lang, key, **shown, layers=self.layers, params=f"{self.parameters / 1e6:.3g}")


def short_name(name: str) -> str:
    """A model's name as shown: of a path on this machine, the last part only."""
    return Path(name).name if name.startswith(("/", ".", "~")) or "\\" in name else name


def _load(name: str, progress: Callable[[str, float | None], None], local: bool) -> Loaded:
    from loopviz.model.checkpoints import load_checkpoint

    found = load_checkpoint(os.path.expanduser(name), progress=progress, allow_paths=local)
    found.model.requires_grad_(False)
    return Loaded(name, found.model, found.tokenizer, found.source)


class ModelRoom:
    """The models of one server.

    Args:
        default: the model loaded at the start and offered first.
        profile: what visitors may do. Folders and files of this machine are theirs to name only where it says so; the
            default model always may be one.
        load: how to load a name; for tests.
    """

    def __init__(
        self,
        default: str,
        *,
        profile: Profile = LOCAL,
        load: Callable[[str, Callable[[str, float | None], None], bool], Loaded] = _load,
    ) -> None:
        self.default = default
        self.profile = profile
        self._load = load
        self._loading = threading.Lock()  # one at a time: two would need the memory of both
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Loaded] = OrderedDict()
        self._status: dict[str, Status] = {}
        self._wanted: set[str] = set()
        self._patience: threading.Timer | None = None

    @property
    def local(self) -> bool:
        """Whether visitors may name folders and files of this machine."""
        return self.profile.paths

    def warm_when_asked(self, latest: float) -> None:
        """Load the default model in the background once somebody asks how far it is, or after `latest` seconds.

        Importing PyTorch takes a core for some seconds. A page asks when it stands; until then the core is better spent
        on sending and drawing it.
        """
        self._patience = threading.Timer(latest, self._warm_now)
        self._patience.daemon = True
        self._patience.start()

    def _warm_now(self) -> None:
        with self._lock:
            timer, self._patience = self._patience, None
        if timer is not None:  # only the first who comes
            timer.cancel()
            self.warm()

    def warm(self) -> threading.Thread:
        """Start loading the default model in the background, and return at once."""
        self._status[self.default] = Status("importing", self.default)
        thread = threading.Thread(target=self._warm, name="loopviz-model", daemon=True)
        thread.start()
        return thread

    def _warm(self) -> None:
        try:
            self.get(self.default)
            # a million objects of PyTorch and Gradio that stay: looking through them for cycles takes a fifth of a second,
            # in which no token is made and nothing is sent
            gc.freeze()
        except ModelRefused:
            log.warning("%s", self.status(self.default).tell("en"))

    def ready(self, name: str) -> Loaded | None:
        """The model if it is loaded; never waits."""
        return self._held.get(name)

    def status(self, name: str) -> Status:
        """Where the model is now. Whoever asks is there to see it: what was to wait for that begins."""
        self._warm_now()
        return self._status.get(name, Status("waiting", name))

    def want(self, name: str, lang: str = "en", again: bool = False) -> Status:
        """Where the model is now; one that is not here begins to be loaded, in the background.

        Args:
            again: try once more what has failed.
        """
        self._warm_now()
        with self._lock:
            now = self._status.get(name, Status("waiting", name))
            asleep = now.state == "waiting" or (again and now.state == "failed")
            if not asleep or name in self._wanted or len(self._wanted) >= MOST_WANTED:
                return now
            self._wanted.add(name)
            if now.state == "failed":  # of the last try; this one has not
                now = self._status[name] = Status("waiting", name)

        def fetch() -> None:
            try:
                self.get(name, lang)
            except ModelRefused:
                pass  # the status says why
            finally:
                with self._lock:
                    self._wanted.discard(name)

        threading.Thread(target=fetch, name="loopviz-load", daemon=True).start()
        return now

    def get(self, name: str, lang: str = "en") -> Loaded:
        """The model, loaded first if need be (this waits).

        Raises:
            ModelRefused: the name is not allowed here, or the model cannot be loaded.
        """
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name]
        with self._loading:
            if name in self._held:
                return self._held[name]
            return self._fetch(name, lang)

    def _fetch(self, name: str, lang: str) -> Loaded:
        self._status[name] = Status("importing" if not self._held else "loading", name)

        def progress(stage: str, share: float | None) -> None:
            self._status[name] = replace(self._status[name], state="loading", step=stage, share=share)

        try:
            loaded = self._load(name, progress, self.local or name == self.default)
        except MemoryError:
            reason = text(lang, "refused.memory")
        except (ValueError, OSError) as error:
            reason = str(error)
        except Exception:
            reason = text(lang, "refused.unexpected", ref=hex(hash(name) & 0xFFFF))
            log.exception("loading %r", name)
        else:
            with self._lock:
                self._held[name] = loaded
                self._make_room()
                self._status[name] = Status("ready", name, layers=loaded.layers, parameters=loaded.parameters)
            return loaded
        self._status[name] = Status("failed", name, reason)
        for old in [n for n, s in self._status.items() if s.state == "failed"][:-32]:
            del self._status[old]
        raise ModelRefused(reason)

    def _make_room(self) -> None:
        """Let go of the models used least recently: of the small and of the large ones those beyond their number."""
        for small, most in ((True, KEEP_SMALL), (False, KEEP)):
            same = [name for name, held in self._held.items() if name != self.default and held.small is small]
            for gone in same[: max(0, len(same) - most)]:
                del self._held[gone]
                self._status.pop(gone, None)
