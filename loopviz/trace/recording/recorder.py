"""From a pass's loop events to Frames' numbers.

During the pass the hook only keeps references. After it, the states of all steps and the model's own last state go through
``lm_head`` in one matmul (a decode step then reads the head's weights once, as it does without a recorder), and every
quantity is computed for all steps, and at prefill for many tokens, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loopviz.model.exit_lens import normed_states
from loopviz.model.interrupt import check
from loopviz.trace import metrics
from loopviz.trace.packed import encode_halves
from loopviz.trace.recording.attention import AttentionRecorder
from loopviz.trace.recording.keys import KeyRecorder
from loopviz.trace.schema import NEXT_LISTS, BlockFrame, GateFrame, KVFrame, empty_steps

if TYPE_CHECKING:
    from loopviz.model import KVOccupancy, LoopCache, LoopLlamaForCausalLM, LoopStep
    from loopviz.model.exit_gate import Exits

MAX_ROWS = 512  # rows of one head matmul at prefill
MAX_LOGITS = 2**24  # numbers in it (rows x vocabulary): 64 MiB of float32
MAX_CODA_ROWS = 4096  # tokens x steps that go through the coda at once


# Measured on an AVX2 Xeon with MKL, 49,152 x 576 float32: for 3..15 rows one large matmul costs 2 to 4 times one row,
# because it first repacks the whole weight matrix; slices that stay in the cache cost 1.4 to 1.6 times one row.
SLICED_ROWS = range(3, 16)
SLICE = 128  # vocabulary entries


def head_logits(head: nn.Module, rows: Tensor, sliced: range = SLICED_ROWS) -> Tensor:
    """``head(rows)``, ``[..., H] -> [..., V]``, reading the head's weights once; quick for a handful of rows on a CPU.

    Args:
        sliced: numbers of rows that go through the weights slice by slice.
    """
    if (
        type(head) is not nn.Linear
    ):  # what holds whole numbers makes its `weight` anew, all of it, each time it is asked
        return head(rows)
    weight = head.weight
    n, whole = rows.shape[:-1].numel(), SLICE * (weight.shape[0] // SLICE)
    if (
        n not in sliced
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
        extras: what to record beyond that, of :data:`loopviz.trace.EXTRAS`; needs ``full``.
    """

    def __init__(
        self,
        model: LoopLlamaForCausalLM,
        top_k: int,
        token_text: Callable[[int], str],
        full: bool = True,
        extras: Collection[str] = (),
    ) -> None:
        self.model, self.top_k, self.token_text, self.full = model, top_k, token_text, full
        self._events: list[LoopStep] = []
        self.blocks = model.config.loop_blocks()
        on = set(extras) if full and self.blocks else set()
        self.exit = "exit" in on
        self.keys = KeyRecorder(self.blocks) if "keys" in on else None
        self.attention = AttentionRecorder(self.blocks) if "attention" in on else None
        self._kept: list[Any] = [kept for kept in (self._events, self.keys, self.attention) if kept is not None]
        self._handles: list[Any] = []
        if self.attention is not None:
            self._handles.append(model.watch_attention())  # first: it refuses a model that is watched already
        hooks = [self._events.append] if full and self.blocks else []
        hooks += [extra.take for extra in (self.keys, self.attention) if extra is not None]
        self._handles += map(model.register_loop_hook, hooks)

    @property
    def gated(self) -> bool:
        """Whether a gate chose what was read out in the pass that has just been made: it may be asked for while a run is made."""
        exits = self.model.last_pass.exits
        return bool(exits) and exits[-1] is not None

    def close(self) -> None:
        """Remove the hooks and drop everything kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.begin()

    def begin(self) -> None:
        """Forget the pass before."""
        for kept in self._kept:
            kept.clear()

    def read(
        self,
        hidden: Tensor,
        cache: LoopCache | None = None,
        head_time: Callable[[], AbstractContextManager] = nullcontext,
    ) -> Iterator[Reading]:
        """The pass's tokens in order, in chunks that bound the memory of the logits.

        Args:
            hidden: the pass's last hidden state after the final norm, ``[1, T, H]``.
            cache: as the pass left it; the coda of the exit lens reads it.
            head_time: makes a context that the head's matmuls run in: who wants to know what they take, measures it there.
        """
        runs = self.block_runs(hidden.shape[1])
        exits = self.exits(runs, cache)
        rows = 1 + sum(len(run.states) for run in runs) + len(exits)
        if self.full or hidden.shape[1] == 1:
            size = max(1, min(MAX_ROWS, MAX_LOGITS // self.model.config.vocab_size) // rows)
            for start in range(0, hidden.shape[1], size):
                yield self._chunk(runs, exits, hidden, start, min(start + size, hidden.shape[1]), head_time)
            return
        last = hidden.shape[1] - 1  # as generate() does: a prompt's own tokens need no logits
        yield Reading(self, runs, 0, last, None, None)
        yield self._chunk(runs, exits, hidden, last, last + 1, head_time)

    def block_runs(self, n_tokens: int) -> list[BlockRun]:
        """What the blocks did in the pass that has just been made, over so many tokens."""
        report, runs = self.model.last_pass, []
        for i, spec in enumerate(self.blocks):
            events = [event for event in self._events if event.block == i]
            states = [events[0].previous[0], *(event.state[0] for event in events)] if events else []  # N + 1 x [T, H]
            ms = [event.seconds * 1000 for event in events]
            decided = report.measured[i] if n_tokens == 1 else {}
            n, reason, ran = int(report.steps[i][0]), report.reasons[i][0], report.layers_run[i]  # [N, 1, layers]
            layers_run = [] if ran is None else [[spec.a + j for j, on in enumerate(step) if on] for step in ran[:, 0]]
            said = report.exits[i] if n else None
            runs.append(BlockRun(i, [spec.a, spec.b], n, reason, layers_run, states, ms, decided, said))
        return runs

    def exits(self, runs: list[BlockRun], cache: LoopCache | None) -> list[Tensor]:
        """The last block's s_1..s_{N-1} after coda and final norm, each ``[T, H]``; none where there is no coda, or nobody asked.

        s_N is left out: what the coda makes of it is the model's own output; but where a gate chooses among the states.
        """
        if not self.exit:
            return []
        run = runs[-1]
        some = run.states[1:] if self.gated else run.states[1:-1]
        if run.layers[1] == self.model.config.num_hidden_layers - 1 or not some:
            return []
        states = torch.stack(some).unsqueeze(1)  # [N - 1 or N, 1, T, H]
        group = max(1, MAX_CODA_ROWS // states.shape[2])
        parts = [self.model.exit_states(part, cache) for part in states.split(group)]
        return list(torch.cat(parts)[:, 0])

    def _read_directly(self, runs: list[BlockRun], stacked: Tensor) -> list[Tensor]:
        """What the head reads of the states ``[R, C, H]`` of all blocks, block by block: normed, but never twice."""
        parts = stacked.split([len(run.states) for run in runs])
        pairs = zip(runs, parts, strict=True)
        return [normed_states(self.model.model, self.blocks, run.block, part) for run, part in pairs if len(part)]

    def _chunk(
        self,
        runs: list[BlockRun],
        exits: list[Tensor],
        hidden: Tensor,
        start: int,
        stop: int,
        head_time: Callable[[], AbstractContextManager],
    ) -> Reading:
        states = [state[start:stop] for run in runs for state in run.states]
        rows = hidden[:, start:stop]  # [1, C, H]
        stacked = torch.stack(states) if states else None  # [R, C, H]
        if stacked is not None:
            after = [state[None, start:stop] for state in exits]  # these and the last are normed already
            rows = torch.cat((*self._read_directly(runs, stacked), *after, rows))  # [R + E + 1, C, H]
        with head_time():
            logits = head_logits(self.model.lm_head, rows).float()  # [R + E + 1, C, V]
        return Reading(self, runs, start, stop, stacked, logits)


@dataclass(frozen=True)
class BlockRun:
    """One block in one pass: ``states`` s_0..s_N, each ``[T, H]`` (none when not recorded, or N = 0), ``ms`` of each step.

    ``decided``: of a pass of one token, what its stop rule compared with the thresholds, by step. ``said``: by its gate.
    """

    block: int
    layers: list[int]
    n_steps: int
    reason: str
    layers_run: list[list[int]]
    states: list[Tensor]
    ms: list[float]
    decided: dict[int, dict[str, Tensor]]
    said: Exits | None = None

    def gates(self, start: int, stop: int) -> list[GateFrame | None]:
        """What the gate said of each of the pass's tokens ``start .. stop - 1``."""
        if self.said is None:
            return [None] * (stop - start)
        pdf, cdf = self.said.pdf, self.said.pdf.cumsum(0)  # [R, 1, T], as the threshold is compared with it
        p, reached = (metrics.plain(part[: self.n_steps, 0, start:stop].T) for part in (pdf, cdf))
        at = [None] * (stop - start) if self.said.steps is None else self.said.steps[0, start:stop].tolist()
        return [{"p": a, "cdf": b, "read_out": r} for a, b, r in zip(p, reached, at, strict=True)]


class Reading:
    """What a pass says about its tokens ``start .. stop - 1`` (C of them).

    Args:
        recorder: whose reading it is.
        runs: the pass's blocks.
        start, stop: the tokens, counted from the pass's first.
        states: every block's s_0..s_N, block after block, ``[R, C, H]``; None when not recorded.
        logits: float32 ``[R + E + 1, C, V]``: the direct lens of each state, the exit lens of the last block's steps but
            the last (E of them; none without a coda), and the model's own logits; None: not computed.
    """

    def __init__(
        self,
        recorder: Recorder,
        runs: list[BlockRun],
        start: int,
        stop: int,
        states: Tensor | None,
        logits: Tensor | None,
    ) -> None:
        self.recorder, self.runs, self.start, self.stop = recorder, runs, start, stop
        self.states, self.logits = states, logits
        self.log_p = None if logits is None else metrics.log_probs(logits)  # [R + E + 1, C, V]

    @property
    def last_logits(self) -> Tensor:
        """The model's own logits of the last token, float32 ``[1, V]``."""
        return _made(self.logits)[-1, -1:]

    def next_logprobs(self, next_ids: Tensor) -> list[float | None]:
        """``log p(next)`` of each token under the model's own distribution, nats; None where no logits were made.

        Args:
            next_ids: ``[C]`` int64.
        """
        if self.log_p is None:
            return [None] * (self.stop - self.start)
        return metrics.plain(self.log_p[-1].gather(-1, next_ids.unsqueeze(-1)).squeeze(-1))

    def next_topk(self) -> list[dict[str, list[Any]]]:
        """Per token the model's own likeliest next tokens, by the Frame's keys; empty lists when that is not recorded."""
        count = self.stop - self.start
        if self.log_p is None or not self.recorder.full:
            return [{name: [] for name in NEXT_LISTS} for _ in range(count)]
        values, ids = metrics.top_k(self.log_p[-1], self.recorder.top_k)  # [C, k]
        best, text = ids.tolist(), self.recorder.token_text
        columns = (best, metrics.plain(values), [[text(i) for i in row] for row in best])
        return [dict(zip(NEXT_LISTS, row, strict=True)) for row in zip(*columns, strict=True)]

    def blocks(self, next_ids: Tensor) -> list[list[BlockFrame]]:
        """Per token the frames of every block; ``next_ids`` (``[C]`` int64) are ranked in each step's lens."""
        frames: list[list[BlockFrame]] = [[] for _ in range(self.start, self.stop)]
        first = 0  # row of this block's s_0
        for run in self.runs:
            check()
            columns: dict[str, list[Any]] = {}
            packed: list[str | None] = [None] * len(frames)
            if run.states:
                rows = slice(first, first + len(run.states))
                first += len(run.states)
                columns, packed = self._columns(rows, next_ids), self._packed(rows)
                for r, decided in run.decided.items():  # what decided is what is shown, to the last bit
                    for name, value in decided.items():
                        if name in columns and bool(
                            torch.isfinite(value[0])
                        ):  # a published rule's number has no column
                            columns[name][0][r - 1] = float(value[0])
                if self.recorder.exit and run is self.runs[-1]:
                    columns |= self._exit_columns(next_ids)
            place, of_keys, of_attention = (
                (run.block, self.start, self.stop),
                self.recorder.keys,
                self.recorder.attention,
            )
            keys = [[] for _ in frames] if of_keys is None else of_keys.columns(*place)
            attention = [None for _ in frames] if of_attention is None else of_attention.columns(*place)
            gates = run.gates(self.start, self.stop)
            for c, frame in enumerate(frames):
                steps = empty_steps() | {name: column[c] for name, column in columns.items()}
                if columns:
                    steps["ms"] = list(run.ms)
                frame.append(
                    {
                        "block": run.block,
                        "layers": list(run.layers),
                        "n_steps": run.n_steps,
                        "stop_reason": run.reason,
                        "layers_run": [list(layers) for layers in run.layers_run],
                        "steps": steps,  # type: ignore[typeddict-item]  # StepColumns, some of them replaced
                        "states": packed[c],
                        "key_cosine": list(keys[c]),
                        "attention": attention[c],
                        "gate": gates[c],
                    }
                )
        return frames

    def _exit_rows(self, values: Tensor) -> Tensor:
        """Of rows like the logits' those of the exit lens at the last block's steps 1..N."""
        direct, n = len(_made(self.states)), self.runs[-1].n_steps
        if self.recorder.gated:  # the model's own output, the last row, may be of any step
            return values[direct:-1] if len(values) > direct + 1 else values[direct - n : direct]
        if len(values) > direct + 1:
            return values[direct:]
        return torch.cat((values[direct - n : direct - 1], values[-1:]))  # no coda: the direct lens is the exit lens

    def _columns(self, rows: slice, next_ids: Tensor) -> dict[str, list[Any]]:
        """Every quantity of one block whose s_0..s_N are ``rows``: name to a list by token of lists by step."""
        states, log_p = _made(self.states)[rows], _made(self.log_p)[rows]  # [N + 1, C, H], [N + 1, C, V]
        new, old = states[1:], states[:-1]
        p = log_p.exp()
        numbers = {
            "cosine": metrics.cosine(new, old),
            "kl": metrics.kl(log_p[:-1], log_p[1:], p[:-1]),
            "rel_delta": metrics.rel_delta(new, old),
            "norm": metrics.norm(new),
            "entropy": metrics.entropy(log_p[1:], p[1:]),
        }  # each [N, C]
        columns: dict[str, list[Any]] = {name: metrics.plain(value.transpose(0, 1)) for name, value in numbers.items()}
        return columns | self._lens_columns("", log_p[1:], _made(self.logits)[rows][1:], next_ids)

    def _exit_columns(self, next_ids: Tensor) -> dict[str, list[Any]]:
        """What the exit lens says of the last block's steps."""
        log_p = self._exit_rows(_made(self.log_p))  # [N, C, V]
        chosen = log_p.gather(-1, next_ids.expand(len(log_p), -1).unsqueeze(-1)).squeeze(-1)  # [N, C]
        columns = {"exit_logprob": metrics.plain(chosen.transpose(0, 1))}
        return columns | self._lens_columns("exit_", log_p, self._exit_rows(_made(self.logits)), next_ids)

    def _lens_columns(self, prefix: str, log_p: Tensor, logits: Tensor, next_ids: Tensor) -> dict[str, list[Any]]:
        """What a lens says at steps 1..N (``[N, C, V]`` both): name to a list by token of lists by step."""
        values, ids = metrics.top_k(log_p, self.recorder.top_k)  # [N, C, k]
        text, best = self.recorder.token_text, ids.transpose(0, 1).tolist()
        return {
            f"{prefix}rank": metrics.rank(logits, next_ids.expand(len(logits), -1)).transpose(0, 1).tolist(),
            f"{prefix}topk_ids": best,
            f"{prefix}topk_logprobs": metrics.plain(values.transpose(0, 1)),
            f"{prefix}topk_texts": [[[text(i) for i in step] for step in token] for token in best],
        }

    def _packed(self, rows: slice) -> list[str | None]:
        """The block's states by token, packed."""
        states = metrics.halves(_made(self.states)[rows].transpose(0, 1))  # [C, N + 1, H]
        return [encode_halves(token) for token in states]


def _made(values: Tensor | None) -> Tensor:
    """What a reading holds, asked for only where it was made."""
    assert values is not None
    return values


class KVMeter:
    """Cache occupancy token by token, from one look at the cache a pass.

    Args:
        model: whose cache it is; its shape gives the bytes of one token in a slot of a plain Llama, ``2 * D * K * itemsize``.
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
            runs: per block, layers in it and layer runs the pass made.
        """
        held = [
            [*record.slots, *[0] * (own - len(record.slots))]
            for record, own in zip(occupancy.layers, self.slots, strict=True)
        ]
        each = len(self.slots) + sum(made - layers for layers, made in runs)
        frames: list[KVFrame] = []
        for later in range(n_tokens - 1, -1, -1):
            check()  # of a long prompt in many slots this takes seconds
            slots = [[max(tokens - later, 0) for tokens in layer] for layer in held]
            self.unrolled += each
            frames.append(
                {
                    "slots": slots,
                    "bytes_used": sum(one.entry * sum(own) for one, own in zip(occupancy.layers, slots, strict=True)),
                    "bytes_allocated": occupancy.bytes_allocated,
                    "bytes_plain": self.unit * len(slots) * max(map(max, slots)),
                    "bytes_unrolled": self.unit * self.unrolled,
                }
            )
        return frames
