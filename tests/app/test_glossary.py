"""The glossary is whole in both languages, its formulas are formulas, and its words are those of the page."""

from __future__ import annotations

import re

import pytest
from latex2mathml.converter import convert

from loopviz.app.texts.glossary import BY_KEY, GLOSSARY, Term

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
