"""What the web server does besides Gradio: our scripts and Plotly, compressed once and cacheable for ever.

One Plotly.js everywhere: the one inside the installed plotly package. Nothing is fetched from anywhere else.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from pathlib import Path
from typing import Any

import plotly
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ASSETS = Path(__file__).resolve().parents[2] / "assets"
PREFIX = "loopviz-assets"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_FILES: dict[str, Path] = {
    "live.js": ASSETS / "live.js",
    "panel.js": ASSETS / "panel.js",
    "plotly.js": Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
}


@functools.cache
def _content(name: str) -> tuple[bytes, bytes, str]:
    """The file as it is, compressed, and its fingerprint.

    Our scripts share one fingerprint: they import each other by relative addresses, which keep it.
    """
    raw = _FILES[name].read_bytes()
    ours = [path for path in _FILES.values() if path.parent == ASSETS]
    marked = b"".join(path.read_bytes() for path in ours) if _FILES[name] in ours else raw
    return raw, gzip.compress(raw, 6, mtime=0), hashlib.sha256(marked).hexdigest()[:16]


def asset_url(name: str) -> str:
    """Where the page finds an asset, relative to its own address; a changed file has another address."""
    return f"{PREFIX}/{_content(name)[2]}/{name}"


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _FILES:
        return Response("not found", status_code=404)
    raw, compressed, mark = _content(name)
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


def head() -> str:
    """Tags for the page's head: fetch early what the live part needs."""
    return (
        f'<link rel="modulepreload" href="{asset_url("live.js")}">'
        f'<link rel="modulepreload" href="{asset_url("panel.js")}">'
        f'<link rel="preload" as="script" href="{asset_url("plotly.js")}">'
    )


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
