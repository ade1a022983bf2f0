"""A stand-in for the Hugging Face Hub on loopback: lists files with their sizes, and sends them, as slowly as asked."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 64 * 1024


class StandIn:
    """The Hub's repositories: of each its files by name, as bytes, or as a number of zeros.

    Attributes:
        pause: seconds before each `CHUNK` of a file is sent.
        sent: bytes sent so far of files called `*.safetensors` or `*.gguf`.
        asked: every address that was asked for.
        listed: sizes that are listed in place of the files' own, by repository and name; None: none is said.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Mapping[str, bytes | int]] = {}
        self.listed: dict[tuple[str, str], int | None] = {}
        self.pause = 0.0
        self.sent = 0
        self.asked: list[str] = []
        self.address = ""

    def add(self, repo: str, files: Mapping[str, bytes | int] | Path) -> str:
        """A repository of these files, or of a folder's; its name."""
        if isinstance(files, Path):
            files = {file.name: file.read_bytes() for file in files.iterdir()}
        self.repositories[repo] = files
        return repo


def _handler(hub: StandIn) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0].replace(f"/{COMMIT}", "/main")
            hub.asked.append(path)
            for repo, files in hub.repositories.items():
                if path in (f"/api/models/{repo}", f"/api/models/{repo}/revision/main"):
                    siblings = [{"rfilename": name, "size": _size(repo, name, data)} for name, data in files.items()]
                    return self.answer(json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())
                if path == f"/api/models/{repo}/tree/main":
                    tree = [
                        {"type": "file", "path": n, "size": _length(d), "oid": _etag(n, d)} for n, d in files.items()
                    ]
                    return self.answer(json.dumps(tree).encode())
                name = path.removeprefix(f"/{repo}/resolve/main/")
                if name in files:
                    return self.file(name, files[name])
            return self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

        def file(self, name: str, data: bytes | int) -> None:
            self.send_response(200)
            length = _length(data)
            for key, value in (
                ("Content-Length", length),
                ("ETag", f'"{_etag(name, data)}"'),
                ("X-Repo-Commit", COMMIT),
            ):
                self.send_header(key, str(value))
            self.end_headers()
            if self.command == "HEAD":
                return
            for start in range(0, length, CHUNK):
                time.sleep(hub.pause)
                end = min(start + CHUNK, length)
                try:
                    self.wfile.write(bytes(end - start) if isinstance(data, int) else data[start:end])
                except OSError:  # the other side is gone
                    return
                if name.endswith((".safetensors", ".gguf")):
                    hub.sent += end - start

        def answer(self, data: bytes, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    def _size(repo: str, name: str, data: bytes | int) -> int | None:
        return hub.listed.get((repo, name), _length(data))

    return Handler


def _length(data: bytes | int) -> int:
    return data if isinstance(data, int) else len(data)


def _etag(name: str, data: bytes | int) -> str:
    return hashlib.sha1(name.encode() + (b"" if isinstance(data, int) else data)).hexdigest()


@contextmanager
def stand_in(cache: Path) -> Iterator[StandIn]:
    """A Hub named by `HF_ENDPOINT`, with Hugging Face's cache in a folder of its own."""
    hub = StandIn()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.address)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def llama_config(**more: Any) -> bytes:
    """A `config.json` of a Llama."""
    shape = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 320,
        "max_position_embeddings": 128,
    }
    return json.dumps({**shape, **more}).encode()
