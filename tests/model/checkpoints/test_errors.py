"""Whatever a checkpoint's files hold ends as a checkpoint that runs or as `CheckpointError`, with the file's name in it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopviz.engine import StreamSettings, run
from loopviz.model.checkpoints import load
from loopviz.model.checkpoints.errors import reading
from loopviz.model.checkpoints.load import CheckpointError, load_checkpoint
from tests.conftest import make_llama, make_tokenizer
from tests.model.checkpoints.test_gguf import write_gguf

MakeFolder = Callable[..., Path]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63, 1e308, -0.5, float("nan"), "", "x", "\0", "9" * 400),
    *([], [1], ["a"], [[]], {}, {"a": 1}, {"type": "x"}),
)
BROKEN = {
    "empty": b"",
    "zeros": b"\0" * 64,
    "deep": b"[" * 200_000,
    "list": b"[1]",
    "number": b"12",
    "text": b'"x"',
    "nan": b"NaN",
    "not text": b"\xff\xfe\x00",
    "half": b'{"a": ',
}
JSON_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
EXTRA_FILES = ("special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja")


def outcome(place: Path, name: str = "") -> str:
    """ "loaded" or "refused"; anything else fails the test. What loads can be asked something."""
    try:
        loaded = load_checkpoint(place)
    except CheckpointError as error:
        assert str(place) in str(error) or name in str(error)  # noqa: PT017 - both outcomes are right
        return "refused"
    assert loaded.tokenizer("hello").input_ids is not None
    with contextlib.suppress(ValueError):  # documented, and in words
        run(loaded.model, loaded.tokenizer, "hello", StreamSettings(max_new_tokens=1))
    return "loaded"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole") / "llama"
    make_llama(num_hidden_layers=1).save_pretrained(place, max_shard_size="30KB")
    make_tokenizer().save_pretrained(place)
    return place


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, of long lists and vocabularies the first three."""
    yield path
    inside = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, part in inside if len(inside) < 40 else inside[:3]:
        yield from _paths(part, (*path, key))


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = _with(value[path[0]], path[1:], new)
    return changed


@pytest.mark.parametrize("name", JSON_FILES)
def test_values_of_every_wrong_type(folder: Path, copy: Path, name: str) -> None:
    if not (folder / name).is_file():
        pytest.fail(f"{name} is not part of what is saved any more")
    data, rng = json.loads((folder / name).read_text()), random.Random(name)
    places = [path for path in _paths(data) if path]
    results = []
    for path in places[:60]:
        for value in rng.sample(VALUES, 3):
            (copy / name).write_text(json.dumps(_with(data, path, value)))
            results.append(outcome(copy, name))
    assert "refused" in results


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", [*JSON_FILES, "model.safetensors.index.json", "a shard", *EXTRA_FILES])
def test_a_broken_file(copy: Path, name: str, content: bytes) -> None:
    name = sorted(copy.glob("model-*.safetensors"))[0].name if name == "a shard" else name
    (copy / name).write_bytes(content)
    result = outcome(copy, name)
    if name in ("config.json", "tokenizer.json", "model.safetensors.index.json") or name.startswith("model-"):
        assert result == "refused"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("name", [*JSON_FILES, "model.safetensors.index.json", "model-00001"])
def test_a_file_that_is_none(copy: Path, name: str) -> None:
    file = next(copy.glob(f"{name}*"))
    file.unlink()
    outcome(copy, file.name)  # missing
    file.mkdir()
    outcome(copy, file.name)
    file.rmdir()
    file.symlink_to("/no/such/file")
    outcome(copy, file.name)
    file.unlink()
    file.symlink_to(file)
    outcome(copy, file.name)


def test_a_tokenizer_the_library_below_would_end_the_process_on(copy: Path) -> None:
    file = copy / "tokenizer.json"
    file.write_text(json.dumps(_with(json.loads(file.read_text()), ("model", "continuing_subword_prefix"), "##")))
    with pytest.raises(CheckpointError, match=r"model\.continuing_subword_prefix='##' in .*tokenizer\.json"):
        load_checkpoint(copy)


@pytest.mark.parametrize("length", [0, 1, 2**40, 2**63, 2**64 - 1])
def test_a_header_length_that_lies(copy: Path, length: int) -> None:
    shard = sorted(copy.glob("model-*.safetensors"))[0]
    shard.write_bytes(struct.pack("<Q", length) + shard.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=shard.name):
        load_checkpoint(copy)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_tensors_of_a_dtype_that_is_no_number_of_a_llama(copy: Path, dtype: torch.dtype) -> None:
    shard = sorted(copy.glob("model-*.safetensors"))[0]
    tensors = load_file(shard)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name].to(dtype)}, shard, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="dtype="):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    "weight_map",
    [{}, [], None, {"model.norm.weight": 5}, {"model.norm.weight": "gone.safetensors"}, {"x": "../x.safetensors"}],
)
def test_an_index_that_names_no_file(copy: Path, weight_map: Any) -> None:
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError):
        load_checkpoint(copy)


@pytest.mark.parametrize("seed", range(60))
def test_a_gguf_file_with_bytes_overwritten(tmp_path: Path, gguf_bytes: bytes, seed: int) -> None:
    rng, damaged = random.Random(seed), bytearray(gguf_bytes)
    end = gguf_bytes.rindex(b"blk.") + 80
    for _ in range(rng.randint(1, 3)):
        at, n = rng.randrange(end), rng.choice((1, 1, 4, 8))
        damaged[at : at + n] = rng.choice((rng.randbytes(n), b"\xff" * n))
    file = tmp_path / "x.gguf"
    file.write_bytes(damaged[: rng.randrange(len(damaged))] if rng.random() < 0.2 else damaged)
    outcome(file, "config.json")


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("gguf") / "x.gguf"
    return write_gguf(file, make_llama(num_hidden_layers=1), make_tokenizer()).read_bytes()


# --- the border itself -------------------------------------------------------------------------------------------


class PanicException(BaseException):
    """What a panic in a Rust library comes out as."""


@pytest.mark.parametrize(
    "error",
    [KeyError("k"), RecursionError("deep"), AssertionError(), MemoryError(), OSError(5, "no"), PanicException("p")],
)
def test_everything_files_bring_up_is_one_error_that_names_them(error: BaseException) -> None:
    with pytest.raises(CheckpointError, match=r"^here/x\.bin: ") as caught, reading("here/x.bin"):
        raise error
    assert caught.value.__cause__ is error
    assert type(error).__name__ in str(caught.value) or isinstance(error, MemoryError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_is_not_about_the_files_passes(error: BaseException) -> None:
    with pytest.raises(type(error)), reading("x"):
        raise error


def test_what_a_progress_callback_raises_is_not_a_broken_file(llama_folder: MakeFolder) -> None:
    class GivenUpError(Exception):
        pass

    def progress(stage: str, share: float | None) -> None:
        if stage == "weights":
            raise GivenUpError

    with pytest.raises(GivenUpError):
        load_checkpoint(llama_folder(), progress=progress)


def test_a_loop_field_that_does_not_fit_is_the_callers_and_no_broken_file(llama_folder: MakeFolder) -> None:
    with pytest.raises(ValueError, match="loop_layers") as error:
        load_checkpoint(llama_folder(), loop_layers=(0, 7))
    assert not isinstance(error.value, CheckpointError)


def test_an_error_of_the_loader_below_is_one_too(llama_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("of a library's own")

    monkeypatch.setattr(load.LoopLlamaForCausalLM, "from_pretrained", broken)
    with pytest.raises(CheckpointError, match="ZeroDivisionError: of a library's own"):
        load_checkpoint(llama_folder())


def test_the_command_line_says_a_line_and_no_traceback(copy: Path) -> None:
    (copy / "tokenizer.json").write_bytes(b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}')
    command = [sys.executable, "-m", "loopviz", "run", "--model", str(copy), "--prompt", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "tokenizer.json" in done.stderr.replace("\n", "")
