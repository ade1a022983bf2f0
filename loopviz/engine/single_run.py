"""One run between its tokens: its cache, sampler and recorder, and the Frames that a pass over some of its tokens comes to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch

from loopviz.engine.pieces import Pieces, TokenTexts
from loopviz.engine.sampling import Sampler, StreamSettings
from loopviz.engine.steering import Steering
from loopviz.engine.usage import MemoryMeter, PassClock
from loopviz.model.interrupt import within_operations
from loopviz.trace.recording.recorder import KVMeter, Reading, Recorder
from loopviz.trace.schema import SCHEMA_VERSION, Frame, KVFrame

if TYPE_CHECKING:
    from loopviz.model import LoopCache, LoopLlamaForCausalLM
    from loopviz.trace import Change
    from loopviz.trace.recording.together import SharedReading


def context_length(model: LoopLlamaForCausalLM) -> int:
    """Tokens the model can read at most (``max_position_embeddings``)."""
    return model.config.max_position_embeddings


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

    def may_share(self) -> bool:
        """Whether the run's next token may be read in a pass that others share."""
        from loopviz.model.shared_pass import sharable

        return self.read_tokens > 0 and sharable(self.view, self.loop_blocks)

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

    def passed(self, n_tokens: int, change: Change | None, runs: int = 1) -> tuple[list[KVFrame], dict[str, Any]]:
        """A pass over so many tokens has been made, shared by so many runs: what it left in the cache, and what all its frames share."""
        cache, report = self.cache, self.view.last_pass
        assert cache is not None
        if change is not None:  # now that tokens have been read under it
            self.steering.changes.append(change)
        layer_runs = [(layers, int(report.layer_runs(i, layers)[0])) for i, layers in enumerate(self.blocks)]
        kv = self.meter.frames(cache.occupancy(), n_tokens, layer_runs)
        return kv, {"pass_tokens": n_tokens, "pass_runs": runs, "memory": self.memory.read()}

    def one_frame(
        self, token: int, reading: SharedReading, change: Change | None, clock: PassClock, runs: int
    ) -> Frame:
        """The frame of a token that was read in a pass which `runs` runs shared; the reading has been measured."""
        kv, same = self.passed(1, change, runs)
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
