"""What is shown of one probed token, as plain arrays: of one layer in one loop step, of two loop steps side by side, of the whole token.

Everything is of the run's own tensors; what would be too much to send is left out by a rule, and how much of it is said: columns
of attention by a window (the first few, where attention rests, and the last before the token), a wide vector by the largest
number of several neighbours. Importing this needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .stage_list import BETAS, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from .probed import LayerRun, Probed
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
        layer, block, step: as in :class:`loopviz.anatomy.probed.LayerRun`; `block` -1 for none.
        stages: keys of what was computed for the token, this run of a layer in the middle, in order.
        tensors: by its names, float32, scores, weights, keys and values of the shown columns alone; and `gain`, `gain_mlp` of the norms
            (of others `gain_<stage>`), `layer_norm`, `layer_norm_mlp` (what a LayerNorm makes of the same vector), `swish_<beta>`,
            `left_from` (what the norm after a loop is given).
        each: by tensor, how many neighbours a number of it stands for, where that is more than one: the largest by size.
        columns: see there.
        facts: by stage (:func:`loopviz.anatomy.stages.facts`).
        frequencies: radians by which each pair of a head turns at every position, `[D/2]`; `position`: of the token.
        shapes: by stage, its axes with their sizes, all of them.
    """

    layer: int
    block: int
    step: int
    stages: tuple[str, ...]
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
        tensors: embedding, scaled where the model multiplies it, and of the norm at the model's end, where one stands there, final, normed
            and gain, `[H]` each.
        each: as in :class:`LayerPicture`.
        facts: of the embedding, of the final norm, and of the logits.
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
        stages: by stage that both have, the cosine of the angle between its tensors and the size of their difference, in sizes of the
            first; None where the two have no common shape (one reads more keys than the other).
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


def layer_picture(probed: Probed, run: LayerRun, model: Any) -> LayerPicture:
    """Of a run of a layer of a token; `model` has the norms' gains and the configuration."""
    from .stages import angles, facts, layer_stages, row_of, shape_of, stages_of

    columns, kept = _columns(run)
    own = layer_stages(probed, run, model.config)
    tensors = _tensors(own, run, model)
    for name in _ATTENTION:
        tensors[name] = tensors[name][:, kept]
    for name in ("keys", "values"):
        tensors[name] = tensors[name][:, kept[list(columns.keys)]]
    arrays, each = _arrays(tensors)
    return LayerPicture(
        layer=run.layer,
        block=-1 if run.block is None else run.block,
        step=run.step,
        stages=tuple(stage.key for stage in stages_of(probed, run, model.config)),
        tensors=arrays,
        each=each,
        columns=columns,
        facts={stage.name: facts(stage, run) for stage in own},
        frequencies=angles(model.config, 1).numpy(),
        position=run.past + row_of(run),
        shapes={stage.name: shape_of(stage, run) for stage in own},
    )


def _tensors(own: Iterable[Stage], run: LayerRun, model: Any) -> dict[str, Tensor]:
    """What the stages of a run made, and what is drawn beside it, by name."""
    from .stages import gain, layer_norm, left_from

    beside: dict[str, Callable[[], Tensor]] = {
        "gain": lambda: gain(model, "norm", run.layer),
        "gain_mlp": lambda: gain(model, "norm_mlp", run.layer),
        "layer_norm": lambda: layer_norm(run.state),
        "layer_norm_mlp": lambda: layer_norm(run.entered_mlp),
        "left_from": lambda: left_from(run),
    }
    found = {f"swish_{beta:g}": run.gate.double() * (run.gate.double() * beta).sigmoid() for beta in BETAS}
    for stage in own:
        for name in (*stage.tensors, *stage.drawn):
            if name == "visible" or name in found:
                continue
            if name in beside:
                found[name] = beside[name]()
            elif name.startswith("gain_"):
                found[name] = gain(model, stage.name, run.layer)
            else:
                found[name] = getattr(run, name)
    return found


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


def token_picture(probed: Probed, agreement: Agreement, model: Any) -> TokenPicture:
    """Of a whole token."""
    from .stages import step_facts

    tensors = {"embedding": probed.embedding}
    if probed.scaled is not None:
        tensors["scaled"] = probed.scaled
    if probed.final is not None:
        tensors |= {"final": probed.final, "normed": probed.normed, "gain": model.model.norm.weight}
    arrays, each = _arrays(tensors)
    return TokenPicture(
        position=probed.position,
        runs=tuple((run.layer, -1 if run.block is None else run.block, run.step) for run in probed.layers),
        reasons=tuple(probed.reasons),
        steps=tuple({"block": run.block, "step": run.step, **step_facts(run, probed)} for run in probed.steps),
        agreement={name: getattr(agreement, name) for name in AGREEMENT},
        tensors=arrays,
        each=each,
        facts=_token_facts(probed, model),
    )


def _token_facts(probed: Probed, model: Any) -> dict[str, dict[str, float]]:
    """What goes in words with the stages before the first layer and after the last."""
    from .stages import norm_facts

    logits = probed.logits.double()
    shares = logits.softmax(-1)
    found = {
        "embedding": {"norm": float(probed.embedding.double().norm())},
        "head": {
            "largest": float(logits.max()),
            "least": float(logits.min()),
            "entropy": float(-(shares * shares.clamp_min(1e-300).log()).sum()),
            "vocabulary": float(len(logits)),
        },
    }
    if probed.scaled is not None:
        scale = float(model.config.embedding_scale)
        found["scaled"] = {"norm": float(probed.scaled.double().norm()), "scale": scale}
    if probed.final is not None:
        found["final_norm"] = norm_facts(probed.final)
    return found


def beside(probed: Probed, run: LayerRun, other: LayerRun, config: Any) -> Beside:
    """Two loop steps of a layer, stage by stage: the first tensor of each, of what both have."""
    from .stages import cosine, layer_stages

    found: dict[str, tuple[float, float] | None] = {}
    for stage in layer_stages(probed, run, config):
        pair = [getattr(each, stage.tensors[0]) for each in (run, other)]
        if any(each is None for each in pair):
            continue
        a, b = (each.double() for each in pair)
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
    return Distances(first, score_by_distance(run.asked[head].cpu(), key, config, told).numpy())
