"""How LoopViz is cited: the same words as `CITATION.cff`, which stands beside the package and not in it."""

from __future__ import annotations

from loopviz.version import repository, version

TITLE = "LoopViz: see how a looped language model thinks"
AUTHOR = "LoopViz contributors"
YEAR = "2026"
LICENSE = "MIT"


def bibtex() -> str:
    """The entry for a bibliography, of this release."""
    fields = {
        "title": f"{{{TITLE}}}",
        "author": f"{{{AUTHOR}}}",  # in braces of its own: a group, and no first name
        "year": YEAR,
        "version": version(),
        "license": LICENSE,
    }
    if address := repository():
        fields["url"] = address
    lines = ",\n".join(f"  {name:<8}= {{{value}}}" for name, value in fields.items())
    return f"@software{{loopviz,\n{lines}\n}}\n"
