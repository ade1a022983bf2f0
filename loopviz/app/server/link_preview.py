"""What a link to a page looks like where it is posted: a title, a sentence and a picture of ours (Open Graph, Twitter).

Gradio's document has two blocks of such tags, both Gradio's own. They go; ours come first in the head, for the programs that
make such previews read only the beginning of a document, and run none of its scripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from urllib.parse import parse_qs

from starlette.types import Scope

from loopviz.app.contract import PAGES, QUERIES
from loopviz.app.texts import pick_language, text

IMAGE = "preview.png"  # the asset; its size is told, so that the first who post a link see it at once
SIZE = (1200, 630)
_LONGEST = 4_000  # characters of an address that is repeated
# Gradio's tags may be broken over several lines.
_FOREIGN = re.compile(r"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>\s*")


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope.get("headers", ()) if key == name), "")


def _origin(scope: Scope) -> str:
    """Scheme and host by which the visitor reached us, also behind a proxy that ends TLS; "" when no host was named."""
    host = _header(scope, b"host")
    if not re.fullmatch(r"[\w.:\[\]-]+", host):
        return ""
    scheme = _header(scope, b"x-forwarded-proto").split(",")[0].strip() or scope.get("scheme", "http")
    return f"{scheme if scheme in ('http', 'https') else 'http'}://{host}"


def tags(scope: Scope, image: str) -> str:
    """The tags for the document at the address that `scope` (an ASGI request) asks for.

    Args:
        image: address of the picture below the app's root.
    """
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root) or "/"
    query = scope.get("query_string", b"").decode("latin-1")
    asked = parse_qs(query)
    lang = pick_language(asked.get(QUERIES["lang"], [None])[0], _header(scope, b"accept-language"))
    page = next((name for name, beside in PAGES.items() if path.rstrip("/") == beside[1:].rstrip("/")), "explore")
    kind = "state" if QUERIES["link"] in asked and page in ("explore", "compare") else page
    title, said = text(lang, f"preview.{kind}.title"), text(lang, f"preview.{kind}")
    origin = _origin(scope)
    address = f"{origin}{root}{path}{'?' + query if query else ''}"
    picture = f"{origin}{root}/{image}"
    properties = [
        ("og:type", "website"),
        ("og:site_name", "LoopViz"),
        ("og:title", title),
        ("og:description", said),
        ("og:image", picture),
        ("og:image:type", "image/png"),
        ("og:image:width", str(SIZE[0])),
        ("og:image:height", str(SIZE[1])),
        ("og:image:alt", text(lang, "preview.image")),
    ]
    if len(address) <= _LONGEST:
        properties.append(("og:url", address))
    names = [
        ("description", said),
        ("twitter:card", "summary_large_image"),
        ("twitter:title", title),
        ("twitter:description", said),
        ("twitter:image", picture),
        ("twitter:image:alt", text(lang, "preview.image")),
    ]
    return '<meta charset="utf-8">' + _written("property", properties) + _written("name", names)


def _written(by: str, pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<meta {by}="{name}" content="{escape(value)}">' for name, value in pairs)


def previewed(document: str, made: str) -> str:
    """The document with the tags `made` first in its head, and none of this kind from anybody else."""
    return _FOREIGN.sub("", document).replace("<head>", "<head>" + made, 1)
