"""The beginnings of a text's documents as prompts, and what follows each as its reference."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import regex

from loopviz.engine.pieces import encode, text_begins_with
from loopviz.model.interrupt import check
from loopviz.text_file import lines_of, pieces

from .windows import CHARACTERS_A_TOKEN

_HYPHENS = "-‐‑"
_SPACELESS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")  # letters
_BOUNDARY = regex.compile(r"(?w)\b")  # of words as Unicode has them (UAX 29): never inside a character that people see


def beginnings(tokenizer: Any, text: str, prompt_tokens: int, reference_tokens: int) -> Iterator[tuple[list[int], str]]:
    """A prompt and its reference from each document of a text that is long enough for both, in order.

    A prompt begins where its document begins. It ends where a word ends, at the end of a token of the document, and so does
    its reference, unless the document ends first. In scripts without spaces both end at a mark, or at a character where a
    stretch without marks is too long.

    Args:
        text: documents end at lines that hold ``<|endoftext|>`` alone.
        prompt_tokens: of a prompt at most, with what the tokenizer puts before every text.
        reference_tokens: of a reference at most.

    Yields:
        The prompt's tokens, and the text of its reference.

    Raises:
        ValueError: whatever the tokenizer raises.
    """
    before = text_begins_with(tokenizer)
    room = prompt_tokens - len(before)
    for piece in pieces(lines_of(text)):
        check()  # there may be a hundred thousand documents
        if not piece.begins:
            continue
        head, whole = _head(tokenizer, piece.text, room + reference_tokens)
        kinds = cuts_of(head)
        prompt = _fitting(tokenizer, head, kinds, room)
        if not prompt:
            continue
        ids = _ids(tokenizer, head[:prompt])
        last = [len(head)] * (whole and piece.ends)
        later = tuple([cut for cut in cuts if cut > prompt] + last for cuts in kinds)
        end = _fitting(tokenizer, head, later, len(ids) + reference_tokens)
        if head[prompt:end].strip():
            yield before + ids, head[prompt:end]


def cuts_of(text: str) -> tuple[list[int], list[int]]:
    """Where a text can be cut: at the end of a word or mark; and with these, between letters of a script without spaces.

    Never behind a space, and not at the text's end.
    """
    sure, all_of_them = [], []
    for match in _BOUNDARY.finditer(text):
        at = match.start()
        inside = 0 < at < len(text) and not text[at - 1].isspace()
        if inside and not (_hyphen(text, at - 1) or _hyphen(text, at)):
            all_of_them.append(at)
            if not (_SPACELESS.match(text[at - 1]) and _SPACELESS.match(text[at])):
                sure.append(at)
    return sure, all_of_them


def _hyphen(text: str, at: int) -> bool:
    """Whether a hyphen inside a word stands there."""
    return text[at] in _HYPHENS and text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum()


def _ids(tokenizer: Any, text: str) -> list[int]:
    return encode(tokenizer, text, add_special_tokens=False, verbose=False)


def _head(tokenizer: Any, document: str, tokens: int) -> tuple[str, bool]:
    """Enough of a document for so many tokens, and whether that is all of it."""
    size = CHARACTERS_A_TOKEN * (tokens + 8)
    while size < len(document):
        if len(_ids(tokenizer, document[:size])) > tokens + 32:
            return document[:size], False
        size *= 2
    return document, True


def _fitting(tokenizer: Any, text: str, kinds: tuple[list[int], ...], tokens: int) -> int:
    """The last cut before which ``text`` has at most so many tokens, and they are its own; of the first kind that has one.

    0 if none has.
    """
    own = _ids(tokenizer, text)
    for cuts in kinds if len(own) > tokens else kinds[:1]:
        count = bisect_right(cuts, tokens, key=lambda cut: len(_ids(tokenizer, text[:cut])))
        for cut in reversed(cuts[:count]):
            ids = _ids(tokenizer, text[:cut])
            if own[: len(ids)] == ids:
                return cut
    return 0
