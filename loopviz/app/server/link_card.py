"""The picture of a link's preview: its prompt, how it loops and on which model, drawn as 1200 x 630 PNG.

Nothing stands in it but what the link's word holds, cut to a length. The font is our own (`assets/fonts`); a character that it lacks
(Arabic, Hebrew, emoji, rare Chinese) is drawn as a tinted bar, never as an empty box, and a text of right-to-left script begins
at the right. The ring has a segment a loop: what was set, for a link holds no result.
"""

from __future__ import annotations

import functools
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopviz.figures import theme
from loopviz.paths import ASSETS

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

SIZE = (1200, 630)
MOST_PROMPT = 240  # characters that are looked at; the picture has room for fewer
MOST_FACT = 90
MOST_SEGMENTS = 24  # of the ring; of more loops it shows so many
PAGE, INK, SOFT, ACCENT = "#f6f7f9", "#1f2733", "#5b6675", "#4f46e5"
BAR = "#b9c0cc"  # of a character that the font lacks
LEFT, RIGHT, LINES = 64, 1136, 4
_CLOSING = "，。、！？；：）」』】》”’…"  # no line begins with one


@dataclass(frozen=True)
class Card:
    """What a link's picture says, in words.

    Attributes:
        title: of the whole.
        prompt: of the link; None: it has none.
        facts: lines about model and loop.
        loops: that a token takes, or may take at most; 0: nothing loops.
        caption: what stands in the ring under their number.
        above: and above it.
    """

    title: str
    prompt: str | None
    facts: tuple[str, ...]
    loops: int
    caption: str
    above: str = ""


@functools.cache
def _font(size: int) -> FreeTypeFont:
    from PIL import ImageFont

    file = str(ASSETS / "fonts" / "card.otf")
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=8192)
def has_glyph(char: str) -> bool:
    """Whether the font can draw a character: it then looks otherwise than one that no font has."""
    if char.isspace():
        return True
    return _drawn(char) != _no_glyph()


def _drawn(char: str) -> tuple[tuple[int, int], bytes]:
    """A character as the font draws it: width, height and dots."""
    mask = _font(24).getmask(char, mode="1")
    return mask.size, bytes(mask)


@functools.cache
def _no_glyph() -> tuple[tuple[int, int], bytes]:
    """What the font draws for a character that no font has."""
    return _drawn("\uffff")


def settled(text: str, most: int) -> str:
    """A stranger's text as it can stand in a picture: one line, no control characters, no half ones, not too long."""
    one = unicodedata.normalize("NFC", " ".join(text[: 4 * most].split()))
    kept = "".join(char for char in one if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    # a mark that the font lacks belongs to the character before it, and takes no room of its own
    kept = "".join(char for char in kept if not unicodedata.category(char).startswith("M") or has_glyph(char))
    return kept if len(kept) <= most else kept[:most].rstrip() + "..."


def right_to_left(text: str) -> bool:
    """Whether a text begins in a script that is read from the right."""
    strong = next((way for char in text if (way := unicodedata.bidirectional(char)) in ("L", "R", "AL")), "L")
    return strong != "L"


def draw(card: Card) -> bytes:
    """The picture, PNG."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", SIZE, PAGE)
    pen = ImageDraw.Draw(image)
    pen.text((LEFT, 44), "LoopViz", fill=INK, font=_font(58), stroke_width=1, stroke_fill=INK)
    _line(pen, settled(card.title, MOST_FACT), LEFT, 122, RIGHT - LEFT, 28, SOFT)
    wide = (820 if card.loops else RIGHT) - LEFT - 30
    top = 204
    if prompt := settled(card.prompt or "", MOST_PROMPT).strip():
        lines = list(_wrapped(prompt, wide, 42))
        shown = lines[:LINES]
        if len(lines) > LINES:
            shown[-1] = _ending(shown[-1], wide, 42)
        turned = right_to_left(prompt)
        edge = LEFT + 30 + wide + 4 if turned else LEFT
        pen.rounded_rectangle((edge, top + 4, edge + 7, top + 58 * len(shown) - 2), 4, fill=ACCENT)
        for n, words in enumerate(shown):
            _words(pen, words, LEFT + 30, top + 58 * n, wide, 42, turned)
    at = SIZE[1] - 62 - 44 * len(card.facts)
    for fact in card.facts:
        _line(pen, settled(fact, MOST_FACT), LEFT, at, wide + 30, 30, INK)
        at += 44
    if card.loops:
        _ring(pen, card)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _ring(pen: ImageDraw, card: Card) -> None:
    """A segment a loop, pale to deep as the page tints words."""
    n = min(card.loops, MOST_SEGMENTS)
    x, y, radius = 980, 340, 130
    gap = 0 if n == 1 else min(8.0, 120 / n)
    for i, tint in enumerate(theme.loop_tints(n)):
        begin, end = -90 + 360 * i / n + gap / 2, -90 + 360 * (i + 1) / n - gap / 2
        pen.arc((x - radius, y - radius, x + radius, y + radius), begin, end, fill=_opaque(tint), width=34)
    number = str(card.loops)
    pen.text((x, y - 8), number, fill=INK, font=_font(76 if len(number) < 4 else 54), anchor="mm")
    _line(pen, settled(card.above, 24), x - 80, y - 82, 160, 24, SOFT, centred=True)
    _line(pen, settled(card.caption, 24), x - 80, y + 36, 160, 26, SOFT, centred=True)


def _opaque(colour: str) -> tuple[int, int, int]:
    """A colour of the page's, `#rrggbb`, `rgb()` or `rgba()`, as it looks on the card."""
    if colour.startswith("#"):
        return _hex(colour)
    *parts, last = (float(part) for part in re.findall(r"[\d.]+", colour))
    solid, alpha = (parts, last) if len(parts) == 3 else ([*parts, last], 1.0)
    red, green, blue = (round(alpha * ink + (1 - alpha) * page) for ink, page in zip(solid, _hex(PAGE), strict=True))
    return red, green, blue


def _hex(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


def _pieces(text: str) -> Iterator[str]:
    """Where a line may break: after spaces, and on either side of a Chinese or Japanese character, but before no mark that closes."""
    held = ""
    for char in text:
        if unicodedata.east_asian_width(char) in "WF":
            if held and char not in _CLOSING:
                yield held
                held = ""
            held += char
        elif held and unicodedata.east_asian_width(held[-1]) in "WF" and char not in _CLOSING and char != " ":
            yield held
            held = char
        elif char == " ":
            yield held + char
            held = ""
        else:
            held += char
    if held:
        yield held


def _wide(text: str, size: int) -> float:
    return sum(_font(size).getlength(char) if has_glyph(char) else _bar(char, size) for char in text)


def _bar(char: str, size: int) -> float:
    return size * (0.95 if unicodedata.east_asian_width(char) in "WF" else 0.5)


def _wrapped(text: str, wide: float, size: int) -> Iterator[list[str]]:
    """The text's lines, each a list of pieces."""
    line: list[str] = []
    taken = 0.0
    for piece in _pieces(text):
        while True:
            width = _wide(piece.rstrip(), size)
            if taken + width <= wide:
                break
            if line:
                yield line
                line, taken = [], 0.0
                continue
            fits = next((n for n in range(len(piece), 1, -1) if _wide(piece[:n], size) <= wide), 1)
            yield [piece[:fits]]
            piece = piece[fits:]
        if piece:
            line.append(piece)
            taken += _wide(piece, size)
    if line:
        yield line


def _ending(line: list[str], wide: float, size: int) -> list[str]:
    """A line of a text that goes on: as much of it as leaves room for the dots."""
    said = "".join(line).rstrip()
    while said and _wide(said + "...", size) > wide:
        said = said[:-1].rstrip()
    return [*_pieces(said), "..."]


def _turned(pieces: Sequence[str]) -> list[str]:
    """The pieces of a line that is read from the right, in the order in which they stand from the right.

    What is read from the left within it keeps its own order.
    """
    found: list[str] = []
    held: list[str] = []
    for piece in pieces:
        ways = [unicodedata.bidirectional(char) for char in piece]
        if "R" in ways or "AL" in ways:
            found += [*reversed(held), piece]
            held = []
        else:
            held.append(piece)
    return [*found, *reversed(held)]


def _words(
    pen: ImageDraw, pieces: Sequence[str], x: float, y: float, wide: float, size: int, turned: bool, ink: str = INK
) -> None:
    """One line; `turned`: its first word stands at the right."""
    if turned:
        x += wide
    for piece in _turned(pieces) if turned else pieces:
        width = _wide(piece, size)
        at = x - width if turned else x
        for char in piece:
            if has_glyph(char):
                pen.text((at, y), char, fill=ink, font=_font(size))
                at += _font(size).getlength(char)
            else:
                step = _bar(char, size)
                pen.rectangle((at, y + size * 0.55, at + step - 0.5, y + size * 1.05), fill=BAR)
                at += step
        x += -width if turned else width


def _line(
    pen: ImageDraw, text: str, x: float, y: float, wide: float, size: int, ink: Any, centred: bool = False
) -> None:
    """A text on one line, cut where there is no more room."""
    while text and _wide(text, size) > wide:
        text = text.removesuffix("...")[:-1].rstrip() + "..."
        if text == "...":
            break
    if centred:
        x += (wide - _wide(text, size)) / 2
    _words(pen, [text], x, y, wide, size, right_to_left(text) and not centred, ink)
