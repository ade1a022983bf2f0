"""Text by loop: rows counted by hand, against a slow reading of the definition, bounded, and never HTML."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.figures import labels
from loopviz.panels import LANGUAGES, PANELS, Focus, apply, figure_json
from loopviz.panels.loop.text_by_loop import CHOICES, LINE, LINES, ROWS, rows
from loopviz.trace import Trace
from tests.panels.cases import looped, smollm2, wire_size

panel = PANELS["text_by_loop"]


def drawn(trace, **focus):
    return figure_json(panel.figure(trace, Focus(**focus)))


def choose(trace, choices, written=None):
    """Make frame ``t`` choose ``choices[t]``: a text a step (its id is its hash); what is written is the last unless given."""
    for t, frame in enumerate(trace.frames):
        texts = choices[t]
        block, steps = frame["blocks"][0], frame["blocks"][0]["steps"]
        block["n_steps"] = len(texts)
        steps["topk_texts"] = [[text, "zzz"] for text in texts]
        steps["topk_ids"] = [[hash(text), -7] for text in texts]
        steps["topk_logprobs"] = [[math.log(0.7), math.log(0.1)] for _ in texts]
        frame["next_text"] = texts[-1] if written is None else written[t]
        frame["next_id"] = hash(frame["next_text"])
    return trace


P = ["p"]  # a choice inside the prompt
CAT = [  # prompt of 4 tokens: the first word generated is chosen by frame 3
    *[P] * 3,
    [" a", " the"],
    [" dog", " dog", " cat"],
    [" sat"],
    [" in", " on", " on", " on", " at"],
]


def test_rows_by_hand():
    found = rows(choose(looped(7), CAT).frames[3:], 0, "direct")
    texts = {row.name: "".join(text for text, _ in row.pieces) for row in found}
    assert texts == {
        "1": " a dog sat in",
        "2": " the dog sat on",
        "3–4": " the cat sat on",
        "5": " the cat sat at",
    }
    assert [row.differ for row in found] == [3, 2, 1, 0]
    assert [[other for _, other in row.pieces] for row in found][:2] == [
        [True, True, False, True],
        [False, True, False, True],
    ]


def test_the_figure_underlines_what_differs():
    text = drawn(choose(looped(7), CAT))["data"][0]
    assert text["y"] == ["1", "2", "3–4", "5"]
    assert text["text"][0] == "<u>a</u> <u>dog</u> sat <u>in</u>"
    assert text["text"][3] == "the cat sat at"
    assert text["customdata"][0] == "3/4"


def test_a_row_that_holds_for_all_later_steps_says_so():
    found = rows(choose(looped(7), [*[P] * 3, ["a", "b", "b", "b"], ["c"] * 4, ["d"], ["e"]]).frames[3:], 0, "direct")
    assert [row.name for row in found] == ["1", "2+"]


def test_what_was_written_gets_a_row_only_where_it_is_not_the_last_choice():
    same = drawn(choose(looped(7), CAT))["data"][0]
    assert "written" not in same["y"]
    sampled = [*["p"] * 3, " the", " cow", " sat", " at"]
    other = drawn(choose(looped(7), CAT, sampled))["data"][0]
    assert other["y"][-1] == "written"
    assert other["text"][-1] == "the <u>cow</u> sat at"


@pytest.mark.parametrize(("step", "row"), [(1, 0), (3, 2), (4, 2), (5, 3), (6, None)])
def test_the_step_pointed_at_outlines_the_row_it_is_in(step, row):
    shape = drawn(choose(looped(7), CAT), step=step)["layout"]["shapes"][0]
    assert shape["visible"] == (row is not None)
    if row is not None:
        assert shape["y0"] < row < shape["y1"]
        assert shape["y1"] - shape["y0"] < 1


def test_the_summary_counts_what_every_row_changes():
    said = panel.summary(choose(looped(7), CAT), Focus())
    for part in (
        "last 4 generated words",
        "step 1 changes 3 of them: “a dog sat in”",
        "3–4 changes 1 of",
        "5 changes 0",
    ):
        assert part in said


def test_only_words_generated_up_to_the_selected_token_count():
    trace = choose(looped(7), CAT)
    assert drawn(trace, token=4)["data"][0]["text"] == ["<u>a</u> <u>dog</u>", "the <u>dog</u>", "the cat"]
    inside = drawn(trace, token=2)
    assert inside["data"][0]["text"] == []
    assert "inside the prompt" in inside["layout"]["annotations"][0]["text"].replace("<br>", " ")


runs = st.lists(
    st.lists(
        st.sampled_from([" a", " bb", "c", "\n", "", " ", "<b>", " 你好", " averyveryverylongword"]),
        min_size=1,
        max_size=9,
    ),
    min_size=1,
    max_size=40,
)


def slowly(choices, r):
    """The definition, word by word: what is chosen at every place after step r, and whether the last step agrees."""
    chosen = []
    for place in choices:
        stop = len(place)
        chosen.append((place[(r if r <= stop else stop) - 1], place[(r if r <= stop else stop) - 1] != place[-1]))
    return chosen


@settings(max_examples=150, deadline=None)
@given(choices=runs)
def test_every_step_reads_as_its_row_says(choices):
    trace = choose(looped(len(choices), prompt_tokens=1, max_steps=9), choices)
    found = rows(trace.frames, 0, "direct")
    assert len(found) <= ROWS
    everything = {r: slowly(choices, r) for r in range(1, 10)}
    for row in found:
        first = int(re.match(r"\d+", row.name)[0])
        last = {"": first, "+": 9}.get(row.name[len(str(first)) :]) or int(row.name.split("–")[1])
        if row.left_out:  # says of how many it stands, and those are the rest
            between = {str(everything[r]) for r in range(first, last + 1)}
            assert row.left_out >= len(between) > 1
            continue
        for r in range(first, last + 1):
            assert row.pieces == everything[r]
    seen = [r for row in found for r in range(row.steps[0], row.steps[1] + 1)]
    assert seen == list(range(1, max(map(len, choices)) + 1)), "every step is in a row: none is dropped silently"
    if len({str(text) for text in everything.values()}) <= ROWS and len(found) < ROWS:
        assert {str(row.pieces) for row in found} == {str(text) for text in everything.values()}
    assert found[-1].differ == 0


@settings(max_examples=60, deadline=None)
@given(choices=runs)
def test_texts_fit_a_phone(choices):
    trace = choose(looped(len(choices), prompt_tokens=1, max_steps=9), choices)
    shown = drawn(trace)["data"][0]
    assert 1 <= len(shown["text"]) <= ROWS
    for text in shown["text"]:
        lines = [labels.plain(line) for line in text.split("<br>")]
        assert len(lines) <= LINES
        assert all(labels.columns(line) <= LINE for line in lines)
    counts = {text.split("/")[1] for text in shown["customdata"] if text != "…"}
    assert len(counts) == 1, "every row shows the same places"
    assert int(counts.pop()) <= CHOICES


@pytest.mark.parametrize("lang", LANGUAGES)
def test_rows_that_do_not_fit_are_counted_not_dropped(lang):
    """A18: nine different texts, of which seven rows and one that names the others are shown."""
    choices = [[f" {r}" for r in range(10)]] * 3
    trace = choose(looped(3, prompt_tokens=1, max_steps=10), choices)
    shown, words = drawn(trace, lang=lang)["data"][0], panel.TEXTS[lang]
    assert shown["y"] == ["1", "2", "3", "4", "5", "6", "7–9", "10"]
    assert shown["text"][6] == words["left_out"].format(count=3)
    assert words["unseen"].format(steps="7–9", count=3) in panel.summary(trace, Focus(lang=lang))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_one_word_is_not_the_last_1_words(lang):
    trace = choose(looped(1, prompt_tokens=1, max_steps=3), [[" a", " b", " b"]])
    said, head = panel.summary(trace, Focus(lang=lang)), drawn(trace, lang=lang)["layout"]["title"]["text"]
    for text in (said, head):
        assert " 1 words" not in text
        assert "1 个" not in text
    assert {"en": "changes it", "zh": "会改变它"}[lang] in said


def test_the_last_24_words():
    trace = choose(looped(60, max_steps=2), [[f" {t}"] for t in range(60)])
    assert drawn(trace)["data"][0]["text"][0].replace("<br>", " ") == " ".join(str(t) for t in range(36, 60))


def test_a_tokens_markup_stays_text():
    figure = drawn(choose(looped(5), [*[P] * 3, ["<u>", "<i>"], ["<a href='x'>", "</u>"]]))
    assert figure["data"][0]["text"] == [
        "<u>&lt;u&gt;&lt;a href='x'&gt;</u>",
        "&lt;i&gt;&lt;/u&gt;",
    ]


def test_every_lens_shows_its_own_choices():
    trace = choose(looped(7, extras=("exit",)), CAT)
    for frame in trace.frames:
        steps = frame["blocks"][0]["steps"]
        steps["exit_topk_ids"] = [[1, 2]] * frame["blocks"][0]["n_steps"]
        steps["exit_topk_texts"] = [[" x", " y"]] * frame["blocks"][0]["n_steps"]
    assert drawn(trace, lens="exit")["data"][0]["text"][0] == "x x x x"
    assert drawn(trace, lens="direct")["data"][0]["text"][0] != "x x x x"
    assert drawn(trace)["data"][0]["text"][0] == "x x x x", "what the model would really say, where it is known"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_an_exit_lens_not_recorded_is_said_on_screen(lang):
    assert panel.summary(looped(), Focus(lens="exit", lang=lang)) == panel.TEXTS[lang]["not_recorded"]
    assert drawn(looped(), lens="exit", lang=lang)["layout"]["annotations"][0]["visible"]


def test_law_while_the_window_moves_on():
    trace = choose(looped(60, max_steps=5), [[f" {(t * r) % 7}" for r in range(1, 6)] for t in range(60)])
    for focus in (Focus(), Focus(token=30), Focus(token=59)):
        shown, grown = figure_json(panel.figure(Trace(trace.meta), focus)), Trace(trace.meta)
        for frame in trace.frames:
            apply(shown, json.loads(json.dumps(panel.patch(grown, frame, focus))))
            grown.append(frame)
        assert shown == figure_json(panel.figure(trace, focus))


def test_a_token_is_small_on_the_wire():
    trace = smollm2(tokens=60)
    for at in range(40, 60):
        ops = panel.patch(Trace(trace.meta, trace.frames[:at]), trace.frames[at], Focus())
        assert wire_size(ops) <= 1300, "every second word underlined, and few of them letters"
