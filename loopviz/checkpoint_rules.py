"""Why a checkpoint's files are refused: rules in words under keys, as :data:`loopviz.checks.RULES` has those of fields.

Those of `config.json`, of the tensors and of the weights, whichever family they are of; pages have the same keys in other languages
(`loopviz.app.texts.checkpoints`). What is refused of downloads, tokenizers, adapters, packed layers and a GGUF file's own layout has no
rule here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from loopviz.checks import Words

OTHER = "configuration and weights belong to different checkpoints"
RULES: Mapping[str, str] = MappingProxyType(
    {
        # files
        "config_absent": "{folder}: there is no config.json; give the folder that holds it, or a .gguf file",
        "too_long": "{file}: larger than {most} MiB, which no such file is; fetch it again",
        "not_opened": "{file}: cannot be opened ({said})",
        "not_json": "{file}: is not JSON ({said}); fetch it again",
        "no_object": "{file}: expected a JSON object, found {found}; fetch it again",
        "unreadable": "{what}: cannot be read ({said})",
        "worker_ended": "{what}: cannot be read ({said}); take another checkpoint",
        "memory_out": "{what}: memory ran out while it was read; choose a smaller checkpoint, or close other programs",
        "memory": "dtype={dtype}: {name} needs about {need} GB of memory and {free} GB are free; choose a smaller checkpoint{smaller}, or "
        "close other programs",
        # what config.json says
        "kind_refused": "model_type={value} in {file}: {why}, or choose {llamas}",
        "kind_unknown": "model_type={value} in {file}: must be one of {known}; choose {llamas}",
        "architectures": "architectures={value} in {file}: must name one of {known}; choose {llamas}",
        "packed": "{field}={value} in {file}: of a published family's own names no packed weights are read; {advice}",
        "key_refused": "{field}={value} in {file}: {why}; this checkpoint cannot be loaded",
        "key_only": "{field}={value} in {file}: {why}; only {allowed} can be loaded",
        "layer_types": "layer_types={value} in {file}: every layer of a Llama is 'full_attention'",
        "hidden_act": "hidden_act={value} in {file}: not an activation transformers knows",
        "window": "{field}={value} in {file}: a Llama attends to the whole context of {context} tokens; the numbers of longer texts would "
        "be others",
        "ids": "{field}={value} in {file}: must be a token id, a list of them, or null",
        "sizes": "config.json: sizes {sizes}: each must be a whole number above 0",
        "no_llama_config": "{file}: not a Llama configuration: {said}",
        "no_family_config": "{file}: not a configuration of {family}: {said}",
        "no_llama_built": "config.json: no Llama can be built of it: {said}",
        "whole_from": "{field}={value} in {file}: must be a whole number >= {least}",
        "not_negative": "{field}={value} in {file}: must be a number >= 0",
        "share_or_null": "{field}={value} in {file}: must be a number in [0, 1], or null",
        "numbers_or_empty": "{field}={value} in {file}: must be a list of numbers, or empty",
        "head_width": "kv_channels={value} in {file}: head_dim={other} says otherwise; keep one",
        "middle_layers": "loop_middle_layers={value} in {file}: there are {layers} layers",
        "init_values": "init_values={value} in {file}: std must be a number >= 0 and embed_scale one > 0; the start state and the "
        "embeddings are scaled by them",
        "huginn_weights": "qk_bias={value} in {file}: the weights are Huginn's (they have norm_4), which has biases of queries and keys; "
        f"{OTHER}",
        "huginn_config": "qk_bias={value} in {file}: a Huginn's configuration, and the weights are a retrofitted model's (no norm_4); "
        f"{OTHER}",
        # its rotary positions
        "rope_object": "{field}={value} in {file}: must be an object, or null",
        "rope_two_kinds": "{field}={value} in {file}: rope_type and type name different rules; keep one",
        "rope_kind": "{field}: rope_type={value} in {file}: must be one of {known}; left out, the positions would be wrong",
        "rope_no_kind": "{field}={value} in {file}: names no rule (rope_type), so it cannot be read",
        "rope_key": "{field}: {key}={value} in {file}: the rule {kind} does not know it",
        "rope_partial": "{field}: partial_rotary_factor={value} in {file}: Llama rotates whole heads",
        "rope_factor": "{field}: factor={value} in {file}: the rule 'default' scales nothing",
        "rope_number": "{field}: {key}={value} in {file}: must be a number above 0",
        "rope_both": "rope_scaling and rope_parameters in {file}: say different things; keep one",
        # which files the weights are in
        "no_weights": "{folder}: has no weights ({single}, or {index} and its shards); fetch them",
        "pickle": "{folder}: has {name} but no {single}; a pickle can run any code when it is opened, so it is never read. Take a "
        "checkpoint with safetensors or a GGUF file",
        "loose_shard": "{folder}: has {name} but neither {single} nor {index}; fetch the missing file",
        "weight_map": "weight_map in {file}: must name a file for each tensor; fetch the file again",
        "shard_name": "weight_map in {file}: {name} is not the plain name of a .safetensors file beside it; do not use this checkpoint",
        "shards_absent": "{folder}: {n} of {of} shards are missing, the first is {name}; fetch them again",
        "header_long": "{file}: its header has {n} bytes, which no Llama's has; do not use it",
        "damaged": "{file}: damaged or not finished ({said}); fetch it again",
        # tensors
        "two_shards": "{name} in {folder}: is in two shards; keep the files of one checkpoint only",
        "no_floats": "dtype={value} in {folder}: only float weights ({known}) are read from safetensors; take the unquantised checkpoint, or "
        "a GGUF file of it",
        "layers_over_tensors": f"num_hidden_layers={{layers}} in {{folder}}, but there are {{n}} tensors; {OTHER}",
        "layers_other": "num_hidden_layers={layers} in {folder}, but the weights have {n} layers; "
        f"{OTHER}, or weights are missing: fetch them again",
        "tensors": "{folder}: its config.json is one of {family}, and its tensors are not: {faults}. Configuration and weights belong to "
        "different checkpoints, or a file is missing: fetch them again",
        "tensors_missing": "{folder}: {n} tensors are missing, the first is {name}; the files are not the whole checkpoint (a download cut "
        "short, or a shard left out): fetch what is missing",
        "tensors_unexpected": "{folder}: {n} tensors are unexpected, the first is {name}; {why}",
        "tensor_shape": f"{{name}} in {{folder}}: has shape {{found}}, the configuration asks for {{wanted}}; {OTHER}",
        # weights
        "no_copy": "{name}: config.json says that it is {of}, and its numbers are others; do not use it",
        "gate_nan": "{name}: the exit gate's weights are no numbers (NaN); fetch the file again",
        "gate_nan_in": "{name} in {where}: the exit gate's weights are no numbers (NaN); fetch the file again, or train a gate with `python -m "
        "loopviz gate`",
        "gate_other": "{file}: has {found}, where an exit gate for this model has {wanted}; it was trained for another model: take it away, "
        "or train one with `python -m loopviz gate`",
        "weights_unreadable": "{folder}: its weights cannot be read ({said})",
    }
)

# Parts of which a place of these rules is made, by key, with places of their own.
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "missing": "{n} missing: {names}",
        "unexpected": "{n} unexpected: {names}",
        "of another shape": "{n} of another shape: {names}",
        "shape": "{name} {found} instead of {wanted}",
        "comma": ", ",
        "parts": "; ",
        "others": "{names} and others",
    }
)


class Reason(str, Words):
    """A sentence that stands in a place of a rule, in English; pages have it in other languages under its own words."""

    def said(self, terms: Mapping[str, str]) -> str:
        """In the words of some language; in English where that has none."""
        return terms.get(str(self), str(self))


@dataclass(frozen=True)
class Phrase(Words):
    """One of :data:`WORDS` with its places filled, of which some may be phrases themselves."""

    key: str
    places: Mapping[str, object]

    def said(self, terms: Mapping[str, str]) -> str:
        """In the words of some language."""
        told = {name: value.said(terms) if isinstance(value, Words) else value for name, value in self.places.items()}
        return terms[self.key].format(**told)

    def __str__(self) -> str:
        return self.said(WORDS)


@dataclass(frozen=True)
class Phrases(Words):
    """Several, one after the other.

    Args:
        of: texts, or phrases.
        joint: key of what stands between them.
    """

    of: Sequence[object]
    joint: str = "comma"

    def said(self, terms: Mapping[str, str]) -> str:
        """In the words of some language."""
        return terms[self.joint].join(one.said(terms) if isinstance(one, Words) else str(one) for one in self.of)

    def __str__(self) -> str:
        return self.said(WORDS)
