"""What a run may ask for, and how it is refused: every message names the value, the rule and what to do."""

from __future__ import annotations

from typing import Any

from loopviz.checks import ABSENT, FieldError, check_characters

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
CARD_SECONDS = 60  # that a graphics card which is lent for each run is asked for


def check_prompt_text(prompt: Any, context: int) -> None:
    """ValueError unless ``prompt`` is non-empty text that may be worth tokenising for a ``context`` of tokens."""
    if not isinstance(prompt, str):
        raise FieldError("prompt", ABSENT, "prompt_type", type=type(prompt).__name__)
    if not prompt:
        raise FieldError("prompt", ABSENT, "prompt_empty")
    most = max(MIN_CHARACTERS, CHARACTERS_PER_TOKEN * context)
    if len(prompt) > most:
        sizes = {"n": f"{len(prompt):,}", "most": f"{most:,}", "context": f"{context:,}"}
        raise FieldError("prompt", ABSENT, "prompt_characters", **sizes)
    check_characters("prompt", prompt)


def check_prompt_tokens(tokens: int, context: int) -> None:
    """ValueError unless 1..``context`` tokens."""
    if tokens < 1:
        raise FieldError("prompt", ABSENT, "prompt_no_token")
    if tokens > context:
        sizes = {"n": f"{tokens:,}", "context": f"{context:,}", "over": f"{tokens - context:,}"}
        raise FieldError("prompt", ABSENT, "prompt_tokens", **sizes)
