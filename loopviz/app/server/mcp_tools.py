"""The tools of a server for language models' programs, by MCP (streamable HTTP, one request a call, nothing remembered).

The SDK speaks the protocol; a call goes to the desk that all programs ask (:mod:`loopviz.app.server.api`). Gradio's own MCP server is not
used: it asks its app by one client for everybody, so that all visitors would be one, and no call could be ended.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import anyio
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from loopviz.app.server.api import Desk, address_of
from loopviz.app.sessions.tools import ToolRefused
from loopviz.version import version

ADDRESS = "/loopviz-mcp"
_WORDS = (
    "LoopViz runs looped language models and records every loop of every token. Begin with `run` and trace='none': its summary and "
    "tokens are short. A whole Trace is large; ask for it as a file, or by plain HTTP."
)


def server(desk: Desk) -> Server[Any, Any]:
    """The desk's tools as an MCP server."""
    made: Server[Any, Any] = Server("LoopViz", version(), _WORDS)

    @made.list_tools()
    async def tools() -> list[types.Tool]:
        return [
            types.Tool(
                name=tool.name,
                description=tool.words,
                inputSchema=_for_models(tool.schema()),
                outputSchema=tool.answer_schema(),
            )
            for tool in desk.tools.values()
        ]

    # the arguments are read where everybody's are: refused by name, in words
    @made.call_tool(validate_input=False)
    async def call(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        context = made.request_context
        progress = context.meta.progressToken if context.meta else None
        send, lines = anyio.create_memory_object_stream[str](16)
        given = {"trace": "none", **arguments} if _takes_trace(desk, name) else arguments
        answer: dict[str, Any] = {}
        refused: list[ToolRefused] = []

        def said(line: str) -> None:
            if progress is not None:
                anyio.from_thread.run_sync(_put, send, line)

        async def work() -> None:
            try:
                answer.update(await desk.answer(name, given, address_of(context.request), said))
            except ToolRefused as error:
                refused.append(error)
            finally:
                send.close()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            step = 0
            async for line in lines:
                step += 1
                told = context.session.send_progress_notification
                await told(progress, step, message=line, related_request_id=str(context.request_id))  # type: ignore[arg-type]
        if refused:
            return types.CallToolResult(content=[types.TextContent(type="text", text=str(refused[0]))], isError=True)
        words = json.dumps(answer, ensure_ascii=False, default=float)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=words)], structuredContent=json.loads(words)
        )

    return made


def _put(send: Any, line: str) -> None:
    with contextlib.suppress(anyio.WouldBlock):  # lines that nobody has read yet are worth more than the next
        send.send_nowait(line)


def _takes_trace(desk: Desk, name: str) -> bool:
    tool = desk.tools.get(name)
    return tool is not None and "trace" in tool.schema()["properties"]


def _for_models(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's schema where the answer is read by a language model: a whole Trace comes only when it is asked for."""
    properties = dict(schema["properties"])
    if "trace" in properties:
        properties["trace"] = {**properties["trace"], "default": "none"}
    return {**schema, "properties": properties}


class Endpoint:
    """The address itself, as an ASGI app."""

    def __init__(self, desk: Desk) -> None:
        self._server = server(desk)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, with a manager of its own: when its caller hangs up, what it asked for is cancelled with it."""
        manager = StreamableHTTPSessionManager(self._server, stateless=True)
        gone = anyio.Event()

        async def watched() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                gone.set()
            return message

        async with manager.run(), anyio.create_task_group() as group:

            async def watch() -> None:
                await gone.wait()
                group.cancel_scope.cancel()

            group.start_soon(watch)
            await manager.handle_request(scope, watched, send)
            group.cancel_scope.cancel()


def routes(desk: Desk) -> list[Route]:
    """The address for MCP clients."""
    return [Route(ADDRESS, Endpoint(desk), methods=["POST"])]
