"""A text as token windows, so that several stretches of it are measured at once and every token is predicted once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from loopviz.checks import ABSENT, FieldError, check_number, check_whole
from loopviz.engine import context_length
from loopviz.engine.pieces import encode as encode_text
from loopviz.engine.pieces import text_begins_with
from loopviz.engine.work import windows_of
from loopviz.lab.experiment import read_file
from loopviz.lab.task import MOST_BATCH, MOST_TOKENS, MOST_WINDOW, Subject, check_text, param
from loopviz.model.interrupt import check
from loopviz.text_file import END, Piece, lines_of, pieces

from .reach import Reach

CHARACTERS_A_TOKEN = 8  # of a text that is read first; more is read if that was too little


@dataclass(frozen=True)
class CorpusParams:
    """Parameters of every measurement that reads a text: which, how much of it, in which windows. Here they share no token."""

    text: str = param("", "Text to measure on.", "用于测量的文本。", kind="text")
    file: str = param(
        "", "UTF-8 text file to measure on, instead of a text.", "用于测量的 UTF-8 文本文件（代替文本）。", kind="file"
    )
    limit_tokens: int = param(512, "Tokens read at most.", "最多读入的词元数。", low=2, high=MOST_TOKENS)
    window: int = param(
        128,
        "Tokens a window; each window starts a text of its own.",
        "每个窗口的词元数；每个窗口都作为独立文本开始。",
        low=2,
        high=MOST_WINDOW,
    )
    batch: int = param(8, "Windows run at once.", "同时运行的窗口数。", low=1, high=MOST_BATCH)

    def __post_init__(self) -> None:
        check_text(self.text, self.file)
        for thing in dataclasses.fields(self):
            if thing.name in ("limit_tokens", "window", "batch"):
                check_whole(thing.name, getattr(self, thing.name), thing.metadata["low"])

    def reach(self, subject: Subject) -> Reach:
        """About how much of the text is read, in which windows; nothing is made of it."""
        tokens = min(self.limit_tokens, subject.tokens_in(self._read()))
        return Reach.of(tokens, self.window, self._overlap, self.batch)

    def windows(self, subject: Subject) -> TextWindows:
        """The text's windows for this model, made as they are read.

        Raises:
            FieldError: a window longer than the model's context, or a text of fewer than two tokens.
        """
        context = context_length(subject.model)
        if self.window > context:
            raise FieldError("window", self.window, "window_in_context", context=context)
        ids = encode(subject.tokenizer, self._read(), self.limit_tokens)
        if len(ids) < 2:
            raise FieldError("text", ABSENT, "text_too_short", n=len(ids))
        return apart(ids, self.window)

    def _read(self) -> str:
        return self.text or read_file(self.file)

    @property
    def _overlap(self) -> int:
        return 0


@dataclass(frozen=True)
class TextParams(CorpusParams):
    """Parameters of every measurement that predicts a text: windows share tokens, so that a prediction can look back."""

    text: str = param("", "The text to measure on (or a file).", "用于测量的文本（或用文件）。", kind="text")
    file: str = param("", "UTF-8 text file to measure on.", "用于测量的 UTF-8 文本文件。", kind="file")
    limit_tokens: int = param(4096, "Tokens to predict, at most.", "最多预测的词元数。", low=1, high=MOST_TOKENS)
    window: int = param(
        256, "Tokens a prediction may look back at most.", "一次预测最多回看的词元数。", low=2, high=MOST_WINDOW
    )
    batch: int = param(16, "Windows in one pass.", "一次前向同时处理的窗口数。", low=1, high=MOST_BATCH)
    overlap: int | None = param(
        None,
        "Tokens a prediction looks back at least, except at the text's beginning (default: half a window).",
        "一次预测至少回看的词元数，文本开头除外（默认：窗口的一半）。",
        low=0,
        high=MOST_WINDOW,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap is not None:
            check_number("overlap", self.overlap, 0, self.window - 1)

    @property
    def _overlap(self) -> int:
        return self.window // 2 if self.overlap is None else self.overlap

    def windows(self, subject: Subject) -> TextWindows:
        """As :meth:`CorpusParams.windows`; every token but the first is predicted once."""
        context = context_length(subject.model)
        if self.window > context:
            raise FieldError("window", self.window, "window_over_context", context=context)
        ids = encode(subject.tokenizer, self._read(), self.limit_tokens + 1)
        return cut(ids, self.window, self._overlap)


@dataclass(frozen=True)
class Windows:
    """Stretches of a text, each measured from an empty cache.

    Attributes:
        starts: `[W]` int64, the place in the text of each one's first token.
        ids: `[W, T]` int64; shorter windows are filled with 0 at the right.
        lengths: `[W]` int64, tokens of each.
        counted: `[W, T - 1]` bool: prediction t of a window (of token t + 1, from tokens 0..t) counts. Every token of
            the text but the first is counted exactly once, and a document's beginning mark never.
    """

    starts: Tensor
    ids: Tensor
    lengths: Tensor
    counted: Tensor

    def __post_init__(self) -> None:
        W, T = self.ids.shape
        assert self.lengths.shape == self.starts.shape == (W,)
        assert self.counted.shape == (W, T - 1)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def mask(self) -> Tensor | None:
        """`[W, T - 1]` int64 for `attention_mask` of a pass over all tokens but the last; `None` without padding."""
        if bool((self.lengths == self.ids.shape[1]).all()):
            return None
        return (torch.arange(self.ids.shape[1] - 1) < (self.lengths - 1)[:, None]).long()


class TextWindows:
    """All windows of a text, none of them made before it is asked for: what is held is the text's tokens, once.

    Args:
        ids: `[n]` the text's tokens.
        own: `[n - 1]` bool, which predictions count: prediction i is of token i + 1.
        spans: by window, where it starts and ends, and how many of its first predictions another window has made.
    """

    def __init__(self, ids: np.ndarray, own: np.ndarray, spans: np.ndarray) -> None:
        self._ids, self._own, self._spans = ids, own, spans  # spans: [W, 3] int64

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def counts(self) -> np.ndarray:
        """`[W]` int64, predictions of each window that count."""
        before = np.concatenate(([0], np.cumsum(self._own, dtype=np.int64)))
        start, end, skip = self._spans.T
        return before[end] - before[start + skip]

    @property
    def tokens(self) -> int:
        """Predictions that count."""
        return int(self.counts.sum())

    @property
    def longest(self) -> int:
        """Tokens of the longest window."""
        return int((self._spans[:, 1] - self._spans[:, 0]).max()) + 1

    def first(self) -> Tensor:
        """The first window's tokens, `[<= T]` int64."""
        return next(self.batches(1)).ids[0]

    @property
    def text(self) -> np.ndarray:
        """`[n]` the text's tokens."""
        return self._ids

    def batches(self, size: int, *, unpadded: bool = False) -> Iterator[Windows]:
        """At most `size` windows at a time, cut to the longest of them.

        Args:
            unpadded: only windows of one length together, so that none is filled.
        """
        lengths = self._spans[:, 1] - self._spans[:, 0]
        for part in np.split(self._spans, np.flatnonzero(np.diff(lengths)) + 1) if unpadded else [self._spans]:
            for i in range(0, len(part), size):
                yield self._made(part[i : i + size].tolist())

    def _made(self, spans: list[list[int]]) -> Windows:
        lengths = [end + 1 - start for start, end, _ in spans]
        ids = torch.zeros(len(spans), max(lengths), dtype=torch.int64)
        counted = torch.zeros(len(spans), max(lengths) - 1, dtype=torch.bool)
        for row, (start, end, skip) in enumerate(spans):
            ids[row, : end + 1 - start] = torch.from_numpy(np.array(self._ids[start : end + 1], dtype=np.int64))
            counted[row, skip : end - start] = torch.from_numpy(self._own[start + skip : end])
        return Windows(torch.tensor([start for start, _, _ in spans]), ids, torch.tensor(lengths), counted)

    def whole(self) -> Windows:
        """All windows at once: of a short text."""
        return next(self.batches(len(self)))

    @property
    def ids(self) -> Tensor:
        """Of all windows at once, as :class:`Windows` has them."""
        return self.whole().ids

    @property
    def lengths(self) -> Tensor:
        """Of all windows at once."""
        return self.whole().lengths

    @property
    def counted(self) -> Tensor:
        """Of all windows at once."""
        return self.whole().counted


def spans(n: int, length: int, overlap: int) -> list[tuple[int, int, int]]:
    """Windows over `n` predictions, as (start, end, already predicted at its beginning); every one is counted once.

    Args:
        n: predictions, >= 1; prediction `i` reads token `i` and is held against token `i + 1`.
        length: tokens a window.
        overlap: tokens a window shares with the one before, in `0..length - 1`: what a prediction looks back at, at
            least, unless the text begins there.
    """
    return [(start, end, skip) for start, end, skip in _spans(n, length, overlap).tolist()]


def _spans(n: int, length: int, overlap: int) -> np.ndarray:
    """As :func:`spans`, `[W, 3]` int64."""
    start = np.arange(windows_of(n, length, overlap), dtype=np.int64) * (length - overlap)
    skip = np.where(start > 0, overlap, 0)
    return np.stack((start, np.minimum(start + length, n), skip), axis=1)


def apart(ids: np.ndarray, length: int) -> TextWindows:
    """Windows that share no token, over tokens `[n]`, n >= 2; a last one of a single token is left out."""
    start = np.arange(0, len(ids), length, dtype=np.int64)
    end = np.minimum(start + length, len(ids)) - 1
    found = np.stack((start, end, np.zeros_like(start)), axis=1)
    return TextWindows(np.asarray(ids), np.ones(len(ids) - 1, dtype=bool), found[end > start])


def cut(ids: np.ndarray, length: int, overlap: int) -> TextWindows:
    """Windows over tokens `[n]` (marks that :class:`TokenIds` knows are read and not predicted).

    Args:
        length, overlap: as in :func:`spans`.

    Raises:
        ValueError: no token to predict.
    """
    if len(ids) < 2:
        raise FieldError("tokens", len(ids), "tokens_too_few")
    given = getattr(ids, "given", None)
    own = np.ones(len(ids) - 1, dtype=bool) if given is None else ~given[1:]  # prediction i is of token i + 1
    if not own.any():
        raise FieldError("tokens", len(ids), "tokens_only_marks")
    found = _spans(len(ids) - 1, length, overlap)
    windows = TextWindows(np.asarray(ids), own, found)
    return TextWindows(np.asarray(ids), own, found[windows.counts > 0])


class TokenIds(np.ndarray):
    """Tokens of a text, `[n]` int64, and which of them no model is asked to foresee.

    Attributes:
        given: `[n]` bool: a mark that the tokenizer puts before every document; `None` where there are none.
    """

    given: np.ndarray | None = None

    @classmethod
    def of(cls, ids: list[int], given: list[bool]) -> TokenIds:
        """Tokens with their marks."""
        found = np.asarray(ids, dtype=np.int64).view(cls)
        found.given = np.asarray(given, dtype=bool) if any(given) else None
        return found

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(part, TokenIds):
            part.given = None if self.given is None else self.given[key]
        return part


def encode(tokenizer: PreTrainedTokenizerBase, text: str, limit: int | None, *, closed: bool = False) -> TokenIds:
    """The first `limit` tokens of a text (`None`: all), `[<= limit]` int64.

    Documents end at lines that hold `<|endoftext|>` alone, and where a text of several is over: each is encoded by itself,
    without the line breaks around it, begins with what the tokenizer puts before every text (`<s>`), and is followed by the
    tokenizer's end mark, if it has one. A text of one document is taken as it is. No more of a long text is encoded than
    needed.

    Args:
        closed: one document is read as several are: without the line breaks around it, and with the end mark.

    Raises:
        ValueError: whatever the tokenizer raises.
    """
    taken = len(text) if limit is None else CHARACTERS_A_TOKEN * limit
    before = text_begins_with(tokenizer)
    several = closed or (END in text and any(line.strip() == END for line in lines_of(text)))
    while True:
        whole = taken >= len(text)
        part = text[:taken]
        documents = list(pieces(lines_of(part))) if several else [Piece(part, True, False, False)] * bool(part)
        found = _encode_all(tokenizer, documents, before, whole)
        # A cut may change the tokens just before it.
        if whole or limit is None or len(found) > limit + 32:
            return found[:limit]
        taken *= 2


def _encode_all(tokenizer: PreTrainedTokenizerBase, documents: list[Piece], before: list[int], whole: bool) -> TokenIds:
    """As :func:`encode`; `whole`: nothing follows them."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids: list[int] = []
    given: list[bool] = []
    for piece in documents:
        check()
        marks = before * piece.begins
        own = encode_text(tokenizer, piece.text, add_special_tokens=False, verbose=False)
        own += end * (piece.marked or (piece.ends and whole))
        ids += marks + own
        given += [True] * len(marks) + [False] * len(own)
    return TokenIds.of(ids, given)
