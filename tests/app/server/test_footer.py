"""The foot of every page: both languages, no address that nobody has, and a number that was measured."""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from pathlib import Path

import gradio
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from loopviz.app import controls as st
from loopviz.app.contract import FOOTER, PAGES
from loopviz.app.explore import served  # noqa: F401  (hands the server what it serves)
from loopviz.app.profile import PROFILES, Profile
from loopviz.app.server import assets, citation, footer, limits
from loopviz.app.sessions.store_desk import quotas_of
from loopviz.app.texts import LANGUAGES, text
from loopviz.panels.loop import instrument
from loopviz.store import mirror
from loopviz.version import version
from scripts.verify_instrument import measured

DOCUMENT = (Path(gradio.__file__).parent / "templates" / "frontend" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_one_foot(page: str) -> None:
    path = PAGES[page].removeprefix(".")
    routes = [Route(path, lambda _: Response(DOCUMENT, media_type="text/html")), *assets.routes()]
    client = TestClient(assets.EarlyTags(Starlette(routes=routes)))
    document = client.get(path).text
    assert document.count(f'class="{FOOTER}"') == 1
    assert version() in document
    script = re.search(r'src="([^"]+widgets/footer\.js)"', document)
    assert script
    assert client.get(script[1]).status_code == 200


def test_it_says_both_languages_the_licence_and_how_to_cite(monkeypatch: pytest.MonkeyPatch) -> None:
    made = footer.html("x.js")
    for lang in ("en", "zh-Hans"):
        assert f'<div lang="{lang}">' in made
    assert unescape(re.search(r'data-bibtex="([^"]*)"', made)[1]) == citation.bibtex()  # type: ignore[index]
    assert citation.LICENSE in made


def test_no_address_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footer, "repository", lambda: None)
    monkeypatch.setattr(citation, "repository", lambda: None)
    assert "://" not in footer.html("x.js")
    monkeypatch.setattr(footer, "repository", lambda: "https://code.example/loopviz")
    monkeypatch.setattr(citation, "repository", lambda: "https://code.example/loopviz")
    made = footer.html("x.js")
    assert 'href="https://code.example/loopviz"' in made
    assert "url     = {https://code.example/loopviz}" in unescape(made)


def test_the_badge_is_what_the_instrument_measures() -> None:
    """Recorded with this release; and measured again here, on whatever processor this is, it is as small."""
    recorded = json.loads(footer.VERIFIED.read_text(encoding="utf-8"))
    assert recorded["version"] == version(), "record it again: python scripts/verify_instrument.py"
    assert (recorded["model"], recorded["panel"]) == (instrument.MODEL, instrument.NAME)
    again = measured()
    assert again["tokens"] == recorded["tokens"] == 36
    for name in ("cosine", "rate"):
        assert 0 < again[name] < 10 * recorded[name], name


def test_the_badge_is_not_shown_without_a_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(footer, "VERIFIED", tmp_path / "none.json")
    footer.verified.cache_clear()
    try:
        assert "lv-verified" not in footer.html("x.js")
    finally:
        monkeypatch.undo()
        footer.verified.cache_clear()
    found = footer.verified()
    assert found is not None
    largest = footer.number(max(found["cosine"], found["rate"]))
    assert f"exact to {largest}<" in footer.html("x.js"), "the worse of the two"


@pytest.mark.parametrize(
    ("value", "said"),
    [(7e-7, "7e-7"), (1.2e-7, "1.2e-7"), (1.21e-7, "1.3e-7"), (2.3841858e-07, "2.4e-7"), (9.96e-7, "1e-6")],
)
def test_a_number_is_never_told_smaller_than_it_is(value: float, said: str) -> None:
    assert footer.number(value) == said
    assert float(said) >= value * (1 - 1e-6)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_a_server_allows_is_told_before_it_is_met(profile: Profile, lang: str) -> None:
    told = dict(limits.told(profile, lang))
    made = unescape(footer.html("x.js", profile))
    for what, most in told.items():
        assert f"<dt>{what}</dt><dd>{most}</dd>" in made
    run, kept = told[text(lang, "limits.seconds_run")], told[text(lang, "limits.kept_bytes")]
    minutes = {"local": text(lang, "limits.none"), "class": text(lang, "limits.minutes", n="2")}
    assert run == minutes.get(profile.name, text(lang, "limits.minutes", n="5"))
    assert kept == {"local": "2 GiB", "class": "1 GiB", "public": "1 GiB"}[profile.name]
    assert told[text(lang, "limits.models")] == text(lang, f"limits.models.{'any' if profile.any_model else 'list'}")
    named = dataclasses.replace(profile, any_model=False, named_models=("org/one", "org/two"))
    assert "org/one, org/two" in dict(limits.told(named, lang))[text(lang, "limits.models")]


def test_every_limit_that_a_visitor_may_meet_is_among_them() -> None:
    """Those that are not: of the server's own work, or of what a program that is no page of ours sends."""
    own = """name paths any_model named_models carried_runs carried_seconds distances model_seconds model_loads models_wanted
    tokenizer_seconds tokenizer_bytes body_bytes question_bytes body_seconds pause_seconds
    events_at_once short_events pages line_messages answer_messages files_at_once files_read_at_once files_made_at_once
    readings_waiting reading_patience file_seconds rows_shown sessions store
    calls_at_once log log_prompts zero_gpu lend_from precision device teaches store_dataset engine"""
    shown = {*limits.TIMES, *limits.SIZES, *limits.COUNTS, *limits.NAMED_SIZES, *limits.NAMED_COUNTS}
    shown |= {*limits.STORED_SIZES, "store_days", "store_visitor_runs", "store_folders", "store_new_folders"}
    assert shown | set(own.split()) == {field.name for field in dataclasses.fields(Profile)}
    assert not shown & set(own.split())


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_stops_a_model_that_is_named_is_told_where_one_may_be_named(lang: str) -> None:
    names = (*limits.NAMED_SIZES, *limits.NAMED_COUNTS)
    words = {text(lang, f"limits.{name}") for name in names}
    assert not words & set(dict(limits.told(PROFILES["public"], lang)))
    some = dict(limits.told(dataclasses.replace(PROFILES["public"], named_models=("org/one",)), lang))
    assert [some[text(lang, f"limits.{name}")] for name in names] == ["4 GiB", "2 GiB", "128", "300,000"]
    assert words <= set(dict(limits.told(PROFILES["local"], lang)))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_how_long_a_prompt_may_be_is_told_and_is_what_refuses_it(lang: str) -> None:
    for profile in PROFILES.values():
        assert dict(limits.told(profile, lang))[text(lang, "limits.prompt_characters")] == "20,000"
    assert not st.check_prompt("a" * 20_000, lang)
    (problem,) = st.check_prompt("a" * 20_001, lang)
    assert "20" in problem.reason


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_a_class_folder_holds_is_told_where_there_may_be_one(lang: str) -> None:
    folders = text(lang, "limits.store_folders")
    names = {text(lang, f"limits.{name}") for name in ("folder_answers", "folder.folder_answer_bytes")}
    assert not {*names, folders} & set(dict(limits.told(PROFILES["class"], lang))), "nothing is kept here"
    kept = {name: dict(limits.told(dataclasses.replace(one, store="/x"), lang)) for name, one in PROFILES.items()}
    assert kept["class"][folders] == "200"
    assert kept["public"][folders] == text(lang, "limits.store_folders.host")
    quotas = quotas_of(PROFILES["class"])
    assert kept["class"][text(lang, "limits.folder_answers")] == f"{quotas.folder_answers:,}" == "2,000"
    assert kept["class"][text(lang, "limits.folder.folder_answer_bytes")] == "16 MiB"
    assert kept["class"][text(lang, "limits.folder.answer_bytes")] == "0.25 MiB"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_how_often_a_dataset_takes_something_is_told_where_there_is_one(lang: str) -> None:
    commits = text(lang, "limits.commits")
    kept = dataclasses.replace(PROFILES["public"], store="/x")
    assert commits not in dict(limits.told(kept, lang))
    assert dict(limits.told(dataclasses.replace(kept, store_dataset="a/b"), lang))[commits] == str(mirror.AN_HOUR)
