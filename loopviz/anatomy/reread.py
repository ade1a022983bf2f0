"""A finished run's tokens read again as the run read them, so that any of them can be probed; and whether it was the run's.

The prompt is one pass, every later token one of its own, each under the loop settings that held then (changes of a run
included): in a cache mode that keeps several slots, or under a criterion that asks a whole pass, nothing less gives the run's
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from loopviz.anatomy.probe import Probed, check_normed_alone, probe
from loopviz.model import LoopCache, LoopLlamaForCausalLM
from loopviz.model.step_adapters import check_one_model
from loopviz.trace import Trace
from loopviz.trace.packed import clipped, decode_states

HALF = 2.0**-11  # float16 keeps a number to this share of itself
LEAST_HALF = 2.0**-25  # and below 2^-14 to this
ROUNDING = 1.1  # of these units: its own rounding, and a little of the model's
NORMS = 1e-3  # of a norm, which is recorded wider
LOGPROB, LOGPROB_HALF = 1e-2, 0.1  # nats that rounding may make of a log-probability; in float16 and bfloat16


@dataclass(frozen=True)
class Agreement:
    """How far a probed token is from the record of the run.

    Attributes:
        steps: whether each block ran as many steps, and stopped for the same reason.
        states: the largest difference of a recorded state's number, in units of what float16, in which it is recorded, keeps
            of it: up to 1 is rounding alone. None: no state is recorded.
        norm: the largest relative difference of a state's norm; None: not recorded.
        logprob: difference of the chosen token's log-probability, nats; None: not recorded.
        bound: of `logprob`, what rounding may make of it.
    """

    steps: bool
    states: float | None
    norm: float | None
    logprob: float | None
    bound: float = LOGPROB

    @property
    def compared(self) -> bool:
        """Whether the run recorded any number to compare with: of a prompt's token it may have none."""
        return not (self.states is None and self.norm is None and self.logprob is None)

    @property
    def is_the_runs(self) -> bool:
        """Whether what was read is what the run recorded, to rounding; not said where no number was recorded."""
        close = self.states is None or self.states <= ROUNDING
        long = self.norm is None or self.norm < NORMS
        likely = self.logprob is None or self.logprob < self.bound
        return self.compared and self.steps and close and long and likely

    @property
    def differs(self) -> bool:
        """Whether what was read is not what the run recorded; not said either where no number was recorded."""
        return not self.is_the_runs and (self.compared or not self.steps)


class Reread:
    """The tokens of a run, read again up to where somebody asks.

    Args:
        model: the one that made the run; never changed.
        trace: the run.

    Raises:
        ValueError: a run that this model cannot have made (its sizes differ), settings that it refuses, or a run that was
            stopped before all of its prompt was recorded: which tokens its first pass read is not known then; one whose loop
            settings do not give the blocks that it recorded, by which its memory is reckoned.
    """

    def __init__(self, model: LoopLlamaForCausalLM, trace: Trace) -> None:
        check_same_model(model, trace)
        if len(trace) < trace.meta["prompt_tokens"]:
            raise ValueError(
                f"run of {len(trace)} tokens: must hold all {trace.meta['prompt_tokens']} of its prompt, which one pass "
                "reads together; run it again without stopping it there"
            )
        check_recorded_blocks(model, trace)
        check_readable(model)
        self._model, self._trace = model, trace
        self._begin()

    def _begin(self) -> None:
        self._view = self._model.with_loop(**self._trace.meta["loop"])
        self._cache = LoopCache(self._view.config)
        self._read = 0  # tokens in the cache
        self._changes = list(self._trace.meta.get("changes", ()))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values of what has been read."""
        return self._cache.occupancy().bytes_allocated

    def probe(self, position: int) -> Probed:
        """Everything of one token. What comes before it is read first, as far as it has not been.

        Raises:
            ValueError: a position outside the run.
            Interrupted: under :func:`loopviz.model.interruptible`; what was read so far stays read.
        """
        if not 0 <= position < len(self._trace):
            raise ValueError(f"position={position}: must be one of the run's tokens, 0 to {len(self._trace) - 1}")
        first, last = self._pass_of(position)
        if first < self._read:
            self._go_back(first)
        while self._read < first:
            self._next_pass(None)
        probed = self._next_pass(position - first)
        assert probed is not None
        assert self._read == last
        return probed

    def _pass_of(self, position: int) -> tuple[int, int]:
        """The tokens, first to before last, of the pass that read one."""
        prompt = self._trace.meta["prompt_tokens"]
        return (0, prompt) if position < prompt else (position, position + 1)

    def _go_back(self, first: int) -> None:
        """Forget all tokens from `first` on."""
        changes = self._trace.meta.get("changes", ())
        made = changes[: len(changes) - len(self._changes)]  # also for a pass that was then interrupted
        changed = any(first <= change["index"] for change in made)
        if first == 0 or changed:  # a change may open slots over what was read before: that is not taken back
            self._begin()
        else:
            self._cache.crop(first - self._read)
            self._read = first

    @torch.no_grad()
    def _next_pass(self, row: int | None) -> Probed | None:
        """Read the next pass's tokens; with a row, probe that one."""
        first, last = self._pass_of(self._read)
        while self._changes and self._changes[0]["index"] <= first:
            self._view.set_loop(**self._changes.pop(0)["loop"])
        ids = torch.tensor([[frame["token_id"] for frame in self._trace.frames[first:last]]], device=self._view.device)
        if row is None:
            self._view.model(input_ids=ids, past_key_values=self._cache, use_cache=True)
            probed = None
        else:
            probed = probe(self._view, self._cache, ids, row)
        self._read = last
        return probed

    def agreement(self, probed: Probed) -> Agreement:
        """How a probed token compares with what the run recorded of it."""
        frame = self._trace.frames[probed.position]
        blocks, ran = frame["blocks"], _steps_by_block(probed, len(frame["blocks"]))
        same = [len(states) - 1 for states in ran] == [block["n_steps"] for block in blocks] and probed.reasons == [
            block["stop_reason"] for block in blocks
        ]
        states, norms = [], []
        if same:
            for mine, block in zip(ran, blocks, strict=True):
                states += list(_state_differences(mine, block))
                norms += list(_norm_differences(mine, block))
        logprob = frame["next_logprob"]
        mine_logprob = float(probed.logits.double().log_softmax(-1)[frame["next_id"]])
        return Agreement(
            steps=same,
            states=max(states, default=None),
            norm=max(norms, default=None),
            logprob=None if logprob is None else abs(mine_logprob - logprob),
            bound=LOGPROB if probed.logits.dtype in (torch.float32, torch.float64) else LOGPROB_HALF,
        )


def check_same_model(model: LoopLlamaForCausalLM, trace: Trace) -> None:
    """ValueError where a model's sizes are not those of the model that made a run."""
    config, shape = model.config, trace.meta["shape"]
    own = {
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab": config.vocab_size,
    }
    for name, size in own.items():
        if shape[name] != size:
            raise ValueError(f"{name}={size}: the run was made by a model with {shape[name]}; load that one")


def check_readable(view: LoopLlamaForCausalLM) -> None:
    """FieldError where what a layer computes cannot be told stage by stage: weights of its own in every loop step, or a LoRA on what is
    normed."""
    check_one_model(view)
    check_normed_alone(view)


def check_recorded_blocks(model: LoopLlamaForCausalLM, trace: Trace) -> None:
    """ValueError unless a run's loop settings, and each change of them, give the blocks that stand beside them: a file may say
    of a small loop that it is recorded, and of a huge one that it is to be run."""
    meta = trace.meta
    view = model.with_loop(**meta["loop"])
    _check_blocks("meta", view, meta["blocks"])
    for i, change in enumerate(meta.get("changes", ())):
        view.set_loop(**change["loop"])
        _check_blocks(f"meta.changes[{i}]", view, change["blocks"])


def _check_blocks(where: str, view: LoopLlamaForCausalLM, recorded: Sequence[Mapping[str, Any]]) -> None:
    blocks = view.config.loop_blocks()
    if len(blocks) != len(recorded):
        raise ValueError(
            f"{where}.loop: loops {len(blocks)} blocks of layers, and {where}.blocks are {len(recorded)}; must agree"
        )
    for i, (block, told) in enumerate(zip(blocks, recorded, strict=True)):
        run = {"layers": [block.a, block.b], "max_steps": block.max_steps, "slots": block.slots}
        for name, value in run.items():
            if told[name] != value:
                raise ValueError(
                    f"{where}.loop: {name}={value} in block {i}, and {where}.blocks has {told[name]}; must agree: what the run "
                    "recorded is what is read again"
                )


def _steps_by_block(probed: Probed, n_blocks: int) -> list[np.ndarray]:
    """s_0..s_N of each block, `[N + 1, H]` float64; of a block that was skipped its entry is not known: no rows."""
    found = []
    for block in range(n_blocks):
        steps = [run for run in probed.steps if run.block == block]
        rows = [steps[0].previous, *(run.state for run in steps)] if steps else []
        found.append(np.stack([row.double().cpu().numpy() for row in rows]) if rows else np.empty((1, 0)))
    return found


def _state_differences(mine: np.ndarray, block: Mapping[str, Any]) -> Iterator[float]:
    if block["states"] is None or mine.shape[1] == 0:
        return
    recorded = decode_states(block["states"], mine.shape[1]).astype(np.float64)  # [N + 1, H]
    mine = clipped(mine)  # as it is recorded
    kept = np.maximum(HALF * np.abs(mine), LEAST_HALF)
    yield float(np.max(np.abs(mine - recorded) / kept))


def _norm_differences(mine: np.ndarray, block: Mapping[str, Any]) -> Iterator[float]:
    for state, norm in zip(mine[1:], block["steps"]["norm"], strict=False):
        if norm:
            yield abs(float(np.linalg.norm(state)) - norm) / norm


def memory(shape: Mapping[str, int], layer_runs: int, columns: int, intermediate: int) -> int:
    """Bytes that a probed token's tensors take at most.

    Args:
        shape: of the model, as a run's Meta has it.
        layer_runs: runs of a layer in the pass.
        columns: keys that attention can read at most, S.
        intermediate: F.
    """
    N, K, D, H = shape["heads"], shape["kv_heads"], shape["head_dim"], shape["hidden"]
    vectors = 9 * H + 5 * intermediate + (4 * N + 6 * K) * D  # with all norms that a layer may have, and keys of 8 bits
    return layer_runs * (shape["itemsize"] * (vectors + 2 * K * D * columns) + 4 * 2 * N * columns + columns)
