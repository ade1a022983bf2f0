"""A stand-in Hub on loopback, with a model too large for anybody, and small ones of bad intent."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import re
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

GIANT, TOKENIZER, TEMPLATE, DOWNLOAD = "big/llama70b", "hostile/tokenizer", "hostile/template", "hostile/download"
HOSTILE = (TOKENIZER, TEMPLATE, DOWNLOAD)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 64 * 1024
SLOW = 10 * 2**20  # bytes a second that weights come at
# what a normalizer makes of an "a", twice, and a template that counts to ten to the fifteenth
GROWTH = 1_000
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}x"


class Zeros:
    """A file of zeros after its beginning, of which nothing is held."""

    def __init__(self, start: bytes, size: int) -> None:
        self.start, self.size = start, size

    def pieces(self, first: int) -> Iterator[bytes]:
        """Its bytes from `first` on."""
        while first < self.size:
            piece = self.start[first : first + PIECE] or bytes(min(PIECE, self.size - first))
            yield piece
            first += len(piece)


File = bytes | Zeros


def _llama(**shape: int) -> dict[str, Any]:
    """A Llama's config.json."""
    usual = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    usual |= {"num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 4096}
    kind = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}
    return {**kind, **usual, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False, **shape}


def _weights(config: dict[str, Any]) -> Zeros:
    """A whole safetensors file for it, all zeros."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config))
    header: dict[str, Any] = {}
    at = 0
    for name, tensor in model.state_dict().items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, at + 2 * tensor.numel()]}
        at += 2 * tensor.numel()
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    start = struct.pack("<Q", len(written)) + written
    return Zeros(start, len(start) + at)


def _tokenizer_files(hostile: bool, template: str) -> dict[str, File]:
    """A byte-level tokenizer's files."""
    import tempfile
    from pathlib import Path

    from tests.conftest import make_tokenizer

    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files: dict[str, File] = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    if hostile:
        known = json.loads(files["tokenizer.json"])  # type: ignore[arg-type]
        grow = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * GROWTH}
        known["normalizer"] = {"type": "Sequence", "normalizers": [grow, grow]}
        files["tokenizer.json"] = json.dumps(known).encode()
    return files


def repository(name: str) -> dict[str, File]:
    """The files of a repository; none of one that there is not. Of a hostile one there are as many as wanted, `-1`, `-2`, ..."""
    return _files(next((known for known in HOSTILE if name.startswith(known)), name))


@functools.cache
def _files(name: str) -> dict[str, File]:
    usual = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    if name == GIANT:
        shape = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
        config = _llama(**shape, num_key_value_heads=8, vocab_size=128256, max_position_embeddings=131072)
        shards = {f"model-{n:05}-of-00030.safetensors": Zeros(b"", 4_700_000_000) for n in range(1, 31)}
        return {"config.json": json.dumps(config).encode(), **shards, **_tokenizer_files(False, usual)}
    if name == DOWNLOAD:
        config = _llama(hidden_size=1024, intermediate_size=4096, num_hidden_layers=16, num_attention_heads=16)
    elif name in (TOKENIZER, TEMPLATE):
        config = _llama()
    else:
        return {}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": _weights(config)}
    return files | _tokenizer_files(name == TOKENIZER, ENDLESS if name == TEMPLATE else usual)


class Hub:
    """The Hub while it stands.

    Attributes:
        url: its address.
        asked: every path that was asked for.
        weights: bytes of weights that it has sent of models larger than a moment takes.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.weights = 0
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].replace(COMMIT, "main")
        self.hub.asked.append(path)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/main)?", path)
        files = repository(found.group(1)) if found else {}
        if found and files:
            listed = [{"rfilename": name, "size": _size(file)} for name, file in files.items()]
            self._send(json.dumps({"id": found.group(1), "sha": COMMIT, "siblings": listed}).encode())
            return
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/main", path)
        files = repository(tree.group(1)) if tree else {}
        if files:
            listed = [{"type": "file", "path": n, "size": _size(f), "oid": _mark(n)} for n, f in files.items()]
            self._send(json.dumps(listed).encode())
            return
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", path)
        content = repository(file.group(1)).get(file.group(2)) if file else None
        if file is None or content is None:
            self._send(b"{}", {"X-Error-Code": "EntryNotFound" if file else "RepoNotFound"}, 404)
            return
        self._send(content, {"ETag": f'"{_mark(path)}"', "X-Repo-Commit": COMMIT})

    def _send(self, content: File, headers: dict[str, str] | None = None, status: int = 200) -> None:
        size, first = _size(content), 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        last = size - 1
        if asked and status == 200:
            first, status = int(asked.group(1)), 206
            last = min(int(asked.group(2) or last), last)
            headers = {**(headers or {}), "Content-Range": f"bytes {first}-{last}/{size}"}
        self.send_response(status)
        self.send_header("Content-Length", str(last + 1 - first))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(OSError):
            self._write(content, first, last + 1)

    def _write(self, content: File, first: int, end: int) -> None:
        if isinstance(content, bytes):
            self.wfile.write(content[first:end])
            return
        slow = content.size > SLOW
        for piece in content.pieces(first):
            piece = piece[: end - first]
            if not piece:
                return
            self.wfile.write(piece)
            first += len(piece)
            if slow:
                self.hub.weights += len(piece)
                time.sleep(len(piece) / SLOW)


def _size(file: File) -> int:
    return len(file) if isinstance(file, bytes) else file.size


def _mark(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


@contextlib.contextmanager
def standing_in() -> Iterator[Hub]:
    """A Hub, until it is no longer needed."""
    for name in (TOKENIZER, TEMPLATE, DOWNLOAD, GIANT):
        repository(name)  # made once, which takes seconds: nobody waits for it
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
