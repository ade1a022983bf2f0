"""Both languages say everything, with the same places to fill; the page's script asks for nothing that is not there."""

from __future__ import annotations

import re
import string

import pytest

from loopviz.app import controls as st
from loopviz.app.controls.presets import PRESETS
from loopviz.app.explore.config import page_config
from loopviz.app.page import PAGES, page_data
from loopviz.app.server import assets
from loopviz.app.sessions.models import ModelRoom
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
    plain = {
        "prompt.placeholder",
        "merge_ema_alpha.info",
        "field.titled",
        "compare.and",
        "lab.size",
    }  # symbols, examples, places
    for key, value in table("zh").items():
        assert key in plain or re.search(r"[\u4e00-\u9fff]", value), key


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_control_and_group_is_worded(lang: str) -> None:
    for control in st.CONTROLS:
        for part in ("label", "info", *control.choices):
            assert text(lang, f"{control.name}.{part}")
    for group in st.GROUPS:
        assert text(lang, f"group.{group}")


def told(page: str, lang: str) -> set[str]:
    """The keys of the texts that a page's script is told."""
    if page == "explore":
        return set(page_config(lang)["texts"])
    return set(page_data(page, ModelRoom("stories-loop"))["texts"][lang])


def asked(page: str) -> tuple[set[str], set[str]]:
    """The keys a page's scripts ask for, as they stand; and patterns of those they put together of parts."""
    spaces = "|".join(sorted({key.split(".")[0] for key in table("en")}))
    script = "".join((WEB / name).read_text(encoding="utf-8") for name in assets._imported(f"{page}/main.js"))
    script += "".join(
        path.read_text(encoding="utf-8") for path in (WEB / page).glob("*.js")
    )  # those imported later, too
    keys = set(re.findall(rf"[\"']((?:{spaces})\.[a-z][\w.]*)[\"']", script))
    made = set(re.findall(rf"`((?:{spaces})\.[^`\s/]*\$\{{[^`\s]*)`", script))
    return keys, {re.sub(r"\\\$\\\{.*?\\\}", r"[\\w.]+", re.escape(key)) for key in made}


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_scripts_ask_only_for_texts_that_the_page_is_told(page: str, lang: str) -> None:
    """A key that is missing would stand on the page as it is."""
    known, (keys, patterns) = told(page, lang), asked(page)
    assert len(keys) > 30
    assert patterns
    assert {key for key in keys if key not in known} == set()
    assert {pattern for pattern in patterns if not any(re.fullmatch(pattern, key) for key in known)} == set()


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
