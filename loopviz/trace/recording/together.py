"""The readings of several runs' tokens at once, where the runs have shared a pass: one matmul with the head for all of them, and
every quantity computed for as many of them together as fit a processor's cache.

A row's numbers are those that its own :class:`~loopviz.trace.recording.recorder.Recorder` would give, but for the rounding of a
product of several rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.model.block import starts_normed
from loopviz.trace import metrics
from loopviz.trace.packed import encode_halves
from loopviz.trace.recording.recorder import MAX_LOGITS, BlockRun, Reading, Recorder, head_logits
from loopviz.trace.schema import NEXT_LISTS

if TYPE_CHECKING:
    from loopviz.model import LoopCache

# Numbers (rows x vocabulary) of one softmax: more of them leave the processor's cache between two operations.
PIECE = 2**19

# Measured on an EPYC with MKL, one thread, 49,152 x 576 float32: 16 rows take 20 ms by slices and 25 at once, 48 rows 40 and 55.
SLICED_ROWS = range(3, 129)


@dataclass
class RowPass:
    """One run's part of a shared pass.

    Attributes:
        recorder: of the run; its model has made the pass.
        hidden: last hidden state after the final norm, ``[1, H]``.
        cache: of the run, as the pass left it.
    """

    recorder: Recorder
    hidden: Tensor
    cache: LoopCache


class SharedReading(Reading):
    """A :class:`Reading` of one token whose numbers are made together with others': by :func:`measure`, once ``next_id`` is known.

    Attributes:
        next_id: the token chosen after it; 0 until one is.
    """

    def __init__(self, recorder: Recorder, runs: list[BlockRun], exits: list[Tensor], hidden: Tensor) -> None:
        self.recorder, self.runs, self.start, self.stop = recorder, runs, 0, 1
        self.states = self.logits = self.log_p = None
        self.steps = [state for run in runs for state in run.states]  # R of [1, H]
        self.exits, self.hidden = exits, hidden
        self.next_id = 0
        self.own_logits: Tensor | None = None  # [1, V]
        self.piece: _Piece | None = None
        self.numbers: dict[str, list[Any]] = {}  # by head row: the steps', the exits', the model's own
        self.moves: dict[str, list[Any]] = {}  # by state from s_1 on
        self.array: Any = None  # [R, H] float16

    @property
    def count(self) -> int:
        """Rows of the head's matmul."""
        return len(self.steps) + len(self.exits) + 1

    @property
    def last_logits(self) -> Tensor:
        """The model's own logits, float32 ``[1, V]``."""
        assert self.own_logits is not None
        return self.own_logits

    def next_logprobs(self, next_ids: Tensor) -> list[float | None]:
        """As :meth:`Reading.next_logprobs`."""
        return [self.numbers["chosen"][-1]]

    def next_topk(self) -> list[dict[str, list[Any]]]:
        """As :meth:`Reading.next_topk`."""
        if not self.recorder.full:
            return [{name: [] for name in NEXT_LISTS}]
        k, text = self.recorder.top_k, self.recorder.token_text
        best = self.numbers["ids"][-1][:k]
        return [dict(zip(NEXT_LISTS, (best, self.numbers["values"][-1][:k], [text(i) for i in best]), strict=True))]

    def _columns(self, rows: slice, next_ids: Tensor) -> dict[str, list[Any]]:
        steps = range(rows.start + 1, rows.stop)
        columns = {name: [values[rows.start : rows.stop - 1]] for name, values in self.moves.items()}
        columns["entropy"] = [[self.numbers["entropy"][i] for i in steps]]
        return columns | self._said("", steps)

    def _exit_columns(self, next_ids: Tensor) -> dict[str, list[Any]]:
        n, direct, last = self.runs[-1].n_steps, len(self.steps), self.count - 1
        if self.exits:
            rows = [*range(direct, last), *([] if self.recorder.gated else [last])]
        elif self.recorder.gated:
            rows = [*range(direct - n, direct)]
        else:  # no coda: the direct lens is the exit lens
            rows = [*range(direct - n, direct - 1), last]
        return {"exit_logprob": [[self.numbers["chosen"][i] for i in rows]], **self._said("exit_", rows)}

    def _said(self, prefix: str, rows: Sequence[int]) -> dict[str, list[Any]]:
        """What these rows of the head say."""
        k, text, numbers = self.recorder.top_k, self.recorder.token_text, self.numbers
        best = [numbers["ids"][i][:k] for i in rows]
        return {
            f"{prefix}rank": [[numbers["rank"][i] for i in rows]],
            f"{prefix}topk_ids": [best],
            f"{prefix}topk_logprobs": [[numbers["values"][i][:k] for i in rows]],
            f"{prefix}topk_texts": [[[text(i) for i in step] for step in best]],
        }

    def _packed(self, rows: slice) -> list[str | None]:
        return [encode_halves(self.array[rows])]


def read_together(rows: Sequence[RowPass]) -> Iterator[list[SharedReading]]:
    """The readings of a shared pass, as many at a time as bound the memory of the logits.

    Each has the model's own logits, and the rest after :func:`measure`.
    """
    readings = []
    for row in rows:
        runs = row.recorder.block_runs(1)
        readings.append(SharedReading(row.recorder, runs, row.recorder.exits(runs, row.cache), row.hidden))
    vocabulary = readings[0].recorder.model.config.vocab_size
    for some in _parted(readings, MAX_LOGITS // vocabulary):
        pieces = _parted(some, PIECE // vocabulary)
        states = [state for one in some for state in one.steps]
        stacked = torch.cat(states) if states else None  # [S, H]
        head = some[0].recorder.model.lm_head
        logits = head_logits(head, _head_rows(pieces, stacked), SLICED_ROWS).float()  # [F, V]
        first = 0
        for piece in pieces:
            rows_of_piece = sum(one.count for one in piece)
            _Piece(piece, logits[first : first + rows_of_piece])
            first += rows_of_piece
        if stacked is not None:
            _note_moves(some, stacked)
        del logits, stacked
        yield some


def _parted(readings: Sequence[SharedReading], most: int) -> list[list[SharedReading]]:
    """Readings in order, with at most so many rows of the head together, and one at least."""
    parts: list[list[SharedReading]] = []
    room = 0
    for one in readings:
        if not parts or one.count > room:
            parts.append([])
            room = most
        parts[-1].append(one)
        room -= one.count
    return parts


def _head_rows(pieces: Sequence[Sequence[SharedReading]], stacked: Tensor | None) -> Tensor:
    """What the head reads, ``[F, H]``: of each piece the states, then the exits, then the model's own last states."""
    found: list[Tensor] = []
    steps: Sequence[Tensor] = ()
    if stacked is not None:
        every = [one for piece in pieces for one in piece]
        steps = _normed(every, stacked).split([len(one.steps) for one in every])
    first = 0
    for piece in pieces:
        found += steps[first : first + len(piece)]
        first += len(piece)
        found += [state for one in piece for state in one.exits]
        found += [one.hidden for one in piece]
    return torch.cat(found)


def _normed(readings: Sequence[SharedReading], stacked: Tensor) -> Tensor:
    """States as the direct lens reads them: normed, but never twice (see :func:`loopviz.model.exit_lens.normed_states`)."""
    already: list[bool] = []
    for one in readings:
        blocks = one.recorder.blocks
        for run in one.runs:
            if run.states:
                already += [starts_normed(blocks, run.block), *[blocks[run.block].norms_steps] * run.n_steps]
    norm = readings[0].recorder.model.model.norm
    if not any(already):
        return norm(stacked)
    if all(already):
        return stacked
    return torch.where(torch.tensor(already, device=stacked.device)[:, None], stacked, norm(stacked))


def _note_moves(readings: Sequence[SharedReading], stacked: Tensor) -> None:
    """How the states moved, of all readings at once, and the states themselves as they are packed."""
    new, old = stacked[1:], stacked[:-1]  # of neighbours that are of two blocks nobody asks
    numbers = {
        "cosine": metrics.plain(metrics.cosine(new, old)),
        "rel_delta": metrics.plain(metrics.rel_delta(new, old)),
        "norm": metrics.plain(metrics.norm(new)),
    }
    arrays, first = metrics.halves(stacked), 0
    for one in readings:
        stop = first + len(one.steps)
        one.moves |= {name: values[first : stop - 1] for name, values in numbers.items()}
        one.array = arrays[first:stop]
        first = stop


class _Piece:
    """Readings whose softmaxes are made together: gives each its own logits, and at :meth:`measure` the rest."""

    def __init__(self, readings: list[SharedReading], logits: Tensor) -> None:
        self.readings, self.logits = readings, logits
        for one, own in zip(readings, logits[-len(readings) :].split(1), strict=True):
            one.own_logits, one.piece = own, self

    def measure(self) -> None:
        """Every quantity of the piece's readings, whose ``next_id`` are known."""
        places, log_p = self._places(), metrics.log_probs(self.logits)  # [F, V]
        ids = torch.empty(len(log_p), dtype=torch.long)
        for one, rows in zip(self.readings, places, strict=True):
            ids[rows] = one.next_id
        ids = ids.to(log_p.device)
        numbers = {"chosen": metrics.plain(log_p.gather(-1, ids[:, None])[:, 0])}
        steps = sum(len(one.steps) for one in self.readings)
        kl: list[Any] = []
        if any(one.recorder.full for one in self.readings):
            p = log_p.exp()
            values, best = metrics.top_k(log_p, max(one.recorder.top_k for one in self.readings))
            numbers |= {
                "entropy": metrics.plain(metrics.entropy(log_p, p)),
                "rank": metrics.rank(self.logits, ids).tolist(),
                "values": metrics.plain(values),
                "ids": best.tolist(),
            }
            if steps:
                kl = metrics.plain(metrics.kl(log_p[: steps - 1], log_p[1:steps], p[: steps - 1]))
        for one, rows in zip(self.readings, places, strict=True):
            one.numbers = {name: [column[i] for i in rows] for name, column in numbers.items()}
            if one.steps:
                one.moves["kl"] = kl[rows[0] : rows[len(one.steps) - 1]]

    def _places(self) -> list[list[int]]:
        """Of each reading its rows: states, exits, its own."""
        state, exit_row = 0, sum(len(one.steps) for one in self.readings)
        own = exit_row + sum(len(one.exits) for one in self.readings)
        found = []
        for one in self.readings:
            after = exit_row + len(one.exits)
            found.append([*range(state, state + len(one.steps)), *range(exit_row, after), own])
            state, exit_row, own = state + len(one.steps), after, own + 1
        return found


def measure(readings: Sequence[SharedReading]) -> None:
    """Make the numbers of readings whose ``next_id`` is known; of the others in their pieces too."""
    for piece in {id(one.piece): one.piece for one in readings}.values():
        assert piece is not None
        piece.measure()
    for one in readings:
        one.piece = None  # it holds the logits
