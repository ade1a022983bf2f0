"""Work as it is estimated is what is then done: layers run, keys and values held, and no less memory than is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from loopviz.engine import StreamSettings, stream, work
from loopviz.engine import rate as rate_module
from loopviz.engine.rate import rate_of
from loopviz.engine.work import NOTHING, Rate, Shape, Work
from loopviz.lab.memory import peak_bytes
from loopviz.lab.reading.cached import score_cached
from loopviz.lab.reading.full_pass import score_full
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from tests.engine import tiny

LOOPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fixed": {"loop_layers": (1, 2), "loop_count": 3},
    "serial": {"loop_layers": (0, 4), "loop_count": 4, "virtual_layer_count": 2, "virtual_attention_mode": "serial"},
    "merge": {"loop_layers": (2, 2), "loop_count": 6, "kv_cache_mode": "merge_strategy"},
    "two": {"loop_layers": [(0, 1), (3, 3)], "loop_count": [2, 5], "virtual_layer_count": [1, 3]},
    "8 bits": {"loop_layers": (1, 2), "loop_count": 3, "kv_cache_dtype": "int8"},
}
PROMPT = "Once upon a time there was a small dog. "


def shape(model: LoopLlamaForCausalLM) -> Shape:
    return Shape.of(model.config, model.dtype.itemsize)


@contextmanager
def calls(model: LoopLlamaForCausalLM) -> Iterator[list[int]]:
    """Rows times tokens of every call of a layer in the block."""
    seen: list[int] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0] * given[0].shape[1]))
        for layer in model.model.layers
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize(("new", "record"), [(1, "full"), (9, "full"), (9, "off")])
def test_a_run_runs_the_layers_that_are_estimated(loop: dict[str, Any], new: int, record: str) -> None:
    model = tiny.model(**loop)
    with calls(model) as seen:
        frames = list(stream(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=new, record=record)))
    prompt = len(tiny.tokenizer()(PROMPT)["input_ids"])
    assert len(frames) == prompt + new - 1
    found = work.run(shape(model), prompt, new, recorded=record == "full")
    assert (found.passes, found.layer_tokens) == (len(seen), sum(seen))
    assert found.frames == (len(frames) if record == "full" else 0)


def test_the_exit_lens_runs_the_layers_after_the_block_once_more_for_every_step() -> None:
    model = tiny.model(**LOOPS["fixed"])
    with calls(model) as seen:
        list(stream(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=3, extras=("exit",))))
    prompt = len(tiny.tokenizer()(PROMPT)["input_ids"])
    assert work.run(shape(model), prompt, 3, extras=("exit",)).layer_tokens == sum(seen)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_measurement_runs_the_layers_that_are_estimated(loop: dict[str, Any]) -> None:
    model, ids = tiny.model(**loop), torch.arange(60).view(5, 12)
    with calls(model) as seen:
        for part in ids.split(2):
            score_cached(model, part, fidelity=True)
    found = work.through_cache(shape(model), 5, 11, 2, fidelity=True)  # the last token of a window is not read
    assert found.layer_tokens == pytest.approx(sum(seen))
    blocks = model.config.loop_blocks()
    if len(blocks) == 1:
        with calls(model) as seen:
            score_full(model, ids, (4,))
        coda = 5 * 11 * (model.config.num_hidden_layers - 1 - blocks[0].b)
        assert work.whole_passes(shape(model).at(4), 5, 11, 8).layer_tokens + coda == sum(seen)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_keys_and_values_are_as_large_as_estimated(loop: dict[str, Any]) -> None:
    model, cache = tiny.model(**loop), LoopCache(tiny.model(**loop).config)
    with torch.no_grad():
        model.model(torch.arange(14).view(2, 7), past_key_values=cache, use_cache=True)
    assert cache.occupancy().bytes_used == 2 * 7 * shape(model).kv_bytes


def _prefill(model: LoopLlamaForCausalLM, tokens: int, rows: int) -> Callable[[], None]:
    ids = (torch.arange(rows * tokens) % 200).view(rows, tokens)

    def read() -> None:
        with torch.inference_mode():
            model.model(ids, past_key_values=LoopCache(model.config), use_cache=True)

    return read


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize(("tokens", "rows"), [(200, 1), (60, 8)])
def test_c2_no_pass_takes_more_memory_than_estimated(loop: dict[str, Any], tokens: int, rows: int) -> None:
    model = tiny.model(**loop)
    most = work.one_pass(shape(model), tokens, rows=rows).bytes
    read = _prefill(model, tokens, rows)
    read()  # what the first use of anything makes is not the pass's
    assert peak_bytes(read, model.device) <= most


@pytest.mark.parametrize("loop", ["fixed", "8 bits"])
@pytest.mark.parametrize("extras", [(), ("keys", "attention")])
def test_h1_no_recorded_run_holds_more_than_estimated(extras: tuple[str, ...], loop: str) -> None:
    model, text = tiny.model(**LOOPS[loop]), PROMPT * 6
    prompt = len(tiny.tokenizer()(text)["input_ids"])
    most = work.run(shape(model), prompt, 4, extras=extras).bytes
    wanted = StreamSettings(max_new_tokens=4, extras=extras)
    assert peak_bytes(lambda: list(stream(model, tiny.tokenizer(), text, wanted)), model.device) <= most


def test_more_of_anything_is_never_less_work() -> None:
    small = shape(tiny.model(**LOOPS["fixed"]))
    rate = Rate(1e-3, 1e-5, 1e-9, 1e-4, 1e-5)

    def cost(prompt: int = 50, new: int = 20, steps: int = 4, slots: int = 3) -> tuple[float, float]:
        found = work.run(small.at(steps).keeping(slots, slots), prompt, new)
        return found.seconds(rate), found.bytes

    usual = cost()
    for more in (cost(prompt=90), cost(new=60), cost(steps=9), cost(slots=5)):
        assert all(a >= b for a, b in zip(more, usual, strict=True))
        assert more != usual


NUMBERS = st.floats(0, 1e12)
WORKS = st.builds(Work, *[NUMBERS] * 13)


@how(max_examples=30)
@given(WORKS, WORKS, st.integers(1, 50))
def test_one_after_the_other_takes_the_time_of_both_and_the_memory_of_the_larger(one: Work, two: Work, n: int) -> None:
    rate = Rate(1e-3, 1e-5, 1e-9, 1e-4, 1e-5)
    both = one + two
    assert both.seconds(rate) == pytest.approx(one.seconds(rate) + two.seconds(rate))
    assert max(one.bytes, two.bytes) <= both.bytes * (1 + 1e-12) <= (one.bytes + two.bytes) * (1 + 1e-9)
    assert one.times(n).seconds(rate) == pytest.approx(n * one.seconds(rate))
    assert one + NOTHING == one


def test_a_rate_is_measured_once_and_for_all_views_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(**LOOPS["fixed"])
    rate = rate_of(model)
    assert rate_of(model.with_loop(loop_count=9)) is rate_of(model) is rate
    assert min(rate.layer_token, rate.pair, rate.head_token) > 0
    assert min(rate.layer_pass, rate.head_pass) >= 0
    monkeypatch.setattr(rate_module, "AGAIN", 0.0)
    again = rate_of(model, doubted=True)
    assert all(new <= old for new, old in zip(astuple(again), astuple(rate), strict=True)), "the quickest seen"
    assert len(model.model.layers) == model.config.num_hidden_layers == 5, "the model itself is as it was"
