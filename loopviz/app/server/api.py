"""The tools of a server (:mod:`loopviz.app.sessions.tools`) for programs, three ways, each behind the same guard as the pages.

* `GET /loopviz-api`: what there is, with the JSON Schema of every argument. `POST /loopviz-api/<tool>`: the arguments as a JSON
  object; the answer is JSON too. A refusal is `{"error", "fields"}` with 422, or 503 where it may be done later.
* Gradio's own way, for `gradio_client`: an endpoint a tool, with the same name and arguments.
* MCP (:mod:`loopviz.app.server.mcp_tools`).

A call ends when whoever made it hangs up. Nothing is kept of it.
"""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args, get_origin, get_type_hints

import anyio
import gradio as gr
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive

from loopviz.app.profile import Profile
from loopviz.app.sessions.faults import kinds, unforeseen
from loopviz.app.sessions.tools import LANG, Calls, Tool, ToolRefused, fresh_session
from loopviz.app.texts import pick_language, text

ADDRESS = "/loopviz-api"
Lines = Callable[[str], None]  # takes each new line that says how far a call is
_QUIET = {"Cache-Control": "no-store"}


class Desk:
    """Where programs ask: finds the tool, sees to it that nobody has too many calls, ends those whose caller has gone.

    Args:
        tools: what there is.
        profile: how many calls are answered at a time.
    """

    def __init__(self, tools: Sequence[Tool], profile: Profile) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._calls = Calls(profile)
        self._threads = anyio.CapacityLimiter(profile.calls_at_once)
        self._lock = threading.Lock()
        self._by_caller: dict[str, set[tuple[str, str]]] = {}  # Gradio's sessions: tool and session of each call

    def find(self, name: str, lang: str) -> Tool:
        """The tool of a name; ToolRefused when there is none."""
        if name not in self.tools:
            raise ToolRefused(text(lang, "api.no_tool", name=name[:80], names=", ".join(self.tools)))
        return self.tools[name]

    def call(
        self, name: str, arguments: Any, address: str, session: str, said: Lines = lambda line: None
    ) -> dict[str, Any]:
        """What a tool answers; waits for it.

        Args:
            address: whose call it is.
            session: of the call, by which it can be ended.

        Raises:
            ToolRefused: in words, whatever went wrong.
        """
        lang = pick_language(arguments.get(LANG) if isinstance(arguments, Mapping) else None)
        tool = self.find(name, lang)
        if not isinstance(arguments, Mapping):
            raise ToolRefused(text(lang, "api.mapping"))
        with self._calls.taken(address, lang):
            work = tool.carry_out(arguments, session, address)
            try:
                while True:
                    said(next(work))
            except StopIteration as ended:
                answer: dict[str, Any] = ended.value
                return answer
            except ToolRefused:
                raise
            except kinds() as error:
                raise ToolRefused(unforeseen(error, lang, f"the tool {name}")) from None
            finally:
                work.close()

    async def answer(self, name: str, arguments: Any, address: str, said: Lines = lambda line: None) -> dict[str, Any]:
        """As :meth:`call`, in a thread of the desk's own; cancelled, it ends the call and waits for nothing."""
        session = fresh_session()
        try:
            return await anyio.to_thread.run_sync(
                partial(self.call, name, arguments, address, session, said),
                limiter=self._threads,
                abandon_on_cancel=True,
            )
        finally:
            if name in self.tools:
                self.tools[name].end(session)

    # --- by Gradio's sessions -------------------------------------------------------------------------------------

    def of_caller(self, caller: str, name: str, arguments: Mapping[str, Any], address: str) -> dict[str, Any]:
        """A call of a client of Gradio's: it ends when the client leaves (:meth:`leave`)."""
        session = fresh_session()
        with self._lock:
            self._by_caller.setdefault(caller, set()).add((name, session))
        try:
            return self.call(name, arguments, address, session)
        finally:
            with self._lock:
                ours = self._by_caller.get(caller, set())
                ours.discard((name, session))
                if not ours:
                    self._by_caller.pop(caller, None)

    def leave(self, caller: str) -> None:
        """A client of Gradio's has gone: its calls end."""
        with self._lock:
            gone = self._by_caller.pop(caller, set())
        for name, session in gone:
            self.tools[name].end(session)


# --- plain HTTP -------------------------------------------------------------------------------------------------------------


async def until_gone(receive: Receive) -> None:
    """Wait until whoever made a request has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Callable[[], Awaitable[Response]]) -> Response | None:
    """What an async function answers; cancelled, and None, when whoever asked has hung up."""
    found: list[Response] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await until_gone(request.receive)
            group.cancel_scope.cancel()

        group.start_soon(watch)
        found.append(await work())
        group.cancel_scope.cancel()
    return found[0] if found else None


def address_of(request: Any) -> str:
    """The address that a request, Starlette's or Gradio's, comes from; "" where it is not known."""
    return str(getattr(getattr(request, "client", None), "host", "") or "")


def _json(value: Any, status: int = 200) -> Response:
    content = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Response(content, status, media_type="application/json", headers=_QUIET)


def routes(desk: Desk) -> list[Route]:
    """The addresses for programs that speak plain HTTP."""

    async def index(request: Request) -> Response:
        return _json({"tools": [tool.described() for tool in desk.tools.values()]})

    async def call(request: Request) -> Response:
        arguments = orjson.loads(await request.body())  # the guard has read it
        name = str(request.path_params["tool"])

        async def work() -> Response:
            try:
                return _json(await desk.answer(name, arguments, address_of(request)))
            except ToolRefused as refused:
                return _refused(refused, 422 if name in desk.tools else 404)

        return await unless_gone(request, work) or Response(status_code=400)

    return [
        Route(ADDRESS, index, methods=["GET"]),
        Route(f"{ADDRESS}/{{tool}}", call, methods=["POST"]),
    ]


def _refused(refused: ToolRefused, status: int) -> Response:
    return _json({"error": str(refused), "fields": refused.fields}, 503 if refused.full else status)


# --- Gradio's own -----------------------------------------------------------------------------------------------------------


def offer(demo: gr.Blocks, desk: Desk) -> None:
    """An endpoint a tool, for `gradio_client`."""
    with demo:
        for tool in desk.tools.values():
            # who comes waits in a line of ours, and more than may are refused by name
            gr.api(_endpoint(desk, tool), api_name=tool.name, api_description=tool.words, concurrency_limit=None)

        def left(request: gr.Request) -> None:
            desk.leave(request.session_hash or "")

        demo.unload(left)


def _endpoint(desk: Desk, tool: Tool) -> Callable[..., dict[str, Any]]:
    """The tool as a function that Gradio reads: its parameters, and their types."""
    hints = get_type_hints(tool.parameters)
    names = [*hints]

    def call(*values: Any) -> dict[str, Any]:
        request, *given = values
        arguments = {name: value for name, value in zip(names, given, strict=True) if value is not None}
        try:
            return desk.of_caller(request.session_hash or "", tool.name, arguments, address_of(request))
        except ToolRefused as refused:
            raise gr.Error(str(refused), print_exception=False) from None

    plain = {name: _listed(hint) for name, hint in hints.items()}
    call.__name__, call.__doc__ = tool.name, tool.doc
    call.__annotations__ = {"request": gr.Request, **plain, "return": dict[str, Any]}
    parameters = [inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)]
    for thing in dataclasses.fields(tool.parameters):
        given = (
            {} if thing.default is dataclasses.MISSING else {"default": [] if thing.default == () else thing.default}
        )
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(thing.name, kind, annotation=plain[thing.name], **given))
    call.__signature__ = inspect.Signature(parameters, return_annotation=dict[str, Any])  # type: ignore[attr-defined]
    return call


def _listed(hint: Any) -> Any:
    """A type as Gradio knows it."""
    if get_origin(hint) is tuple:
        (inner, *_) = get_args(hint)
        return list[str] if inner is str else list[dict[str, Any]]
    return hint
