"""The TTT models of a server: held as those that loop are, in a room of their own, for their engine is another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from loopviz.app.sessions.models import ModelRoom

if TYPE_CHECKING:
    from loopviz.engine.engine import Engine

DEFAULT = "stories-ttt"


def _load(name: str, progress: Callable[[str, float | None], None], allow_paths: bool) -> Engine:
    from loopviz.engine.ttt_local import load_ttt

    return cast(Any, load_ttt(name, progress, allow_paths))  # a room holds what has a name, layers and bytes


class TTTRoom(ModelRoom):
    """The models of the TTT page. A looped one may be named, and is refused by its loader, which says what it is."""

    @property
    def names(self) -> list[str]:
        """The models that the page lists."""
        return [self.default]


def ttt_room(beside: ModelRoom, load: Any = None) -> ModelRoom:
    """The room in which TTT models are loaded and held; as the server whose models are `beside` allows; `load`: for tests."""
    return TTTRoom(DEFAULT, profile=beside.profile, load=load or _load)
