"""The picture of a link: of any words, never an empty box, never more than a bounded piece of work."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from loopviz.app.server import link_card
from loopviz.app.server.link_card import Card, draw, has_glyph, right_to_left, settled

LATIN = "Once there was a robot who found a shiny key in the forest and did not know what it was for"
WORDS = {
    "latin": LATIN,
    "chinese": "从前有一个机器人，它住在森林里，每天都在想同一个问题。",
    "long": "antidisestablishmentarianism" * 20,
    "right to left": "كان يا ما كان روبوت صغير",
    "hebrew": "היה היה רובוט קטן",
    "emoji": "🙂🙃 👩‍👩‍👧‍👦 🇨🇭 the end",
    "controls": "a\x00b\u202ec\u2066d\ud83d\n\r\te",
    "rare": "𠮷野家 ﷽",
    "blank": " \n ",
}


def card(prompt: str | None, loops: int = 8) -> Card:
    return Card("A link to a run", prompt, ("layers 0–1 run 8 times", "model: stories-loop"), loops, "loops")


def opened(made: bytes) -> Image.Image:
    return Image.open(io.BytesIO(made)).convert("RGB")


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("loops", [0, 1, 8, 1024])
def test_any_words_make_a_picture_of_the_right_size(name: str, loops: int) -> None:
    made = draw(card(WORDS[name], loops))
    assert made.startswith(b"\x89PNG")
    assert opened(made).size == link_card.SIZE
    assert len(made) < 150_000


def test_no_prompt_is_no_empty_quote() -> None:
    assert opened(draw(card(None))).tobytes() == opened(draw(card(" "))).tobytes()
    assert opened(draw(card(None))).tobytes() != opened(draw(card("Once"))).tobytes()


def test_the_font_has_what_people_write_most_and_knows_what_it_lacks() -> None:
    assert all(map(has_glyph, "Once upon a time, naïve Ångström – “x” Привет Ω 你好世界，机器人 かな カナ →"))
    assert not any(map(has_glyph, "\u0643\u05d4🙂𠮷"))


def test_what_a_missing_character_looks_like_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was drawn anew beside each character, in the time of who posts a link."""
    drawn, true = [], link_card._drawn
    monkeypatch.setattr(link_card, "_drawn", lambda char: drawn.append(char) or true(char))
    link_card.has_glyph.cache_clear()
    link_card._no_glyph.cache_clear()
    assert [has_glyph(char) for char in "ab\u0643c"] == [True, True, False, True]
    assert sorted(drawn) == sorted("ab\u0643c\uffff")


def test_what_the_font_lacks_is_a_bar_and_never_the_font_s_box() -> None:
    """A box is what a font draws for a character it lacks: dark strokes; a bar has one quiet colour."""
    bar = tuple(int(link_card.BAR[i : i + 2], 16) for i in (1, 3, 5))
    ink = tuple(int(link_card.INK[i : i + 2], 16) for i in (1, 3, 5))
    area = opened(draw(Card("", "\u0643\u0627\u0646", (), 0, ""))).crop((80, 204, 1136, 440))
    colours = {colour for _, colour in area.getcolors(100_000)}
    assert bar in colours
    assert ink not in colours


def test_a_text_of_a_right_to_left_script_begins_at_the_right() -> None:
    assert right_to_left("كان a robot")
    assert not right_to_left("a robot كان")
    assert not right_to_left("123 … ")

    def middle(prompt: str) -> float:
        area = (
            opened(draw(Card("", prompt, (), 0, "")))
            .crop((80, 204, 1136, 264))
            .convert("L")
            .point(lambda v: v < 235 and 255)
        )
        left, _, right, _ = area.getbbox()
        return (left + right) / 2

    assert middle("كان يا") > 528 > middle("Once a")


def test_a_long_text_ends_in_dots_and_stays_inside() -> None:
    assert settled("word " * 500, 40) == settled("word " * 5000, 40)
    assert settled("word " * 500, 40).endswith("...")
    image = opened(draw(card("w " * 3000)))
    page = image.getpixel((0, 0))
    assert {image.getpixel((x, y)) for x in range(1150, 1200) for y in range(0, 630, 7)} == {page}
    assert {image.getpixel((x, y)) for x in range(0, 1200, 7) for y in range(595, 630)} == {page}


@settings(max_examples=25)
@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    assert opened(draw(card(text))).size == link_card.SIZE
    assert all(ord(char) >= 32 for char in settled(text, 50))


@pytest.mark.parametrize(
    ("colour", "seen"),
    [
        ("#0a0b0c", (10, 11, 12)),
        ("rgb(10, 11, 12)", (10, 11, 12)),
        ("rgba(0, 0, 0, 0.5)", (123, 124, 124)),
        ("rgba(10,11,12,1)", (10, 11, 12)),
    ],
)
def test_the_page_s_tints_are_seen_on_the_card_s_ground(colour: str, seen: tuple[int, int, int]) -> None:
    assert link_card._opaque(colour) == pytest.approx(seen, abs=1)
