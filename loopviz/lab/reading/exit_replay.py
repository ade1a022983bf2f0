"""Exit policies replayed on one run at the most loops: what each would have stopped at, saved and changed.

A run at the most loops N is reduced, as it happens, to a few numbers a token and step (:class:`ExitRun`). A policy is then
a rule on these numbers, and any number of thresholds costs nothing more.

What a replay can know. A decision is made at a *unit*: a whole pass, or a token that is read alone.

* ``unit="pass"`` (one full pass a window): the state after step r does not depend on whether later steps follow, and all
  tokens of the pass stop together. Replay is then exactly what running with that threshold does, in every cache mode.
* ``unit="token"`` (token by token through the cache): each token's replay is exact given that the tokens before it ran N
  steps, whose keys and values it reads. A run that stops early at *every* token leaves other keys and values behind: it
  agrees exactly only where these do not depend on the step a token stopped at (a merge that keeps step 1, and no layers
  after the block). Elsewhere the two differ; :func:`real_run` measures by how much.

An exit gate, as published, chooses among states that all have run, token by token: which steps it chooses is replayed exactly in
both, and so is what that costs where no layers follow the block (those would see the states chosen for the other tokens).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from loopviz.checks import FieldError, Term, check_one_of
from loopviz.model.exit_gate import exit_pdf
from loopviz.model.exit_lens import normed_states
from loopviz.model.interrupt import check
from loopviz.model.published_criteria import FIRST_ENTROPY, LEAST, MIN_P
from loopviz.trace import metrics

if TYPE_CHECKING:
    from loopviz.model import LoopBlock, LoopLlamaForCausalLM, LoopStep

UNITS = ("pass", "token")
PUBLISHED_SETTING, STABILITY = "criterion_threshold", "huginn_argmax_stability"
MAX_LOGITS = 2**23  # numbers of a lens held at once: 32 MiB of float32


@dataclass(frozen=True)
class Policy:
    """A rule that stops a loop.

    Attributes:
        score: the column of :attr:`ExitRun.scores` it watches, averaged over the unit's tokens.
        above: it holds at a score >= the threshold; otherwise at one <= the threshold.
        hits: steps in a row at which it must hold. 0: the threshold itself is that number, and the score must be 1.
        setting: the loop field that holds its threshold, where the model has one.
        alone: every token decides for itself, from the first step on, whatever its unit and the floor.
        last: the unit's last token decides, not the mean.
        strict: the score must be below the threshold (or above), not at it.
    """

    score: str
    above: bool = False
    hits: int = 1
    setting: str | None = None
    alone: bool = False
    last: bool = False
    strict: bool = False


POLICIES: dict[str, Policy] = {
    "count": Policy("count"),  # no rule: a fixed number of steps, to compare with
    "cosine": Policy("cosine", above=True, setting="cosine_threshold"),
    "kl": Policy("kl", setting="kl_threshold"),
    "rel_delta": Policy("rel_delta"),
    "acceleration": Policy("acceleration", hits=2),
    "argmax": Policy("argmax", above=True, hits=0),
    "entropy": Policy("entropy"),
    "gate": Policy("gate", above=True, setting="exit_threshold", alone=True),  # of models that have one
    # as Huginn's authors published them (loopviz.model.published_criteria)
    "huginn_latent_diff": Policy("rel_delta", strict=True, setting=PUBLISHED_SETTING),
    "huginn_cosine": Policy("turn", strict=True, setting=PUBLISHED_SETTING),
    **{
        name: Policy(name, above=name == STABILITY, strict=name != STABILITY, setting=PUBLISHED_SETTING, last=True)
        for name in ("huginn_kl", "huginn_minp_kl", "huginn_entropy_diff", STABILITY)
    },
}


@dataclass(frozen=True)
class ExitRun:
    """A run at the most loops, M tokens long, N steps deep. Column ``r - 1`` of an array is step r.

    Attributes:
        unit: ``[M]`` int64, which decision each token belongs to, numbered from 0 without gaps.
        scores: name to ``[M, N]`` float64, undefined = NaN:
            ``cosine`` cos(s_r, s_{r-1}); ``kl`` KL(p_{r-1} || p_r), nats; ``rel_delta`` |Δ_r| / |s_r|, Δ_r = s_r - s_{r-1};
            ``acceleration`` |Δ_r - Δ_{r-1}| / |s_r|, from step 2 on; ``argmax`` 1 where the most likely token of p_r is
            that of p_{r-1}, else 0; ``entropy`` |H(p_r) - H(p_{r-1})|, nats. p_r is the direct lens of s_r, as in the
            model's own criteria. ``gate``, of a model that has one: how likely its exit gate is to have stopped by step r.
            ``turn`` 1 - cos(s_r, s_{r-1}), and what the rules ``huginn_*`` watch of exit_r, where that was asked for.
        kl_paid: ``[M, N]`` float64, KL(p_N || exit_r), nats: exit_r is what the model says when it stops after r
            (s_r through the real last layers), p_N what it says after all steps.
        same: ``[M, N]`` bool, the most likely token of exit_r is that of p_N.
    """

    unit: np.ndarray
    scores: dict[str, np.ndarray]
    kl_paid: np.ndarray
    same: np.ndarray

    def __post_init__(self) -> None:
        shape = self.kl_paid.shape
        for name, array in {**self.scores, "same": self.same}.items():
            if array.shape != shape:
                raise ValueError(f"{name}: shape {array.shape}, but kl_paid has {shape}; both are [tokens, steps]")
        if self.unit.shape != shape[:1]:
            raise ValueError(f"unit: shape {self.unit.shape}, but there are {shape[0]} tokens")

    @property
    def steps(self) -> int:
        """N."""
        return self.kl_paid.shape[1]

    @staticmethod
    def join(parts: Iterable[ExitRun]) -> ExitRun:
        """Several runs as one; their units stay apart.

        Raises:
            ValueError: none given.
        """
        parts = list(parts)
        if not parts:
            raise ValueError("no run to join: nothing was recorded")
        first = np.cumsum([0, *(int(part.unit.max()) + 1 for part in parts)])
        return ExitRun(
            np.concatenate([part.unit + start for part, start in zip(parts, first, strict=False)]),
            {name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores},
            np.concatenate([part.kl_paid for part in parts]),
            np.concatenate([part.same for part in parts]),
        )


# -- replay ------------------------------------------------------------------------------------------------------------


def exit_steps(run: ExitRun, policy: str, threshold: float, floor: int = 1) -> np.ndarray:
    """The step each token stops after, ``[M]`` int64 in 1..N; tokens of one unit stop together.

    Steps below the floor count as hits but do not stop, as for a criterion the model knows.

    Args:
        policy: of :data:`POLICIES`.
        threshold: see :class:`Policy`.
        floor: the first step that may stop.

    Raises:
        ValueError: an unknown policy, or one that watches what this run does not hold.
    """
    known = ("count", *(name for name, rule in POLICIES.items() if rule.score in run.scores))
    check_one_of("policy", policy, known, quoted=False)
    N = run.steps
    if policy == "count":
        return np.full(len(run.unit), min(int(threshold), N))
    rule = POLICIES[policy]
    unit, floor = (np.arange(len(run.unit)), 1) if rule.alone else (run.unit, floor)
    score = run.scores[rule.score]
    score = score[_last_of(unit)] if rule.last else unit_means(score, unit)  # [U, N]
    limit, hits = (threshold, rule.hits) if rule.hits else (1.0, int(threshold))
    holds = score >= limit if rule.above else score < limit if rule.strict else score <= limit  # a NaN does not hold
    row = np.zeros(len(score), dtype=np.int64)  # steps in a row at which it held
    stop = np.full(len(score), N)
    for r in range(1, N + 1):
        row = np.where(holds[:, r - 1], row + 1, 0)
        if r >= floor:
            stop = np.where((row >= hits) & (stop == N), r, stop)
    return stop[unit]


def _last_of(unit: np.ndarray) -> np.ndarray:
    """The last token of each unit, ``[U]``."""
    last = np.zeros(int(unit.max()) + 1, dtype=np.int64)
    last[unit] = np.arange(len(unit))  # a later one takes the place of one before
    return last


def unit_means(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Mean of ``values`` ``[M, N]`` over each unit's tokens, ``[U, N]``."""
    sums = np.zeros((int(unit.max()) + 1, values.shape[1]))
    np.add.at(sums, unit, values)
    return sums / np.bincount(unit)[:, None]


def outcome(run: ExitRun, stop: np.ndarray) -> dict[str, float]:
    """What stopping after ``stop`` ``[M]`` steps saves and costs: means over tokens, KL in nats."""
    at = (np.arange(len(stop)), stop - 1)
    return {
        "mean_loops": float(stop.mean()),
        "saved": float(1 - stop.mean() / run.steps),
        "changed": float((~run.same[at]).mean()),
        "kl_mean": float(run.kl_paid[at].mean()),
        "kl_worst": float(run.kl_paid[at].max()),
    }


def pareto(saved: Iterable[float], paid: Iterable[float]) -> list[bool]:
    """Which points no other point beats: none saves as much and pays less, or saves more and pays as little."""
    points = list(zip(saved, paid, strict=True))
    return [not any(s >= x and p <= y and (s > x or p < y) for s, p in points) for x, y in points]


# -- recording ---------------------------------------------------------------------------------------------------------


def max_loop_view(
    model: LoopLlamaForCausalLM, loop: dict[str, Any], steps: int, what: str = "exit_replayed"
) -> LoopLlamaForCausalLM:
    """A view of the model that always runs ``steps`` loop steps.

    Args:
        what: can be done with it, a key of :data:`loopviz.checks.TERMS`, for the refusal.

    Raises:
        ValueError: not exactly one looped block: with several, stopping one changes what the next is given. A chooser of
            layers, which may end a row before ``steps``.
    """
    view = model.with_loop(**{**loop, "loop_strategy": "fixed_count", "loop_count": steps, "max_loop_count": steps})
    blocks = view.config.loop_blocks()
    if len(blocks) != 1:
        layers, rule = view.config.loop_layers, "several_blocks" if blocks else "no_block"
        raise FieldError("loop_layers", layers, rule, what=Term((what,)), n=len(blocks))
    if blocks[0].chosen:
        raise FieldError("layer_chooser", blocks[0].chooser, "chooser_of_layers", what=Term((what,)))
    if blocks[0].exit_selection != "last":
        raise FieldError("exit_selection", blocks[0].exit_selection, "gate_reads_out", what=Term((what,)))
    return view


def record(
    view: LoopLlamaForCausalLM, ids: Tensor, unit: str, keep: list[Tensor] | None = None, published: bool = False
) -> Iterator[ExitRun]:
    """Run windows at the most loops and reduce what happens.

    Args:
        view: from :func:`max_loop_view`; its own object, hooks are set on it.
        ids: ``[B, T]`` int64, no padding; each row starts a text of its own.
        unit: ``"pass"``: one full pass, each row one unit. ``"token"``: token by token through the cache, each token one.
        keep: the model's own log-probabilities are appended to it, pass by pass: ``[B, T or 1, vocab]``.
        published: what the rules ``huginn_*`` watch, too.

    Yields:
        The run of each pass; all B rows of a token together.
    """
    for states, cache in passes(view, ids, unit):
        yield _reduce(view, states, cache, unit, keep, published)


@torch.no_grad()
def passes(view: LoopLlamaForCausalLM, ids: Tensor, unit: str) -> Iterator[tuple[Tensor, Any]]:
    """The states s_0..s_N of each pass, ``[N + 1, B, T or 1, H]``, and the cache after it (None for full passes)."""
    from loopviz.model import LoopCache

    events: list[LoopStep] = []
    handle = view.register_loop_hook(events.append)
    cache = LoopCache(view.config) if unit == "token" else None
    try:
        for part in ids.split(1, dim=1) if unit == "token" else (ids,):
            events.clear()
            view.model(input_ids=part, past_key_values=cache, use_cache=cache is not None)
            yield torch.stack([events[0].previous, *(event.state for event in events)]), cache
    finally:
        handle.remove()


@torch.no_grad()
def _reduce(
    view: LoopLlamaForCausalLM, states: Tensor, cache: Any, unit: str, keep: list[Tensor] | None, published: bool
) -> ExitRun:
    """The numbers of one pass from its states ``[N + 1, B, T, H]``."""
    N, B, T = states.shape[0] - 1, *states.shape[1:3]
    exits = torch.cat([view.exit_states(part, cache) for part in states[1:].split(1 if T > 1 else N)])  # [N, B, T, H]
    flat, exits = states.flatten(1, 2), exits.flatten(1, 2)  # [N + 1, B * T, H], [N, B * T, H]
    parts = []
    own = []
    chunk = max(1, MAX_LOGITS // (view.config.vocab_size * (2 * N + 1)))
    for start in range(0, B * T, chunk):
        check()
        some = slice(start, start + chunk)
        direct = normed_states(view.model, view.config.loop_blocks(), 0, flat[:, some])
        lens = metrics.log_probs(view.lm_head(direct))  # [N + 1, C, V]
        said = metrics.log_probs(view.lm_head(exits[:, some]))  # [N, C, V]
        parts.append({**_lens_scores(lens), **_paid(said), **(_published_scores(said) if published else {})})
        if keep is not None:
            own.append(said[-1])
    if keep is not None:
        keep.append(torch.cat(own).unflatten(0, (B, T)))
    found = {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]} | _state_scores(flat)
    found |= _gate_scores(view, flat)
    found |= {"turn": 1 - found["cosine"]} if published else {}
    arrays = {name: value.transpose(0, 1).double().cpu().numpy() for name, value in found.items()}  # [B * T, N]
    paid, same = arrays.pop("kl_paid"), arrays.pop("same").astype(bool)
    numbers = np.arange(B).repeat(T) if unit == "pass" else np.arange(B * T)
    return ExitRun(numbers, arrays, paid, same)


def _state_scores(states: Tensor) -> dict[str, Tensor]:
    """Scores ``[N, M]`` of states ``[N + 1, M, H]``."""
    new, old = states[1:], states[:-1]
    delta = metrics.wide(new) - metrics.wide(old)
    turn = metrics.norm(delta[1:] - delta[:-1]) / metrics.norm(new[1:])  # [N - 1, M]
    return {
        # The model's own function, so that a threshold met here is met there.
        "cosine": F.cosine_similarity(new, old, dim=-1),
        "rel_delta": metrics.rel_delta(new, old),
        "acceleration": torch.cat((torch.full_like(turn[:1], torch.nan), turn)) if len(turn) else _undefined(new),
    }


def _gate_scores(view: LoopLlamaForCausalLM, states: Tensor) -> dict[str, Tensor]:
    """What an exit gate comes to by each step, ``[N, M]``, of states ``[N + 1, M, H]``; nothing for a model without one."""
    gate = view.model.gate_of(0)
    if gate is None:
        return {}
    normed = normed_states(view.model, view.config.loop_blocks(), 0, states)[1:]
    gate = gate.to(normed.device, normed.dtype)
    rates = torch.sigmoid(metrics.wide(gate(normed))).transpose(1, 2)  # [N, 1, M]
    return {"gate": exit_pdf(rates, torch.tensor([len(rates)], device=rates.device)).cumsum(0)[:, 0]}


def _undefined(new: Tensor) -> Tensor:
    return torch.full(new.shape[:2], torch.nan)


def _lens_scores(log_p: Tensor) -> dict[str, Tensor]:
    """Scores ``[N, C]`` of log-probabilities ``[N + 1, C, V]`` of the direct lens."""
    best, entropy = log_p.argmax(-1), metrics.entropy(log_p)
    return {
        "kl": metrics.kl(log_p[:-1], log_p[1:]),
        "argmax": best[1:] == best[:-1],
        "entropy": (entropy[1:] - entropy[:-1]).abs(),
    }


def _published_scores(said: Tensor) -> dict[str, Tensor]:
    """What Huginn's rules watch, ``[N, C]``, of log-probabilities ``[N, C, V]`` of the exit lens: the same steps as the model's own
    (:mod:`loopviz.model.published_criteria`), each token as if it were the last."""
    p = said.exp()
    cut = torch.where(p < MIN_P * p.max(-1, keepdim=True).values, 1 / p.shape[-1], p)
    uniform = torch.full_like(said[:1], -math.log(said.shape[-1]))
    found = {}
    for name, log_q in (("huginn_kl", said), ("huginn_minp_kl", (cut / cut.sum(-1, keepdim=True)).log())):
        before = torch.cat((uniform, log_q[:-1]))
        found[name] = (before.exp() * (before - log_q)).sum(-1)
    entropy = -(p * (p + LEAST).log()).sum(-1)
    found["huginn_entropy_diff"] = (
        entropy - torch.cat((torch.full_like(entropy[:1], FIRST_ENTROPY), entropy[:-1]))
    ).abs()
    best = said.argmax(-1)
    stable = [torch.zeros_like(best[0])]
    for r in range(1, len(best)):
        stable.append(torch.where(best[r] == best[r - 1], stable[-1] + 1, 0))
    return {**found, STABILITY: torch.stack(stable)}


def _paid(said: Tensor) -> dict[str, Tensor]:
    """What stopping at each step costs, ``[N, C]``, from log-probabilities ``[N, C, V]`` of the exit lens."""
    best = said.argmax(-1)
    return {"kl_paid": metrics.kl(said[-1:], said), "same": best == best[-1:]}


# -- really running ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RealRun:
    """A run that really stopped: ``loops`` ``[M]`` int64, ``changed`` ``[M]`` bool, ``kl_paid`` ``[M]`` nats."""

    loops: np.ndarray
    changed: np.ndarray
    kl_paid: np.ndarray

    @staticmethod
    def join(parts: Iterable[RealRun]) -> RealRun:
        """Several runs as one."""
        columns = zip(*((part.loops, part.changed, part.kl_paid) for part in parts), strict=True)
        return RealRun(*map(np.concatenate, columns))


@torch.no_grad()
def real_run(view: LoopLlamaForCausalLM, ids: Tensor, unit: str, own: list[Tensor]) -> RealRun:
    """Run windows with a view that stops by itself, every token, and hold it against the run at the most loops.

    Args:
        view: its own object, with :func:`settings_of` a point.
        ids, unit: as for :func:`record`.
        own: what that kept of the same windows.

    Returns:
        Tokens in the order of :func:`record`.
    """
    from loopviz.model import LoopCache

    cache = LoopCache(view.config) if unit == "token" else None
    parts = []
    for tokens, before in zip(ids.split(1, dim=1) if unit == "token" else (ids,), own, strict=True):
        hidden = view.model(input_ids=tokens, past_key_values=cache, use_cache=cache is not None).last_hidden_state
        report = view.last_pass
        gate = report.exits[0]
        loops = (
            report.steps[0].repeat_interleave(tokens.shape[1]) if gate is None else _made(gate.steps).flatten()
        )  # [B * T]
        kl, same = [], []
        chunk = max(1, MAX_LOGITS // (2 * view.config.vocab_size))
        for rows, log_p in zip(hidden.flatten(0, 1).split(chunk), before.flatten(0, 1).split(chunk), strict=True):
            check()
            log_q = metrics.log_probs(view.lm_head(rows))
            kl.append(metrics.kl(log_p, log_q))
            same.append(log_p.argmax(-1) == log_q.argmax(-1))
        parts.append(RealRun(loops.cpu().numpy(), ~torch.cat(same).cpu().numpy(), torch.cat(kl).double().cpu().numpy()))
    return RealRun.join(parts)


def _made(steps: Tensor | None) -> Tensor:
    """Steps of a gate that chooses one."""
    assert steps is not None
    return steps


def own_floor(view: LoopLlamaForCausalLM) -> int:
    """The first step at which a view from :func:`max_loop_view` may stop when it stops by itself.

    Its ``min_loop_count``, or the number of KV slots a layer owns where that is more: each must be written in every pass.
    """
    block: LoopBlock = view.config.loop_blocks()[0]
    return min(max(block.floor, block.slots), block.count)


def settings_of(policy: str, threshold: float, floor: int, steps: int) -> dict[str, Any] | None:
    """The loop fields that make a model stop by a point of the bench; None where the model has no such setting.

    Args:
        policy, threshold, floor: as for :func:`exit_steps`.
        steps: N of the run it was replayed on.
    """
    if policy == "count":
        return {"loop_strategy": "fixed_count", "loop_count": int(threshold), "max_loop_count": steps}
    field = POLICIES[policy].setting
    if field is None:
        return None
    if policy == "gate":
        all_of_them = {"loop_strategy": "fixed_count", "loop_count": steps, "max_loop_count": steps}
        return {**all_of_them, "exit_selection": "gate", field: float(threshold)}
    limits = {"min_loop_count": floor, "max_loop_count": steps}
    return {"loop_strategy": "dynamic_stop", "convergence_criterion": policy, field: float(threshold), **limits}
