"""What one family of published checkpoints is: how it is recognised, and what becomes of its fields and tensors.

What a loader can do (rename, split, permute, scale) is done here and needs no field of the model; what it cannot is a field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopviz.checks import is_whole
from loopviz.model.checkpoints.errors import CheckpointRuleError, Note
from loopviz.model.checkpoints.keys import Key, shown
from loopviz.model.configuration import LoopLlamaConfig


@dataclass(frozen=True)
class Part:
    """Where a parameter of the model comes from.

    Args:
        source: the stored tensor; "" for zeros.
        shape: of that tensor, whole (of the parameter, for zeros).
        rows: those that are taken, first and one past the last; `None`: all.
        change: what is done with them.
    """

    source: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    change: Callable[[Tensor], Tensor] | None = None

    def made(self, stored: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The parameter, of the stored tensor."""
        if stored is None:
            return torch.zeros(self.shape, dtype=dtype)
        values = stored if self.rows is None else stored[self.rows[0] : self.rows[1]]
        values = values if self.change is None else self.change(values)
        return values.to(dtype).clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Family:
    """One family.

    Args:
        name: for programs.
        title: for people.
        model_types: what its config.json may call itself.
        keys: rows of config.json that mean something here; before them no other row decides.
        fields: `f(raw, file, notes)`: the fields of a `LoopLlamaConfig`, of its config.json.
        sources: where each parameter of such a model comes from, by the parameter's name.
        mark: the end of a tensor's name that only this one of several families of one model type has; "": none of theirs.
        claim: a key of config.json that is true only in this one of them, for where the tensors are not there yet.
        says: what it does, for people; with `{first}`, `{last}` and `{loops}` of a checkpoint's own block.
        own: keys of config.json that no other family has, all of them: what has these is one where its model type is unknown, or absent.
        left_out: stored tensors that are no weights, or stored twice, by name: of what they must be a copy ("": a table).
    """

    name: str
    title: str
    model_types: tuple[str, ...]
    keys: tuple[Key, ...]
    fields: Callable[[Mapping[str, Any], Path, list[Note]], dict[str, Any]]
    sources: Callable[[LoopLlamaConfig], dict[str, Part]]
    mark: str = ""
    claim: str = ""
    says: str = ""
    own: tuple[str, ...] = ()
    left_out: Mapping[str, str] | None = None


def family_note(family: Family, config: LoopLlamaConfig) -> Note:
    """What a checkpoint of a family does, as it was published."""
    (block,) = config.loop_blocks()
    values = {"first": block.a, "last": block.b, "loops": config.loop_count}
    return Note(f"family.{family.name}", family.says.format(**values), values)


def count(raw: Mapping[str, Any], name: str, file: Path, default: int | None = None, least: int = 1) -> int:
    """A number of something in a config.json.

    Raises:
        CheckpointError: there is none, it is no whole number, or less than `least`.
    """
    value = raw.get(name, default)
    if not is_whole(value) or value < least:
        raise CheckpointRuleError("whole_from", field=name, value=shown(value), file=file, least=least)
    return value


def looped(a: int, b: int, loops: int) -> dict[str, Any]:
    """The loop fields that published looped models have in common: every loop keeps K/V of its own, in a slot that it alone reads."""
    return {
        "loop_layers": (a, b),
        "loop_strategy": "fixed_count",
        "loop_count": loops,
        "max_loop_count": max(10, 2 * loops),
        "kv_cache_mode": "virtual_layers",
        "virtual_layer_count": loops,
        "virtual_attention_mode": "serial",
        "unreached_slots": "latest",
    }


TIED = {"lm_head.weight": "model.embed_tokens.weight"}  # of Llama's own names, where the head is the embedding


def own_names(config: LoopLlamaConfig, norms: tuple[str, ...], more: Mapping[str, Part]) -> dict[str, Part]:
    """Sources of a model whose checkpoint has Llama's own names.

    Args:
        norms: of each layer.
        more: parameters that a Llama has not.
    """
    hidden, made, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (vocab, hidden)
    for layer in range(config.num_hidden_layers):
        of = f"model.layers.{layer}."
        projections = (
            ("q_proj", (q, hidden)),
            ("k_proj", (kv, hidden)),
            ("v_proj", (kv, hidden)),
            ("o_proj", (hidden, q)),
        )
        shapes |= {f"{of}self_attn.{name}.weight": shape for name, shape in projections}
        shapes |= {f"{of}mlp.{name}.weight": (made, hidden) for name in ("gate_proj", "up_proj")}
        shapes[f"{of}mlp.down_proj.weight"] = (hidden, made)
        shapes |= {f"{of}{name}.weight": (hidden,) for name in norms}
    return {name: Part(name, shape) for name, shape in shapes.items()} | dict(more)


def fused(
    config: LoopLlamaConfig,
    target: str,
    stored: Sequence[str],
    turn: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Part]:
    """Sources of a layer whose projections are stored together: q | k | v, and gate | up, by rows.

    Args:
        target: the layer's name in the model, with a dot at its end.
        stored: names of the tensors: q | k | v, attention's output, gate | up, the MLP's output.
        turn: what is done with the rows of queries and keys.
    """
    qkv, out, gate_up, down = stored
    hidden, made = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    all_three, both = (q + 2 * kv, hidden), (2 * made, hidden)
    return {
        f"{target}self_attn.q_proj.weight": Part(qkv, all_three, (0, q), turn),
        f"{target}self_attn.k_proj.weight": Part(qkv, all_three, (q, q + kv), turn),
        f"{target}self_attn.v_proj.weight": Part(qkv, all_three, (q + kv, q + 2 * kv)),
        f"{target}self_attn.o_proj.weight": Part(out, (hidden, q)),
        f"{target}mlp.gate_proj.weight": Part(gate_up, both, (0, made)),
        f"{target}mlp.up_proj.weight": Part(gate_up, both, (made, 2 * made)),
        f"{target}mlp.down_proj.weight": Part(down, (hidden, made)),
    }


def pairs_to_halves(head_dim: int) -> Callable[[Tensor], Tensor]:
    """Rows of queries and keys that turn with their neighbour, as rows that turn with the one half a head away (Llama's RoPE).

    Of each head the even rows first, then the odd ones: the same angles, the same scores.
    """

    def turned(values: Tensor) -> Tensor:
        by_pair = values.unflatten(0, (-1, head_dim // 2, 2))  # [heads, D/2, 2, ...]
        return by_pair.transpose(1, 2).flatten(0, 2)

    return turned
