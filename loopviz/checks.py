"""A field that may not have a value: one error, which says what is wrong as data, and one list of rules in words.

    raise FieldError("loop_count", 0, "whole_from_one")     # loop_count=0: must be a whole number >= 1

Who shows it to people asks for its parts, and never reads the sentence. On the ground floor: it imports nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

ABSENT: Any = object()  # there is no value to show

# By key, with places; pages have the same keys in other languages (loopviz.app.texts.rules).
RULES: Mapping[str, str] = MappingProxyType(
    {
        "whole_from_one": "must be a whole number >= 1",
        "at_most_kept": "must be <= {most}; every one of them is kept account of",
        "whole_in": "must be a whole number from {low} to {high}",
        "finite": "must be a finite number",
        "finite_nats": "must be a finite number >= 0 nats",
        "finite_in": "must be a finite number in {range}",
        "finite_in_for": "must be a finite number in {range} for layer_chooser={chooser}",
        "finite_from": "must be a finite number from {low} to {high}",
        "finite_above": "must be a finite number above {low} to {high}",
        "yes_no": "must be True or False",
        "one_of": "must be one of {choices}",
        "some_of": "must be a tuple of some of {choices}",
        "list_for_one_block": "a list needs one value a block, and there is 1 block; give one value, or 1",
        "list_for_blocks": "a list needs one value a block, and there are {n} blocks; give one value, or {n}",
        "registered_in_notebook": "not known here; this model was saved with it, registered in a notebook or script; "
        "run that first. Known are {known}",
        "registered_by_module": "not known here; this model was saved with it, registered by the module {module}; "
        "import {module} first (commands: --import {module}). Known are {known}",
        "layers_shape": "expected None, a pair (first, last) of layer numbers, or a list of such pairs",
        "layers_empty": "expected None, a pair (first, last) of layer numbers, or a list of such pairs; "
        "for a plain Llama write None",
        "layer_outside": "layer {layer} is not in a {n}-layer model (0..{last})",
        "first_after_last": "the first layer, {a}, comes after the last, {b}; write ({b}, {a})",
        "blocks_overlap": "blocks must ascend and not overlap, but {one} is followed by {other}",
        "count_over_max": "must be <= max_loop_count={most}; raise max_loop_count or lower loop_count",
        "max_under_floor": "must be >= min_loop_count={floor} under dynamic_stop; raise max_loop_count or lower "
        "min_loop_count",
        "slots_over_floor": "must be <= min_loop_count={floor} under dynamic_stop, so that every slot is written in "
        "every pass; lower virtual_layer_count or raise min_loop_count",
        "prompt_type": "{type}, where text belongs",
        "prompt_empty": "empty; write at least one character",
        "prompt_characters": "{n} characters, and at most {most} are read (the model's context is {context} tokens); "
        "shorten the prompt",
        "prompt_half": "half a surrogate pair at character {place}, which is no text; remove it",
        "prompt_no_token": "the tokenizer makes no token of it; write something else",
        "prompt_tokens": "{n} tokens, and the model's context is {context} tokens; shorten the prompt by at least "
        "{over} tokens",
        "chat_none": "this tokenizer has no chat template (a base model, not a chat model); turn chat off",
        "chat_refuses": "the model's chat template refuses this prompt ({said}); turn chat off",
        "chat_no_text": "the model's chat template gives no text; turn chat off",
        "text_unreadable": "the model's tokenizer cannot read it ({said}); give another text",
        "logits_nan": "the model's logits are not numbers any more (NaN): its state has blown up; "
        "fewer loops, a smaller loop_damping or loop_norm keep it in bounds",
    }
)


class FieldError(ValueError):
    """A value that a field may not have.

    Args:
        field: its name; "" for none.
        value: what was wanted of it; :data:`ABSENT` where it would say nothing.
        rule: a key of :data:`RULES`.
        part: of the field, where it has parts: "start" or "end" of `loop_layers`.
        shown: the value in other words than its own.
        places: what fills the rule's places.
    """

    def __init__(
        self, field: str, value: Any, rule: str, *, part: str = "", shown: str | None = None, **places: object
    ) -> None:
        self.field, self.value, self.rule, self.part, self.places = field, value, rule, part, places
        self.shown = shown if shown is not None or value is ABSENT else repr(value)
        super().__init__(f"{self.subject()}{RULES[rule].format(**places)}")

    def subject(self, colon: str = ": ") -> str:
        """What the sentence begins with: the field, and the value where there is one."""
        if not self.field:
            return ""
        return f"{self.field}{colon}" if self.shown is None else f"{self.field}={self.shown}{colon}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.field, self.shown, self.rule, self.part, self.places)


def _again(field: str, shown: str | None, rule: str, part: str, places: Mapping[str, object]) -> FieldError:
    """The error in another process: the value may not go there, its words do."""
    return FieldError(field, ABSENT, rule, part=part, shown=shown, **places)
