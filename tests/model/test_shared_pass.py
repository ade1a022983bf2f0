"""A pass over rows of different runs: who shares what, what hooks are told, and what a failure leaves. What it computes is compared
with each row's own pass in tests/engine/test_batch.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from loopviz.model import LoopCache, LoopLlamaForCausalLM, LoopStep, register_criterion
from loopviz.model.shared_pass import PassRow, SharedPass, sharable, weights_of

from .tiny import SHAPE, close, precision


def model() -> LoopLlamaForCausalLM:
    from loopviz.model import LoopLlamaConfig

    with torch.random.fork_rng():
        torch.manual_seed(4)
        return LoopLlamaForCausalLM(LoopLlamaConfig(**SHAPE)).eval()


def begun(view: LoopLlamaForCausalLM, tokens: int = 3) -> PassRow:
    """A row of a run that has read so many tokens."""
    cache = LoopCache(view.config)
    with torch.inference_mode():
        view.model(input_ids=torch.arange(5, 5 + tokens)[None], past_key_values=cache, use_cache=True)
    return PassRow(view, cache, 7)


def test_a_row_that_has_stopped_looping_leaves_the_blocks_batch():
    base = model()
    views = [base.with_loop(loop_layers=(1, 2), loop_count=count) for count in (1, 3, 2)]
    rows = [begun(view, tokens) for view, tokens in zip(views, (3, 1, 6), strict=True)]
    passes, seen = SharedPass(base), []
    for index, layer in enumerate(passes.layers):
        layer.register_forward_pre_hook(lambda _, args, index=index: seen.append((index, len(args[0]))))
    passes.run(rows)
    assert seen == [(0, 3), (1, 3), (2, 3), (1, 2), (2, 2), (1, 1), (2, 1), (3, 3)]
    assert [row.view.last_pass.steps[0].tolist() for row in rows] == [[1], [3], [2]]
    seconds = [row.view.last_pass.seconds for row in rows]
    assert all(s is not None and min(s.prelude, s.block, s.coda) > 0 for s in seconds)
    assert seconds[0].block < seconds[2].block < seconds[1].block  # what a row took part in


def test_rows_whose_blocks_differ_share_the_layers_they_meet_at():
    base = model()
    rows = [begun(base.with_loop(**loop)) for loop in ({"loop_layers": (0, 1), "loop_count": 2}, {"loop_layers": None})]
    passes, seen = SharedPass(base), []
    for index, layer in enumerate(passes.layers):
        layer.register_forward_pre_hook(lambda _, args, index=index: seen.append((index, len(args[0]))))
    passes.run(rows)
    assert seen == [(0, 2), (1, 2), (0, 1), (1, 1), (2, 2), (3, 2)]


def test_hooks_are_told_of_their_own_row_alone():
    base, told = model(), {"a": [], "b": []}
    views = {name: base.with_loop(loop_layers=(1, 2), loop_count=n) for name, n in (("a", 2), ("b", 3))}
    rows, alone = [], {}
    for name, view in views.items():
        row, own = begun(view), []
        handle = view.register_loop_hook(lambda event, own=own: own.append((event.step, event.state.clone())))
        with torch.inference_mode():
            view.model(input_ids=torch.tensor([[7]]), past_key_values=row.cache, use_cache=True)
        handle.remove()
        alone[name] = own
        rows.append(begun(view))

        def hook(event: LoopStep, name: str = name) -> None:
            assert event.state.shape == (1, 1, 32)
            assert event.kv(1) is not None
            told[name].append((event.step, event.state.clone()))

        view.register_loop_hook(hook)
    SharedPass(base).run(rows)
    for name, events in told.items():
        assert [step for step, _ in events] == [step for step, _ in alone[name]]
        for (_, state), (_, own) in zip(events, alone[name], strict=True):
            torch.testing.assert_close(state, own, atol=1e-4, rtol=1e-4)


def test_rows_that_keep_their_keys_and_values_otherwise_share_a_pass():
    """Each row's logits are those of its own pass; in float64, where no product of several rows rounds another way."""
    base = model().double()
    dtypes = ("int8", "exact", "fp8")
    loops = [
        {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 3},
        {"loop_layers": (1, 2), "loop_count": 2, "kv_cache_mode": "merge_strategy"},
    ]
    views = [base.with_loop(**loop, kv_cache_dtype=dtype) for loop in loops for dtype in dtypes]
    with precision(torch.float64) as tolerance, torch.inference_mode():
        rows, alone = [begun(view) for view in views], [begun(view) for view in views]
        for _ in range(2):
            logits = base.lm_head(SharedPass(base).run(rows))
            for i, (view, row) in enumerate(zip(views, alone, strict=True)):
                own = view(torch.tensor([[row.token]]), past_key_values=row.cache).logits
                close(logits[i : i + 1], own, tolerance)
                assert row.cache.occupancy() == rows[i].cache.occupancy()
    assert len({row.cache.occupancy().bytes_used for row in rows}) == 4


def test_a_failure_leaves_every_cache_as_it_was():
    @register_criterion("fails_when_shared", replace=True)
    def fails(context: Any) -> Tensor:
        if context.state.shape[1] == 1:
            raise RuntimeError("no verdict")
        return torch.zeros(context.state.shape[0], dtype=torch.bool)

    base = model()
    bad = base.with_loop(
        loop_layers=(1, 2),
        loop_strategy="dynamic_stop",
        convergence_criterion="fails_when_shared",
        virtual_layer_count=2,
    )
    rows = [begun(base.with_loop(loop_layers=(1, 2), loop_count=3)), begun(bad)]
    before = [row.cache.occupancy().bytes_used for row in rows]
    with pytest.raises(RuntimeError, match="no verdict"):
        SharedPass(base).run(rows)
    assert [row.cache.occupancy().bytes_used for row in rows] == before
    assert [row.cache.get_seq_length() for row in rows] == [3, 3]


def test_what_cannot_be_shared_says_so():
    base = model()
    looped = base.with_loop(loop_layers=(1, 2), loop_count=2)
    assert sharable(looped, looped.config.loop_blocks())
    assert weights_of(looped) is weights_of(base)
    chosen = base.with_loop(loop_layers=(1, 2), layer_chooser="influence")
    assert not sharable(chosen, chosen.config.loop_blocks())
    started = base.with_loop(loop_layers=(1, 2))
    started.model.loop_start = lambda block, entry: entry
    assert not sharable(started, started.config.loop_blocks())
    handle = looped.watch_attention()
    assert not sharable(looped, looped.config.loop_blocks())
    handle.remove()
    assert sharable(looped, looped.config.loop_blocks())
