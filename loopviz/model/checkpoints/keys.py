"""Every key of a Llama checkpoint's metadata that can change numbers or token ids, and what becomes of it here.

Weights are checked by name and shape elsewhere; these tables are the same for what is said *about* them: `config.json`,
`tokenizer_config.json` and the header of a GGUF file. A key is

* **read**: its meaning is realised (and a value that cannot be is refused by name where it is read);
* **only**: accepted with the values listed, which change nothing; any other value is refused by name;
* **harmless**: it changes neither numbers nor ids, whatever it holds;
* **refused**: it stands for something a Llama here does not compute; refused by name unless it says "nothing" (null,
  false, an empty list).

`tests/model/checkpoints/test_keys.py` has a test for each row, and fails for a row without one. Names may hold `*`.
The meaning of a `config.json` is what transformers' Llama makes of it, that of a GGUF file what llama.cpp makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from loopviz.checkpoint_rules import Reason

from .errors import CheckpointRuleError

READ, ONLY, HARMLESS, REFUSED = "read", "only", "harmless", "refused"
NOTHING: tuple[Any, ...] = (None, False, [], {}, "")


@dataclass(frozen=True)
class Key:
    """A row of a table.

    Args:
        name: the key; may hold `*`.
        verdict: `READ`, `ONLY`, `HARMLESS` or `REFUSED`.
        why: what it means, or why it is refused.
        allowed: of `ONLY`: the values that change nothing.
        example: a value such a key is found with (of `ONLY` and `REFUSED`: one that is refused).
    """

    name: str
    verdict: str
    why: str
    allowed: tuple[Any, ...] = ()
    example: Any = None


def check_keys(table: Iterable[Key], values: Mapping[str, Any], where: Path) -> list[str]:
    """Refuse what a Llama here would leave out.

    Args:
        table: rows; the first whose name fits decides.
        values: the metadata, plain Python values by key.
        where: the file, for the message.

    Returns:
        The keys no row names.

    Raises:
        CheckpointError: naming the first key that is refused, its value, and why.
    """
    rows, unknown = list(table), []
    for name, value in values.items():
        row = next((row for row in rows if fnmatchcase(str(name), row.name)), None)
        if row is None:
            unknown.append(name)
        elif row.verdict == REFUSED and not _is_any(value, NOTHING):
            raise CheckpointRuleError("key_refused", field=name, value=shown(value), file=where, why=Reason(row.why))
        elif row.verdict == ONLY and not _is_any(value, (*row.allowed, None)):
            allowed = ", ".join(map(repr, row.allowed))
            raise CheckpointRuleError(
                "key_only", field=name, value=shown(value), file=where, why=Reason(row.why), allowed=allowed
            )
    return unknown


def shown(value: Any) -> str:
    """A value for a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_any(value: Any, allowed: Iterable[Any]) -> bool:
    return any(_same(value, other) for other in allowed)


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    if isinstance(value, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(value, other, rel_tol=1e-6)  # GGUF keeps float32
    return type(value) is type(other) and value == other


_UNREAD = "a Llama here does not compute it, and left out it would change the numbers"
_MOE = "a mixture of experts is not a Llama"

_CONFIG_KEYS: tuple[Key, ...] = (
    Key("model_type", READ, "'llama' or 'loop_llama'; anything else is another architecture", example="llama"),
    Key("architectures", READ, "a causal Llama; a classifier or a draft model is not one", example=["LlamaForCausalLM"]),
    Key("auto_map", READ, "code beside the weights: never run; said in the notes", example={"AutoConfig": "x.Config"}),
    Key("vocab_size", READ, "rows of the embedding; the tokenizer must not ask for more", example=320),
    Key("hidden_size", READ, "width of the states", example=32),
    Key("intermediate_size", READ, "width of the MLPs", example=64),
    Key("num_hidden_layers", READ, "physical layers", example=3),
    Key("num_attention_heads", READ, "query heads", example=4),
    Key("num_key_value_heads", READ, "key and value heads (left out: as many as query heads)", example=2),
    Key("head_dim", READ, "width of a head (left out: hidden_size / num_attention_heads)", example=8),
    Key("hidden_act", READ, "activation of the MLPs, any that transformers knows", example="silu"),
    Key("max_position_embeddings", READ, "context", example=128),
    Key("rms_norm_eps", READ, "epsilon of the norms", example=1e-6),
    Key("tie_word_embeddings", READ, "the head is the embedding, unless the file holds another head", example=False),
    Key("attention_bias", READ, "biases of q, k, v and o", example=True),
    Key("mlp_bias", READ, "biases of the MLPs", example=True),
    Key("rope_theta", READ, "base of the rotary frequencies", example=10000.0),
    Key("rope_scaling", READ, "rule of the rotary frequencies, old spelling (`type` or `rope_type`)", example=None),
    Key("rope_parameters", READ, "rule of the rotary frequencies, new spelling", example={"rope_type": "default"}),
    Key("original_max_position_embeddings", READ, "context before a long-context rule was applied", example=64),
    Key("bos_token_id", READ, "begin mark; one no row of the embedding belongs to is dropped and said", example=0),
    Key("eos_token_id", READ, "end mark or marks; one no row of the embedding belongs to is dropped and said", example=1),
    Key("pad_token_id", READ, "nothing is padded here; one outside the embedding is dropped and said", example=0),
    Key("sliding_window", READ, "refused unless every position of the context is inside it", example=4096),
    Key("use_sliding_window", READ, "false: sliding_window is not used", example=False),
    Key("layer_types", READ, "refused unless every layer is 'full_attention'", example=["full_attention"] * 3),
    Key("partial_rotary_factor", ONLY, "Llama rotates whole heads", (1, 1.0), 0.5),
    Key("rotary_pct", ONLY, "Llama rotates whole heads", (1, 1.0), 0.25),
    Key("rope_interleaved", ONLY, "Llama in transformers rotates halves, not neighbours", (False,), True),
    Key("rope_ratio", ONLY, "multiplies rope_theta elsewhere; Llama has no such field", (1, 1.0), 4.0),
    Key("embedding_multiplier", ONLY, _UNREAD, (1, 1.0), 12.0),
    Key("residual_multiplier", ONLY, _UNREAD, (1, 1.0), 0.22),
    Key("logits_scaling", ONLY, _UNREAD, (1, 1.0), 8.0),
    Key("logit_scale", ONLY, _UNREAD, (1, 1.0), 0.0625),
    Key("scale_emb", ONLY, _UNREAD, (1, 1.0), 12),
    Key("*_multiplier*", REFUSED, _UNREAD, example=0.015625),
    Key("scale_*", REFUSED, _UNREAD, example=1.4),
    Key("dim_model_base", REFUSED, _UNREAD, example=256),
    Key("mup_*", REFUSED, _UNREAD, example=0.5),
    Key("*softcap*", REFUSED, _UNREAD, example=30.0),
    Key("qk_norm", REFUSED, "Llama has no norms of queries and keys", example=True),
    Key("use_qk_norm", REFUSED, "Llama has no norms of queries and keys", example=True),
    Key("qk_layernorm", REFUSED, "Llama has no norms of queries and keys", example=True),
    Key("clip_qkv", REFUSED, _UNREAD, example=8.0),
    Key("*alibi*", REFUSED, "Llama knows positions by rotation", example=True),
    Key("parallel_residual", REFUSED, "Llama's attention and MLP follow each other", example=True),
    Key("use_parallel_residual", REFUSED, "Llama's attention and MLP follow each other", example=True),
    Key("parallel_attn", REFUSED, "Llama's attention and MLP follow each other", example=True),
    Key("no_rope_layer*", REFUSED, "every layer of a Llama rotates", example=[1, 1, 0]),
    Key("attention_chunk_size", REFUSED, _UNREAD, example=8192),
    Key("attention_sinks", REFUSED, _UNREAD, example=True),
    Key("attn_temperature_tuning", REFUSED, _UNREAD, example=True),
    Key("residual_in_fp32", ONLY, "the residual stream has the weights' dtype", (False,), True),
    Key("use_bidirectional_attention", REFUSED, "a causal model reads from left to right", example=True),
    Key("is_causal", ONLY, "a causal model reads from left to right", (True,), False),
    Key("is_encoder_decoder", REFUSED, "not a decoder", example=True),
    Key("add_cross_attention", REFUSED, "not a plain decoder", example=True),
    Key("num_local_experts", ONLY, _MOE, (0, 1), 8),
    Key("num_experts", ONLY, _MOE, (0, 1), 8),
    Key("n_routed_experts", ONLY, _MOE, (0, 1), 64),
    Key("num_experts_per_tok", ONLY, _MOE, (0, 1), 2),
    Key("draft_vocab_size", REFUSED, "a draft model for another one", example=32000),
    Key("quantization_config", REFUSED, "quantised safetensors are not read, but for bitsandbytes' NF4 and int8; take the "
        "unquantised checkpoint, or a GGUF file of it", example={"quant_method": "gptq"}),
    Key("compression_config", REFUSED, "compressed safetensors are not read; take the uncompressed checkpoint",
        example={"quant_method": "compressed-tensors"}),
    Key("pretraining_tp", HARMLESS, "slices of the same matrix products: another order of the same sums", example=2),
    Key("dtype", HARMLESS, "dtype of training; the one to load in is asked for", example="bfloat16"),
    Key("torch_dtype", HARMLESS, "dtype of training; the one to load in is asked for", example="float16"),
    Key("bias", HARMLESS, "a bias shows in the weights", example=True),
    Key("*dropout*", HARMLESS, "nothing is dropped outside training", example=0.1),
    Key("initializer_range", HARMLESS, "of training", example=0.5),
    Key("use_cache", HARMLESS, "the caller chooses", example=False),
    Key("transformers_version", HARMLESS, "who wrote it", example="4.31.0"),
    Key("_name_or_path", HARMLESS, "who wrote it", example="somewhere/else"),
)  # fmt: skip


def __getattr__(name: str) -> tuple[Key, ...]:
    """`CONFIG_KEYS`, made when it is asked for: the loop's fields bring torch, which who reads a tokenizer does not need."""
    if name != "CONFIG_KEYS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from loopviz.model.configuration import LOOP_FIELDS

    return (*(Key(field, READ, "a field of LoopLlamaConfig") for field in LOOP_FIELDS), *_CONFIG_KEYS)


"""`config.json`. A key of no row is one that transformers' Llama does not read either."""

_TRUE_WORDS = "the tokenizer of tokenizer.json is what is used, and it does not do this"

_ARGUMENT = "an argument of transformers' own, not a setting: it would replace what tokenizer.json says"

TOKENIZER_KEYS: tuple[Key, ...] = (
    Key("bos_token", READ, "begin mark", example="<s>"),
    Key("eos_token", READ, "end mark: generation ends there, beside the marks of the model", example="</s>"),
    Key("unk_token", READ, "mark of what the vocabulary lacks", example="<s>"),
    Key("pad_token", READ, "nothing is padded here", example="</s>"),
    Key("add_bos_token", READ, "whether a text begins with the begin mark, whatever tokenizer.json says", example=True),
    Key("add_eos_token", READ, "whether a text ends with the end mark, whatever tokenizer.json says", example=True),
    Key("add_prefix_space", READ, "a blank before a text; refused where tokenizer.json does the other thing",
        example=False),
    Key("added_tokens_decoder", READ, "tokens beside the vocabulary, by id", example={}),
    Key("additional_special_tokens", READ, "more marks", example=["<s>"]),
    Key("extra_special_tokens", READ, "more marks", example=["<s>"]),
    Key("chat_template", READ, "text, or a list of named templates; must be Jinja", example="{{ messages }}"),
    Key("split_special_tokens", READ, "whether marks written in a text are cut like text", example=True),
    Key("sp_model_kwargs", REFUSED, "SentencePiece's options (sampling, for one) are not in tokenizer.json",
        example={"enable_sampling": True}),
    Key("do_lower_case", REFUSED, _TRUE_WORDS, example=True),
    Key("post_processor", REFUSED, _ARGUMENT, example={"type": "ByteLevel"}),
    Key("tokenizer_object", REFUSED, _ARGUMENT, example="x"),
    Key("tokenizer_truncation", REFUSED, _ARGUMENT, example={"max_length": 4}),
    Key("tokenizer_padding", REFUSED, _ARGUMENT, example={"length": 4}),
    Key("vocab", REFUSED, _ARGUMENT, example={"a": 0}),
    Key("merges", REFUSED, _ARGUMENT, example=["a b"]),
    Key("gguf_file", REFUSED, _ARGUMENT, example="x.gguf"),
    Key("fix_mistral_regex", REFUSED, _ARGUMENT, example=True),
    Key("tokenizer_file", HARMLESS, "where it once lay", example="/home/me/tokenizer.json"),
    Key("name_or_path", HARMLESS, "where it once lay", example="/home/me/model"),
    Key("auto_map", HARMLESS, "code beside the tokenizer: never run", example={"AutoTokenizer": ["x.T", None]}),
    Key("tokenizer_class", HARMLESS, "tokenizer.json says what is done", example="LlamaTokenizer"),
    Key("clean_up_tokenization_spaces*", HARMLESS, "of decoding; transformers leaves it out for BPE", example=True),
    Key("legacy", HARMLESS, "which conversion wrote tokenizer.json; it says what is done", example=False),
    Key("use_default_system_prompt", HARMLESS, "of templates that transformers no longer has", example=True),
    Key("model_max_length", HARMLESS, "the model's context counts", example=64),
    Key("max_length", HARMLESS, "nothing is cut here", example=8),
    Key("truncation*", HARMLESS, "nothing is cut here", example="left"),
    Key("padding*", HARMLESS, "nothing is padded here", example="left"),
    Key("spaces_between_special_tokens", HARMLESS, "of slow tokenizers", example=False),
)  # fmt: skip
"""`tokenizer_config.json`. What cuts a text into tokens is `tokenizer.json`, whole, by Hugging Face's own library."""

_OTHER_VOCABULARY = "of another kind of vocabulary, which a Llama file does not carry"
_ENCODER = "of encoders, which do not generate"

GGUF_KEYS: tuple[Key, ...] = (
    Key("general.architecture", READ, "'llama'", example="llama"),
    Key("general.alignment", READ, "where tensors begin", example=32),
    Key("general.type", ONLY, "a file of another purpose than a model", ("model",), "adapter"),
    Key("general.quantization_version", ONLY, "the layout of quantised blocks", (2,), 1),
    Key("general.*", HARMLESS, "who made it, of what, under which licence", example="a note"),
    Key("split.count", ONLY, "one of several files of a model; join them with llama-gguf-split --merge", (0, 1), 3),
    Key("split.*", HARMLESS, "which of the files it is", example=0),
    Key("adapter.*", REFUSED, "an adapter is not a model", example="lora"),
    Key("llama.block_count", READ, "layers", example=3),
    Key("llama.context_length", READ, "context", example=128),
    Key("llama.embedding_length", READ, "width of the states", example=32),
    Key("llama.feed_forward_length", READ, "width of the MLPs (a list: the same in every layer)", example=64),
    Key("llama.vocab_size", READ, "rows of the embedding (left out: as many as tokens)", example=320),
    Key("llama.attention.head_count", READ, "query heads (a list: the same in every layer)", example=4),
    Key("llama.attention.head_count_kv", READ, "key and value heads (left out: as many as query heads)", example=2),
    Key("llama.attention.key_length", READ, "width of a head (left out: embedding_length / head_count)", example=8),
    Key("llama.attention.value_length", READ, "width of a value; refused unless that of a key", example=8),
    Key("llama.attention.layer_norm_rms_epsilon", READ, "epsilon of the norms", example=1e-6),
    Key("llama.rope.dimension_count", READ, "how much of a head rotates; refused unless all of it", example=8),
    Key("llama.rope.freq_base", READ, "base of the rotary frequencies (left out: 10000)", example=10000.0),
    Key("llama.rope.scaling.type", READ, "'none', 'linear' (also when it is left out), 'yarn'; others are refused",
        example="linear"),
    Key("llama.rope.scaling.factor", READ, "positions are divided by it (0: not)", example=4.0),
    Key("llama.rope.scale_linear", READ, "old spelling of llama.rope.scaling.factor", example=4.0),
    Key("llama.rope.scaling.attn_factor", READ, "of yarn: multiplies the length of queries and keys", example=1.0),
    Key("llama.rope.scaling.original_context_length", READ, "of yarn: context before it was applied", example=64),
    Key("llama.rope.scaling.finetuned", HARMLESS, "whether the model was trained on under the scaling", example=True),
    Key("llama.rope.scaling.alpha", ONLY, _UNREAD, (0, 0.0), 1000.0),
    Key("llama.rope.scaling.yarn_log_multiplier", ONLY, _UNREAD, (0, 0.0), 0.1),
    Key("llama.rope.scaling.yarn_ext_factor", ONLY, "llama.cpp reads it in other architectures only", (-1.0, 1.0), 0.5),
    Key("llama.rope.scaling.yarn_attn_factor", ONLY, "llama.cpp reads it in other architectures only", (1.0,), 0.5),
    Key("llama.rope.scaling.yarn_beta_fast", ONLY, "llama.cpp reads it in other architectures only", (32.0,), 8.0),
    Key("llama.rope.scaling.yarn_beta_slow", ONLY, "llama.cpp reads it in other architectures only", (1.0,), 4.0),
    Key("llama.tensor_data_layout", ONLY, "queries and keys in another order", ("Meta AI original pth",), "reference"),
    Key("llama.logit_scale", ONLY, _UNREAD, (0.0, 1.0), 0.0625),
    Key("llama.embedding_scale", ONLY, _UNREAD, (0.0, 1.0), 12.0),
    Key("llama.residual_scale", ONLY, _UNREAD, (0.0, 1.0), 0.22),
    Key("llama.attention.scale", ONLY, _UNREAD, (0.0,), 0.015625),
    Key("llama.attention.sliding_window", READ, "refused unless every position of the context is inside it",
        example=4096),
    Key("llama.attention.causal", ONLY, "a causal model reads from left to right", (True,), False),
    Key("llama.pooling_type", ONLY, "of models that embed texts", (0,), 1),
    Key("llama.use_parallel_residual", ONLY, "Llama's attention and MLP follow each other", (False,), True),
    Key("llama.expert_count", ONLY, _MOE, (0,), 8),
    Key("llama.expert_used_count", ONLY, _MOE, (0,), 2),
    Key("llama.*", REFUSED, "LoopViz does not know this key, and it may change the numbers", example=1.0),
    Key("tokenizer.ggml.model", READ, "'llama' (SentencePiece) or 'gpt2' (byte-level BPE); others are refused",
        example="gpt2"),
    Key("tokenizer.ggml.pre", READ, "how text is cut before merging; a name without exact rules here is refused",
        example="default"),
    Key("tokenizer.ggml.tokens", READ, "the vocabulary", example=[]),
    Key("tokenizer.ggml.scores", READ, "SentencePiece: which pair is merged first", example=[]),
    Key("tokenizer.ggml.token_type", READ, "mark, byte, own word or plain piece", example=[]),
    Key("tokenizer.ggml.merges", READ, "byte-level BPE: which pair is merged first", example=[]),
    Key("tokenizer.ggml.bos_token_id", READ, "begin mark", example=0),
    Key("tokenizer.ggml.eos_token_id", READ, "end mark", example=1),
    Key("tokenizer.ggml.eot_token_id", READ, "end of a turn: generation ends there too", example=1),
    Key("tokenizer.ggml.eom_token_id", READ, "end of a message: generation ends there too", example=1),
    Key("tokenizer.ggml.unknown_token_id", READ, "mark of what the vocabulary lacks", example=0),
    Key("tokenizer.ggml.padding_token_id", READ, "nothing is padded here", example=0),
    Key("tokenizer.ggml.fim_pad_token_id", READ, "of filling in: generation ends there too", example=1),
    Key("tokenizer.ggml.fim_rep_token_id", READ, "of filling in: generation ends there too", example=1),
    Key("tokenizer.ggml.fim_sep_token_id", READ, "of filling in: generation ends there too", example=1),
    Key("tokenizer.ggml.add_bos_token", READ, "whether a text begins with the begin mark", example=True),
    Key("tokenizer.ggml.add_eos_token", READ, "whether a text ends with the end mark", example=True),
    Key("tokenizer.ggml.add_space_prefix", READ, "SentencePiece: a blank before a text; byte-level: only false",
        example=False),
    Key("tokenizer.chat_template", READ, "must be Jinja", example="{{ messages }}"),
    Key("tokenizer.chat_template.*", READ, "a chat template by name", example="{{ messages }}"),
    Key("tokenizer.chat_templates", READ, "names of the chat templates", example=[]),
    Key("tokenizer.ggml.remove_extra_whitespaces", REFUSED, "llama.cpp collapses blanks in T5's vocabularies only",
        example=True),
    Key("tokenizer.ggml.precompiled_charsmap", REFUSED, "llama.cpp normalises text in T5's vocabularies only",
        example=[1, 2, 3, 4]),
    Key("tokenizer.ggml.normalizer.*", REFUSED, _ENCODER, example=True),
    Key("tokenizer.ggml.add_sep_token", REFUSED, _ENCODER, example=True),
    Key("tokenizer.ggml.suppress_tokens", REFUSED, "tokens that are never to be generated", example=[5]),
    Key("tokenizer.rwkv.*", REFUSED, _OTHER_VOCABULARY, example="world"),
    Key("tokenizer.ggml.seperator_token_id", HARMLESS, _ENCODER, example=1),
    Key("tokenizer.ggml.cls_token_id", HARMLESS, _ENCODER, example=1),
    Key("tokenizer.ggml.mask_token_id", HARMLESS, _ENCODER, example=1),
    Key("tokenizer.ggml.token_type_count", HARMLESS, _ENCODER, example=1),
    Key("tokenizer.ggml.fim_*_token_id", HARMLESS, "of filling in, which nothing here asks for", example=1),
    Key("tokenizer.ggml.prefix_token_id", HARMLESS, "of filling in, which nothing here asks for", example=1),
    Key("tokenizer.ggml.suffix_token_id", HARMLESS, "of filling in, which nothing here asks for", example=1),
    Key("tokenizer.ggml.middle_token_id", HARMLESS, "of filling in, which nothing here asks for", example=1),
    Key("tokenizer.huggingface.json", HARMLESS, "the same tokenizer once more; llama.cpp reads tokenizer.ggml.*",
        example="{}"),
    Key("tokenizer.*", REFUSED, "LoopViz does not know this key, and it may change the token ids", example=True),
)  # fmt: skip
"""The metadata of a GGUF file. A key of no row belongs to no family that can change numbers or ids (`quantize.*`, ...)."""
