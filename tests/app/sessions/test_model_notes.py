"""What is to be known of a model that loads is told on the page, in either language and without the server's paths."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loopviz.app.explore.answers import Questions
from loopviz.app.explore.run import Registry
from loopviz.app.sessions import model_notes
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import LANGUAGES, table
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.model import LoopLlamaConfig
from loopviz.model.checkpoints.load import UNTRAINED, Note
from loopviz.model.families import FAMILIES, PLAIN

PACKAGE = Path(model_notes.__file__).resolve().parents[2]
DROPPED = Note("pad_token_id_dropped", "in /srv/m", {"field": "pad_token_id", "ids": [32000], "rows": 32000})
MARK = Note("bos_as_configured", "in /srv/m", {"mark": "bos", "asked": True})
WORDS = Note("tokens_without_row", "…", {"tokens": {"<x>": 9, "<y>": 10, "<z>": 11, "<w>": 12}, "rows": 9})


def written() -> list[str]:
    """The codes of all notes in the source of model and engine; of one that is put together, with "pad" or "bos" in it."""
    codes = []
    for file in [*(PACKAGE / "model").rglob("*.py"), *(PACKAGE / "engine").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Note" and node.args:
                code = node.args[0]
                if isinstance(code, ast.JoinedStr):
                    codes.append(
                        "".join(
                            getattr(part, "value", "x") if isinstance(part, ast.Constant) else "x"
                            for part in code.values
                        )
                    )
                else:
                    codes.append(UNTRAINED if isinstance(code, ast.Name) else code.value)
    return codes


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_note_there_is_has_words(lang: str) -> None:
    codes = written()
    assert len(codes) > 8
    families = [f"family.{family.name}" for family in FAMILIES if family is not PLAIN]
    assert {"family.x", "precision_half", "precision_cost"} <= {*codes}
    for code in [code for code in codes if code != "family.x"] + families:
        for asked in (True, False):
            assert model_notes.key_of(code, {"asked": asked}) in table(lang), code


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_note_is_told_with_its_values_and_without_paths(lang: str) -> None:
    said = model_notes.told([DROPPED, DROPPED, MARK, WORDS, Note("of_tomorrow", "in /srv/m")], lang)
    assert len(said) == 4, "each once"
    assert not any("/srv" in one or "{" in one for one in said)
    assert "32000" in said[0]
    assert "bos" in said[1]
    assert "<x>, <y>, <z>, …" in said[2]
    assert "of_tomorrow" in said[3]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_a_precision_costs_is_told_in_numbers(lang: str) -> None:
    cost = {"dtype": "int8", "kl": "0.012", "same": "97", "tokens": "64", "size": "219", "exact_size": "538"}
    cost |= {"ms": "48.1", "exact_ms": "73"}
    floor = {"dtype": "float16", "floor": "4.9e-04"}
    auto = {"dtype": "float16", "exact_ms": 180.5, "chosen_ms": 91.2, "enough": 125.0}
    several = [("precision_cost", cost), ("precision_auto", auto), ("precision_refused", {"dtype": "int8"})]
    several += [
        ("precision_auto_exact", {"exact_ms": 80.5, "enough": 125.0}),
        ("precision_auto_none", {"exact_ms": 180.5}),
    ]
    for code, values in (*several, ("precision_floor", floor), ("precision_floor_int8", floor)):
        (said,) = model_notes.told([Note(code, "", values)], lang)
        assert "{" not in said
        assert all(str(value) in said for value in values.values()), said


def _loaded(config: Any, *found: Note) -> Loaded:
    model = SimpleNamespace(config=config, parameters=lambda: [], modules=lambda: [])
    return Loaded("a", model, None, notes=found)


def _asked(loaded: Loaded, lang: str = "en") -> dict[str, Any]:
    room = ModelRoom("a", load=lambda *_: loaded)
    room.get("a")
    return json.loads(Questions(Registry(), room).model_status(json.dumps({"lang": lang})))


def test_a_page_that_asks_for_a_model_gets_its_notes() -> None:
    plain = LoopLlamaConfig(num_hidden_layers=4)
    assert "notes" not in _asked(_loaded(plain)), "nothing is said where there is nothing to say"
    one = _asked(_loaded(plain, MARK))["notes"]
    assert (one["count"], one["about"], len(one["said"])) == ("1 note", "To know about a", 1)
    assert _asked(_loaded(plain, MARK, WORDS), "zh")["notes"]["count"] == "2 条说明"


def test_what_the_controls_cannot_hold_of_a_model_s_loop_is_told() -> None:
    wide = LoopLlamaConfig(num_hidden_layers=4, loop_layers=(1, 2), loop_count=60, max_loop_count=60)
    (said,) = _asked(_loaded(wide))["notes"]["said"]
    assert "loop_count" in said


def test_c3_a_name_that_a_stranger_s_file_brings_is_not_sent_whole() -> None:
    """A page asks again and again where a model is: a token's name of a megabyte went along each time."""
    note = Note("tokens_without_row", "", {"tokens": {"x" * 10**6: 400}, "rows": 320})
    assert len(model_notes.told([note], "en")[0]) < 1_000
