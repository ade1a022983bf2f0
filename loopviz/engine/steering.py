"""Changing a run's loop while it runs: asked at any time, done between two tokens."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loopviz.checks import FieldError, check_whole
from loopviz.loop_fields import BLOCK_FIELDS, LAYOUT_FIELDS, NAMES
from loopviz.trace.plausible import LAYOUT

if TYPE_CHECKING:
    from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM
    from loopviz.trace import Change
    from loopviz.trace.schema import BlockMeta

FURTHEST_TOKEN = 10**9


def block_metas(config: LoopLlamaConfig) -> list[BlockMeta]:
    """The looped blocks of ``config`` as a Meta writes them."""
    return [
        {
            "layers": [block.a, block.b],
            **{field.meta: getattr(block, field.meta) for field in BLOCK_FIELDS},  # type: ignore[typeddict-item]  # computed keys
        }
        for block in config.loop_blocks()
    ]


class Steering:
    """The wheel of one run: give it to ``stream`` and ``run_meta``, then change the loop while the frames come.

        steering = Steering()
        meta = run_meta(model, tokenizer, prompt, settings, steering=steering)
        for frame in stream(model, tokenizer, prompt, settings, steering=steering):
            trace.append(frame)
            if frame["index"] == 20:
                steering.set_loop(loop_count=8)

    What is known before can be asked for before; it is checked when the run begins. Every method may be called from any thread.

    Attributes:
        changes: what was changed so far, each with the position of the first token read under it. The very list that
            ``run_meta`` puts into the Meta as ``changes``: it grows there too, before the frame of that token comes.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._lock = threading.Lock()
        self._view: LoopLlamaForCausalLM | None = None  # has the settings as they will be after all that was asked
        self._asked: deque[tuple[int, dict[str, Any], list[BlockMeta]]] = deque()
        self._early: list[tuple[int, dict[str, Any]]] = []  # asked for before there was a run to check them on

    def bind(self, model: LoopLlamaForCausalLM) -> None:
        """Called by ``stream``: the run's model as it begins.

        Raises:
            ValueError: another run has this wheel already, or the model refuses a change that was asked for before.
                The wheel is then as it was.
        """
        with self._lock:
            if self._view is not None:
                raise ValueError("steering: this one steers another run; make one for every run")
            self._view = model.with_loop()
            try:
                for token, fields in self._early:
                    self._ask(token, fields)
            except ValueError:
                self._view = None
                self._asked.clear()
                raise
            self._early.clear()

    def set_loop(self, *, token: int = 0, **fields: Any) -> None:
        """Change loop fields of the run from its next forward pass on, as ``model.set_loop`` does.

        Args:
            token: wait until this position is to be read; 0: do not wait. Changes are made in the order they were
                asked for: one that waits holds up those asked after it.
            fields: loop fields of ``LoopLlamaConfig``, e.g. ``loop_count=8``.

        Raises:
            ValueError: a field or value that ``model.set_loop`` refuses; a field that decides how the KV cache is laid
                out, which holds the run's tokens. Nothing is changed then. Before the run has begun only a field that
                there is not is refused here, and the rest by ``stream``.
        """
        check_whole("token", token, 0, FURTHEST_TOKEN)
        with self._lock:
            if self._view is None:
                _check_names(fields)
                self._early.append((token, fields))
            else:
                self._ask(token, fields)

    def _ask(self, token: int, fields: dict[str, Any]) -> None:
        """Check a change on the run's view, and let it wait for its token."""
        assert self._view is not None
        view = self._view.with_loop(**fields)
        before, after = block_metas(self._view.config), block_metas(view.config)
        if _layout(before) != _layout(after):
            raise ValueError(_refusal(self._view.config, view.config, fields))
        self._view = view
        new = view.config.loop_fields()
        self._asked.append((token, {name: new[name] for name in fields}, after))

    def take(self, token: int) -> Change | None:
        """Called by ``stream`` before it reads position ``token``: what to change now; several asked for are one."""
        with self._lock:
            change: Change | None = None
            while self._asked and self._asked[0][0] <= token:
                _, fields, blocks = self._asked.popleft()
                earlier: dict[str, Any] = change["loop"] if change else {}
                change = {"index": token, "loop": {**earlier, **fields}, "blocks": blocks}
            return change


def _check_names(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if name not in NAMES:
            raise FieldError(name, value, "not_a_loop_field", known=", ".join(NAMES))


def _layout(blocks: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [[block[name] for name in LAYOUT] for block in blocks]


def _refusal(before: LoopLlamaConfig, after: LoopLlamaConfig, fields: dict[str, Any]) -> str:
    """Names the field that would change the cache's layout."""
    name = next(name for name in LAYOUT_FIELDS if name in fields and getattr(before, name) != getattr(after, name))
    return (
        f"{name}={fields[name]!r}: decides how the KV cache is laid out, and the cache holds this run's tokens under "
        f"{name}={getattr(before, name)!r}; start a new run with it"
    )
