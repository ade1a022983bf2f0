"""The slider under a measurement's figure: its stops are the table's values, its sentences are made of their rows."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from loopviz.app.lab.recorded import stored
from loopviz.lab import TASKS
from loopviz.lab.walk import MOST_STOPS, Walk, alone, stops, until

WORDS = {"en": "A", "zh": "甲"}
WALKED = [name for name, task in TASKS.items() if task.walk is not None]


def said(rows: Any, lang: str) -> str:
    return f"{lang} {[row['y'] for row in rows]}"


def rows(*pairs: tuple[Any, float]) -> list[dict[str, Any]]:
    return [{"a": a, "y": y} for a, y in pairs]


def test_each_small_experiment_of_anatomy_has_a_slider() -> None:
    assert [name for name, task in TASKS.items() if task.group == "anatomy"] == WALKED


def test_a_value_s_rows_are_one_stop_and_stops_go_from_left_to_right() -> None:
    walk = Walk("a", WORDS, lambda row: row["y"], said)
    found = stops(walk, rows((2, 5.0), (2, 9.0), (1, 3.0), (3000, 7.0)), "en")
    assert [(stop.at, stop.x, stop.said) for stop in found] == [
        ("1", 3.0, "en [3.0]"),
        ("2", 5.0, "en [5.0, 9.0]"),
        ("3,000", 7.0, "en [7.0]"),
    ]


def test_a_stop_may_speak_of_all_rows_up_to_it() -> None:
    walk = Walk("a", WORDS, lambda row: row["a"], said, until)
    assert [stop.said for stop in stops(walk, rows((1, 5.0), (1, 6.0), (2, 7.0)), "zh")] == [
        "zh [5.0, 6.0]",
        "zh [5.0, 6.0, 7.0]",
    ]


def test_where_nothing_is_known_there_is_no_stop() -> None:
    walk = Walk("a", WORDS, lambda row: row["y"], lambda rows, lang: "" if rows[0]["a"] == 1 else "x")
    assert [stop.at for stop in stops(walk, rows((1, 1.0), (2, math.nan), (3, math.inf), (4, 4.0)), "en")] == ["4"]
    assert stops(walk, [], "en") == []


def test_of_very_many_values_the_last_is_kept() -> None:
    many = rows(*((i, float(i)) for i in range(10 * MOST_STOPS + 3)))
    found = stops(Walk("a", WORDS, lambda row: row["a"], said), many, "en")
    assert MOST_STOPS / 2 < len(found) <= MOST_STOPS
    assert found[-1].x == 10 * MOST_STOPS + 2


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("name", WALKED)
def test_every_stop_is_a_place_of_the_figure_and_says_something_of_its_own(name: str, lang: str) -> None:
    kept, task = stored(name), TASKS[name]
    assert kept is not None
    assert task.walk is not None
    assert task.plot is not None
    found = stops(task.walk, kept.rows, lang)
    assert len(found) == len({row[task.walk.column] for row in kept.rows})
    assert len({stop.said for stop in found}) == len(found)
    drawn = [float(x) for trace in task.plot(kept.frame, lang).data for x in trace.x]
    assert all(any(math.isclose(stop.x, x) for x in drawn) for stop in found)
    assert bool(re.search("[\u4e00-\u9fff]", found[0].said)) == (lang == "zh")


def test_the_last_stop_says_what_the_measurement_comes_to() -> None:
    for name in ("norms", "cache_or_not", "rope_length"):
        kept, task = stored(name), TASKS[name]
        assert kept is not None
        assert task.walk is not None
        assert task.headline is not None
        assert stops(task.walk, kept.rows, "en")[-1].said == task.headline(kept.rows, "en")


def test_a_sentence_s_numbers_are_its_own_rows() -> None:
    kept, walk = stored("lora_count"), TASKS["lora_count"].walk
    assert kept is not None
    assert walk is not None
    [five] = [stop for stop in stops(walk, kept.rows, "en") if stop.at == "5"]
    assert "3,000 numbers instead of 50,000: 6 %" in five.said
    assert alone(kept.rows, "rank", 5)[0]["trained"] == 5 * 100 + 500 * 5
