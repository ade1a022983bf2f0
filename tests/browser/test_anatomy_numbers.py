"""Anatomy's numbers as its script takes them from what the server sends: `app/anatomy/packing.py` and `numbers.js` fit together."""

from __future__ import annotations

import math

import pytest
from playwright.sync_api import Page

from loopviz.app.anatomy.packing import pack
from tests.app.anatomy.test_packing import WRITTEN

UNPACK = """async (packed) => {
  const { unpack } = await import("/anatomy/numbers.js");
  const { shape, data } = unpack(packed);
  return [shape, [...data].map((value) => (Number.isNaN(value) ? null : value))];
}"""


@pytest.mark.parametrize("least", [0.25, 1e-6])
def test_a_number_is_taken_as_it_was_sent_whatever_its_size(scripts: Page, least: float) -> None:
    """Both widths in which it is sent."""
    values = [[3.0, -least], [math.nan, 0.0]]
    shape, taken = scripts.evaluate(UNPACK, pack(values))
    assert shape == [2, 2]
    assert taken == [pytest.approx(3.0, rel=WRITTEN), pytest.approx(-least, rel=WRITTEN), None, 0.0]
