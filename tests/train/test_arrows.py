"""Arrows problems, followed by hand; what the tokenizer prints; how deep batches are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopviz.train.arrows import (
    END,
    IGNORE,
    draw_deepest,
    draw_depths,
    draw_problems,
    make_tokenizer,
    sequence_length,
    vocabulary,
)
from loopviz.train.recipe import Arrows


@st.composite
def tasks(draw):
    nodes = draw(st.integers(4, 26))
    arrows = draw(st.integers(2, nodes - 2))
    return Arrows(nodes=nodes, arrows=arrows, max_hops=draw(st.integers(1, arrows)), start_hops=1)


@given(tasks(), st.integers(1, 8), st.integers(0, 2**32), st.data())
def test_following_the_arrows_gives_the_answer_after_as_many_hops(task, batch, seed, data):
    hops = np.array(data.draw(st.lists(st.integers(1, task.max_hops), min_size=batch, max_size=batch)))
    ids, labels = draw_problems(task, hops, np.random.default_rng(seed))
    words = vocabulary(task.nodes)
    assert ids.shape == labels.shape == (batch, sequence_length(task))
    for row, label, depth in zip(ids, labels, hops, strict=True):
        *arrows, question, answer = (words[i] for i in row)
        leads = dict(arrow.split(">") for arrow in arrows)
        assert len(leads) == len(arrows) == task.arrows, "two arrows leave one node"
        assert question.endswith("?")
        at, walked = question[0], 0
        while at in leads:
            at, walked = leads[at], walked + 1
            assert walked <= task.nodes, "a circle"
        assert (at, walked) == (answer, depth)
        for start in leads:  # every other walk ends too
            seen = set()
            while start in leads:
                assert start not in seen
                seen.add(start)
                start = leads[start]
        assert label[:-2].tolist() == [IGNORE] * task.arrows
        assert [words[i] for i in label[-2:]] == [answer, END]


def test_the_place_of_an_arrow_and_the_name_of_a_node_say_nothing():
    """Answers are spread evenly over nodes, and the first hop's arrow over places."""
    task, n = Arrows(), 4000
    ids, _ = draw_problems(task, np.full(n, 3), np.random.default_rng(1))
    words = vocabulary(task.nodes)
    answers = np.bincount(ids[:, -1] - 2, minlength=task.nodes)
    assert answers.min() > 0.7 * n / task.nodes
    first = [[words[i][0] for i in row[:-2]].index(words[row[-2]][0]) for row in ids]
    assert np.bincount(first, minlength=task.arrows).min() > 0.7 * n / task.arrows


def test_the_tokenizer_reads_and_prints_problems():
    task = Arrows()
    tokenizer = make_tokenizer(task.nodes)
    ids, _ = draw_problems(task, np.array([4]), np.random.default_rng(0))
    text = tokenizer.decode(ids[0])
    assert text.split()[-2][1] == "?"
    assert text.split()[0][1] == ">"
    assert tokenizer(text)["input_ids"] == ids[0].tolist()
    assert tokenizer.convert_ids_to_tokens(tokenizer("b>c  nonsense\na? a").input_ids) == ["b>c", "<unk>", "a?", "a"]
    assert tokenizer.eos_token_id == 0


def test_depths_of_batches():
    rng = np.random.default_rng(0)
    drill = Arrows(rehearsal=0.0)
    assert {draw_deepest(drill, 5, rng) for _ in range(50)} == {5}
    assert set(draw_depths(drill, 5, 50, rng)) == {5}
    mixed = Arrows(rehearsal=0.5)
    assert {draw_deepest(mixed, 5, rng) for _ in range(200)} == {1, 2, 3, 4, 5}
    depths = draw_depths(mixed, 5, 5000, rng)
    assert set(depths) == {1, 2, 3, 4, 5}
    assert (depths == 5).mean() == pytest.approx(0.5 + 0.5 / 5, abs=0.05)


def test_a_depth_the_arrows_cannot_give_is_refused():
    with pytest.raises(ValueError, match=r"hops=0\.\.13: must be in 1\.\.12"):
        draw_problems(Arrows(), np.array([0, 13]), np.random.default_rng(0))
