"""How large a checkpoint may be that strangers name: looked at before a byte of its weights is fetched or read.

The server has the limits (`loopviz.app.profile`); who loads a checkpoint of their own has none but the machine's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from .errors import CheckpointError, CheckpointRuleError

SPARE = 10  # a load needs a tenth more memory than the weights it leaves


class CheckpointTooLarge(CheckpointError):
    """More than a limit allows.

    Attributes:
        code: of what: "layers", "vocabulary", "weights", "memory", "download", "disk", "unlisted".
        values: what the sentence says, by name.
    """

    def __init__(self, code: str, words: str, **values: Any) -> None:
        super().__init__(words)
        self.code, self.values = code, values


@dataclass(frozen=True)
class CheckpointLimits:
    """What a checkpoint may have.

    Args:
        layers, vocabulary: at most.
        weight_bytes: of its parameters as they will be held.
        download_bytes: of the files that are fetched.
    """

    layers: int
    vocabulary: int
    weight_bytes: int
    download_bytes: int

    def check_counts(self, layers: Any, vocabulary: Any) -> None:
        """Refuse too many layers or tokens; what is no number is refused elsewhere.

        Raises:
            CheckpointTooLarge: by name, with number and limit.
        """
        for code, number, limit, what in (
            ("layers", layers, self.layers, "layers"),
            ("vocabulary", vocabulary, self.vocabulary, "tokens in its vocabulary"),
        ):
            if isinstance(number, int) and number > limit:
                raise CheckpointTooLarge(
                    code, f"it has {number:,} {what}, and at most {limit:,} are loaded here", n=number, limit=limit
                )

    def check_weights(self, n_weights: int, itemsize: int, available: int) -> None:
        """Refuse weights that could not be held.

        Args:
            n_weights: numbers.
            itemsize: bytes of each as it will be held.
            available: bytes of free memory.

        Raises:
            CheckpointTooLarge: by name, with number and limit.
        """
        need = n_weights * itemsize
        if need > self.weight_bytes:
            raise CheckpointTooLarge(
                "weights",
                f"its parameters take {gigabytes(need)} and at most {gigabytes(self.weight_bytes)} are loaded here",
                size=gigabytes(need),
                limit=gigabytes(self.weight_bytes),
            )
        need += need // SPARE
        if need > available:
            raise CheckpointTooLarge(
                "memory",
                f"it needs {gigabytes(need)} of memory and {gigabytes(available)} are free",
                size=gigabytes(need),
                limit=gigabytes(available),
            )

    def check_download(self, sizes: Mapping[str, int | None], cache: Path, there: int) -> None:
        """Refuse files that are too large together, or do not fit on the disk.

        Args:
            sizes: bytes of each file; None where the Hub does not say.
            cache: where they go.
            there: bytes of them that are there already.

        Raises:
            CheckpointTooLarge: by name, with number and limit.
        """
        unlisted = sorted(name for name, size in sizes.items() if size is None)
        if unlisted:
            raise CheckpointTooLarge(
                "unlisted", f"the Hub does not say how large {unlisted[0]} is", file=unlisted[0][:80]
            )
        need = sum(size or 0 for size in sizes.values())
        if need > self.download_bytes:
            raise CheckpointTooLarge(
                "download",
                f"its files are {gigabytes(need)} and at most {gigabytes(self.download_bytes)} are fetched here",
                size=gigabytes(need),
                limit=gigabytes(self.download_bytes),
            )
        free = free_disk(cache)
        if need - there > free:
            raise CheckpointTooLarge(
                "disk",
                f"its files are {gigabytes(need)} and {gigabytes(free)} are free on the disk",
                size=gigabytes(need),
                limit=gigabytes(free),
            )


def count_weights(config: LlamaConfig) -> int:
    """Numbers in all tensors of a Llama of `config`, a tied head once, without building it.

    Raises:
        CheckpointError: sizes that no Llama can have.
    """
    hidden, layers, rows = config.hidden_size, config.num_hidden_layers, config.vocab_size
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    head = getattr(config, "head_dim", None) or (hidden // heads if heads else 0)
    sizes = (hidden, layers, rows, heads, groups, head, config.intermediate_size)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise CheckpointRuleError("sizes", sizes=sizes)
    q, kv = heads * head, groups * head
    layer = hidden * (2 * q + 2 * kv) + 3 * hidden * config.intermediate_size + 2 * hidden
    if config.attention_bias:
        layer += q + 2 * kv + hidden
    if config.mlp_bias:
        layer += 2 * config.intermediate_size + hidden
    more = 0  # what a looped model has beside a Llama
    if getattr(config, "norm_placement", "pre") in ("pre_branch", "pre_stream"):
        layer += 2 * hidden
    if getattr(config, "qk_norm", "none") != "none":
        layer += q + kv if config.qk_norm == "full" else 2 * head
    for block in config.loop_blocks() if hasattr(config, "loop_blocks") else ():
        more += 2 * hidden * hidden * (block.injection == "linear") + hidden * block.norm
        more += (hidden + 1) * (block.exit_selection != "last")
    tables = 1 if config.tie_word_embeddings else 2
    return layers * layer + tables * rows * hidden + hidden + more


def free_disk(folder: Path) -> int:
    """Bytes free where `folder` is or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(os.fspath(folder)).free


def gigabytes(n_bytes: int) -> str:
    """A size for people: "141 GB", "0.94 GB"."""
    return f"{n_bytes / 1e9:.3g} GB"
