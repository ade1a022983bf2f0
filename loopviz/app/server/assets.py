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
_PLOTLY: dict[str, Callable[[], bytes]] = {"plotly.js": plotlyjs.small, "plotly-whole.js": plotlyjs.whole}
_OPENINGS = {f"opening.{lang}.json": lang for lang in LANGUAGES}  # what the first page opens with
# by name: what is made when it is first asked for (`offer`)
_MADE: dict[str, Callable[[], bytes | None]] = {}


def offer(made: Mapping[str, Callable[[], bytes | None]]) -> None:
    """Have more served: by name, what makes it when it is first asked for. This package knows no page; pages hand it in.

    Args:
        made: each gives the bytes of a file of that name, or None when there is no such thing after all.
    """
    _MADE.update(made)
    _content.cache_clear()
    early_tags.cache_clear()


# A line of comment, or several; what stands behind code, and a type in the middle of it, stays.
_COMMENT = re.compile(r"^[ \t]*(?://.*|/\*\*(?:[^*]|\*(?!/))*\*/[ \t]*)$", re.M)


def _sent(script: str) -> bytes:
    """A script as browsers get it: without its comments, which would be a quarter of the bytes; every line keeps its number."""
    return _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), script).encode()


@functools.cache
def _content(name: str) -> tuple[bytes, bytes, str] | None:
    """The asset as it is, compressed, and its fingerprint; None when there is no such asset.

    Our scripts share one fingerprint: they import each other by relative addresses, which keep it.
    """
    marked: bytes | None = None
    raw: bytes | None = None
    if name in _FILES:
        raw = _FILES[name].read_bytes()
    elif name in _SCRIPTS:
        raw = _sent(_SCRIPTS[name].read_text(encoding="utf-8"))
        marked = b"".join(path.read_bytes() for path in _SCRIPTS.values())
    elif name in _PLOTLY:
        raw = _PLOTLY[name]()
    elif name in _MADE:
        raw = _MADE[name]()
    if raw is None:
        return None
    return raw, gzip.compress(raw, 6, mtime=0), hashlib.sha256(marked or raw).hexdigest()[:16]


def _is_asset(name: str) -> bool:
    return name in _FILES or name in _SCRIPTS or name in _PLOTLY or name in _MADE


def asset_url(name: str) -> str:
    """Where the page finds an asset, relative to its own address; a changed file has another address.

    KeyError when there is no such asset.
    """
    found = _content(name)
    if found is None:
        raise KeyError(name)
    return f"{PREFIX}/{found[2]}/{name}"


def opening_urls() -> dict[str, str]:
    """Where the page finds the run it opens with, by language; empty when there is none."""
    return {lang: asset_url(name) for name, lang in _OPENINGS.items() if _content(name) is not None}


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    # answers are remembered for ever: none to a name that a visitor made up
    found = _content(name) if _is_asset(name) else None
    if found is None:
        return Response("not found", status_code=404)
    raw, compressed, mark = found
    packed = "gzip" in request.headers.get("accept-encoding", "")
    headers = {"X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding", "ETag": f'"{mark}"'}
    # an address with an old fingerprint gets today's file, but may not be kept
    fresh = request.path_params["mark"] == mark
    headers["Cache-Control"] = "public, max-age=31536000, immutable" if fresh else "no-cache"
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(compressed if packed else raw, media_type=_TYPES[Path(name).suffix], headers=headers)


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
  try { lang ??= localStorage.getItem("%(stored)s"); } catch {}
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
    own = {"script": "explore/main.js", "plotly": "plotly.js", "whole": "plotly-whole.js"}
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
    """The page's document with :func:`early_tags`, and with Gradio's script held back until the first panels are drawn.

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
    """

    def __init__(
        self,
        app: ASGIApp,
        first: str = "",
        profile: Profile = LOCAL,
        runs: link_preview.StoredRuns | None = None,
    ) -> None:
        self.app, self.runs = app, runs
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

        await self.app(scope, receive, changed)


_FUNCTIONS = "core/gradio_functions.js"
_CONNECTION = "core/gradio_connection.js"


def version_of(demo: gr.Blocks) -> str:
    """A mark of all that an open page and its server must agree on: our scripts, and the events and parts that they call by number."""
    config = demo.get_config_file()
    calls = [
        [dependency[key] for key in ("id", "targets", "inputs", "outputs")] for dependency in config["dependencies"]
    ]
    parts = [[part["id"], part["type"], part["props"].get("elem_id")] for part in config["components"]]
    known = json.dumps([config["version"], calls, parts], default=str).encode()
    return hashlib.sha256(known + b"".join(path.read_bytes() for path in _SCRIPTS.values())).hexdigest()[:16]


def written_route(demo: gr.Blocks) -> tuple[Route, str]:
    """What must have run before Gradio's script, and the tag for it: through which its requests go (`core/gradio_connection.js`), and
    the functions that it would make from text (:mod:`loopviz.app.server.security_headers`)."""
    ours = [_SCRIPTS[name].read_text(encoding="utf-8") for name in (_CONNECTION, _FUNCTIONS)]
    script = "".join([*ours, security_headers.written(demo)]).encode()
    packed, mark = gzip.compress(script, 6, mtime=0), hashlib.sha256(script).hexdigest()[:16]
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
    demo: gr.Blocks, rules: Rules, *more: Route, runs: link_preview.StoredRuns | None = None
) -> dict[str, Any]:
    """Options of `Blocks.launch` that the pages of `demo` need: private, quiet, nothing external, our routes and `more`.

    `runs`: that the server keeps; previews of their links tell of them.
    """
    written, tag = written_route(demo)
    door = Middleware(Door, rules=replace(rules, known=rules.known or Known.of(demo)))
    return {
        "app_kwargs": {
            "routes": [written, *routes(runs), *more],
            "middleware": [door, Middleware(EarlyTags, first=font() + tag, profile=rules.profile, runs=runs)],
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
