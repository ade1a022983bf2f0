"""The code behind what the page shows, as it is in this very installation: where a function stands, and files as text."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopviz.paths import PACKAGE

PREFIX = "loopviz-source"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Place:
    """Where something is defined.

    name: of the function, method or class (``Reading._columns``); empty for a whole file.
    path: of the file, as ``loopviz/trace/metrics.py``.
    line: the number of its first line, or of the one meant, from 1; 0 for a whole file.
    opening: that line's text; empty for a whole file.
    """

    name: str
    path: str
    line: int = 0
    opening: str = ""

    @property
    def url(self) -> str:
        """Where the page finds it, relative to its own address; a browser that can scrolls to the line and marks it."""
        if not self.opening:
            return f"{PREFIX}/{self.path}"
        # a hyphen, a comma and an ampersand mean something in a text fragment
        return f"{PREFIX}/{self.path}#:~:text={quote(self.opening, safe='').replace('-', '%2D')}"


@functools.cache
def files() -> Mapping[str, Path]:
    """Every Python file of this package, and nothing else, by the path it is served under."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_file() and path.resolve().is_relative_to(PACKAGE):
            found[path.relative_to(PACKAGE.parent).as_posix()] = path
    return found


@functools.cache
def _definitions(path: str) -> dict[str, tuple[int, int]]:
    """First and last line of every class, function and method of a file, by qualified name. Nothing is imported."""
    text, found = files()[path].read_text(encoding="utf-8"), {}

    def look(body: Iterable[ast.stmt], owner: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found[owner + node.name] = (node.lineno, node.end_lineno or node.lineno)
                if isinstance(node, ast.ClassDef):
                    look(node.body, f"{owner}{node.name}.")

    look(ast.parse(text).body, "")
    return found


def locate(reference: str, words: str = "") -> Place:
    """Where ``reference``, as ``loopviz.model.measures:cosine``, is defined; without a name: its file.

    Args:
        words: of one line of it, which is the place then.

    LookupError, naming it, when there is no such file, nothing of that name in it, or not one line with these words.
    """
    module, _, name = reference.partition(":")
    path = f"{module.replace('.', '/')}.py"
    if path not in files():
        raise LookupError(f"{reference}: there is no {path} in this package")
    if not name:
        return Place("", path)
    if name not in _definitions(path):
        raise LookupError(f"{reference}: {path} defines no {name}")
    (first, last), lines = _definitions(path)[name], files()[path].read_text(encoding="utf-8").splitlines()
    if words:
        found = [number for number in range(first, last + 1) if words in lines[number - 1]]
        if len(found) != 1:
            raise LookupError(f"{reference}: {len(found)} lines of it have {words!r}, not one")
        (first,) = found
    return Place(name, path, first, lines[first - 1].strip())


def of_panel(panel: ModuleType) -> list[Place]:
    """Where a panel is drawn, and where what it shows is computed: its own file, then what its ``CODE`` names."""
    return [locate(reference) for reference in (panel.__name__, *getattr(panel, "CODE", ()))]


def listed(panel: ModuleType) -> list[dict[str, Any]]:
    """:func:`of_panel` as the page's script takes it: ``{"name", "at", "url"}``."""
    return [
        {"name": place.name, "at": f"{place.path}:{place.line}" if place.line else place.path, "url": place.url}
        for place in of_panel(panel)
    ]


async def _source(request: Request) -> Response:
    path = files().get(request.path_params["path"])
    if path is None:
        return Response("not found", status_code=404, media_type="text/plain")
    # says its charset itself: comments are not all ASCII
    return Response(path.read_bytes(), media_type="text/plain; charset=utf-8", headers=_HEADERS)


def route() -> Route:
    """The route that serves these files, to be read."""
    return Route(f"/{PREFIX}/{{path:path}}", _source, methods=["GET", "HEAD"])
