"""What is measured of a run, counted by hand on frames made by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from loopviz.checks import FieldError
from loopviz.lessons.measurements import MEASUREMENTS, kind_of, measure, stands, word_ends
from loopviz.lessons.schema import What
from loopviz.trace import Trace, encode_states
from tests.trace.synthetic import make_meta, random_frames


def trace_of(pieces: list[str], prompt: int, steps: list[list[str]]) -> Trace:
    """A trace: by token its piece and what each of its loops would say (exit lens); its chances fall by halves."""
    meta = make_meta(blocks=[(2, 3)], extras=("exit",), prompt_tokens=prompt)
    frames = random_frames(0, meta, len(pieces))
    for t, (frame, piece, said) in enumerate(zip(frames, pieces, steps, strict=True)):
        frame["text"] = piece
        frame["next_text"] = pieces[t + 1] if t + 1 < len(pieces) else " end"
        frame["blocks"][0]["n_steps"] = len(said)
        columns = frame["blocks"][0]["steps"]
        columns["exit_topk_texts"] = [[word, "other", "x", "y", "z"] for word in said]
        columns["exit_logprob"] = [math.log(0.5 ** (len(said) - r)) for r in range(len(said))]
        columns["cosine"] = [1 - 0.5**r for r in range(1, len(said) + 1)]
        columns["kl"] = [0.25**r for r in range(1, len(said) + 1)]
    return Trace(meta, frames)


RUN = trace_of(["a", ">", "b", " h", "?"], 4, [["x"], ["x"] * 3, ["x"] * 2, [" b", " f", " i", " i"], ["q", "q"]])


def found(what: str, trace: Trace = RUN, **more: Any) -> Any:
    return measure({"what": what, "run": "run", **more}, {"run": trace, "other": trace})


def test_the_closed_list_is_that_of_the_schema() -> None:
    assert set(MEASUREMENTS) == set(What.__args__)


def test_what_it_wrote_and_its_first_word() -> None:
    assert found("text") == "? end"
    assert found("answer") == "?"


def test_guesses_by_loop_when_they_settle_and_when_the_first_is_lost() -> None:
    """After the prompt's last token, where nothing else is said."""
    assert found("guesses") == ["b", "f", "i", "i"]
    assert found("guess", loop=2) == "f"
    assert found("settles") == 3
    assert found("lost") == 2
    same = trace_of(["a", "b"], 2, [["x"], ["q", "q", "q"]])
    assert (found("settles", same), found("lost", same)) == (1, 0)
    back = trace_of(["a", "b"], 2, [["x"], ["q", "p", "q"]])
    assert (found("settles", back), found("lost", back)) == (3, 2)


def test_a_word_is_found_by_its_text_the_nth_of_several_and_across_tokens() -> None:
    trace = trace_of(["Li", "ly", " and", " Li", "ly"], 3, [["a"] * n for n in (1, 2, 3, 4, 5)])
    assert word_ends(trace, "Lily") == [1, 4]
    assert found("loops", trace, word="Lily") == 2
    assert found("loops", trace, word="Lily", nth=2) == 5
    assert found("loops", trace, word="and") == 3
    with pytest.raises(FieldError, match="is there 2 times") as refused:
        found("loops", trace, word="Lily", nth=3)
    assert refused.value.rule == "lesson_no_word"


def test_loops_of_a_word_of_all_words_and_the_hardest() -> None:
    assert found("loops") == 4
    assert found("loops", word=">") == 3
    assert found("mean_loops") == pytest.approx((1 + 3 + 2 + 4 + 2) / 5)
    assert found("hardest_word") == "h"


def test_where_the_state_stands_is_read_straight_from_it() -> None:
    steps, said = stands(RUN)
    columns = RUN.frames[3]["blocks"][0]["steps"]
    assert [word for word, _ in steps] == [texts[0].strip() for texts in columns["topk_texts"]]
    assert [p for _, p in steps] == pytest.approx([math.exp(logs[0]) for logs in columns["topk_logprobs"]])
    assert said == ("?", pytest.approx(math.exp(RUN.frames[3]["next_logprob"])))


def test_chance_change_and_kl_by_loop_or_at_one() -> None:
    assert found("chance") == pytest.approx([1 / 16, 1 / 8, 1 / 4, 1 / 2])
    assert found("chance", loop=4) == pytest.approx(0.5)
    assert found("change") == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    assert found("kl", loop=2) == pytest.approx(1 / 16)
    with pytest.raises(FieldError, match="there are 4 loops"):
        found("chance", loop=5)
    assert kind_of({"what": "chance", "run": "run"}) == "curve"
    assert kind_of({"what": "chance", "run": "run", "loop": 1}) == "number"


def test_perplexity_is_of_the_prompts_own_words_and_holds_on_where_a_word_stopped() -> None:
    """Tokens 0 to 2 of a prompt of four: p = 1/2; 1/8, 1/4, 1/2; 1/4, 1/2."""
    by_hand = [1 / (0.5 * 0.125 * 0.25), 1 / (0.5 * 0.25 * 0.5), 1 / (0.5 * 0.5 * 0.5)]
    assert found("perplexity") == pytest.approx([x ** (1 / 3) for x in by_hand])
    assert found("best_loop") == 3
    with pytest.raises(FieldError, match="one token"):
        found("perplexity", trace_of(["a", "b"], 1, [["x"], ["x"]]))


def test_two_texts_are_the_same_or_not() -> None:
    other = trace_of(["a", "b", "c", "d", "!"], 4, [["x"]] * 5)
    asked: Any = {"what": "same_text", "run": "run", "other": "two"}
    assert measure(asked, {"run": RUN, "two": RUN}) is True
    assert measure(asked, {"run": RUN, "two": other}) is False


def test_a_state_that_swings_between_two_places_has_a_turn_of_two_loops() -> None:
    def with_states(rows: list[list[float]]) -> Trace:
        trace = trace_of(["a", "b"], 2, [["x"], ["x"] * (len(rows) - 1)])
        states = np.zeros((len(rows), trace.meta["shape"]["hidden"]))
        states[:, :2] = rows
        trace.frames[1]["blocks"][0]["states"] = encode_states(states.astype("<f2"))
        return trace

    assert found("orbit", with_states([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [0, 1]])) == 2
    assert found("orbit", with_states([[1, 0], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1]])) == 1


def test_memory_is_the_caches_at_the_end() -> None:
    assert found("memory") == RUN.frames[-1]["kv"]["bytes_used"]


def test_a_run_in_which_nothing_loops_says_so() -> None:
    meta = make_meta(blocks=[], prompt_tokens=2)
    plain = Trace(meta, random_frames(0, meta, 2))
    for what in ("guesses", "loops", "mean_loops", "perplexity", "change", "orbit"):
        with pytest.raises(FieldError, match="nothing loops"):
            found(what, plain)


def test_a_run_that_was_cut_short_is_not_measured() -> None:
    short = Trace(RUN.meta, RUN.frames[:2])
    with pytest.raises(FieldError, match="ended before its prompt was read"):
        found("guesses", short)
