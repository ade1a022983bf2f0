"""Models that are loaded at once, in two threads of a server, are each what their files say; what transformers says is put back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.model.checkpoints.quiet import quiet_transformers
from loopviz.ttt.checkpoint import load_ttt
from tests.conftest import make_llama
from tests.engine import tiny, tiny_ttt


def test_two_kinds_of_models_are_loaded_at_once(tmp_path: Path) -> None:
    """Of two rooms, one read a model whose head is its embeddings as one that lacks its head."""
    looped, ttt = tmp_path / "looped", tmp_path / "ttt"
    make_llama(num_hidden_layers=2, vocab_size=len(tiny.tokenizer())).save_pretrained(looped)
    memory = tiny_ttt.model(num_attention_heads=2, hidden_size=16)
    assert memory.config.tie_word_embeddings
    memory.save_pretrained(ttt)
    for folder in (looped, ttt):
        tiny.tokenizer().save_pretrained(folder)
    wrong: list[Any] = []

    def again(load: Any, folder: Path) -> None:
        try:
            for _ in range(12):
                model = load(str(folder)).model
                assert all(torch.isfinite(weight).all() for weight in model.parameters())
                if load is load_ttt:
                    assert torch.equal(model.lm_head.weight, memory.model.embed_tokens.weight)
        except BaseException as error:
            wrong.append(error)

    threads = [
        threading.Thread(target=again, args=each)
        for each in ((load_checkpoint, looped), (load_ttt, ttt), (load_checkpoint, looped), (load_ttt, ttt))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_transformers_says_is_put_back_by_the_last_who_leaves() -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()
    first, second = quiet_transformers(), quiet_transformers()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.get_verbosity() == logging.ERROR, "the other still reads"
    assert not logging.is_progress_bar_enabled()
    second.__exit__(None, None, None)
    assert logging.get_verbosity() == logging.INFO
    assert logging.is_progress_bar_enabled() == before[1]
    logging.set_verbosity(before[0])
