"""The glossary is whole in both languages, its formulas are formulas, and its words are those of the page."""

from __future__ import annotations

import re

import pytest
from latex2mathml.converter import convert
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app.explore import served  # noqa: F401  (hands the server what it serves)
from loopviz.app.explore.config import page_config
from loopviz.app.server import assets, glossary
from loopviz.app.texts.glossary import BY_KEY, GLOSSARY, Term
from loopviz.panels import PANELS

ASKED_FOR = (
    *("loop_step", "prelude", "block", "coda", "layer_pass", "damping", "injection", "loop_norm"),
    *("kv_cache", "slot", "serial", "parallel", "merge", "ema", "prefill", "decode"),
    *("cosine", "kl", "entropy", "rank", "perplexity", "direct_lens", "exit_lens"),
    *("fixed_point", "contraction", "dynamic_stop", "threshold", "greedy", "temperature"),
)


def test_every_term_is_there_once() -> None:
    assert set(ASKED_FOR) <= set(BY_KEY)
    assert len(BY_KEY) == len(GLOSSARY)


@pytest.mark.parametrize("term", GLOSSARY, ids=lambda term: term.key)
def test_a_term_is_whole_in_both_languages(term: Term) -> None:
    for lang in ("en", "zh"):
        words = term.wording(lang)
        assert words.name.strip()
        assert words.plain.strip()
        assert bool(words.symbols) == bool(term.formula), "a formula's letters are explained, and only then"
        chinese = [bool(re.search(r"[\u4e00-\u9fff]", text)) for text in (words.plain, words.symbols) if text]
        assert all(chinese) if lang == "zh" else not any(chinese)
    assert set(term.see) <= set(BY_KEY) - {term.key}


@pytest.mark.parametrize("term", [term for term in GLOSSARY if term.formula], ids=lambda term: term.key)
def test_a_formula_is_one(term: Term) -> None:
    made = convert(term.formula)
    # a command the converter does not know comes through as its own name
    assert "\\" not in re.sub(r"&#x0005C;", r"\\", made), made
    assert term.formula.count("{") == term.formula.count("}")


@pytest.mark.parametrize("term", [term for term in GLOSSARY if term.formula], ids=lambda term: term.key)
def test_both_languages_explain_the_same_letters(term: Term) -> None:
    def letters(text: str) -> set[str]:
        return set(re.findall(r"[a-zA-Zα-ωϵ₀̂*‖⊙]+(?:_[\w{}−]+)?", text))

    def symbols(text: str) -> set[str]:
        return {found for found in letters(text) if len(found) == 1 or "_" in found}

    english, chinese = symbols(term.en.symbols) - {"a", "s"}, symbols(term.zh.symbols) - {"a", "s"}
    assert chinese <= english | symbols(term.formula)
    assert {letter for letter in english if not letter.isascii() or "_" in letter} <= chinese


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_gets_every_entry_with_its_formula_typeset(lang: str) -> None:
    answer = TestClient(Starlette(routes=assets.routes())).get(f"/{assets.PREFIX}/x/glossary.{lang}.json")
    assert "immutable" not in answer.headers["cache-control"]  # its address stays when it changes
    terms = answer.json()["terms"]
    assert [term["key"] for term in terms] == [term.key for term in GLOSSARY]
    for made, term in zip(terms, GLOSSARY, strict=True):
        assert made["plain"] == term.wording(lang).plain
        assert ("<math" in made["formula"]) == bool(term.formula)
        assert "<code" not in made["formula"], "a formula that could not be typeset"


def test_a_term_is_a_link_once_in_whatever_form_it_stands() -> None:
    told: set[str] = set()
    assert glossary.linked("Loop steps of a loop step; KL, thesis.", "en", told) == [
        ["Loop steps", "loop_step"],
        " of a loop step; ",
        ["KL", "kl"],
        ", thesis.",
    ]
    assert glossary.linked("KL divergence", "en", told) == ["KL divergence"]
    assert glossary.linked("KL divergence", "en") == [["KL divergence", "kl"]], "the longest name, not a part of it"
    assert glossary.linked("隐藏状态与合并", "zh") == [["隐藏状态", "state"], "与合并"]
    assert glossary.linked("blocks unblocked block-wise", "en") == [["blocks", "block"], " unblocked block-wise"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_how_a_panel_is_computed_says_the_same_with_links(lang: str) -> None:
    keys = set()
    for entry in page_config(lang)["panels"]:
        links = []
        for part in ("how", "units", "source"):
            pieces = entry["words"][part]
            assert "".join(p if isinstance(p, str) else p[0] for p in pieces) == PANELS[entry["name"]].TEXTS[lang][part]
            links += [piece[1] for piece in pieces if not isinstance(piece, str)]
        assert links, entry["name"]
        assert len(set(links)) == len(links)
        keys |= set(links)
    assert keys <= BY_KEY.keys()
    assert {"loop_step", "kl", "direct_lens", "kv_cache", "slot"} <= keys
