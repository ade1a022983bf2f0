"""How much memory a computation takes at its peak, and what a sequence keeps in the cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from transformers import GenerationConfig

from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.interrupt import check

NEW_TOKENS = 2  # after the prompt: the first comes of its pass, the second of a pass of one token
_ONE_AT_A_TIME = threading.Lock()  # torch has one profiler, and a device one peak


@dataclass(frozen=True)
class SequenceMemory:
    """What one sequence takes.

    Attributes:
        peak_bytes: most bytes that torch held at once, on top of what it held before (the weights); `None` where torch
            cannot tell (devices other than the CPU and CUDA).
        kv_bytes: keys and values in use in the cache at its end, exact.
        tokens: that the cache then holds.
    """

    peak_bytes: int | None
    kv_bytes: int
    tokens: int


def sequence_memory(view: LoopLlamaForCausalLM, ids: Tensor) -> SequenceMemory:
    """Generate after a prompt, alone, and see what it takes: the prompt in one pass, then a pass of one token.

    Args:
        view: the configuration, a model object of one's own.
        ids: `[T]` int64, the prompt; T + 1 must not exceed the model's context.
    """
    cache = LoopCache(view.config)
    settings = GenerationConfig(
        max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    prompt = ids[None].to(view.device)

    def generate() -> None:
        view.generate(prompt, attention_mask=torch.ones_like(prompt), past_key_values=cache, generation_config=settings)

    peak = peak_bytes(generate, view.device)
    return SequenceMemory(peak, cache.occupancy().bytes_used, cache.get_seq_length())


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int | None:
    """Most bytes that torch held at once while it did some work, on top of what it held before.

    On the CPU, where torch keeps no such count, its profiler tells of every block of memory that this thread's work takes
    and gives back; what other libraries take by themselves (scratch space of a matrix product) is not among them. On CUDA
    it is `torch.cuda.max_memory_allocated`, which counts the whole process.

    Args:
        work: done once, here and now.
        device: where it is done.

    Returns:
        The bytes; `None` on other devices, where nothing tells.
    """
    while not _ONE_AT_A_TIME.acquire(timeout=0.1):
        check()
    try:
        if device.type == "cpu":
            return _peak_of_events(work)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            work()
            torch.cuda.synchronize(device)
            return torch.cuda.max_memory_allocated(device) - before
        work()
        return None
    finally:
        _ONE_AT_A_TIME.release()


def _peak_of_events(work: Callable[[], Any]) -> int:
    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "6"
    )  # read when it is first used: it tells stderr of every start and stop
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=False) as profile:
        work()
    held = peak = 0
    blocks: dict[int, int] = {}  # of this work, by address; what it gives back of older ones is not its own
    for event in sorted(
        _events(profile.profiler.kineto_results.experimental_event_tree()), key=lambda e: e.start_time_ns
    ):
        check()
        if event.tag != _EventType.Allocation:
            continue
        address, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            blocks[address] = size
            held += size
        else:
            held -= blocks.pop(address, 0)
        peak = max(peak, held)
    return peak


def _events(tree: Iterable[Any]) -> Iterator[Any]:
    """All events of a tree, an operation's before what happened in it."""
    for event in tree:
        yield event
        yield from _events(event.children)
