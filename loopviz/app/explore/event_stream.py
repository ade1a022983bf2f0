"""A line of its own from a run to its page (server-sent events), and back for one word, beside Gradio's.

A yield of a Gradio event costs the server several times what making the message costs, and a slow model pays it for every
token. So Gradio carries a run's beginning and end, and this line what happens in between, as long as it stands. When it
does not (a proxy in the way, a closed tab), `Run.post` says so and the message goes Gradio's way.

The word is Stop: an event of Gradio's goes through its queue first, and meanwhile the model goes on. Gradio's event comes
as well, and ends the run on the page.

A run is found by its unguessable id, as in every other question of the page's script.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from loopviz.app.explore.run import Run, Runs
from loopviz.app.profile import LOCAL
from loopviz.app.server.assets import LINES as PREFIX

KEEP_ALIVE = 10.0  # seconds; also how late a closed tab is noticed when nothing is sent
_QUICK = 1  # zlib's level: measured on streams of 4 to 16 loops, 0.1 to 0.2 ms a token make a quarter to a third of it


class Line:
    """Messages on their way to one page. `send` may be called from any thread; the rest belongs to the event loop.

    Args:
        most: messages that wait for it; a page that reads slower than that is sent nothing more.
    """

    def __init__(self, most: int = LOCAL.line_messages) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[str | None] = asyncio.Queue()

    def send(self, text: str | None) -> bool:
        """Take a message, or None to hang up. False when the line is of no use: nothing was taken."""
        if self._waiting.qsize() >= self._most:
            return False
        try:
            self._loop.call_soon_threadsafe(self._waiting.put_nowait, text)
        except RuntimeError:  # the event loop has ended
            return False
        return True

    async def events(self, run: Run) -> AsyncIterator[str]:
        """The messages as server-sent events, until the run hangs up or the page goes."""
        try:
            run.attach(self.send)
            yield ": here\n\n"
            while True:
                try:
                    text = await asyncio.wait_for(self._waiting.get(), KEEP_ALIVE)
                except asyncio.TimeoutError:
                    yield ": still here\n\n"
                    continue
                if text is None:
                    return
                yield f"data: {text}\n\n"
        finally:
            run.detach(self.send)


def squeezer() -> Callable[[bytes], bytes]:
    """A gzip stream: each piece given comes out complete; an empty one ends it.

    A message repeats most of the paths and many of the words of those before it, and costs a fraction of its own size.
    """
    stream = zlib.compressobj(_QUICK, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return lambda piece: stream.compress(piece) + stream.flush(zlib.Z_SYNC_FLUSH if piece else zlib.Z_FINISH)


async def gzipped(events: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """The events as one gzip stream, each complete as it goes out."""
    squeeze = squeezer()
    async with aclosing(events):  # type: ignore[type-var]
        async for event in events:
            yield squeeze(event.encode())
    yield squeeze(b"")


def route(registry: Runs) -> Route:
    """The route of the lines to `registry`'s runs: GET listens, POST stops, HEAD (which comes with GET) does nothing."""

    async def listen(request: Request) -> Response:
        run = registry.get(request.path_params["run"])
        if run is None or run.finished.is_set():
            return Response(status_code=204)  # tells a browser not to ask again; a quick run may be over by now
        # buffered by a proxy, the text would come in jumps
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept-Encoding"}
        events: AsyncIterator[str] | AsyncIterator[bytes] = Line(registry.keeper.profile.line_messages).events(run)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"], events = "gzip", gzipped(events)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def answer(request: Request) -> Response:
        if request.method == "GET":
            return await listen(request)
        run = registry.get(request.path_params["run"])
        if request.method == "POST" and run is not None:
            run.stop.set()
        return Response(status_code=204)

    return Route(f"/{PREFIX}/{{run}}", answer, methods=["GET", "POST"])
