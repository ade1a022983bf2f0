"""A lesson in a link comes out as it went in; anything else as none; a QR code is the one that segno draws."""

from __future__ import annotations

import base64
import json
import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopviz.app.learn.lesson_link import MOST_CHARACTERS, MOST_IN_CODE, VERSION, code_of, pack, unpack
from loopviz.lessons.bundled import bundled
from tests.lessons.toy import toy


@pytest.mark.parametrize("name", ["toy", *bundled()])
def test_a_lesson_comes_out_as_it_went_in(name: str) -> None:
    lesson = toy() if name == "toy" else bundled()[name]
    word = pack(json.dumps(lesson, indent=4))
    assert word is not None
    assert len(word) <= MOST_CHARACTERS
    assert json.loads(unpack(word) or "") == lesson


def test_one_that_is_too_long_has_no_word() -> None:
    lesson = toy() | {"noise": random.Random(0).randbytes(40_000).hex()}
    assert pack(json.dumps(lesson)) is None


@given(
    st.none()
    | st.integers()
    | st.text()
    | st.binary().map(lambda raw: VERSION + base64.urlsafe_b64encode(raw).decode().rstrip("="))
)
def test_what_is_no_such_word_is_none(word: Any) -> None:
    found = unpack(word)
    assert found is None or isinstance(found, str)


def test_a_word_that_would_unpack_to_very_much_is_none() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b"0" * 50_000_000) + packer.flush()
    bomb = VERSION + base64.urlsafe_b64encode(packed).decode().rstrip("=")
    assert len(bomb) > MOST_CHARACTERS or unpack(bomb) is None
    small = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = small.compress(b"0" * 2_000_000) + small.flush()
    assert unpack(VERSION + base64.urlsafe_b64encode(packed).decode().rstrip("=")) is None


def test_a_code_is_read_back_as_the_address() -> None:
    """The squares are those of the library's own matrix, a quiet border of four around them."""
    segno = pytest.importorskip("segno")
    url = "https://example.org/learn?lesson=arrows&name=7B"
    size, path = code_of(url) or (0, "")
    matrix = [list(row) for row in segno.make(url, micro=False, error="m", boost_error=False).matrix]
    assert size == len(matrix) + 8
    dark = {(x + 4, y + 4) for y, row in enumerate(matrix) for x, square in enumerate(row) if square}
    drawn = {tuple(map(int, part.split("h")[0].split())) for part in path.split("M")[1:]}
    assert drawn == dark


@pytest.mark.parametrize("url", ["", "x" * (MOST_IN_CODE + 1), "中" * MOST_IN_CODE])
def test_what_no_code_can_hold_has_none(url: str) -> None:
    assert code_of(url) is None


def test_the_longest_address_has_a_code() -> None:
    assert code_of("x" * MOST_IN_CODE) is not None
