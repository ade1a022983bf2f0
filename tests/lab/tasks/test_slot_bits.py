"""Rounding one loop's keys and values: the others stay as they are, and what it does is the model's own doing."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from loopviz.lab import TASKS
from loopviz.lab.experiment import Experiment
from loopviz.lab.reading.cached import through_cache
from loopviz.lab.reading.windows import encode
from loopviz.lab.tasks.slot_bits import SLOT_BITS, SlotBitsParams, SlotRounded
from loopviz.model import LoopCache
from loopviz.model.kept_kv import as_kept
from loopviz.trace import metrics
from tests.lab.small import TEXT, subject
from tests.model.tiny import MODES, build, ids

SMALL = {"text": TEXT, "limit_tokens": 12, "window": 8, "overlap": 0, "batch": 2, "draws": 0}


def table(thing, **values):
    return Experiment(SLOT_BITS, thing, SlotBitsParams(**{**SMALL, **values})).run().frame


@pytest.mark.parametrize("mode", ["serial", "parallel"])
@pytest.mark.parametrize("slot", [0, 2, None])
def test_one_slot_is_rounded_and_no_other(mode, slot):
    model = build({"loop_layers": (1, 2), "loop_count": 3, **MODES[mode]})
    exact, rounded = LoopCache(model.config), SlotRounded(model.config, slot, "int4")
    tokens = ids(1)  # of one token nothing that was rounded before it can change what later layers and loops compute
    with torch.no_grad():
        for cache in (exact, rounded):
            model.model(tokens, past_key_values=cache, use_cache=True)
    for layer, (kept, other) in enumerate(zip(exact.layers, rounded.layers, strict=True)):
        for own in range(kept.slots):
            one, two = kept.values[:, :, 0, own], other.values[:, :, 0, own]
            if layer in (1, 2) and slot in (None, own):
                assert torch.equal(as_kept(two, "int4"), two)  # what is rounded already stays
                assert not torch.equal(as_kept(one, "int4"), one)
            elif layer == 0 or (layer == 1 and slot is not None and own <= slot):
                assert torch.equal(one, two)
            else:
                assert not torch.equal(as_kept(two, "int4"), two)


def test_rows_are_what_the_model_says_with_that_loop_rounded():
    thing = subject(loop_count=3, loop_strategy="dynamic_stop", max_loop_count=6, virtual_layer_count=2)
    frame = table(thing, loops=2, dtypes=("int4",))
    assert frame["loop"].where(frame["loop"].notna(), 0).tolist() == [0, 1, 2]
    assert set(frame["loops"]) == {2}
    assert len(frame) == SLOT_BITS.cells(thing, SlotBitsParams(**{**SMALL, "loops": 2, "dtypes": ("int4",)}))
    view = thing.model.with_loop(
        loop_strategy="fixed_count", loop_count=2, virtual_attention_mode="serial", virtual_layer_count=2
    )
    tokens = torch.from_numpy(encode(thing.tokenizer, TEXT, 13))[None]
    kls = []
    for part in (tokens[:, :8], tokens[:, 8:12]):
        logits = [
            torch.cat([made for _, made in through_cache(view, part, cache=cache)], dim=1)
            for cache in (LoopCache(view.config), SlotRounded(view.config, 1, "int4"))
        ]
        log_p, log_q = map(metrics.log_probs, logits)
        kls.append(metrics.kl(log_p, log_q)[0].double())
    kl = torch.cat(kls)
    row = frame.iloc[2]
    assert row["tokens"] == len(kl) == 12
    assert row["kl_mean"] == pytest.approx(kl.mean().item(), rel=1e-3)
    assert row["kl_worst"] == pytest.approx(kl.max().item(), rel=1e-3)
    assert frame.iloc[0]["kl_mean"] > 0


def test_fewer_bits_cost_more():
    frame = table(subject(loop_count=2)).set_index(["dtype", "loop"])
    assert list(dict.fromkeys(frame.index.get_level_values("dtype"))) == ["int8", "fp8", "int4"]
    for loop in (1, 2):
        int8, fp8, int4 = (frame.loc[(dtype, loop), "kl_mean"] for dtype in ("int8", "fp8", "int4"))
        assert 0 < int8 < fp8 < int4


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"dtypes": ("int3",)}, r"dtypes=\('int3',\)"),
        ({"dtypes": ()}, r"dtypes=\(\)"),
        ({"modes": ("merge",)}, r"modes=\('merge',\)"),
        ({"loops": -1}, "loops=-1"),
    ],
)
def test_refusals(values, says):
    with pytest.raises(ValueError, match=says):
        SlotBitsParams(text="a", **values)


def test_a_model_without_a_loop_is_refused():
    with pytest.raises(ValueError, match="nothing loops"):
        table(subject(), loop={"loop_layers": None})


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_has_a_line_for_each_way_of_rounding(lang):
    cells = {"mode": "serial", "loops": 2, "kl_low": None, "kl_high": None}
    rows = [{**cells, "dtype": dtype, "loop": loop, "kl_mean": kl} for dtype, loop, kl in (
        ("int8", None, 0.5), ("int8", 1, 1e-3), ("int8", 2, 2e-3), ("int4", 1, 0.1), ("int4", 2, 0.3),
    )]  # fmt: skip
    figure = TASKS["slot_bits"].plot(pd.DataFrame(rows), lang)
    assert {line.name: list(line.y) for line in figure.data} == {"int8": [1e-3, 2e-3], "int4": [0.1, 0.3]}
    assert figure.layout.yaxis.type == "log"
