"""TTTCache: what a TTT model keeps between passes. Its size does not grow with what was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from loopviz.checks import check_finite

from .configuration import TTTConfig
from .layer import LayerState, TTTLayer

# What decides the shapes of the states, and what they mean.
_FIELDS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "ttt_layer_type",
    "mini_batch_size",
    "pre_conv",
    "share_qk",
    "conv_kernel",
)


class TTTCacheLayer(CacheLayerMixin):
    """One layer's state, and the weights W_0 that it began with.

    Attributes:
        state: `None` before the first pass.
        start: W_0 by name, the model's own parameters; `None` before the first pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: LayerState | None = None
        self.start: dict[str, Tensor] | None = None

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        """Every tensor of the state, by row, becomes another."""
        if self.state is not None:
            weights, sums, convs = self.state.weights, self.state.sums, self.state.convs
            self.state = LayerState(
                {name: change(value) for name, value in weights.items()},
                None if sums is None else {name: change(value) for name, value in sums.items()},
                {name: change(value) for name, value in convs.items()},
            )

    def reset(self) -> None:
        self.state = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._change(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._change(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._change(lambda x: x[indices.to(x.device)])

    def get_max_length(self) -> int:
        return -1

    # Of a cache of keys and values, which this is not.
    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise ValueError("TTTCache: holds no keys and values; a TTT model writes it by itself")

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        raise ValueError("TTTCache: holds no keys and values; a TTT model writes it by itself")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        raise ValueError("TTTCache: nothing is attended to, so there is no mask of attention")

    def get_seq_length(self) -> int:
        raise ValueError("TTTCache: ask the cache, not a layer; all layers have read the same tokens")


class TTTCache(Cache):
    """The state of a TTT model after what it has read, by layer and row.

    It can be given to `forward` and `generate` as `past_key_values`, and gone on with by a pass of any length.

    Args:
        model: the model it is for, or its configuration.
        batch_size: rows; by default those of the first pass.

    Attributes:
        lengths: tokens (without padding) each row has read; empty before the first pass.
        seqlen_offset: columns (with padding) that were read.
        inner_lr_scale: factor on the inner learning rate of the tokens to come; 0: nothing is learned from them.

    Raises:
        ValueError: no TTT model; `batch_size` is no whole number >= 1.
    """

    def __init__(self, model: Any, batch_size: int | None = None) -> None:
        config = getattr(model, "config", model)
        if not isinstance(config, TTTConfig):
            raise ValueError(f"TTTCache({type(model).__name__}): give the TTT model it is for, or its TTTConfig")
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(
                f"batch_size={batch_size!r}: must be a whole number >= 1, or None for that of the first pass"
            )
        super().__init__(layers=[TTTCacheLayer() for _ in range(config.num_hidden_layers)])
        self._fields = {name: getattr(config, name) for name in _FIELDS}
        self._asked = batch_size
        self.lengths: list[int] = [] if batch_size is None else [0] * batch_size
        self.seqlen_offset = 0
        self._scale = 1.0

    # -- steering ------------------------------------------------------------------------------------------------------

    @property
    def inner_lr_scale(self) -> float:
        """Factor on the inner learning rate of the tokens of the passes to come; 0: nothing is learned from them."""
        return self._scale

    @inner_lr_scale.setter
    def inner_lr_scale(self, value: float) -> None:
        check_finite("inner_lr_scale", value, 0, float("inf"), rule="finite_not_negative")
        self._scale = float(value)

    @torch.no_grad()
    def forget(self, rows: Iterable[int] | None = None, layers: Iterable[int] | None = None) -> None:
        """Set the inner models back to W_0 and what the running mini-batch has gathered to 0, where the text is now.

        Positions go on, and so do the convolutions, which are no memory of the inner models.

        Args:
            rows: of the batch; by default all.
            layers: by default all.

        Raises:
            ValueError: a row or layer that there is none of. Nothing is changed then.
        """
        picked = _numbers("rows", rows, len(self.lengths))
        chosen = [self.layers[index] for index in _numbers("layers", layers, len(self.layers))]
        for layer in chosen:
            state = layer.state
            if state is None or not picked:
                continue
            start = layer.start
            weights = {name: _with_rows(value, picked, start[name]) for name, value in state.weights.items()}
            sums = state.sums and {name: _with_rows(value, picked, 0) for name, value in state.sums.items()}
            layer.state = LayerState(weights, sums, state.convs)

    # -- what the model asks and tells ---------------------------------------------------------------------------------

    def begin(self, config: TTTConfig, layers: Sequence[TTTLayer], batch: int) -> list[LayerState | None]:
        """The states by layer, for a pass over so many rows.

        Raises:
            ValueError: this cache is another model's, or of another number of rows. Nothing is changed.
        """
        for name, value in self._fields.items():
            if value != getattr(config, name):
                raise ValueError(
                    f"past_key_values: this cache was made for a model with {name}={value!r}, and this one has "
                    f"{getattr(config, name)!r}; give it a cache of its own, TTTCache(model)"
                )
        if self.lengths and len(self.lengths) != batch:
            raise ValueError(
                f"past_key_values: this cache is of {len(self.lengths)} row(s), and this pass has {batch}; start with a "
                "new cache, or choose its rows (batch_select_indices, batch_repeat_interleave)"
            )
        for held, layer in zip(self.layers, layers, strict=True):
            if held.state is not None and not _same_start(held.start, layer):
                raise ValueError(
                    "past_key_values: this cache was filled by a model with other weights; give every model a cache of its "
                    "own, TTTCache(model)"
                )
        return [held.state for held in self.layers]

    def commit(
        self, states: Sequence[LayerState | None], layers: Sequence[TTTLayer], counts: Sequence[int], columns: int
    ) -> None:
        """Keep what a pass came to, all of it at once: a pass that fails leaves the cache as it was.

        Args:
            states, layers: after the pass, and whose they are.
            counts: tokens of each row.
            columns: of the pass, with padding.
        """
        for held, state, layer in zip(self.layers, states, layers, strict=True):
            held.state, held.start = state, {name: getattr(layer, name) for name in layer.names}
        before = self.lengths or [0] * len(counts)
        self.lengths = [length + count for length, count in zip(before, counts, strict=True)]
        self.seqlen_offset += columns

    @property
    def nbytes(self) -> int:
        """Bytes of all states, the gathered gradients included, whether or not a mini-batch is running."""
        states = [layer.state for layer in self.layers if layer.state is not None]
        inner = sum(value.nbytes for state in states for value in state.weights.values())
        return 2 * inner + sum(value.nbytes for state in states for value in state.convs.values())

    # -- by the names of the published code ----------------------------------------------------------------------------

    @property
    def ttt_params_dict(self) -> dict[str, dict[int, Tensor]]:
        """`{name}_states` and `{name}_grad` of every inner parameter, by layer, `[B, H, ...]`; empty before a pass."""
        found: dict[str, dict[int, Tensor]] = {}
        for index, layer in enumerate(self.layers):
            if layer.state is not None:
                for name, value in layer.state.weights.items():
                    sums = torch.zeros_like(value) if layer.state.sums is None else layer.state.sums[name]
                    found.setdefault(f"{name}_states", {})[index] = value
                    found.setdefault(f"{name}_grad", {})[index] = sums
        return found

    @property
    def conv_states_dic(self) -> dict[str, dict[int, Tensor]]:
        """Last inputs of the convolutions, by name and layer, `[B, C, kernel]`."""
        found: dict[str, dict[int, Tensor]] = {}
        for index, layer in enumerate(self.layers):
            for name, value in (layer.state.convs if layer.state is not None else {}).items():
                found.setdefault(name, {})[index] = value
        return found

    # -- what transformers asks ----------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Rows; -1 before the first pass."""
        return len(self.lengths) or -1

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns that were read, padding included."""
        return self.seqlen_offset

    def reset(self) -> None:
        """As new, its inner learning rate too."""
        super().reset()
        self.lengths, self.seqlen_offset, self._scale = [0] * (self._asked or 0), 0, 1.0

    def crop(self, tokens_to_remove: int) -> None:
        """Refused unless there is nothing to remove: weights that have learned cannot unlearn a token.

        Raises:
            ValueError: tokens are to be removed.
        """
        if tokens_to_remove:
            raise ValueError(
                f"crop({tokens_to_remove}): a TTTCache cannot give tokens back, for its weights have learned from them; keep "
                "a copy (copy.deepcopy) from before, or read the text again"
            )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.lengths = [self.lengths[row] for row in beam_idx.tolist()]

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.lengths = [length for length in self.lengths for _ in range(repeats)]

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.lengths = torch.tensor(self.lengths)[indices.cpu()].tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> TTTCache:
        """A state of its own, of the same model: W_0 is not copied."""
        twin = self.__class__.__new__(self.__class__)
        twin.__dict__.update(self.__dict__)
        twin.lengths, twin.layers = list(self.lengths), []
        for layer in self.layers:
            copied = TTTCacheLayer()
            copied.state, copied.start = layer.state, layer.start
            copied._change(Tensor.clone)
            twin.layers.append(copied)
        return twin


def _same_start(start: dict[str, Tensor], layer: TTTLayer) -> bool:
    """Whether a layer begins with this W_0: the same parameters (a view's), or equal ones (of a copy, or another process)."""
    return all(
        value is (own := getattr(layer, name)) or (value.device == own.device and torch.equal(value, own))
        for name, value in start.items()
    )


def _numbers(name: str, given: Iterable[int] | None, n: int) -> list[int]:
    if given is None:
        return list(range(n))
    found = list(given)
    for number in found:
        if not isinstance(number, int) or not 0 <= number < n:
            raise ValueError(f"{name}={found!r}: there is no {number!r}; this cache has 0..{n - 1}")
    return found


def _with_rows(value: Tensor, rows: list[int], new: Tensor | int) -> Tensor:
    value = value.clone()
    value[rows] = new
    return value
