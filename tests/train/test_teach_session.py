"""A teaching as events, and the door by which a page begins one: what it says, what it refuses, what it keeps."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from loopviz.checks import FieldError
from loopviz.engine.local import LocalEngine
from loopviz.model.checkpoints import load_checkpoint
from loopviz.train import teach_door
from loopviz.train.instructions import read_instructions
from loopviz.train.teach_data import TeachInstructions
from loopviz.train.teach_door import field_of, least_tokens, needed_bytes, prepare
from loopviz.train.teach_form import FILES, NUMBERS, command_of, recipe_of, usual
from loopviz.train.teach_session import Converged
from loopviz.train.trainer import Evaluated, Stepped
from tests.train.small import story

pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")

FORM = {"first": 1, "last": 1, "least": 1, "most": 2, "rank": 2, "alpha": 4, "lr": 0.02, "steps": 4, "batch": 2}
FORM |= {"window": 8, "every": 2, "seed": 3, "kind": "text"}
PROMPT = "the cat sat on"


@pytest.fixture
def engine(llama_folder: Any) -> LocalEngine:
    folder = str(llama_folder(max_position_embeddings=512))  # room for a template
    loaded = load_checkpoint(folder)
    return LocalEngine(folder, loaded.model, loaded.tokenizer, "made here")


@pytest.fixture
def given(tmp_path: Path) -> str:
    return story(tmp_path / "t.txt").read_text("utf-8")


def test_a_teaching_tells_of_every_step_and_what_is_kept_is_what_was_measured(
    engine: LocalEngine, given: str, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in engine.model.state_dict().items()}
    session = prepare(engine, FORM, given, PROMPT, tmp_path / "a").begin()
    events = list(session.events())
    kinds = [type(event) for event in events]
    measured = [Evaluated, Converged]
    assert kinds == [*measured, Stepped, Stepped, *measured, Stepped, Stepped, *measured]
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    assert [event.step for event in evaluated] == [0, 2, 4]
    assert evaluated[0].result.loops == (1, 2, 3, 4), "two loops more than it is taught"
    assert evaluated[2].result.loss != evaluated[0].result.loss
    curves = [event for event in events if isinstance(event, Converged)]
    assert [len(curve.mean) for curve in curves] == [4, 4, 4]
    assert curves[0].mean[0] > 0
    assert curves[2].mean != curves[0].mean
    assert all(bool((engine.model.state_dict()[name] == value).all()) for name, value in before.items())

    closing = session.close()
    best = session.keep(tmp_path / "kept", closing, "the command")
    assert best in (1, 2)
    opened = load_checkpoint(engine.name, adapter=tmp_path / "kept")
    assert opened.model.config.loop_count == best
    found = session.task.measure(opened.model.with_loop(loop_count=2, max_loop_count=4), final=True)
    assert found.loss[:2] == pytest.approx(closing.taught.loss[:2], abs=1e-5)
    assert "the command" in (tmp_path / "kept" / "README.md").read_text("utf-8")
    assert json.loads((tmp_path / "kept" / "results.json").read_text("utf-8"))["loop_count"] == best

    again = list(prepare(engine, FORM, given, PROMPT, tmp_path / "b").begin().events())
    assert again == events, "the seed decides it"


def test_what_was_learned_is_had_again_on_a_base_that_is_read_once_more(
    engine: LocalEngine, given: str, tmp_path: Path
) -> None:
    """Nobody holds a copy of the model between the end of a training and its being kept."""
    prepared = prepare(engine, FORM, given, PROMPT, tmp_path / "a")
    session = prepared.begin()
    for event in session.events():
        if isinstance(event, Stepped) and event.step == 3:
            break
    session.save()
    again = prepared.again(session.recipe)
    assert again.trainer.progress == session.trainer.progress
    assert again.trainer.trained == session.trainer.trained
    assert again.close() == session.close()
    rows = (tmp_path / "a" / "run" / "train.csv").read_text("utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "3"]
    assert again.close().taught.loss != again.close().naive.loss, "it has learned something"


def test_what_was_learned_waits_where_memory_is_short_or_the_base_is_another(
    engine: LocalEngine, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(engine, FORM, given, PROMPT, tmp_path / "a")
    session = prepared.begin()
    list(session.events())
    needs = prepared.needs
    for free, rule in ((needs.copy + needs.evaluation - 1, "teach_keep_memory"), (needs.copy + needs.evaluation, None)):
        monkeypatch.setattr(teach_door, "available_memory", lambda free=free: free)
        if rule is None:
            prepared.again(session.recipe)
            continue
        with pytest.raises(FieldError) as refused:
            prepared.again(session.recipe)
        assert refused.value.rule == rule
    monkeypatch.setattr(teach_door, "available_memory", lambda: 0)
    with pytest.raises(FieldError) as refused:
        prepared.begin()
    assert refused.value.rule == "teach_memory", "it was free as it was asked for, and is not any more"
    monkeypatch.undo()
    with pytest.raises(FieldError) as refused:
        prepared.again(dataclasses.replace(session.recipe, base_sha256="0" * 64))
    assert refused.value.rule == "teach_base_changed"


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="what is mapped is told by Linux alone")
def test_no_file_of_a_teaching_is_open_once_it_is_prepared(engine: LocalEngine, given: str, tmp_path: Path) -> None:
    """Windows removes no file that is mapped: the folder stayed for good."""
    folder = tmp_path / "a"
    prepared = prepare(engine, FORM, given, PROMPT, folder)
    assert (folder / "run" / "train.npy").is_file()
    mapped = Path("/proc/self/maps").read_text("utf-8", "replace")
    assert str(folder) not in mapped
    assert len(prepared.task.batch(0).ids), "it is in memory"

    with pytest.raises(FieldError):
        prepare(engine, FORM, "the cat", PROMPT, tmp_path / "b")
    assert str(tmp_path / "b") not in Path("/proc/self/maps").read_text("utf-8", "replace")


def test_a_card_tells_processor_time_only_where_it_is_the_training_s(
    engine: LocalEngine, given: str, tmp_path: Path
) -> None:
    """On a page it was that of the whole server."""
    prepared = prepare(engine, FORM, given, PROMPT, tmp_path / "a")
    session = prepared.begin()
    list(session.events())
    closing = session.close()
    session.keep(tmp_path / "page", closing, "a command")
    page = (tmp_path / "page" / "README.md").read_text("utf-8")
    assert " minutes, evaluations included" in page
    assert "processor time" not in page
    told = json.loads((tmp_path / "page" / "results.json").read_text("utf-8"))["progress"]
    assert set(told) == {"step", "tokens", "seconds"}
    session.trainer.progress.cpu_seconds = 90.0  # as in a command, which does nothing else
    session.keep(tmp_path / "command", closing, "a command")
    assert " minutes (1.5 of processor time)" in (tmp_path / "command" / "README.md").read_text("utf-8")


def test_a_teaching_ends_between_two_steps_and_inside_of_one(engine: LocalEngine, given: str, tmp_path: Path) -> None:
    session = prepare(engine, FORM, given, PROMPT, tmp_path / "a").begin()
    steps = [event for event in session.events(lambda: True) if isinstance(event, Stepped)]
    assert [event.step for event in steps] == [1]
    assert session.trainer.ended

    class Soon:
        def __init__(self) -> None:
            self.asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 40

    other = prepare(engine, {**FORM, "steps": 50, "every": 50}, given, PROMPT, tmp_path / "b").begin()
    done = [event for event in other.going(Soon()) if isinstance(event, Stepped)]
    assert other.trainer.progress.step == len(done) < 50
    assert other.close().taught.loss, "what was learned until then can be measured, and kept"


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"last": 9}, "last", "whole_in"),
        ({"first": 2, "last": 1}, "last", "at_least"),
        ({"least": 3}, "most", "at_least"),
        ({"rank": 0}, "rank", "whole_in"),
        ({"lr": float("nan")}, "lr", "finite_from"),
        ({"alpha": 0}, "alpha", "finite_from"),
        ({"steps": 1.5}, "steps", "whole_in"),
        ({"every": 5}, "every", "whole_in"),
        ({"window": 5000}, "window", "whole_in"),
        ({"kind": "song"}, "kind", "one_of"),
    ],
)
def test_a_form_is_refused_beside_its_field(
    engine: LocalEngine, given: str, tmp_path: Path, change: dict[str, Any], field: str, rule: str
) -> None:
    with pytest.raises(FieldError) as refused:
        prepare(engine, {**FORM, **change}, given, PROMPT, tmp_path / "a")
    assert (field_of(refused.value), refused.value.rule) == (field, rule)


@pytest.mark.parametrize(
    ("kind", "given", "rule"),
    [
        ("text", "  \n", "prompt_empty"),
        ("text", "the cat", "teach_short"),
        ("text", "half \ud800", "half_pair"),
        ("instructions", "the cat sat", "not_json"),
        ("instructions", '{"prompt": "a"}', "record_keys"),
        ("instructions", '{"prompt": "a", "response": 1}', "text_kind"),
        ("instructions", '{"prompt": "a", "response": "b"}', "teach_rows"),
        ("instructions", "[]", "records_empty"),
    ],
)
def test_data_that_cannot_be_learned_is_refused_beside_the_text(
    engine: LocalEngine, tmp_path: Path, kind: str, given: str, rule: str
) -> None:
    with pytest.raises(FieldError) as refused:
        prepare(engine, {**FORM, "kind": kind}, given, PROMPT, tmp_path / "a")
    assert (field_of(refused.value), refused.value.rule) == ("text", rule)


def test_instructions_are_taught_on_their_responses(engine: LocalEngine, tmp_path: Path) -> None:
    rows = "\n".join(json.dumps({"prompt": "the cat", "response": f"sat {'big ' * n}"}) for n in range(1, 7))
    prepared = prepare(engine, {**FORM, "kind": "instructions", "window": 30}, rows, PROMPT, tmp_path / "a")
    assert prepared.task.data()["held_out"] == {"rows": 1}
    assert FILES["instructions"] in prepared.command


@pytest.mark.parametrize("template", ["own", "none", "chat", "alpaca", "vicuna"])
def test_prompts_are_put_in_the_template_that_was_chosen(engine: LocalEngine, tmp_path: Path, template: str) -> None:
    rows = "\n".join(json.dumps({"prompt": "the cat", "response": f"sat {'big ' * n}"}) for n in range(1, 4))
    asked = {**FORM, "kind": "instructions", "window": 300, "template": template}
    prepared = prepare(engine, asked, rows, PROMPT, tmp_path / "a")
    file = prepared.folder / FILES["instructions"]
    put = "chat" if template == "own" else template  # the model has one
    wanted = read_instructions(file, put, engine.tokenizer, 300)
    task = prepared.task
    assert isinstance(task, TeachInstructions)
    assert [*task.train, *task.test] == wanted
    assert task.data()["template"] == put
    assert (f"--template {template}" in prepared.command) == (template != "own"), "the command chooses its own as well"


def test_a_template_that_cannot_be_is_refused_beside_it(engine: LocalEngine, given: str, tmp_path: Path) -> None:
    rows = "\n".join(json.dumps({"prompt": "the cat", "response": "sat"}) for _ in range(3))
    bare = copy.deepcopy(engine.tokenizer)
    bare.chat_template = None
    base = LocalEngine(engine.name, engine.model, bare, "made here")
    records = {**FORM, "kind": "instructions", "window": 60}
    for model, asked, text, rule in (
        (engine, {**FORM, "template": "alpaca"}, given, "teach_template"),
        (engine, {**records, "template": "haiku"}, rows, "one_of"),
        (base, {**records, "template": "chat"}, rows, "chat_none"),
    ):
        with pytest.raises(FieldError) as refused:
            prepare(model, asked, text, PROMPT, tmp_path / "a")
        assert (field_of(refused.value), refused.value.rule) == ("template", rule)
    assert not (tmp_path / "a").exists()
    task = prepare(base, records, rows, PROMPT, tmp_path / "a").task
    assert task.data()["template"] == "none", "its own, where it has one"


def test_a_text_is_long_enough_or_the_number_that_is_said_is(engine: LocalEngine, tmp_path: Path) -> None:
    least = least_tokens(recipe_of(FORM, "tiny"))
    with pytest.raises(FieldError) as refused:
        prepare(engine, FORM, "a", PROMPT, tmp_path / "a")
    assert refused.value.places["least"] == least
    prepared = prepare(engine, FORM, "x" * 500, PROMPT, tmp_path / "b")
    tokens = len(prepared.task.train) + len(prepared.task.test)
    assert tokens >= least, "else the number that is said means nothing"
    assert len(prepared.task.train) > 8
    assert len(prepared.task.test) >= 2
    assert least - 1 - int((least - 1) * 0.05) <= 8 or int((least - 1) * 0.05) < 2, "one less is too little"


@pytest.mark.parametrize(("prompt", "rule"), [("", "prompt_blank"), ("cat " * 400, "teach_prompt")])
def test_a_fixed_prompt_that_cannot_be_read_is_refused(
    engine: LocalEngine, given: str, tmp_path: Path, prompt: str, rule: str
) -> None:
    with pytest.raises(FieldError) as refused:
        prepare(engine, FORM, given, prompt, tmp_path / "a")
    assert (field_of(refused.value), refused.value.rule) == ("prompt", rule)


def test_what_memory_does_not_hold_is_refused_beside_what_takes_it(
    engine: LocalEngine, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = needed_bytes(engine.model, recipe_of(FORM, "tiny"))
    held, step = needs.copy, needs.step
    for free, field in ((held - 1, "model"), (held + step - 1, "batch"), (held + step, None)):
        monkeypatch.setattr(teach_door, "available_memory", lambda free=free: free)
        if field is None:
            prepare(engine, FORM, given, PROMPT, tmp_path / "a")
            continue
        with pytest.raises(FieldError) as refused:
            prepare(engine, FORM, given, PROMPT, tmp_path / "a")
        assert (field_of(refused.value), refused.value.rule) == (field, "teach_memory")


def test_the_command_that_is_shown_makes_the_same_recipe(tmp_path: Path) -> None:
    import argparse
    import shlex

    from loopviz.cli import teach as command

    parser = argparse.ArgumentParser()
    command.add_parsers(parser.add_subparsers(dest="command"))
    for name in FILES.values():
        (tmp_path / name).write_text("a text", encoding="utf-8")
    free = {"checkpoint_every"}  # a page's run is resumed by nobody
    for more in ({}, {"kind": "instructions"}, {"kind": "instructions", "template": "vicuna"}):
        wanted = recipe_of({**FORM, "steps": 30, "every": 7, **more}, "tiny")
        typed = shlex.split(command_of(wanted, "tiny").removeprefix("python -m loopviz "))
        options = parser.parse_args([str(tmp_path / word) if word in FILES.values() else word for word in typed])
        made = command._recipe(options).to_dict()
        assert {**made, **dict.fromkeys(free)} == {**wanted.to_dict(), **dict.fromkeys(free)}


def test_a_form_opens_with_what_suits_a_model() -> None:
    assert usual(2, 5, 256) == {"first": 2, "last": 5, "window": 64}
    assert usual(2, 5, 40)["window"] == 40
    recipe_of({number.name: number.value for number in NUMBERS}, "any")
