"""What the web server does besides Gradio: our scripts, Plotly and the recorded run, compressed once, cacheable for ever.

One version of Plotly.js everywhere (:mod:`loopviz.figures.plotlyjs`). Nothing is fetched from anywhere else.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import posixpath
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loopviz.app.contract import FILES, QUERIES, STORED
from loopviz.app.profile import LOCAL, Profile
from loopviz.app.server import document as look
from loopviz.app.server import footer, link_preview, security_headers, source_code
from loopviz.app.server.request_guard import Door, Known, Rules
from loopviz.app.texts import LANGUAGES
from loopviz.figures import plotlyjs
from loopviz.paths import ASSETS, WEB

if TYPE_CHECKING:
    import gradio as gr

PREFIX = "loopviz-assets"
MATH = "math.woff2"  # of formulas; fetched when one is shown
HEALTH = "/loopviz-health"
SERVER = secrets.token_hex(8)  # of this process alone: an open page knows by it that its server was started anew
LINES = "loopviz-run"  # where a run's own line is (see loopviz.app.explore.event_stream)
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
_FILES = {link_preview.IMAGE: ASSETS / link_preview.IMAGE, MATH: ASSETS / "fonts" / MATH}
_SCRIPTS: dict[str, Path] = {path.relative_to(WEB).as_posix(): path for path in sorted(WEB.rglob("*.js"))}
_WHOLE = "plotly-whole.js"
_PLOTLY: dict[str, Callable[[], bytes]] = {"plotly.js": plotlyjs.small, _WHOLE: plotlyjs.whole}
_OPENINGS = {f"opening.{lang}.json": lang for lang in LANGUAGES}  # what the first page opens with
# by name: what is made when it is first asked for (`offer`)
_MADE: dict[str, Callable[[], bytes | None]] = {}
_MARKS: dict[str, Callable[[], str | None]] = {}  # of some of these, what tells the fingerprint without making it


def offer(
    made: Mapping[str, Callable[[], bytes | None]], marks: Mapping[str, Callable[[], str | None]] | None = None
) -> None:
    """Have more served: by name, what makes it when it is first asked for. This package knows no page; pages hand it in.

    Args:
        made: each gives the bytes of a file of that name, or None when there is no such thing after all.
        marks: by name, what gives the fingerprint of one that takes long to make, and whose address is told before anybody asks for it;
            None when there is no such thing.
    """
    _MADE.update(made)
    _MARKS.update(marks or {})
    for known in (_raw, _packed, _mark, early_tags):
        known.cache_clear()


# A line of comment, or several; what stands behind code, and a type in the middle of it, stays.
_COMMENT = re.compile(r"^[ \t]*(?://.*|/\*\*(?:[^*]|\*(?!/))*\*/[ \t]*)$", re.M)


def _sent(script: str) -> bytes:
    """A script as browsers get it: without its comments, which would be a quarter of the bytes; every line keeps its number."""
    return _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), script).encode()


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@functools.cache
def _scripts_mark() -> str:
    """Of all our scripts together: they import each other by relative addresses, which keep it."""
    return _fingerprint(b"".join(path.read_bytes() for path in _SCRIPTS.values()))


@functools.cache
def _raw(name: str) -> bytes | None:
    """The asset as it is; None when there is no such asset."""
    if name in _FILES:
        return _FILES[name].read_bytes()
    if name in _SCRIPTS:
        return _sent(_SCRIPTS[name].read_text(encoding="utf-8"))
    if name in _PLOTLY:
        return _PLOTLY[name]()
    return _MADE[name]() if name in _MADE else None


@functools.cache
def _packed(name: str) -> bytes | None:
    """The asset compressed, which is done when a browser asks for it; None when there is no such asset."""
    raw = _raw(name)
    return None if raw is None else gzip.compress(raw, 6, mtime=0)


@functools.cache
def _mark(name: str) -> str | None:
    """The asset's fingerprint; None when there is no such asset.

    Addresses are told before the server answers anybody: for them neither the whole Plotly is read, which hardly a page needs, nor made
    what takes long.
    """
    if name in _SCRIPTS:
        return _scripts_mark()
    if name == _WHOLE:
        return _fingerprint(plotlyjs.whole_release().encode())
    if name in _MADE and name in _MARKS:
        return _MARKS[name]()
    raw = _raw(name)
    return None if raw is None else _fingerprint(raw)


def _is_asset(name: str) -> bool:
    return name in _FILES or name in _SCRIPTS or name in _PLOTLY or name in _MADE


def asset_url(name: str) -> str:
    """Where the page finds an asset, relative to its own address; a changed file has another address.

    KeyError when there is no such asset.
    """
    mark = _mark(name)
    if mark is None:
        raise KeyError(name)
    return f"{PREFIX}/{mark}/{name}"


def opening_urls() -> dict[str, str]:
    """Where the page finds the run it opens with, by language; empty when there is none."""
    return {lang: asset_url(name) for name, lang in _OPENINGS.items() if _mark(name) is not None}


async def _asset(request: Request) -> Response:
    name, packed = request.path_params["name"], "gzip" in request.headers.get("accept-encoding", "")
    if not _is_asset(name):  # answers are remembered for ever: none to a name that a visitor made up
        return Response("not found", status_code=404)
    found = lambda: (_mark(name), _packed(name) if packed else _raw(name))  # noqa: E731
    # what takes longer to make, or to compress, keeps nobody else waiting
    mark, content = found() if name in _SCRIPTS else await run_in_threadpool(found)
    if mark is None or content is None:
        return Response("not found", status_code=404)
    headers = {"X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding", "ETag": f'"{mark}"'}
    # an address with an old fingerprint gets today's file, but may not be kept
    fresh = request.path_params["mark"] == mark
    headers["Cache-Control"] = "public, max-age=31536000, immutable" if fresh else "no-cache"
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)


def routes(runs: link_preview.StoredRuns | None = None) -> list[Route]:
    """The routes to add to Gradio's application (`app_kwargs={"routes": routes()}`); `runs`: that the server keeps."""
    files = Route(f"/{PREFIX}/{{mark}}/{{name:path}}", _asset, methods=["GET", "HEAD"])
    return [files, source_code.route(), link_preview.Cards(lambda: asset_url(link_preview.IMAGE), runs).route()]


# Of a page, by its address: our style sheets, in the order in which they count.
STYLES = {
    "": ("base", "learn", "explore", "hero", "arrows", "panels", "present"),
    "learn": ("base", "learn", "forms", "lessons", "arrows"),
    "anatomy": ("base", "learn", "forms", "words", "anatomy"),
    "ttt": ("base", "learn", "forms", "words", "ttt"),
    "compare": ("base", "learn", "forms", "compare"),
    "lab": ("base", "learn", "forms", "lab"),
    "teach": ("base", "learn", "forms", "teach"),
}


@functools.cache
def css(page: str | None = None) -> str:
    """A page's style sheets as one; without `page`, those of all pages."""
    names = dict.fromkeys(name for sheets in STYLES.values() for name in sheets) if page is None else STYLES[page]
    return "".join((WEB / "styles" / f"{name}.css").read_text(encoding="utf-8") for name in names)


_IN_SCRIPTS = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&'"})


@functools.cache
def _written_css(page: str | None = None) -> str:
    """:func:`css` as Gradio writes it into a document."""
    return json.dumps(css(page), ensure_ascii=False).translate(_IN_SCRIPTS)


def styled(document: str, page: str) -> str:
    """The document with the style sheets of its own page alone: Gradio has one for all pages."""
    return document.replace(_written_css(), _written_css(page), 1) if page in STYLES else document


_MEDIA = re.compile(r"(@media[^{]*\{)((?:[^{}]*\{[^{}]*\})*)\s*\}")


def early_css() -> str:
    """The style sheet for what is drawn outside Gradio's element, where its own copy of the sheet applies only in part.

    Gradio repeats every rule as it stands, later in the document, but those for some widths only under its element. Here
    these count for more, so that they hold outside of it as well.
    """
    return _MEDIA.sub(r"\1 :root:root { \2 } }", css(""))


PATIENCE = 4_000  # ms after which Gradio's script is let go whatever has been drawn
_GRADIO = re.compile(r'<script type="module" crossorigin src="(\./assets/index-[\w-]+\.js)"></script>')
# What the page opens with is asked for, and drawn, before Gradio's own scripts have built anything. The language is
# guessed as the server will pick it. The reference to our Plotly is kept: Gradio brings another.
_OPEN_EARLY = """<script>(() => {
  let lang = new URLSearchParams(location.search).get("%(query)s");
  try { lang ??= sessionStorage.getItem("%(stored)s") ?? localStorage.getItem("%(stored)s"); } catch {}
  const urls = %(openings)s;
  if (!(lang in urls)) lang = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  window.loopvizPlaces = %(places)s;
  window.loopvizOpening = fetch(new URL(urls[lang], location.href)).then((r) => (r.ok ? r.json() : null), () => null);
  window.loopvizPlotly = new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, { src: new URL(window.loopvizPlaces.plotly, location.href), onerror: () => reject(new Error("plotly")) });
    script.onload = () => resolve(window.Plotly);
    document.head.append(script);
  });
  window.loopvizPlotly.catch(() => null);
  window.loopvizLater = () => {
    // what Gradio needs first is there once the document has been read (core/gradio_functions.js)
    if (document.readyState === "loading") return document.addEventListener("DOMContentLoaded", window.loopvizLater);
    const held = document.querySelector("script[data-held]");
    if (held) held.replaceWith(Object.assign(document.createElement("script"), { type: "module", crossOrigin: "", src: held.dataset.held }));
  };
  setTimeout(window.loopvizLater, %(patience)d);
})();</script>
<script type="module">import { open } from "./%(script)s"; open();</script>"""


def _imported(name: str) -> list[str]:
    """The script `name` and what it imports at once, directly or not, each once."""
    found = [name]
    for script in found:  # grows
        text = _SCRIPTS[script].read_text(encoding="utf-8")
        for address in re.findall(r'^import .*from "(\.[\w./]+)";', text, re.M):
            other = posixpath.normpath(posixpath.join(posixpath.dirname(script), address))
            found += [other] * (other not in found)
    return found


def places() -> dict[str, str]:
    """The addresses the page's script needs."""
    own = {"script": "explore/main.js", "plotly": "plotly.js", "whole": _WHOLE}
    return {**{place: asset_url(name) for place, name in own.items()}, "line": LINES, "share": FILES}


@functools.cache
def early_tags() -> str:
    """Tags for the very beginning of the document's head; "" when the page has nothing to open with."""
    openings = opening_urls()
    if not openings:
        return ""
    preloads = [f'<link rel="modulepreload" href="{asset_url(name)}">' for name in _imported("explore/main.js")]
    script = _OPEN_EARLY % {
        "openings": json.dumps(openings),
        "places": json.dumps(places()),
        "patience": PATIENCE,
        "query": QUERIES["lang"],
        "stored": STORED["lang"],
        **places(),
    }
    return "".join([*preloads, f"<style>{early_css()}</style>", script])


def early(document: str) -> str:
    """The page's document with :func:`early_tags`, and with Gradio's script held back until the first panel is drawn.

    That script keeps the browser busy for a second or two; it is fetched meanwhile. `core/draw_scheduler.js` lets it go, or
    the clock does. A document in which it is written otherwise keeps it as it is.
    """
    held = r'<link rel="modulepreload" crossorigin href="\1"><script data-held="\1" type="text/plain"></script>'
    return _GRADIO.sub(held, document.replace("<head>", "<head>" + early_tags(), 1), count=1)


class EarlyTags:
    """Middleware that makes the page's document :func:`early`, and settles the look of every page.

    Gradio's own `head` option is of no use here: its script adds those tags, so they come when Gradio is there anyway.

    Args:
        first: what stands in the head of every page before all else.
        profile: what the server lets its visitors do.
        runs: that the server keeps; previews of their links tell of them.
        sent: called whenever a page has been sent.
    """

    def __init__(
        self,
        app: ASGIApp,
        first: str = "",
        profile: Profile = LOCAL,
        runs: link_preview.StoredRuns | None = None,
        sent: Callable[[], None] = lambda: None,
    ) -> None:
        self.app, self.runs, self.sent = app, runs, sent
        self.first = first
        self.profile = profile

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on as it is, but for documents: a page's is small, and sent when it is whole."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        page = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        start: Message = {}
        parts: list[bytes] = []

        async def changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                if headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers:
                    start.update(message)
                    return
            if not start:
                await send(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            document = b"".join(parts).decode()
            document = look.settled(early(document) if not page and early_tags() else document)
            if look.ELEMENT in document:
                document = styled(document, page)
                document = document.replace("<head>", "<head>" + self.first, 1)
                document = document.replace(
                    "</body>", footer.html(asset_url("widgets/footer.js"), self.profile) + "</body>", 1
                )
                run = await link_preview.told_run(scope, self.runs)
                tags = link_preview.tags(scope, asset_url(link_preview.IMAGE), run)
                document = link_preview.previewed(document, tags)
            if security_headers.NONCE in scope:
                document = security_headers.marked(document, scope[security_headers.NONCE])
            body = document.encode()
            headers = MutableHeaders(raw=list(start["headers"]))
            headers["content-length"] = str(len(body))
            await send({**start, "headers": headers.raw})
            await send({"type": "http.response.body", "body": body})
            if look.ELEMENT in document:
                self.sent()

        await self.app(scope, receive, changed)


_FUNCTIONS = "core/gradio_functions.js"
_CONNECTION = "core/gradio_connection.js"


def version_of(demo: gr.Blocks) -> str:
    """A mark of all that an open page and its server must agree on: our scripts, and the events and parts that they call by number."""
    from gradio import __version__

    # of Gradio's whole configuration, which takes long, as much as counts here
    told = [fn.get_config() for fn in demo.fns.values()]
    calls = [[one[key] for key in ("id", "targets", "inputs", "outputs")] for one in told]
    parts = [[n, block.get_block_name(), getattr(block, "elem_id", None)] for n, block in demo.blocks.items()]
    known = json.dumps([__version__, calls, parts], default=str).encode()
    return _fingerprint(known + _scripts_mark().encode())


def written_route(demo: gr.Blocks) -> tuple[Route, str]:
    """What must have run before Gradio's script, and the tag for it: through which its requests go (`core/gradio_connection.js`), and
    the functions that it would make from text (:mod:`loopviz.app.server.security_headers`)."""
    ours = [_SCRIPTS[name].read_text(encoding="utf-8") for name in (_CONNECTION, _FUNCTIONS)]
    script = "".join([*ours, security_headers.written(demo)]).encode()
    packed, mark = gzip.compress(script, 6, mtime=0), _fingerprint(script)
    address = f"{PREFIX}/{mark}/{_FUNCTIONS}"
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding", "ETag": f'"{mark}"'}

    async def answer(request: Request) -> Response:
        fits = "gzip" in request.headers.get("accept-encoding", "")
        more = {"Content-Encoding": "gzip"} if fits else {}
        return Response(packed if fits else script, media_type=_TYPES[".js"], headers={**headers, **more})

    known = {"health": HEALTH.removeprefix("/"), "server": SERVER, "pages": version_of(demo)}
    data = " ".join(f'data-{name}="{value}"' for name, value in known.items())
    return Route(f"/{address}", answer, methods=["GET", "HEAD"]), f'<script defer src="{address}" {data}></script>'


def font() -> str:
    """The tag by which a page knows the font of formulas."""
    return f'<style>@font-face {{ font-family: "LoopViz Math"; src: url({asset_url(MATH)}) format("woff2"); }}</style>'


def launch_options(
    demo: gr.Blocks,
    rules: Rules,
    *more: Route,
    runs: link_preview.StoredRuns | None = None,
    sent: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Options of `Blocks.launch` that the pages of `demo` need: private, quiet, nothing external, our routes and `more`.

    `runs`: that the server keeps; previews of their links tell of them. `sent`: called whenever a page has been sent.
    """
    written, tag = written_route(demo)
    door = Middleware(Door, rules=replace(rules, known=rules.known or Known.of(demo)))
    tags = Middleware(EarlyTags, font() + tag, rules.profile, runs, sent)
    return {
        "app_kwargs": {
            "routes": [written, *routes(runs), *more],
            "middleware": [door, tags],
        },
        "css": css(),
        "show_error": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "run_history": False,
        "max_file_size": "50mb",
        "footer_links": [],
        "share": False,
    }
