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


def test_every_gate_has_its_tick_and_those_beyond_the_edge_are_told(scripts: Page) -> None:
    """Of many gates every n-th was drawn, and of those further out than the picture none."""
    gates = [-20.0, *(k / 500 for k in range(1000)), 9.0, 12.0]
    ticks, told = scripts.evaluate(
        """async (data) => {
          const { curves } = await import("/anatomy/diagrams.js");
          const told = [];
          const text = (key, values) => (told.push([key, values]), key);
          const drawn = curves({ text }, { data: new Float32Array(data), largest: 20 }, [1]);
          return [drawn.querySelector(".lv-ticks").getAttribute("d").split("M").slice(1).map(parseFloat), told];
        }""",
        gates,
    )
    assert (min(ticks), max(ticks)) == (14, 406)  # the edges
    inside = {round(14 + 392 * (gate + 8) / 16, 1) for gate in gates if abs(gate) <= 8}
    assert max(min(abs(place - tick) for tick in ticks) for place in inside) < 0.11
    assert ["anatomy.curves.further", {"further": 3, "total": len(gates), "most": "8"}] in told


def test_a_triangle_s_lines_are_named_with_their_lengths(scripts: Page) -> None:
    """“5 + 2 → 6” said nothing of which line is which, and is no sum."""
    key, samples = scripts.evaluate(
        """async () => {
          const { triangle } = await import("/anatomy/diagrams.js");
          const text = (key, { size, degrees } = {}) => `${key.split(".").at(-1)} ${size ?? degrees}; `;
          const drawn = triangle({ text }, { state_norm: 5, added_norm: 2, after_norm: 6, degrees: 10 });
          return [drawn.querySelector(".lv-heat-key").textContent, drawn.querySelectorAll(".lv-heat-key path").length];
        }"""
    )
    assert (key, samples) == ("before 5; added 2; after 6; turn 10; ", 3)


def test_a_hundred_per_cent_is_the_whole(scripts: Page) -> None:
    values = [1, 0.99999998, 0.9996, 0.99996, 1.0004, 1.00002, 0.123, 0, -1, -0.5, None]
    said = scripts.evaluate(
        'async (values) => { const { percent } = await import("/anatomy/numbers.js"); return values.map((value) => percent(value)); }',
        values,
    )
    wanted = ["100 %", "100 %", "99.96 %", "> 99.99 %", "100.04 %", "< 100.01 %", "12.3 %", "0 %", "−100 %", "−50 %"]
    assert said == [*wanted, "–"]


def test_a_score_at_a_distance_of_which_nothing_is_known_is_not_drawn(scripts: Page) -> None:
    """It was a dot at no place, which Chromium writes to its console as an error; distances need not begin at 0."""
    told = scripts.evaluate(
        """async () => {
          const { Rope } = await import("/anatomy/rope.js");
          const page = { text: (_, { distance, score }) => `${distance}: ${score}` };
          return [[8, 7], [40, 7], [6, 7]].map(([now, own]) => {
            const [place, said] = [document.createElement("div"), document.createElement("p")];
            new Rope(page).curve(place, said, { values: [1, 2, 3], from: 6 }, now, own);
            return [said.textContent, [...place.querySelectorAll("circle")].map((dot) => dot.getAttribute("cx"))];
          });
        }"""
    )
    assert told == [["8: 3", ["210", "408"]], ["40: –", ["210"]], ["6: 1", ["210", "12"]]]
