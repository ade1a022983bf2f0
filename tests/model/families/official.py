"""What this package computes where the published code's numbers are known: every tensor of every folder of `data`, by its name.

`data/*/README.md` says how each was made. Also asked by `scripts/family_differences.py`.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from loopviz.model import CriterionContext, LoopCache, LoopLlamaForCausalLM, LoopStep, register_criterion
from loopviz.model.checkpoints import load_model

DATA = Path(__file__).parent / "data"
ORACLES = ("ouro", "nanbeige", "huginn", "huginn_retro_llama", "huginn_retro_olmo2", "looplm_naive")
GIVEN = ("input_ids", "init_state", "padded_input_ids", "padded_attention_mask")  # and nothing to be computed
PROMPT = 5  # tokens of a prefill before tokens come one by one
KINDS = {
    "decode": ("logits_cached*", "cache_*", "greedy_*"),
    "exits": (
        "exit_*",
        "logits_exit_*",
        "default_step",
        "gate_logit",
        "logits_weighted",
        "loss_with_labels",
        "adaptive_*",
    ),
}


def kind_of(key: str) -> str:
    """ "prefill", "decode" or "exits"."""
    from fnmatch import fnmatchcase

    return next((kind for kind, some in KINDS.items() if any(fnmatchcase(key, one) for one in some)), "prefill")


@functools.cache
def expected(name: str) -> dict[str, Tensor]:
    """What the published code computes. Left out: its cache `full` under early exit, which drops tokens silently."""
    return {
        key: value for key, value in load_file(DATA / name / "expected.safetensors").items() if "_fullcache_" not in key
    }


def wanted(name: str) -> list[str]:
    """The tensors to be computed."""
    return sorted(set(expected(name)) - {*GIVEN})


@functools.cache
def opened(name: str) -> LoopLlamaForCausalLM:
    """A folder's model. Others may run on its weights: take a view (`with_loop`)."""
    return load_model(DATA / name)


@register_criterion("family_rows", replace=True)
def _family_rows(ctx: CriterionContext) -> Tensor:
    """Row 0 stops after 2 steps, the others go on."""
    stops = torch.zeros(len(ctx.state), dtype=torch.bool, device=ctx.state.device)
    stops[0] = ctx.step >= 2
    return stops


@functools.cache
def computed(name: str) -> dict[str, Tensor]:
    """All of it: key to tensor."""
    with torch.no_grad():
        makers = {"ouro": _ouro, "nanbeige": _nanbeige, "looplm_naive": _looplm}
        return makers.get(name, _raven)(name)


# --- what several have --------------------------------------------------------------------------------------------


def decoded(model: LoopLlamaForCausalLM, ids: Tensor, prompt: int = PROMPT) -> tuple[Tensor, LoopCache]:
    """Logits `[B, T, V]` through a cache: a prefill, then a token a pass."""
    cache = LoopCache(model.config)
    parts = [ids[:, :prompt], *ids[:, prompt:].split(1, dim=1)]
    return torch.cat([model(part, past_key_values=cache, use_cache=True).logits for part in parts], dim=1), cache


@contextmanager
def watched(model: LoopLlamaForCausalLM) -> Iterator[list[LoopStep]]:
    """The loop steps of the passes inside."""
    events: list[LoopStep] = []
    handle = model.register_loop_hook(events.append)
    try:
        yield events
    finally:
        handle.remove()


def states_of(model: LoopLlamaForCausalLM, ids: Tensor) -> Tensor:
    """s_1..s_R of a pass, `[B, R, T, H]`."""
    with watched(model) as events:
        model(ids)
    return torch.stack([event.state for event in events], dim=1)


def greedy(model: LoopLlamaForCausalLM, ids: Tensor, new: int) -> Tensor:
    """The prompt and the likeliest tokens after it; no mark ends it."""
    model.generation_config.eos_token_id = None
    return model.generate(ids, max_new_tokens=new, do_sample=False, pad_token_id=0)


def unrolled(cache: LoopCache, values: bool = False, pairs: bool = False) -> Tensor:
    """A cache's keys (or values) as a model without loops would hold them, a layer a loop: `[layers, B, K, T, D]`.

    Args:
        pairs: with the numbers of a head in the order of a RoPE that turns neighbours.
    """
    (block,) = cache.blocks
    found = []

    def of(index: int, slot: int) -> Tensor:
        layer = cache.layers[index]
        return (layer.values if values else layer.keys)[:, :, : layer.length, slot]

    found += [of(index, 0) for index in range(block.a)]
    found += [of(index, slot) for slot in range(block.count) for index in block.layers]
    found += [of(index, 0) for index in range(block.b + 1, len(cache.layers))]
    held = torch.stack(found)
    return torch.stack(held.chunk(2, dim=-1), dim=-1).flatten(-2) if pairs else held


def by_loop(model: LoopLlamaForCausalLM, ids: Tensor, most: int) -> Tensor:
    """Logits after 1..most loops, `[B, R, T, V]`."""
    start = model.model.loop_start
    found = []
    for loops in range(1, most + 1):
        view = model.with_loop(loop_count=loops, max_loop_count=max(most, loops))
        view.model.loop_start = start
        found.append(view(ids).logits)
    return torch.stack(found, dim=1)


def _padded(model: LoopLlamaForCausalLM, given: dict[str, Tensor]) -> Tensor:
    n = len(given["padded_row1_logits"])
    return model(given["padded_input_ids"], attention_mask=given["padded_attention_mask"]).logits[1, -n:]


# --- by family ----------------------------------------------------------------------------------------------------


def _ouro(name: str) -> dict[str, Tensor]:
    given = expected(name)
    ids, R = given["input_ids"], given["logits_by_loop"].shape[1]
    model = opened(name)
    last = model.with_loop(exit_selection="last")
    cached, cache = decoded(model, ids)
    found = {
        "logits": model(ids).logits,
        "default_step": _made(model.last_pass.exits[0].steps),  # type: ignore[union-attr]
        "logits_by_loop": by_loop(last, ids, R),
        "state_normed": states_of(last, ids),
        "logits_cached": cached,
        "cache_keys": unrolled(cache),
        "cache_values": unrolled(cache, values=True),
        "padded_row1_logits": _padded(model, given),
        "loss_last_step": last(ids, labels=ids).loss,
        "greedy_ids": greedy(last.with_loop(), ids[:1, :PROMPT], 10),
    }
    found["logits_by_loop_f64"] = found["logits_by_loop"]
    found["gate_logit"] = model.model.loop_gates["0"](found["state_normed"]).squeeze(-1)
    weighted = model.with_loop(exit_selection="gate_weighted")
    found["logits_weighted"] = weighted(ids).logits
    found["loss_with_labels"] = weighted(ids, labels=ids).loss
    found["exit_pdf"] = weighted.last_pass.exits[0].pdf.transpose(0, 1)  # type: ignore[union-attr]
    found["exit_cdf"] = found["exit_pdf"].cumsum(1)
    for key in given:
        if match := re.fullmatch(r"logits_exit_q(.*)", key):
            view = model.with_loop(exit_threshold=float(match[1]))
            found[key] = view(ids).logits
            found[f"exit_step_q{match[1]}"] = _made(view.last_pass.exits[0].steps)  # type: ignore[union-attr]
    return found


def _nanbeige(name: str) -> dict[str, Tensor]:
    given = expected(name)
    ids, R = given["input_ids"], given["logits_by_loop"].shape[1]
    model = opened(name)
    cached, cache = decoded(model, ids)
    found = {
        "logits": model(ids).logits,
        "logits_f64": model(ids).logits,
        "logits_by_loop": by_loop(model, ids, R),
        "state_normed": states_of(model, ids),
        "logits_cached": cached,
        "cache_keys": unrolled(cache),
        "cache_values": unrolled(cache, values=True),
        "padded_row1_logits": _padded(model, given),
        "greedy_ids": greedy(model.with_loop(), ids[:1, :PROMPT], 10),
    }
    variants: dict[str, dict[str, Any]] = {
        "logits_skip_loop_final_norm": {"skip_loop_final_norm": True},
        "logits_loop_loss_weights": {"loop_loss_weights": [0.3, 0.2, 0.1]},
        "logits_loopsplit": {"enable_double_loop_split": True, "loop_middle_layers": 1},
    }
    return found | {key: changed(name, fields)(ids).logits for key, fields in variants.items()}


def changed(name: str, fields: dict[str, Any]) -> LoopLlamaForCausalLM:
    """The model of a folder whose config.json says something else."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(copied(name, Path(folder) / name, fields))


def copied(
    name: str, place: Path, fields: dict[str, Any], tensors: Callable[[dict[str, Tensor]], Any] | None = None
) -> Path:
    """A folder's copy whose config.json, or weights, say something else."""
    from safetensors.torch import save_file

    place.mkdir()
    raw = json.loads((DATA / name / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(raw | fields))
    if tensors is None:
        shutil.copyfile(DATA / name / "model.safetensors", place / "model.safetensors")
    else:
        weights = load_file(DATA / name / "model.safetensors")
        tensors(weights)
        save_file(weights, place / "model.safetensors")
    return place


def with_letters(name: str, place: Path) -> Path:
    """A folder's copy with a tokenizer of single letters, as many tokens as it has rows: what is opened with one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shutil.copytree(DATA / name, place)
    rows = json.loads((DATA / name / "config.json").read_text())["vocab_size"]
    letters = ["<pad>", "<s>", "</s>", *" abcdefghijklmnopqrstuvwxyz.,!?"]
    letters += [f"#{i}" for i in range(len(letters), rows)]
    inner = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **marks).save_pretrained(place)
    return place


def _zero(model: LoopLlamaForCausalLM, loops: int, **fields: Any) -> LoopLlamaForCausalLM:
    """A view that starts from zeros and keeps a slot a loop."""
    return model.with_loop(**{"loop_init": "zeros", "loop_count": loops, "virtual_layer_count": loops, **fields})


def _looplm(name: str) -> dict[str, Tensor]:
    given = expected(name)
    ids, R = given["input_ids"], given["logits_by_loop"].shape[1]
    zero = _zero(opened(name), R)
    rows = zero.with_loop(
        loop_strategy="dynamic_stop", convergence_criterion="family_rows", min_loop_count=1, max_loop_count=R
    )
    return _from_given_start(name) | {
        "logits_by_loop_zero_init": by_loop(zero, ids, R),
        "logits_rows_2_R": rows(ids).logits,
        "greedy_ids_zero_init": greedy(zero, ids[:1, :PROMPT], 10),
    }


def _from_given_start(name: str) -> dict[str, Tensor]:
    """What is computed from the start state that was given to the published code."""
    given = expected(name)
    ids, R = given["input_ids"], given["logits_by_loop"].shape[1]
    model = opened(name).with_loop(loop_count=R, virtual_layer_count=R)
    model.model.loop_start = lambda block, state: given["init_state"]
    entered: dict[int, Tensor] = {}
    (block,) = model.config.loop_blocks()
    hooks = [
        model.model.layers[index].register_forward_pre_hook(
            lambda _, args, index=index: entered.update({index: args[0]})
        )
        for index in (block.b + 1,)
    ]
    try:
        states = states_of(model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    found = {"logits_by_loop": by_loop(model, ids, R), "state_by_loop": states, "prelude_out": _prelude(model, ids)}
    if "latent_states" in given:
        found["latent_states"] = entered[block.b + 1]
    return found | {"logits_by_loop_f64": found["logits_by_loop"]}


def _prelude(model: LoopLlamaForCausalLM, ids: Tensor) -> Tensor:
    """e, `[B, T, H]`."""
    seen: list[Tensor] = []
    view = model.with_loop(loop_count=1)

    def start(block: int, state: Tensor) -> Tensor:
        seen.append(state)
        return state

    view.model.loop_start = start
    view(ids)
    return seen[0]


def _raven(name: str) -> dict[str, Tensor]:
    given = expected(name)
    ids, R = given["input_ids"], given["logits_by_loop"].shape[1]
    zero = _zero(opened(name), R)
    cached, cache = decoded(zero, ids)
    found = _from_given_start(name) | {
        "logits_by_loop_zero_init": by_loop(zero, ids, R),
        "logits_cached": cached,
        "cache_keys": unrolled(cache, pairs=name == "huginn"),
        "greedy_ids_zero_init": greedy(zero.with_loop(), ids[:1, :PROMPT], 10),
    }
    for key in given:
        if match := re.fullmatch(r"logits_cached_slots(\d)", key):
            found[key] = decoded(zero.with_loop(virtual_layer_count=int(match[1])), ids)[0]
        if match := re.fullmatch(r"adaptive_([a-z_]+)_([0-9.]+)_logits", key):
            found |= _adaptive(zero, ids[:1], match[1], match[2], R)
    return found


def _adaptive(zero: LoopLlamaForCausalLM, ids: Tensor, rule: str, threshold: str, most: int) -> dict[str, Tensor]:
    """A published stop rule, token by token through a full cache whose unreached slots hold the latest K/V."""
    view = zero.with_loop(
        loop_strategy="dynamic_stop",
        min_loop_count=1,
        max_loop_count=most,
        convergence_criterion=f"huginn_{rule}",
        criterion_threshold=float(threshold),
        unreached_slots="latest",
    )
    cache, logits, steps, values = LoopCache(view.config), [], [], []
    for part in ids.split(1, dim=1):
        logits.append(view(part, past_key_values=cache, use_cache=True).logits)
        steps.append(view.last_pass.steps[0])
        values += [told[f"huginn_{rule}"] for told in view.last_pass.measured[0].values()]
    start = f"adaptive_{rule}_{threshold}"
    return {
        f"{start}_logits": torch.cat(logits, dim=1),
        f"{start}_steps": torch.stack(steps, dim=1),
        f"{start}_values": torch.stack(values, dim=1).float(),
    }


def _made(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def difference(name: str, key: str) -> float:
    """The largest difference of a tensor from the published code's; where that has no number, this must have none either."""
    mine, theirs = computed(name)[key].double(), expected(name)[key].double()
    assert mine.shape == theirs.shape, (name, key, mine.shape, theirs.shape)
    none = torch.isnan(theirs)
    assert torch.equal(torch.isnan(mine), none), (name, key)
    return float((mine - theirs)[~none].abs().max())
