"""A run's Trace: its Frames in order, and the tables and states made from them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from loopviz.trace.packed import decode_singles, decode_states
from loopviz.trace.schema import SCHEMA_VERSION, Frame
from loopviz.trace.tables import TABLES, columns
from loopviz.trace.ttt_tables import TTT_TABLES, ttt_columns
from loopviz.trace.weight import deep_bytes

if TYPE_CHECKING:
    import pandas as pd


class Trace:
    """The frames of one run, in order, and the tables and states made from them.

    Args:
        meta: a :class:`Meta`; kept as given.
        frames: frames to append at once.

    Raises:
        ValueError: a meta or frame of another version, or a frame out of order.
    """

    def __init__(self, meta: Mapping[str, Any], frames: Iterable[Frame] = ()) -> None:
        if meta.get("version") != SCHEMA_VERSION:
            raise ValueError(f"meta.version={meta.get('version')!r}: this LoopViz reads version {SCHEMA_VERSION}")
        self.meta: dict[str, Any] = dict(meta)
        self.frames: list[Frame] = []
        self._tables: dict[str, Any] = {}
        self._weighed, self._weight = 0, 0  # frames weighed, and their bytes
        self._words: set[int] = set()
        self._inner: dict[str, np.ndarray] = {}  # of as many frames as there were when it was asked for
        for frame in frames:
            self.append(frame)

    def append(self, frame: Frame) -> None:
        """Add the frame of the next position; ValueError when its version or index is not the one that belongs here."""
        if frame["version"] != SCHEMA_VERSION:
            raise ValueError(f"frame.version={frame['version']!r}: this LoopViz reads version {SCHEMA_VERSION}")
        if frame["index"] != len(self.frames):
            raise ValueError(
                f"frame.index={frame['index']!r}: the next frame of this trace has index {len(self.frames)}"
            )
        self.frames.append(frame)
        self._tables.clear()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def nbytes(self) -> int:
        """Bytes of memory it takes, frames and tables made of them: an estimate (:mod:`loopviz.trace.weight`).

        Frames are weighed once: asked after each, it costs what that one does.
        """
        for frame in self.frames[self._weighed :]:
            self._weight += deep_bytes(frame, words=self._words)
        self._weighed = len(self.frames)
        return self._weight + sys.getsizeof(self.frames) + deep_bytes(self.meta) + self.own_bytes

    @property
    def own_bytes(self) -> int:
        """Those of :attr:`nbytes` that are no frames: another Trace of the same frames takes only so much more."""
        return sys.getsizeof(self._words) + deep_bytes(dict(self._tables)) + deep_bytes(dict(self._inner))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.meta == other.meta and self.frames == other.frames

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Trace(model={self.meta.get('model')!r}, {len(self)} frames)"

    @property
    def text(self) -> str:
        """Everything read and said: each frame's piece, then the last token chosen (the end-of-text token left out)."""
        last = self.frames[-1] if self.frames else None
        said = "" if last is None or last["finish"] == "eos" else last["next_text"]
        return "".join(frame["text"] for frame in self.frames) + said

    def _table(self, name: str) -> pd.DataFrame:
        if name not in self._tables:
            import pandas as pd

            dtypes = {"int": "int64", "int?": "Int64", "float": "float64", "bool": "bool", "str": "object"}
            of_ttt = name in TTT_TABLES
            kinds = {column: dtypes[kind] for column, kind in (TTT_TABLES if of_ttt else TABLES)[name].items()}
            found = ttt_columns(self.frames, name, self.meta.get("ttt")) if of_ttt else columns(self.frames, name)
            self._tables[name] = pd.DataFrame(found).astype(kinds)
        return self._tables[name]

    def inner(self, name: str) -> np.ndarray:
        """A number that a TTT run has of every token, layer and head, float32 ``[T, L * H]``; each frame is unpacked once.

        Args:
            name: ``loss_before``, ``loss_after``, ``loss_start``, ``drift`` or ``lr`` (:class:`loopviz.trace.schema.TTTFrame`).
        """
        known = self._inner.get(name)
        texts = [frame["ttt"][name] for frame in self.frames[0 if known is None else len(known) :]]  # type: ignore[literal-required]
        if texts or known is None:
            rows = [decode_singles(text, 1)[:, 0] for text in texts]
            new = np.stack(rows) if rows else np.zeros((0, 0), dtype="<f4")
            known = new if known is None or not len(known) else np.concatenate([known, new])
            self._inner[name] = known
        return known

    @property
    def tokens(self) -> pd.DataFrame:
        """A row a token: index, phase, token_id, text, next_*, pass_*, finish, KV bytes, the parts' ms, memory."""
        return self._table("tokens")

    @property
    def blocks(self) -> pd.DataFrame:
        """A row per token and block: token, block, first_layer, last_layer, n_steps, stop_reason, recorded, has_states."""
        return self._table("blocks")

    @property
    def steps(self) -> pd.DataFrame:
        """A row per token, block and step (1-based): cosine, kl, rel_delta, norm, entropy, rank, ms."""
        return self._table("steps")

    @property
    def topk(self) -> pd.DataFrame:
        """A row per token, block, step and place (0 = best): token_id, logprob (nats), text."""
        return self._table("topk")

    @property
    def kv(self) -> pd.DataFrame:
        """A row per token, layer and slot: tokens held."""
        return self._table("kv")

    @property
    def layers_run(self) -> pd.DataFrame:
        """A row per token, block, step and layer that ran in it. Empty where no chooser of layers was asked: all ran."""
        return self._table("layers_run")

    @property
    def gate(self) -> pd.DataFrame:
        """A row per token, block and step of which an exit gate spoke: its p_r, the sum so far, whether the token was read out there."""
        return self._table("gate")

    @property
    def exit(self) -> pd.DataFrame:
        """A row per token, block and step of the exit lens: rank and logprob of next_id. Empty without the extra."""
        return self._table("exit")

    @property
    def next_topk(self) -> pd.DataFrame:
        """A row per token and place: the model's own likeliest next tokens. Empty when the recorder was off."""
        return self._table("next_topk")

    @property
    def exit_topk(self) -> pd.DataFrame:
        """As :attr:`topk`, of the exit lens. Empty without the extra."""
        return self._table("exit_topk")

    @property
    def keys(self) -> pd.DataFrame:
        """A row per token, block, layer and step: cosine of the key with the step's before. Empty without the extra."""
        return self._table("keys")

    @property
    def attention(self) -> pd.DataFrame:
        """A row per token, block, layer, step and earlier position: weight. Long, and empty without the extra."""
        return self._table("attention")

    @property
    def attention_slots(self) -> pd.DataFrame:
        """A row per token, block, layer, step and slot: share of the attention. Empty without the extra."""
        return self._table("attention_slots")

    @property
    def attention_change(self) -> pd.DataFrame:
        """A row per token, block, layer, step and query head: change against the step before. Empty without the extra."""
        return self._table("attention_change")

    @property
    def ttt(self) -> pd.DataFrame:
        """A row per token, layer and head: inner losses, drift, inner learning rate. Empty but of TTT runs."""
        return self._table("ttt")

    @property
    def ttt_reads(self) -> pd.DataFrame:
        """A row per token, layer, head and token of its mini-batch up to itself: the dual form's weight. Empty but of TTT runs."""
        return self._table("ttt_reads")

    @property
    def ttt_held(self) -> pd.DataFrame:
        """A row per token, layer, head and earlier token: its inner loss under the weights now. Long; empty but of TTT runs."""
        return self._table("ttt_held")

    @property
    def state_index(self) -> pd.DataFrame:
        """The rows of :attr:`states`: token, block, step (0..N)."""
        return self._table("state_index")

    @property
    def states(self) -> np.ndarray:
        """Recorded loop states, float16 ``[rows, H]``, aligned with :attr:`state_index`; no rows when none was recorded."""
        if "states" not in self._tables:
            hidden = self.meta["shape"]["hidden"]
            parts = [
                decode_states(block["states"], hidden)
                for frame in self.frames
                for block in frame["blocks"]
                if block["states"] is not None
            ]
            self._tables["states"] = np.concatenate(parts) if parts else np.zeros((0, hidden), dtype="<f2")
        return self._tables["states"]
