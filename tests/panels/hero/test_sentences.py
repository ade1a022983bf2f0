"""The paragraph about one word: it never fails, and every number and every word in it is in the trace."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import HealthCheck, given, settings

from loopviz.app.texts import LANGUAGES
from loopviz.figures.labels import number
from loopviz.panels import Focus, hero
from loopviz.panels.hero import strip
from loopviz.panels.hero.sentences import WORDS, piece, share
from loopviz.panels.kit import follower
from loopviz.trace import Trace, blocks_at
from tests.panels.cases import focuses, wild_traces
from tests.panels.hero.test_telling import thought
from tests.trace.synthetic import make_meta, random_frames, random_trace

relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_QUOTED = re.compile(r"“[^”]*”")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def known_numbers(trace: Trace, at: int, focus: Focus) -> set[str]:
    """Everything that may be said of a token: its steps, shares, what stopped it, and counts of the run's words."""
    frame = trace.frames[at]
    known = {str(n) for n in range(len(trace) + 1)} | {str(frame["pass_tokens"])}
    logs = [frame["next_logprob"], *frame["next_topk_logprobs"]]
    for block in frame["blocks"]:
        known |= {str(step) for step in range(block["n_steps"] + 1)}
        logs += [row[0] for name in ("topk_logprobs", "exit_topk_logprobs") for row in block["steps"][name] if row]
    known |= {str(round(100 * math.exp(log))) for log in logs if log is not None} | {"99", "1"}  # over 99, under 1
    for i, spec in enumerate(blocks_at(trace.meta, at)):
        known |= {number(spec["kl_threshold"], "en"), f"{spec['cosine_threshold']:.7g}"}
        passed = trace.frames[max(0, at + 1 - frame["pass_tokens"]) : at + 1]
        for name, form in (("kl", lambda value: number(value, "en")), ("cosine", lambda value: f"{value:.7g}")):
            last = [one["blocks"][i]["steps"][name][-1:] for one in passed]
            values = [value for column in last for value in column if value is not None]
            known |= {form(value) for value in values} | ({form(math.fsum(values) / len(values))} if values else set())
    return known


@relaxed
@given(trace=wild_traces(), focus=focuses)
def test_every_number_and_every_word_said_is_in_the_trace(trace, focus):
    told = hero.explain(trace, focus)
    at = focus.selected(len(trace))
    if told is None:
        assert at is None or focus.block >= len(trace.frames[at]["blocks"]) > 0
        return
    said, frame = told["text"], trace.frames[at]
    assert said.strip()
    assert (told["token"], told["block"]) == (at, focus.block)
    # pieces may hold quotes and numbers of their own
    pieces = {frame["text"], frame["next_text"], *frame["next_topk_texts"]}
    for block in frame["blocks"]:
        pieces |= {block["stop_reason"]}
        for name in ("topk_texts", "exit_topk_texts"):
            pieces |= {text for row in block["steps"][name] for text in row}
    for shown in sorted(map(piece, pieces), key=len, reverse=True):
        said = said.replace(f"“{shown}”", " ")
    assert not _QUOTED.search(said)
    found = set(_NUMBER.findall(said))
    assert found <= known_numbers(trace, at, focus), told["text"]


@relaxed
@given(trace=wild_traces(), focus=focuses)
def test_a_branch_is_a_number_of_loops_that_the_word_had_before_its_last(trace, focus):
    told = hero.explain(trace, focus)
    if told and (branch := told["branch"]):
        frame = trace.frames[branch["token"]]
        assert branch["token"] == focus.selected(len(trace)) >= trace.meta["prompt_tokens"] - 1
        assert 1 <= branch["loops"] < frame["blocks"][focus.block]["n_steps"]


def explained(trace: Trace, **focus) -> str:
    return hero.explain(trace, Focus(**focus))["text"]


def clear(trace: Trace, words: list[str], p: list[float], at: int = 1) -> Trace:
    """The trace whose token at `at` guesses these words with these probabilities, and writes the last."""
    frame = trace.frames[at]
    block = frame["blocks"][0]
    ids = {word: i for i, word in enumerate(dict.fromkeys(words))}
    block["steps"]["topk_texts"] = [[word, "x"] for word in words]
    block["steps"]["topk_ids"] = [[ids[word], 50] for word in words]
    block["steps"]["topk_logprobs"] = [[math.log(one), math.log(one / 2)] for one in p]
    frame |= {"text": " eat", "next_text": words[-1], "next_id": ids[words[-1]], "next_logprob": math.log(p[-1])}
    frame["blocks"][0] |= {"stop_reason": "kl"}
    frame["blocks"][0]["steps"]["kl"] = [1.5, *[0.1] * (len(words) - 2), 0.004][: len(words)]
    return trace


def eat() -> Trace:
    """Four words of 1, 5, 2 and 3 loops; the one of five changes its guess twice."""
    trace = thought([[1], [1] * 5, [1] * 2, [1] * 3])
    trace.meta["blocks"][0] |= {"kl_threshold": 0.01, "criterion": "kl", "floor": 1}
    return clear(trace, [" the", " yummy", " yummy", " cookies", " cookies"], [0.09, 0.12, 0.2, 0.14, 0.2])


def test_a_word_by_hand():
    assert explained(eat(), token=1) == (
        "After “eat” the model first wanted “the” (9 %). Loop 2 brought “yummy”, loop 4 “cookies”, which had 20 % in the "
        "end. It stopped after 5 loops: the last moved its guess by 0.004 nats, within the limit of 0.01. No other of the 2 "
        "words written took as many. With 3 loops here it would have chosen “yummy”."
    )
    assert hero.explain(eat(), Focus(token=1))["branch"] == {"token": 1, "loops": 3}
    zh = explained(eat(), token=1, lang="zh")
    assert "若在这里只循环 3 次，它会选“yummy”。" in zh
    assert not re.search(r"[A-Za-z]", _QUOTED.sub("", zh)), "no English in it"


def test_ties_are_told():
    trace = eat()
    for at in (2, 3):
        trace.frames[at] = {**trace.frames[1], "index": at}
    assert "Of the 2 other words written none took more, and 2 as many." not in explained(trace, token=1)
    assert "Each of the 2 other words written took as many." in explained(trace, token=1)
    longer = thought([[1], [1] * 5, [1] * 5, [1] * 7])
    assert "Of the 2 other words written 1 took more loops and 1 as many." in explained(longer, token=1)
    assert "Of the 2 other words written none took more, and 1 as many." in explained(
        thought([[1], [1] * 5, [1] * 5, [1]]), token=1
    )


def test_under_sampling_nothing_is_said_to_have_been_chosen():
    trace = eat()
    trace.meta["settings"] |= {"do_sample": True, "temperature": 0.8}
    assert "With 3 loops here its likeliest word would have been “yummy”." in explained(trace, token=1)
    trace.frames[1] |= {"next_id": 60, "next_text": " jam", "next_logprob": math.log(0.07)}
    assert "“jam” (7 %) was drawn." in explained(trace, token=1)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_through_the_direct_lens_nothing_is_claimed_of_fewer_loops(lang):
    trace = random_trace(4, 8, strategy="dynamic_stop", max_steps=4, floor=4)  # layers follow the block
    said = explained(trace, token=6, lang=lang)
    assert WORDS[lang]["direct"] in said
    for key in ("fewer", "fewer_same", "fewer_drawn", "fewer_same_drawn"):
        assert WORDS[lang][key].split("{")[0] not in said


def test_a_fixed_count_is_no_merit_of_the_word():
    trace = random_trace(4, 8, max_steps=3)
    assert "Every word takes 3 loops here: the number is fixed." in explained(trace, token=6)
    assert "words written" not in explained(trace, token=6)


def test_a_word_at_the_bound_says_whether_it_still_moved():
    trace = eat()
    trace.frames[1]["blocks"][0] |= {"stop_reason": "max"}
    assert "It was stopped at 5 loops, the most allowed. " in explained(trace, token=1)  # it would have stopped anyway
    trace.frames[1]["blocks"][0]["steps"]["kl"][-1] = 0.5
    assert "the last still moved its guess by 0.5 nats, more than the limit of 0.01." in explained(trace, token=1)


def test_a_prompt_s_words_share_their_loops_and_the_prompt_goes_on_by_itself():
    trace = random_trace(4, 8, strategy="dynamic_stop", max_steps=4, floor=4, prompt_tokens=4)
    said = explained(trace, token=1)
    assert "The prompt's 4 tokens were read together and share their loops." in said
    assert f"The prompt itself goes on with “{piece(trace.frames[1]['next_text'])}”." in said
    assert hero.explain(trace, Focus(token=1))["branch"] is None


def test_a_plain_model_and_a_skipped_loop_have_their_own_sentences():
    assert explained(random_trace(4, 6, blocks=[])).startswith("This model does not loop")
    meta = make_meta(chooser="influence")
    trace = Trace(meta, random_frames(3, meta, 8))
    skipped = next(frame["index"] for frame in trace.frames if not frame["blocks"][0]["n_steps"])
    assert "the loop was skipped: no loop ran." in explained(trace, token=skipped)
    assert "The chooser of layers, “influence”, let none run." in explained(trace, token=skipped)


def test_a_run_without_guesses_says_so():
    assert explained(random_trace(4, 6, record="off")).startswith("What was guessed after each loop was not recorded")


def test_shares_never_say_certain_or_never_of_what_is_neither():
    words = WORDS["en"]
    assert [share(p, words) for p in (0.999999, 0.994, 0.001, 1.0, None)] == [
        "over 99 %",
        "99 %",
        "under 1 %",
        "over 99 %",
        "",
    ]


def test_both_languages_say_the_same_things():
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    for key, words in WORDS["en"].items():
        assert set(re.findall(r"\{\w+\}", words)) == set(re.findall(r"\{\w+\}", WORDS["zh"][key])), key
    assert strip.SURE > 0.99
    assert follower.chosen_by(random_trace(1, 2, blocks=[]).frames[0], 0, "same").ids
