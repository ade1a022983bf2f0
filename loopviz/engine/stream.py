"""Running a prompt: an iterator of Frames, one a token."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import torch

from loopviz.engine.batch import room_of
from loopviz.engine.pieces import Pieces, TokenTexts, encode_prompt
from loopviz.engine.provenance import shown_name
from loopviz.engine.sampling import Sampler, StreamSettings
from loopviz.engine.steering import Steering, block_metas
from loopviz.engine.usage import MemoryMeter, PassClock
from loopviz.model.interrupt import until, within_operations
from loopviz.trace.recording.recorder import KVMeter, Reading, Recorder
from loopviz.trace.schema import SCHEMA_VERSION, Frame, KVFrame
from loopviz.trace.trace import Trace
from loopviz.version import version

if TYPE_CHECKING:
    from loopviz.model import LoopCache, LoopLlamaForCausalLM
    from loopviz.trace import Change
    from loopviz.trace.recording.together import SharedReading


def stream(
    model: LoopLlamaForCausalLM,
    tokenizer: Any,
    prompt: str,
    settings: StreamSettings | None = None,
    stop: threading.Event | None = None,
    steering: Steering | None = None,
    *,
    shared: bool = False,
) -> Iterator[Frame]:
    """Continue ``prompt`` and yield a Frame for every token the model reads, the prompt's first.

    The frame of a token carries the token chosen after it; the last token chosen is never read and has no frame. The
    run works on a view of the model of its own (``model.with_loop()``): several runs may share one model's weights, in
    several threads. Nothing is left behind when the iterator ends, is closed or is dropped.

    Args:
        model: a LoopLlama; later changes of its loop settings do not reach this run.
        tokenizer: of the model, a transformers tokenizer.
        prompt: text; the model reads it in one pass.
        settings: default ``StreamSettings()``.
        stop: once set, the iterator ends, in the middle of a pass too; the last frame then has no ``finish``.
        steering: changes the run's loop between two passes, when asked; one for every run.
        shared: while other such runs of the same weights are being read, in other threads, decode in passes that all
            share (:mod:`loopviz.engine.batch`): numbers may then differ from those of the run alone by rounding.

    Raises:
        ValueError: at this call, not at the first frame: a model that is no LoopLlama, a prompt that is empty or longer
            than the context, a chat template that does not exist, a steering that another run has or whose changes the
            model refuses.
    """
    check_model(model)
    settings, steering = settings or StreamSettings(), steering or Steering()
    ids = encode_prompt(tokenizer, prompt, chat=settings.chat, context=context_length(model))
    steering.bind(model)
    view, stop = model.with_loop(), stop or threading.Event()
    return until(stop, _frames(view, tokenizer, ids, settings, steering, shared))


def check_model(model: Any) -> None:
    """ValueError unless ``model`` is a LoopLlama (or passes for one, as PEFT's wrapper does)."""
    if not hasattr(model, "with_loop"):
        raise ValueError(
            f"model={type(model).__name__}: no LoopLlama, so nothing can loop or be watched; load it with "
            "loopviz.model.checkpoints.load_checkpoint, or make one of it with as_loop_llama(model)"
        )


def context_length(model: LoopLlamaForCausalLM) -> int:
    """Tokens the model can read at most (``max_position_embeddings``)."""
    return model.config.max_position_embeddings


def _frames(
    view: LoopLlamaForCausalLM,
    tokenizer: Any,
    ids: list[int],
    settings: StreamSettings,
    steering: Steering,
    shared: bool,
) -> Generator[Frame, None, None]:
    run = Run(view, tokenizer, ids, settings, steering)
    with closing(run), room_of(view).entered(run) if shared else nullcontext() as room:
        tokens = ids
        while True:
            for frame in run.read(tokens) if room is None else room.read(run, tokens):
                yield frame
            if frame["finish"] is not None:
                return
            tokens = [frame["next_id"]]


class Run:
    """The state of one run between its tokens. Each step enters and leaves inference mode: it never leaks to a consumer."""

    def __init__(
        self,
        view: LoopLlamaForCausalLM,
        tokenizer: Any,
        ids: list[int],
        settings: StreamSettings,
        steering: Steering,
    ) -> None:
        from loopviz.model import LoopCache

        self.view, self.settings, self.steering = view, settings, steering
        self.context = context_length(view)
        self.prompt_tokens = len(ids)
        room = min(settings.max_new_tokens, self.context - len(ids) + 1)
        self.finish_at = len(ids) + room - 1  # tokens read after which the last token has been chosen
        self.sampler = Sampler(view, settings, torch.tensor([ids], device=view.device), room)
        self.pieces = Pieces(tokenizer)
        self.cache: LoopCache | None = LoopCache(view.config)
        self.meter = KVMeter(view)
        self.loop_blocks = view.config.loop_blocks()  # as they are now
        self.blocks = [len(block.layers) for block in self.loop_blocks]
        self.memory = MemoryMeter(view.device)
        self.began: float | None = None  # by the clock, when the first pass did
        self.read_tokens = 0
        self.piece = self.pieces.add(ids[0])  # of the next token to be read
        full, texts = settings.record == "full", TokenTexts(tokenizer)
        self.recorder = Recorder(view, settings.top_tokens, texts, full=full, extras=settings.extras)

    def close(self) -> None:
        """Remove the hook and let go of the cache."""
        self.recorder.close()
        self.cache = None

    def turn(self) -> Change | None:
        """Begin the next pass: the loop is set as was asked for; what was changed, to be noted when tokens have been read."""
        self.began = time.perf_counter() if self.began is None else self.began
        change = self.steering.take(self.read_tokens)
        if change is not None:
            self.view.set_loop(**change["loop"])
            self.loop_blocks = self.view.config.loop_blocks()
        return change

    def read(self, tokens: list[int]) -> Iterator[Frame]:
        """One forward pass over ``tokens``: their frames, the last with the token chosen after it."""
        return self.read_on(tokens, self.turn())

    def read_on(self, tokens: list[int], change: Change | None) -> Iterator[Frame]:
        """As :meth:`read`, when the pass has begun."""
        cache = self.cache
        assert cache is not None  # it goes with close(), and nobody reads on then
        with torch.inference_mode():
            self.recorder.begin()
            ids = torch.tensor([tokens], device=self.view.device)  # [1, T]
            out = self.view.model(input_ids=ids, past_key_values=cache, use_cache=True)
            clock = self.clock()
            readings = self.recorder.read(out.last_hidden_state, cache, clock.head)
        kv, same = self.passed(len(tokens), change)
        while True:
            with torch.inference_mode(), within_operations(len(tokens)):
                reading = next(readings, None)
                if reading is None:
                    return
                same.setdefault("pass_ms", clock.model_ms)
                following = tokens[reading.start + 1 : reading.stop + 1]
                if reading.stop == len(tokens):
                    with clock.head():
                        following = [*following, self.sampler.choose(reading.last_logits)]
                frames = self._frames(tokens, following, reading, kv, same)
                del reading  # its logits are the largest thing here: not kept while the consumer works
            parts = clock.parts()
            wall_ms = self.wall_ms()
            for frame in frames:
                frame["wall_ms"], frame["parts"] = wall_ms, parts.copy()
            yield from frames
            clock.resume()

    def wall_ms(self) -> float:
        """Since the first pass began."""
        return 1000 * (time.perf_counter() - (self.began or 0.0))

    def clock(self) -> PassClock:
        """Of the pass that has just been made."""
        seconds = self.view.last_pass.seconds
        assert seconds is not None
        return PassClock(seconds)

    def passed(self, n_tokens: int, change: Change | None) -> tuple[list[KVFrame], dict[str, Any]]:
        """A pass over so many tokens has been made: what it left in the cache, and what all its frames share."""
        cache, report = self.cache, self.view.last_pass
        assert cache is not None
        if change is not None:  # now that tokens have been read under it
            self.steering.changes.append(change)
        runs = [(layers, int(report.layer_runs(i, layers)[0])) for i, layers in enumerate(self.blocks)]
        kv = self.meter.frames(cache.occupancy(), n_tokens, runs)
        return kv, {"pass_tokens": n_tokens, "memory": self.memory.read()}

    def one_frame(self, token: int, reading: SharedReading, change: Change | None, clock: PassClock) -> Frame:
        """The frame of a token that was read in a pass which others shared; the reading has been measured."""
        kv, same = self.passed(1, change)
        [frame] = self._frames([token], [reading.next_id], reading, kv, {**same, "pass_ms": clock.model_ms})
        frame["wall_ms"], frame["parts"] = self.wall_ms(), clock.parts()
        return frame

    def _frames(
        self, tokens: list[int], following: list[int], reading: Reading, kv: list[KVFrame], same: dict[str, Any]
    ) -> list[Frame]:
        """Frames of a reading's tokens but for their ``wall_ms`` and ``parts``; ``same`` is what all frames of the pass share."""
        chosen = torch.tensor(following, dtype=torch.long, device=self.view.device)  # [C]
        blocks, logprobs, likeliest = reading.blocks(chosen), reading.next_logprobs(chosen), reading.next_topk()
        frames: list[Frame] = []
        for c, next_id in enumerate(following):
            piece, self.piece = self.piece, self.pieces.add(next_id)
            frames.append(
                {
                    "version": SCHEMA_VERSION,
                    "index": self.read_tokens,
                    "phase": "prompt" if self.read_tokens < self.prompt_tokens else "generated",
                    "token_id": tokens[reading.start + c],
                    "text": piece,
                    "next_id": next_id,
                    "next_text": self.piece,
                    "next_logprob": logprobs[c],
                    **likeliest[c],  # type: ignore[typeddict-item]  # the keys are NEXT_LISTS
                    **same,
                    "memory": same["memory"].copy(),
                    "blocks": blocks[c],
                    "kv": kv[reading.start + c],
                    "finish": None,
                }
            )
            self.read_tokens += 1
        if reading.stop == len(tokens):
            frames[-1]["finish"] = self._finish(following[-1])
        return frames

    def _finish(self, chosen: int) -> Literal["eos", "length", "context"] | None:
        if chosen in self.sampler.eos:
            return "eos"
        if self.read_tokens < self.finish_at:
            return None
        return "length" if self.read_tokens - self.prompt_tokens + 1 == self.settings.max_new_tokens else "context"


def run_meta(
    model: LoopLlamaForCausalLM,
    tokenizer: Any,
    prompt: str,
    settings: StreamSettings | None = None,
    *,
    model_name: str | None = None,
    steering: Steering | None = None,
) -> dict[str, Any]:
    """The Meta of the run that ``stream`` with the same arguments makes; raises as it does.

    The model is called ``model_name``, or what it was loaded as, without the folder it lies in. With ``steering`` it has ``changes``: that steering's own list, which grows as the run's loop is changed.
    """
    check_model(model)
    settings = settings or StreamSettings()
    config = model.config
    ids = encode_prompt(tokenizer, prompt, chat=settings.chat, context=context_length(model))
    return {
        "version": SCHEMA_VERSION,
        "model": model_name or shown_name(getattr(config, "_name_or_path", "")) or type(model).__name__,
        "prompt": prompt,
        "prompt_tokens": len(ids),
        "top_k": min(settings.top_tokens, config.vocab_size),
        "shape": {
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "itemsize": model.dtype.itemsize,
            "vocab": config.vocab_size,
        },
        "loop": config.loop_fields(),
        "blocks": block_metas(config),
        "settings": settings.to_dict(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "loopviz": version(),
            "torch": torch.__version__,
            "transformers": metadata.version("transformers"),
        },
        **({} if steering is None else {"changes": steering.changes}),
    }


def run(
    model: LoopLlamaForCausalLM,
    tokenizer: Any,
    prompt: str,
    settings: StreamSettings | None = None,
    *,
    stop: threading.Event | None = None,
    model_name: str | None = None,
    on_frame: Callable[[Frame], Any] | None = None,
    steering: Steering | None = None,
) -> Trace:
    """The whole Trace of a prompt; ``on_frame`` is called with each frame as it comes. Raises as ``stream`` does."""
    frames = stream(model, tokenizer, prompt, settings, stop, steering)
    trace = Trace(run_meta(model, tokenizer, prompt, settings, model_name=model_name, steering=steering))
    for frame in frames:
        trace.append(frame)
        if on_frame is not None:
            on_frame(frame)
    return trace
