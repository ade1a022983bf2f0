"""Which word is looked at when a run has ended: by a rule, so that every recording opens on a word that changed its mind."""

from __future__ import annotations

from loopviz.app.explore import first_run
from loopviz.panels import Focus, hero
from loopviz.panels.kit.follower import lens_of, said
from loopviz.panels.loop.would_say import flips
from loopviz.trace import Trace
from tests.trace.synthetic import make_meta, random_frames, random_trace


def thought(answers: list[list[int]], prompt_tokens: int = 1) -> Trace:
    """A trace whose tokens guessed these ids after their loop steps."""
    meta = make_meta(
        layers=2, blocks=[(0, 1)], strategy="dynamic_stop", max_steps=9, floor=1, prompt_tokens=prompt_tokens
    )
    frames = []
    for t, ids in enumerate(answers):
        of_its_own = make_meta(layers=2, blocks=[(0, 1)], max_steps=len(ids), prompt_tokens=prompt_tokens)
        frame = random_frames(t, of_its_own, len(answers))[t]
        for step, one in enumerate(ids):
            rest = [other for other in range(40, 46) if other != one][:4]
            frame["blocks"][0]["steps"]["topk_ids"][step] = [one, *rest]
        frame["text"] = "word"
        frames.append(frame)
    return Trace(meta, frames)


def test_the_word_that_changed_its_guess_most_often_is_told():
    assert hero.telling(thought([[1, 1], [1, 2, 3], [1, 2], [4] * 9])) == 1


def test_a_word_that_came_back_to_its_first_guess_did_not_change_it():
    assert hero.telling(thought([[1, 1], [1, 2, 1], [1, 2]])) == 2


def test_of_words_that_never_changed_the_one_that_looped_longest_is_told():
    """arrows-loop: h? takes as many loops as there are arrows, and the answer's own token hardly any (B5)."""
    assert hero.telling(thought([[1], [1, 1, 1], [1, 1]])) == 1


def test_a_prompt_s_words_are_not_told_but_for_the_last_which_chooses_the_first_word():
    trace = thought([[1, 2, 3, 4], [1, 2], [1, 1], [1, 1]], prompt_tokens=2)
    assert hero.telling(trace) == 1


def test_without_a_loop_there_is_nothing_to_tell():
    assert hero.telling(random_trace(2, 5, blocks=[])) is None
    assert hero.telling(Trace(make_meta())) is None


def test_the_recorded_run_opens_on_a_word_whose_answer_changes_loop_by_loop():
    trace = first_run.stored()
    assert trace is not None
    at = hero.telling(trace)
    assert at is not None
    focus = Focus(token=at)
    ids = said(trace.frames[at]["blocks"][0], lens_of(trace.meta, focus)).ids
    assert len(flips(ids)) >= 2
    assert ids[0][0] != ids[-1][0]
    assert trace.meta["blocks"][0]["slots"] == 1, "with more, odd and even loops read different notebooks (A5)"
