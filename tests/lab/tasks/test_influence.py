"""Block influence is ShortGPT's formula on the layers' real inputs and outputs."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from loopviz.lab import TASKS, Experiment
from loopviz.lab.tasks.influence import InfluenceParams
from tests.lab.subject import TEXT, subject

TEXTS = {"text": TEXT, "limit_tokens": 20, "batch": 2}


def hidden_states(model, ids):
    """What enters and leaves each layer in the first loop step, by torch's own hooks on the layers."""
    seen = []
    handles = [
        layer.register_forward_hook(lambda _, args, out: seen.append((args[0], out))) for layer in model.model.layers
    ]
    with torch.no_grad():
        (model.with_loop(loop_count=1) if model.config.loop_blocks() else model)(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


INJECTED = {"loop_layers": (1, 2), "loop_injection": "add", "loop_norm": True}


@pytest.mark.parametrize(
    "loop",
    [{}, {"loop_layers": (1, 2), "loop_damping": 0.5}, INJECTED, {**INJECTED, "loop_injection": "linear"},
     {**INJECTED, "loop_layers": [(0, 1), (3, 3)]}],
)  # fmt: skip
def test_influence_is_one_minus_the_mean_cosine_of_a_layers_input_and_output_as_the_model_runs_it(loop: dict) -> None:
    tiny = subject(**loop)
    frame = Experiment(TASKS["influence"], tiny, InfluenceParams(**TEXTS, window=10)).run().frame
    ids = torch.tensor(tiny.tokenizer(TEXT)["input_ids"][:20]).view(2, 10)
    expected = [1 - F.cosine_similarity(new, old, dim=-1).mean().item() for old, new in hidden_states(tiny.model, ids)]
    assert frame["layer"].to_list() == list(range(5))
    assert frame["influence"].to_list() == pytest.approx(expected, abs=1e-5)
    assert (frame["low"] <= frame["influence"]).all()
    assert (frame["influence"] <= frame["high"]).all()
    assert max(expected) > 2 * min(expected), "the layers are too alike to tell"


def test_what_is_injected_and_the_norm_are_in_it() -> None:
    """They were left out: layers of a block were measured as the model never runs them."""
    with_them, without = (
        Experiment(TASKS["influence"], thing, InfluenceParams(**TEXTS, window=10)).run().frame["influence"]
        for thing in (subject(**INJECTED), subject())
    )
    assert with_them[0] == pytest.approx(without[0], abs=1e-6)
    assert abs(with_them[1] - without[1]) > 1e-2


def test_the_models_own_layers_hear_nothing_of_it() -> None:
    tiny = subject(**INJECTED)
    before = list(tiny.model.model.layers)
    Experiment(TASKS["influence"], tiny, InfluenceParams(**TEXTS, window=10)).run()
    assert list(tiny.model.model.layers) == before
    assert not any(layer._forward_hooks for layer in before)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_draws_what_was_measured(lang: str) -> None:
    table = pd.DataFrame({"layer": [0, 1], "influence": [0.5, 0.1], "low": [0.2, 0.1], "high": [0.9, 0.3]})
    assert list(TASKS["influence"].plot(table, lang).data[0].y) == [0.5, 0.1]
    assert not TASKS["influence"].plot(table.iloc[:0], lang).data
