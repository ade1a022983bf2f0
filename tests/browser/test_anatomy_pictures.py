"""Anatomy's small drawings by themselves: what is drawn is the function, and each line says which it is."""

from __future__ import annotations

import math

import pytest
from playwright.sync_api import Page

BETAS = (0.1, 1, 10)
DRAW = """async ([data, betas]) => {
  const { curves } = await import("/anatomy/diagrams.js");
  const drawn = curves({ text: () => "" }, { data: new Float32Array(data), largest: Math.max(...data.map(Math.abs)) }, betas);
  const of = (part) => [...drawn.querySelectorAll(part)];
  return [of(".lv-triangle .lv-curve").map((line) => line.getAttribute("d").slice(1).split("L").map((point) => +point.split(" ")[1])),
    drawn.querySelector(".lv-heat-key").textContent, of(".lv-curve-key .lv-curve").length];
}"""


@pytest.mark.parametrize("most", [1.0, 1.9, 8.0])
def test_swish_is_drawn_as_it_is_and_every_line_is_named(scripts: Page, most: float) -> None:
    """A line went flat where it was lower than the picture."""
    lines, key, samples = scripts.evaluate(DRAW, [[-most, 0.0, most], BETAS])
    assert samples == len(BETAS)
    assert key == "β 0.1β 1β 10"
    us = [-most + 2 * most * k / 80 for k in range(81)]
    wanted = [[u / (1 + math.exp(-beta * u)) for u in us] for beta in BETAS]
    scale = (lines[0][80] - lines[0][0]) / (wanted[0][80] - wanted[0][0])
    for line, values in zip(lines, wanted, strict=True):
        for y, value in zip(line, values, strict=True):
            assert y - lines[0][0] == pytest.approx(
                scale * (value - wanted[0][0]), abs=0.25
            )  # drawn to a tenth of a pixel
