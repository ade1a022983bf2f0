"""Loss and accuracy by loops equal what the model says when it is really set to that many loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from loopviz.lab.reading.windows import TokenIds
from loopviz.train.arrows import draw_problems
from loopviz.train.evaluate import evaluate_arrows, evaluate_text, exits, spans
from loopviz.train.recipe import Arrows
from tests.model.tiny import build, ids

LOOPS = (1, 2, 5)
SHAPES = {
    "with coda": {"loop_layers": (1, 2)},
    "whole stack": {"loop_layers": (0, 3), "loop_norm": True, "loop_injection": "add"},
    "parallel": {"loop_layers": (1, 2), "virtual_attention_mode": "parallel", "virtual_layer_count": 2},
    "merged": {"loop_layers": (1, 1), "kv_cache_mode": "merge_strategy", "loop_damping": 0.5},
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_one_pass_gives_what_each_loop_count_gives(shape):
    model = build(SHAPES[shape]).double()
    tokens = ids(7, rows=3)
    logits, cosines = exits(model, tokens, LOOPS)
    states = []
    model.register_loop_hook(lambda event: states.append((event.previous, event.state)))
    for r, ours in zip(LOOPS, logits, strict=True):
        states.clear()
        with torch.no_grad():
            expected = model.with_loop(loop_count=r)(tokens, use_cache=False).logits
            torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-9)
    model.set_loop(loop_count=5)
    with torch.no_grad():
        model(tokens, use_cache=False)
    for cosine, (old, new) in zip(cosines, states, strict=True):
        expected = (old * new).sum(-1) / old.norm(dim=-1) / new.norm(dim=-1)
        torch.testing.assert_close(cosine, expected)
    last, _ = exits(model, tokens, LOOPS, last=1)
    torch.testing.assert_close(last[1], logits[1][:, -1:])


@given(n=st.integers(1, 400), length=st.integers(1, 60), overlap=st.integers(0, 59))
def test_windows_count_every_prediction_once_and_look_back_far_enough(n, length, overlap):
    overlap = min(overlap, length - 1)
    counted = []
    for start, end, skip in spans(n, length, overlap):
        assert 1 <= end - start <= length
        for prediction in range(start + skip, end):
            counted.append(prediction)
            assert prediction - start >= min(overlap, prediction)
    assert counted == list(range(n))


@pytest.mark.parametrize("overlap", [0, 2])
@pytest.mark.parametrize("n", [2, 5, 6, 11, 24])
def test_every_token_but_the_first_is_predicted_once(n, overlap):
    """Against one token at a time, each with what its window holds before it."""
    model = build({"loop_layers": (1, 2)}).double()
    stream, length = ids(n)[0].numpy(), 5
    starts = {1: 0}
    for i in range(2, n):  # token i; a window is full when it has predicted `length` tokens
        full = i - 1 - starts[i - 1] == length
        starts[i] = i - 1 - overlap if full else starts[i - 1]
    result = evaluate_text(model, stream, LOOPS, length, batch=2, overlap=overlap)
    assert result.tokens == n - 1
    assert result.lookback == (overlap, length)
    for r, loss in zip(LOOPS, result.loss, strict=True):
        view, total = model.with_loop(loop_count=r), 0.0
        for i in range(1, n):
            with torch.no_grad():
                logits = view(torch.from_numpy(stream[starts[i] : i])[None], use_cache=False).logits[0, -1]
            total += F.cross_entropy(logits.float(), torch.tensor(int(stream[i]))).item()
        assert loss == pytest.approx(total / (n - 1), abs=1e-5)
    assert result.perplexity[0] == pytest.approx(np.exp(result.loss[0]))
    assert len(result.cosine_gap) == 5


@pytest.mark.parametrize(("length", "overlap"), [(5, 2), (7, 0), (30, 15)])
def test_a_beginning_mark_is_no_prediction(length, overlap):
    """Against the loss of every token (the test above), the marks' left out."""
    model, marks = build({"loop_layers": (1, 2)}).double(), {0, 7, 8, 15}
    stream = ids(24)[0].numpy()
    given = TokenIds.of(stream.tolist(), [i in marks for i in range(24)])
    result = evaluate_text(model, given, LOOPS, length, batch=2, overlap=overlap)
    assert result.tokens == 23 - 3
    for r, loss in zip(LOOPS, result.loss, strict=True):
        view, total = model.with_loop(loop_count=r), 0.0
        for start, end, skip in spans(23, length, overlap):
            with torch.no_grad():
                logits = view(torch.from_numpy(stream[start:end])[None], use_cache=False).logits[0]
            for i in range(start + skip, end):
                if i + 1 not in marks:
                    total += F.cross_entropy(logits[i - start], torch.tensor(int(stream[i + 1]))).item()
        assert loss == pytest.approx(total / 20, abs=1e-5)
    with pytest.raises(ValueError, match="nothing but marks"):
        evaluate_text(model, TokenIds.of([1, 1], [True, True]), LOOPS, 4, batch=2)


def test_a_limit_and_a_model_without_a_loop():
    model = build()
    stream = ids(20)[0].numpy()
    result = evaluate_text(model, stream, LOOPS, 8, batch=2, limit=10)
    assert (result.loops, len(result.loss), result.cosine_gap, result.tokens) == ((), 1, (), 10)
    assert result == evaluate_text(model, stream[:11], LOOPS, 8, batch=2)
    with pytest.raises(ValueError, match="tokens=1: at least 2"):
        evaluate_text(model, stream[:1], LOOPS, 8, batch=2)


def test_several_blocks_are_refused():
    with pytest.raises(ValueError, match="one block can be measured"):
        exits(build({"loop_layers": [(0, 1), (2, 3)]}), ids(4), LOOPS)


def test_accuracy_counts_right_answers_at_each_loop_count():
    task, n = Arrows(nodes=6, arrows=4, max_hops=3), 15
    loop = {
        "loop_layers": (1, 2),
        "kv_cache_mode": "merge_strategy",
        "merge_strategy": "last",
        "convergence_criterion": "cosine",
        "cosine_threshold": 0.6,
        "loop_damping": 0.6,
    }
    model = build(loop)
    result = evaluate_arrows(model, task, LOOPS, n, [7], dynamic=True)
    assert (result.hops, result.loops, result.problems) == ((1, 2, 3), LOOPS, n)
    spread = set()
    for i, hops in enumerate(result.hops):
        problems, _ = draw_problems(task, np.full(n, hops), np.random.default_rng([7, hops]))
        steps, dynamic = [], 0
        for j, r in enumerate(LOOPS):
            right = 0
            for row in torch.from_numpy(problems):  # alone, through the cache
                with torch.no_grad():
                    said = model.with_loop(loop_count=r)(row[None, :-1]).logits[0, -1].argmax()
                right += bool(said == row[-1])
            assert result.accuracy[i][j] == pytest.approx(right / n)
        stopping = model.with_loop(loop_strategy="dynamic_stop", max_loop_count=5)
        for row in torch.from_numpy(problems):
            with torch.no_grad():
                dynamic += bool(stopping(row[None, :-1]).logits[0, -1].argmax() == row[-1])
            steps.append(int(stopping.last_pass.steps[0]))
        assert result.dynamic_loops[i] == pytest.approx(np.mean(steps))
        assert result.dynamic_accuracy[i] == pytest.approx(dynamic / n)
        spread |= set(steps)
    assert len(spread) > 1, "every row stops alike, the test would prove nothing"
