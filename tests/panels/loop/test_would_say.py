"""What it would say: the recorded words at the right places, flips counted by hand, and honest absences."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.panels import LANGUAGES, PANELS, Focus, figure_json
from loopviz.panels.loop.would_say import CELLS, PLACES, ROWS, flips, places, shown_steps
from loopviz.trace import Trace
from tests.panels.cases import looped, smollm2, wire_size

panel = PANELS["would_say"]


def drawn(trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def speak(trace, at, rows, lens=""):
    """Make frame ``at`` say ``rows``: for every step, pairs of a text and its probability. Ids are one a text."""
    block = trace.frames[at]["blocks"][0]
    ids = {text: i for i, text in enumerate(sorted({text for row in rows for text, _ in row}))}
    block["n_steps"] = len(rows)
    block["steps"][f"{lens}topk_ids"] = [[ids[text] for text, _ in row] for row in rows]
    block["steps"][f"{lens}topk_texts"] = [[text for text, _ in row] for row in rows]
    block["steps"][f"{lens}topk_logprobs"] = [[math.log(p) for _, p in row] for row in rows]
    trace.frames[at]["next_id"] = -1
    return ids


STORY = [
    [(" the", 0.5), (" a", 0.25), ("\n", 0.125)],
    [(" a", 0.5), (" the", 0.25), ("\n", 0.125)],
    [(" a", 0.75), ("\n", 0.125), (" the", 0.0625)],
    [(" dog", 0.9), (" a", 0.05), (" the", 0.01)],
]


def told(**focus):
    trace = looped(top_k=3)
    ids = speak(trace, 7, STORY)
    trace.frames[7]["next_id"] = ids[" dog"]
    return drawn(trace, token=7, **focus)


def test_words_and_probabilities_by_hand():
    winner, others, marks = told()["data"]
    assert winner["y"] == others["y"] == ["1", "2", "3", "4"]
    assert [row[0] for row in winner["text"]] == ["␣the", "␣a", "␣a", "␣dog"]
    assert others["text"] == [["␣a", "↵"], ["␣the", "↵"], ["↵", "␣the"], ["␣a", "␣the"]]
    assert [row[0] for row in winner["z"]] == [pytest.approx(p, rel=0.05) for p in (0.5, 0.5, 0.75, 0.9)]
    assert others["z"][3] == [pytest.approx(0.05), pytest.approx(0.01)]
    assert winner["customdata"][0][0] == pytest.approx(math.log(0.5), abs=1e-3)
    assert marks["y"] == ["2", "4"], "the winner changed at steps 2 and 4"
    assert marks["text"] == ["“␣the” → “␣a”", "“␣a” → “␣dog”"]


def test_b7_cells_say_the_word_in_quotes_and_its_probability():
    winner, others, _ = told()["data"]
    for trace in (winner, others):
        assert trace["texttemplate"] == "“%{text}”<br>%{z:.2~p}"


def test_b7_the_scale_reaches_from_nothing_to_the_likeliest_shown():
    axis = told()["layout"]["coloraxis"]
    assert (axis["cmin"], axis["cmax"]) == (0, pytest.approx(0.9))
    assert axis["colorbar"]["tickvals"] == [0, axis["cmax"]]
    trace = looped(top_k=2)
    speak(trace, 7, [[("a", 0.04), ("b", 0.01)]])
    assert drawn(trace)["layout"]["coloraxis"]["cmax"] == pytest.approx(0.04), (
        "of hardly likely words the best is bright too"
    )


def test_b7_its_rows_fill_the_frame_whatever_other_words_took():
    """A8: of a frame for 16 steps, 6 filled a third."""
    for rows, room in ((STORY[:2], 4), (STORY, 4), ([*STORY, *STORY[:2]], 6)):
        trace = looped(top_k=3, max_steps=16)
        speak(trace, 7, rows)
        assert drawn(trace, token=7)["layout"]["yaxis"]["range"] == [room - 0.5, -0.5]


def test_b7_what_is_hardly_possible_is_told_in_few_characters():
    trace = looped(top_k=3)
    speak(trace, 7, [[("a", 0.5), ("b", 3.14e-4), ("c", 1e-7)]])
    _, others, _ = drawn(trace)["data"]
    assert others["z"] == [[0.0003, 0.0]]


def test_the_word_that_came_next_is_named_where_it_stands():
    winner = told()["data"][0]
    assert "came next" in winner["customdata"][3][0]
    assert not any("came next" in str(row) for row in winner["customdata"][:3])


def test_the_title_says_the_last_word_and_since_when():
    assert "step 4 says “␣dog” (90 %)" in told()["layout"]["title"]["text"]
    trace = looped(top_k=3)
    speak(trace, 7, STORY[:3])
    assert "step 3 says “␣a” (75 %), as since step 2" in drawn(trace)["layout"]["title"]["text"]
    speak(trace, 7, [*STORY, STORY[3]])
    assert "step 5 says “␣dog” (90 %), as since step 4" in drawn(trace)["layout"]["title"]["text"]


def test_the_summary_says_the_winner_of_every_step():
    trace = looped(top_k=3)
    speak(trace, 7, STORY)
    said = panel.summary(trace, Focus())
    for part in ("step 1 “the”", "step 2–3 “a”", "step 4 “dog”", "changes 2 times", "90 %"):
        assert part in said


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_the_step_pointed_at_is_outlined_if_it_ran(step):
    shape = told(step=step)["layout"]["shapes"][0]
    assert shape["visible"] == (step <= 4)
    if step <= 4:
        assert (shape["y0"], shape["y1"]) == (step - 1.5, step - 0.5)


def test_every_lens_shows_its_own_words():
    trace = looped(extras=("exit",))
    speak(trace, 7, STORY)
    speak(trace, 7, [[("exit!", 0.8), ("x", 0.1), ("y", 0.05)]] * 4, lens="exit_")
    assert drawn(trace, lens="exit")["data"][0]["text"] == [["exit!"]] * 4
    assert drawn(trace, lens="direct")["data"][0]["text"][0] == ["␣the"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_an_exit_lens_not_recorded_is_said_on_screen(lang):
    figure, words = drawn(looped(), lens="exit", lang=lang), panel.TEXTS[lang]
    notice = figure["layout"]["annotations"][0]
    assert notice["visible"]
    assert re.sub(r"<br>| ", "", notice["text"]) == words["not_recorded"].replace(" ", "")
    assert figure["data"][0]["z"] == figure["data"][1]["z"] == []
    assert panel.summary(looped(), Focus(lens="exit", lang=lang)) == words["not_recorded"]
    (exit_option,) = [
        label for value, label in figure["layout"]["meta"]["choices"]["lens"]["options"] if value == "exit"
    ]
    recorded = drawn(looped(extras=("exit",)), lens="exit", lang=lang)
    assert [value for value, _ in recorded["layout"]["meta"]["choices"]["lens"]["options"]] == ["direct", "exit"]
    assert exit_option not in json.dumps(recorded["layout"]["meta"], ensure_ascii=False), "it says that it was not"
    assert not recorded["layout"]["annotations"][0]["visible"]


def test_the_exit_lens_of_an_earlier_block_names_the_block_that_has_one():
    trace = looped(blocks=[(0, 1), (3, 4)], extras=("exit",))
    assert "choose block 1" in panel.summary(trace, Focus(lens="exit", block=0))
    assert "choose block" not in panel.summary(trace, Focus(lens="exit", block=1))


words = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=1), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(ids=words)
def test_rows_and_flips_of_any_run(ids):
    changed = [r for r in range(2, len(ids) + 1) if ids[r - 1][0] != ids[r - 2][0]]
    assert flips(ids) == changed
    shown = shown_steps(ids)
    assert shown == sorted(set(shown))
    assert len(shown) == min(len(ids), ROWS)
    assert {1, len(ids)} <= set(shown)
    if len(changed) <= ROWS - 2:
        assert set(changed) <= set(shown), "a change of the winner is never left out while there is room"


@pytest.mark.parametrize("max_steps", [1, 4, 8, 16, 64, 500])
@pytest.mark.parametrize("top_k", [1, 3, 20])
def test_what_a_token_costs_is_bounded(max_steps, top_k):
    count = places({"top_k": top_k}, max_steps)
    assert 1 <= count <= min(PLACES, top_k)
    assert count * min(max_steps, ROWS) <= max(CELLS, 3 * ROWS)


@pytest.mark.parametrize(("max_steps", "limit"), [(4, 900), (16, 2200), (60, 2300)])
def test_a_token_is_small_on_the_wire(max_steps, limit):
    trace = smollm2(tokens=40) if max_steps == 4 else looped(40, max_steps=max_steps, strategy="fixed_count")
    for at in range(20, 40):
        ops = panel.patch(Trace(trace.meta, trace.frames[:at]), trace.frames[at], Focus())
        assert wire_size(ops) <= limit


def test_a_word_the_cell_cuts_is_whole_in_the_hover():
    trace = looped(top_k=2)
    speak(trace, 7, [[(" antidisestablish", 0.9), ("shortish", 0.1)]])
    winner, others, _ = drawn(trace)["data"]
    assert winner["text"][0][0].endswith("…")
    assert "␣antidisestablish”" in winner["customdata"][0][0]
    assert "-0.105" in winner["customdata"][0][0]
    assert others["text"][0][0].endswith("…")
    assert "shortish" in others["customdata"][0][0]


def test_undefined_log_probabilities_leave_a_gap():
    trace = looped(top_k=2)
    speak(trace, 7, [[("a", 0.5), ("b", 0.25)]])
    trace.frames[7]["blocks"][0]["steps"]["topk_logprobs"] = [[None, -1.0]]
    winner, others, _ = drawn(trace)["data"]
    assert winner["z"] == [[None]]
    assert others["z"] == [[pytest.approx(math.exp(-1), rel=0.05)]]
    assert "undefined" in drawn(trace)["layout"]["title"]["text"]
