"""A block that starts from another state: only the start is replaced."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .tiny import MODES, build

IDS = torch.randint(1, 97, (2, 6), generator=torch.Generator().manual_seed(1))
KINDS = [{"loop_injection": "none"}, {"loop_injection": "add"}, {"loop_injection": "linear", "loop_norm": True}]


def states(model: Any, start: Any = None) -> list[torch.Tensor]:
    """s_0..s_N of one pass."""
    found: list[torch.Tensor] = []

    def watch(event: Any) -> None:
        found.extend([event.previous, event.state] if event.step == 1 else [event.state])

    view = model.with_loop()
    view.model.loop_start = start
    handle = view.register_loop_hook(watch)
    with torch.no_grad():
        view(IDS, use_cache=False)
    handle.remove()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_started_from_a_later_state_goes_on_from_there_with_the_same_injection(kind: dict[str, Any]) -> None:
    model = build({"loop_layers": (1, 2), "loop_count": 5, **MODES["serial"], **kind})
    whole = states(model)
    seen = []

    def start(block: int, entry: torch.Tensor) -> torch.Tensor:
        seen.append((block, torch.equal(entry, whole[0])))
        return whole[2]

    later = states(model, start)
    assert seen == [(0, True)]
    for r in range(4):
        torch.testing.assert_close(later[r], whole[r + 2], rtol=0, atol=0)
    assert not torch.allclose(later[0], whole[0])


def test_each_block_is_asked_and_views_start_without_it() -> None:
    model = build({"loop_layers": [(0, 1), (2, 3)], "loop_count": 2})
    asked = []
    model.model.loop_start = lambda block, entry: asked.append(block) or entry
    with torch.no_grad():
        same = model(IDS, use_cache=False).logits
        plain = model.with_loop()(IDS, use_cache=False).logits
    assert asked == [0, 1]
    assert torch.equal(same, plain)


def test_a_start_of_another_shape_is_refused() -> None:
    model = build({"loop_layers": (1, 2)})
    model.model.loop_start = lambda block, entry: entry[:, :1]
    with pytest.raises(ValueError, match=r"loop_start.*\[2, 1, 32\].*\[2, 6, 32\] on cpu is wanted"):
        model(IDS)
