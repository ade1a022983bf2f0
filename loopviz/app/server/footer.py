"""The foot of every page: version, licence, source, how to cite, how true the instrument is, and what this server allows.

Written into the document in both languages, of which the page's own is shown (`assets/web/styles/base.css`); a small script shows it
once the page stands above it, and copies (`assets/web/widgets/footer.js`).

The instrument's number is recorded, not promised: `scripts/verify_instrument.py` runs the model whose every number is known and writes
the largest difference between measured and exact into `assets/runs/verified.json`. A click runs the same check in Explore.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from html import escape
from typing import Any

from loopviz.app.contract import CHECK, FOOTER, PAGES
from loopviz.app.profile import LOCAL, Profile
from loopviz.app.server import citation, limits, source_code
from loopviz.app.texts import LANGUAGES, text
from loopviz.paths import ASSETS
from loopviz.version import repository, version

VERIFIED = ASSETS / "runs" / "verified.json"
SOURCE = "loopviz/model/modeling.py"  # of this installation: where to begin reading when there is no public address
_TAGS = {"en": "en", "zh": "zh-Hans"}


@functools.cache
def verified() -> Mapping[str, Any] | None:
    """What was recorded of the check: `{"version", "model", "panel", "tokens", "cosine", "rate"}`; None without a record."""
    try:
        found = json.loads(VERIFIED.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("cosine"), float) else None


def number(value: float) -> str:
    """A small number as people write it: 1.2e-7, rounded up, so that the words are never better than the number."""
    digits = f"{value * 1.0000001:.1e}"
    if float(digits) < value:
        digits = f"{value + 0.05 * 10 ** int(digits.partition('e')[2]):.1e}"
    mantissa, _, power = digits.partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(power)}"


def html(script: str, profile: Profile = LOCAL) -> str:
    """The foot, and the tag of its script.

    Args:
        script: the address of `widgets/footer.js`, relative to the page's.
        profile: what this server lets its visitors do, which is told.
    """
    parts = "".join(f'<div lang="{_TAGS[lang]}">{_words(lang)}{_limits(profile, lang)}</div>' for lang in LANGUAGES)
    entry = escape(citation.bibtex(), quote=True)
    return (
        f'<div class="{FOOTER}" role="contentinfo" hidden data-bibtex="{entry}">{parts}</div>'
        f'<script type="module" src="{escape(script, quote=True)}"></script>'
    )


def _words(lang: str) -> str:
    address = repository()
    if address:
        source = _link(
            address, text(lang, "foot.source", where=address.partition("://")[2].rstrip("/")), ' rel="noopener"'
        )
    else:
        source = _link(f"./{source_code.PREFIX}/{SOURCE}", text(lang, "foot.source.here"))
    parts = [
        f"<span>LoopViz {escape(version())}</span>",
        f"<span>{escape(text(lang, 'foot.license', name=citation.LICENSE))}</span>",
        source,
        f'<button type="button" class="lv-cite" data-done="{escape(text(lang, "foot.cited"), quote=True)}">'
        f"{escape(text(lang, 'foot.cite'))}</button>",
    ]
    if (found := verified()) is not None:
        told = {"cosine": number(found["cosine"]), "rate": number(found["rate"]), "version": found["version"]}
        more = {"model": found["model"], "tokens": found["tokens"], "most": number(max(found["cosine"], found["rate"]))}
        hint = escape(text(lang, "foot.verified.hint", **told, **more), quote=True)
        extra = f' class="lv-verified" title="{hint}" data-model="{escape(found["model"], quote=True)}"'
        extra += f' data-panel="{escape(found["panel"], quote=True)}"'
        parts.append(_link(f"{PAGES['explore']}#{CHECK}", text(lang, "foot.verified", most=more["most"]), extra))
    return "".join(parts)


def _limits(profile: Profile, lang: str) -> str:
    """What this server allows, shut until it is asked for."""
    rows = "".join(f"<dt>{escape(what)}</dt><dd>{escape(most)}</dd>" for what, most in limits.told(profile, lang))
    return f'<details class="lv-limits"><summary>{escape(text(lang, "foot.limits"))}</summary><dl>{rows}</dl></details>'


def _link(address: str, words: str, more: str = "") -> str:
    return f'<a href="{escape(address, quote=True)}"{more}>{escape(words)}</a>'
