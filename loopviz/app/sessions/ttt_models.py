"""The TTT models of a server: held as those that loop are, in a room of their own, for their engine is another one; and both
rooms as one, for pages that take models of either kind."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from loopviz.app.controls.examples import UNLISTED
from loopviz.app.profile import Profile
from loopviz.app.sessions.model_status import Status, Words
from loopviz.app.sessions.model_variants import LearnsExactly, precision_of
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.engine.engine import TTTDescription
from loopviz.paths import model_type_of

if TYPE_CHECKING:
    from loopviz.engine.engine import Engine

DEFAULT = "stories-ttt"


def _load(name: str, progress: Callable[[str, float | None], None], allow_paths: bool) -> Engine:
    from loopviz.engine.ttt_local import load_ttt

    return cast(Any, load_ttt(name, progress, allow_paths))  # a room holds what has a name, layers and bytes


class TTTRoom(ModelRoom):
    """The models of the TTT page. A looped one may be named, and is refused by its loader, which says what it is.

    They are held in float32, whatever the server holds others in, and wherever: another precision is refused of them.
    """

    @property
    def precision(self) -> str:
        """What they are held in."""
        return "exact"

    def _fetch(self, loading: Any) -> Engine:
        if chosen := precision_of(loading.key):
            raise LearnsExactly(chosen)
        return super()._fetch(loading)

    @property
    def names(self) -> list[str]:
        """The models that the page lists."""
        return [self.default]


_ROOMS: weakref.WeakKeyDictionary[ModelRoom, TTTRoom] = weakref.WeakKeyDictionary()


def ttt_room(beside: ModelRoom, load: Any = None) -> ModelRoom:
    """The room in which TTT models are loaded and held; as the server whose models are `beside` allows; `load`: for tests.

    It is one for all pages of a server.
    """
    if load is not None:
        return TTTRoom(DEFAULT, profile=beside.profile, load=load)
    return _ROOMS.setdefault(beside, TTTRoom(DEFAULT, profile=beside.profile, load=_load))


class EitherRoom(ModelRoom):
    """The models of both rooms of a server: each is looked for, loaded and held where its kind is.

    Args:
        looped: the room of models that loop.
        ttt: that of TTT models.
    """

    def __init__(self, looped: ModelRoom, ttt: ModelRoom) -> None:
        self.looped, self.ttt = looped, ttt
        super().__init__(looped.default, profile=looped.profile)

    @property
    def profile(self) -> Profile:
        """What visitors may do: as in the rooms it is made of."""
        return self.looped.profile

    @profile.setter
    def profile(self, profile: Profile) -> None:
        self.looped.profile = self.ttt.profile = profile

    def _of(self, name: str) -> ModelRoom:
        learns = self.ttt.ready(name) is not None or model_type_of(name, allow_paths=self.local) == "ttt"
        return self.ttt if learns else self.looped

    @property
    def names(self) -> list[str]:
        """The models that a page lists."""
        return [*dict.fromkeys([*self.looped.names, *self.ttt.names, *UNLISTED])]

    def offered(self, name: str) -> bool:
        """As of its room."""
        return self._of(name).offered(name)

    def refusal(self, name: str, offered: Sequence[str] | None = None) -> Words | None:
        """As of its room, with the models of both as what is offered."""
        return self._of(name).refusal(name, self.names if offered is None else offered)

    def _refused(self, name: str) -> Status | None:
        """Where a model is that may not be had here."""
        words = self.refusal(name)
        return None if words is None else Status("failed", name, words("en"), words=words)

    def seen(self, name: str) -> Status:
        """As of its room."""
        return self._refused(name) or self._of(name).seen(name)

    def ready(self, name: str, precision: str = "") -> Engine | None:
        """As of its room."""
        return self._of(name).ready(name, precision)

    def holds(self, loaded: Engine) -> bool:
        """Whether a model is one of those held now."""
        return self.looped.holds(loaded) or self.ttt.holds(loaded)

    def status(self, name: str, precision: str = "") -> Status:
        """As of its room."""
        return self._refused(name) or self._of(name).status(name, precision)

    def want(
        self,
        name: str,
        lang: str = "en",
        again: bool = False,
        linked: bool = False,
        look: bool = False,
        precision: str = "",
    ) -> Status:
        """As of its room."""
        return self._refused(name) or self._of(name).want(name, lang, again, linked, look, precision)

    def get(self, name: str, lang: str = "en", gone: Callable[[], bool] = lambda: False, precision: str = "") -> Engine:
        """As of its room."""
        if (words := self.refusal(name)) is not None:
            raise ModelRefused(words(lang))
        return self._of(name).get(name, lang, gone, precision)


def either_room(room: ModelRoom) -> EitherRoom:
    """Both rooms of the server whose models that loop are in `room`."""
    return EitherRoom(room, ttt_room(room))


def learns(loaded: Engine) -> bool:
    """Whether a model of :class:`EitherRoom` is a TTT model: then it has the methods of a `TTTEngine` alone."""
    return isinstance(loaded.describe(), TTTDescription)
