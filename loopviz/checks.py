"""A field that may not have a value: one error, which says what is wrong as data, one list of rules in words, the checks.

    raise FieldError("loop_count", 0, "whole_from_one")     # loop_count=0: must be a whole number >= 1
    check_number("draws", -1, 0)                            # draws=-1: must be >= 0

Who shows it to people asks for its parts, and never reads the sentence. On the ground floor: it imports nothing.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeGuard

ABSENT: Any = object()  # there is no value to show
MOST_SHOWN = 60  # characters of a value that somebody typed, in a message

# By key, with places; pages have the same keys in other languages (loopviz.app.texts.rules).
RULES: Mapping[str, str] = MappingProxyType(
    {
        "whole_from_one": "must be a whole number >= 1",
        "whole_from": "must be a whole number >= {low}",
        "at_most_kept": "must be <= {most}; every one of them is kept account of",
        "whole_in": "must be a whole number from {low} to {high}",
        "finite": "must be a finite number",
        "finite_nats": "must be a finite number >= 0 nats",
        "finite_not_negative": "must be a finite number >= 0",
        "finite_positive": "must be a finite number > 0",
        "heads_divide": "must divide hidden_size={width} without a rest; choose another number of heads or another width",
        "head_even": "gives heads of width {head} (hidden_size={width}), which must be even, for rotary positions turn pairs "
        "of numbers; choose another number of heads or another width",
        "finite_in": "must be a finite number in {range}",
        "finite_in_for": "must be a finite number in {range} for layer_chooser={chooser}",
        "finite_from": "must be a finite number from {low} to {high}",
        "finite_above": "must be a finite number above {low} to {high}",
        "number_in": "must be a number from {low} to {high}",
        "yes_no": "must be True or False",
        "on_off": "must be on or off",
        "at_least": "must be >= {low}",
        "at_least_or_null": "must be >= {low}, or null",
        "at_most": "must be <= {high}",
        "above": "must be > {low}",
        "within": "must be in {low}..{high}",
        "in_range": "must be in {range}",
        "from_to": "must be from {low} to {high}",
        "entries": "{n} entries; at most {most} are taken",
        "ascending": "must be ascending whole numbers >= {low}, at least one",
        "one_of": "must be one of {choices}",
        "some_of": "must be a tuple of some of {choices}",
        "kind": "must be {kind}",
        "missing": "is missing",
        "no_parameter": "there is no such parameter; there are {known}",
        "not_a_field": "not a field; there are {known}",
        "not_a_loop_field": "not a loop field; there are {known}",
        "one_text_both": "give exactly one of them; both are given",
        "one_text_neither": "give exactly one of them; neither is given",
        "one_text_several": "give exactly one of them; given: {given}",
        "one_text_none": "give exactly one of them; given: none",
        "half_pair": "half a surrogate pair at character {place}, which is no text; remove it",
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
        "every pass; lower virtual_layer_count or raise min_loop_count; or have the slots that were not reached filled with the "
        "latest K/V, with unreached_slots='latest'",
        "no_weights": "block {block} has no weights for it. They are created when a model is built or loaded with this "
        "setting (and then need training); a live model cannot grow them",
        "weighted_before_layers": "layers follow block {block}, and weights can be put on what is read out alone; let the block end "
        "with the last layer, or set exit_selection='gate'",
        "criterion_of_last_block": "reads what the model would say, which block {block} cannot know before the blocks after it have "
        "run; choose another criterion for it",
        "kv_no_gradient": "keys and values that are rounded to 8 bits have no gradient, and gradients are recorded in this pass; run it under "
        "torch.no_grad(), keep nothing, with use_cache=False, or keep them as they are, with kv_cache_dtype='exact'",
        "kv_no_fp8": "torch {torch} has no float8_e4m3fn on {device}; set 'int8', which needs no format of its own, or 'exact'",
        "gate_nan": "the exit gate of block {block} gives what is no number (NaN); its weights or the states before it are broken: "
        "take another checkpoint, or read out the last loop, with exit_selection='last'",
        "model_name": "the name is empty or longer than {limit} characters",
        "half_text": "half a character is no text: {said}",
        "prompt_blank": "the prompt is empty; type a few words",
        "prompt_long": "the prompt has {n} characters; at most {limit} are taken here",
        "prompt_type": "{type}, where text belongs",
        "prompt_empty": "empty; write at least one character",
        "prompt_characters": "{n} characters, and at most {most} are read (the model's context is {context} tokens); "
        "shorten the prompt",
        "prompt_no_token": "the tokenizer makes no token of it; write something else",
        "prompt_tokens": "{n} tokens, and the model's context is {context} tokens; shorten the prompt by at least "
        "{over} tokens",
        "chat_none": "this tokenizer has no chat template (a base model, not a chat model); leave the chat template out",
        "chat_refuses": "the model's chat template refuses this prompt ({said}); leave the chat template out",
        "chat_no_text": "the model's chat template gives no text; leave the chat template out",
        "template_and_chat": "chat=True is template='chat', and two templates cannot be had; leave one of them out",
        "lora_per_step": "each of its loop steps has a LoRA of its own, and here one set of weights is read; take the model underneath",
        "template_of_pairs": "prompts cut from a text are put as they are; give pairs, or template='none'",
        "input_of_alpaca": "only template='alpaca' has a place for it (template={template!r}); take that, or leave input out",
        "text_kind": "must be text",
        "record_keys": 'must have "prompt" and "response" (or "completion"), or "instruction" and "output", with "input" or without',
        "record_no_answer": "the prompt has {n} tokens, and {context} are read: none of the answer is left to learn; shorten the prompt, "
        "leave the record out, or read more tokens",
        "record_empty_answer": "the answer has no token, and the tokenizer no end mark: nothing is left to learn; write an answer, or "
        "leave the record out",
        "records_empty": "holds no record",
        "teach_peft": "teaching needs the package peft: {install}, and start the server again",
        "teach_adapter": "is an adapter itself; merge it into a model first (loopviz merge), and teach that",
        "teach_template": "plain text has none; leave it as it was ('own'), or give prompts and responses",
        "teach_short": "{n} tokens; with a window of {window} at least {least} are needed; give more text, or a shorter window",
        "teach_rows": "one record; at least 2 are needed, one to learn and one to measure on",
        "teach_prompt": "{n} tokens; at most {most} are read at every evaluation; shorten it",
        "teach_memory": "the copy that is taught takes {held} GB and a step about {step} GB, and {free} GB are free; take a smaller "
        "model, a smaller batch, a shorter window or fewer loops",
        "teach_keep_memory": "measuring what was learned takes {needed} GB, for the model is read once more, and {free} GB are free; what was learned is "
        "still here: let other work end, or close other programs, and keep it then",
        "teach_base_changed": "its files are others than when it was taught, and what was learned belongs to those; teach it again",
        "text_unreadable": "the model's tokenizer cannot read it ({said}); give another text",
        "characters": "{n} characters; at most {most} are taken",
        "choose_file": "choose a text file",
        "window_over_context": "the model's context is {context} tokens; give a shorter window",
        "window_in_context": "must be <= {context}, the model's context",
        "text_too_short": "{n} token(s), but at least 2 are needed; give a longer text",
        "tokens_too_few": "at least 2 are needed to predict one; give a longer text",
        "tokens_only_marks": "nothing but marks of a beginning; give a longer text",
        "text_no_document": "no document is longer than a prompt, and a prompt and its reference take {each} tokens; give a "
        "longer text, or fewer prompt_tokens",
        "prompt_over_context": "with new_tokens={new} more than the model's context of {context}; give fewer",
        "continuation_over_context": "{n} tokens after a prompt of {prompt}, and the model's context is {context} tokens; "
        "shorten it",
        "pairs_empty": "holds no prompt",
        "pairs_shape": 'must be {{"prompt": text}}, with "reference": text or without',
        "prompts_empty": "holds no prompt; write a header with a column prompt, and a prompt a row below it",
        "prompts_no_column": "there is no column {column}; there are {known}. Write {column} over the column of the prompts",
        "prompts_blank": "empty; write a prompt, or leave the row out",
        "prompts_too_many": "{n} cells under a header of {most}; put a cell that holds the separator into quotes",
        "prompts_broken": "cannot be read as CSV ({said}); a quote may not be closed",
        "prompts_one": "give prompts as CSV, or a file of them",
        "not_json": "not JSON ({said})",
        "layers_typed": "write 10-14, or 2-3,6-7 for several blocks",
        "must_be_some": "must be some of {choices}",
        "one_or_both": "must be one or both of {choices}",
        "ema_needs_alphas": "ema needs at least one weight in (0, 1); or leave ema out of modes",
        "damping_each": "each must be in (0, 1]; 1 is the plain loop",
        "damping_zero": "must be in (0, 1]; at 0 a step changes nothing",
        "above_sampling": "must be > 0; for the likeliest token leave do_sample off",
        "coarsest_under_finest": "must be >= finest={finest}, or 0",
        "no_start": "nothing to start from; choose at least one",
        "check_keeps": "a check keeps {n} log-probabilities, more than {most}; read fewer tokens, or leave check out",
        "none_against_baseline": "give at least one configuration to hold against the baseline",
        "as_many_names": "{n} configurations, so as many names",
        "as_many_names_or_none": "{n} configurations, so as many names, or none",
        "sweeps_at_most": "{n} configurations, so at most as many numbers",
        "sweep_of_plain": "a configuration without a loop cannot be measured at several numbers of loops; use 0 for it",
        "two_names_same": "two are the same; give each configuration a name of its own",
        "name_twice": "{name} is there twice; each row has a name of its own",
        "configurations": "{n} configurations; 1 to {most} can be compared",
        "one_of_range": "must be one of 0..{last}",
        "nothing_loops_ablation": 'nothing loops, so there are no cache modes to compare; set "loop_layers" in loop',
        "no_loop_for_counts": "this model has no loop; set loop_layers, or leave loops empty",
        "no_block": "0 looped blocks, and {what} for exactly one (nothing loops in this model: set loop_layers)",
        "several_blocks": "{n} looped blocks, and {what} for exactly one (stopping one changes what the next is given, so it "
        "would have to be run again)",
        "gate_reads_out": "{what} where the last loop step is read out, and not what a gate chooses; set exit_selection='last'",
        "chooser_of_layers": "{what} where every layer runs in every step; set layer_chooser='none'",
        "slots_over_floor_or_last": "must be <= min_loop_count={floor} under dynamic_stop, so that every slot is written in "
        "every pass; lower virtual_layer_count or raise min_loop_count; or keep one entry a token, with "
        "kv_cache_mode='merge_strategy' and merge_strategy='last'",
        "nothing_stops_by_itself": "every token runs the same number of loops; set loop_layers and "
        "loop_strategy='dynamic_stop'",
        "logits_nan": "the model's logits are not numbers any more (NaN): its state has blown up; "
        "fewer loops, a smaller loop_damping or loop_norm keep it in bounds",
        "logits_nan_float16": "the model's logits are not numbers any more (NaN): in float16 no number is above 65504, and its state has "
        "grown beyond that; run it again in exact (--precision exact), or in bfloat16 (--dtype bfloat16)",
        "inner_loss_nan": "is no number any more at layer {layer}, head {head}, token {token} “{text}”: the inner steps have become "
        "too large, or the weights before them are broken. What came before stays; lower the inner learning rate, or take "
        "another checkpoint",
        "ttt_logits_nan": "the model's logits are not numbers any more (NaN) after token {token}: its weights are broken; take another "
        "checkpoint",
        "reads_at_most": "the run has {n} tokens, and at most {most} are read again; open a shorter one",
        "anatomy_lora_on_norm": "a LoRA lies unmerged on projections that are normed, and Anatomy cannot tell what it adds from what was "
        "normed; merge the adapter (python -m loopviz merge), or look at this model in Explore",
        "llama_not_written": "must be {plain}: llama.py writes out a plain Llama's layers, and there is nothing to compare these with",
        "all_different": "must be different numbers, at least one",
        "tokens_fewer": "{n} tokens; at least {least} are needed; give a longer text",
        "ttt_alone": "has no weights that learn while it reads; name a TTT model that reads the same tokens ({known})",
        "left": "left before it was done: its run has gone, the same was asked anew, or it took longer than this server allows; ask again",
        "ttt_unheard": "no effect on a TTT model, which reads a prompt as it is and records the same of every run; leave it out",
        "ttt_no_loop": "a TTT model has no loop and no cache of keys and values, so there is nothing of it to set; leave {what} out, or take a looped "
        "model",
        "ttt_not_measured": "a TTT model, and this measures loops; choose a looped model, or measure {known}",
        "ttt_not_int8": "a TTT model, whose layers are not held in int8, and it is held as the model it stands beside; leave it out, or hold "
        "both exactly, in float32",
        "other_tokens": "reads other tokens than {name}, so no number of one can be held against the other's; choose a model "
        "with the same tokenizer, or leave it out",
        "comes_not_along": "not one of the models that may be named here; there are {known}",
        "lengths_over_text": "the text has {n} tokens, and one window needs one more than its length; give a shorter length, or a "
        "longer text",
        "models_at_most": "{n} configurations, so at most as many models",
        "ttt_absent": "the model that made this run is not loaded here, and this needs it; name it as the TTT model, wait until it is "
        "ready, and ask again",
        "ttt_other": "the model of this name here is not the one that made this run: sizes, tokens or numbers differ; open the run where "
        "its model is",
        "engine_lost": "the replica that made this run ended before it did; what there is stays: press Run to make it again",
        "engine_silent": "no replica of this model has answered within {seconds:g} seconds; try again in a moment, or ask who runs this "
        "server to look at `serve status`",
        "engine_unreached": "the models of this server run on a cluster, {address}, which does not answer ({said}); ask who runs this "
        "server to look at `ray status` and `serve status`, and try again",
        "engine_not_served": "is none of the models that this server's cluster serves: {known}; choose one of them",
        "engine_version": "the cluster serves with {there}, and this server is {here}; give both the same LoopViz",
        "engine_card_lost": "the graphics card that was lent for this run was taken back before its end, after {seconds} seconds at the latest; "
        "what there is stays: ask for fewer words, or press Run to make it again",
        "engine_work_lost": "the replica that did this ended before it was done; what there is stays: begin it again",
        "engine_elsewhere": "its model runs elsewhere; measure it where it runs",
        "lesson_run": "no run of this step is called so; there are {known}",
        "lesson_measure": "nothing is measured under this name; there are {known}",
        "lesson_kind": "is {found}, and {wanted} is needed here; name another measurement",
        "lesson_twice": "is there twice; give each its own",
        "lesson_entries": "{n} entries; give {low} to {high}",
        "lesson_name": "write a short name: small letters, digits, - and _, a letter first, at most {most} characters",
        "lesson_taken": "is a word that scripts have of their own; write another name",
        "lesson_same_run": "is the same run as an earlier one, so that their texts cannot be told apart; change one of them",
        "lesson_blank": "is empty; write something",
        "lesson_overlap": "a number of this choice belongs to an earlier one too, so that two would be right; keep them apart",
        "lesson_layers": "write the first and the last layer that loop, as [0, 1], or null for none",
        "lesson_no_word": "is there {n} times in the run's text, {text}; name a word that is there, or a smaller nth",
        "lesson_no_loop": "nothing loops in this run, so there is no loop to look into; set loop_layers",
        "lesson_few_loops": "there are {n} loops; ask for one of them, or let it run more",
        "lesson_undefined": "is not defined at this loop; ask for another",
        "lesson_one_token": "the prompt has one token, and none after it to be predicted; write a longer one",
        "lesson_no_arrows": "the first run's prompt is no problem of arrows, such as a>b b>c a?: letters a to p, at most one arrow "
        "from each, the question last; write one, or leave the picture out",
        "lesson_table": "a run with a task gives a table, of which cells are measured, and nothing else is; other runs have none",
        "lesson_no_row": "none of the table's {n} rows has these values; name a row that is there",
        "lesson_no_number": "there is no number in this column of that row; name another",
        "lesson_cut_short": "ended before its prompt was read; run it again",
    }
)


# Rules that say by themselves what they are about: their sentence does not begin with the field.
WHOLE_SENTENCES = frozenset({"model_name", "half_text", "prompt_blank", "prompt_long"})

# What fills a place of a rule and is no number or name: words by key, as pages have them in other languages.
TERMS: Mapping[str, str] = MappingProxyType(
    {
        "text": "text",
        "whole": "a whole number",
        "finite": "a finite number",
        "yes_no": "true or false",
        "null": "null",
        "mapping": "a mapping",
        "list": "a list, each entry {of}",
        "list_of": "a list of {n}, each entry {of}",
        "or": " or ",
        "measured_text": "a text",
        "measured_number": "a number",
        "measured_flag": "a yes or no",
        "measured_words": "a word a loop",
        "measured_curve": "a curve, a number a loop",
        "exit_replayed": "an exit can be replayed",
        "starts_compared": "starts can be compared",
        "gate_trained": "a gate can be trained",
    }
)


class Words:
    """What stands in a place of a rule and is words: who shows the rule says it in a language."""

    def said(self, terms: Mapping[str, str]) -> str:
        """In the words of some language."""
        raise NotImplementedError


@dataclass(frozen=True)
class Term(Words):
    """Words of :data:`TERMS` in a place of a rule, one key or several that are joined by "or"; in English by itself."""

    keys: tuple[str, ...]
    of: Term | None = None  # the entries of a list
    n: int | None = None  # how many there are

    def said(self, terms: Mapping[str, str]) -> str:
        """In the words of some language."""
        of = "" if self.of is None else self.of.said(terms)
        return terms["or"].join(terms[key].format(of=of, n=self.n) for key in self.keys)

    def __str__(self) -> str:
        return self.said(TERMS)


class RuleError(ValueError):
    """A refusal that its rule words: in English here, and in the visitor's language by who shows it.

    Attributes:
        texts: what the keys of its rules begin with, among the texts of a page.
        rule: the key.
        places: what fills the rule's places; :class:`Words` for words.
    """

    texts = "rule"
    rule: str
    places: Mapping[str, object]

    def subject(self, colon: str = ": ") -> str:
        """What the sentence begins with, before its rule."""
        return ""


class FieldError(RuleError):
    """A value that a field may not have.

    Args:
        field: its name; "" for none.
        value: what was wanted of it; :data:`ABSENT` where it would say nothing.
        rule: a key of :data:`RULES`.
        part: of the field, where it has parts: "start" or "end" of `loop_layers`.
        also: other fields that the rule is about as well.
        within: what the field belongs to, if it is not alone: a parameter that holds it, a configuration's name.
        shown: the value in other words than its own.
        places: what fills the rule's places; a :class:`Term` for words.
    """

    def __init__(
        self,
        field: str,
        value: Any,
        rule: str,
        *,
        part: str = "",
        also: Sequence[str] = (),
        within: str = "",
        shown: str | None = None,
        **places: object,
    ) -> None:
        self.field, self.value, self.rule, self.part, self.places = field, value, rule, part, places
        self.also, self.within = tuple(also), within
        self.shown = shown if shown is not None or value is ABSENT else spelled(value)
        super().__init__(f"{self.subject()}{RULES[rule].format(**places)}")

    def subject(self, colon: str = ": ") -> str:
        """What the sentence begins with: what the field belongs to, the field, and the value where there is one."""
        if not self.field or self.rule in WHOLE_SENTENCES:
            return ""
        names = ", ".join((self.field, *self.also))
        of = f"{self.within}{colon}" if self.within else ""
        return f"{of}{names}{colon}" if self.shown is None else f"{of}{names}={self.shown}{colon}"

    def inside(self, name: str) -> FieldError:
        """The same of a field that belongs to `name`."""
        within = f"{name}: {self.within}" if self.within else name
        more = {"part": self.part, "also": self.also, "within": within}
        return _again(type(self), self.field, self.rule, more | {"shown": self.shown} | dict(self.places))

    def __reduce__(self) -> tuple[Any, ...]:
        more = {"part": self.part, "also": self.also, "within": self.within, "shown": self.shown}
        return _again, (type(self), self.field, self.rule, more | dict(self.places))


def inside(name: str, error: ValueError) -> ValueError:
    """A refusal of what belongs to `name`: the same, its words after that name."""
    return error.inside(name) if isinstance(error, FieldError) else ValueError(f"{name}: {error}")


def _again(kind: type[FieldError], field: str, rule: str, more: Mapping[str, Any]) -> FieldError:
    """The error anew, in another process too: the value may not go there, its words do."""
    return kind(field, ABSENT, rule, **more)


def spelled(value: Any) -> str:
    """A value as a message in any language shows it; a whole number of more digits than may be spelled out by how large it is."""
    if isinstance(value, int) and abs(value) >= 10**40:
        power = int(math.log10(abs(value)))
        power -= abs(value) < 10**power  # rounded up
        return f"{'≥' if value > 0 else '≤-'}10^{power}"
    try:
        return repr(value)
    except (RecursionError, ValueError):  # lists deep in lists, or such a number in one
        return _SPELLING.repr(value)


class _Spelling(reprlib.Repr):
    """What of a value can be spelled out."""

    def repr_int(self, x: int, level: int) -> str:
        return spelled(x)


_SPELLING = _Spelling()


def shortened(value: Any) -> str:
    """As :func:`spelled`, but not all of a long one."""
    said = spelled(value)
    return said if len(said) <= MOST_SHOWN else said[: MOST_SHOWN - 1] + "…"


# -- the checks --------------------------------------------------------------------------------------------------------


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number, and not a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def finite(value: Any) -> float | None:
    """A finite number as a float; None for what is none, or lies past the largest float."""
    try:
        number = float(value) if is_number(value) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    """FieldError unless `value` is a whole number >= `low`, and <= `high` if there is one."""
    if is_whole(value) and low <= value and (high is None or value <= high):
        return
    if high is None:
        raise FieldError(name, value, "whole_from", low=low)
    raise FieldError(name, value, "whole_in", low=low, high=f"{high:,}")


def check_real(name: str, value: Any, low: float, high: float, *, above: bool = False) -> None:
    """FieldError unless `value` is a finite number in `low..high` (`above`: greater than `low`)."""
    if not is_number(value) or not low <= value <= high or (above and value == low):  # nor is a NaN
        raise FieldError(name, value, "finite_above" if above else "finite_from", low=f"{low:g}", high=f"{high:g}")


def check_number(
    name: str, value: Any, low: float, high: float = math.inf, *, above: bool = False, below: bool = False
) -> None:
    """FieldError unless `value` is a number in `low..high` (`above`: greater than `low`; `below`: less than `high`)."""
    if is_number(value) and _between(value, low, high, above, below):
        return
    if high == math.inf:
        raise FieldError(name, value, "above" if above else "at_least", low=low)
    if above or below:
        raise FieldError(name, value, "in_range", range=_interval(low, high, above, below))
    raise FieldError(name, value, "within", low=low, high=high)


def _between(value: float, low: float, high: float, above: bool, below: bool) -> bool:
    inside = low <= value <= high  # a NaN is not
    return inside and not (above and value == low) and not (below and value == high)


def _interval(low: float, high: float, above: bool, below: bool) -> str:
    """``[0, 1)``."""
    return f"{'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"


def check_kept(name: str, value: Any, low: float, most: float) -> None:
    """FieldError unless `value` is a whole number of something that is kept account of, from `low` to `most`, if there are."""
    if not is_whole(value) or value < low:
        if low == 1:
            raise FieldError(name, value, "whole_from_one")
        if low == -math.inf:
            raise FieldError(name, value, "kind", kind=Term(("whole",)))
        raise FieldError(name, value, "whole_from", low=f"{low:,.12g}")
    if value > most:
        raise FieldError(name, value, "at_most_kept", most=f"{most:,.12g}")


def check_finite(
    name: str, value: Any, low: float, high: float, *, above: bool = False, below: bool = False, rule: str = ""
) -> None:
    """FieldError unless `value` is a finite number that a float can hold, between two ends, either of which may be infinite.

    Args:
        above, below: `low`, or `high`, does not belong to it.
        rule: what is said instead of the ends.
    """
    number = finite(value)
    if number is not None and _between(number, low, high, above, below):
        return
    if rule or math.isinf(low) or math.isinf(high):
        raise FieldError(name, value, rule or "finite")
    raise FieldError(name, value, "finite_in", range=_interval(low, high, above, below))


def check_one_of(name: str, value: Any, known: Collection[str], *, quoted: bool = True) -> None:
    """FieldError unless `value` is one of the texts `known`, named in quotes or as they are."""
    if not isinstance(value, str) or value not in known:
        raise FieldError(name, value, "one_of", choices=", ".join(map(repr, known) if quoted else known))


def check_some_of(name: str, value: Any, known: Collection[str]) -> None:
    """FieldError unless `value` is a tuple (or list) of some of `known`."""
    if not isinstance(value, (tuple, list)) or any(item not in known for item in value):
        raise FieldError(name, value, "some_of", choices=", ".join(map(repr, known)))


def check_flag(name: str, value: Any) -> None:
    """FieldError unless `value` is a truth value."""
    if not isinstance(value, bool):
        raise FieldError(name, value, "yes_no")


def check_counts(name: str, values: Sequence[int], least: int = 1) -> None:
    """FieldError unless there are some, all whole numbers >= `least`, each larger than the one before."""
    good = bool(values) and all(is_whole(value) for value in values)
    if not good or values[0] < least or list(values) != sorted(set(values)):
        raise FieldError(name, values, "ascending", low=least)


def check_characters(name: str, text: str) -> None:
    """FieldError where a text holds what no file can: half of a character that is written as two."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FieldError(name, ABSENT, "half_pair", place=error.start) from None
