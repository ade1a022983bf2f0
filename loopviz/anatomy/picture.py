"""What is shown of one probed token, as plain arrays: of one layer in one loop step, of two loop steps side by side, of the whole token.

Everything is of the run's own tensors; what would be too much to send is left out by a rule, and how much of it is said: columns
of attention by a window (the first few, where attention rests, and the last before the token), a wide vector by the largest
number of several neighbours. Importing this needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .stage_list import BETAS, STAGES

if TYPE_CHECKING:
    from torch import Tensor

    from .probe import LayerRun, Probed
    from .reread import Agreement

Array = np.ndarray
FIRST = 4  # columns that are always shown: where attention rests that has nothing to look for
LATER = 4  # columns after the token, which it may not see
MOST_COLUMNS, LEAST_COLUMNS = 256, 24
MOST_SCORES = 24_000  # numbers of a picture of scores
MOST_KEYS = 32_000  # numbers of keys and values together
MOST_WIDE = 8_192  # numbers of a vector; of a wider one each shown stands for several
AGREEMENT = ("steps", "states", "norm", "logprob", "compared", "is_the_runs")
_ATTENTION = ("scores", "weights")


@dataclass(frozen=True)
class Columns:
    """Which of the columns that attention could read are shown.

    Attributes:
        total: how many there are; `seen`: of these the token may see.
        places: of those shown among all, `[W]`; positions, slots: of each.
        visible: which of them the token may see, `[W]`.
        keys: of which of those shown (0: the first) keys and values are shown.
        share: of each query head's weights what lies within those shown, `[N]`: 1 where nothing is left out.
    """

    total: int
    seen: int
    places: tuple[int, ...]
    positions: tuple[int, ...]
    slots: tuple[int, ...]
    visible: tuple[bool, ...]
    keys: tuple[int, ...]
    share: tuple[float, ...]


@dataclass(frozen=True)
class LayerPicture:
    """One run of one layer.

    Attributes:
        layer, block, step: as in :class:`loopviz.anatomy.probe.LayerRun`; `block` -1 for none.
        tensors: by its names, float32, scores, weights, keys and values of the shown columns alone; and `gain`, `gain_mlp` of the norms,
            `layer_norm`, `layer_norm_mlp` (what a LayerNorm makes of the same vector), `swish_<beta>`.
        each: by tensor, how many neighbours a number of it stands for, where that is more than one: the largest by size.
        columns: see there.
        facts: by stage (:func:`loopviz.anatomy.stages.facts`).
        frequencies: radians by which each pair of a head turns at every position, `[D/2]`; `position`: of the token.
        shapes: by stage, its axes with their sizes, all of them.
    """

    layer: int
    block: int
    step: int
    tensors: dict[str, Array]
    each: dict[str, int]
    columns: Columns
    facts: dict[str, dict[str, float]]
    frequencies: Array
    position: int
    shapes: dict[str, dict[str, int]]


@dataclass(frozen=True)
class TokenPicture:
    """A token's way through the model.

    Attributes:
        position: of the token.
        runs: (layer, block or -1, step) of every run of a layer, in their order.
        reasons: per block, why it stopped.
        steps: of each loop step its block, number and :func:`loopviz.anatomy.stages.step_facts`.
        agreement: with what the run recorded, by :class:`loopviz.anatomy.reread.Agreement`'s names.
        tensors: embedding, final, normed and the gain of the final norm, `[H]` each.
        each: as in :class:`LayerPicture`.
        facts: of the final norm, and of the logits.
    """

    position: int
    runs: tuple[tuple[int, int, int], ...]
    reasons: tuple[str, ...]
    steps: tuple[dict[str, float], ...]
    agreement: dict[str, Any]
    tensors: dict[str, Array]
    each: dict[str, int]
    facts: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Beside:
    """What two loop steps have in common in one layer.

    Attributes:
        stages: by stage, the cosine of the angle between its tensors and the size of their difference, in sizes of the first; None
            where the two have no common shape (one reads more keys than the other).
    """

    stages: dict[str, tuple[float, float] | None]


@dataclass(frozen=True)
class Distances:
    """A score by the distance between the two.

    Attributes:
        first: the distance of the first; the others follow it one by one.
        scores: `[M]` float64.
    """

    first: int
    scores: Array


def layer_picture(run: LayerRun, model: Any) -> LayerPicture:
    """Of a run of a layer; `model` has the norms' gains and the configuration."""
    from .stages import angles, facts, gain, layer_norm, row_of, shape_of

    columns, kept = _columns(run)
    tensors = {name: getattr(run, name) for stage in STAGES for name in stage.tensors if name != "visible"}
    for name in _ATTENTION:
        tensors[name] = tensors[name][:, kept]
    for name in ("keys", "values"):
        tensors[name] = tensors[name][:, kept[list(columns.keys)]]
    for end, state in (("", run.state), ("_mlp", run.between)):
        tensors["gain" + end] = gain(model, "norm" + end, run.layer)
        tensors["layer_norm" + end] = layer_norm(state)
    for beta in BETAS:
        tensors[f"swish_{beta:g}"] = run.gate.double() * (run.gate.double() * beta).sigmoid()
    arrays, each = _arrays(tensors)
    return LayerPicture(
        layer=run.layer,
        block=-1 if run.block is None else run.block,
        step=run.step,
        tensors=arrays,
        each=each,
        columns=columns,
        facts={stage.name: facts(stage, run) for stage in STAGES},
        frequencies=angles(model.config, 1).numpy(),
        position=run.past + row_of(run),
        shapes={stage.name: shape_of(stage, run) for stage in STAGES},
    )


def _columns(run: LayerRun) -> tuple[Columns, Tensor]:
    """Which columns are shown, and their places, `[W]`."""
    import torch

    N, (K, S, D) = run.scores.shape[0], run.keys.shape
    most = max(LEAST_COLUMNS, min(MOST_COLUMNS, MOST_SCORES // N))
    visible = run.visible.cpu()
    if most >= S:
        kept = torch.arange(S)
    else:
        last = int(visible.nonzero().max())
        later = min(LATER, S - 1 - last)
        start = max(FIRST, last + 1 + later - (most - FIRST))
        kept = torch.cat((torch.arange(FIRST), torch.arange(start, last + 1 + later)))
    positions, slots = run.columns()
    seen = visible[kept]
    places = seen.nonzero().flatten().tolist()
    few = max(8, MOST_KEYS // (2 * K * D))
    share = run.weights[:, kept].double().sum(-1)
    columns = Columns(
        total=S,
        seen=int(visible.sum()),
        places=tuple(kept.tolist()),
        positions=tuple(positions[kept].tolist()),
        slots=tuple(slots[kept].tolist()),
        visible=tuple(map(bool, seen.tolist())),
        keys=tuple(places if len(places) <= few else [places[0], *places[-(few - 1) :]]),
        share=tuple(share.tolist()),
    )
    return columns, kept.to(run.scores.device)


def _arrays(tensors: dict[str, Tensor]) -> tuple[dict[str, Array], dict[str, int]]:
    """As float32 arrays, no vector wider than MOST_WIDE; and by how much each was narrowed."""
    arrays, each = {}, {}
    for name, tensor in tensors.items():
        array = tensor.detach().float().cpu().numpy()
        several = math.ceil(array.size / MOST_WIDE) if array.ndim == 1 else 1
        if several > 1:
            array, each[name] = largest_of(array, several), several
        arrays[name] = array
    return arrays, each


def largest_of(vector: Array, several: int) -> Array:
    """The largest number by size of every so many neighbours of a vector, `[n]` -> `[ceil(n / several)]`."""
    padded = np.concatenate((vector, np.zeros(-len(vector) % several, vector.dtype))).reshape(-1, several)
    return padded[np.arange(len(padded)), np.abs(padded).argmax(1)]


def token_picture(probed: Probed, agreement: Agreement, model: Any, damping: Callable[[int], float]) -> TokenPicture:
    """Of a whole token.

    Args:
        damping: of a block, `damping(block)`, as the token was read.
    """
    from .stages import norm_facts, step_facts

    tensors = {"embedding": probed.embedding, "final": probed.final, "normed": probed.normed}
    arrays, each = _arrays({**tensors, "gain": model.model.norm.weight})
    logits = probed.logits.double()
    shares = logits.softmax(-1)
    return TokenPicture(
        position=probed.position,
        runs=tuple((run.layer, -1 if run.block is None else run.block, run.step) for run in probed.layers),
        reasons=tuple(probed.reasons),
        steps=tuple(
            {"block": run.block, "step": run.step, **step_facts(run, damping(run.block))} for run in probed.steps
        ),
        agreement={name: getattr(agreement, name) for name in AGREEMENT},
        tensors=arrays,
        each=each,
        facts={
            "embedding": {"norm": float(probed.embedding.double().norm())},
            "final_norm": norm_facts(probed.final),
            "head": {
                "largest": float(logits.max()),
                "least": float(logits.min()),
                "entropy": float(-(shares * shares.clamp_min(1e-300).log()).sum()),
                "vocabulary": float(len(logits)),
            },
        },
    )


def beside(run: LayerRun, other: LayerRun) -> Beside:
    """Two loop steps of a layer, stage by stage: the first tensor of each."""
    from .stages import cosine

    found: dict[str, tuple[float, float] | None] = {}
    for stage in STAGES:
        a, b = (getattr(each, stage.tensors[0]).double() for each in (run, other))
        if a.shape != b.shape:
            found[stage.name] = None
            continue
        a, b = a.flatten(), b.flatten()
        size = float(a.norm())
        found[stage.name] = cosine(a, b), float((a - b).norm()) / size if size else math.nan
    return Beside(found)


def distances(run: LayerRun, config: Any, head: int, column: int, most: int, many: int) -> Distances:
    """What a query head would score with a column's key at distances 0 to `most`; of more than `many` those around the run's own.

    Raises:
        ValueError: no such head or column.
    """
    import torch

    from .stages import row_of, score_by_distance, unturned

    N, (K, S, _) = run.query.shape[0], run.keys.shape
    if not (0 <= head < N and 0 <= column < S):
        raise ValueError(f"head={head}, column={column}: must be one of {N} query heads, one of {S} columns")
    positions, _slots = run.columns()
    key = unturned(run.keys[head * K // N][column : column + 1].cpu(), positions[column : column + 1], config)[0]
    own = run.past + row_of(run) - int(positions[column])
    first = max(0, min(own - many // 2, most + 1 - many))
    told = torch.arange(first, min(most + 1, first + many))
    return Distances(first, score_by_distance(run.query[head].cpu(), key, config, told).numpy())
