"""The tokenizer of a folder: `tokenizer.json`, with what `tokenizer_config.json` says beside it."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, TemplateSyntaxError
from tokenizers import processors
from transformers import BatchEncoding, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .errors import CheckpointError, Note, cause, reading
from .json_files import read_json
from .keys import TOKENIZER_KEYS, check_keys, shown

_CONFIG = "tokenizer_config.json"
# transformers' own tag around what an assistant says; it changes no text
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


def load_folder_tokenizer(folder: Path, notes: list[Note]) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a folder. Not `AutoTokenizer`: a class or code the folder names must not matter.

    Raises:
        CheckpointError: there is none, it cannot be read, or its configuration says what cannot be done.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        model = (folder / "tokenizer.model").is_file()
        raise CheckpointError(
            f"{folder}: there is no tokenizer.json; "
            + ("tokenizer.model alone is not read: save it once with transformers, which writes tokenizer.json" if model
               else "put the one published with these weights beside them")
        )  # fmt: skip
    said: dict[str, Any] = read_json(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}
    check_keys(TOKENIZER_KEYS, said, folder / _CONFIG)
    _check_before_parsing(file)
    with reading(file):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    with reading(folder / _CONFIG):
        _check_prefix_space(tokenizer, said, folder)
        _set_marks_around(tokenizer, said, folder, notes)
        check_templates(tokenizer.chat_template, folder)
    return tokenizer


def _check_before_parsing(file: Path) -> None:
    """Refuse what the Rust library does not refuse but ends the whole process on, where no `except` helps."""
    with reading(file):
        said = read_json(file).get("model")
        model = said if isinstance(said, dict) else {}
        prefix = model.get("continuing_subword_prefix")
    if prefix and model.get("type", "BPE") == "BPE":
        raise CheckpointError(
            f"model.continuing_subword_prefix={shown(prefix)} in {file}: no Llama's tokenizer has one; take the "
            "tokenizer published with these weights"
        )


class BoundedTokenizer(PreTrainedTokenizerFast):
    """A tokenizer with tokens the embedding has no row for, which refuses a text that holds one.

    Only such tokenizers are made one (`within_rows`): left alone, the id would end in an IndexError inside the model.
    """

    rows: int

    def _encode_plus(self, *args: Any, **kwargs: Any) -> BatchEncoding:
        encoded = super()._encode_plus(*args, **kwargs)
        for number in np.ravel(np.concatenate([np.ravel(ids) for ids in _nested(encoded["input_ids"])])):
            if number >= self.rows:
                raise ValueError(
                    f"the token {self.convert_ids_to_tokens(int(number))!r} ({int(number)}) has no row in the model's "
                    f"embedding of {self.rows} (0..{self.rows - 1}); take it out of the text"
                )
        return encoded

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """As the plain tokenizer it is: others have no such class."""
        plain = copy.copy(self)
        plain.__class__ = PreTrainedTokenizerFast
        return plain.save_pretrained(*args, **kwargs)


def _nested(ids: Any) -> list[Any]:
    return list(ids) if len(ids) and not np.isscalar(ids[0]) else [ids]


def within_rows(tokenizer: PreTrainedTokenizerBase, rows: int) -> PreTrainedTokenizerBase:
    """The tokenizer; one with tokens beyond the embedding's `rows` refuses texts that hold one from now on."""
    if max(tokenizer.get_vocab().values(), default=0) >= rows:
        tokenizer.__class__ = BoundedTokenizer
        tokenizer.rows = rows
    return tokenizer


def _check_prefix_space(tokenizer: PreTrainedTokenizerBase, said: dict[str, Any], folder: Path) -> None:
    """Refuse a folder whose two files say different things about a blank in front of a text."""
    asked = said.get("add_prefix_space")
    inner = tokenizer.backend_tokenizer
    # not the whole as JSON: a library that writes one walks every id up to the highest, 2**31 if a file says so
    parts = [part for part in (inner.normalizer, inner.pre_tokenizer) if part is not None]
    does = any(_adds_space(json.loads(part.__getstate__())) for part in parts)
    if asked is not None and bool(asked) != does:
        raise CheckpointError(
            f"add_prefix_space={shown(asked)} in {folder / _CONFIG}: tokenizer.json {'puts a' if does else 'puts no'} "
            "blank in front of a text; make them agree, or take both from one source"
        )


def _adds_space(part: dict[str, Any] | None) -> bool:
    """Whether a normaliser or pre-tokenizer of a tokenizer.json puts a blank in front of a text."""
    if not part:
        return False
    inside = part.get("normalizers") or part.get("pretokenizers") or []
    return (
        (part["type"] == "Prepend" and part["prepend"] in ("▁", " "))
        or (part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never")
        or (part["type"] == "ByteLevel" and part["add_prefix_space"])
        or any(map(_adds_space, inside))
    )


def _set_marks_around(
    tokenizer: PreTrainedTokenizerBase, said: dict[str, Any], folder: Path, notes: list[Note]
) -> None:
    """Begin and end texts with the marks the configuration asks for, where tokenizer.json does otherwise."""
    probe = "a"
    bare, full = (tokenizer(probe, add_special_tokens=full)["input_ids"] for full in (False, True))
    at = next((i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare), 0)
    does = {"bos": at > 0, "eos": len(full) > at + len(bare)}
    wanted = dict(does)
    for mark in ("bos", "eos"):
        asked = said.get(f"add_{mark}_token")
        if asked is None or bool(asked) == does[mark]:
            continue
        if asked and getattr(tokenizer, f"{mark}_token_id") is None:
            raise CheckpointError(
                f"add_{mark}_token={shown(asked)} in {folder / _CONFIG}: there is no {mark}_token; name one, or take "
                f"add_{mark}_token out"
            )
        wanted[mark] = bool(asked)
        notes.append(
            Note(
                f"{mark}_as_configured",
                f"add_{mark}_token={shown(asked)} in {folder / _CONFIG}, which tokenizer.json does not do: texts "
                f"{'get' if asked else 'do not get'} the mark {getattr(tokenizer, f'{mark}_token')!r}",
                {"mark": mark, "asked": bool(asked)},
            )
        )
    if wanted != does:
        tokenizer.backend_tokenizer.post_processor = marks_around(
            (tokenizer.bos_token, tokenizer.bos_token_id) if wanted["bos"] else None,
            (tokenizer.eos_token, tokenizer.eos_token_id) if wanted["eos"] else None,
        )


def marks_around(begin: tuple[str, int] | None, end: tuple[str, int] | None) -> processors.PostProcessor | None:
    """What puts marks (text and id) around a text; None when there is nothing to put."""
    marks = {label: mark for label, mark in (("BOS", begin), ("EOS", end)) if mark}
    if not marks:
        return None
    before, after = (["BOS"] if begin else []), (["EOS"] if end else [])
    second = [f"{label}:1" for label in before], [f"{label}:1" for label in after]
    # Labels, not the marks' own texts: a text with a colon or a dollar means something else in a template.
    return processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *second[0], "$B:1", *second[1]],
        special_tokens=[{"id": label, "ids": [number], "tokens": [text]} for label, (text, number) in marks.items()],
    )


def check_templates(template: Any, where: Path) -> None:
    """Refuse a chat template that is no Jinja: it would end every chat. It is parsed, not run.

    Raises:
        CheckpointError: naming the template and what is wrong with it.
    """
    for name, text in (template if isinstance(template, dict) else {"default": template}).items():
        if text is None:
            continue
        if not isinstance(text, str):
            raise CheckpointError(f"chat_template {name!r} in {where}: expected text, found {type(text).__name__}")
        try:
            Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False).parse(_GENERATION.sub("", text))
        except TemplateSyntaxError as error:
            raise CheckpointError(
                f"chat_template {name!r} in {where}: is not a Jinja template ({cause(error)}, line {error.lineno}); "
                "correct it, or take it out"
            ) from error
