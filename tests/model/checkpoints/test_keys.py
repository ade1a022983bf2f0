"""A test for every row of the metadata tables: read with its meaning, harmless, or refused by name with its value.

A row without a test fails `test_every_key_that_is_read_has_a_test`; the other verdicts are tested from the table itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from loopviz.model.checkpoints import keys
from loopviz.model.checkpoints.keys import CONFIG_KEYS, GGUF_KEYS, TOKENIZER_KEYS, Key
from loopviz.model.checkpoints.load import CheckpointError, LoadedCheckpoint, load_checkpoint
from loopviz.model.configuration import LOOP_FIELDS
from tests.conftest import make_llama, make_tokenizer
from tests.model.checkpoints.test_gguf import write_gguf
from tests.model.checkpoints.test_load import edit_json

IDS = torch.arange(2, 82)[None]  # long enough for every rule of positions to show
TEXT = "The loop went round, 12 times 循环"
MakeFolder = Callable[..., Path]
# A key as files spell it, for rows whose name is a pattern.
SPELLED = {
    "*_multiplier*": "attention_multiplier",
    "scale_*": "scale_depth",
    "mup_*": "mup_scale",
    "*softcap*": "final_logit_softcapping",
    "*alibi*": "use_alibi",
    "no_rope_layer*": "no_rope_layers",
    "*dropout*": "attention_dropout",
    "clean_up_tokenization_spaces*": "clean_up_tokenization_spaces",
    "truncation*": "truncation_side",
    "padding*": "padding_side",
    "general.*": "general.name",
    "split.*": "split.no",
    "adapter.*": "adapter.type",
    "llama.*": "llama.never_heard_of",
    "tokenizer.ggml.normalizer.*": "tokenizer.ggml.normalizer.lowercase",
    "tokenizer.rwkv.*": "tokenizer.rwkv.world",
    "tokenizer.ggml.fim_*_token_id": "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.*": "tokenizer.ggml.never_heard_of",
    "tokenizer.chat_template.*": "tokenizer.chat_template.tool_use",
}


def spelled(key: Key) -> str:
    return SPELLED.get(key.name, key.name)


def rows(table: tuple[Key, ...], verdict: str) -> list[Any]:
    return [pytest.param(key, id=key.name) for key in table if key.verdict == verdict]


def same(loaded: LoadedCheckpoint, llama: LlamaForCausalLM) -> bool:
    return torch.allclose(loaded.model(IDS).logits, llama(IDS).logits, rtol=0, atol=1e-5)


def folder_of(llama: LlamaForCausalLM, place: Path, **config: Any) -> Path:
    """A folder of `llama` with the tiny tokenizer; fields of its config.json changed (None: taken out)."""
    llama.save_pretrained(place)
    make_tokenizer().save_pretrained(place)
    edit_json(place / "config.json", **config)
    return place


def set_json(file: Path, key: str, value: Any) -> None:
    """Write a value as it is, null too."""
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))


def gguf_of(place: Path, llama: LlamaForCausalLM | None = None, /, drop: tuple[str, ...] = (), **meta: Any) -> Path:
    """A GGUF file of `llama` with metadata changed; keyword names have `__` for a dot."""

    def change(values: dict[str, Any], tensors: dict[str, Any]) -> None:
        for key in drop:
            values.pop(key)
        values.update({key.replace("__", "."): value for key, value in meta.items()})

    return write_gguf(place / "tiny.gguf", llama or make_llama(), make_tokenizer(), change)


# --- the tables themselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [CONFIG_KEYS, TOKENIZER_KEYS, GGUF_KEYS], ids=["config", "tokenizer", "gguf"])
def test_each_row_decides_the_key_it_names(table: tuple[Key, ...]) -> None:
    for key in table:
        assert next(row for row in table if fnmatchcase(spelled(key), row.name)) is key
        assert key.why
        assert key.verdict in ("read", "only", "harmless", "refused")
        assert (key.verdict == "only") == bool(key.allowed)


def test_every_key_that_is_read_has_a_test() -> None:
    read = {key.name for table in (CONFIG_KEYS, TOKENIZER_KEYS, GGUF_KEYS) for key in table if key.verdict == "read"}
    assert read == {*READ_CONFIG, *READ_TOKENIZER, *READ_GGUF, *LOOP_FIELDS}


def test_an_unknown_key_of_no_family_is_let_through(tmp_path: Path) -> None:
    llama = make_llama()
    assert same(load_checkpoint(folder_of(llama, tmp_path / "a", unsloth_version="2024.9")), llama)
    (tmp_path / "b").mkdir()
    assert same(load_checkpoint(gguf_of(tmp_path / "b", quantize__imatrix__file="x.dat")), llama)


# --- config.json -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", rows(CONFIG_KEYS, keys.HARMLESS))
def test_harmless_in_config(tmp_path: Path, key: Key) -> None:
    llama = make_llama()
    assert same(load_checkpoint(folder_of(llama, tmp_path / "f", **{spelled(key): key.example})), llama)


@pytest.mark.parametrize("key", [*rows(CONFIG_KEYS, keys.REFUSED), *rows(CONFIG_KEYS, keys.ONLY)])
def test_refused_in_config(tmp_path: Path, key: Key) -> None:
    llama, name = make_llama(), spelled(key)
    folder = folder_of(llama, tmp_path / "f", **{name: key.example})
    with pytest.raises(CheckpointError, match=rf"^{re.escape(f'{name}={key.example!r}'[:60])}.* in .*config\.json: "):
        load_checkpoint(folder)
    for nothing in (None, *key.allowed):
        set_json(folder / "config.json", name, nothing)
        assert same(load_checkpoint(folder), llama)


def _rope(rule: dict[str, Any]) -> Callable[[Path], None]:
    """The rule in today's spelling and in both old ones: as transformers' Llama, and not as one without the rule."""

    def check(tmp_path: Path) -> None:
        llama, plain = make_llama(rope_parameters={"rope_theta": 1e4, **rule}), make_llama()
        assert not torch.allclose(llama(IDS).logits, plain(IDS).logits, atol=1e-3)
        assert same(load_checkpoint(folder_of(llama, tmp_path / "new")), llama)
        parts = {key: value for key, value in rule.items() if key != "rope_type"}
        for name in ("type", "rope_type"):
            old = {name: rule["rope_type"], **parts}
            folder = folder_of(llama, tmp_path / name, rope_parameters=None, rope_theta=1e4, rope_scaling=old)
            assert same(load_checkpoint(folder), llama)

    return check


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
RULES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": YARN,
    "yarn_beta": {**YARN, "beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 0.7},
    "longrope": {
        **{"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 4.0], "long_factor": [2.0, 3.0, 5.0, 9.0]},
        **{"original_max_position_embeddings": 64, "factor": 2.0},
    },
    "llama3": {
        **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        **{"original_max_position_embeddings": 64},
    },
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_of_positions_in_every_spelling(tmp_path: Path, rule: dict[str, Any]) -> None:
    shape = {} if rule["rope_type"] != "dynamic" else {"max_position_embeddings": 64}
    if shape:  # dynamic only acts beyond the context
        llama = make_llama(rope_parameters={"rope_theta": 1e4, **rule}, **shape)
        assert not torch.allclose(llama(IDS).logits, make_llama(**shape)(IDS).logits, atol=1e-3)
        assert same(load_checkpoint(folder_of(llama, tmp_path / "new")), llama)
    else:
        _rope(rule)(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_scaling": {"type": "su", "factor": 4.0}}, r"rope_type='su'.*'linear', 'dynamic', 'yarn'"),
        ({"rope_scaling": {"rope_type": "mrope", "mrope_section": [1, 1]}}, "rope_type='mrope'"),
        ({"rope_scaling": {"rope_type": "proportional"}}, "rope_type='proportional'"),
        ({"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 4.0}}, "name different rules"),
        ({"rope_scaling": {"factor": 4.0}}, "names no rule"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, "factor='4'.*number above 0"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor=0.*number above 0"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0, "mscale": 1.0}}, "mscale=1.0.*'linear' does not know it"),
        ({"rope_scaling": {"type": "default", "factor": 4.0}}, "scales nothing"),
        ({"rope_scaling": "linear"}, "rope_scaling='linear'.*must be an object"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "say different things"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": -1.0}}, "rope_theta=-1.0.*above 0"),
    ],
)
def test_a_rule_of_positions_that_cannot_be_realised_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    keep = "different things" in said
    drop = {} if keep or "rope_parameters" in changes else {"rope_parameters": None}
    llama = (
        make_llama(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}) if keep else make_llama()
    )
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(folder_of(llama, tmp_path / "f", **drop, **changes))


def _as_transformers(**shape: Any) -> Callable[[Path], None]:
    """Loads as transformers' Llama of that configuration, which computes other logits than one without the field."""

    def check(tmp_path: Path) -> None:
        llama = make_llama(**shape)
        for name, parameter in llama.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
        loaded = load_checkpoint(folder_of(llama, tmp_path / "f"))
        assert same(loaded, llama)
        assert not same(load_checkpoint(folder_of(make_llama(), tmp_path / "plain")), llama)
        assert all(getattr(loaded.model.config, name) == value for name, value in shape.items())

    return check


def _refuses(said: str, **config: Any) -> Callable[[Path], None]:
    def check(tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(folder_of(make_llama(), tmp_path / "refused", **config))

    return check


def _both(*checks: Callable[[Path], None]) -> Callable[[Path], None]:
    def check(tmp_path: Path) -> None:
        for number, one in enumerate(checks):
            (tmp_path / str(number)).mkdir()
            one(tmp_path / str(number))

    return check


def _loads(note: str | None = None, **config: Any) -> Callable[[Path], None]:
    """Loads as the same Llama, with that said of it."""

    def check(tmp_path: Path) -> None:
        llama = make_llama()
        loaded = load_checkpoint(folder_of(llama, tmp_path / "f", **config))
        assert same(loaded, llama)
        assert [n.code for n in loaded.notes] == ([note] if note else [])
        assert note is None or all(
            str(value) in str(loaded.notes[0]) for value in config.values() if type(value) is int
        )

    return check


def _ends(tmp_path: Path) -> None:
    loaded = load_checkpoint(folder_of(make_llama(), tmp_path / "f", eos_token_id=[5, 1]))
    (tmp_path / "f" / "generation_config.json").unlink()
    assert load_checkpoint(tmp_path / "f").model.generation_config.eos_token_id == [5, 1]
    assert 1 in loaded.model.config.eos_token_id


def _left_out(name: str, **shape: Any) -> Callable[[Path], None]:
    """Of a field that has a default by others: left out, the same model."""

    def check(tmp_path: Path) -> None:
        llama = make_llama(**shape)
        assert same(load_checkpoint(folder_of(llama, tmp_path / "f", **{name: None})), llama)

    return check


READ_CONFIG: dict[str, Callable[[Path], None]] = {
    "model_type": _refuses("model_type='mistral'", model_type="mistral"),
    "architectures": _both(
        _refuses(r"architectures=\['LlamaForSequenceClassification'\]", architectures=["LlamaForSequenceClassification"]),
        _refuses("architectures=", architectures=["LlamaForCausalLMEagle3"]),
        _loads(architectures=["LLaMAForCausalLM"]),
    ),
    "auto_map": _loads("code_ignored", auto_map={"AutoModelForCausalLM": "evil.Model"}),
    "vocab_size": _refuses(r"has shape \(320, 32\), the configuration asks for \(400, 32\)", vocab_size=400),
    "hidden_size": _as_transformers(hidden_size=64),
    "intermediate_size": _as_transformers(intermediate_size=48),
    "num_hidden_layers": _as_transformers(num_hidden_layers=2),
    "num_attention_heads": _as_transformers(num_attention_heads=2),
    "num_key_value_heads": _both(_as_transformers(num_key_value_heads=1), _left_out("num_key_value_heads", num_key_value_heads=4)),
    "head_dim": _both(_as_transformers(head_dim=16), _left_out("head_dim")),
    "hidden_act": _both(_as_transformers(hidden_act="gelu"), _refuses("hidden_act='squiglu'", hidden_act="squiglu")),
    "max_position_embeddings": _refuses("max_position_embeddings", max_position_embeddings="long"),
    "rms_norm_eps": _as_transformers(rms_norm_eps=0.1),
    "tie_word_embeddings": _as_transformers(tie_word_embeddings=True),
    "attention_bias": _both(_as_transformers(attention_bias=True), _refuses("are missing", attention_bias=True)),
    "mlp_bias": _both(_as_transformers(mlp_bias=True), _refuses("are missing", mlp_bias=True)),
    "rope_theta": lambda tmp_path: _theta(tmp_path),
    "rope_scaling": _rope(RULES["linear"]),
    "rope_parameters": _rope(RULES["llama3"]),
    "original_max_position_embeddings": lambda tmp_path: _original(tmp_path),
    "bos_token_id": _both(
        _loads("bos_token_id_dropped", bos_token_id=320),
        _loads("bos_token_id_dropped", bos_token_id=-1),
        _refuses("bos_token_id='<s>'.*token id", bos_token_id="<s>"),
    ),
    "eos_token_id": _both(
        _ends, _loads("eos_token_id_dropped", eos_token_id=320), _refuses(r"eos_token_id=\[1.5\]", eos_token_id=[1.5])
    ),
    "pad_token_id": _both(
        _loads("pad_token_id_dropped", pad_token_id=320),
        _loads("pad_token_id_dropped", pad_token_id=-1),
        _loads(pad_token_id=319),
    ),
    "sliding_window": _both(_refuses("sliding_window=16.*whole context of 128", sliding_window=16), _loads(sliding_window=128)),
    "use_sliding_window": _both(
        _loads(sliding_window=16, use_sliding_window=False), _refuses("sliding_window=16", sliding_window=16, use_sliding_window=True)
    ),
    "layer_types": _both(
        _refuses("layer_types='sliding_attention'", layer_types=["full_attention", "sliding_attention", "full_attention"]),
        _loads(layer_types=["full_attention"] * 3),
    ),
}  # fmt: skip


def _theta(tmp_path: Path) -> None:
    llama = make_llama(rope_parameters={"rope_type": "default", "rope_theta": 50.0})
    assert same(load_checkpoint(folder_of(llama, tmp_path / "f", rope_parameters=None, rope_theta=50.0)), llama)
    assert not same(load_checkpoint(folder_of(llama, tmp_path / "g", rope_parameters=None)), llama)


def _original(tmp_path: Path) -> None:
    llama = make_llama(rope_parameters={**YARN, "rope_theta": 1e4})
    rule = {"type": "yarn", "factor": 4.0}
    config = {"rope_parameters": None, "rope_scaling": rule, "original_max_position_embeddings": 32}
    folder = folder_of(llama, tmp_path / "f", **config)
    assert same(load_checkpoint(folder), LlamaForCausalLM.from_pretrained(folder).eval())
    assert same(load_checkpoint(folder), llama)


@pytest.mark.parametrize("name", READ_CONFIG)
def test_read_in_config(tmp_path: Path, name: str) -> None:
    READ_CONFIG[name](tmp_path)


@pytest.mark.parametrize("name", LOOP_FIELDS)
def test_a_field_of_the_loop_is_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "f"
    loaded = load_checkpoint(folder_of(make_llama(), tmp_path / "llama"), loop_layers=(1, 1))
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    set_json(folder / "config.json", name, {"no": "such value"})
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(folder)


# --- tokenizer_config.json ---------------------------------------------------------------------------------------


def tokenizer_folder(place: Path, **said: Any) -> Path:
    folder = folder_of(make_llama(), place)
    for key, value in said.items():
        set_json(folder / "tokenizer_config.json", key, value)
    return folder


@pytest.mark.parametrize("key", rows(TOKENIZER_KEYS, keys.HARMLESS))
def test_harmless_in_tokenizer_config(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, key: Key) -> None:
    tokenizer = load_checkpoint(tokenizer_folder(tmp_path / "f", **{spelled(key): key.example})).tokenizer
    for text in (TEXT, TEXT * 3):
        assert tokenizer(text).input_ids == tiny_tokenizer(text).input_ids


@pytest.mark.parametrize("key", rows(TOKENIZER_KEYS, keys.REFUSED))
def test_refused_in_tokenizer_config(tmp_path: Path, key: Key) -> None:
    folder = tokenizer_folder(tmp_path / "f", **{spelled(key): key.example})
    with pytest.raises(
        CheckpointError, match=rf"^{re.escape(f'{spelled(key)}={key.example!r}')} in .*tokenizer_config"
    ):
        load_checkpoint(folder)


def _tokenizer(check: Callable[[PreTrainedTokenizerFast], Any], **said: Any) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        assert check(load_checkpoint(tokenizer_folder(tmp_path / "f", **said)).tokenizer)

    return run


def _tokenizer_refused(said: str, **values: Any) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(tokenizer_folder(tmp_path / "f", **values))

    return run


ADDED = {
    "5": {"content": "$", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False, "special": True}
}
READ_TOKENIZER: dict[str, Callable[[Path], None]] = {
    "bos_token": _tokenizer(lambda t: t.bos_token_id == 1, bos_token="</s>"),
    "eos_token": _tokenizer(lambda t: t.eos_token_id == 0, eos_token="<s>"),
    "unk_token": _tokenizer(lambda t: t.unk_token_id == 0, unk_token="<s>"),
    "pad_token": _tokenizer(lambda t: t.pad_token_id == 1, pad_token="</s>"),
    "add_bos_token": _both(
        _tokenizer(lambda t: t("a").input_ids[0] == 0 and len(t("a").input_ids) == 2, add_bos_token=True),
        _tokenizer(lambda t: len(t("a").input_ids) == 1, add_bos_token=False),
        _tokenizer_refused("add_bos_token=True.*no bos_token", add_bos_token=True, bos_token=None),
    ),
    "add_eos_token": _both(
        _tokenizer(lambda t: t("a").input_ids[1:] == [1], add_eos_token=True),
        _tokenizer(lambda t: t("a").input_ids[::2] == [0, 1], add_eos_token=True, add_bos_token=True),
    ),
    "add_prefix_space": _both(
        _tokenizer(lambda t: t("a").input_ids == make_tokenizer()("a").input_ids, add_prefix_space=False),
        _tokenizer_refused("add_prefix_space=True.*tokenizer.json puts no blank", add_prefix_space=True),
    ),
    "added_tokens_decoder": _tokenizer(lambda t: t.added_tokens_decoder[5].lstrip, added_tokens_decoder=ADDED),
    "additional_special_tokens": _tokenizer(lambda t: "<s>" in t.all_special_tokens, additional_special_tokens=["<s>"]),
    "extra_special_tokens": _tokenizer(lambda t: "the" in t.all_special_tokens, extra_special_tokens=["the"]),
    "chat_template": lambda tmp_path: _templates(tmp_path),
    "split_special_tokens": _tokenizer(lambda t: len(t("<s>").input_ids) > 1, split_special_tokens=True),
}  # fmt: skip


def _templates(tmp_path: Path) -> None:
    """In tokenizer_config.json, as text and by name; in its own file; broken in either."""
    said, places = [{"role": "user", "content": "hi"}], iter("abcdefgh")

    def folder(**values: Any) -> Path:
        place = tokenizer_folder(tmp_path / next(places), **values)
        (place / "chat_template.jinja").unlink(missing_ok=True)
        return place

    def rendered(place: Path) -> str:
        return load_checkpoint(place).tokenizer.apply_chat_template(said, tokenize=False)

    assert rendered(folder(chat_template="<{{ messages[0].content }}>")) == "<hi>"
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    assert rendered(folder(chat_template=named)) == "d"
    own = folder(chat_template="from the configuration")
    (own / "chat_template.jinja").write_text("{% generation %}own{% endgeneration %}")
    assert rendered(own) == "own"
    (own / "chat_template.jinja").write_text("{% if %}")
    for broken in (own, folder(chat_template="{{ 'x' ")):
        with pytest.raises(CheckpointError, match=r"chat_template 'default' in .*not a Jinja template"):
            load_checkpoint(broken)


@pytest.mark.parametrize("name", READ_TOKENIZER)
def test_read_in_tokenizer_config(tmp_path: Path, name: str) -> None:
    READ_TOKENIZER[name](tmp_path)


# --- GGUF --------------------------------------------------------------------------------------------------------


def gguf_value(key: Key, value: Any) -> dict[str, Any]:
    return {spelled(key).replace(".", "__"): value}


@pytest.mark.parametrize("key", rows(GGUF_KEYS, keys.HARMLESS))
def test_harmless_in_gguf(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, key: Key) -> None:
    llama = make_llama()
    loaded = load_checkpoint(gguf_of(tmp_path, llama, tokenizer__ggml__pre="gpt-2", **gguf_value(key, key.example)))
    assert same(loaded, llama)
    assert loaded.tokenizer(TEXT).input_ids == tiny_tokenizer(TEXT).input_ids


@pytest.mark.parametrize("key", [*rows(GGUF_KEYS, keys.REFUSED), *rows(GGUF_KEYS, keys.ONLY)])
def test_refused_in_gguf(tmp_path: Path, key: Key) -> None:
    llama, name = make_llama(), spelled(key)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(name)}=.* in .*tiny\.gguf: "):
        load_checkpoint(gguf_of(tmp_path, llama, **gguf_value(key, key.example)))
    for allowed in key.allowed:
        assert same(load_checkpoint(gguf_of(tmp_path, llama, **gguf_value(key, allowed))), llama)


def _gguf(check: Callable[[LoadedCheckpoint], Any], drop: tuple[str, ...] = (), **meta: Any) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        assert check(load_checkpoint(gguf_of(tmp_path, drop=drop, **meta)))

    return run


def _gguf_refused(said: str, drop: tuple[str, ...] = (), **meta: Any) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(gguf_of(tmp_path, drop=drop, **meta))

    return run


def _gguf_llama(
    drop: tuple[str, ...] = (), *, meta: dict[str, Any] | None = None, **shape: Any
) -> Callable[[Path], None]:
    """The same logits as the Llama of that shape, which are not those of a plain one."""

    def run(tmp_path: Path) -> None:
        llama = make_llama(**shape)
        assert same(load_checkpoint(gguf_of(tmp_path, llama, drop=drop, **(meta or {}))), llama)
        if shape:
            assert not torch.allclose(llama(IDS).logits, make_llama()(IDS).logits, atol=1e-3)

    return run


def _gguf_rope(rule: dict[str, Any], **meta: Any) -> Callable[[Path], None]:
    """Written as a plain Llama with that metadata, it is the Llama of that rule."""

    def run(tmp_path: Path) -> None:
        llama = make_llama(rope_parameters={"rope_theta": 1e4, **rule})
        assert same(load_checkpoint(gguf_of(tmp_path, **meta)), llama)

    return run


def _ids(loaded: LoadedCheckpoint, text: str = "a") -> list[int]:
    return loaded.tokenizer(text).input_ids


def _ends_at(loaded: LoadedCheckpoint) -> set[int]:
    ends = loaded.model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}


def _mark(name: str, check: Callable[[LoadedCheckpoint, int], Any]) -> Callable[[Path], None]:
    """A mark's id: read; outside the vocabulary left out and said; no number refused."""
    key = f"tokenizer__ggml__{name}_token_id"
    return _both(
        _gguf(lambda loaded: check(loaded, 7), **{key: 7}),
        _gguf(lambda loaded: loaded.notes[0].code == f"{name}_token_id_dropped", **{key: 320}),
        _gguf_refused(rf"{name}_token_id='x'.*token id", **{key: "x"}),
    )


S = "llama__rope__scaling__"
LINEAR = {"rope_type": "linear", "factor": 4.0}
READ_GGUF: dict[str, Callable[[Path], None]] = {
    "general.architecture": _gguf_refused("general.architecture='mistral3'", general__architecture="mistral3"),
    "general.alignment": _gguf_refused("general.alignment=33", general__alignment=33),
    "llama.block_count": _gguf_refused("num_hidden_layers=2", llama__block_count=2),
    "llama.context_length": _gguf(lambda x: x.model.config.max_position_embeddings == 99, llama__context_length=99),
    "llama.embedding_length": _gguf_llama(hidden_size=64),
    "llama.feed_forward_length": _both(
        _gguf_llama(intermediate_size=48),
        _gguf_llama(meta={"llama__feed_forward_length": [64, 64, 64]}),
        _gguf_refused(r"feed_forward_length=\[64, 32, 64\].*same in every layer", llama__feed_forward_length=[64, 32, 64]),
    ),
    "llama.vocab_size": _both(_gguf_llama(("llama.vocab_size",)), _gguf_refused("has shape", llama__vocab_size=400)),
    "llama.attention.head_count": _gguf_llama(num_attention_heads=2),
    "llama.attention.head_count_kv": _both(
        _gguf_llama(num_key_value_heads=1), _gguf_llama(("llama.attention.head_count_kv",), num_key_value_heads=4)
    ),
    "llama.attention.key_length": _gguf_llama(
        head_dim=16, meta={"llama__attention__key_length": 16, "llama__attention__value_length": 16}
    ),
    "llama.attention.value_length": _gguf_refused("value_length=4.*keys are 8 wide", llama__attention__value_length=4),
    "llama.attention.layer_norm_rms_epsilon": _both(
        _gguf_llama(rms_norm_eps=0.1),
        _gguf_refused("lack llama.attention.layer_norm_rms_eps", ("llama.attention.layer_norm_rms_epsilon",)),
    ),
    "llama.rope.dimension_count": _both(
        _gguf_llama(("llama.rope.dimension_count",)),
        _gguf_refused(
            "dimension_count=4.*rotated parts", llama__rope__dimension_count=4, llama__attention__key_length=8
        ),
    ),
    "llama.rope.freq_base": _both(
        _gguf_llama(rope_parameters={"rope_type": "default", "rope_theta": 50.0}),
        _gguf_llama(("llama.rope.freq_base",)),
        _gguf_refused("freq_base=0 .*must be above 0", llama__rope__freq_base=0.0),
    ),
    "llama.rope.scaling.type": _both(
        _gguf_rope({"rope_type": "default"}, **{S + "type": "none", S + "factor": 4.0}),
        _gguf_rope(LINEAR, **{S + "type": "linear", S + "factor": 4.0}),
        _gguf_refused("scaling.type='longrope'", **{S + "type": "longrope"}),
        _gguf_refused("scaling.type='dynamic'", **{S + "type": "dynamic"}),
    ),
    "llama.rope.scaling.factor": _both(
        _gguf_rope(LINEAR, **{S + "factor": 4.0}),
        _gguf_rope({"rope_type": "default"}, **{S + "factor": 0.0}),
        _gguf_refused("factor=-2", **{S + "factor": -2.0}),
    ),
    "llama.rope.scale_linear": _both(
        _gguf_rope(LINEAR, llama__rope__scale_linear=4.0),
        _gguf_rope(LINEAR, llama__rope__scale_linear=2.0, **{S + "factor": 4.0}),
        _gguf_rope({"rope_type": "default"}, llama__rope__scale_linear=2.0, **{S + "factor": 0.0}),
    ),
    "llama.rope.scaling.attn_factor": _both(
        _gguf_rope(
            {**YARN, "attention_factor": 0.5 * (1 + 0.1 * 1.3862943611)},
            **{S + "type": "yarn", S + "factor": 4.0, S + "original_context_length": 32, S + "attn_factor": 0.5},
        ),
        _gguf_refused("attn_factor=0.5", **{S + "attn_factor": 0.5}),
    ),
    "llama.rope.scaling.original_context_length": _both(
        _gguf_rope(YARN, **{S + "type": "yarn", S + "factor": 4.0, S + "original_context_length": 32}),
        _gguf_rope({**YARN, "original_max_position_embeddings": 128}, **{S + "type": "yarn", S + "factor": 4.0}),
    ),
    "llama.attention.sliding_window": _both(
        _gguf_refused("sliding_window=16.*whole context of 128", llama__attention__sliding_window=16),
        _gguf_llama(meta={"llama__attention__sliding_window": 128}),
    ),
    "tokenizer.ggml.model": _both(
        _gguf_refused("tokenizer.ggml.model='bert'", tokenizer__ggml__model="bert"),
        _gguf_refused("tokenizer.ggml.model=None", ("tokenizer.ggml.model",)),
    ),
    "tokenizer.ggml.pre": _both(
        _gguf_refused("tokenizer.ggml.pre='kimi-k2'.*smollm", tokenizer__ggml__pre="kimi-k2"),
        _gguf(lambda x: x.notes[0].code == "pretokenizer_missing", ("tokenizer.ggml.pre",)),
        _gguf(lambda x: len(_ids(x, "12")) == 2, tokenizer__ggml__pre="smollm"),
    ),
    "tokenizer.ggml.tokens": _both(
        _gguf_refused("holds no tokenizer", ("tokenizer.ggml.tokens",)),
        _gguf_refused("'a' is there twice, as 1 and 2", tokenizer__ggml__tokens=["b", "a", "a"] + ["x"] * 317),
    ),
    "tokenizer.ggml.scores": _gguf_refused(
        "lack tokenizer.ggml.scores", tokenizer__ggml__model="llama", tokenizer__ggml__unknown_token_id=0
    ),
    "tokenizer.ggml.token_type": _both(
        _gguf_refused(r"token_type in .*list of 320 numbers", tokenizer__ggml__token_type=[1, 1]),
        _gguf(lambda x: _ids(x, "x<s>")[1:] == [0]),
        _gguf(lambda x: x.tokenizer.added_tokens_decoder[40].special, tokenizer__ggml__token_type=[1] * 40 + [3] * 280),
        _gguf(
            lambda x: not x.tokenizer.added_tokens_decoder[40].special, tokenizer__ggml__token_type=[1] * 40 + [4] * 280
        ),
        _gguf(lambda x: 40 not in x.tokenizer.added_tokens_decoder, tokenizer__ggml__token_type=[1] * 320),
    ),
    "tokenizer.ggml.merges": _both(
        _gguf_refused("merges in .*list of texts", ("tokenizer.ggml.merges",)),
        _gguf_refused("merges in .*'q zz' joins what is not", tokenizer__ggml__merges=["q zz"]),
        _gguf(lambda x: len(_ids(x, "the")) == 3, tokenizer__ggml__merges=["Ġ t"]),
    ),
    "tokenizer.ggml.bos_token_id": _mark("bos", lambda x, i: x.tokenizer.bos_token_id == i),
    "tokenizer.ggml.eos_token_id": _mark("eos", lambda x, i: x.tokenizer.eos_token_id == i and _ends_at(x) >= {i}),
    "tokenizer.ggml.eot_token_id": _mark("eot", lambda x, i: _ends_at(x) == {1, i}),
    "tokenizer.ggml.eom_token_id": _mark("eom", lambda x, i: _ends_at(x) == {1, i}),
    "tokenizer.ggml.unknown_token_id": _mark("unknown", lambda x, i: x.tokenizer.unk_token_id == i),
    "tokenizer.ggml.padding_token_id": _mark("padding", lambda x, i: x.tokenizer.pad_token_id == i),
    "tokenizer.ggml.fim_pad_token_id": _mark("fim_pad", lambda x, i: _ends_at(x) == {1, i}),
    "tokenizer.ggml.fim_rep_token_id": _mark("fim_rep", lambda x, i: _ends_at(x) == {1, i}),
    "tokenizer.ggml.fim_sep_token_id": _mark("fim_sep", lambda x, i: _ends_at(x) == {1, i}),
    "tokenizer.ggml.add_bos_token": _both(
        _gguf(lambda x: _ids(x)[0] == 0, tokenizer__ggml__add_bos_token=True),
        _gguf(lambda x: len(_ids(x)) == 1, tokenizer__ggml__add_bos_token=False, tokenizer__ggml__pre="llama-bpe"),
        _gguf(lambda x: _ids(x)[0] == 0, tokenizer__ggml__pre="llama-bpe"),
        _gguf_refused("add_bos_token=True.*no usable", ("tokenizer.ggml.bos_token_id",), tokenizer__ggml__add_bos_token=True),
        _gguf_refused("add_bos_token='yes'", tokenizer__ggml__add_bos_token="yes"),
    ),
    "tokenizer.ggml.add_eos_token": _gguf(lambda x: _ids(x)[1:] == [1], tokenizer__ggml__add_eos_token=True),
    "tokenizer.ggml.add_space_prefix": _both(
        _gguf(lambda x: len(_ids(x)) == 1, tokenizer__ggml__add_space_prefix=False),
        _gguf_refused("add_space_prefix=True.*byte-level", tokenizer__ggml__add_space_prefix=True),
    ),
    "tokenizer.chat_template": _both(
        _gguf(lambda x: x.tokenizer.chat_template == "hi", tokenizer__chat_template="hi"),
        _gguf_refused("chat_template 'default'.*not a Jinja", tokenizer__chat_template="{% if %}"),
    ),
    "tokenizer.chat_template.*": _gguf(
        lambda x: x.tokenizer.chat_template == {"default": "d", "tool": "t"},
        tokenizer__chat_template="d", tokenizer__chat_template__tool="t",
    ),
    "tokenizer.chat_templates": _gguf_refused("names 'gone', which is not there", tokenizer__chat_templates=["gone"]),
}  # fmt: skip


@pytest.mark.parametrize("name", READ_GGUF)
def test_read_in_gguf(tmp_path: Path, name: str) -> None:
    READ_GGUF[name](tmp_path)


def test_a_rope_number_that_no_float_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    """It was an OverflowError."""
    folder = folder_of(make_llama(), tmp_path / "f", rope_parameters={**YARN, "rope_theta": 10**400})
    with pytest.raises(CheckpointError, match=r"rope_theta=10+.* must be a number above 0"):
        load_checkpoint(folder)
