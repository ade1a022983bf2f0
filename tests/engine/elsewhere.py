"""An engine as of another process: every request and every answer is pickled on its way, and nothing else passes."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from loopviz.engine.engine import Engine, Handle, Request


def again(thing: Any) -> Any:
    """What arrives of it at the other end."""
    return pickle.loads(pickle.dumps(thing))


class Elsewhere:
    """An engine that stands for another, of which it knows what comes out of a pickle.

    Attributes:
        asked: what was asked of it, in order.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in ("name", "layers", "parameters", "n_bytes", *METHODS):
            raise AttributeError(f"{name}: an engine elsewhere has no such thing")
        found = getattr(self._engine, name)
        return self._asking(name, found) if name in METHODS else again(found)

    def _asking(self, name: str, method: Any) -> Any:
        def ask(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(name)
            args, kwargs = again((args, kwargs))
            try:
                return again(method(*args, **kwargs))
            except ValueError as error:
                raise again(error) from None

        return ask

    def start(self, request: Request, stop: threading.Event | None = None) -> Handle:
        self.asked.append("start")
        try:
            inner = self._engine.start(again(request))
        except ValueError as error:
            raise again(error) from None
        meta = again(inner.meta)

        def frames() -> Iterator[Any]:
            with closing(inner.frames):
                for frame in inner.frames:
                    meta["changes"][:] = again(inner.meta["changes"])
                    yield again(frame)
                    if stop is not None and stop.is_set():
                        inner.stop()

        return Handle(meta, frames(), self._asking("steer", inner.steer), inner.stop)

    def read_again(self, trace: Any) -> Any:
        self.asked.append("read_again")
        try:
            return _ReadElsewhere(self._engine.read_again(again(trace)))
        except ValueError as error:
            raise again(error) from None


class _ReadElsewhere:
    """A run read again, or a token of it, at the other end: methods and attributes alike, through a pickle."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return again(found)

        def ask(*args: Any) -> Any:
            try:
                if name == "read":  # whose stop is this end's
                    token = found(*args)
                    return None if token is None else _ReadElsewhere(token)
                return again(found(*again(args)))
            except ValueError as error:
                raise again(error) from None

        return ask


METHODS = ("describe", "check", "rate", "prompt_tokens", "tokens", "end_of", "unread_share", "parity_need", "parity")
