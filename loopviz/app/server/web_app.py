"""One web app for all pages, made when they are served.

Gradio makes a FastAPI app of some ninety addresses whenever a page's `with` ends, and once more for the queue, though launching makes
the one that is served: with seven pages that was half of what putting them together cost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from gradio.routes import App

_not_yet: ContextVar[bool] = ContextVar("_not_yet", default=False)  # of one thread, that others may serve meanwhile


@contextmanager
def made_later() -> Iterator[None]:
    """Within it, in this thread, Gradio makes no web app: a Blocks' `app` is None until it is launched or mounted."""
    if not hasattr(App.create_app, "later"):
        App.create_app = staticmethod(_unless_later(App.create_app))
    before = _not_yet.set(True)
    try:
        yield
    finally:
        _not_yet.reset(before)


def _unless_later(make: Callable[..., App]) -> Callable[..., App | None]:
    @functools.wraps(make)
    def create_app(*args: Any, **kwargs: Any) -> App | None:
        return None if _not_yet.get() else make(*args, **kwargs)

    create_app.later = True  # type: ignore[attr-defined]
    return create_app
