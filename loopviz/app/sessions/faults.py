"""Errors that nobody foresaw: told to the visitor in words with a reference, kept in the log with the stack.

Every handler of a page's event, every answer to its script and every route ends in these, so that no stack and no path
leaves the server. Importing this needs neither Gradio nor torch.
"""

from __future__ import annotations

import functools
import inspect
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from loopviz.app.texts import pick_language, text

if TYPE_CHECKING:
    import gradio as gr

log = logging.getLogger(__name__)


def kinds() -> tuple[type[BaseException], ...]:
    """Every kind of error that is told and survived (`except kinds() as error`).

    A panic of native code (a tokenizer's) is none of Python's Exceptions; each library has a class of its own for it.
    """
    panics = (kind for kind in BaseException.__subclasses__() if kind.__name__ == "PanicException")
    return (Exception, *panics)


def noted(error: BaseException, what: str) -> str:
    """The reference under which the log has an error in `what`, with its stack."""
    ref = secrets.token_hex(4)
    log.error("%s failed, reference %s", what, ref, exc_info=error)
    return ref


def unforeseen(error: BaseException, lang: str, what: str) -> str:
    """What a visitor is told of an error in `what`; the log has it whole, under its reference."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return text(lang, "refused.memory")
    return text(lang, "refused.unexpected", ref=noted(error, what))


def guarded(
    event: Callable[..., Any], spoken: Callable[[Mapping[str, Any]], Any] = lambda named: named.get("lang")
) -> Callable[..., Any]:
    """A handler of a Gradio event whose unforeseen errors become words on the page.

    Args:
        spoken: finds the page's language among what the handler is given, by its parameters' names.
    """
    names = inspect.signature(event)

    def told(error: BaseException, args: tuple[Any, ...], more: dict[str, Any]) -> gr.Error:
        import gradio as gr

        lang = pick_language(spoken(names.bind_partial(*args, **more).arguments))
        return gr.Error(unforeseen(error, lang, event.__qualname__), print_exception=False)

    if inspect.isgeneratorfunction(event):

        @functools.wraps(event)
        def steps(*args: Any, **more: Any) -> Iterator[Any]:
            try:
                yield from event(*args, **more)
            except kinds() as error:
                raise told(error, args, more) from None

        return steps

    @functools.wraps(event)
    def whole(*args: Any, **more: Any) -> Any:
        try:
            return event(*args, **more)
        except kinds() as error:
            raise told(error, args, more) from None

    return whole
