"""Tokens to text and back: a prompt's ids, the piece each token adds, the text of one token alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tokenizers.decoders import DecodeStream

from loopviz.engine import limits


def encode_prompt(tokenizer: Any, prompt: str, *, chat: bool, context: int) -> list[int]:
    """The token ids of ``prompt``, in the chat template if asked.

    Raises:
        ValueError: empty, not text, longer than ``context`` tokens, or a tokenizer without a chat template.
    """
    limits.check_prompt_text(prompt, context)
    if chat:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                "chat=True: this tokenizer has no chat template (a base model, not a chat model); turn chat off"
            )
        messages = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    else:
        ids = tokenizer(prompt)["input_ids"]
    limits.check_prompt_tokens(len(ids), context)
    return list(ids)


class Pieces:
    """The text each token adds; special tokens are spelled out.

    Pieces concatenate to the decoded text. A token that ends inside a multi-byte character adds ``""``, and the token that
    completes the character adds it whole; a text cut inside a character lacks that character.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._fast = getattr(tokenizer, "backend_tokenizer", None) if getattr(tokenizer, "is_fast", False) else None
        self._stream = DecodeStream(skip_special_tokens=False)
        self._ids: list[int] = []
        self._start = self._done = 0  # the window re-decoded by the slow way, and the ids in it already said

    def add(self, token: int) -> str:
        """The piece that ``token``, the next of the text, adds."""
        if self._fast is not None:
            return self._stream.step(self._fast, token) or ""
        # A slow tokenizer: decode a short window with and without the new tokens, and take the difference.
        self._ids.append(token)
        said = self._decode(self._ids[self._start : self._done])
        text = self._decode(self._ids[self._start :])
        if text.endswith("\ufffd") or len(text) <= len(said):
            return ""
        self._start, self._done = self._done, len(self._ids)
        return text[len(said) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class TokenTexts:
    """The text of a single token as it looks inside a text (with the space before it), remembered by id."""

    def __init__(self, tokenizer: Any) -> None:
        self._decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._anchor, self._before = list(anchor), self._decode(list(anchor))
        self._text = lru_cache(maxsize=65536)(self._look_up)

    def __call__(self, token: int) -> str:
        return self._text(token)

    def _look_up(self, token: int) -> str:
        # Decoders drop the space before the first word: let the token follow something.
        text = self._decode([*self._anchor, token])
        return text[len(self._before) :] if text.startswith(self._before) else self._decode([token])
