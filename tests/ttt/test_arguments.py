"""What a pass is given and does not fit is refused by name, and the cache is as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from loopviz.ttt import TTTCache

from .test_cache import filled, same
from .tiny import ALL_ON, build, close, ids


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"input_ids": torch.zeros(4, dtype=torch.long)}, r"input_ids of shape \[4\]: must be \[B, T\]"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, r"input_ids of shape \[1, 0\]: must be \[B, T\]"),
        ({"input_ids": torch.zeros(0, 4, dtype=torch.long)}, r"input_ids of shape \[0, 4\]: must be \[B, T\]"),
        ({"inputs_embeds": torch.zeros(3, 4)}, r"inputs_embeds of shape \[3, 4\]: must be \[B, T, C\]"),
        ({"labels": ids(2, rows=3)}, r"labels of shape \[3, 2\]: must be \[3, 4\]"),
        ({"labels": ids(4, rows=3), "logits_to_keep": 2}, r"logits_to_keep=2: labels need the logits of all tokens"),
        ({"inner_lr_scale": "much"}, r"inner_lr_scale='much': must be"),
        ({"use_cache": False}, r"use_cache=False: with past_key_values"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(given: dict[str, Any], says: str) -> None:
    model = build(**ALL_ON)
    cache = filled(model)
    before = copy.deepcopy(cache)
    text = {} if "inputs_embeds" in given else {"input_ids": ids(4, rows=3)}
    with pytest.raises(ValueError, match=f"^{says}"):
        model(**{**text, **given}, past_key_values=cache)
    assert same(cache, before)


def test_a_layer_that_is_not_there_is_refused_by_name() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"^layer=7: must be"):
        model.current_weights(filled(model), 7)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_that_is_no_number_says_nothing(side: str) -> None:
    """It was silenced by a factor of 0, which leaves a NaN what it is; a real token was blamed."""
    model = build(**ALL_ON)
    embeds = model.model.embed_tokens(ids(7, rows=2)).detach()
    mask = torch.ones(2, 7)
    hidden = slice(0, 3) if side == "left" else slice(4, 7)
    mask[0, hidden] = 0
    broken = embeds.clone()
    broken[0, hidden] = torch.nan
    with torch.no_grad():
        found = model(inputs_embeds=broken, attention_mask=mask, past_key_values=TTTCache(model)).logits
        whole = model(inputs_embeds=embeds, attention_mask=mask, past_key_values=TTTCache(model)).logits
    close(found[mask.bool()], whole[mask.bool()])
