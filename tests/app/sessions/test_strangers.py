"""Strangers' models as a server meets them: a stand-in Hub, real downloads, hostile tokenizers and templates."""

from __future__ import annotations

import json
import math
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from loopviz.app import controls as st
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.profile import GIB, LOCAL, MIB, PUBLIC
from loopviz.app.sessions.models import LINGER, ModelRefused, ModelRoom
from tests.conftest import make_llama, make_tokenizer
from tests.hub import StandIn, llama_config, stand_in
from tests.model.checkpoints.test_gguf import write_gguf

NEVER = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}x"
HUGE = "{{ 'a' * 3000000000 }}"
OPEN = replace(PUBLIC, any_model=True)  # a public server whose host lets visitors name any model of the Hub
QUICK = replace(OPEN, tokenizer_seconds=2.0, tokenizer_bytes=300 * MIB)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StandIn]:
    with stand_in(tmp_path / "hf") as found:
        yield found


@pytest.fixture
def hub_model(hub: StandIn, llama_folder: Callable[..., Path]) -> str:
    """A whole small Llama on the Hub."""
    return hub.add("ok/tiny", llama_folder())


def _seventy_b() -> dict[str, bytes | int]:
    config = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
    config |= {"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}
    shards = {f"model-{n:05}-of-00030.safetensors": 4_700_000_000 for n in range(1, 31)}
    return {"config.json": llama_config(**config), **shards}


def _refused(room: ModelRoom, name: str, lang: str = "en") -> str:
    with pytest.raises(ModelRefused) as caught:
        room.get(name, lang)
    return str(caught.value)


# --- before the first byte of weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_hub_model_of_141_gigabytes_is_refused_before_a_byte_of_it(hub: StandIn, lang: str) -> None:
    """C3: sizes were summed for the progress bar and compared with nothing."""
    room = ModelRoom("stories-loop", profile=OPEN)
    said = _refused(room, hub.add("big/llama70b", _seventy_b()), lang)
    assert "141 GB" in said
    assert "4.29 GB" in said
    assert hub.sent == 0
    assert not any("resolve" in path for path in hub.asked), "its listing says all"
    assert room.status("big/llama70b").reason(lang) == said


def test_c3_a_model_that_fits_on_the_disk_but_not_in_memory_is_refused_by_its_config(hub: StandIn) -> None:
    """Memory was checked after the download."""
    room = ModelRoom("stories-loop", profile=replace(LOCAL, one_model_bytes=10**15))
    hub.add(
        "big/wide",
        {"config.json": llama_config(hidden_size=2**17, intermediate_size=2**19), "model.safetensors": 10**6},
    )
    said = _refused(room, "big/wide")
    assert "of memory" in said
    assert hub.sent == 0
    assert [path for path in hub.asked if "resolve" in path and not path.endswith("config.json")] == []


def test_c3_a_model_larger_than_a_public_server_holds_is_refused(hub: StandIn) -> None:
    hub.add(
        "big/wide",
        {"config.json": llama_config(hidden_size=2**14, intermediate_size=2**15), "model.safetensors": 10**6},
    )
    assert "at most 2.15 GB" in _refused(ModelRoom("stories-loop", profile=OPEN), "big/wide")
    assert hub.sent == 0


def test_c3_files_that_do_not_fit_on_the_disk_are_not_begun(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopviz.model.checkpoints.limits.free_disk", lambda folder: 10**6)
    hub.add("ok/tiny", {"config.json": llama_config(), "model.safetensors": 2 * 10**6})
    said = _refused(ModelRoom("stories-loop", profile=OPEN), "ok/tiny")
    assert "0.001 GB are free on this server's disk" in said
    assert hub.sent == 0


def test_c3_a_file_whose_size_is_not_listed_is_not_fetched(hub: StandIn, hub_model: str) -> None:
    hub.listed[hub_model, "model.safetensors"] = None
    assert "how large model.safetensors" in _refused(ModelRoom("stories-loop", profile=OPEN), hub_model)
    assert hub.sent == 0


def test_c3_a_file_that_is_longer_than_listed_is_cut_off(hub: StandIn) -> None:
    hub.add("ok/lies", {"config.json": llama_config(), "model.safetensors": 30_000_000})
    hub.listed["ok/lies", "model.safetensors"] = 1_000
    assert "more arrived" in _refused(ModelRoom("stories-loop", profile=OPEN), "ok/lies")
    assert hub.sent < 25_000_000


def test_c3_a_gguf_file_of_the_hub_is_weighed_too(hub: StandIn) -> None:
    hub.add("big/gguf", {"big.gguf": 50 * GIB})
    assert "53.7 GB" in _refused(ModelRoom("stories-loop", profile=OPEN), "big/gguf/big.gguf")
    assert hub.sent == 0


@pytest.mark.parametrize(("what", "words"), [("num_hidden_layers", "layers"), ("vocab_size", "vocabulary")])
def test_m8_layers_and_vocabulary_are_capped(hub: StandIn, what: str, words: str) -> None:
    hub.add("deep/deep", {"config.json": llama_config(**{what: 900_000}), "model.safetensors": 10**6})
    said = _refused(ModelRoom("stories-loop", profile=OPEN), "deep/deep")
    assert words in said
    assert "900000" in said.replace(",", "")
    assert hub.sent == 0


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 8,000 layers that are next to nothing; its `config.json` is to be written."""
    folder = tmp_path_factory.mktemp("models") / "deep"
    folder.mkdir()
    shapes = {"model.embed_tokens.weight": (320, 2), "model.norm.weight": (2,)}
    for layer in range(8_000):
        for part in "qkvo":
            shapes[f"model.layers.{layer}.self_attn.{part}_proj.weight"] = (2, 2)
        shapes[f"model.layers.{layer}.mlp.gate_proj.weight"] = (1, 2)
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (1, 2)
        shapes[f"model.layers.{layer}.mlp.down_proj.weight"] = (2, 1)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (2,)
    # As safetensors writes it, without 72,000 tensors made for it: the header, and zeros.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    (folder / "model.safetensors").write_bytes(len(said).to_bytes(8, "little") + said + bytes(end))
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("said", [8_000, 2], ids=["told", "lied"])
def test_hub_8000_layers_in_8_megabytes_is_refused_before_anything_is_built(
    deep_folder: Path, said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M8: more than 40 seconds under the loading lock."""
    monkeypatch.setattr(
        "loopviz.model.checkpoints.inspect.expected_tensors", lambda config: pytest.fail("it was built")
    )
    shape = {
        "hidden_size": 2,
        "intermediate_size": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "vocab_size": 320,
    }
    config = llama_config(**shape, num_hidden_layers=said, tie_word_embeddings=True)
    (deep_folder / "config.json").write_bytes(config)
    words = _refused(ModelRoom("stories-loop", profile=LOCAL), str(deep_folder))
    assert "8000" in words.replace(",", "")
    assert "layers" in words


def test_m8_a_gguf_file_of_8000_layers_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "loopviz.model.checkpoints.inspect.expected_tensors", lambda config: pytest.fail("it was built")
    )
    llama, depth = make_llama(num_hidden_layers=1), {"llama.block_count": 8_000}
    file = write_gguf(tmp_path / "deep.gguf", llama, make_tokenizer(), lambda meta, tensors: meta.update(depth))
    assert "8000 layers" in _refused(ModelRoom("stories-loop", profile=LOCAL), str(file)).replace(",", "")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors.index.json"])
def test_c3_a_file_that_only_says_things_is_short(llama_folder: Callable[..., Path], name: str) -> None:
    """JSON of many megabytes takes many times as much memory, in the server's own process."""
    folder = llama_folder(max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()
    (folder / name).write_text((folder / name).read_text() + " " * 5 * MIB)
    assert "larger than 4 MiB" in _refused(ModelRoom("stories-loop", profile=LOCAL), str(folder))


def test_c3_a_header_that_is_read_at_once_is_short(llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = llama_folder()
    weights = folder / "model.safetensors"
    with weights.open("wb") as stream:
        stream.write((17 * MIB).to_bytes(8, "little") + b"{}" + b" " * 17 * MIB)
    assert "no Llama's has" in _refused(ModelRoom("stories-loop", profile=LOCAL), str(folder))
    # A list of one number, then of 4,100,001 in its place: the library takes ten seconds to write those one by one.
    tags = {"general.tags": [7]}
    file = write_gguf(tmp_path / "lists.gguf", make_llama(), make_tokenizer(), lambda meta, tensors: meta.update(tags))
    one, many = (struct.pack("<IQ", 5, count) + struct.pack("<i", 7) * count for count in (1, 4_100_001))
    assert file.read_bytes().count(one) == 1
    file.write_bytes(file.read_bytes().replace(one, many))
    assert "lists of" in _refused(ModelRoom("stories-loop", profile=LOCAL), str(file))
    long = {"general.description": "x" * 65 * MIB}
    file = write_gguf(tmp_path / "long.gguf", make_llama(), make_tokenizer(), lambda meta, tensors: meta.update(long))
    assert "longer than 64 MiB" in _refused(ModelRoom("stories-loop", profile=LOCAL), str(file))


# --- a download belongs to its visitors ------------------------------------------------------------------------------


def _downloads() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        try:
            if "loopviz.hub_download" in child.cmdline():
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def _until(holds: Callable[[], Any], seconds: float = 30.0) -> Any:
    latest = time.monotonic() + seconds
    while time.monotonic() < latest:
        if found := holds():
            return found
        time.sleep(0.02)
    return holds()


def _big(hub: StandIn) -> str:
    """A model within every limit that takes minutes to come."""
    hub.pause = 0.02
    return hub.add("slow/slow", {"config.json": llama_config(), "model.safetensors": 400 * MIB, "tokenizer.json": 10})


@pytest.mark.parametrize("trial", range(3))
def test_c3_a_download_ends_with_the_visit_that_asked_for_it(hub: StandIn, trial: int, tmp_path: Path) -> None:
    """It went on after the visitor had left; meanwhile nobody could load anything else."""
    room, left = ModelRoom("stories-loop", profile=OPEN), threading.Event()
    name, refused = _big(hub), []

    def visit() -> None:
        try:
            room.get(name, "en", left.is_set)
        except ModelRefused as error:
            refused.append(error)

    thread = threading.Thread(target=visit)
    thread.start()
    assert _until(lambda: hub.sent > 0)
    assert room.get("glassbox").name == "glassbox", "bundled models load meanwhile"
    assert room.status(name).state == "loading"
    left.set()
    thread.join(60)
    assert refused
    assert _until(lambda: not _downloads(), 2 * LINGER + 5)
    sent = hub.sent
    assert _until(lambda: room.status(name).state == "waiting" and name not in room._loads)
    assert list((tmp_path / "hf").rglob("*.incomplete")) == [], "what was half there is gone"
    time.sleep(0.3)
    assert hub.sent <= sent + MIB, "nothing more is written but what was on its way"


@pytest.mark.parametrize("how", ["stop", "leave"])
def test_c3_stop_and_leaving_end_what_a_run_waits_for(hub: StandIn, how: str) -> None:
    """A run that waits for its model is the visitor who wants it: 156 MB more were written 3 to 6 s after they left."""
    service = Service(ModelRoom("stories-loop", profile=OPEN), Registry(), every=0)
    name, told = _big(hub), []

    def visit() -> None:
        told.extend(service.run("Hi", st.defaults() | {"model": name}, "en", "me"))

    thread = threading.Thread(target=visit)
    thread.start()
    assert _until(lambda: hub.sent > 0)
    service.stop("me") if how == "stop" else service.leave("me")
    thread.join(10)
    assert _until(lambda: not _downloads(), 2 * LINGER + 5)
    assert _until(lambda: name not in service.room._loads)
    assert any("loading" in line for line in told)
    assert ("stopped" in told[-1]) == (how == "stop")
    assert not any("could not" in line or "Not possible" in line for line in told)


def _close(room: ModelRoom) -> None:
    """End the processes of its tokenizers."""
    for held in room._held.values():
        if hasattr(held.tokenizer, "close"):
            held.tokenizer.close()


# --- paths ------------------------------------------------------------------------------------------------------------


def test_m3_refusals_of_a_public_server_are_free_of_paths(hub: StandIn, hub_model: str, tmp_path: Path) -> None:
    """server_paths_in_refusals: the cache folder and the snapshot's path were shown."""
    files = dict(hub.repositories[hub_model])
    hub.add("bad/gpt2", {**files, "config.json": b'{"model_type": "gpt2"}'})
    hub.add("bad/json", {**files, "tokenizer.json": b"this is no JSON"})
    hub.add("bad/weights", {**files, "model.safetensors": b"short"})
    hub.add("bad/missing", {name: data for name, data in files.items() if name != "tokenizer.json"})
    room = ModelRoom("stories-loop", profile=OPEN)
    for name in ("bad/gpt2", "bad/json", "bad/weights", "bad/missing", "no/such"):
        said = _refused(room, name)
        for secret in (str(tmp_path), "/tmp", "snapshots", str(Path.home())):
            assert secret not in said, said
        assert "a folder" not in said
        assert ".gguf file" not in said


# --- tokenizers and templates -----------------------------------------------------------------------------------------


def _with_template(hub: StandIn, llama_folder: Callable[..., Path], template: str) -> str:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return hub.add("ok/template", llama_folder(tokenizer=tokenizer))


@pytest.mark.parametrize("template", [NEVER, HUGE], ids=["never", "huge"])
def test_hub_chat_template_that_never_ends_ends_and_is_told_on_the_page(
    hub: StandIn, llama_folder: Callable[..., Path], template: str
) -> None:
    """H6: a core for ever, or 5.7 GB in 7 s. The page stopped answering: the place was lost, and nothing was said."""
    from loopviz.engine import encode_prompt

    service = Service(ModelRoom("stories-loop", profile=QUICK), Registry(), every=0)
    name = _with_template(hub, llama_folder, template)
    loaded = service.room.get(name)
    before = psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match=r"chat=True.*(took|memory|ended)"):
        encode_prompt(loaded.tokenizer, "abc", chat=True, context=128)
    assert psutil.Process().memory_info().rss < before + 200 * MIB
    assert loaded.tokenizer.pid is None or template == HUGE, "its process was ended"
    ids = encode_prompt(loaded.tokenizer, "abc", chat=False, context=128)
    assert ids == make_tokenizer()("abc")["input_ids"], "another does the next text"

    # The page of whoever chats with it; an answer in between has taken back the strike.
    values = st.defaults() | {"model": name, "chat": True, "block_start": 1, "block_end": 1}
    lines = list(service.run("abc", values, "en", "me"))
    assert "chat template refuses" in lines[-1]
    assert service.too_long("abc", values) is None
    assert service.shortened("abc", values) is None
    assert service.prompt_hint(name, "abc", "en") == ""
    _close(service.room)


def test_h6_a_stop_ends_a_template(hub: StandIn, llama_folder: Callable[..., Path]) -> None:
    from loopviz.engine import encode_prompt
    from loopviz.worker import ended_by

    room, stop = ModelRoom("stories-loop", profile=replace(OPEN, tokenizer_seconds=600.0)), threading.Event()
    tokenizer = room.get(_with_template(hub, llama_folder, NEVER)).tokenizer
    threading.Timer(0.5, stop.set).start()
    with ended_by(stop.is_set), pytest.raises(ValueError, match="it was stopped"):
        encode_prompt(tokenizer, "abc", chat=True, context=128)
    assert tokenizer.pid is None


def _exploding(folder: Path, times: int) -> Path:
    """A normalizer that makes a thousand letters of one, some times over."""
    file = folder / "tokenizer.json"
    said = json.loads(file.read_text())
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    said["normalizer"] = {"type": "Sequence", "normalizers": [step] * times}
    file.write_text(json.dumps(said))
    return folder


def test_h6_a_normalizer_that_explodes_is_ended(hub: StandIn, llama_folder: Callable[..., Path]) -> None:
    """5 GB in 6 s from 3,000 characters."""
    from loopviz.engine import encode_prompt

    room = ModelRoom("stories-loop", profile=QUICK)
    loaded = room.get(hub.add("ok/explodes", _exploding(llama_folder(), 1)))
    with pytest.raises(ValueError, match=r"tokenizer cannot read it"):
        encode_prompt(loaded.tokenizer, "a" * 20_000, chat=False, context=128)
    assert encode_prompt(loaded.tokenizer, "b", chat=False, context=128)
    _close(room)


def test_h6_a_tokenizer_that_explodes_while_it_is_read_is_refused(
    hub: StandIn, llama_folder: Callable[..., Path]
) -> None:
    """A folder's marks are found with the text "a": in the server's own process, with no limit."""
    before = psutil.Process().memory_info().rss
    said = _refused(ModelRoom("stories-loop", profile=QUICK), hub.add("ok/explodes", _exploding(llama_folder(), 4)))
    assert "ok/explodes" in said
    assert psutil.Process().memory_info().rss < before + 200 * MIB


def test_m7_a_tokenizer_s_panic_ends_as_words(hub: StandIn, llama_folder: Callable[..., Path]) -> None:
    """A pyo3 PanicException passes `except Exception`: the page waited for ever."""
    folder = llama_folder()
    file = folder / "tokenizer.json"
    said = json.loads(file.read_text())
    said["model"]["continuing_subword_prefix"] = "##"  # the Rust library panics on it
    file.write_text(json.dumps(said))
    assert "continuing_subword_prefix" in _refused(
        ModelRoom("stories-loop", profile=OPEN), hub.add("ok/panics", folder)
    )


def test_a_stranger_s_model_comes_for_who_stays_once_and_runs_as_it_would_at_home(
    hub: StandIn, hub_model: str, tmp_path: Path
) -> None:
    """One small model, from the first who asks for it to the next start of the server."""
    from loopviz.engine import StreamSettings, run
    from loopviz.model.checkpoints.load import load_checkpoint

    # C3: one `.incomplete` file stayed for ever with each kill.
    blobs = tmp_path / "hf" / "models--ok--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abcdef.12345678.incomplete").write_bytes(b"half")

    hub.pause = 0.2
    room, left = ModelRoom("stories-loop", profile=OPEN), threading.Event()

    def leave() -> None:
        with pytest.raises(ModelRefused):
            room.get(hub_model, "en", left.is_set)

    threads = [threading.Thread(target=leave), threading.Thread(target=room.get, args=(hub_model,))]
    for thread in threads:
        thread.start()
    assert _until(lambda: hub.asked)
    left.set()
    for thread in threads:
        thread.join(60)
    assert room.ready(hub_model) is not None, "C3: a download that two want goes on when one leaves"
    assert list(blobs.glob("*.incomplete")) == [], "C3: what a kill left is swept by the next download"

    # Apart, the tokenizer does the same: the texts of a run are equal to the token.
    loaded = room.get(hub_model)
    folder = next((tmp_path / "hf").glob("models--ok--tiny/snapshots/*"))
    here = load_checkpoint(folder)
    for chat in (False, True):
        settings = StreamSettings(max_new_tokens=12, chat=chat)
        one, other = (run(m.model, m.tokenizer, "Once 从 upon", settings) for m in (loaded, here))
        assert [frame["text"] for frame in one.frames] == [frame["text"] for frame in other.frames]
        assert [frame["token_id"] for frame in one.frames] == [frame["token_id"] for frame in other.frames]
    _close(room)

    asked = len(hub.asked)
    again = ModelRoom("stories-loop", profile=OPEN)
    again.get(hub_model)
    assert len(hub.asked) == asked, "the second time nobody is asked"
    _close(again)


def test_what_is_offered_is_trusted_and_costs_nothing() -> None:
    from transformers import PreTrainedTokenizerBase

    room = ModelRoom("stories-loop", profile=PUBLIC)
    assert isinstance(room.get("stories-loop").tokenizer, PreTrainedTokenizerBase)


def test_a_default_of_the_host_s_own_is_loaded_whatever_the_limits(llama_folder: Callable[..., Path]) -> None:
    folder = str(llama_folder(num_hidden_layers=5))
    room = ModelRoom(folder, profile=replace(PUBLIC, layers=3))
    assert room.get(room.default).layers == 5
    _close(room)
