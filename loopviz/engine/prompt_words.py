"""Whether a model's tokenizer has words for a prompt: what can be known of a language before the model is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HINTED = 400  # characters of a prompt that are looked at
UNKNOWN = 0.3  # of a prompt's tokens that may be the unknown one
BYTES = 0.85  # pieces a byte from which a script comes as single bytes
LEAST = 2  # letters of another script: one may be a name or a sign


def unread_share(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[str, float] | None:
    """What of a prompt a tokenizer has no words for.

    Args:
        prompt: as typed; its beginning is looked at.

    Returns:
        `("unknown", share of tokens that are the unknown one)`, `("foreign", pieces a character)` where most letters are of
        a script that is taken apart into bytes, or None where neither is so.

    Raises:
        ValueError: whatever the tokenizer raises.
    """
    from loopviz.engine.pieces import encode

    prompt = prompt[:HINTED]
    ids = encode(tokenizer, prompt, add_special_tokens=False, verbose=False)
    unknown = tokenizer.unk_token_id
    if ids and unknown is not None and unknown != tokenizer.eos_token_id:
        share = ids.count(unknown) / len(ids)
        if share >= UNKNOWN:
            return "unknown", share
    letters = [char for char in prompt if char.isalpha()]
    foreign = "".join(char for char in letters if not char.isascii())
    if len(foreign) < max(LEAST, len(letters) / 2):
        return None
    pieces = len(encode(tokenizer, foreign, add_special_tokens=False, verbose=False))
    return ("foreign", pieces / len(foreign)) if pieces >= BYTES * len(foreign.encode()) else None
