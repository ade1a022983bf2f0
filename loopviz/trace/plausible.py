"""What types cannot say about a trace from a stranger: that its numbers are ones a model could have.

Whoever reads a Trace relies on that: a figure makes room for ``max_steps`` steps, finds block ``i`` of every frame where
the Meta says, and puts its texts into messages. The limits are far beyond any model and run there is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from loopviz.loop_fields import FIELDS
from loopviz.trace.packed import decode_floats
from loopviz.trace.schema import EXTRAS, NEXT_LISTS, PARTS, BlockFrame, Frame

MOST_STEPS = 4_096  # loop steps of a block in one pass
MOST_LAYERS = 4_096
MOST_SLOTS = 4_096
MOST_RUNS = 4_096  # that share a pass
MOST = 2**53  # of any number: beyond it, readers in other languages round
ROUNDING = 1e-3  # a probability may be so much above 1, a cosine beyond 1, a divergence below 0
MOST_MS = 10**9  # of a pass or a part of one: eleven days
LARGEST = 3.5e38  # of what float32 holds
MOST_TEXT = 4_000  # characters of a name or a setting
MOST_DEPTH = 6  # of lists and mappings within each other in settings

_SHAPE = {"hidden": 2**20, "heads": 2**16, "kv_heads": 2**16, "head_dim": 2**16, "itemsize": 16, "vocab": 2**28}
# settings a reader computes or writes with: their types, where they are given
_SETTINGS: Mapping[str, tuple[type, ...]] = {
    "do_sample": (bool,),
    "chat": (bool,),
    "template": (str,),
    "input": (str,),
    "temperature": (int, float),
    "top_p": (int, float),
    "min_p": (int, float),
    "repetition_penalty": (int, float),
    "top_k": (int,),
    "seed": (int,),
    "max_new_tokens": (int,),
    "top_tokens": (int,),
    "record": (str,),
}
LAYOUT = tuple(field.meta for field in FIELDS if field.layout)  # of a block: what the cache's layout follows from
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_meta_sense(meta: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the field, unless a Meta (of the right types) is one a run could have."""
    for name in ("model", "created", "loop", "versions"):
        check_plain(meta[name], f"meta.{name}")
    # a prompt's input is as long as prompts are
    check_plain({name: value for name, value in meta["settings"].items() if name != "input"}, "meta.settings")
    check_plain(meta.get("provenance", {}), "meta.provenance")
    if _SURROGATE.search(meta["prompt"]):
        raise ValueError("meta.prompt: half a character (a lone surrogate)")
    shape = meta["shape"]
    layers = shape["layers"]
    within("meta.shape.layers", layers, 1, MOST_LAYERS)
    for name, most in _SHAPE.items():
        within(f"meta.shape.{name}", shape[name], 1, most)
    within("meta.prompt_tokens", meta["prompt_tokens"], 0, MOST)
    within("meta.top_k", meta["top_k"], 0, shape["vocab"])
    _check_blocks(meta["blocks"], layers, "meta.blocks")
    _check_changes(meta, layers)
    _check_settings(meta["settings"])


def _check_changes(meta: Mapping[str, Any], layers: int) -> None:
    """Changes come in order, and leave the cache's layout as it is."""
    after, layout = -1, [[block[name] for name in LAYOUT] for block in meta["blocks"]]
    for i, change in enumerate(meta.get("changes", ())):
        where = f"meta.changes[{i}]"
        within(f"{where}.index", change["index"], after + 1, MOST)
        after = change["index"]
        check_plain(change["loop"], f"{where}.loop")
        _check_blocks(change["blocks"], layers, f"{where}.blocks")
        if [[block[name] for name in LAYOUT] for block in change["blocks"]] != layout:
            raise ValueError(f"{where}.blocks: other {', '.join(LAYOUT)} than the run began with")


def _check_blocks(blocks: Sequence[Mapping[str, Any]], layers: int, path: str) -> None:
    free = 0  # the first layer the next block may begin at
    for i, block in enumerate(blocks):
        where = f"{path}[{i}]"
        check_plain(block, where)
        if len(block["layers"]) != 2 or not free <= block["layers"][0] <= block["layers"][1] < layers:
            raise ValueError(f"{where}.layers: {block['layers']!r} are not layers of their own in {layers}")
        free = block["layers"][1] + 1
        within(f"{where}.max_steps", block["max_steps"], 1, MOST_STEPS)
        within(f"{where}.slots", block["slots"], 1, MOST_SLOTS)
        for name in ("count", "floor", "kl_threshold"):
            within(f"{where}.{name}", block[name], 0, MOST)
        within(f"{where}.cosine_threshold", block["cosine_threshold"], 0, 1)


def _check_settings(settings: Mapping[str, Any]) -> None:
    for name, kinds in _SETTINGS.items():
        value = settings.get(name)
        if name in settings and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise ValueError(f"meta.settings.{name}: {value!r} is not {kinds[-1].__name__}")
    if _SURROGATE.search(settings.get("input", "")):
        raise ValueError("meta.settings.input: half a character (a lone surrogate)")
    if settings.get("do_sample") and not {"temperature", "seed"} <= settings.keys():
        raise ValueError("meta.settings: do_sample without temperature and seed")
    if settings.get("record", "full") not in ("full", "off"):
        raise ValueError(f"meta.settings.record: {settings['record']!r} is none of 'full', 'off'")
    extras = settings.get("extras", [])
    if not isinstance(extras, list) or any(name not in EXTRAS for name in extras):
        raise ValueError(f"meta.settings.extras: {extras!r} is not a list of {', '.join(EXTRAS)}")


def check_steps(counts: Sequence[Any]) -> None:
    """Raise ValueError unless every block's number of steps is one there can be; called before room is made for them."""
    for n in counts:
        within("blocks: n_steps", n, 0, MOST_STEPS)


def check_frames_sense(frames: Sequence[Frame], meta: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the place, unless frames (of the right types) fit ``meta`` and each other."""
    clock = 0.0
    for frame in frames:
        try:
            _check_frame(frame, meta)
            if frame["wall_ms"] is not None and frame["wall_ms"] < clock:
                raise ValueError(f"wall_ms: {frame['wall_ms']} after {clock}: a clock does not go back")
        except ValueError as error:
            raise ValueError(f"token {frame['index']}: {error}") from error
        clock = frame["wall_ms"] or clock


def _check_frame(frame: Frame, meta: Mapping[str, Any]) -> None:
    blocks, vocab = meta["blocks"], meta["shape"]["vocab"]
    whole: Mapping[str, Any] = frame
    for name in ("token_id", "next_id"):
        within(name, frame[name], 0, vocab - 1)
    _all_within("next_logprob", [frame["next_logprob"]], -LARGEST, ROUNDING)
    _check_likeliest("next_topk", [[whole[name]] for name in NEXT_LISTS], meta)
    within("pass_tokens", frame["pass_tokens"], 1, MOST)
    _all_within("pass_runs", [frame["pass_runs"]], 1, MOST_RUNS)
    _all_within("pass_ms", [frame["pass_ms"]], 0, MOST_MS)
    _all_within("wall_ms", [frame["wall_ms"]], 0, MOST_MS)
    parts: Mapping[str, Any] = frame["parts"]
    for part in PARTS:
        _all_within(f"parts.{part}", [parts[part]], 0, MOST_MS)
    memory: Mapping[str, Any] = frame["memory"]
    for name, value in memory.items():
        _all_within(f"memory.{name}", [value], 0, MOST)
    _check_kv(frame, 0 if "ttt" in meta else meta["shape"]["layers"])  # a TTT model keeps no keys
    if [block["layers"] for block in frame["blocks"]] != [block["layers"] for block in blocks]:
        raise ValueError(f"blocks: not those of the meta ({len(blocks)})")
    for i, block in enumerate(frame["blocks"]):
        try:
            within("block", block["block"], i, i)
            check_plain(block["stop_reason"], "stop_reason")
            _check_steps(block, meta)
            _check_attention(block, frame, meta["shape"]["heads"])
        except ValueError as error:
            raise ValueError(f"blocks[{i}].{error}") from error


def _check_kv(frame: Frame, layers: int) -> None:
    held = frame["kv"]["slots"]
    kv: Mapping[str, Any] = frame["kv"]
    for name, value in kv.items():
        if name != "slots":  # what a plain Llama would hold is what others are compared with
            within(f"kv.{name}", value, 1 if name == "bytes_plain" else 0, MOST)
    if len(held) != layers:
        wanted = f"meta.shape.layers is {layers}" if layers else "a TTT model keeps none"
        raise ValueError(f"kv: {len(held)} layers where {wanted}")
    for slots in held:
        within("kv: slots of a layer", len(slots), 1, MOST_SLOTS)
        for tokens in slots:
            within("kv: tokens of a slot", tokens, 0, frame["index"] + 1)


def _check_steps(block: BlockFrame, meta: Mapping[str, Any]) -> None:
    """Every number of every step of one block, both ends."""
    steps: Mapping[str, Any] = block["steps"]
    vocab = meta["shape"]["vocab"]
    ends = {
        "cosine": (-1 - ROUNDING, 1 + ROUNDING),
        "kl": (-ROUNDING, LARGEST),
        "rel_delta": (0, LARGEST),
        "norm": (0, LARGEST),
        "entropy": (-ROUNDING, math.log(vocab) + ROUNDING),
        "rank": (1, vocab),
        "ms": (0, MOST_MS),
        "exit_rank": (1, vocab),
        "exit_logprob": (-LARGEST, ROUNDING),
    }
    for name, (low, high) in ends.items():
        _all_within(f"steps.{name}", steps[name], low, high)
    for prefix in ("topk", "exit_topk"):
        lists = [steps[f"{prefix}_{name}"] for name in ("ids", "logprobs", "texts")]
        _check_likeliest(f"steps.{prefix}", lists, meta)
    for gate in (block["gate"],) if block["gate"] is not None else ():
        _all_within("gate.p", gate["p"], -ROUNDING, 1 + ROUNDING)
        _all_within("gate.cdf", gate["cdf"], -ROUNDING, 1 + ROUNDING)
        if any(later < earlier - ROUNDING for earlier, later in pairwise(x for x in gate["cdf"] if x is not None)):
            raise ValueError("gate.cdf: falls from one step to the next")
    for column in block["key_cosine"]:
        _all_within("key_cosine", column, -1 - ROUNDING, 1 + ROUNDING)


def _check_likeliest(path: str, lists: Sequence[Sequence[Sequence[Any]]], meta: Mapping[str, Any]) -> None:
    """Likeliest tokens, a row a step: ids, log-probabilities, texts."""
    ids, logprobs, _ = lists
    for row in ids:
        within(f"{path}_ids: entries", len(row), 0, meta["top_k"])
        _all_within(f"{path}_ids", row, 0, meta["shape"]["vocab"] - 1)
    for row in logprobs:
        _all_within(f"{path}_logprobs", row, -LARGEST, ROUNDING)


def _check_attention(block: BlockFrame, frame: Frame, heads: int) -> None:
    first = block["layers"][0]
    for j, layer in enumerate((block["attention"] or {"layers": []})["layers"]):
        for row in layer["change"]:
            within("attention: heads", len(row), heads, heads)
            _all_within("attention.change", row, 0, 1 + ROUNDING)
        slots = len(frame["kv"]["slots"][first + j])
        for name, text, width in (("weights", layer["weights"], frame["index"] + 1), ("slots", layer["slots"], slots)):
            shares = decode_floats(text, width)
            # float16: a share may be rounded up, and a NaN is within nothing
            if shares.size and not (shares.min() >= 0 and shares.max() <= 1 + 4 * ROUNDING):
                raise ValueError(f"attention.{name}: {shares.min()} to {shares.max()} where shares of 1 belong")


def _all_within(path: str, values: Iterable[float | None], low: float, high: float) -> None:
    """Each of ``values`` that is defined is one there can be; ValueError names the first that is not."""
    for value in values:
        if value is not None:
            within(path, value, low, high)


def within(path: str, value: float, low: float, high: float) -> None:
    """Raise ValueError, naming ``path``, unless ``value`` lies from ``low`` to ``high``."""
    if not low <= value <= high:
        raise ValueError(f"{path}: {value} where {low if low == high else f'{low} to {high}'} belongs")


def check_plain(value: Any, path: str, depth: int = 0) -> None:
    """Settings and names: short whole text, finite numbers that are not too large, nested no deeper than needed."""
    if depth > MOST_DEPTH:
        raise ValueError(f"{path}: nested too deeply")
    if isinstance(value, str):
        if len(value) > MOST_TEXT or _SURROGATE.search(value):
            raise ValueError(f"{path}: text too long, or half a character in it")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) < 2**63:  # seeds go that far; NaN is refused too
            raise ValueError(f"{path}: {value!r} is too large, or no number")
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            check_plain(key, f"{path} key", depth + 1)
            check_plain(entry, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for entry in value:
            check_plain(entry, path, depth + 1)
    elif value is not None and not isinstance(value, bool):
        raise ValueError(f"{path}: {type(value).__name__} in it")
