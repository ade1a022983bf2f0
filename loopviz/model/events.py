"""What a LoopLlama tells those who watch it: one event a loop step, one report a forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .cache import LoopCache
from .exit_gate import Exits


@dataclass(frozen=True)
class AttentionRead:
    """What one layer's attention read in one loop step. The tensors are those the attention itself was given.

    The keys' columns are `past` earlier tokens with `held` slots each, side by side, and after them the pass's T tokens
    with `own` slots each: `S = past * held + T * own`. Where a step reads a single slot, `held = own = 1`.

    Attributes:
        query: after RoPE, `[B, H, T, D]`.
        keys: after RoPE, `[B, K, S, D]`; views into the cache, which a later step may overwrite for the pass's tokens (copies where
            it keeps 8 bits).
        mask: `[B, 1, T, S]`, bool (True = visible) or additive float; `None`: a token sees itself and earlier ones.
        scaling: factor on the scores.
        past, held, own: see above.
        slot: the slot read, `None` when every column `c` of a token's is slot `c`.
    """

    query: Tensor
    keys: Tensor
    mask: Tensor | None
    scaling: float
    past: int
    held: int
    own: int
    slot: int | None


@dataclass(frozen=True)
class LoopStepStart:
    """What a pre-step hook is told before a loop step.

    Attributes:
        block: 0-based index of the block.
        layers: `(a, b)` of the block.
        step: r, 1-based: the step that is about to run.
        state: s_{r-1}, `[B, T, H]`.
        frozen: `[B]` bool, the row has stopped already: it keeps its state, whatever the step computes.
        real: `[B, T]` bool, True where the token is not padding; `None` when all are.
    """

    block: int
    layers: tuple[int, int]
    step: int
    state: Tensor
    frozen: Tensor
    real: Tensor | None


@dataclass(frozen=True)
class LoopStep:
    """What a loop hook is told after one loop step.

    Attributes:
        block: 0-based index of the block.
        layers: `(a, b)` of the block.
        step: r, 1-based.
        previous: s_{r-1}, `[B, T, H]`.
        state: s_r, `[B, T, H]`; a frozen row keeps its old state.
        frozen: `[B]` bool, the row had stopped before this step.
        real: `[B, T]` bool, True where the token is not padding; `None` when all are.
        seconds: wall time of the step.
        ran: `[B, n]` bool, the layers a..b that ran in this step, by row; `None` without a chooser of layers: all of
            them, in every row that is not frozen.
    """

    block: int
    layers: tuple[int, int]
    step: int
    previous: Tensor
    state: Tensor
    frozen: Tensor
    real: Tensor | None
    seconds: float
    cache: LoopCache | None = field(default=None, repr=False)
    reads: dict[int, AttentionRead] | None = field(default=None, repr=False)  # by layer, while somebody watches
    ran: Tensor | None = None

    def kv(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """K, V that this step wrote for the pass's tokens at a physical layer of the block, views `[B, K, T, D]`.

        Rounded, and copies, where the cache keeps 8 bits: what attention reads.

        Valid during the hook (a later step may overwrite the slot); `None` when nothing is cached, or no row ran the
        layer in this step. A row that left it out has nothing of this step there.

        Raises:
            ValueError: the layer is not in this block.
        """
        self._check(layer)
        if self.cache is None or not self._ran(layer):
            return None
        return self.cache.layers[layer].step_kv()

    def attention(self, layer: int) -> AttentionRead | None:
        """What the attention of a physical layer of the block read in this step; keys are valid during the hook.

        `None` unless the model is watched (`model.watch_attention()`), and where no row ran the layer in this step.

        Raises:
            ValueError: the layer is not in this block.
        """
        self._check(layer)
        return None if self.reads is None else self.reads.get(layer)

    def _ran(self, layer: int) -> bool:
        return self.ran is None or bool(self.ran[:, layer - self.layers[0]].any())

    def _check(self, layer: int) -> None:
        a, b = self.layers
        if not a <= layer <= b:
            raise ValueError(f"layer={layer}: not in block {self.block} (layers {a}..{b})")


@dataclass(frozen=True)
class PassSeconds:
    """Wall time of one forward pass by part, on the host: a GPU's work counts where it is waited for.

    Attributes:
        prelude: embedding, masks and the layers before the first block (all layers of a plain Llama).
        block: all steps of all blocks, with plain layers between blocks; hooks left out.
        coda: layers after the last block, and the final norm.
        hooks: loop hooks.
    """

    prelude: float
    block: float
    coda: float
    hooks: float


@dataclass(frozen=True)
class LoopReport:
    """What the loops of one forward pass did.

    Attributes:
        steps: per block, `[B]` int64, N of each row.
        reasons: per block, per row: `"count"`, `"cosine"`, `"kl"`, `"max"`, or the name of a registered criterion or
            chooser of layers.
        seconds: where the time went; `None` before the first pass.
        layers_run: per block, `[R, B, n]` bool: the layers a..b that ran in each step, R the steps of the longest row;
            `None` for a block without a chooser of layers: all, in every step of a row.
        measured: per block, by step r: what the built-in criteria compared with their thresholds (`"cosine"`, `"kl"`, or a
            published criterion's name; `[B]`; NaN for a row that was not asked); steps nobody asked are left out.
        exits: per block: what its exit gate said; `None` without one.
    """

    steps: list[Tensor]
    reasons: list[list[str]]
    seconds: PassSeconds | None = None
    layers_run: list[Tensor | None] = field(default_factory=list)
    measured: list[dict[int, dict[str, Tensor]]] = field(default_factory=list)
    exits: list[Exits | None] = field(default_factory=list)

    def layer_runs(self, block: int, layers: int) -> Tensor:
        """How many layer runs a block of so many layers made, `[B]` int64: `N` times its layers without a chooser."""
        ran = self.layers_run[block] if self.layers_run else None
        return self.steps[block] * layers if ran is None else ran.sum((0, 2))
