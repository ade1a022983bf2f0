"""Records of instructions: what is learned is the answer and its end, after the very tokens that a run reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from loopviz.checks import FieldError
from loopviz.engine.pieces import encode_prompt
from loopviz.prompt_templates import TEMPLATES, written
from loopviz.text_file import TextError
from loopviz.train.instructions import IGNORED, read_instructions, read_records
from tests.engine import tiny

CHAT = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
PAIRS = [{"prompt": "a dog saw", "response": "the dog."}, {"prompt": "Once", "completion": "(upon) 从前 🙂"}]
ALPACA = [
    {"instruction": "Say it.", "input": "a dog", "output": "A dog."},
    {"instruction": "Say it.", "input": "", "output": "It."},
    {"instruction": "Say it.", "output": ""},
]
CONTEXT = 600


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = tiny.tokenizer.__wrapped__()
    made.chat_template = CHAT
    return made


def lines(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_answer_and_its_end_are_learned_after_what_a_run_reads(
    template: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    found = read_instructions(lines(tmp_path / "d.jsonl", [*PAIRS, *ALPACA]), template, tokenizer, CONTEXT)
    asked = [("a dog saw", "", "the dog."), ("Once", "", "(upon) 从前 🙂")]
    asked += [("Say it.", "a dog", "A dog."), ("Say it.", "", "It."), ("Say it.", "", "")]
    assert len(found) == len(asked)
    for (ids, labels), (prompt, more, answer) in zip(found, asked, strict=True):
        wording: dict[str, Any] = {"template": template}
        if template == "alpaca":
            wording["input"] = more
        else:
            prompt = written("none", prompt, more)
        read = encode_prompt(tokenizer, prompt, context=CONTEXT, **wording)
        assert ids[: len(read)] == read
        assert labels == [IGNORED] * len(read) + ids[len(read) :]
        before = {"vicuna": " "}.get(template, "")
        after = "\n" if template == "chat" else ""  # its own, after its end mark
        assert tokenizer.decode(ids[len(read) :]) == f"{before}{answer}{tokenizer.eos_token}{after}"
        assert tokenizer.eos_token_id in ids[len(read) :]


def test_a_list_is_read_like_lines_and_blank_lines_are_none(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text("\n" + json.dumps(ALPACA, indent=1), "utf-8")
    listed = read_instructions(tmp_path / "d.json", "alpaca", tokenizer, CONTEXT)
    assert listed == read_instructions(lines(tmp_path / "d.jsonl", ["", *ALPACA, " "]), "alpaca", tokenizer, CONTEXT)
    assert [record.place for record in read_records(tmp_path / "d.json")] == ["record 1", "record 2", "record 3"]
    assert [record.place for record in read_records(tmp_path / "d.jsonl")] == ["line 2", "line 3", "line 4"]


def test_a_long_answer_is_cut_and_told_and_a_prompt_that_leaves_none_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path, told = lines(tmp_path / "d.jsonl", [PAIRS[0], {"prompt": "Once", "response": "dog " * 50}]), list[str]()
    read = len(encode_prompt(tokenizer, "Once", context=CONTEXT))
    (short, _), (ids, labels) = read_instructions(path, "none", tokenizer, 30, told.append)
    assert told == ["d.jsonl: 1 of 2 records are cut at 30 tokens, the first at line 2"]
    assert len(ids) == len(labels) == 30
    assert labels == [IGNORED] * read + ids[read:]
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.eos_token_id in short
    read_instructions(lines(path, PAIRS[:1]), "none", tokenizer, 30, told.append)
    assert len(told) == 1, "nothing was cut"
    with pytest.raises(FieldError, match=rf"^d.jsonl, line 1: prompt: the prompt has \d+ tokens, and {read} are read"):
        read_instructions(lines(path, [{"prompt": "Once Once", "response": "a"}]), "none", tokenizer, read)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("{", "bad.jsonl, line 2: not JSON"),
        ("7", "bad.jsonl, line 2: record: must be a mapping"),
        ({"prompt": "a"}, 'bad.jsonl, line 2: record: must have "prompt" and "response"'),
        ({"prompt": "a", "response": 7}, "bad.jsonl, line 2: response=7: must be text"),
        ({"instruction": "a", "input": None, "output": "b"}, "bad.jsonl, line 2: input=None: must be text"),
        ({"instruction": " ", "output": "b"}, "bad.jsonl, line 2: instruction: empty"),
        ('{"prompt": "a\\ud800", "response": "b"}', "bad.jsonl, line 2: prompt: half a surrogate pair at character 1"),
        ("[" * 100_000, "bad.jsonl, line 2: not JSON"),
    ],
)
def test_a_record_that_is_none_is_refused_by_line_field_and_rule(
    record: Any, says: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(FieldError) as refused:
        read_instructions(lines(tmp_path / "bad.jsonl", [PAIRS[0], record]), "none", tokenizer, CONTEXT)
    assert str(refused.value).startswith(says)


def test_files_and_tokenizers_that_cannot_be_used(tmp_path: Path) -> None:
    plain = tiny.tokenizer()
    with pytest.raises(FieldError, match=r"^d.jsonl: holds no record"):
        read_instructions(lines(tmp_path / "d.jsonl", [""]), "none", plain, CONTEXT)
    with pytest.raises(TextError):
        read_instructions(tmp_path / "not-there.jsonl", "none", plain, CONTEXT)
    path = lines(tmp_path / "d.jsonl", PAIRS)
    with pytest.raises(FieldError, match=r"^d.jsonl, line 1: template='chat': this tokenizer has no chat template"):
        read_instructions(path, "chat", plain, CONTEXT)
    with pytest.raises(FieldError, match=r"^template='llama'"):
        read_instructions(path, "llama", plain, CONTEXT)
    with pytest.raises(FieldError, match=r"^context=1"):
        read_instructions(path, "none", plain, 1)
    endless = tiny.tokenizer.__wrapped__()
    endless.eos_token = None
    with pytest.raises(
        FieldError, match=r"^d.jsonl, line 1: record: the answer has no token, and the tokenizer no end"
    ):
        read_instructions(lines(path, [{"prompt": "a", "response": ""}]), "none", endless, CONTEXT)
