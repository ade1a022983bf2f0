"""The glossary as the page takes it: entries with typeset formulas, and texts in which its terms are links."""

from __future__ import annotations

import functools
import re

from loopviz.app.sessions.messages import dumps
from loopviz.app.texts.glossary import GLOSSARY, Wording

Piece = str | list[str]  # some text, or [text, the key of the term it names]

# a word of everyday Chinese, which says more often something else
_EVERYDAY = {"合并"}


def _names(words: Wording) -> list[str]:
    """What a term is called in running text: its name, what stands in brackets after it, and its other names."""
    outside, _, inside = words.name.rstrip("）)").replace("（", "(").partition("(")
    return [name.strip() for name in (outside, inside, *words.also) if name.strip() not in {"", *_EVERYDAY}]


@functools.cache
def _finder(lang: str) -> tuple[re.Pattern[str], dict[str, str]]:
    """What finds a term in a text of `lang`, and the keys by lower-case name."""
    keys = {name.lower(): term.key for term in GLOSSARY for name in _names(term.wording(lang))}
    longest_first = "|".join(re.escape(name) for name in sorted(keys, key=len, reverse=True))
    # Chinese writes no spaces: there a name is found wherever it stands
    pattern = rf"(?<![\w-])({longest_first})(?:s|es)?(?![\w-])" if lang == "en" else f"({longest_first})"
    return re.compile(pattern, re.IGNORECASE), keys


def linked(text: str, lang: str, told: set[str] | None = None) -> list[Piece]:
    """`text` in pieces, the first mention of each term a link to it.

    Args:
        text: in `lang`.
        lang: "en" or "zh".
        told: keys of terms that need no link any more; those linked here are added to it.
    """
    told = set() if told is None else told
    pattern, keys = _finder(lang)
    pieces: list[Piece] = []
    done = 0
    for found in pattern.finditer(text):
        key = keys[found[1].lower()]
        if key in told:
            continue
        told.add(key)
        if found.start() > done:
            pieces.append(text[done : found.start()])
        pieces.append([found[0], key])
        done = found.end()
    if done < len(text):
        pieces.append(text[done:])
    return pieces


@functools.cache
def document(lang: str) -> bytes:
    """All entries in their order as JSON: `{"terms": [{"key", "name", "plain", "symbols", "formula", "see"}, ...]}`.

    A formula is MathML, as in the offline report; "" when a term has none.
    """
    from loopviz.export.report import formula

    terms = []
    for term in GLOSSARY:
        words = term.wording(lang)
        entry = {"key": term.key, "name": words.name, "plain": words.plain, "symbols": words.symbols, "see": term.see}
        terms.append({**entry, "formula": formula(term.formula) if term.formula else ""})
    return dumps({"terms": terms}).encode()
