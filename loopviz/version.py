"""The release.

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
