"""Records of instructions as tokens to train on: the answer is learned, the prompt is only read.

A file is JSON lines, or one JSON list, of records in either of two shapes:

    {"prompt": "...", "response": "..."}                        "completion" is taken for "response"
    {"instruction": "...", "input": "...", "output": "..."}     Alpaca's; "input" may be empty or left out

What is put around a prompt is what a run puts around it under the same template, so that a model is asked as it was taught.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopviz.checks import ABSENT, FieldError, Term, check_characters, check_whole, inside
from loopviz.engine.pieces import chat_text, encode, prompt_text
from loopviz.prompt_templates import BEFORE_ANSWER, check_template, written
from loopviz.text_file import lines_of, read_text

IGNORED = -100  # the label of a token that is not learned, to transformers and to torch's cross entropy
SHAPES = (("prompt", "", "response"), ("prompt", "", "completion"), ("instruction", "input", "output"))


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
        place: where it stands: "line 3", or "record 3" of a list.
        prompt, input, answer: its texts; `input` is "" where there is none.
    """

    place: str
    prompt: str
    input: str
    answer: str


def read_instructions(
    path: Path, template: str, tokenizer: Any, context: int, told: Callable[[str], None] | None = None
) -> list[tuple[list[int], list[int]]]:
    """Every record of a file as ids and labels, of one length: the label of a token of the answer, and of the end mark after it, is
    its id; that of the prompt's is -100.

    A record of more than `context` tokens is cut at its end, as is usual (the answer then has no end mark, and none is
    learned); one of which the prompt alone fills them is refused.

    Args:
        path: JSON lines, or one JSON list; UTF-8.
        template: as in :class:`~loopviz.engine.StreamSettings`. Under another one than Alpaca's an input follows its instruction
            after a blank line.
        tokenizer: of the model.
        context: tokens of a record at most, >= 2.
        told: called with a sentence on how many records were cut, if any were.

    Raises:
        FieldError: with the file's name, the line (or the record's number in a list) and the field: what is no JSON, no record, or
            has no text where text belongs, or nothing to learn; and where the tokenizer has no chat template, or cannot read it.
        TextError: the file cannot be read, or is no text.
    """
    check_template(template)
    check_whole("context", context, 2)
    found, cut = [], list[str]()
    for record in read_records(path):
        try:
            prompt, answer = _tokens(record, template, tokenizer)
            if len(prompt) >= context:
                raise FieldError("prompt", ABSENT, "record_no_answer", n=f"{len(prompt):,}", context=f"{context:,}")
        except ValueError as error:
            raise inside(f"{path.name}, {record.place}", error) from None
        ids = prompt + answer
        if len(ids) > context:
            cut.append(record.place)
        found.append((ids[:context], ([IGNORED] * len(prompt) + answer)[:context]))
    if cut and told is not None:
        told(
            f"{path.name}: {len(cut):,} of {len(found):,} records are cut at {context:,} tokens, the first at {cut[0]}"
        )
    return found


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file in order, blank lines left out.

    Raises:
        FieldError, TextError: as :func:`read_instructions`.
    """
    count = 0
    for place, value in _values(read_text(path), path.name):
        count += 1
        try:
            yield _record(place, value)
        except ValueError as error:
            raise inside(f"{path.name}, {place}", error) from None
    if not count:
        raise FieldError(path.name, ABSENT, "records_empty")


def _values(text: str, called: str) -> Iterator[tuple[str, Any]]:
    """What JSON holds, with its place."""
    if text.lstrip()[:1] == "[":
        for number, value in enumerate(_json(text, called), 1):
            yield f"record {number}", value
        return
    for number, line in enumerate(lines_of(text), 1):
        if line.strip():
            yield f"line {number}", _json(line, f"{called}, line {number}")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FieldError(where, ABSENT, "not_json", said=error) from None


def _record(place: str, value: Any) -> Record:
    if not isinstance(value, dict):
        raise FieldError("record", ABSENT, "kind", kind=Term(("mapping",)))
    shape = next((shape for shape in SHAPES if shape[0] in value and shape[2] in value), None)
    if shape is None:
        raise FieldError("record", ABSENT, "record_keys")
    texts = []
    for name in shape:
        text = value.get(name, "") if name else ""
        if not isinstance(text, str):
            raise FieldError(name, text, "text_kind")
        check_characters(name, text)
        texts.append(text)
    if not texts[0].strip():
        raise FieldError(shape[0], ABSENT, "prompt_empty")
    return Record(place, *texts)


def _tokens(record: Record, template: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """The prompt's ids, as a run reads them, and those of the answer with the end mark."""
    asked, more = record.prompt, record.input
    if template != "alpaca":  # which has a place for it
        asked, more = written("none", asked, more), ""
    text, own_marks = prompt_text(tokenizer, asked, template=template, input=more)
    marks = {"add_special_tokens": False} if own_marks else {}
    prompt = encode(tokenizer, text, **marks)
    end = getattr(tokenizer, "eos_token", None) or ""
    rest = BEFORE_ANSWER.get(template, "") + record.answer + end
    if template == "chat":
        whole = chat_text(tokenizer, asked, "template", answer=record.answer)
        if whole.startswith(
            text
        ):  # its own way to end an answer; a template that writes past answers otherwise has none to show
            rest = whole[len(text) :]
    ids = encode(tokenizer, text + rest, **marks)
    # where the answer changes how the prompt's end is cut into tokens, a run still reads the prompt alone
    answer = ids[len(prompt) :] if ids[: len(prompt)] == prompt else encode(tokenizer, rest, add_special_tokens=False)
    if not answer:
        raise FieldError("record", ABSENT, "record_empty_answer")
    return prompt, answer
