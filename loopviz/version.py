"""The release, and where its source is.

On the ground floor.
"""

from __future__ import annotations

import functools
import re
from importlib import metadata

from loopviz.paths import PACKAGE

_told = ""


def tell(release: str) -> None:
    """Say it to a package whose folder was sent to another machine, without what stands beside it."""
    global _told
    _told = release


def version() -> str:
    """The release. It is written once, in `pyproject.toml`: a checkout reads it there, an installed package in its metadata.

    "unknown" for a package's folder that somebody has copied without either.
    """
    return _told or _written()


@functools.cache
def _written() -> str:
    project = PACKAGE.parent / "pyproject.toml"  # first: another release may be installed beside this checkout
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    written = re.search(r'^name = "loopviz"\nversion = "(.+)"$', text, re.M)
    if written:
        return written[1]
    try:
        return metadata.version("loopviz")
    except metadata.PackageNotFoundError:
        return "unknown"


_SOURCES = ("Source", "Repository", "Source Code", "Homepage")  # as metadata calls it, the best first


@functools.cache
def repository() -> str | None:
    """The public address of the source, as `[project.urls]` in `pyproject.toml` has it; None while it has none.

    Nothing stands here in its place: an address that nobody answers at is worse than none.
    """
    project = PACKAGE.parent / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    if re.search(r'^name = "loopviz"$', text, re.M):
        part = re.search(r"^\[project\.urls\]\n((?:(?!\[).*\n?)*)", text, re.M)
        found = dict(re.findall(r'^"?([\w ]+?)"? = "(https?://[^"\s]+)"$', part[1] if part else "", re.M))
    else:
        try:
            urls = metadata.metadata("loopviz").get_all("Project-URL") or []
        except metadata.PackageNotFoundError:
            urls = []
        found = {name.strip(): url.strip() for name, _, url in (line.partition(",") for line in urls)}
    return next((found[name] for name in _SOURCES if found.get(name, "").startswith(("https://", "http://"))), None)
