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

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Union

from loopviz.loop_fields import NEWEST, BlockSettings
from loopviz.trace.packed import decode_floats as decode_floats  # offered here too: a Frame's reader needs them
from loopviz.trace.packed import decode_singles as decode_singles
from loopviz.trace.packed import decode_states as decode_states
from loopviz.trace.packed import encode_floats as encode_floats
from loopviz.trace.packed import encode_singles as encode_singles
from loopviz.trace.packed import encode_states as encode_states
from loopviz.trace.typed import check_type

SCHEMA_VERSION = max(6, NEWEST)
# Of files. What version 2 lacks is read as not recorded; loop fields that came later as what changes nothing.
READABLE = tuple(range(2, SCHEMA_VERSION + 1))
if TYPE_CHECKING:
    Version = int
else:
    Version = Literal[SCHEMA_VERSION]
EXTRAS = ("exit", "keys", "attention")  # what a run records only when asked, see StepColumns and BlockFrame
AGES = 128  # of a TTT run too long for more: tokens whose reconstruction is recorded at a time, the last ones
RULE_WORDS = 256  # ... that other inner rules are given, the first ones
STEP_NUMBERS = ("cosine", "kl", "rel_delta", "norm", "entropy", "rank", "ms")
STEP_LISTS = ("topk_ids", "topk_logprobs", "topk_texts")
EXIT_NUMBERS = ("exit_rank", "exit_logprob")
EXIT_LISTS = ("exit_topk_ids", "exit_topk_logprobs", "exit_topk_texts")
NEXT_LISTS = ("next_topk_ids", "next_topk_logprobs", "next_topk_texts")
PARTS = ("prelude", "block", "coda", "head", "recording")

# Types are written with typing.Union: they are evaluated at run time, on Python 3.10 as well.
Number = Union[float, None]  # noqa: UP007


class StepColumns(TypedDict):
    """One list a quantity, each of length N; entry ``r - 1`` is loop step ``r``. All empty when the recorder was off.

    The ``exit_`` columns are recorded with the extra ``"exit"`` and for the last block alone (an earlier block's exit
    would have to run the later blocks); elsewhere they are empty. They read the exit lens: ``s_r`` continued through
    the real coda, what the model would say if it stopped after step ``r``. At ``r = N`` that is the model's output.
    """

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
    exit_rank: list[int]  # 1-based rank of next_id in the exit lens
    exit_logprob: list[Number]  # its log-probability there, nats
    exit_topk_ids: list[list[int]]  # most likely tokens of the exit lens, best first
    exit_topk_logprobs: list[list[Number]]
    exit_topk_texts: list[list[str]]


def empty_steps() -> StepColumns:
    """Columns of which nothing is recorded."""
    return {name: [] for name in StepColumns.__annotations__}  # type: ignore[return-value]  # all of its keys


class LayerAttention(TypedDict):
    """What one layer of a block attended to from this token (position ``t``), step by step.

    The packed arrays are read with ``decode_floats(text, columns)``; their rows are the steps 1..N and sum to 1, or are 0
    where the layer was left out of the step.
    """

    weights: str  # [N, t + 1]: attention over positions 0..t, mean over query heads, summed over a position's slots
    slots: str  # [N, S]: share of the attention that went to each slot the layer owns, mean over query heads
    # [N][heads]: 0.5 * sum_p |A_r(p) - A_q(p)| of each query head, q the step before in which the layer ran: r - 1 unless
    # it was left out; None in its first step, and where it was left out
    change: list[list[Number]]


class Attention(TypedDict):
    """The attention of one block, with the extra ``"attention"``."""

    layers: list[LayerAttention]  # physical layers a..b


class GateFrame(TypedDict):
    """What a block's exit gate said of this token, with ``exit_selection`` other than ``last``; entry ``r - 1`` is loop step ``r``."""

    p: list[Number]  # p_r = lambda_r prod_{j<r} (1 - lambda_j); at r = N what is left
    cdf: list[Number]  # p_1 + .. + p_r, the very numbers that the gate compared with its threshold
    read_out: Union[int, None]  # noqa: UP007  # the step that the token was read out from; None: all, by their p_r


class BlockFrame(TypedDict):
    """What one looped block did with one token."""

    block: int  # 0-based
    layers: list[int]  # [a, b], inclusive physical layers
    n_steps: int  # N
    stop_reason: str  # count, cosine, kl, max, or the name of a registered criterion or of the chooser of layers
    # Per step 1..N the physical layers that ran, ascending; empty without a chooser of layers: all of them, in every step
    layers_run: list[list[int]]
    steps: StepColumns
    states: Union[str, None]  # noqa: UP007  # encode_states of float16 [N + 1, H]: s_0..s_N; None: not recorded
    # Extra "keys": per layer a..b a list of N: cos(K_r, K_q) of this token's key, all heads flattened, q the step before in
    # which the layer ran; None in its first step, and where it was left out. Empty also where N = 0
    key_cosine: list[list[Number]]
    attention: Union[Attention, None]  # noqa: UP007  # extra "attention"; None also where N = 0
    gate: Union[GateFrame, None]  # noqa: UP007  # recorded with every run; None without a gate that reads out, and where N = 0


class KVFrame(TypedDict):
    """The KV cache once this token was in it (batch 1)."""

    slots: list[list[int]]  # per physical layer, tokens each of its slots holds, up to and including this token
    bytes_used: int
    bytes_allocated: int  # whole cache, as the pass left it
    bytes_plain: int  # what a plain Llama would hold: L layers
    bytes_unrolled: int  # what the unrolled model would hold: L - (b - a + 1) + the layer runs made, over all blocks, layers a token


class Parts(TypedDict):
    """Where the wall time of the pass went, milliseconds; the parts do not overlap.

    A pass of several tokens may be recorded in several chunks: ``head`` and ``recording`` then grow from chunk to chunk,
    and the frame of the pass's last token has all of them. Time is the host's: a GPU's work counts where it is waited for.
    """

    prelude: Number  # embedding and the layers before the first block; all layers of a plain Llama
    block: Number  # all loop steps of all blocks, and plain layers between blocks
    coda: Number  # layers after the last block, and the final norm
    head: Number  # lm_head (one matmul for the model's output and every lens), and choosing the token
    recording: Number  # what is done for the record alone: metrics, the coda of the exit lens, attention, frames


class Memory(TypedDict):
    """Memory when the pass was done, bytes."""

    process: int  # resident memory of this process
    device: Union[int, None]  # noqa: UP007  # allocated on the model's GPU; None without one


class TTTFrame(TypedDict):
    """What the inner loops of a TTT model did with one token (:mod:`loopviz.trace.recording.ttt`).

    Packed: read with ``decode_singles(text, columns)``, the rows are layer after layer, head after head; ``held`` with
    ``decode_floats``. W_t are the inner model's weights after this token, W_0 those before the first.
    """

    slot: int  # i, the token's place in its mini-batch
    loss_before: str  # [L * H, 1]: inner loss under the weights its mini-batch began with
    loss_after: str  # [L * H, 1]: under its own, W_t
    loss_start: str  # [L * H, 1]: under W_0
    drift: str  # [L * H, 1]: |W_t - W_0|, of all the inner model's parameters
    lr: str  # [L * H, 1]: inner learning rate, steering included
    # [L * H, i + 1]: its row of the dual form's matrix, s_i lr_j q_i k_j for the tokens j of its mini-batch up to itself;
    # 0 for those that were forgotten since
    reads: str
    held: str  # [L * H, n]: inner loss under W_t of the last n <= ages tokens, this one the last


class _OfTTT(TypedDict, total=False):
    """Left out of a model's frames that is no TTT model."""

    ttt: TTTFrame


class Frame(_OfTTT):
    """Everything one token adds to a Trace."""

    version: Version
    index: int  # position t, 0-based, prompt included
    phase: Literal["prompt", "generated"]
    token_id: int
    text: str  # the piece this token adds; pieces concatenate to the decoded text; "" inside a multi-byte character
    next_id: int  # the next prompt token, or the token chosen
    next_text: str
    next_logprob: Number  # log p(next_id) under the model's own distribution, before temperature and the like, nats
    # The model's own likeliest next tokens, best first: its output, so the exit lens at the last step. Not a lens of the
    # loop. Empty when the recorder was off, and in a file of version 2.
    next_topk_ids: list[int]
    next_topk_logprobs: list[Number]  # nats, before temperature and the like
    next_topk_texts: list[str]
    pass_tokens: int  # tokens in the forward pass that made this frame
    # Runs whose tokens that pass read, this one's among them (:mod:`loopviz.engine.batch`); 1: its own. Times of a pass that
    # several share are of all they did together: pass_ms, parts, a step's ms. None in a file before version 6.
    pass_runs: Union[int, None]  # noqa: UP007
    pass_ms: Number  # wall time of it and of its first chunk's head, milliseconds
    wall_ms: Number  # by the clock, from the run's first pass to when this frame was made: all that goes on counts
    parts: Parts
    memory: Memory
    blocks: list[BlockFrame]  # one per looped block; empty for a plain Llama
    kv: KVFrame
    finish: Literal["eos", "length", "context", None]  # on the last frame, when generation ended by itself


class Shape(TypedDict):
    """Sizes of the model, in elements; ``itemsize`` in bytes of one cached number."""

    layers: int
    hidden: int
    heads: int  # query heads
    kv_heads: int
    head_dim: int
    itemsize: int
    vocab: int


def kv_bytes_of(shape: Shape) -> int:
    """Bytes of keys and values that attention of a model's sizes keeps of one token, once a layer: 2 L H_kv D b."""
    return 2 * shape["layers"] * shape["kv_heads"] * shape["head_dim"] * shape["itemsize"]


class BlockMeta(BlockSettings):
    """One looped block as configured: the fields of ``LoopLlamaConfig.loop_blocks()``, declared in :mod:`loopviz.loop_fields`."""

    layers: list[int]


class Change(TypedDict):
    """Loop settings that changed between two passes of a run."""

    index: int  # position of the first token read under them
    loop: dict[str, Any]  # the config's loop fields that changed, with their new values, JSON-able
    blocks: list[BlockMeta]  # every block from then on; layers, kv_mode and slots stay as they were


class _Changes(TypedDict, total=False):
    """Left out by a run whose settings cannot change."""

    changes: list[Change]  # in order; :mod:`loopviz.trace.changes` says what held where


class _Provenance(TypedDict, total=False):
    """Left out where nobody asked for it: it costs reading all weights."""

    provenance: dict[str, str]  # weights (sha256), device, dtype, quantization: :mod:`loopviz.engine.provenance`


class TTTChange(TypedDict):
    """What was changed of a TTT run between two passes."""

    index: int  # position of the first token read under it
    forget: bool  # the inner models were set back to W_0
    inner_lr_scale: float  # factor on the inner learning rate from then on


class TTTMeta(TypedDict):
    """A TTT model, and what was changed while it ran."""

    layers: int
    heads: int
    mini_batch: int  # M
    kind: str  # of the inner model: linear or mlp
    base_lr: float
    scales: list[list[float]]  # [L][M]: token scale of every slot, as it was learned
    start_norm: list[list[float]]  # [L][H]: |W_0|
    ages: int  # tokens whose reconstruction is recorded at a time, at most: as many as the run has, unless it is a long one
    state_bytes: int  # what the model keeps between passes, however much it has read
    kv_beside: dict[str, float]  # bytes of keys and values that other models keep of one token, by their names
    inner_lr_scale: float  # factor on the inner learning rate as the run began
    changes: list[TTTChange]  # in order; it grows while the run is made


class _MetaOfTTT(TypedDict, total=False):
    """Left out of a model's runs that is no TTT model."""

    ttt: TTTMeta


class Meta(_Changes, _Provenance, _MetaOfTTT):
    """What the whole run was: model, prompt, settings (those it began with)."""

    version: Version
    model: str
    prompt: str
    prompt_tokens: int
    top_k: int  # entries of each top-k list
    shape: Shape
    loop: dict[str, Any]  # the config's loop fields, JSON-able
    blocks: list[BlockMeta]
    settings: dict[str, Any]  # sampling settings, seed, what was recorded (extras: list of names)
    created: str  # ISO 8601
    versions: dict[str, str]


def check_frame(frame: Mapping[str, Any], hidden: int | None = None) -> None:
    """Raise ValueError, naming the place, unless ``frame`` is a well-formed Frame of this version.

    Checks keys, types, finiteness, and that every step column has N entries (or all have none: not recorded).
    ``hidden``: when given, recorded states must be ``[N + 1, hidden]``.
    """
    check_type(frame, Frame, "")
    if not all(frame["kv"]["slots"]):
        raise ValueError("kv.slots: a layer without slots")
    if len(set(map(len, (frame[name] for name in NEXT_LISTS)))) != 1:
        raise ValueError(f"{', '.join(NEXT_LISTS)}: lists of different lengths")
    if "ttt" in frame:
        _check_ttt(frame["ttt"], frame["index"])
    for i, block in enumerate(frame["blocks"]):
        try:
            _check_block(block, frame, hidden)
        except ValueError as error:
            raise ValueError(f"blocks[{i}].{error}") from error


def _check_ttt(found: TTTFrame, index: int) -> None:
    """The lengths of a token's TTT numbers; ValueError names the column."""
    rows = len(decode_singles(found["drift"], 1))
    for name in ("loss_before", "loss_after", "loss_start", "lr"):
        _expect(f"ttt.{name}", "numbers", len(decode_singles(found[name], 1)), rows)
    _expect("ttt.reads", "rows", len(decode_singles(found["reads"], found["slot"] + 1)), rows)
    held = decode_floats(found["held"], 1)
    if not rows or len(held) % rows or not 0 < len(held) // rows <= index + 1:
        raise ValueError(f"ttt.held: {len(held)} numbers for {rows} heads of all layers and {index + 1} tokens")


def _check_block(block: BlockFrame, frame: Mapping[str, Any], hidden: int | None) -> None:
    """The lengths of one block's columns; ValueError names the column."""
    n = block["n_steps"]
    steps: Mapping[str, Any] = block["steps"]
    if len(block["layers"]) != 2:
        raise ValueError(f"layers: {block['layers']!r} is not [a, b]")
    for names in ((*STEP_NUMBERS, *STEP_LISTS), (*EXIT_NUMBERS, *EXIT_LISTS)):
        lengths = {name: len(steps[name]) for name in names}
        if set(lengths.values()) not in ({n}, {0}):
            raise ValueError(f"steps: {lengths} entries for n_steps={n}")
    for lists in (STEP_LISTS, EXIT_LISTS):
        for r in range(len(steps[lists[0]])):
            sizes = {name: len(steps[name][r]) for name in lists}
            if len(set(sizes.values())) != 1:
                raise ValueError(f"steps: top-k lists of step {r + 1} differ in length: {sizes}")
    if hidden is not None and block["states"] is not None:
        rows = len(decode_states(block["states"], hidden))
        if rows != n + 1:
            raise ValueError(f"states: {rows} rows for n_steps={n} (n_steps + 1 belong)")
    layers = range(block["layers"][0], block["layers"][1] + 1)
    if block["layers_run"]:
        _expect("layers_run", "steps", len(block["layers_run"]), n)
        for r, ran in enumerate(block["layers_run"], start=1):
            if not ran or sorted({*ran} & {*layers}) != ran:
                raise ValueError(f"layers_run: {ran} in step {r} of a block of layers {block['layers']}")
    if block["key_cosine"]:
        _expect("key_cosine", "layers", len(block["key_cosine"]), len(layers))
        for j, column in enumerate(block["key_cosine"]):
            _expect(f"key_cosine[{j}]", "steps", len(column), n)
    if block["gate"] is not None:
        for name, column in (("p", block["gate"]["p"]), ("cdf", block["gate"]["cdf"])):
            _expect(f"gate.{name}", "steps", len(column), n)
        if not 1 <= (block["gate"]["read_out"] or 1) <= n:
            raise ValueError(f"gate.read_out: {block['gate']['read_out']} of n_steps={n}")
    if block["attention"] is not None:
        if layers.stop > len(frame["kv"]["slots"]):
            raise ValueError(f"layers: {block['layers']!r} are not all in kv.slots")
        _expect("attention.layers", "layers", len(block["attention"]["layers"]), len(layers))
        for layer, seen in zip(layers, block["attention"]["layers"], strict=True):
            name, owned = f"attention.layers[{layer - layers[0]}]", len(frame["kv"]["slots"][layer])
            _expect(f"{name}.weights", "rows", len(decode_floats(seen["weights"], frame["index"] + 1)), n)
            _expect(f"{name}.slots", "rows", len(decode_floats(seen["slots"], owned)), n)
            _expect(f"{name}.change", "steps", len(seen["change"]), n)
            if len({len(heads) for heads in seen["change"]}) > 1:
                raise ValueError(f"{name}.change: steps with different numbers of heads")


def _expect(path: str, what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"{path}: {found} {what} where {wanted} belong")


def check_meta(meta: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the field, unless ``meta`` is a well-formed Meta of this version."""
    check_type(meta, Meta, "meta")
