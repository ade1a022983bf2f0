"""A text file as BPE tokens on disk, and random windows of it.

Documents are separated by lines that hold `<|endoftext|>` alone; a file without any is one document. What a text file is:
:mod:`loopviz.text_file`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from loopviz import outputs, text_file
from loopviz.engine.pieces import encode, text_begins_with
from loopviz.text_file import END, TextError


@dataclass(frozen=True)
class Source:
    """Where tokens came from: enough to tell whether a file on disk is still the one they were made of.

    Attributes:
        name: file name, without its folder.
        bytes: size.
        sha256: of the content, hex.
        documents: how many it held.
        tokens: how many it gave, end marks included.
    """

    name: str
    bytes: int
    sha256: str
    documents: int
    tokens: int


def pieces(path: str | os.PathLike[str]) -> Iterator[tuple[str, bool]]:
    """The file's documents in order, empty ones left out, long ones in pieces cut at a line's end.

    Yields:
        Text, and whether a document ends with it (the file's end ends one too).

    Raises:
        TextError: the file is no text.
        OSError: it cannot be read.
    """
    for piece in text_file.pieces(text_file.read_lines(path)):
        yield piece.text, piece.ends


def train_tokenizer(path: Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE (it knows every text) of at most `vocab_size` entries; the end mark is entry 0."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator((text for text, _ in pieces(path)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=END, eos_token=END, clean_up_tokenization_spaces=False
    )


def encode_file(path: Path, tokenizer: PreTrainedTokenizerFast, folder: Path, name: str) -> tuple[np.ndarray, Source]:
    """The file's tokens, mapped from `folder/name.npy`; made there when the file or the tokenizer is another.

    Returns:
        `[n]` uint16 (uint32 for a vocabulary above 65,536): each document, then the end mark. And what they came from.

    Raises:
        TextError: the file holds no text, or is none.
        OSError: it cannot be read, or the tokens cannot be written.
    """
    digest = sha256(path)
    tokenizer_digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    target, note = folder / f"{name}.npy", folder / f"{name}.json"
    if note.is_file() and target.is_file():
        known = json.loads(note.read_text("utf-8"))
        if known.pop("tokenizer") == tokenizer_digest and known["sha256"] == digest:
            return np.load(target, mmap_mode="r"), Source(**known)

    dtype = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
    before = text_begins_with(tokenizer)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    documents = tokens = 0
    with outputs.scratch(folder) as raw, outputs.replacing(target) as partial:
        with raw.open("wb") as file:
            for piece in text_file.pieces(text_file.read_lines(path)):
                own = encode(tokenizer, piece.text, add_special_tokens=False, verbose=False)
                ids = before * piece.begins + own + end * piece.ends
                np.asarray(ids, dtype=dtype).tofile(file)
                documents += piece.ends
                tokens += len(ids)
        if not tokens:
            raise TextError(f"{path}: holds no text")
        mapped = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=(tokens,))
        mapped[:] = np.memmap(raw, dtype=dtype, mode="r")
        mapped.flush()
        del mapped
        note.unlink(missing_ok=True)  # killed between the two writes, the tokens are made again
    source = Source(path.name, path.stat().st_size, digest, documents, tokens)
    outputs.write_text(note, json.dumps({**asdict(source), "tokenizer": tokenizer_digest}))
    return np.load(target, mmap_mode="r"), source


def windows(ids: np.ndarray, batch: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random windows, every start equally likely.

    Returns:
        inputs and, one token further, targets, `[batch, length]` int64.

    Raises:
        TextError: fewer than `length + 1` tokens.
    """
    if len(ids) <= length:
        raise TextError(f"length={length}: the text has only {len(ids)} tokens; give more text, or a shorter length")
    starts = rng.integers(0, len(ids) - length, batch)
    both = np.stack([ids[start : start + length + 1] for start in starts]).astype(np.int64)
    return both[:, :-1], both[:, 1:]


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
