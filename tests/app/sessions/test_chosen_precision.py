"""One precision for all models of what a page asks for: what is none is refused by name, and where it cannot be had there is a way out."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from loopviz.app import controls as st
from loopviz.app.profile import LOCAL
from loopviz.app.sessions.chosen_precision import chosen, face_of, measured_in, refusals, way_out
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.sessions.ttt_models import TTTRoom, either_room
from loopviz.app.texts import LANGUAGES, text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_is_no_precision_is_refused_by_name(lang: str) -> None:
    assert chosen(None, lang) == chosen("", lang) == chosen("server", lang) == ("server", [])
    assert chosen("int8", lang) == ("int8", [])
    for wrong in ("coarse", 7, ["exact"], {"precision": "exact"}, True):
        precision, [problem] = chosen(wrong, lang)
        assert (precision, problem.control) == ("server", "precision")
        assert problem.reason.startswith("precision=")
        assert "server, exact, half, int8, auto" in problem.reason


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_way_out_is_exact_and_on_a_cluster_its_own(lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopviz.engine.address.find_spec", lambda name: object())
    room, cluster = ModelRoom("tiny"), ModelRoom("tiny", profile=replace(LOCAL, engine="ray://auto"))
    assert way_out("int8", room, lang) == {"label": text(lang, "precision.again"), "precision": "exact"}
    assert way_out("exact", room, lang) is None
    for precision in ("int8", "exact"):
        assert way_out(precision, cluster, lang) == {"label": text(lang, "precision.server"), "precision": st.SERVER}
    assert face_of("server", [], cluster, lang)["info"] == text(lang, "precision.info.cluster")
    half = ModelRoom("tiny", profile=replace(LOCAL, precision="half"))
    assert text(lang, "precision.half") in face_of("server", [], half, lang)["info"]
    refused = face_of("int8", [st.Problem("precision", "no kernel")], room, lang)
    assert refused == {"info": text(lang, "refused", reason="no kernel"), "on": True, "bad": True}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_was_measured_says_in_which_format_where_that_is_not_float32(lang: str) -> None:
    assert measured_in({"a": "float32", "b": "float32"}, lang) == ""
    assert "int8" in measured_in({"a": "int8"}, lang)
    assert "a" not in re.sub(r"weights held in|Measured with", "", measured_in({"a": "int8"}, "en"))
    several = measured_in({"a": "int8", "/there/b": "float32", "c": "int8"}, lang)
    assert "int8 (a" in several
    assert "float32 (b)" in several, "by its short name"


class Made:
    """What a room holds of a model."""

    n_bytes = layers = parameters = 1


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_ttt_model_is_float32_alone_whatever_the_server_holds_others_in(lang: str) -> None:
    made = Made()
    ttt: Any = TTTRoom("stories-ttt", profile=replace(LOCAL, precision="int8"), load=lambda *_: made)
    assert ttt.get("stories-ttt", lang) is ttt.get("stories-ttt", lang, precision="exact") is made
    for precision in ("int8", "half", "auto"):
        with pytest.raises(ModelRefused, match="stories-ttt") as refused:
            ttt.get("stories-ttt", lang, precision=precision)
        assert (refused.value.field, f"precision='{precision}'" in str(refused.value)) == ("precision", True)
        assert str(refused.value) == text(lang, "limit.precision_ttt", precision=precision, name="stories-ttt")
    assert ttt.held() == 1, "nothing is loaded for it"


def test_both_kinds_of_models_are_asked_for_in_one_precision() -> None:
    seen: list[tuple[str, str]] = []

    def load(name: str, progress: Any, local: bool, precision: str = "") -> Any:
        seen.append((name, precision))
        return Made()

    both = either_room(ModelRoom("tiny", load=load))
    both.get("tiny", precision="int8")
    with pytest.raises(ModelRefused):
        both.get("stories-ttt", precision="int8")
    assert seen == [("tiny", "int8")]
    statuses = [both.status(name, "int8") for name in ("tiny", "stories-ttt")]
    [problem] = refusals(statuses, "en")
    assert (problem.control, "stories-ttt" in problem.reason) == ("precision", True)
