"""From a pass's loop events to Frames' numbers.

During the pass the hook only keeps references. After it, the states of all steps and the model's own last state go through
``lm_head`` in one matmul (a decode step then reads the head's weights once, as it does without a recorder), and every
quantity is computed for all steps, and at prefill for many tokens, at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loopviz.trace import metrics
from loopviz.trace.schema import BlockFrame, KVFrame, empty_steps, encode_states

if TYPE_CHECKING:
    from loopviz.model import KVOccupancy, LoopLlamaForCausalLM, LoopStep

MAX_ROWS = 512  # rows of one head matmul at prefill
MAX_LOGITS = 2**24  # numbers in it (rows x vocabulary): 64 MiB of float32


# Measured on an AVX2 Xeon with MKL, 49,152 x 576 float32: for 3..15 rows one large matmul costs 2 to 4 times one row,
# because it first repacks the whole weight matrix; slices that stay in the cache cost 1.4 to 1.6 times one row.
SLICED_ROWS = range(3, 16)
SLICE = 128  # vocabulary entries


def head_logits(head: nn.Module, rows: Tensor) -> Tensor:
    """``head(rows)``, ``[..., H] -> [..., V]``, reading the head's weights once; quick for a handful of rows on a CPU."""
    n, whole = rows.shape[:-1].numel(), SLICE * (head.weight.shape[0] // SLICE) if type(head) is nn.Linear else 0
    weight = getattr(head, "weight", None)
    if (
        n not in SLICED_ROWS
        or not whole
        or head.bias is not None
        or weight.device.type != "cpu"
        or weight.dtype.itemsize < 4
    ):
        return head(rows)
    flat, H = rows.reshape(n, -1), rows.shape[-1]
    slices = weight[:whole].view(-1, SLICE, H).transpose(1, 2)  # [V / SLICE, H, SLICE], a view
    logits = torch.bmm(flat.expand(len(slices), n, H), slices).transpose(0, 1).reshape(n, whole)
    if whole < weight.shape[0]:
        logits = torch.cat((logits, nn.functional.linear(flat, weight[whole:])), dim=-1)
    return logits.unflatten(0, rows.shape[:-1])


class Recorder:
    """Turns the passes of one model object (batch 1) into Readings.

    Call :meth:`begin` before a pass and :meth:`read` after it; :meth:`close` when done (removes the loop hook).

    Args:
        model: a LoopLlama of this run's own (``model.with_loop()``).
        top_k: how many of a lens' most likely tokens to keep; at most the vocabulary.
        token_text: the text of a single token id.
        full: False records only the model's own logits, steps and stop reasons, and registers no hook.
    """

    def __init__(
        self, model: LoopLlamaForCausalLM, top_k: int, token_text: Callable[[int], str], full: bool = True
    ) -> None:
        self.model, self.top_k, self.token_text, self.full = model, top_k, token_text, full
        self._events: list[LoopStep] = []
        self._blocks = model.config.loop_blocks()
        self._handle = model.register_loop_hook(self._events.append) if full and self._blocks else None

    def close(self) -> None:
        """Remove the hook and drop everything kept."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
        self._events.clear()

    def begin(self) -> None:
        """Forget the pass before."""
        self._events.clear()

    def read(self, hidden: Tensor, head_time: Callable[[], AbstractContextManager] = nullcontext) -> Iterator[Reading]:
        """The pass's tokens in order, in chunks that bound the memory of the logits.

        Args:
            hidden: the pass's last hidden state after the final norm, ``[1, T, H]``.
            head_time: makes a context that the head's matmuls run in: who wants to know what they take, measures it there.
        """
        report, runs = self.model.last_pass, []
        for i, spec in enumerate(self._blocks):
            events = [event for event in self._events if event.block == i]
            states = [events[0].previous[0], *(event.state[0] for event in events)] if events else []  # N + 1 x [T, H]
            ms = [event.seconds * 1000 for event in events]
            runs.append(_BlockRun(i, [spec.a, spec.b], int(report.steps[i][0]), report.reasons[i][0], states, ms))
        rows = 1 + sum(len(run.states) for run in runs)
        if self.full or hidden.shape[1] == 1:
            size = max(1, min(MAX_ROWS, MAX_LOGITS // self.model.config.vocab_size) // rows)
            for start in range(0, hidden.shape[1], size):
                yield self._chunk(runs, hidden, start, min(start + size, hidden.shape[1]), head_time)
            return
        last = hidden.shape[1] - 1  # as generate() does: a prompt's own tokens need no logits
        yield Reading(self, runs, 0, last, None, None)
        yield self._chunk(runs, hidden, last, last + 1, head_time)

    def _chunk(
        self,
        runs: list[_BlockRun],
        hidden: Tensor,
        start: int,
        stop: int,
        head_time: Callable[[], AbstractContextManager],
    ) -> Reading:
        states = [state[start:stop] for run in runs for state in run.states]
        rows = hidden[:, start:stop]  # [1, C, H]
        stacked = torch.stack(states) if states else None  # [R, C, H]
        if stacked is not None:
            rows = torch.cat((self.model.model.norm(stacked), rows))  # [R + 1, C, H]; the last is normed already
        with head_time():
            logits = head_logits(self.model.lm_head, rows).float()  # [R + 1, C, V]
        return Reading(self, runs, start, stop, stacked, logits)


@dataclass(frozen=True)
class _BlockRun:
    """One block in one pass: ``states`` s_0..s_N, each ``[T, H]`` (none when not recorded), ``ms`` of each step."""

    block: int
    layers: list[int]
    n_steps: int
    reason: str
    states: list[Tensor]
    ms: list[float]


class Reading:
    """What a pass says about its tokens ``start .. stop - 1`` (C of them).

    Args:
        recorder: whose reading it is.
        runs: the pass's blocks.
        start, stop: the tokens, counted from the pass's first.
        states: every block's s_0..s_N, block after block, ``[R, C, H]``; None when not recorded.
        logits: float32 ``[R + 1, C, V]``: the direct lens of each state, then the model's own logits; None: not computed.
    """

    def __init__(
        self,
        recorder: Recorder,
        runs: list[_BlockRun],
        start: int,
        stop: int,
        states: Tensor | None,
        logits: Tensor | None,
    ) -> None:
        self.recorder, self.runs, self.start, self.stop = recorder, runs, start, stop
        self.states, self.logits = states, logits
        self.log_p = None if logits is None else metrics.log_probs(logits)  # [R + 1, C, V]

    @property
    def last_logits(self) -> Tensor:
        """The model's own logits of the last token, float32 ``[1, V]``."""
        return self.logits[-1, -1:]

    def next_logprobs(self, next_ids: Tensor) -> list[float | None]:
        """``log p(next)`` of each token under the model's own distribution, nats; None where no logits were made.

        Args:
            next_ids: ``[C]`` int64.
        """
        if self.log_p is None:
            return [None] * (self.stop - self.start)
        return _plain(self.log_p[-1].gather(-1, next_ids.unsqueeze(-1)).squeeze(-1))

    def blocks(self, next_ids: Tensor) -> list[list[BlockFrame]]:
        """Per token the frames of every block; ``next_ids`` (``[C]`` int64) are ranked in each step's lens."""
        frames: list[list[BlockFrame]] = [[] for _ in range(self.start, self.stop)]
        first = 0  # row of this block's s_0
        for run in self.runs:
            if run.states:
                rows = slice(first, first + len(run.states))
                first += len(run.states)
                columns, packed = self._columns(rows, next_ids), self._packed(rows)
            for c, frame in enumerate(frames):
                steps: dict[str, Any] = empty_steps()
                if run.states:
                    steps |= {name: column[c] for name, column in columns.items()}
                    steps["ms"] = list(run.ms)
                frame.append(
                    {
                        "block": run.block,
                        "layers": list(run.layers),
                        "n_steps": run.n_steps,
                        "stop_reason": run.reason,
                        "steps": steps,  # type: ignore[typeddict-item]
                        "states": packed[c] if run.states else None,
                        "key_cosine": [],
                        "attention": None,
                    }
                )
        return frames

    def _columns(self, rows: slice, next_ids: Tensor) -> dict[str, list[Any]]:
        """Every quantity of one block whose s_0..s_N are ``rows``: name to a list by token of lists by step."""
        states, log_p = self.states[rows], self.log_p[rows]  # [N + 1, C, H], [N + 1, C, V]
        new, old, n = states[1:], states[:-1], states.shape[0] - 1
        p = log_p.exp()
        values, ids = metrics.top_k(log_p[1:], self.recorder.top_k)  # [N, C, k]
        numbers = {
            "cosine": metrics.cosine(new, old),
            "kl": metrics.kl(log_p[:-1], log_p[1:], p[:-1]),
            "rel_delta": metrics.rel_delta(new, old),
            "norm": metrics.norm(new),
            "entropy": metrics.entropy(log_p[1:], p[1:]),
        }  # each [N, C]
        columns: dict[str, list[Any]] = {name: _plain(value.transpose(0, 1)) for name, value in numbers.items()}
        columns["rank"] = metrics.rank(self.logits[rows][1:], next_ids.expand(n, -1)).transpose(0, 1).tolist()
        columns["topk_ids"] = ids.transpose(0, 1).tolist()
        columns["topk_logprobs"] = _plain(values.transpose(0, 1))
        text = self.recorder.token_text
        columns["topk_texts"] = [[[text(i) for i in step] for step in token] for token in columns["topk_ids"]]
        return columns

    def _packed(self, rows: slice) -> list[str]:
        """The block's states by token, packed."""
        states = self.states[rows].transpose(0, 1).float().cpu().numpy()  # [C, N + 1, H]
        return [encode_states(token) for token in states]


def _plain(values: Tensor) -> list[Any]:
    """Nested lists of floats with None where a number is not finite."""
    nested = values.tolist()
    return nested if bool(torch.isfinite(values).all()) else _without_infinities(nested)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return value if math.isfinite(value) else None


class KVMeter:
    """Cache occupancy token by token, from one look at the cache a pass.

    Args:
        model: whose cache it is; its shape gives the bytes of one token in one slot, ``2 * D * K * itemsize``.
    """

    def __init__(self, model: LoopLlamaForCausalLM) -> None:
        config = model.config
        self.unit = 2 * config.head_dim * config.num_key_value_heads * model.dtype.itemsize
        self.slots = [1] * config.num_hidden_layers  # that each layer owns
        for block in config.loop_blocks():
            for layer in block.layers:
                self.slots[layer] = block.slots
        self.unrolled = 0  # layer entries an unrolled model would hold

    def frames(self, occupancy: KVOccupancy, n_tokens: int, runs: list[tuple[int, int]]) -> list[KVFrame]:
        """The KVFrame of each of the pass's ``n_tokens`` tokens.

        A pass writes all its tokens into every slot it touches, so before its later tokens a slot held that many fewer.

        Args:
            occupancy: ``cache.occupancy()`` after the pass.
            runs: per block, layers in it and steps N the pass ran.
        """
        held = [
            [*record.slots, *[0] * (own - len(record.slots))]
            for record, own in zip(occupancy.layers, self.slots, strict=True)
        ]
        each = len(self.slots) + sum((n - 1) * layers for layers, n in runs)
        frames: list[KVFrame] = []
        for later in range(n_tokens - 1, -1, -1):
            slots = [[max(tokens - later, 0) for tokens in layer] for layer in held]
            self.unrolled += each
            frames.append(
                {
                    "slots": slots,
                    "bytes_used": self.unit * sum(map(sum, slots)),
                    "bytes_allocated": occupancy.bytes_allocated,
                    "bytes_plain": self.unit * len(slots) * max(map(max, slots)),
                    "bytes_unrolled": self.unit * self.unrolled,
                }
            )
        return frames
