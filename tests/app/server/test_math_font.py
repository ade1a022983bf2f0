"""The font of formulas has every character that a formula of ours holds, and is served to be kept."""

from __future__ import annotations

import html
import re

from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.anatomy.other_stages import OTHERS
from loopviz.anatomy.stage_list import STAGES
from loopviz.app.server import assets
from loopviz.app.texts import LANGUAGES
from loopviz.app.texts.glossary import GLOSSARY
from loopviz.export.report import formula
from loopviz.panels import PANELS
from loopviz.panels.kit import formulas
from loopviz.panels.ttt import TTT_PANELS
from scripts.math_font import RANGES


def _all() -> list[str]:
    said = [formulas.spoken(panel.TEXTS["en"]["formula"], lang) for panel in PANELS.values() for lang in LANGUAGES]
    said += [panel.TEXTS[lang]["formula"] for panel in TTT_PANELS.values() for lang in LANGUAGES]
    said += [term.formula for term in GLOSSARY if term.formula]
    return said + [stage.formula for stage in (*STAGES, *OTHERS)]


def test_every_character_of_every_formula_is_in_it() -> None:
    """Chinese words are the page's own font's."""
    found = {one for tex in _all() for one in html.unescape(re.sub(r"<[^>]*>", "", formula(tex)))}
    lacking = {one for one in found if not any(first <= ord(one) < end for first, end in RANGES)}
    assert {one for one in lacking if not "\u3000" <= one <= "\uffee"} == set()
    assert len(found - lacking) > 60


def test_it_is_served_and_kept_and_the_page_knows_where() -> None:
    client = TestClient(Starlette(routes=assets.routes()))
    address = re.search(r"url\((.*?)\)", assets.font())[1]
    answer = client.get(f"/{address}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "font/woff2")
    assert answer.content[:4] == b"wOF2"
    assert "immutable" in answer.headers["cache-control"]


def test_bars_grow_only_where_the_formula_says_so() -> None:
    assert formula(r"\lVert s\rVert").count('<mo stretchy="false">&#x02016;</mo>') == 2
    assert formula(r"\left\lVert s\right\rVert").count('stretchy="true"') == 2
