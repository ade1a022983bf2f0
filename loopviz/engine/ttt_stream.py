"""Running a prompt through a TTT model: an iterator of Frames, one a token, with what its inner loops did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import datetime, timezone
from importlib import metadata
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from loopviz.checks import ABSENT, FieldError, check_finite, check_whole
from loopviz.engine.pieces import Pieces, TokenTexts
from loopviz.engine.provenance import shown_name
from loopviz.engine.sampling import Sampler, StreamSettings
from loopviz.engine.usage import MemoryMeter
from loopviz.model.interrupt import interruptible, until
from loopviz.trace.recording.ttt import TTTRecorder, ages_of, ttt_meta
from loopviz.trace.schema import SCHEMA_VERSION, Frame, kv_bytes_of
from loopviz.ttt import InnerLossError, TTTCache
from loopviz.version import version

if TYPE_CHECKING:
    from loopviz.trace.schema import Shape, TTTChange
    from loopviz.ttt import InnerStep, TTTForCausalLM

MOST_TOKENS = 4096  # a prompt and what follows it; a TTT model has no end of its own, but what is recorded of it has to
MOST_LR_SCALE = 10.0  # of the inner learning rate
PIECE = 512  # tokens whose distributions are held at a time when a text is read again


class TTTWheel:
    """Changes a TTT run between two passes; its methods may be called from any thread.

    Attributes:
        changes: what was changed so far, each with the position of the first token read under it: the very list of the Meta.
    """

    def __init__(self, inner_lr_scale: float = 1.0) -> None:
        check_finite("inner_lr_scale", inner_lr_scale, 0, MOST_LR_SCALE)
        self.changes: list[TTTChange] = []
        self._scale = float(inner_lr_scale)
        self._asked: tuple[bool, float] | None = None
        self._lock = threading.Lock()

    def steer(self, *, forget: bool = False, inner_lr_scale: float | None = None) -> None:
        """From the next pass on; what is not given stays.

        Raises:
            FieldError: a factor that is not from 0 to `MOST_LR_SCALE`.
        """
        if inner_lr_scale is not None:
            check_finite("inner_lr_scale", inner_lr_scale, 0, MOST_LR_SCALE)
        with self._lock:
            before = self._asked or (False, self._scale)
            self._asked = (before[0] or forget, before[1] if inner_lr_scale is None else float(inner_lr_scale))

    def take(self, index: int) -> TTTChange | None:
        """What to change before the token at `index` is read."""
        with self._lock:
            asked, self._asked = self._asked, None
            if asked is None or asked == (False, self._scale):
                return None
            self._scale = asked[1]
            change: TTTChange = {"index": index, "forget": asked[0], "inner_lr_scale": asked[1]}
            return change


def inner_fault(error: InnerLossError, position: int, text: str) -> FieldError:
    """An inner loss that is no number, as a page tells it: where, and at which word."""
    return FieldError(
        "inner_loss",
        float("nan"),
        "inner_loss_nan",
        layer=error.layer,
        head=error.head,
        token=position,
        text=text,
    )


def stream_ttt(
    model: TTTForCausalLM,
    tokenizer: Any,
    ids: list[int],
    settings: StreamSettings,
    stop: threading.Event,
    wheel: TTTWheel,
    inner_lr_scale: float,
) -> Iterator[Frame]:
    """Continue the tokens `ids` and yield a Frame for every token the model reads, as :func:`loopviz.engine.stream` does.

    No pass goes over the end of a mini-batch, so that every token's own weights can be asked what they hold.

    Raises:
        FieldError: at a Frame: an inner loss, or logits, that are no numbers any more.
    """
    return until(stop, _frames(_Run(model, tokenizer, ids, settings, wheel, inner_lr_scale)))


def _frames(run: _Run) -> Generator[Frame, None, None]:
    try:
        waiting = list(run.ids)
        while True:
            room = run.size - run.read_tokens % run.size
            tokens, waiting = waiting[:room], waiting[room:]
            found = run.read(tokens, waiting[:1])
            yield from found
            if found[-1]["finish"] is not None:
                return
            waiting = waiting or [found[-1]["next_id"]]
    finally:
        run.close()


def room_of(ids: Sequence[int], settings: StreamSettings) -> int:
    """Tokens that a run may write; the last of them is not read."""
    return min(settings.max_new_tokens, MOST_TOKENS - len(ids) + 1)


class _Run:
    """The state of one run between its tokens."""

    def __init__(
        self,
        model: TTTForCausalLM,
        tokenizer: Any,
        ids: list[int],
        settings: StreamSettings,
        wheel: TTTWheel,
        inner_lr_scale: float,
    ) -> None:
        self.view, self.ids, self.settings, self.wheel = model.view(), ids, settings, wheel
        self.size = model.config.mini_batch_size
        self.room = room_of(ids, settings)
        self.sampler = Sampler(self.view, settings, torch.tensor([ids], device=model.device), self.room)
        self.pieces, self.texts = Pieces(tokenizer), TokenTexts(tokenizer)
        self.cache: TTTCache | None = TTTCache(model)
        self.cache.inner_lr_scale = inner_lr_scale
        self.recorder = TTTRecorder(self.view, ages_of(model, len(ids) + self.room - 1))
        self.memory = MemoryMeter(model.device)
        self.began: float | None = None
        self.read_tokens = 0
        self.piece = self.pieces.add(ids[0])

    def close(self) -> None:
        """Watch no longer, and let go of the cache."""
        self.recorder.close()
        self.cache = None

    def read(self, tokens: list[int], following: Sequence[int]) -> list[Frame]:
        """One pass over `tokens`, and their frames; the token after the last is `following`, or is chosen."""
        cache = self.cache
        assert cache is not None
        began = time.perf_counter()
        self.began = began if self.began is None else self.began
        self._steer(cache)
        self.recorder.begin()
        with torch.inference_mode():
            out = self._pass(tokens, cache)
            passed = time.perf_counter()
            logits = self.view.lm_head(out[0]).float()  # [K, V]
            self._check_logits(logits)
            chosen = list(following) or [self.sampler.choose(logits[-1:])]
            headed = time.perf_counter()
            said = logits.log_softmax(-1)
            inner = self.recorder.frames()
        head_ms, model_ms = 1000 * (headed - passed), 1000 * (passed - began)
        frames = self._made(tokens, [*tokens[1:], *chosen], said, inner)
        done = time.perf_counter()
        for frame in frames:
            parts = {"prelude": model_ms, "block": 0.0, "coda": 0.0, "head": head_ms}
            frame["pass_ms"], frame["parts"] = model_ms + head_ms, {**parts, "recording": 1000 * (done - headed)}  # type: ignore[typeddict-item]
            frame["wall_ms"] = 1000 * (done - self.began)
        if not following:
            frames[-1]["finish"] = self._finish(chosen[0])
        return frames

    def _check_logits(self, logits: Tensor) -> None:
        bad = torch.isnan(logits).any(-1).nonzero()
        if len(bad):
            raise FieldError("", ABSENT, "ttt_logits_nan", token=self.read_tokens + int(bad[0]))

    def _steer(self, cache: TTTCache) -> None:
        change = self.wheel.take(self.read_tokens)
        if change is None:
            return
        cache.inner_lr_scale = change["inner_lr_scale"]
        if change["forget"]:
            cache.forget()
            self.recorder.forgot(self.read_tokens)
        self.wheel.changes.append(change)

    def _pass(self, tokens: list[int], cache: TTTCache) -> Tensor:
        """The last states, `[1, K, C]`."""
        given = torch.tensor([tokens], device=self.view.device)
        try:
            return self.view.model(given, past_key_values=cache, use_cache=True).last_hidden_state
        except InnerLossError as error:
            word = self.texts(tokens[error.token])
            raise inner_fault(error, error.position, word) from error

    def _made(self, tokens: list[int], following: list[int], said: Tensor, inner: list[Any]) -> list[Frame]:
        """The pass's frames but for their times; `said` are log-probabilities `[K, V]`."""
        best, places = said.topk(min(self.settings.top_tokens, said.shape[-1]), dim=-1)
        memory, cache = self.memory.read(), self.cache
        assert cache is not None
        bytes_now = cache.nbytes
        plain = kv_bytes_of(shape_of(self.view))
        frames: list[Frame] = []
        for c, (token, next_id) in enumerate(zip(tokens, following, strict=True)):
            piece, self.piece = self.piece, self.pieces.add(next_id)
            index, of_plain = self.read_tokens, plain * (self.read_tokens + 1)
            frames.append(
                {
                    "version": SCHEMA_VERSION,
                    "index": index,
                    "phase": "prompt" if index < len(self.ids) else "generated",
                    "token_id": token,
                    "text": piece,
                    "next_id": next_id,
                    "next_text": self.piece,
                    "next_logprob": float(said[c, next_id]),
                    "next_topk_ids": places[c].tolist(),
                    "next_topk_logprobs": best[c].tolist(),
                    "next_topk_texts": [self.texts(one) for one in places[c].tolist()],
                    "pass_tokens": len(tokens),
                    "pass_runs": 1,
                    "pass_ms": None,
                    "wall_ms": None,
                    "parts": {"prelude": None, "block": None, "coda": None, "head": None, "recording": None},
                    "memory": memory.copy(),
                    "blocks": [],
                    "kv": {
                        "slots": [],
                        "bytes_used": bytes_now,
                        "bytes_allocated": bytes_now,
                        "bytes_plain": of_plain,
                        "bytes_unrolled": of_plain,
                    },
                    "finish": None,
                    "ttt": inner[c],
                }
            )
            self.read_tokens += 1
        return frames

    def _finish(self, chosen: int) -> Literal["eos", "length", "context"] | None:
        if chosen in self.sampler.eos:
            return "eos"
        new = self.read_tokens - len(self.ids) + 1
        if new < self.room:
            return None
        return "length" if new == self.settings.max_new_tokens else "context"


def shape_of(model: TTTForCausalLM) -> Shape:
    """The sizes of a TTT model as a Meta has them."""
    config = model.config
    return {
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_attention_heads,
        "head_dim": config.head_dim,
        "itemsize": model.dtype.itemsize,
        "vocab": config.vocab_size,
    }


def meta_of(
    model: TTTForCausalLM,
    prompt: str,
    ids: Sequence[int],
    settings: StreamSettings,
    wheel: TTTWheel,
    inner_lr_scale: float,
    name: str,
) -> dict[str, Any]:
    """The Meta of the run; its `ttt.changes` grow as the run is steered."""
    config, ages = model.config, ages_of(model, len(ids) + room_of(ids, settings) - 1)
    return {
        "version": SCHEMA_VERSION,
        "model": name or shown_name(getattr(config, "_name_or_path", "")) or type(model).__name__,
        "prompt": prompt,
        "prompt_tokens": len(ids),
        "top_k": min(settings.top_tokens, config.vocab_size),
        "shape": shape_of(model),
        "loop": {},
        "blocks": [],
        "settings": settings.to_dict(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "loopviz": version(),
            "torch": torch.__version__,
            "transformers": metadata.version("transformers"),
        },
        "ttt": {**ttt_meta(model, inner_lr_scale, ages), "changes": wheel.changes},
    }


def read_under(
    model: TTTForCausalLM,
    ids: Sequence[int],
    changes: Sequence[TTTChange],
    inner_lr_scale: float,
    stop: threading.Event,
    hook: Callable[[InnerStep], None] | None = None,
) -> list[float]:
    """Log-probability of every token of a text under the ones before it, from the second on, read with these changes.

    Args:
        changes: in order, each before the token at its `index` is read.
        inner_lr_scale: before the first of them.
        stop: leaves it in the middle.
        hook: told what the inner loops did, layer after layer of every pass.

    Raises:
        Interrupted: once `stop` is set.
        FieldError: an inner loss that is no number any more.
    """
    check_whole("ids", len(ids), 2, MOST_TOKENS + 1)
    view, cache = model.view(), TTTCache(model)
    if hook is not None:
        view.register_inner_hook(hook)
    cache.inner_lr_scale = inner_lr_scale
    last = len(ids) - 1
    cuts = sorted(
        {*range(0, last, PIECE), last, *(change["index"] for change in changes if 0 < change["index"] < last)}
    )
    by_index = {change["index"]: change for change in changes}
    found: list[float] = []
    for start, end in pairwise(cuts):
        change = by_index.get(start)
        if change is not None:
            cache.inner_lr_scale = change["inner_lr_scale"]
            if change["forget"]:
                cache.forget()
        with torch.inference_mode(), interruptible(stop):
            given = torch.tensor([list(ids[start:end])], device=model.device)
            try:
                states = view.model(given, past_key_values=cache, use_cache=True).last_hidden_state[0]
            except InnerLossError as error:
                raise inner_fault(error, error.position, "") from error
            said = view.lm_head(states).float().log_softmax(-1)
            wanted = torch.tensor(ids[start + 1 : end + 1], device=model.device)[:, None]
            found += said.gather(1, wanted)[:, 0].tolist()
    return found
