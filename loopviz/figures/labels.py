"""How panels write numbers, tokens and stop reasons, in both languages.

Plotly draws a small HTML in texts and reads ``%{...}`` in some: a token's own characters must pass as characters.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, overload

from loopviz.figures.theme import stop_kind

FLOOR = 1e-8  # a log axis has no zero; below this, float32 rounding is all there is

COMMON: dict[str, dict[str, str]] = {
    "en": {
        "token": "token {index} “{text}”",
        "stopped_count": "the fixed count",
        "stopped_cosine": "cosine",
        "stopped_kl": "KL",
        "stopped_max": "the maximum",
        "stopped_other": "rule",
        "block": "block {block} (layers {a}–{b})",
        "choose_block": "Looped block",
        "no_blocks": "no looped block in this run (a plain Llama)",
        "no_block": "this run has no block {block}: its blocks are 0–{last}",
        "not_yet": "token {token} has not been read yet",
        "not_recorded": "loop values were not recorded in this run (recorder off)",
        "skipped": "the block was skipped for this token: no loop step ran",
        "left_out": "layer {layer} was left out of every loop step of this token",
        "undefined": "undefined",
        "floored": "{value} (at or below {floor}: drawn at the axis floor)",
    },
    "zh": {
        "token": "词元 {index}“{text}”",
        "stopped_count": "固定次数",
        "stopped_cosine": "余弦",
        "stopped_kl": "KL",
        "stopped_max": "最大次数",
        "stopped_other": "规则",
        "block": "块 {block}（第 {a}–{b} 层）",
        "choose_block": "循环块",
        "no_blocks": "本次运行没有循环块（普通 Llama）",
        "no_block": "本次运行没有块 {block}：只有块 0–{last}",
        "not_yet": "词元 {token} 尚未读入",
        "not_recorded": "本次运行没有记录循环数值（记录器关闭）",
        "skipped": "这个词元跳过了该块：没有运行任何循环步",
        "left_out": "第 {layer} 层在这个词元的每个循环步中都被跳过",
        "undefined": "无定义",
        "floored": "{value}（不大于 {floor}：画在坐标轴下限）",
    },
}
_SHOWN = {"\n": "↵", "\r": "␍", "\t": "⇥"}
_JOINERS = "\u200c\u200d"  # invisible, but they shape emoji and Indic letters


_COUNTED = re.compile(r"\{(\w+)\}((?: generated)? )(tokens|loop steps|loops|times|layer passes)\b")


def fill(template: str, **values: object) -> str:
    """``template`` with its places filled; one of a thing is said in the singular: ``1 loop``, where 3 are ``3 loops``."""

    def of_one(found: re.Match[str]) -> str:
        name, between, things = found.groups()
        single = things[:-2] if things == "layer passes" else things[:-1]
        return f"{{{name}}}{between}{single if str(values.get(name)) == '1' else things}"

    return _COUNTED.sub(of_one, template).format(**values)


def escape(text: str) -> str:
    """``text`` so that plotly shows exactly these characters."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "&#37;{")


def plain(text: str) -> str:
    """Undo the markup of a figure's text, for readers of plain text (a summary): tags away, characters back."""
    return html.unescape(re.sub(r"</?(sub|sup|b|i|u)>|<br>", "", text))


def columns(text: str) -> int:
    """How many columns ``text`` takes, about: a wide character takes two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


@lru_cache(maxsize=8192)  # the same few thousand pieces come again and again
def show_token(text: str, width: int = 24) -> str:
    """A token as shown in a figure: blanks and control characters made visible, cut to ``width`` columns, escaped.

    "…" stands for no text: the token is part of a character that is not complete yet.
    """
    if not text:
        return "…"
    if text.isspace() and set(text) <= {" "}:
        return "␣" * min(len(text), width)
    out, used = [], 0
    for char in text.strip(" "):
        if char in _SHOWN:
            char = _SHOWN[char]
        elif unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and char not in _JOINERS:
            char = f"\\u{ord(char):04x}"
        used += columns(char)
        if used > width:
            out.append("…")
            break
        out.append(char)
    return escape("".join(out))


def show_piece(text: str, width: int = 24) -> str:
    """:func:`show_token` with every blank seen: a piece that begins a word differs from one that goes on with it."""
    return show_token(text.replace(" ", "␣"), width)


def percent(probability: float | None, lang: str) -> str:
    """``43.2 %``; says so when undefined."""
    return COMMON[lang]["undefined"] if probability is None else f"{100 * probability:.3g} %"


def token_label(frame: Mapping[str, Any], lang: str, width: int = 24) -> str:
    """``token 12 “cat”``."""
    return COMMON[lang]["token"].format(index=frame["index"], text=show_token(frame["text"], width))


def stop_label(reason: str, lang: str) -> str:
    """A stop reason in words; a registered criterion keeps its name."""
    kind = stop_kind(reason)
    words = COMMON[lang][f"stopped_{kind}"]
    return f"{words} {escape(reason)}" if kind == "other" else words


@overload
def sig(value: float, digits: int = 4) -> float: ...
@overload
def sig(value: None, digits: int = 4) -> None: ...
@overload
def sig(value: float | None, digits: int = 4) -> float | None: ...
def sig(value: float | None, digits: int = 4) -> float | None:
    """``value`` rounded to ``digits`` significant digits: what is drawn; None stays None."""
    return None if value is None else float(f"{value:.{digits}g}")


def number(value: float | None, lang: str, floor: float | None = None) -> str:
    """``value`` to three significant digits for a hover text; says so when it is undefined, or drawn at ``floor``."""
    if value is None:
        return COMMON[lang]["undefined"]
    text = f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e+")
    if floor is not None and value <= floor:
        return COMMON[lang]["floored"].format(value=text, floor="1e-8" if floor == FLOOR else f"{floor:g}")
    return text


def log_y(value: float | None, digits: int = 4) -> float | None:
    """``value`` as drawn on a log axis: rounded to ``digits`` significant digits, and never below ``FLOOR``."""
    return None if value is None else sig(max(value, FLOOR), digits)


@overload
def log_z(value: float) -> float: ...
@overload
def log_z(value: float | None) -> float | None: ...
def log_z(value: float | None) -> float | None:
    """``log10(value)`` for a colour, never below ``log10(FLOOR)``."""
    return None if value is None else round(math.log10(max(value, FLOOR)), 3)


def show_bytes(count: int) -> str:
    """``1.23 MB``; decimal units, 1 kB = 1000 B."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} B"


def missing_block(meta: Mapping[str, Any], block: int, lang: str) -> str | None:
    """What to say when ``block`` is not in this run; None when it is."""
    blocks = len(meta["blocks"])
    if not blocks:
        return COMMON[lang]["no_blocks"]
    if block >= blocks:
        return COMMON[lang]["no_block"].format(block=block, last=blocks - 1)
    return None


def block_label(spec: Mapping[str, Any], block: int, lang: str) -> str:
    """``block 0 (layers 10–14)``."""
    return COMMON[lang]["block"].format(block=block, a=spec["layers"][0], b=spec["layers"][1])


def changed(fields: Mapping[str, Any], width: int = 30) -> str:
    """``loop_count=6, loop_damping=0.5``: settings that changed, cut to ``width`` columns."""
    shown = ", ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in fields.items()
    )
    return show_token(shown, width)


def wrapped(text: str) -> str:
    """``text`` in lines that a phone's width holds; Chinese sentences here are short enough as they are."""
    wide = any(unicodedata.east_asian_width(char) in "WF" for char in text)
    return text.replace("：", "：<br>") if wide else "<br>".join(textwrap.wrap(text, 36))


def message(text: str) -> dict[str, Any]:
    """The annotation that says on screen what is missing; shown when ``text`` is not empty."""
    return {
        "text": wrapped(text),
        "visible": bool(text),
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
        "font": {"size": 13},
        "align": "center",
    }
