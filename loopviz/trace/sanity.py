"""What types cannot say about a trace from a stranger: that its numbers are ones a model could have.

Whoever reads a Trace relies on that: a figure makes room for ``max_steps`` steps, finds block ``i`` of every frame where
the Meta says, and puts its texts into messages. The limits are far beyond any model and run there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from loopviz.trace.schema import EXTRAS, Frame

MOST_STEPS = 4_096  # loop steps of a block in one pass
MOST_LAYERS = 4_096
MOST_SLOTS = 4_096
MOST = 2**53  # of any number: beyond it, readers in other languages round
MOST_LOGPROB = 1e-3  # probabilities end at 1; this much for rounding
MOST_TEXT = 4_000  # characters of a name or a setting
MOST_DEPTH = 6  # of lists and mappings within each other in settings

_SHAPE = {"hidden": 2**20, "heads": 2**16, "kv_heads": 2**16, "head_dim": 2**16, "itemsize": 16, "vocab": 2**28}
# settings a reader computes or writes with: their types, where they are given
_SETTINGS: Mapping[str, tuple[type, ...]] = {
    "do_sample": (bool,),
    "chat": (bool,),
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
LAYOUT = ("layers", "kv_mode", "slots")  # of a block: what the cache's layout follows from
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_meta_sense(meta: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the field, unless a Meta (of the right types) is one a run could have."""
    for name in ("model", "created", "loop", "settings", "versions"):
        _check_plain(meta[name], f"meta.{name}")
    if _SURROGATE.search(meta["prompt"]):
        raise ValueError("meta.prompt: half a character (a lone surrogate)")
    shape = meta["shape"]
    layers = shape["layers"]
    _within("meta.shape.layers", layers, 1, MOST_LAYERS)
    for name, most in _SHAPE.items():
        _within(f"meta.shape.{name}", shape[name], 1, most)
    _within("meta.prompt_tokens", meta["prompt_tokens"], 0, MOST)
    _within("meta.top_k", meta["top_k"], 0, shape["vocab"])
    _check_blocks(meta["blocks"], layers, "meta.blocks")
    _check_changes(meta, layers)
    _check_settings(meta["settings"])


def _check_changes(meta: Mapping[str, Any], layers: int) -> None:
    """Changes come in order, and leave the cache's layout as it is."""
    after, layout = -1, [[block[name] for name in LAYOUT] for block in meta["blocks"]]
    for i, change in enumerate(meta.get("changes", ())):
        where = f"meta.changes[{i}]"
        _within(f"{where}.index", change["index"], after + 1, MOST)
        after = change["index"]
        _check_plain(change["loop"], f"{where}.loop")
        _check_blocks(change["blocks"], layers, f"{where}.blocks")
        if [[block[name] for name in LAYOUT] for block in change["blocks"]] != layout:
            raise ValueError(f"{where}.blocks: other {', '.join(LAYOUT)} than the run began with")


def _check_blocks(blocks: Sequence[Mapping[str, Any]], layers: int, path: str) -> None:
    free = 0  # the first layer the next block may begin at
    for i, block in enumerate(blocks):
        where = f"{path}[{i}]"
        _check_plain(block, where)
        if len(block["layers"]) != 2 or not free <= block["layers"][0] <= block["layers"][1] < layers:
            raise ValueError(f"{where}.layers: {block['layers']!r} are not layers of their own in {layers}")
        free = block["layers"][1] + 1
        _within(f"{where}.max_steps", block["max_steps"], 1, MOST_STEPS)
        _within(f"{where}.slots", block["slots"], 1, MOST_SLOTS)
        for name in ("count", "floor"):
            _within(f"{where}.{name}", block[name], 0, MOST)


def _check_settings(settings: Mapping[str, Any]) -> None:
    for name, kinds in _SETTINGS.items():
        value = settings.get(name)
        if name in settings and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise ValueError(f"meta.settings.{name}: {value!r} is not {kinds[-1].__name__}")
    if settings.get("do_sample") and not {"temperature", "seed"} <= settings.keys():
        raise ValueError("meta.settings: do_sample without temperature and seed")
    extras = settings.get("extras", [])
    if not isinstance(extras, list) or any(name not in EXTRAS for name in extras):
        raise ValueError(f"meta.settings.extras: {extras!r} is not a list of {', '.join(EXTRAS)}")


def check_steps(counts: Sequence[Any]) -> None:
    """Raise ValueError unless every block's number of steps is one there can be; called before room is made for them."""
    for n in counts:
        _within("blocks: n_steps", n, 0, MOST_STEPS)


def check_frames_sense(frames: Sequence[Frame], meta: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the place, unless frames (of the right types) fit ``meta`` and each other."""
    for frame in frames:
        try:
            _check_frame(frame, meta)
        except ValueError as error:
            raise ValueError(f"token {frame['index']}: {error}") from error


def _check_frame(frame: Frame, meta: Mapping[str, Any]) -> None:
    layers, blocks = meta["shape"]["layers"], meta["blocks"]
    for name in ("token_id", "next_id"):
        _within(name, frame[name], 0, MOST)
    _within("pass_tokens", frame["pass_tokens"], 1, MOST)
    for name, value in (*frame["kv"].items(), *frame["memory"].items()):
        if name != "slots" and value is not None:
            _within(name, value, 0, MOST)
    held = frame["kv"]["slots"]
    if len(held) != layers:
        raise ValueError(f"kv: {len(held)} layers where meta.shape.layers is {layers}")
    for slots in held:
        _within("kv: slots of a layer", len(slots), 1, MOST_SLOTS)
        for tokens in slots:
            _within("kv: tokens of a slot", tokens, 0, frame["index"] + 1)
    if [block["layers"] for block in frame["blocks"]] != [block["layers"] for block in blocks]:
        raise ValueError(f"blocks: not those of the meta ({len(blocks)})")
    for i, block in enumerate(frame["blocks"]):
        _within("block", block["block"], i, i)
        _check_plain(block["stop_reason"], f"blocks[{i}].stop_reason")
        steps = block["steps"]
        for rank in (*steps["rank"], *steps["exit_rank"]):
            _within(f"blocks[{i}].rank", rank, 1, MOST)
        for row in (*steps["topk_ids"], *steps["exit_topk_ids"]):
            _within(f"blocks[{i}]: top-k entries", len(row), 0, meta["top_k"])
            for token in row:
                _within(f"blocks[{i}]: a top-k id", token, 0, MOST)
        logs = [value for name in ("topk_logprobs", "exit_topk_logprobs") for row in steps[name] for value in row]
        for value in (*logs, *steps["exit_logprob"], frame["next_logprob"]):
            if value is not None and not value <= MOST_LOGPROB:
                raise ValueError(f"blocks[{i}]: a log-probability of {value}, which is above 0")
        for layer in (block["attention"] or {"layers": []})["layers"]:
            for heads in layer["change"]:
                _within(f"blocks[{i}]: attention heads", len(heads), meta["shape"]["heads"], meta["shape"]["heads"])


def _within(path: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{path}: {value} where {low if low == high else f'{low} to {high}'} belongs")


def _check_plain(value: Any, path: str, depth: int = 0) -> None:
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
            _check_plain(key, f"{path} key", depth + 1)
            _check_plain(entry, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for entry in value:
            _check_plain(entry, path, depth + 1)
    elif value is not None and not isinstance(value, bool):
        raise ValueError(f"{path}: {type(value).__name__} in it")
