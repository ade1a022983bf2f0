"""GGUF tokenizers against llama.cpp's: token ids it gave for small vocabularies are kept in `data/llama_cpp_token_ids.json`.

The merges of its byte-level vocabulary run across every border between words, digits, marks and blanks, so that a text cut
elsewhere comes out as other ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from loopviz.model.checkpoints.gguf_pretokenizers import PRETOKENIZERS
from loopviz.model.checkpoints.gguf_tokenizer import load_gguf_tokenizer
from loopviz.model.checkpoints.load import load_checkpoint
from tests.conftest import make_llama, make_tokenizer
from tests.model.checkpoints.test_gguf import write_gguf

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "llama_cpp_token_ids.json").read_text(encoding="utf-8"))
BYTES, PIECES = RECORDED["byte_level"], RECORDED["sentencepiece"]
# Where llama.cpp says of itself that it approximates a published tokenizer.json, and the published expression is used here:
# combining marks belong to words (tekken, gpt-4o), and a wide blank is a mark and no blank (deepseek).
_MARKS, _WIDE = ("नमस्ते", "e\u0301"), ("\u3000",)
APPROXIMATED = {
    **dict.fromkeys(("tekken", "gpt-4o", "kanana2", "llama4", "minimax-m2", "talkie"), _MARKS),
    **dict.fromkeys(("deepseek-coder", "deepseek-llm"), _WIDE),
}
CUTS = {name: group["ids"] for group in BYTES["cuts"] for name in group["names"]}


def vocabulary(file: Path, **meta: Any) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file that holds nothing else; keys are those after `tokenizer.ggml.`."""
    writer = gguf.GGUFWriter(file, "llama")
    for key, value in meta.items():
        add = {list: writer.add_array, bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}[
            type(value)
        ]
        add(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return load_gguf_tokenizer(file, [])


def test_every_pretokenizer_has_recorded_ids() -> None:
    assert CUTS.keys() == PRETOKENIZERS.keys()
    assert len({json.dumps(ids) for ids in CUTS.values()}) >= 19  # so they do cut in different places


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_byte_level_text_is_cut_as_llama_cpp_cuts_it(tmp_path: Path, name: str) -> None:
    tokens, types = BYTES["tokens"], [3, 3] + [1] * (len(BYTES["tokens"]) - 2)
    marks = {"bos_token_id": 0, "eos_token_id": 1}
    tokenizer = vocabulary(
        tmp_path / "x.gguf", model="gpt2", pre=name, tokens=tokens, token_type=types, merges=BYTES["merges"], **marks
    )
    for text, ids in zip(RECORDED["texts"], CUTS[name], strict=True):
        approximated = any(part in text for part in APPROXIMATED.get(name, ()))
        assert (tokenizer(text).input_ids == ids) != approximated, text
        plain = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(plain) == text


@pytest.mark.parametrize("run", PIECES["runs"], ids=lambda run: ", ".join(f"{k}={v}" for k, v in run["flags"].items()))
def test_sentencepiece_text_is_cut_as_llama_cpp_cuts_it(tmp_path: Path, run: dict[str, Any]) -> None:
    """case_gguf_space_prefix, and every character that has no piece, as bytes."""
    parts = {key: PIECES[key] for key in ("tokens", "scores", "token_type")}
    tokenizer = vocabulary(tmp_path / "x.gguf", model="llama", **parts, **run["flags"])
    for text, ids in zip([*RECORDED["texts"], *PIECES["more_texts"]], run["ids"], strict=True):
        assert tokenizer(text).input_ids == ids, text


def test_gguf_space_prefix(tmp_path: Path) -> None:
    parts = {key: PIECES[key] for key in ("tokens", "scores", "token_type")}
    begins = [
        vocabulary(tmp_path / f"{flag}.gguf", model="llama", **parts, add_space_prefix=flag).tokenize("Hello")[0][0]
        for flag in (True, False)
    ]
    assert begins == ["▁", "H"]


def test_smollm2_numbers(tmp_path: Path) -> None:
    """Every digit by itself, and the blanks before a number as GPT-2 cuts what is left."""
    tokens, types = BYTES["tokens"], [3, 3] + [1] * (len(BYTES["tokens"]) - 2)
    parts = {"model": "gpt2", "tokens": tokens, "token_type": types, "merges": BYTES["merges"]}
    tokenizer = vocabulary(tmp_path / "x.gguf", pre="smollm", **parts)
    text = "x = [\n    1,\n    20,\n]"
    offsets = tokenizer(text, return_offsets_mapping=True).offset_mapping
    pieces = [text[a:b] for a, b in offsets]
    assert [piece for piece in pieces if any(c.isdigit() for c in piece)] == ["1", "2", "0"]


@pytest.mark.parametrize(
    ("texts", "ends"),
    [
        ({}, {"</s>"}),
        ({"Ā": "<|eot_id|>", "ā": "<|eom_id|>"}, {"</s>", "<|eot_id|>", "<|eom_id|>"}),
        ({"Ā": "<|im_end|>", "ā": "<|endoftext|>"}, {"</s>", "<|im_end|>", "<|endoftext|>"}),
        ({"Ā": "<end_of_turn>"}, {"</s>", "<end_of_turn>"}),
        ({"Ā": "<|end|>"}, {"</s>", "<|end|>"}),
        ({"Ā": "<|end|>", "ā": "<|return|>", "Ă": "<|call|>"}, {"</s>", "<|return|>", "<|call|>"}),
        ({"Ā": "<|eot|>"}, {"</s>"}),
    ],
)
def test_gguf_end_of_turn_is_known_by_its_text(tmp_path: Path, texts: dict[str, str], ends: set[str]) -> None:
    """As llama.cpp's loader: a chat model whose file names one end mark ends at those of turns and messages too."""

    def rename(meta: dict[str, Any], tensors: dict[str, Any]) -> None:
        meta["tokenizer.ggml.tokens"] = [texts.get(token, token) for token in meta["tokenizer.ggml.tokens"]]

    loaded = load_checkpoint(write_gguf(tmp_path / "x.gguf", make_llama(), make_tokenizer(), rename))
    ids = loaded.model.generation_config.eos_token_id
    assert set(loaded.tokenizer.convert_ids_to_tokens(ids if isinstance(ids, list) else [ids])) == ends
    assert all(
        loaded.tokenizer.added_tokens_decoder[loaded.tokenizer.convert_tokens_to_ids(end)].special for end in ends
    )
    prompt = torch.tensor([[9, 10]])
    with torch.no_grad():
        state = loaded.model.model(prompt).last_hidden_state[0, -1]
        for end in loaded.tokenizer.convert_tokens_to_ids(sorted(ends)):
            loaded.model.lm_head.weight.zero_()
            loaded.model.lm_head.weight[end] = state  # by far the likeliest next token: generation ends there
            assert loaded.model.generate(prompt, max_new_tokens=5, do_sample=False)[0].tolist() == [9, 10, end]
