"""A tiny looped model and a byte-level tokenizer that splits emoji and Chinese characters across tokens."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM

CORPUS = ["Once upon a time there was a small dog.", "从前有一只小狗。", "the dog 🙂 saw the 🐕"]
END = "<|end|>"


@lru_cache
def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, special_tokens=[END], show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def model(seed: int = 0, *, context: int = 256, layers: int = 5, **loop: Any) -> LoopLlamaForCausalLM:
    """Random weights, wide enough that the next token is not a matter of rounding; it never ends a text by itself."""
    vocabulary = len(tokenizer())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoopLlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=None,
            **loop,
        )
        return LoopLlamaForCausalLM(config).eval()
