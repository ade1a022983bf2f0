"""What a run leaves behind: one Frame a token, collected in a Trace.

A Frame is plain JSON-able data (dict, list, str, int, float, None; never NaN or infinity: an undefined number is None),
so it can be sent to a page, written to a file and compared with ``==`` as it is. The TypedDicts below are the one
statement of its shape: :func:`check_frame` reads them.

A Frame is input-centric: the frame of position ``t`` is the forward pass that READ token ``t`` and then said ``next_id``.
A run that chose ``n`` tokens therefore has ``prompt + n - 1`` frames: the last token chosen is the last frame's ``next_id``.

Symbols: L layers, H hidden size, K key/value heads, D head dimension, N loop steps a pass ran, ``s_r`` the state after
step ``r`` (``s_0`` enters the block), ``p_r = softmax(lm_head(norm(s_r)))``, the direct lens.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
STEP_NUMBERS = ("cosine", "kl", "rel_delta", "norm", "entropy", "rank", "ms")
STEP_LISTS = ("topk_ids", "topk_logprobs", "topk_texts")

# Types are written with typing.Union: they are evaluated at run time, on Python 3.10 as well.
Number = Union[float, None]  # noqa: UP007


class StepColumns(TypedDict):
    """One list a quantity, each of length N; entry ``r - 1`` is loop step ``r``. All empty when the recorder was off."""

    cosine: list[Number]  # cos(s_r, s_{r-1}), of this token
    kl: list[Number]  # KL(p_{r-1} || p_r), nats
    rel_delta: list[Number]  # |s_r - s_{r-1}| / |s_r|
    norm: list[Number]  # |s_r|, Euclidean
    entropy: list[Number]  # H(p_r), nats
    rank: list[int]  # 1-based rank of next_id in p_r, 1 = most likely
    topk_ids: list[list[int]]  # most likely tokens of p_r, best first
    topk_logprobs: list[list[Number]]  # their log p_r, nats
    topk_texts: list[list[str]]
    ms: list[Number]  # wall time of the step, for the whole pass (see pass_tokens), milliseconds


class BlockFrame(TypedDict):
    """What one looped block did with one token."""

    block: int  # 0-based
    layers: list[int]  # [a, b], inclusive physical layers
    n_steps: int  # N
    stop_reason: str  # count, cosine, kl, max, or the name of a registered criterion
    steps: StepColumns
    states: Union[str, None]  # noqa: UP007  # encode_states of float16 [N + 1, H]: s_0..s_N; None: not recorded


class KVFrame(TypedDict):
    """The KV cache once this token was in it (batch 1)."""

    slots: list[list[int]]  # per physical layer, tokens each of its slots holds, up to and including this token
    bytes_used: int
    bytes_allocated: int  # whole cache, as the pass left it
    bytes_plain: int  # what a plain Llama would hold: L layers
    bytes_unrolled: (
        int  # what the unrolled model would hold: L + sum over blocks of (N_t - 1)(b - a + 1) layers a token
    )


class Frame(TypedDict):
    """Everything one token adds to a Trace."""

    version: Literal[1]
    index: int  # position t, 0-based, prompt included
    phase: Literal["prompt", "generated"]
    token_id: int
    text: str  # the piece this token adds; pieces concatenate to the decoded text; "" inside a multi-byte character
    next_id: int  # the next prompt token, or the token chosen
    next_text: str
    next_logprob: Number  # log p(next_id) under the model's own distribution, before temperature and the like, nats
    pass_tokens: int  # tokens in the forward pass that made this frame
    pass_ms: Number  # its wall time, milliseconds
    blocks: list[BlockFrame]  # one per looped block; empty for a plain Llama
    kv: KVFrame
    finish: Literal["eos", "length", "context", None]  # on the last frame, when generation ended by itself


class Shape(TypedDict):
    """Sizes of the model, in elements; ``itemsize`` in bytes of one cached number."""

    layers: int
    hidden: int
    kv_heads: int
    head_dim: int
    itemsize: int
    vocab: int


class BlockMeta(TypedDict):
    """One looped block as configured; the fields are those of ``LoopLlamaConfig.loop_blocks()``."""

    layers: list[int]
    strategy: str
    count: int
    max_steps: int
    floor: int
    criterion: str
    cosine_threshold: float
    kl_threshold: float
    kv_mode: str
    slots: int
    attention_mode: str
    merge: str
    ema_alpha: float
    damping: float
    injection: str
    norm: bool


class Meta(TypedDict):
    """What the whole run was: model, prompt, settings."""

    version: Literal[1]
    model: str
    prompt: str
    prompt_tokens: int
    top_k: int  # entries of each top-k list
    shape: Shape
    loop: dict[str, Any]  # the config's loop fields, JSON-able
    blocks: list[BlockMeta]
    settings: dict[str, Any]  # sampling settings, seed
    created: str  # ISO 8601
    versions: dict[str, str]


def encode_states(states: np.ndarray) -> str:
    """Pack ``states`` ([N + 1, H], any float dtype) as base64 of float16 little-endian, clipped to finite numbers.

    A NaN becomes 0: a float16 that a reader cannot draw is worth less than one it can.
    """
    top = float(np.finfo(np.float16).max)
    clipped = np.clip(np.nan_to_num(states, nan=0.0, posinf=top, neginf=-top), -top, top)
    return base64.b64encode(np.ascontiguousarray(clipped, dtype="<f2").tobytes()).decode("ascii")


def decode_states(text: str, hidden: int) -> np.ndarray:
    """Undo :func:`encode_states`: float16 ``[N + 1, H]`` for ``hidden`` = H. ValueError when the length does not fit."""
    flat = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2")
    if hidden < 1 or flat.size % hidden:
        raise ValueError(f"states: {flat.size} numbers do not make rows of hidden size {hidden}")
    return flat.reshape(-1, hidden)


def _check(value: Any, kind: Any, path: str) -> None:
    """Raise ValueError, naming ``path``, unless ``value`` has the type ``kind`` (TypedDicts: exactly their keys)."""
    origin = get_origin(kind)
    if kind is Any:
        return
    if is_typeddict(kind):
        hints = _hints(kind)
        if not isinstance(value, Mapping):
            raise ValueError(f"{path}: {type(value).__name__} where a mapping {kind.__name__} belongs")
        if value.keys() != hints.keys():
            raise ValueError(
                f"{path}: missing keys {sorted(hints.keys() - value.keys())}, "
                f"unknown keys {sorted(map(str, value.keys() - hints.keys()))}"
            )
        for key, hint in hints.items():
            _check(value[key], hint, f"{path}.{key}" if path else key)
    elif origin is list:
        if not isinstance(value, list):
            raise ValueError(f"{path}: {type(value).__name__} where a list belongs")
        (item,) = get_args(kind)
        for i, entry in enumerate(value):
            _check(entry, item, f"{path}[{i}]")
    elif origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{path}: {type(value).__name__} where a dict belongs")
        for key, entry in value.items():
            _check(key, get_args(kind)[0], f"{path} key")
            _check(entry, get_args(kind)[1], f"{path}.{key}")
    elif origin is Literal:
        if value not in get_args(kind) or isinstance(value, bool):
            raise ValueError(f"{path}: {value!r} is none of {get_args(kind)}")
    elif origin is Union:
        if value is not None:  # every union here is "or None"
            _check(value, next(a for a in get_args(kind) if a is not type(None)), path)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{path}: {value!r} is not a finite number")
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{path}: {value!r} is not {kind.__name__}")


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind)
    return _HINTS[kind]


def check_frame(frame: Mapping[str, Any], hidden: int | None = None) -> None:
    """Raise ValueError, naming the place, unless ``frame`` is a well-formed Frame of this version.

    Checks keys, types, finiteness, and that every step column has N entries (or all have none: recorder off).
    ``hidden``: when given, recorded states must be ``[N + 1, hidden]``.
    """
    _check(frame, Frame, "")
    if not all(frame["kv"]["slots"]):
        raise ValueError("kv.slots: a layer without slots")
    for i, block in enumerate(frame["blocks"]):
        lengths = {name: len(column) for name, column in block["steps"].items()}
        if set(lengths.values()) not in ({block["n_steps"]}, {0}):
            raise ValueError(f"blocks[{i}].steps: {lengths} entries for n_steps={block['n_steps']}")
        if len(block["layers"]) != 2:
            raise ValueError(f"blocks[{i}].layers: {block['layers']!r} is not [a, b]")
        for r in range(lengths["rank"]):
            sizes = {name: len(block["steps"][name][r]) for name in STEP_LISTS}
            if len(set(sizes.values())) != 1:
                raise ValueError(f"blocks[{i}].steps: top-k lists of step {r + 1} differ in length: {sizes}")
        if hidden is not None and block["states"] is not None:
            rows = len(decode_states(block["states"], hidden))
            if rows != block["n_steps"] + 1:
                raise ValueError(f"blocks[{i}].states: {rows} rows for n_steps={block['n_steps']} (n_steps + 1 belong)")


def check_meta(meta: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the field, unless ``meta`` is a well-formed Meta of this version."""
    _check(meta, Meta, "meta")


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

            from loopviz.trace.tables import TABLES, columns

            dtypes = {"int": "int64", "float": "float64", "bool": "bool", "str": "object"}
            kinds = {column: dtypes[kind] for column, kind in TABLES[name].items()}
            self._tables[name] = pd.DataFrame(columns(self.frames, name)).astype(kinds)
        return self._tables[name]

    @property
    def tokens(self) -> pd.DataFrame:
        """A row a token: index, phase, token_id, text, next_*, pass_*, finish, KV bytes."""
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
