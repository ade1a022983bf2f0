"""Words for visitors, without what they say of the machine: its folders and files are shown by their own names alone.

Errors of libraries, and our own, name files whole: right for who sits at the machine, and nobody else's business.
"""

from __future__ import annotations

import re

# A repository of the Hub in its cache: the repository, and the file in it, are what a visitor named.
_SNAPSHOT = re.compile(
    r"(?:[A-Za-z]:)?[/\\][^\n'\"]*?models--([\w.-]+?)--([\w.-]+)[/\\](?:snapshots|blobs)[/\\][0-9a-f]+"
)
_CACHED = re.compile(r"(?:[A-Za-z]:)?[/\\][^\n'\"]*?models--([\w.-]+?)--([\w.-]+)")
# Quoted: up to the other quote, blanks and all.
_QUOTED = re.compile(r"(?P<quote>['\"`])(?:~[\w.-]*|[A-Za-z]:|\\\\)?[/\\](?P<path>[^\n'\"`]*)(?P=quote)")
_PART = r"[^\s/\\'\"`:;,()\[\]<>|]+(?: [^\s/\\'\"`:;,()\[\]<>|]+(?=[/\\]))*"
_BARE = re.compile(
    rf"(?<![\w./\\:~])(?:(?:~[\w.-]*)?(?:/{_PART})+/?|(?:[A-Za-z]:|\\)(?:[/\\]{_PART})+[/\\]?)"  # Linux and macOS, Windows
)


def without_paths(words: str) -> str:
    """`words` with every path of a machine shortened to its last part; addresses of the web stay as they are."""
    words = _SNAPSHOT.sub(r"\1/\2", words)
    words = _CACHED.sub(r"\1/\2", words)
    words = _QUOTED.sub(lambda found: found["quote"] + _last(found["path"]) + found["quote"], words)
    return _BARE.sub(lambda found: _last(found[0]), words)


def _last(path: str) -> str:
    """The last part of a path."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "…"
