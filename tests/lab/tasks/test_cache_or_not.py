"""With and without a cache: the same words and logits, runs of layers counted another way, operations written out."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from loopviz.checks import FieldError
from loopviz.lab import TASKS, Experiment
from loopviz.lab.tasks.cache_or_not import CacheParams
from tests.lab.subject import TEXT, exact_subject

TASK = TASKS["cache_or_not"]
SAME = [
    {},
    {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 1, "virtual_attention_mode": "parallel"},
    {"loop_layers": [(0, 1), (3, 3)], "loop_count": [2, 3], "kv_cache_mode": "merge_strategy"},
]  # fmt: skip


def measured(subject, **more):
    return Experiment(TASK, subject, CacheParams(text=TEXT, **{"tokens": 9, "new_tokens": 6, **more})).run().frame


@pytest.mark.parametrize("loop", SAME)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_a_slot_for_every_step_the_logits_are_equal_and_so_are_the_words(loop: dict, seed: int) -> None:
    frame = measured(exact_subject(seed, **loop))
    assert frame["delta"].max() < 1e-10 * frame["largest"].max()
    assert frame["same"].all()
    assert frame["n"].tolist() == [1, 2, 3, 4, 5, 6]
    assert frame["context"].tolist() == [9, 10, 11, 12, 13, 14]


def test_where_steps_share_a_slot_they_are_not_and_it_is_said() -> None:
    shared = {"loop_layers": (1, 2), "loop_count": 4, "virtual_layer_count": 1, "virtual_attention_mode": "serial"}
    assert measured(exact_subject(**shared))["delta"].max() < 1e-10, "unless each has one"
    frame = measured(exact_subject(**shared), slots="own")
    assert frame["delta"].max() > 1e-3 * frame["largest"].max()
    assert "not the same" in TASK.headline(frame.to_dict("records"), "en")
    assert "not the same" not in TASK.headline(measured(exact_subject()).to_dict("records"), "en")


def test_the_logits_without_a_cache_are_those_of_a_plain_pass_over_what_was_written() -> None:
    subject = exact_subject(**SAME[1])
    frame = measured(subject)
    view = subject.model.with_loop(virtual_layer_count=3, virtual_attention_mode="serial")
    ids = torch.tensor([subject.tokenizer(TEXT)["input_ids"][:9]])
    with torch.no_grad():
        for row in frame.to_dict("records"):
            logits = view(ids, use_cache=False).logits[0, -1]
            assert row["largest"] == pytest.approx(float(logits.abs().max()), rel=1e-12)
            ids = torch.cat((ids, logits.argmax()[None, None]), dim=1)


@pytest.mark.parametrize("loop", SAME)
def test_runs_of_layers_and_operations_by_hand(loop: dict) -> None:
    subject = exact_subject(**loop)
    H, F, D, N, K, V = 32, 48, 8, 4, 2, subject.model.config.vocab_size
    runs = 5 + sum(
        (count - 1) * layers
        for count, layers in ([] if not loop else [(3, 2)] if loop is SAME[1] else [(2, 2), (3, 1)])
    )
    for row in measured(subject).to_dict("records"):
        T, new = row["context"], 1 if row["n"] > 1 else row["context"]
        assert row["with_runs"] == new * runs
        assert row["without_runs"] == T * runs

        def flops(tokens: int, past: int) -> float:
            weights = 2 * H * N * D + 2 * H * K * D + 3 * H * F + 2 * H  # gains counted as weights
            pairs = sum(past + t + 1 for t in range(tokens))
            return 2 * (runs * (tokens * weights + 2 * pairs * N * D) + V * H)

        assert row["with_gflops"] == pytest.approx(flops(new, T - new) / 1e9, rel=1e-12)
        assert row["without_gflops"] == pytest.approx(flops(T, 0) / 1e9, rel=1e-12)
        assert row["with_ms"] > 0 < row["without_ms"]


def test_more_new_tokens_than_fit_are_refused_before_anything_runs() -> None:
    subject = exact_subject()
    with pytest.raises(FieldError, match="new_tokens=129: must be <= 128"):
        TASK.work(subject, CacheParams(text=TEXT, new_tokens=129))
    frame = measured(subject, tokens=10_000, new_tokens=128)
    assert frame["context"].max() < 256


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_figure_and_headline_tell_the_last_token(lang: str) -> None:
    frame = measured(exact_subject())
    kept, anew = TASK.plot(frame, lang).data
    assert list(kept.y) == frame["with_gflops"].tolist()
    assert list(anew.y) == frame["without_gflops"].tolist()
    said = TASK.headline(frame.to_dict("records"), lang)
    assert "5" in said
    assert "70" in said
    assert not TASK.plot(frame.iloc[:0], lang).data


def test_operations_count_every_slot_that_a_step_reads() -> None:
    """A pass over slots in parallel was counted as if each step read one."""
    parallel = {"loop_layers": (1, 2), "loop_count": 4, "virtual_layer_count": 4, "virtual_attention_mode": "parallel"}
    frame = measured(exact_subject(**parallel), slots="own").set_index("n")
    one = measured(exact_subject(**parallel | {"virtual_attention_mode": "serial"}), slots="own").set_index("n")
    runs, keys, width = 3 + 4 * 2, 3 + 4 * 2 * 4, 4 * 8
    for n, more in frame["context"].items():
        attention = 2 * 2 * more * width / 1e9 * (keys - runs)  # scores and what they weigh, of one token
        if n > 1:
            assert frame.loc[n, "with_gflops"] - one.loc[n, "with_gflops"] == pytest.approx(attention)
        assert frame.loc[n, "without_gflops"] - one.loc[n, "without_gflops"] == pytest.approx(
            (more + 1) / 2 * attention
        )


DYNAMIC = {"loop_layers": (1, 2), "loop_strategy": "dynamic_stop", "max_loop_count": 6, "min_loop_count": 2, "virtual_layer_count": 2,
           "virtual_attention_mode": "serial", "convergence_criterion": "cosine"}  # fmt: skip
FREE = [
    ({**DYNAMIC, "cosine_threshold": 0.9}, 5 + 5 * 2),
    ({"loop_layers": (1, 2), "loop_count": 4, "virtual_layer_count": 4, "virtual_attention_mode": "serial", "layer_chooser": "influence",
      "layer_threshold": 0.3}, 5 + 3 * 2),
    ({**DYNAMIC, "loop_layers": [(0, 1), (3, 3)], "cosine_threshold": 0.9, "max_loop_count": [3, 5]}, 5 + 2 * 2 + 4),
]  # fmt: skip


@pytest.mark.parametrize(("loop", "runs"), FREE)
def test_a_loop_that_stops_by_itself_is_no_fault_of_the_cache(loop: dict, runs: int) -> None:
    """A pass of one token stopped, or chose layers, otherwise than one over all, and the cache was blamed for it."""
    subject = exact_subject(1, **loop)
    frame = measured(subject)
    assert frame["delta"].max() < 1e-10, "with a slot for each step it runs all of them"
    assert frame["fixed"].all()
    assert frame["with_runs"].iloc[-1] == runs
    own = measured(subject, slots="own")
    assert not own["fixed"].any()
    assert own["delta"].max() > 1e-3 * own["largest"].max(), (
        "each token would have to stop by itself as all do together"
    )
    for lang, either, blamed in (
        ("en", "or the loop stopped after other steps", "this cache"),
        ("zh", "要么循环停在", "这种缓存"),
    ):
        said = TASK.headline(own.to_dict("records"), lang)
        assert either in said
        assert blamed not in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_logits_in_few_digits_are_the_same(dtype: torch.dtype) -> None:
    """In bfloat16 a number has three digits: what its roundings add up to was told as another result."""
    subject = exact_subject(2)
    subject.model.to(dtype)
    frame = measured(subject)
    assert frame["rounding"].tolist() == [max(1e-3, 16 * torch.finfo(dtype).eps)] * 6
    assert "not the same" not in TASK.headline(frame.to_dict("records"), "en")


@pytest.mark.parametrize(("delta", "said"), [(0.11, "not the same"), (0.09, "the same but for 0.09 of up to 10")])
def test_the_worst_is_what_goes_furthest_beyond_rounding(delta: float, said: str) -> None:
    row = {
        "n": 1,
        "with_runs": 5,
        "without_runs": 50,
        "with_ms": 1.0,
        "without_ms": 2.0,
        "rounding": 0.01,
        "fixed": True,
    }
    rows = [{**row, "delta": delta, "largest": 10.0}, {**row, "delta": 0.2, "largest": 100.0}]
    assert said in TASK.headline(rows, "en")


def test_what_is_timed_has_the_head_that_its_operations_have(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, order = exact_subject(), []
    clock = SimpleNamespace(perf_counter=lambda: order.append("clock") or time.perf_counter())
    head = subject.model.lm_head.register_forward_hook(lambda *_: order.append("head"))
    monkeypatch.setattr("loopviz.lab.tasks.cache_or_not.time", clock)
    rows = TASK.run(subject, CacheParams(text=TEXT, tokens=9, new_tokens=2))
    assert next(rows) is None
    order.clear()
    next(rows)
    head.remove()
    assert order == ["clock", "head", "clock"] * 2
