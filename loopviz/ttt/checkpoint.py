"""A TTT checkpoint with its tokenizer, by name or folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from loopviz.model.checkpoints.errors import Note, reading
from loopviz.model.checkpoints.find import NAMED, locate
from loopviz.model.checkpoints.quiet import ONE_READER, quiet_transformers
from loopviz.model.checkpoints.tokenizer import load_folder_tokenizer, within_rows

from .modeling import TTTForCausalLM


@dataclass(frozen=True)
class LoadedTTT:
    """What `load_ttt` found.

    Attributes:
        model: in eval mode.
        tokenizer: its own.
        name: as it was asked for.
        source: where its files came from, for people.
        path: its folder.
        license: SPDX identifier, when it is known.
    """

    model: TTTForCausalLM
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    path: Path
    license: str | None = None


def load_ttt(
    name_or_path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, allow_paths: bool = True
) -> LoadedTTT:
    """Load a TTT model and its tokenizer.

    Args:
        name_or_path: `stories-ttt`, or a folder with config.json, safetensors and a tokenizer.
        dtype: of the parameters; the inner loop is in float32 at least.
        allow_paths: False refuses files and folders of this machine, for names that strangers type.

    Raises:
        CheckpointError: there is none, it is another model's, not whole, or its tokenizer is missing.
    """
    name = os.fspath(name_or_path)
    located = locate(name, lambda stage, share: None, allow_paths=allow_paths)
    notes: list[Note] = []
    with reading(name), quiet_transformers():
        with ONE_READER:
            model = TTTForCausalLM.from_pretrained(
                str(located.path), dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
        tokenizer = within_rows(load_folder_tokenizer(located.path, notes), model.config.vocab_size)
    known = NAMED.get(name)
    return LoadedTTT(model.eval(), tokenizer, name, located.source, located.path, known.license if known else None)
