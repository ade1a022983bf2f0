"""One forward pass for rows of different runs: depth-wise continuous batching of decoding.

Every row is one new token of a run with a model object (`with_loop()`) and a `LoopCache` of its own: other loop settings, another
length, another number of steps. What decoding costs is reading the weights, so that is what rows share: projections, norms, MLP,
injections and lenses are computed for all rows that stand before the same layer at once, while each row's attention reads its own
cache. The rows that stand lowest go first; a row that has stopped looping waits behind its block for those that still loop, and no
longer takes part in their steps.

What a row is given is what its own pass would compute, but for the rounding of a product of several rows. What cannot be
shared (`sharable`): a pass of several tokens, a block whose layers are chosen (`layer_chooser`), `loop_start`, a model that is watched
(`watch_attention`), in training or under autograd, RoPE that is stretched by the length of the text, attention that is neither
"sdpa" nor "eager".
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .block import LoopBlock, starts_normed
from .cache import LoopCache, check_fits
from .criteria import CRITERIA, CriterionContext, RegisteredCriterion
from .events import LoopReport, PassSeconds
from .interrupt import check
from .lean_layers import LeanLayers, lean_layers, run_layer
from .modeling import _Pass
from .registry import comes_with_loopviz
from .row_attention import RowCaches, by_row
from .start_state import start_state

if TYPE_CHECKING:
    from .modeling import LoopLlamaForCausalLM, LoopLlamaModel

_STRETCHED = ("dynamic", "longrope")  # kinds of RoPE whose frequencies follow the longest text


def weights_of(view: LoopLlamaForCausalLM) -> nn.Module:
    """What all model objects on the same weights have in common: rows of one pass must have the same."""
    return view.model.layers


def sharable(view: LoopLlamaForCausalLM, blocks: Sequence[LoopBlock]) -> bool:
    """Whether passes of a run over a single new token can be shared with others; see the module's docstring.

    Args:
        view: its model object.
        blocks: of its configuration, resolved.
    """
    model = view.model
    return (
        model.loop_start is None
        and model._attention_watch is None
        and not view.training
        and model.config._attn_implementation in ("sdpa", "eager")
        and getattr(model.rotary_emb, "rope_type", "default") not in _STRETCHED
        and not any(block.chosen for block in blocks)
    )


@dataclass
class PassRow:
    """A run's part of a pass.

    Attributes:
        view: its model object; its hooks are called, and its `last_pass` is set, as by a pass of its own. Times there are of
            the shared work that the row took part in.
        cache: its cache, which holds tokens.
        token: the one that is read.
        resolved: its configuration's blocks, where the caller has them at hand: resolving them takes time.
    """

    view: LoopLlamaForCausalLM
    cache: LoopCache
    token: int
    resolved: list[LoopBlock] | None = None
    place: int = 0  # among the rows of the pass
    run: _Pass = field(init=False, repr=False)
    blocks: dict[int, LoopBlock] = field(init=False, repr=False)  # by first layer
    kept: list[Tensor] = field(default_factory=list, repr=False)  # of the running block, where a gate chooses
    memory: dict[str, Any] = field(default_factory=dict, repr=False)
    measured: dict[int, dict[str, Tensor]] = field(default_factory=dict, repr=False)
    seconds: dict[str, float] = field(default_factory=dict, repr=False)

    def begin(self, embeds: Tensor, layer_kwargs: dict[str, Any], lean: LeanLayers | None) -> None:
        """Start the row's pass; `embeds` `[1, 1, H]`."""
        model = self.view.model
        blocks = model.config.loop_blocks() if self.resolved is None else self.resolved
        model._check_modules(blocks)
        check_fits(self.cache, model.config, embeds)
        self.run = _Pass(blocks, self.cache, layer_kwargs, None, None, None, False, None, layer_kwargs["position_ids"])
        self.run.lean = lean
        self.blocks = {block.a: block for block in blocks}
        self.seconds = {"prelude": 0.0, "block": 0.0, "coda": 0.0}
        self.cache.begin_pass(blocks)

    def part(self) -> str:
        """Where in the pass the row stands outside of a loop: a plain layer between two blocks counts as theirs."""
        done = len(self.run.steps)
        return "prelude" if done == 0 else "coda" if done == len(self.run.blocks) else "block"

    def end(self) -> None:
        """Close the row's pass."""
        run = self.run
        self.cache.end_pass(1, 1, run.steps, run.reasons, run.layers_run)
        seconds = PassSeconds(hooks=run.hooks, **self.seconds)
        report = LoopReport(run.steps, run.reasons, seconds, run.layers_run, run.measured, run.exits)
        self.view.model.last_pass = report


@dataclass
class _Loop:
    """A block that rows run in step: they entered it together, and what they compute there is the same but for their caches."""

    entry: Tensor  # e, [b, 1, H]
    previous: Tensor  # s_{r-1}
    step: int = 1  # r
    seconds: float = 0.0  # of the running step
    given: Mapping[str, Any] = field(default_factory=dict)  # what pre-step hooks want its layers to be called with


@dataclass
class _Group:
    """Rows that stand before the same layer: state `[b, 1, H]`."""

    rows: list[PassRow]
    state: Tensor
    layer: int
    loop: _Loop | None = None

    def some(self, places: list[int], layer: int) -> _Group:
        """Those of its rows, before another layer, outside of the loop."""
        return _Group([self.rows[i] for i in places], _rows(self.state, places), layer)


class SharedPass:
    """Makes passes over rows of one model's weights.

    Args:
        view: any model object on them.
    """

    def __init__(self, view: LoopLlamaForCausalLM) -> None:
        self.model: LoopLlamaModel = view.model
        self.layers = [by_row(layer) for layer in self.model.layers]
        self.count = len(self.layers)

    @torch.inference_mode()
    def run(self, rows: Sequence[PassRow]) -> Tensor:
        """The rows' last hidden states after the final norm, `[B, 1, H]`.

        Raises:
            Interrupted: under `interruptible`, whose stop was set: of all rows at once.
            Exception: whatever a row's criterion, merge or hook raises. Every row's cache is then as before.
        """
        started = time.perf_counter()
        device = self.model.norm.weight.device
        embeds = self.model._embedded(torch.tensor([[row.token] for row in rows], device=device), None)
        positions = torch.tensor([[row.cache.get_seq_length()] for row in rows], device=device)  # [B, 1]
        self._angles = self.model.rotary_emb(embeds, position_ids=positions)
        self._positions = positions
        self._chosen: dict[tuple[int, ...], tuple[dict[str, Any], LeanLayers | None]] = {}
        begun: list[PassRow] = []
        try:
            for place, row in enumerate(rows):
                row.place = place
                row.begin(embeds[place : place + 1], *self._given([place], len(rows)))
                begun.append(row)
            _add(rows, "prelude", time.perf_counter() - started)
            hidden = self._through(_Group(list(rows), embeds, 0))
        except BaseException:
            for row in begun:
                row.cache.abort_pass()
            raise
        for row in rows:
            row.end()
        return hidden

    def _given(self, places: list[int], count: int) -> tuple[dict[str, Any], LeanLayers | None]:
        """What a layer is told of these rows' positions, and what runs it, where it is not called as a module."""
        key = tuple(places)
        known = self._chosen.get(key)
        if known is None:
            whole = key == tuple(range(count))
            cos, sin = self._angles if whole else (_rows(x, places) for x in self._angles)
            positions = self._positions if whole else _rows(self._positions, places)
            given = {"position_ids": positions, "position_embeddings": (cos, sin), "use_cache": True}
            known = given, lean_layers(self.model.training, positions, given)
            self._chosen[key] = known
        return known

    # -- depth by depth ------------------------------------------------------------------------------------------------

    def _through(self, everyone: _Group) -> Tensor:
        """Embeddings to the last hidden states, `[B, 1, H]`."""
        groups, ended, count = [everyone], [], len(everyone.rows)
        while groups:
            lowest = min(group.layer for group in groups)
            here = [group for group in groups if group.layer == lowest]
            groups = [group for group in groups if group.layer > lowest]
            outside = _merged([group for group in here if group.loop is None])
            here = [group for group in here if group.loop is not None]
            if outside is not None and lowest == self.count:
                ended.append(outside)
                continue
            if outside is not None:
                here += self._entering(outside)
            for alike in _given_the_same(here):
                self._run_layer(lowest, alike, count)
            for group in here:
                if group.loop is not None and lowest == group.rows[0].run.blocks[len(group.rows[0].run.steps)].b:
                    groups += self._end_step(group)
                else:
                    group.layer += 1
                    groups.append(group)
        return self._final_norm(ended)

    def _run_layer(self, index: int, groups: list[_Group], count: int) -> None:
        """A layer over all rows that stand before it; what pre-step hooks want it to be given is the same for all of them."""
        check()
        started = time.perf_counter()
        rows = [row for group in groups for row in group.rows]
        state = groups[0].state if len(groups) == 1 else torch.cat([group.state for group in groups])
        loop = groups[0].loop
        given, lean = self._given([row.place for row in rows], count)
        if loop is not None and loop.given:
            given, lean = {**given, **loop.given}, None
        state = run_layer(self.layers[index], state, None, RowCaches([row.cache for row in rows]), given, lean)
        parts = [state] if len(groups) == 1 else state.split([len(group.rows) for group in groups])
        for group, part in zip(groups, parts, strict=True):
            group.state = part
        took = time.perf_counter() - started
        for group in groups:
            if group.loop is not None:
                group.loop.seconds += took
                _add(group.rows, "block", took)
            else:
                for row in group.rows:
                    row.seconds[row.part()] += took

    def _final_norm(self, ended: list[_Group]) -> Tensor:
        """The final norm of rows that the end of a block has not normed; rows in the order they came in."""
        started = time.perf_counter()
        rows = [row for group in ended for row in group.rows]
        state = torch.cat([group.state for group in ended]) if len(ended) > 1 else ended[0].state
        order = sorted(range(len(rows)), key=lambda i: rows[i].place)
        rows, state = [rows[i] for i in order], _rows(state, order)
        if all(row.run.normed is None for row in rows):
            state = self.model.norm(state)
        else:
            parts = zip(rows, state.split(1), strict=True)
            state = torch.cat([self.model._final_norm(part, row.run) for row, part in parts])
        _add(rows, "coda", time.perf_counter() - started)
        return state

    # -- the loops -----------------------------------------------------------------------------------------------------

    def _entering(self, group: _Group) -> list[_Group]:
        """Rows outside of loops as they go on: those whose block begins here enter it, together where they can."""
        kinds: dict[Hashable, list[int]] = {}
        for i, row in enumerate(group.rows):
            block = row.blocks.get(group.layer)
            kinds.setdefault(None if block is None else (_kind(block, row.run.blocks), _pre_hooks(row)), []).append(i)
        if None in kinds and len(kinds) == 1:
            return [group]
        found = []
        for kind, places in kinds.items():
            some = group.some(places, group.layer)
            if kind is not None:
                started = time.perf_counter()
                block = some.rows[0].blocks[group.layer]
                positions = self._positions[[row.place for row in some.rows]]
                some.loop = _Loop(some.state, start_state(block, some.state, positions, False))
                for row in some.rows:
                    row.kept, row.memory, row.measured = [], {}, {}
                self._begin_step(some, started)
            found.append(some)
        return found

    def _begin_step(self, group: _Group, started: float) -> None:
        loop, index = group.loop, len(group.rows[0].run.steps)
        assert loop is not None
        for row in group.rows:
            row.cache.begin_step(row.run.blocks[index], loop.step, None)
        first = group.rows[0]
        block = first.run.blocks[index]
        if first.view.model._loop_pre_hooks:
            told, none = first.run.hooks, torch.zeros(len(group.rows), dtype=torch.bool, device=loop.previous.device)
            loop.given = first.view.model._ask_pre_hooks(block, loop.step, loop.previous, none, first.run)
            took = first.run.hooks - told
            started += took
            for row in group.rows[1:]:
                row.run.hooks += took
        group.state, group.layer = self.model._step_input(block, loop.previous, loop.entry), block.a
        loop.seconds = time.perf_counter() - started
        _add(group.rows, "block", loop.seconds)

    def _end_step(self, group: _Group) -> list[_Group]:
        """The group after a step of its loop: rows that loop on, and rows that left the block."""
        started = time.perf_counter()
        loop, index = group.loop, len(group.rows[0].run.steps)
        assert loop is not None
        blocks = [row.run.blocks[index] for row in group.rows]
        block, state, r = blocks[0], group.state, loop.step
        if block.damping != 1:
            state = loop.previous + block.damping * (state - loop.previous)
        group.state = state = self.model.norm(state) if block.norms_steps else state
        took = time.perf_counter() - started
        loop.seconds += took
        _add(group.rows, "block", took)
        self._tell(group, blocks)
        started = time.perf_counter()
        reasons = self._verdicts(group, blocks)
        for i, one in enumerate(blocks):
            if reasons[i] is None and r == one.max_steps:
                reasons[i] = "max" if one.dynamic else "count"
        going = [i for i, reason in enumerate(reasons) if reason is None]
        leaving = [i for i, reason in enumerate(reasons) if reason is not None]
        found = []
        if leaving:
            found.append(self._left(group, leaving, blocks, reasons))
        took = time.perf_counter() - started
        _add(group.rows, "block", took)  # before those that left are told apart by where they stand
        if going:
            started = time.perf_counter()
            entry = loop.entry if not leaving else _rows(loop.entry, going)
            rows = group.rows if not leaving else [group.rows[i] for i in going]
            more = _Group(rows, state, block.a, _Loop(entry, _rows(state, going) if leaving else state, r + 1))
            self._begin_step(more, started)
            found.append(more)
        return found

    def _tell(self, group: _Group, blocks: list[LoopBlock]) -> None:
        """Each row's states to its own hooks and to its gate."""
        loop = group.loop
        assert loop is not None
        before, after = loop.previous.split(1), group.state.split(1)
        frozen: Tensor | None = None
        for row, block, previous, state in zip(group.rows, blocks, before, after, strict=True):
            if block.exit_selection != "last":
                row.kept.append(state)
            model = row.view.model
            if model._loop_hooks:
                frozen = torch.zeros(1, dtype=torch.bool, device=state.device) if frozen is None else frozen
                kv, run = row.cache, row.run
                model._tell_hooks(block, loop.step, previous, state, frozen, kv, run, loop.seconds, None)

    def _left(self, group: _Group, places: list[int], blocks: list[LoopBlock], reasons: list[str | None]) -> _Group:
        """Rows whose loop is over, behind their block."""
        loop = group.loop
        assert loop is not None
        left = group.some(places, blocks[0].b + 1)
        states = list(left.state.split(1))
        changed = False
        for j, i in enumerate(places):
            row, block, run = group.rows[i], blocks[i], group.rows[i].run
            steps = torch.tensor([loop.step], device=left.state.device)
            row.cache.end_block(block, steps)
            run.layers_run.append(None)
            run.steps.append(steps)
            run.reasons.append([reasons[i] or ""])
            run.measured.append(row.measured)
            was = states[j]
            states[j] = row.view.model._leave(block, was, loop.entry[i : i + 1], row.kept, steps, run)
            changed |= states[j] is not was
        if changed:
            left.state = torch.cat(states)
        return left

    # -- when a row stops ----------------------------------------------------------------------------------------------

    def _verdicts(self, group: _Group, blocks: list[LoopBlock]) -> list[str | None]:
        """Why each row stops after this step; None for those that do not."""
        loop = group.loop
        assert loop is not None
        reasons: list[str | None] = [None] * len(blocks)
        alike: dict[Hashable, list[int]] = {}
        for i, block in enumerate(blocks):
            if not block.dynamic:
                continue
            criterion = CRITERIA[block.criterion]
            if loop.step >= block.floor or criterion.every_step:
                alike.setdefault(_question(block, criterion, i), []).append(i)
        for places in alike.values():
            self._ask(group, blocks, places, reasons)
        return reasons

    def _ask(self, group: _Group, blocks: list[LoopBlock], places: list[int], reasons: list[str | None]) -> None:
        """Rows of one question (or one row) ask their criterion."""
        loop, first, block = group.loop, group.rows[places[0]], blocks[places[0]]
        assert loop is not None
        states = (loop.previous, group.state)
        previous, state = states if len(places) == len(blocks) else (_rows(x, places) for x in states)
        lenses = first.view.model._lenses(block, first.run)
        context = CriterionContext(loop.step, previous, state, None, block, *lenses, memory=first.memory)
        verdict = CRITERIA[block.criterion].verdict(context).tolist()
        for j, i in enumerate(places):
            row = group.rows[i]
            row.measured[loop.step] = {name: value[j : j + 1] for name, value in context.measured.items()}
            if verdict[j] and loop.step >= block.floor:
                held = (name for name, rows in context.reasons.items() if bool(rows[j]))
                reasons[i] = next(held, block.criterion)


def _pre_hooks(row: PassRow) -> tuple[int, ...]:
    """Which pre-step hooks a row's view has: rows that enter a block together have the same."""
    return tuple(row.view.model._loop_pre_hooks)


def _given_the_same(groups: list[_Group]) -> list[list[_Group]]:
    """Groups that stand before the same layer, parted where pre-step hooks want it to be called with other arguments."""
    found: list[tuple[Mapping[str, Any], list[_Group]]] = []
    for group in groups:
        given = {} if group.loop is None else group.loop.given
        same = next((some for one, some in found if _equal(one, given)), None)
        if same is None:
            found.append((given, [group]))
        else:
            same.append(group)
    return [some for _, some in found]


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two steps' layers are given the same, as far as plain values tell: tensors are the same where they are one."""
    plain = (str, int, float, bool, tuple)
    pairs = [(one[name], other[name]) for name in one if name in other]
    return len(pairs) == len(one) == len(other) and all(
        a is b or (isinstance(a, plain) and type(a) is type(b) and a == b) for a, b in pairs
    )


def _kind(block: LoopBlock, blocks: Sequence[LoopBlock]) -> Hashable:
    """What rows must share to compute a block's steps together; their caches, counts and criteria are their own."""
    same = (block.index, block.a, block.b, block.injection, block.norm, block.damping, block.final_norm)
    return (*same, block.init, block.init_std, block.init_seed, starts_normed(blocks, block.index))


def _question(block: LoopBlock, criterion: RegisteredCriterion, row: int) -> Hashable:
    """Rows of the same question ask together; a criterion that remembers, or that is a user's, is asked by each row alone."""
    if criterion.every_step or criterion.reads_exit or not comes_with_loopviz(criterion.function):
        return row
    return block.criterion, block.floor, block.cosine_threshold, block.kl_threshold, block.criterion_threshold


def _merged(groups: list[_Group]) -> _Group | None:
    """Groups that stand before the same layer, outside of loops, as one."""
    if len(groups) < 2:
        return groups[0] if groups else None
    rows = [row for group in groups for row in group.rows]
    return _Group(rows, torch.cat([group.state for group in groups]), groups[0].layer)


def _rows(values: Tensor, places: list[int]) -> Tensor:
    """Some rows of a tensor, in this order; the tensor itself where that is all of them in theirs."""
    if places == list(range(len(values))):
        return values
    return values[torch.tensor(places, device=values.device)]


def _add(rows: Iterable[PassRow], part: str, seconds: float) -> None:
    for row in rows:
        row.seconds[part] += seconds
