"""A run's tokens read again by its model in this process, so that a page can look into any of them.

One pass at a time, and no more than one token's tensors: a token that is looked at next takes the place of the one before, with
all that was computed of it; the keys and values of what was read stay, so that a neighbour costs one pass.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loopviz.checks import check_real, check_whole
from loopviz.engine import limits
from loopviz.engine.engine import Draw
from loopviz.engine.pieces import TokenTexts
from loopviz.model.cache_layer import SMALLEST_CAPACITY
from loopviz.model.interrupt import Interrupted, interruptible

if TYPE_CHECKING:
    import torch

    from loopviz.anatomy.picture import Beside, Distances, LayerPicture, TokenPicture
    from loopviz.anatomy.probe import LayerRun, Probed
    from loopviz.model import LoopLlamaForCausalLM
    from loopviz.trace import Trace

SHOWN = 20  # of the likeliest next tokens


class LocalReading:
    """A finished run, read again; see :class:`loopviz.engine.engine.Reading`.

    Args:
        model: shared, never changed.
        trace: of the run.

    Raises:
        ValueError: a run that this model cannot have made, or that was stopped within its prompt.
    """

    def __init__(self, model: LoopLlamaForCausalLM, tokenizer: Any, trace: Trace) -> None:
        from loopviz.anatomy.reread import Reread

        self._reread = Reread(model, trace)
        self._model, self._trace = model, trace
        self._texts = TokenTexts(tokenizer)
        self._lock = threading.Lock()
        self._token: LocalToken | None = None

    def need(self, position: int) -> int:
        """Bytes that a token's tensors take at most, and the keys and values of what is read before it."""
        from loopviz.anatomy.reread import memory

        meta, config = self._trace.meta, self._model.config
        shape = {**meta["shape"], "itemsize": self._model.dtype.itemsize}  # the run may have been made in another dtype
        every = [meta["blocks"], *(change["blocks"] for change in meta.get("changes", ()))]
        steps = [max(blocks[i]["max_steps"] for blocks in every) for i in range(len(meta["blocks"]))]
        wide = [block["layers"][1] - block["layers"][0] + 1 for block in meta["blocks"]]
        runs = shape["layers"] + sum(a * b for a, b in zip(steps, wide, strict=True))
        slots = max((block["slots"] for blocks in every for block in blocks), default=1)
        read = max(position + 1, min(meta["prompt_tokens"], len(self._trace)))
        item = shape["itemsize"]
        room = max(SMALLEST_CAPACITY, 2 * read)  # buffers of keys and values may be twice as large as what is in them
        cached = 2 * item * shape["kv_heads"] * shape["head_dim"] * room * slots * shape["layers"]
        # of a loop step at most: before it, in it, after it, and after norms and gates that end it
        around = item * (11 * shape["hidden"] * (1 + sum(steps)) + shape["vocab"]) + 8 * sum(steps)
        return cached + around + memory(shape, runs, read * slots, config.intermediate_size)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds now."""
        token = self._token
        return self._reread.nbytes + (0 if token is None else token.nbytes)

    def read(self, position: int, stop: threading.Event) -> LocalToken | None:
        """A token; the one that was read before is let go of. None once `stop` is set; ValueError outside the run."""
        from loopviz.anatomy.picture import token_picture

        with self._lock:
            if self._token is not None:
                self._token.close()
                self._token = None
            try:
                with interruptible(stop):
                    probed = self._reread.probe(position)
            except Interrupted:  # what was read so far stays read
                return None
            picture = token_picture(probed, self._reread.agreement(probed), self._model)
            self._token = LocalToken(probed, picture, self._model, self._texts)
            return self._token


class LocalToken:
    """A token that was read; see :class:`loopviz.engine.engine.TokenReading`. Its methods may be called from any thread."""

    def __init__(self, probed: Probed, picture: TokenPicture, model: LoopLlamaForCausalLM, texts: TokenTexts) -> None:
        self.picture, self.nbytes = picture, _bytes_of(probed)
        self._probed: Probed | None = probed
        self._model, self._texts = model, texts
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of its tensors."""
        with self._lock:
            self._probed, self.nbytes = None, 0

    @contextmanager
    def _open(self) -> Iterator[Probed]:
        with self._lock:
            if self._probed is None:
                raise ValueError(f"token {self.picture.position}: another was read since; read it again")
            yield self._probed

    @staticmethod
    def _run(probed: Probed, layer: int, step: int) -> LayerRun:
        found = probed.layer_run(layer, step)
        if found is None:
            ran = [run.step for run in probed.layers if run.layer == layer]
            known = f"it ran in {', '.join(map(str, ran))}" if ran else "it did not run"
            raise ValueError(f"layer={layer}, step={step}: no such run of a layer for token {probed.position}; {known}")
        return found

    def layer(self, layer: int, step: int) -> LayerPicture:
        """A layer in a loop step; ValueError where it did not run."""
        from loopviz.anatomy.picture import layer_picture

        with self._open() as probed:
            return layer_picture(probed, self._run(probed, layer, step), self._model)

    def beside(self, layer: int, step: int, other: int) -> Beside:
        """Two loop steps of a layer; ValueError where it did not run."""
        from loopviz.anatomy.picture import beside

        with self._open() as probed:
            return beside(probed, self._run(probed, layer, step), self._run(probed, layer, other), self._model.config)

    def distances(self, layer: int, step: int, head: int, column: int, most: int, many: int) -> Distances:
        """What a query head would score with a column's key at distances 0 to `most`; of more than `many` those around the run's own.
        ValueError for what is not there."""
        from loopviz.anatomy.picture import distances

        with self._open() as probed:
            return distances(self._run(probed, layer, step), self._model.config, head, column, most, many)

    def draw(self, temperature: float, top_k: int, top_p: float) -> Draw:
        """What the next token would be drawn from; ValueError for settings that a run does not take."""
        check_real("temperature", temperature, limits.MIN_TEMPERATURE, limits.MAX_TEMPERATURE)
        check_whole("top_k", top_k, 0, limits.MAX_TOP_K)
        check_real("top_p", top_p, 0, 1, above=True)
        with self._open() as probed:
            logits = probed.logits.double()  # a chance far below float32's least is no chance that is left out
        left = _left(logits, temperature, top_k, top_p)
        plain, chances = logits.softmax(-1), left.softmax(-1)
        ids = logits.topk(min(SHOWN, len(logits))).indices.tolist()
        rows = [(self._texts(i), float(logits[i]), float(plain[i]), float(chances[i])) for i in ids]
        return Draw(rows=tuple(rows), kept=int((left > -math.inf).sum()), vocabulary=len(logits))


def _left(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """The logits that are drawn from, `[V]`, as `generate()` has them; what is left out is -inf."""
    from transformers.generation import logits_process as ways

    chosen: list[ways.LogitsProcessor] = [ways.TemperatureLogitsWarper(float(temperature))]
    chosen += [ways.TopKLogitsWarper(top_k)] if top_k else []
    chosen += [ways.TopPLogitsWarper(float(top_p))] if top_p < 1 else []  # of 1 it leaves out what it rounds to 0
    left = logits[None]
    for way in chosen:
        left = way(None, left)  # no token read before counts
    return left[0]


def _bytes_of(probed: Probed) -> int:
    """Bytes of its tensors."""
    holders = [probed, *probed.layers, *probed.steps]
    return sum(_size(value) for holder in holders for value in vars(holder).values())


def _size(value: Any) -> int:
    tensor: torch.Tensor | None = value if hasattr(value, "element_size") else None
    return 0 if tensor is None else tensor.numel() * tensor.element_size()
