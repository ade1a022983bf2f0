"""The drawing of a layer: every stage that a model has stands in it once, none on another, and no way runs through a box or from nowhere."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from playwright.sync_api import Page

from loopviz.anatomy.way import Traits, way

LAYOUT = "async (stages) => (await import('/anatomy/layout.js')).layout(stages)"
# Each with what else decides where something stands.
KINDS = {
    "plain": Traits(),
    "branch norms, a gate of normed steps": Traits(
        placement="pre_branch", step_norm=True, exit="gate", ends=True, final_norm=False, among_normed=True
    ),
    "stream norms, from noise": Traits(placement="pre_stream", scaled=True, start="random", injected=True),
    "stream norms, normed once": Traits(placement="pre_stream", scaled=True, left_norm=True),
    "no norms before": Traits(placement="branch", qk_norm="full", start="random", injected=True),
    "heads normed, 8 bits": Traits(qk_norm="head", kept="int8", start="zeros"),
    "steps normed": Traits(step_norm=True, ends=True, final_norm=False, kept="fp8"),
    "all on the stream": Traits(
        placement="pre_stream", qk_norm="head", kept="int8", scaled=True, start="random", injected=True, exit="gate", left_norm=True
    ),
    "all on the branches": Traits(
        placement="pre_branch", qk_norm="head", kept="int8", scaled=True, start="zeros", exit="gate", step_norm=True
    ),
}  # fmt: skip
TALL = 26


def drawn(page: Page, traits: Traits) -> dict[str, Any]:
    stages = [{"key": stage.key, "name": stage.name, "reads": stage.reads} for stage in way(traits)]
    found: dict[str, Any] = page.evaluate(LAYOUT, stages)
    assert found["boxes"].keys() == {stage["name"] for stage in stages}
    return found


def pieces(path: str) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The straight pieces of a way."""
    found, at = [], (0.0, 0.0)
    for letter, rest in re.findall(r"([MVH])([-\d. ]+)", path):
        numbers = [float(each) for each in rest.split()]
        to = {"M": tuple(numbers), "V": (at[0], numbers[0]), "H": (numbers[0], at[1])}[letter]
        if letter != "M":
            found.append((at, (to[0], to[1])))
        at = (to[0], to[1])
    return found


def through(path: str, box: list[float]) -> bool:
    """Whether a way runs through a box, not only along its edge."""
    x, y, wide = box
    for (x1, y1), (x2, y2) in pieces(path):
        across = max(x1, x2) > x - wide / 2 + 1 and min(x1, x2) < x + wide / 2 - 1
        if across and max(y1, y2) > y - TALL / 2 + 1 and min(y1, y2) < y + TALL / 2 - 1:
            return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_has_its_place_and_its_ways(scripts: Page, kind: str) -> None:
    found = drawn(scripts, KINDS[kind])
    boxes = found["boxes"]
    for (a, (x, y, wide)), (b, (u, v, broad)) in itertools.combinations(boxes.items(), 2):
        assert abs(x - u) >= (wide + broad) / 2 or abs(y - v) >= TALL, (a, b)
    for name, (x, y, wide) in boxes.items():
        assert wide / 2 <= x <= found["width"] - wide / 2, name
        assert TALL / 2 <= y <= found["height"] - TALL / 2, name
    for start, end, path in found["ways"]:
        assert {start, end} <= boxes.keys(), (start, end)
        assert not [name for name, box in boxes.items() if name not in (start, end) and through(path, box)], path
    reached = {end for _, end, _ in found["ways"]}
    assert boxes.keys() - reached == {"embedding"} | ({"start"} & boxes.keys())


def test_a_loop_that_starts_elsewhere_and_injects_nothing_gets_nothing_of_the_embedding(scripts: Page) -> None:
    ways = drawn(scripts, Traits(start="zeros"))["ways"]
    assert not [1 for start, end, _ in ways if (start, end) == ("embedding", "state")]
    ways = drawn(scripts, Traits(start="zeros", injected=True))["ways"]
    assert [1 for start, end, _ in ways if (start, end) == ("embedding", "state")]
