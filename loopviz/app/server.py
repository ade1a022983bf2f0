"""What the web server does besides Gradio: our scripts, Plotly and the recorded run, compressed once, cacheable for ever.

One Plotly.js everywhere: the one inside the installed plotly package. Nothing is fetched from anywhere else.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import plotly
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopviz.app import recording
from loopviz.app.texts import LANGUAGES

ASSETS = Path(__file__).resolve().parents[2] / "assets"
PREFIX = "loopviz-assets"
_TYPES = {".js": "text/javascript; charset=utf-8", ".json": "application/json"}
_SCRIPTS: dict[str, Path] = {path.name: path for path in sorted(ASSETS.glob("*.js"))}
_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_OPENINGS = {f"opening.{lang}.json": lang for lang in LANGUAGES}


@functools.cache
def _content(name: str) -> tuple[bytes, bytes, str] | None:
    """The asset as it is, compressed, and its fingerprint; None when there is no such asset.

    Our scripts share one fingerprint: they import each other by relative addresses, which keep it.
    """
    marked = None
    if name in _SCRIPTS:
        raw = _SCRIPTS[name].read_bytes()
        marked = b"".join(path.read_bytes() for path in _SCRIPTS.values())
    elif name == "plotly.js":
        raw = _PLOTLY.read_bytes()
    elif name in _OPENINGS:
        raw = recording.opening(_OPENINGS[name])
    else:
        raw = None
    if raw is None:
        return None
    return raw, gzip.compress(raw, 6, mtime=0), hashlib.sha256(marked or raw).hexdigest()[:16]


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
    found = _content(name)
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


def routes() -> list[Route]:
    """The routes to add to Gradio's application (`app_kwargs={"routes": routes()}`)."""
    return [Route(f"/{PREFIX}/{{mark}}/{{name}}", _asset, methods=["GET", "HEAD"])]


def css() -> str:
    """The page's own style sheet."""
    return (ASSETS / "page.css").read_text(encoding="utf-8")


# Ask for the recorded run before Gradio's own scripts have arrived. The language is guessed as the server will pick it.
_OPEN_EARLY = """<script>(() => {
  let lang = new URLSearchParams(location.search).get("lang");
  try { lang ??= localStorage.getItem("loopviz.lang"); } catch {}
  const urls = %s;
  if (!(lang in urls)) lang = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  window.loopvizOpening = fetch(new URL(urls[lang], document.baseURI)).then((r) => (r.ok ? r.json() : null), () => null);
})();</script>"""


def head() -> str:
    """Tags for the page's head: fetch early what the live part needs."""
    tags = [f'<link rel="modulepreload" href="{asset_url(name)}">' for name in _SCRIPTS]
    tags.append(f'<link rel="preload" as="script" href="{asset_url("plotly.js")}">')
    if urls := opening_urls():
        tags.append(_OPEN_EARLY % json.dumps(urls))
    return "".join(tags)


def launch_options(*more: Route) -> dict[str, Any]:
    """Options of `Blocks.launch` that every page of ours needs: private, quiet, nothing external, our routes and `more`."""
    return {
        "app_kwargs": {"routes": [*routes(), *more]},
        "css": css(),
        "head": head(),
        "show_error": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "run_history": False,
        "max_file_size": "50mb",
        "footer_links": [],
        "share": False,
    }
