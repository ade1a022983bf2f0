"""What a run may ask for, and how it is refused: every message names the value, the rule and what to do."""

from __future__ import annotations

from typing import Any

MAX_NEW_TOKENS = 100_000
MAX_TEMPERATURE = 100.0
MAX_TOP_K = 10_000_000
MIN_PENALTY, MAX_PENALTY = 0.01, 100.0
MAX_SEED = 2**63 - 1
MAX_TOP_TOKENS = 100
# Logits are divided by it in float32: much below, even usual ones leave its range and no distribution is left.
MIN_TEMPERATURE = 1e-4
# A tokenizer reads the whole text before anyone can count tokens: text this much longer than any context is not read.
CHARACTERS_PER_TOKEN = 32
MIN_CHARACTERS = 200_000


def whole(name: str, value: Any, low: int, high: int) -> None:
    """ValueError unless ``value`` is an int in ``low..high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: must be a whole number from {low} to {high:,}")


def real(name: str, value: Any, low: float, high: float, *, above: bool = False) -> None:
    """ValueError unless ``value`` is a finite number in ``low..high`` (``above``: greater than ``low``)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or (above and value == low):  # nor is a NaN
        raise ValueError(
            f"{name}={value!r}: must be a finite number {'above' if above else 'from'} {low:g} to {high:g}"
        )


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, choices))}")


def some_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """ValueError unless ``value`` is a tuple (or list) of some of ``choices``."""
    if not isinstance(value, (tuple, list)) or any(item not in choices for item in value):
        raise ValueError(f"{name}={value!r}: must be a tuple of some of {', '.join(map(repr, choices))}")


def flag(name: str, value: Any) -> None:
    """ValueError unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: must be True or False")


def check_prompt_text(prompt: Any, context: int) -> None:
    """ValueError unless ``prompt`` is non-empty text that may be worth tokenising for a ``context`` of tokens."""
    if not isinstance(prompt, str):
        raise ValueError(f"prompt: {type(prompt).__name__}, where text belongs")
    if not prompt:
        raise ValueError("prompt: empty; write at least one character")
    most = max(MIN_CHARACTERS, CHARACTERS_PER_TOKEN * context)
    if len(prompt) > most:
        raise ValueError(
            f"prompt: {len(prompt):,} characters, and at most {most:,} are read (the model's context is {context:,} tokens); "
            "shorten the prompt"
        )
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"prompt: half a surrogate pair at character {error.start}, which is no text; remove it"
        ) from error


def check_prompt_tokens(tokens: int, context: int) -> None:
    """ValueError unless 1..``context`` tokens."""
    if tokens < 1:
        raise ValueError("prompt: the tokenizer makes no token of it; write something else")
    if tokens > context:
        raise ValueError(
            f"prompt: {tokens:,} tokens, and the model's context is {context:,} tokens; "
            f"shorten the prompt by at least {tokens - context:,} tokens"
        )
