"""One web app for all pages, and one configuration of it, made when they are served.

Gradio makes a FastAPI app of some ninety addresses whenever a page's `with` ends, and once more for the queue, though launching makes
the one that is served: with seven pages that was half of what putting them together cost. At the end of each it also tells every
component's whole configuration anew, of all pages, and launching does so once more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from gradio import Blocks
from gradio.routes import App

_not_yet: ContextVar[bool] = ContextVar("_not_yet", default=False)  # of one thread, that others may serve meanwhile


@contextmanager
def made_later() -> Iterator[None]:
    """Within it, in this thread, Gradio makes no web app and no configuration: a Blocks' `app` is None, and its `config` empty, until it
    is launched or mounted."""
    if not hasattr(App.create_app, "later"):
        App.create_app = staticmethod(_unless_later(App.create_app, lambda: None))
        Blocks.get_config_file = _unless_later(Blocks.get_config_file, dict)
    before = _not_yet.set(True)
    try:
        yield
    finally:
        _not_yet.reset(before)


def _unless_later(make: Callable[..., Any], instead: Callable[[], Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        return instead() if _not_yet.get() else make(*args, **kwargs)

    made.later = True  # type: ignore[attr-defined]
    return made
