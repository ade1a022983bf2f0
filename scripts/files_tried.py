"""How many files the tests of checkpoints try, by kind, and how many are read right or refused by name.

    python scripts/files_tried.py

Runs those tests and counts every checkpoint they load: what is read is right when the test that asked for it passes (the
same logits and token ids as an independent reference), what is refused is refused with `CheckpointError`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from loopviz.model.checkpoints import gguf_tokenizer  # noqa: E402
from loopviz.model.checkpoints import load as checkpoints  # noqa: E402
from loopviz.model.checkpoints.load import CheckpointError  # noqa: E402

KINDS = {
    "test_checkpoints_keys.py::test_read_in_config": "config.json: keys that are read",
    "test_checkpoints_keys.py::test_harmless_in_config": "config.json: keys that are harmless",
    "test_checkpoints_keys.py::test_refused_in_config": "config.json: keys that are refused, and their harmless values",
    "test_checkpoints_keys.py::test_every_rule": "config.json: rules of positions, each spelling",
    "test_checkpoints_keys.py::test_a_rule": "config.json: rules of positions that cannot be realised",
    "test_checkpoints_keys.py::test_a_field_of": "config.json: fields of the loop",
    "test_checkpoints_keys.py::test_read_in_tokenizer": "tokenizer files: keys that are read",
    "test_checkpoints_keys.py::test_harmless_in_tokenizer": "tokenizer files: keys that are harmless",
    "test_checkpoints_keys.py::test_refused_in_tokenizer": "tokenizer files: keys that are refused",
    "test_checkpoints_keys.py::test_read_in_gguf": "GGUF: keys that are read",
    "test_checkpoints_keys.py::test_harmless_in_gguf": "GGUF: keys that are harmless",
    "test_checkpoints_keys.py::test_refused_in_gguf": "GGUF: keys that are refused, and their harmless values",
    "test_checkpoints_keys.py": "keys of no family",
    "test_checkpoints_gguf_tokenizer.py::test_byte_level": "GGUF: byte-level vocabularies, one a pre-tokenizer",
    "test_checkpoints_gguf_tokenizer.py": "GGUF: SentencePiece vocabularies and end marks",
    "test_checkpoints_gguf.py::test_every_quantisation": "GGUF: quantisations",
    "test_checkpoints_gguf.py": "GGUF: shapes, biases, positions, damage",
    "test_checkpoints_border.py::test_values": "wrong types in every field of the JSON files",
    "test_checkpoints_border.py": "broken, cut, missing and lying files",
    "test_checkpoints.py": "folders: whole, sharded, incomplete, as published",
}


class Counting:
    """A pytest plugin that counts what each test loads."""

    def __init__(self) -> None:
        self.kind = ""
        self.counts: dict[str, Counter[str]] = {}
        self.here: Counter[str] = Counter()
        for module, name in ((checkpoints, "load_checkpoint"), (gguf_tokenizer, "load_gguf_tokenizer")):
            setattr(module, name, self.counted(getattr(module, name)))
        checkpoints.load_gguf_tokenizer = (
            gguf_tokenizer.load_gguf_tokenizer.__wrapped__
        )  # of load_checkpoint: not twice

    def counted(self, load: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                loaded = load(*args, **kwargs)
            except CheckpointError:
                self.here["refused"] += 1
                raise
            self.here["read"] += 1
            return loaded

        wrapper.__wrapped__ = load
        return wrapper

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.kind = next((kind for start, kind in KINDS.items() if start in item.nodeid), "others")
        self.here = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            counts = self.counts.setdefault(self.kind, Counter())
            if report.passed:
                counts.update(self.here)
            else:
                counts["wrong"] += max(1, sum(self.here.values()))


def main() -> int:
    """Run the tests, print the table."""
    plugin = Counting()
    # what needs SmolLM2, and what is about the order of sums and no file, stays out
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-m", "not smollm2", "-k", "not as_loop_llama"]
    files = sorted((ROOT / "tests" / "model").glob("test_checkpoints*.py"))
    files = [str(file) for file in files if "sources" not in file.name]
    code = pytest.main([*options, *files], plugins=[plugin])
    print(f"\n| {'kind of file':66} | tried | read right | refused by name | wrong |\n|---|---|---|---|---|")
    total: Counter[str] = Counter()
    for kind in dict.fromkeys([*KINDS.values(), "others"]):
        if counts := plugin.counts.get(kind):
            total.update(counts)
            print(_row(kind, counts))
    print(_row("all", total))
    return int(code)


def _row(kind: str, counts: Counter[str]) -> str:
    read, refused, wrong = (counts[name] for name in ("read", "refused", "wrong"))
    return f"| {kind:66} | {read + refused + wrong} | {read} | {refused} | {wrong} |"


if __name__ == "__main__":
    sys.exit(main())
