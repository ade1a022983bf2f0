"""What a browser may do with our answers: headers of safety, and the Content-Security-Policy the pages run under.

Scripts come from here, or carry the answer's nonce; none is made from text. Gradio makes functions from text in three
ways, and all its texts are known before the page is served: `assets/web/core/gradio_functions.js`, with :func:`written`, gives it the
functions instead. Fonts, pictures and answers come from here and nowhere else, whatever Gradio's script asks for.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import Scope

from loopviz.app.profile import is_loopback

if TYPE_CHECKING:
    import gradio as gr

NONCE = "loopviz.nonce"  # where a request's scope has it
_PERMISSIONS = ("camera", "display-capture", "geolocation", "microphone", "midi", "payment", "serial", "usb")
_ON_LOAD = "element,trigger,props,server,upload,watch"  # the names Gradio gives what an element does once it is there


def page_policy(nonce: str, frames: Iterable[str]) -> str:
    """The policy of the pages."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' 'nonce-{nonce}'",
            "style-src 'self' 'unsafe-inline'",  # Gradio and Plotly write into style attributes
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "manifest-src 'self'",
            "base-uri 'self'",
            "form-action 'self'",
            _ancestors(frames),
        ]
    )


def _ancestors(frames: Iterable[str]) -> str:
    return f"frame-ancestors {' '.join(frames) or chr(39) + 'none' + chr(39)}"


def safety(scope: Scope, headers: Headers, frames: tuple[str, ...], page: bool) -> dict[str, str]:
    """The headers of safety of one answer. A page's nonce is put into its `scope`.

    Args:
        headers: the request's.
        frames: origins whose pages may show ours in a frame.
        page: whether a page's document is asked for.
    """
    found = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Permissions-Policy": ", ".join(f"{name}=()" for name in _PERMISSIONS),
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if not frames:
        found["X-Frame-Options"] = "DENY"
        # elsewhere browsers ignore it, and complain
        secure = scope.get("scheme") == "https" or is_loopback(headers.get("host", "").rpartition(":")[0])
        if secure and page:
            found["Cross-Origin-Opener-Policy"] = "same-origin"
    if page:
        nonce = scope[NONCE] = secrets.token_urlsafe(16)
        found["Content-Security-Policy"] = page_policy(nonce, frames)
    else:
        found["Content-Security-Policy"] = f"default-src 'none'; {_ancestors(frames)}"
    return found


def added(raw: Iterable[tuple[bytes, bytes]], more: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """An answer's headers with `more`; what it says itself stays."""
    kept = [(name.lower(), value) for name, value in raw]
    said = {name for name, _ in kept}
    new = ((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in more.items())
    return kept + [(name, value) for name, value in new if name not in said]


def marked(document: str, nonce: str) -> str:
    """The document with the nonce in each of its scripts. (Gradio writes no `<` into the data it puts there.)"""
    return re.sub(r"<script(?=[\s>])", f'<script nonce="{nonce}"', document)


def written(demo: gr.Blocks) -> str:
    """The functions that Gradio would make from text, as a script: what `assets/web/core/gradio_functions.js` finds them in, by their texts.

    The events' (an expression each), and what an element does once it is there (a function's body).
    """
    expressions: dict[str, None] = {}
    for event in demo.fns.values():
        if isinstance(event.js, str):
            expressions[re.sub(r";+$", "", event.js.strip())] = None
    bodies: dict[str, None] = {}
    for block in demo.blocks.values():
        if isinstance(body := getattr(block, "js_on_load", None), str) and body:
            bodies[body] = None
    pairs = [f"[{_string(source)},\n() => (\n{source}\n)]" for source in expressions]
    loads = [f"[{_string(body)},\nfunction ({_ON_LOAD}) {{\n{body}\n}}]" for body in bodies]
    return f"window.loopvizWritten([\n{_list(pairs)}], [\n{_list(loads)}]);\n"


def _list(items: list[str]) -> str:
    return "".join(f"{item},\n" for item in items)


def _string(value: Any) -> str:
    return json.dumps(value)
