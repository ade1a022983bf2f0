"""Both languages say everything, with the same places to fill; the page's script asks for nothing that is not there."""

from __future__ import annotations

import re
import string

import pytest

from loopviz.app.controls import settings as st
from loopviz.app.controls.presets import PRESETS
from loopviz.app.texts import LANGUAGES, pick_language, table, text
from loopviz.paths import WEB


def _places(value: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(value) if name}


def test_languages_have_the_same_keys_and_places() -> None:
    english = table("en")
    for lang in LANGUAGES:
        assert table(lang).keys() == english.keys()
        for key, value in table(lang).items():
            assert value.strip(), key
            assert _places(value) == _places(english[key]), key


def test_chinese_is_chinese() -> None:
    plain = {"prompt.placeholder", "merge_ema_alpha.info", "field.titled", "compare.and"}  # symbols, examples, places
    for key, value in table("zh").items():
        assert key in plain or re.search(r"[\u4e00-\u9fff]", value), key


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_control_and_group_is_worded(lang: str) -> None:
    for control in st.CONTROLS:
        for part in ("label", "info", *control.choices):
            assert text(lang, f"{control.name}.{part}")
    for group in st.GROUPS:
        assert text(lang, f"group.{group}")


def test_the_script_asks_only_for_texts_that_exist() -> None:
    script = "".join(path.read_text(encoding="utf-8") for path in WEB.rglob("*.js"))
    asked = set(re.findall(r"\"(live\.[\w.]+)\"", script))
    assert {"live.play", "live.key.step"} <= asked
    assert asked <= table("en").keys()
    # and what it puts together itself
    made = set(re.findall(r"texts\[`(live\.[\w.]+)\$\{", script))
    assert made
    for start in made:
        assert any(key.startswith(start) for key in table("en")), start


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_preset_is_worded(lang: str) -> None:
    for preset in PRESETS:
        assert text(lang, f"preset.{preset.name}.label")
        assert text(lang, f"preset.{preset.name}.look")


@pytest.mark.parametrize(
    ("asked", "header", "lang"),
    [
        ("zh", "", "zh"),
        ("en", "zh-CN,zh;q=0.9", "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "en-GB,zh;q=0.2", "en"),
        ("../../etc", "fr", "en"),
    ],
)
def test_language_of_a_visit(asked: str | None, header: str, lang: str) -> None:
    assert pick_language(asked, header) == lang
