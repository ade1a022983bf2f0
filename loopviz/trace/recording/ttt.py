"""What the inner loops of a TTT model did with every token: from its inner hook to a Frame's ``ttt``.

A pass stays within one mini-batch, so that each of its tokens has weights W_t of its own to be asked: what do they still
hold of every token before? Of those the keys and values are kept here, by layer.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.model.interrupt import check
from loopviz.trace.schema import AGES, encode_floats, encode_singles
from loopviz.ttt.observe import InnerStep, reconstruction

if TYPE_CHECKING:
    from loopviz.trace.schema import TTTFrame, TTTMeta
    from loopviz.ttt import TTTForCausalLM


MOST_HELD = 9_000_000  # numbers of what is still held that a whole run records: 18 MB


def ages_of(model: TTTForCausalLM, tokens: int) -> int:
    """Tokens whose reconstruction is recorded at a time in a run of so many tokens, at most: every one that was read before.

    Where that is more than :data:`MOST_HELD` numbers in all, the last ones: as many as fit, :data:`AGES` at least.
    """
    rows = model.config.num_hidden_layers * model.config.num_attention_heads

    def numbers(ages: int) -> int:
        return rows * (ages * tokens - ages * (ages - 1) // 2)

    return max(AGES, bisect_right(range(1, tokens + 1), MOST_HELD, key=numbers))


def ttt_meta(model: TTTForCausalLM, inner_lr_scale: float, ages: int = AGES) -> TTTMeta:
    """What a run's Meta says of a TTT model; its ``changes`` are empty."""
    config, layers = model.config, model.model.ttt_layers
    inverse = 1 / torch.arange(1, config.mini_batch_size + 1, dtype=layers[0].inner_dtype, device=model.device)
    with torch.no_grad():
        scales = [layer.token_scale(inverse).tolist() for layer in layers]
        starts = [torch.stack([value.square().sum((-1, -2)) for value in layer.start().values()]) for layer in layers]
    return {
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "mini_batch": config.mini_batch_size,
        "kind": config.ttt_layer_type,
        "base_lr": float(config.ttt_base_lr),
        "scales": scales,
        "start_norm": [start.sum(0).sqrt().tolist() for start in starts],
        "ages": ages,
        "state_bytes": state_bytes(model),
        "kv_beside": {},
        "inner_lr_scale": float(inner_lr_scale),
        "changes": [],
    }


def state_bytes(model: TTTForCausalLM) -> int:
    """Bytes that the model keeps of a text between passes, whatever its length: by arithmetic, `TTTCache.nbytes` of one row."""
    config = model.config
    total = 0
    for layer in model.model.ttt_layers:
        total += 2 * sum(value.numel() * value.element_size() for value in layer.start().values())
    convs = 2 * config.share_qk + config.pre_conv
    number = next(model.parameters()).element_size()
    return total + config.num_hidden_layers * convs * config.hidden_size * config.conv_kernel * number


class TTTRecorder:
    """Watches a TTT model's passes over one text, each within one mini-batch, and says what they did.

    Args:
        model: a view of it that nobody else watches.
        ages: tokens whose reconstruction is recorded at a time, as the Meta says.
    """

    def __init__(self, model: TTTForCausalLM, ages: int = AGES) -> None:
        self._model, self._ages = model, ages
        self._steps: list[InnerStep] = []
        self._handle = model.register_inner_hook(self._steps.append)
        layers = range(model.config.num_hidden_layers)
        # of the tokens before, by layer: [H, n, D], [H, n, D], [H, n]
        self._keys: list[Tensor | None] = [None for _ in layers]
        self._values: list[Tensor | None] = [None for _ in layers]
        self._lr: list[Tensor | None] = [None for _ in layers]
        self._since = 0  # the first token that the weights can know of

    def begin(self) -> None:
        """A pass is about to be made."""
        self._steps.clear()

    def forgot(self, index: int) -> None:
        """The inner models were set back to W_0 before the token at this position."""
        self._since = index

    def close(self) -> None:
        """Watch no longer."""
        self._handle.remove()
        self._steps.clear()

    def frames(self) -> list[TTTFrame]:
        """Of every token of the pass that has just been made; once for each pass."""
        parts: list[dict[str, Tensor]] = []
        for step in self._steps:
            check()
            parts.append(self._layer(step))
        first = int(self._steps[0].positions[0, 0])
        whole = {name: torch.stack([part[name] for part in parts]).flatten(0, 1).cpu() for name in parts[0]}
        size = self._model.config.mini_batch_size
        found = [self._frame(whole, c, first + c, (first + c) % size) for c in range(self._steps[0].n_tokens)]
        self._steps.clear()
        return found

    def _frame(self, whole: dict[str, Tensor], c: int, index: int, slot: int) -> TTTFrame:
        """One token's numbers of those of the pass, `[L * H, ...]`."""
        n = min(index + 1, self._ages)
        seen = whole["held"].shape[-1] - self._steps[0].n_tokens + c + 1  # tokens kept up to this one
        begun = seen - 1 - slot  # its mini-batch's first, among those kept

        def one(name: str) -> str:
            return encode_singles(whole[name][:, c].numpy())

        return {
            "slot": slot,
            "loss_before": one("before"),
            "loss_after": one("after"),
            "loss_start": one("start"),
            "drift": one("drift"),
            "lr": one("lr"),
            "reads": encode_singles(whole["reads"][:, c, begun:seen].numpy()),
            "held": encode_floats(whole["held"][:, c, seen - n : seen].numpy()),
        }

    def _layer(self, step: InnerStep) -> dict[str, Tensor]:
        """One layer's numbers by head and token of the pass: `[H, K]`, and over the tokens kept `[H, K, n]`."""
        keys, values, lr = self._kept(step)
        layer = self._model.model.ttt_layers[step.layer]
        K, n = step.n_tokens, keys.shape[1]
        theta = tuple(value[0].flatten(0, 1) for value in step.weights.values())  # [H * K, in, out]
        norm, targets = layer.norm(), values - keys
        wide = norm._replace(gain=norm.gain.repeat_interleave(K, 0), bias=norm.bias.repeat_interleave(K, 0))

        def each(x: Tensor) -> Tensor:  # [H, n, D] -> [H * K, n, D]
            return x.repeat_interleave(K, 0)

        held = reconstruction(theta, each(keys), each(targets), wide).unflatten(0, (-1, K))
        start = tuple(value.detach() for value in layer.start().values())
        of_start = reconstruction(start, keys[:, n - K :], targets[:, n - K :], norm)
        reads = step.query[0] @ keys.transpose(1, 2) * lr[:, None] * step.token_scale[0][:, None]
        first = int(step.positions[0, 0]) + K - n  # position of the first that is kept
        if self._since > first:
            reads[:, :, : self._since - first] = 0
        return {
            "before": step.loss_before[0],
            "after": step.loss_after[0],
            "start": of_start,
            "drift": step.drift[0],
            "lr": step.lr[0],
            "reads": reads,
            "held": held,
        }

    def _kept(self, step: InnerStep) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and learning rates of the last tokens, the pass's own included."""
        room = self._ages + self._model.config.mini_batch_size  # a mini-batch's row is whole, whatever the ages
        new: tuple[tuple[list[Any], Tensor], ...] = (
            (self._keys, step.keys[0]),
            (self._values, step.values[0]),
            (self._lr, step.lr[0]),
        )
        for kept, own in new:
            before = kept[step.layer]
            kept[step.layer] = (own if before is None else torch.cat([before, own], dim=1))[:, -room - step.n_tokens :]
        keys, values, lr = self._keys[step.layer], self._values[step.layer], self._lr[step.layer]
        assert keys is not None
        assert values is not None
        assert lr is not None
        return keys, values, lr
