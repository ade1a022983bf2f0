"""A model on a device that does not hold all of it computes what it computes anywhere."""

from __future__ import annotations

import pytest
import torch

from loopviz.engine import StreamSettings, run, weights_digest
from loopviz.model import LoopCache
from loopviz.model.checkpoints import CheckpointError
from loopviz.model.placing import place
from loopviz.model.precision import weight_bytes
from tests.engine import tiny
from tests.model.tiny import build, ids

LOOP = {"loop_layers": (1, 3), "loop_count": 3, "loop_injection": "linear", "loop_norm": True, "virtual_layer_count": 3}
CPU = torch.device("cpu")


def room_for(model, layers: int) -> int:
    """Bytes that hold all that is no layer, so many layers, and the place of one that comes."""
    each = weight_bytes(model.model.layers[0])
    return weight_bytes(model) - len(model.model.layers) * each + (layers + 1) * each


@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize("on_disk", [True, False])
def test_layers_that_stay_behind_change_no_number(tmp_path, on_disk):
    model, whole, tokens = build(LOOP), build(LOOP), ids(9)
    assert place(model, CPU, room_for(model, 2), tmp_path if on_disk else None) == 2
    assert [layer.mlp.up_proj.weight.is_meta for layer in model.model.layers] == [False, False, True, True]
    assert bool(list(tmp_path.rglob("*.dat"))) == on_disk
    assert torch.equal(model(tokens).logits, whole(tokens).logits)
    view, other = (
        one.with_loop(loop_count=5, max_loop_count=5, virtual_attention_mode="parallel") for one in (model, whole)
    )
    caches = [LoopCache(view.config), LoopCache(other.config)]
    for part in tokens.split([6, 1, 1, 1], dim=1):
        logits = [one(part, past_key_values=cache).logits for one, cache in zip((view, other), caches, strict=True)]
        assert torch.equal(*logits)
    assert weights_digest(model) == weights_digest(whole)
    assert model.model.layers[3].mlp.up_proj.weight.is_meta, "and the weights have gone again"


def test_a_run_of_it_is_recorded_whole(tmp_path):
    loop = {"loop_layers": (1, 3), "loop_count": 3}
    settings = StreamSettings(max_new_tokens=3, extras=("exit", "keys", "attention"))
    model = tiny.model(seed=3, **loop)
    place(model, CPU, room_for(model, 1))
    one, other = (run(each, tiny.tokenizer(), "a dog", settings) for each in (model, tiny.model(seed=3, **loop)))
    for mine, its in zip(one.frames, other.frames, strict=True):
        assert mine["blocks"][0]["attention"] == its["blocks"][0]["attention"]
        assert mine["blocks"][0]["steps"] | {"ms": 0} == its["blocks"][0]["steps"] | {"ms": 0}
        assert mine["blocks"][0]["states"] == its["blocks"][0]["states"]


def test_what_fits_is_moved_and_what_cannot_is_refused_with_the_bytes():
    model = build(LOOP)
    assert place(model, CPU, weight_bytes(model)) == 0
    assert place(model, CPU) == 0, "where nobody tells how much there is"
    assert not any(hasattr(module, "_hf_hook") for module in model.modules())
    with pytest.raises(
        CheckpointError, match=r"device='cpu': the model needs [\d,]+ bytes there .* and 1,000 may be taken"
    ):
        place(model, CPU, 1000)
