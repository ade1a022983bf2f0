"""A stranger's tokenizer and chat template in a process of its own (`loopviz.worker`); who asks is `apart_tokenizer`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import decoders
from transformers import PreTrainedTokenizerBase

from loopviz.worker import Told

from .errors import CheckpointError
from .gguf_tokenizer import load_gguf_tokenizer
from .tokenizer import load_folder_tokenizer, within_rows

LONGEST_TEXT = 8 * 2**20  # characters that a template may make
IDS_A_BYTE = 8  # that a text may become, far more than any: the longest decompositions of a character have 18 letters
IDS_SPARE = 1_024
MARKS = ("bos_token", "eos_token", "unk_token", "pad_token")

_here: list[PreTrainedTokenizerBase] = []


def serve(request: dict[str, Any], tell: Told) -> dict[str, Any]:
    """One request: `do` is "load", "encode", "decode", "template" or "spell"."""
    return _DO[request["do"]](**{name: value for name, value in request.items() if name != "do"})


def _load(path: str, gguf: bool, rows: int, most: int) -> dict[str, Any]:
    """The tokenizer of a folder or GGUF file, and all that is known of it without asking again."""
    notes: list[Any] = []
    tokenizer = (load_gguf_tokenizer if gguf else load_folder_tokenizer)(Path(path), notes)
    vocabulary = tokenizer.get_vocab()
    if len(vocabulary) > most:
        raise CheckpointError(f"the tokenizer has {len(vocabulary):,} tokens, and at most {most:,} are read here")
    _here[:] = [within_rows(tokenizer, rows)]
    return {
        "vocabulary": vocabulary,
        "added": [[number, str(token)] for number, token in tokenizer.added_tokens_decoder.items()],
        "special_ids": list(tokenizer.all_special_ids),
        "special_tokens": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "marks": {name: _plain(getattr(tokenizer, name)) for name in MARKS},
        "mark_ids": {name: getattr(tokenizer, f"{name}_id") for name in MARKS},
        "template": tokenizer.chat_template,
        "byte_level": isinstance(tokenizer.backend_tokenizer.decoder, decoders.ByteLevel),
        "notes": [dataclasses.asdict(note) for note in notes],
    }


def _plain(token: Any) -> str | None:
    return None if token is None else str(token)


def _encode(text: str, how: dict[str, Any]) -> dict[str, Any]:
    encoded = _here[0](text, verbose=False, **how)
    ids = [int(number) for number in encoded["input_ids"]]
    most = IDS_SPARE + IDS_A_BYTE * len(text.encode("utf-8", "surrogatepass"))
    if len(ids) > most:
        raise ValueError(f"{len(text):,} characters became {len(ids):,} tokens, and at most {most:,} are taken")
    if "offset_mapping" not in encoded:
        return {"input_ids": ids}
    return {"input_ids": ids, "offset_mapping": [[int(start), int(end)] for start, end in encoded["offset_mapping"]]}


def _decode(ids: list[int], how: dict[str, Any]) -> dict[str, Any]:
    return {"text": _bounded(_here[0].decode(ids, clean_up_tokenization_spaces=False, **how))}


def _template(messages: list[dict[str, str]], how: dict[str, Any]) -> dict[str, Any]:
    return {"text": _bounded(_here[0].apply_chat_template(messages, tokenize=False, **how))}


def _bounded(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{type(text).__name__}, where text belongs")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"it makes {len(text):,} characters, and at most {LONGEST_TEXT:,} are taken")
    return text


def _spell() -> dict[str, Any]:
    return {"text": _here[0].backend_tokenizer.to_str()}


_DO: dict[str, Callable[..., dict[str, Any]]] = {
    "load": _load,
    "encode": _encode,
    "decode": _decode,
    "template": _template,
    "spell": _spell,
}
