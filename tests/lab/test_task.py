"""Every number of every task has both ends, and is held against them before anything is made of it."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

import pytest

from loopviz.checks import ABSENT, FieldError
from loopviz.lab import TASKS, Subject
from loopviz.lab.task import (
    LOOP_ENDS,
    MOST_LISTED,
    BeyondEnds,
    check_ends,
    ends_of,
    options_of,
    param,
    param_of,
    params_from_json,
)
from loopviz.model.configuration import LOOP_FIELDS, LoopLlamaConfig
from tests.engine import kinds
from tests.model.tiny import build

FAR = (1e9 + 1, 10**400, -(10**400), math.nan, math.inf, -math.inf)
FIELDS = [(task, thing) for task in TASKS.values() for thing in dataclasses.fields(task.params)]


def numbers(task: Any, thing: Any) -> set[Any]:
    """Whether a field holds whole numbers or others, alone or several."""
    hint = typing.get_type_hints(task.params)[thing.name]
    return {kind for option in options_of(hint) for kind in (option, *typing.get_args(option))} & {int, float}


def several(task: Any, thing: Any) -> bool:
    hint = typing.get_type_hints(task.params)[thing.name]
    return any(typing.get_origin(option) is tuple for option in options_of(hint))


NUMBERED = [(task, thing) for task, thing in FIELDS if numbers(task, thing)]


@pytest.mark.parametrize(("task", "thing"), NUMBERED, ids=[f"{task.name}.{thing.name}" for task, thing in NUMBERED])
def test_every_number_states_both_ends(task: Any, thing: Any) -> None:
    low, high = thing.metadata["low"], thing.metadata["high"]
    assert None not in (low, high), f"{thing.name}: param(..., low=, high=)"
    assert -math.inf < low < high < math.inf
    default = thing.default
    for value in default if isinstance(default, tuple) else (default,):
        assert value is None or low <= value <= high


@pytest.mark.parametrize(("task", "thing"), NUMBERED, ids=[f"{task.name}.{thing.name}" for task, thing in NUMBERED])
def test_c2_a_number_beyond_its_ends_is_refused_before_anything_is_made_of_it(
    task: Any, thing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expanded(self: Any) -> None:
        raise AssertionError(f"{task.name}: parameters were made of it")

    monkeypatch.setattr(task.params, "__post_init__", expanded)
    low, high = ends_of(thing.metadata)
    for value in (high + 1, *FAR):
        if numbers(task, thing) == {int} and isinstance(value, float):
            value = 10**30 if value > 0 else -(10**30)
        with pytest.raises(BeyondEnds) as caught:
            params_from_json(task.params, {thing.name: (value,) if several(task, thing) else value})
        assert caught.value.field == thing.name
        assert len(str(caught.value)) < 200
    monkeypatch.setattr(task.params, "__post_init__", lambda self: None)
    with pytest.raises(BeyondEnds):
        params_from_json(task.params, {thing.name: (low - 1,) if several(task, thing) else low - 1})


@pytest.mark.parametrize(("task", "thing"), [pair for pair in FIELDS if several(*pair)])
def test_every_list_has_an_end(task: Any, thing: Any) -> None:
    inner = next(
        typing.get_args(option)[0]
        for option in options_of(typing.get_type_hints(task.params)[thing.name])
        if typing.get_origin(option) is tuple
    )
    one = "x" if inner is str else {} if inner not in (int, float) else inner(max(1, thing.metadata["low"]))
    with pytest.raises(BeyondEnds, match=f"{thing.name}: 1,000 entries; at most {thing.metadata['most']} are taken"):
        params_from_json(task.params, {thing.name: [one] * 1000})


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_states_what_it_costs(task: Any) -> None:
    assert task.work is not None


def test_every_whole_number_of_a_loop_has_ends() -> None:
    usual = {name: getattr(LoopLlamaConfig, name) for name in LOOP_FIELDS}
    assert {name for name, value in usual.items() if isinstance(value, int) and type(value) is not bool} == set(
        LOOP_ENDS
    )


@pytest.mark.parametrize("name", LOOP_ENDS)
@pytest.mark.parametrize("value", [10**9, 10**400, [2, 10**9], [[[10**9]]]])
def test_c2_a_loops_numbers_have_ends_too(name: str, value: Any) -> None:
    with pytest.raises(BeyondEnds, match=f"loop: {name}="):
        check_ends(TASKS["perplexity"].params, {"loop": {name: value}})
    with pytest.raises(BeyondEnds, match=f"loops: {name}="):
        check_ends(TASKS["compare"].params, {"loops": ({name: value},)})


def test_a_number_that_states_no_ends_has_the_usual_ones_and_a_list_an_end() -> None:
    @dataclasses.dataclass(frozen=True)
    class Params:
        n: int = param(1, "n", "n")
        many: tuple[float, ...] = param((), "many", "many")

    assert params_from_json(Params, {"n": 10**9, "many": [1] * MOST_LISTED}).n == 10**9
    for values in ({"n": 10**9 + 1}, {"many": [10**400]}, {"many": [0] * (MOST_LISTED + 1)}):
        with pytest.raises(BeyondEnds):
            params_from_json(Params, values)


def test_tokens_are_told_from_stretches_of_a_long_text() -> None:
    subject = Subject(build(), kinds.sentencepiece(), "tiny", "made up")
    text = "hello world " * 20_000
    exact = len(subject.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    assert subject.tokens_in(text) == pytest.approx(exact, rel=0.02)
    assert subject.tokens_in("hello") == len(subject.tokenizer("hello", add_special_tokens=False)["input_ids"])
    assert subject.tokens_in("") == 0


def test_a_refusal_of_a_configurations_own_field_stands_beside_the_configurations() -> None:
    """The manual's experiment has a parameter `loop_layers` and configurations that may have one."""
    params = TASKS["experiment"].params
    layers = FieldError("loop_layers", "x", "layers_typed")
    assert param_of(params, layers) == "loop_layers"
    assert param_of(params, layers.inside("mine")) == "loops"
    assert param_of(TASKS["perplexity"].params, FieldError("loop_damping", 2, "finite_in", range="(0, 1]")) == "loop"
    assert param_of(TASKS["perplexity"].params, FieldError("tokens", 1, "tokens_too_few")) == ""


def test_a_refusal_within_a_configuration_stands_beside_the_configurations_whatever_they_are_called() -> None:
    """A configuration called as a parameter, `seed`, had its refusals beside that parameter."""
    params = TASKS["experiment"].params
    assert param_of(params, FieldError("loop_count", 0, "whole_from_one").inside("seed")) == "loops"
    assert param_of(params, FieldError("", ABSENT, "logits_nan").inside("mine")) == "loops"
    assert param_of(params, FieldError("", ABSENT, "logits_nan")) == ""


def test_a_refusal_of_an_unknown_loop_field_stands_beside_the_loop_settings() -> None:
    """It stood beside nothing."""
    unknown = FieldError("foo", 1, "not_a_loop_field", known="loop_layers")
    assert param_of(TASKS["perplexity"].params, unknown) == "loop"
    assert param_of(TASKS["experiment"].params, unknown.inside("mine")) == "loops"


def test_a_refusal_of_a_line_of_a_file_stands_beside_the_file() -> None:
    blank = FieldError("prompt", ABSENT, "prompt_empty").inside("pairs='a.jsonl', line 3")
    assert param_of(TASKS["quality"].params, blank) == "pairs"


def deep(value: Any, times: int = 3000) -> Any:
    for _ in range(times):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("task", "values", "said"),
    [
        ("perplexity", {"text": 1e12}, "text=1000000000000.0: must be text"),
        ("perplexity", {"text": list(range(70))}, "text=[0, 1, 2, 3"),
        ("perplexity", {"window": [10**5000]}, "window=[≥10^5000]: must be a whole number"),
        ("perplexity", {"window": deep(1)}, "window=[[[[[["),
        ("where", {"damping": deep(1)}, "damping=[[[[[["),
        ("where", {"damping": [0.5] * 70}, "damping=[0.5, 0.5"),
    ],
)
def test_a_value_of_another_type_is_refused_as_that(task: str, values: dict[str, Any], said: str) -> None:
    """Ends were looked at first: {"text": 1e12} "must be from -1,000,000,000", a list deep in lists was a RecursionError."""
    with pytest.raises(FieldError) as caught:
        params_from_json(TASKS[task].params, values)
    assert caught.value.rule == "kind"
    assert str(caught.value).startswith(said)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [deep(10**9), {"loop_count": deep(10**9)}])
def test_a_number_deep_in_lists_of_loop_settings_has_ends_too(value: Any) -> None:
    with pytest.raises(FieldError, match="loop"):
        params_from_json(TASKS["perplexity"].params, {"loop": value})


ANATOMY = [task for task in TASKS.values() if task.group == "anatomy"]


def test_the_small_experiments_of_anatomy_stand_apart() -> None:
    names = [task.name for task in ANATOMY]
    assert names == ["norms", "rope_length", "grouped_queries", "cache_or_not", "roofline", "lora_count", "llama_sizes"]
    assert list(TASKS)[-len(names) :] == names, "after all others"
    with pytest.raises(FieldError, match="group='anatomie'"):
        dataclasses.replace(TASKS["norms"], group="anatomie")


@pytest.mark.parametrize("task", ANATOMY, ids=lambda task: task.name)
def test_an_experiment_of_anatomy_says_three_sentences_in_both_languages(task: Any) -> None:
    """What one sees, why it is so, and what it means for a loop: a sentence each."""
    for lang, end in (("en", "."), ("zh", "。")):
        for name in ("seen", "why", "looping"):
            said = task.words[lang][name]
            assert said.endswith(end)
            assert said.count(end if end == "。" else ". ") == (1 if end == "。" else 0), said
    assert "loop" in task.words["en"]["looping"]
    assert "循环" in task.words["zh"]["looping"]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_full_sets_all_that_quick_has_lowered(task: Any) -> None:
    """Quick lowers what `fits` names until it takes seconds; Full left that as it was, and measured as little."""
    quick, full = task.sizes
    assert set(quick.fits) <= set(quick.values) <= set(full.values)
    for name in quick.fits:
        assert full.values[name] >= quick.values[name]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_intervals_are_offered_where_the_words_speak_of_them(task: Any) -> None:
    """The page looked for the word in a sentence, and had no link where the table's columns say it."""
    said = task.words["en"]["how"] + "".join(column.words["en"] for column in task.columns)
    assert task.intervals == ("bootstrap" in said)


def test_quick_has_as_many_as_an_interval_needs() -> None:
    from loopviz.lab.kept import read_kept
    from loopviz.lab.tasks.loop_use import means
    from loopviz.paths import ASSETS

    frames = {
        name: read_kept(ASSETS / "runs" / f"lab-{name}.json").frame for name in ("loop_use", "quality", "prompts")
    }
    assert means(frames["loop_use"], "class")["low"].notna().any()
    for name in ("quality", "prompts"):
        figure = TASKS[name].plot(frames[name], "en")
        assert any(trace.error_y.array for trace in figure.data), name
