"""Plotly's buttons speak the page's language (A23): every one of its words that a visitor can meet, and ours for it."""

from __future__ import annotations

import re

import pytest

from loopviz.figures import plotlyjs, toolbar


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a23_plotly_s_words_are_those_it_really_uses(lang: str) -> None:
    """A locale whose words Plotly does not know is silently none."""
    script = plotlyjs.whole().decode()
    made = toolbar.dictionary(lang)
    assert set(made) == set(toolbar.PLOTLY.values())
    unknown = [english for english in made if english not in script]
    assert unknown == []


def test_a23_chinese_buttons_are_chinese() -> None:
    for english, said in toolbar.dictionary("zh").items():
        assert not re.search("[A-Za-z]", said), english
