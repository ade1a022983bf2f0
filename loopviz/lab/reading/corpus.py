"""The text that a measurement reads, as batches of token windows; and the parameters that name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopviz.lab.experiment import read_file
from loopviz.lab.task import MOST_BATCH, MOST_TOKENS, MOST_WINDOW, Subject, check_number, check_text, param

from .reach import Reach
from .windows import encode


@dataclass(frozen=True)
class CorpusParams:
    """Parameters of every measurement that reads a text in windows that share no token."""

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
        for name, least in (("limit_tokens", 2), ("window", 2), ("batch", 1)):
            check_whole(name, getattr(self, name), least)

    def reach(self, subject: Subject) -> Reach:
        """About how much of the text is read, in which windows; nothing is made of it."""
        tokens = min(self.limit_tokens, subject.tokens_in(self.text or read_file(self.file)))
        return Reach.of(tokens, self.window, 0, self.batch)


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is not a whole number >= ``least``."""
    if type(value) is not int:
        raise ValueError(f"{name}={value!r}: must be a whole number >= {least}")
    check_number(name, value, least)


def token_ids(subject: Subject, params: CorpusParams) -> list[int]:
    """The first tokens of the parameters' text, at most ``limit_tokens``.

    Raises:
        ValueError: fewer than 2 tokens, or windows longer than the model's context.
    """
    context = subject.model.config.max_position_embeddings
    if params.window > context:
        raise ValueError(f"window={params.window}: must be <= {context}, the model's context")
    ids = encode(subject.tokenizer, params.text or read_file(params.file), params.limit_tokens).tolist()
    if len(ids) < 2:
        raise ValueError(f"text: {len(ids)} token(s), but at least 2 are needed; give a longer text")
    return ids


def batches(ids: list[int], window: int, batch: int) -> Iterator[tuple[int, Tensor]]:
    """Windows in order, whole ones together; the shorter rest at the end alone, and left out if it is a single token.

    Yields:
        Place of the first token in ``ids``, and ``[<= batch, <= window]`` int64.
    """
    whole = len(ids) // window
    for start in range(0, whole, batch):
        part = ids[start * window : min(start + batch, whole) * window]
        yield start * window, torch.tensor(part).view(-1, window)
    if len(ids) - whole * window > 1:
        yield whole * window, torch.tensor([ids[whole * window :]])
