"""The slow reference, watched: what its loop steps attend to, which keys they write, and what their exits say."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .reference import KV, RefCache, Reference, RefPass

Label = tuple[int, int]
"""Position and slot of a key."""


class WatchedReference(Reference):
    """A `Reference` that keeps, for every position it reads, lists over loop steps.

    Attributes:
        attention: `[layer, position]` to one dict a step: `(position, slot) -> [H]` weights.
        keys: `[layer, position]` to one key a step, `[K, D]`.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.attention: dict[tuple[int, int], list[dict[Label, Tensor]]] = {}
        self.keys: dict[tuple[int, int], list[Tensor]] = {}
        self._labels: list[list[Label]] = []  # per token of the pass still to attend: what its visible keys are
        self._where: list[tuple[int, int]] = []

    def loop_layer(
        self, block: dict[str, Any], layer: int, r: int, states: list[Tensor], start: int, cache: RefCache
    ) -> list[Tensor]:
        held, merging = cache.layers[layer], block["kv_cache_mode"] == "merge_strategy"
        slot = 0 if merging else (r - 1) % block["virtual_layer_count"]
        self._where = [(layer, start + i) for i in range(len(states))]
        for _, position in self._where:
            if merging or block["virtual_attention_mode"] == "serial":
                self._labels.append([(p, slot) for p in range(position + 1)])
            else:
                # The step writes its slot in every token of the pass before anyone attends.
                slots = [list(dict.fromkeys([*held[p], *([slot] if p >= start else [])])) for p in range(position + 1)]
                self._labels.append([(p, s) for p, own in enumerate(slots) for s in own])
        return super().loop_layer(block, layer, r, states, start, cache)

    def decoder_layer(self, layer: int, states: list[Tensor], start: int, store, visible) -> list[Tensor]:
        def watched(i: int, kv: KV) -> None:
            if self._labels:
                self.keys.setdefault((layer, start + i), []).append(kv[0])
            store(i, kv)

        return super().decoder_layer(layer, states, start, watched, visible)

    def attend(self, query: Tensor, visible: list[KV]) -> Tensor:
        if self._labels:
            labels, group = self._labels.pop(0), self.heads // self.kv_heads
            keys = torch.stack([key for key, _ in visible])  # [n, K, D]
            scores = torch.stack([keys[:, h // group] @ query[h] / math.sqrt(self.dim) for h in range(self.heads)])
            weights = scores.softmax(-1)  # [H, n]
            seen = {label: weights[:, i] for i, label in enumerate(labels)}
            assert len(seen) == len(visible)
            self.attention.setdefault(self._where.pop(0), []).append(seen)
        return super().attend(query, visible)

    def exits(self, done: RefPass) -> Tensor:
        """Logits `[N, T, vocab]` of the last block's states s_1..s_N of a pass, each run through the coda."""
        states = done.states[-1][1:]
        T = len(states[0])
        start = done.cache.tokens - T
        logits = []
        for state in states:
            cache = done.cache.keep(start)
            for layer in cache.layers:
                layer.extend({} for _ in range(T))
            tokens = list(state)
            for layer in range(self.blocks[-1]["b"] + 1, self.count):
                tokens = self.plain_layer(layer, tokens, start, cache)
            logits.append(torch.stack([self.lens(x) for x in tokens]))
        return torch.stack(logits)
