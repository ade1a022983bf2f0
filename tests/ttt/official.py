"""Every tensor of the folders that the official code made, computed by ours: `python -m tests.ttt.official` prints how far it is."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from loopviz.ttt import TTTCache, TTTForCausalLM

from .tiny import ORACLES, oracle, record

KINDS = {  # by how their names begin
    "logits of one pass": ("logits_prefill_", "logits_f64"),
    "logits token by token": ("logits_decode_",),
    "cache": ("cache_",),
    "inner loop": ("layer0_",),
    "hidden states": ("hidden_states",),
    "inner loss": ("inner_loss_",),
    "loss": ("loss",),
    "gradients": ("grad_",),
}


@functools.cache
def computed(name: str) -> dict[str, Tensor]:
    """What our model makes of a folder's tokens, under the folder's own names."""
    model, expected = oracle(name)
    ids = expected["input_ids"]
    with torch.no_grad():
        found = {f"logits_prefill_{n}": model(ids[:, :n]).logits for n in (1, 15, 16, 17, 40)}
        found["logits_f64"] = model.double()(ids).logits
        model.float()
        found |= _decoded(model, ids) | _inside(model.view(), ids) | _states(model, ids)
    return found | _learned(model, ids)


def _decoded(model: TTTForCausalLM, ids: Tensor) -> dict[str, Tensor]:
    """After P tokens one a pass; the cache is the last one's."""
    found = {}
    for n in (1, 15, 16, 17):
        cache = TTTCache(model, batch_size=2)
        parts = [model(ids[:, :n], past_key_values=cache).logits]
        parts += [model(ids[:, t : t + 1], past_key_values=cache).logits for t in range(n, 40)]
        found[f"logits_decode_after_{n}"] = torch.cat(parts, dim=1)
    held = {**cache.ttt_params_dict, **cache.conv_states_dic}
    return found | {f"cache_{key}": torch.stack([by[0], by[1]]) for key, by in held.items()}


def _inside(model: TTTForCausalLM, ids: Tensor) -> dict[str, Tensor]:
    """What enters and leaves layer 0's inner loop in a pass of two mini-batches; every token's inner loss."""
    steps, cache, left = record(model), TTTCache(model), []
    layer = model.model.ttt_layers[0]
    learn = layer._learn
    layer._learn = lambda *args: left.append(learn(*args)) or left[-1]
    try:
        model(ids[:, :32], past_key_values=cache)
    finally:
        del layer._learn
    step = steps[0]
    eta = step.lr[:, :, None] * step.token_scale[:, None, :, None]  # [B, H, 32, 32], of which two blocks are used
    found = {
        "layer0_XQ": step.query.unflatten(2, (2, 16)),
        "layer0_XK": step.keys.unflatten(2, (2, 16)),
        "layer0_XV": step.values.unflatten(2, (2, 16)),
        "layer0_ttt_lr_eta": step.lr.unflatten(2, (2, 1, 16)),
        "layer0_token_eta": step.token_scale[:, None].expand(-1, 3, -1).unflatten(2, (2, 16, 1)),
        "layer0_eta": torch.stack([eta[:, :, :16, :16], eta[:, :, 16:, 16:]], dim=2),
        "layer0_out": left[0][0].transpose(1, 2).flatten(2),
    }
    found |= {f"layer0_after_{key}": by[0] for key, by in cache.ttt_params_dict.items() if key.endswith("_states")}
    steps.clear()
    model(ids)
    for key in ("before", "after"):
        found[f"inner_loss_{key}"] = torch.stack([getattr(each, f"loss_{key}")[0].T for each in steps])
    return found


def _states(model: TTTForCausalLM, ids: Tensor) -> dict[str, Tensor]:
    """After each block, then after the final norm."""
    raw = []
    handle = model.model.layers[-1].register_forward_hook(lambda module, args, out: raw.append(out[0]))
    _, first, normed = model(ids, output_hidden_states=True).hidden_states
    handle.remove()
    return {"hidden_states": torch.stack([first, raw[0], normed])}


def _learned(model: TTTForCausalLM, ids: Tensor) -> dict[str, Tensor]:
    """The loss of the 40 tokens, and its gradients through the inner steps."""
    names = ("W1", "learnable_token_idx", "learnable_ttt_lr_weight", "q_proj.weight")
    parameters = dict(model.model.ttt_layers[0].named_parameters())
    loss = model(ids, labels=ids).loss
    gradients = torch.autograd.grad(loss, [parameters[name] for name in names])
    return {"loss": loss.detach()} | {f"grad_{name}": each for name, each in zip(names, gradients, strict=True)}


def of_kind(kind: str, name: str) -> list[str]:
    """A folder's tensors of one kind."""
    return sorted(key for key in oracle(name)[1] if key.startswith(KINDS[kind]))


def main() -> None:
    """Print the largest difference by folder and kind."""
    print("| folder | " + " | ".join(KINDS) + " |")
    print("|---" * (1 + len(KINDS)) + "|")
    for name in ORACLES:
        ours, theirs = computed(name), oracle(name)[1]
        largest = (max(float((ours[key] - theirs[key]).abs().max()) for key in of_kind(kind, name)) for kind in KINDS)
        print(f"| {name} | " + " | ".join(f"{value:.0e}" for value in largest) + " |")


if __name__ == "__main__":
    main()
