"""A tokenizer whose work is done in a process that can be ended: for models that are not ours.

A `tokenizer.json` is a program of sorts (a normalizer may make a million letters of one), a chat template is one outright. Both
run apart, with a time and a memory of their own, and what comes back is checked: text, and ids that the embedding has rows for.
What it looks like from here is what the rest of LoopViz uses of a transformers tokenizer.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import decoders

from loopviz.model.interrupt import check, stopped
from loopviz.worker import Worker, WorkerEnded, WorkerRefused

from .errors import CheckpointError, Note

STRIKES = 3  # answers in a row that a process was ended for, after which no other is started for `REST` seconds
REST = 60.0
LOADING = 4  # times as much of both limits to be read: a large vocabulary takes seconds
_ENVIRON = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class TokenizerLimits:
    """What a tokenizer or template may take for one text: `seconds`, and bytes of memory; `vocabulary`: tokens it may have."""

    seconds: float
    n_bytes: int
    vocabulary: int


class ApartTokenizer:
    """The tokenizer of a folder or GGUF file, in a process of its own: started with the first question, ended with this object.

    Args:
        path: the folder, or the file.
        gguf: whether it is a GGUF file.
        rows: of the model's embedding; a text with a token beyond them is refused.
        limits: what it may take.
        notes: what is to be said of it although it loads.

    Raises:
        CheckpointError: it cannot be read, or not within its limits.
        WorkerEnded: nobody waits for it any more.
    """

    is_fast = True

    def __init__(self, path: Path, gguf: bool, rows: int, limits: TokenizerLimits, notes: list[Note]) -> None:
        self._rows, self._limits = rows, limits
        self._strikes, self._struck = 0, 0.0
        load = {"do": "load", "path": os.fspath(path), "gguf": gguf, "rows": rows, "most": limits.vocabulary}
        first = (load, LOADING * limits.seconds, LOADING * limits.n_bytes)
        self._worker = Worker("loopviz.model.checkpoints.tokenizer_worker", first, _ENVIRON)
        self._end = weakref.finalize(self, self._worker.end)
        try:
            found = self._worker.ask(None)
        except WorkerRefused as error:
            self._worker.end()
            raise CheckpointError(str(error)) from error
        self._vocabulary: dict[str, int] = {str(token): int(number) for token, number in found["vocabulary"].items()}
        self.added_tokens_decoder: dict[int, str] = {int(number): token for number, token in found["added"]}
        self._tokens = {number: token for token, number in self._vocabulary.items()} | self.added_tokens_decoder
        self.all_special_ids: list[int] = found["special_ids"]
        self.special_tokens_map: dict[str, str] = found["special_tokens"]
        self.chat_template = found["template"]
        self.unk_token_id: int | None = None  # as the other marks, below
        for name, token in found["marks"].items():
            setattr(self, name, token)
        for name, number in found["mark_ids"].items():
            setattr(self, f"{name}_id", number)
        self.backend_tokenizer = _Backend(self, found["byte_level"])
        notes.extend(Note(**note) for note in found["notes"])

    @property
    def pid(self) -> int | None:
        """Its process, if there is one."""
        return self._worker.pid

    def close(self) -> None:
        """End the process; the next question starts another."""
        self._worker.end()

    def __len__(self) -> int:
        return len(self._vocabulary)

    def get_vocab(self) -> dict[str, int]:
        """Id of each token."""
        return self._vocabulary

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, return_offsets_mapping: bool = False, verbose: bool = True
    ) -> dict[str, Any]:
        """`{"input_ids"}` of one text, and `"offset_mapping"` if asked; `verbose` is transformers'.

        Raises:
            ValueError: the tokenizer refuses, or is not within its limits (`WorkerEnded`), or gives what are no ids.
        """
        how = {"add_special_tokens": add_special_tokens, "return_offsets_mapping": return_offsets_mapping}
        answer = self._ask({"do": "encode", "text": text, "how": how})
        ids = answer["input_ids"]
        if not all(type(number) is int and 0 <= number < self._rows for number in ids):
            raise ValueError(f"ids outside the model's embedding of {self._rows} rows")
        spans = {"offset_mapping": [tuple(pair) for pair in answer.get("offset_mapping", [])]}
        return {"input_ids": ids, **(spans if return_offsets_mapping else {})}

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, add_generation_prompt: bool = False, tokenize: bool = False
    ) -> str:
        """The messages in the chat template, as text.

        Raises:
            ValueError: as for a text; or `tokenize`, which is not done here.
        """
        if tokenize:
            raise ValueError("tokenize=True: encode the text instead")
        how = {"add_generation_prompt": add_generation_prompt}
        return self._ask({"do": "template", "messages": messages, "how": how})["text"]

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """The text of ids; nothing is ever cleaned up.

        Raises:
            ValueError: as for a text.
        """
        how = {"skip_special_tokens": skip_special_tokens}
        return self._ask({"do": "decode", "ids": [int(number) for number in ids], "how": how})["text"]

    def convert_ids_to_tokens(self, number: int) -> str | None:
        """A token's own name; None for an id without one."""
        return self._tokens.get(number)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """A token's id; that of the unknown token, if there is one, for what is none."""
        return self._vocabulary.get(token, self.unk_token_id)

    def spelled_out(self) -> str:
        """The whole tokenizer as JSON."""
        return self._ask({"do": "spell"})["text"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._strikes >= STRIKES and time.monotonic() - self._struck < REST:
            raise ValueError(f"it was ended {self._strikes} times in a row, for time or memory; wait a minute")
        try:
            answer = self._worker.ask(request, seconds=self._limits.seconds, n_bytes=self._limits.n_bytes, over=stopped)
        except WorkerEnded as error:
            if error.why == "over":
                check()  # of who runs under `interruptible`: the work is left as any other
            else:
                self._strikes, self._struck = self._strikes + 1, time.monotonic()
            raise
        self._strikes = 0
        return answer


class _Backend:
    """What is asked of a tokenizer's inside."""

    def __init__(self, tokenizer: ApartTokenizer, byte_level: bool) -> None:
        self._tokenizer = weakref.proxy(tokenizer)
        self.decoder = decoders.ByteLevel() if byte_level else None

    def id_to_token(self, number: int) -> str | None:
        """A token's own name; None for an id without one."""
        return self._tokenizer.convert_ids_to_tokens(number)

    def to_str(self) -> str:
        """The whole tokenizer as JSON."""
        return self._tokenizer.spelled_out()
