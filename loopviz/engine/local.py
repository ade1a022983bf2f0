"""The engine of a model in this process, and how a model becomes one: found, looked into, its weights read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from loopviz.checks import FieldError
from loopviz.engine.engine import (
    Description,
    Engine,
    Handle,
    LoadLimits,
    ParityNeed,
    ParityRow,
    Prepared,
    Reading,
    Request,
)
from loopviz.engine.lowered import PrecisionRefused, decided, lowered, refuse_packed
from loopviz.engine.pieces import decode, encode
from loopviz.engine.prompt_words import unread_share
from loopviz.engine.rate import rate_of
from loopviz.engine.sampling import StreamSettings
from loopviz.engine.steering import Steering
from loopviz.engine.wording import Wording
from loopviz.engine.work import Rate, Shape
from loopviz.hub_download import EndableFetch
from loopviz.model.checkpoints import inspect
from loopviz.model.checkpoints.load import (
    CheckpointLimits,
    LoadedCheckpoint,
    Note,
    PreparedCheckpoint,
    Terms,
    TokenizerLimits,
    prepare_checkpoint,
)
from loopviz.model.checkpoints.precision_choice import surely_exact
from loopviz.model.exit_lens import direct_lens_misleads
from loopviz.model.precision import held_in, held_words, weight_bytes, weight_count

if TYPE_CHECKING:
    from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM
    from loopviz.trace import Trace

CUTS = 8  # tries at the end of a text: what the template adds, and what the cut changed, are known only afterwards


@dataclass(frozen=True)
class LocalEngine(Wording):
    """A model of this process, ready to run, and shared by all who run it: a run makes a view of its own.

    Attributes:
        name: what was asked for.
        model: never changed.
        tokenizer: of the model.
        source: where the weights came from, for people to read.
        notes: what is to be known of it although it loads.
    """

    name: str
    model: LoopLlamaForCausalLM
    tokenizer: Any
    source: str = ""
    notes: tuple[Note, ...] = ()

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def layers(self) -> int:
        """Physical decoder layers, L."""
        return self.model.config.num_hidden_layers

    @cached_property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return weight_count(self.model)

    @cached_property
    def n_bytes(self) -> int:
        """Bytes of its weights."""
        return weight_bytes(self.model)

    @property
    def context(self) -> int:
        """Tokens that it can read at most."""
        return self.model.config.max_position_embeddings

    def describe(self, loop: Mapping[str, Any] | None = None) -> Description:
        """What the model is; with loop fields, what it would be under them. FieldError as :meth:`check`."""
        if loop is not None:
            return self.described(self.model.with_loop(**loop).config)
        return replace(self._own, chats=self.chats)

    @cached_property
    def _own(self) -> Description:
        """What the model is: asked at every keystroke, several times."""
        return self.described(self.model.config)

    def described(self, config: LoopLlamaConfig) -> Description:
        """What a view of the model is, by its configuration."""
        first = next(iter(self.model.parameters()), None)
        return Description(
            name=self.name,
            source=self.source,
            notes=self.notes,
            shape=Shape.of(config, 0 if first is None else first.element_size()),
            blocks=tuple(config.loop_blocks()),
            loop_injection=config.loop_injection,
            loop_norm=config.loop_norm,
            exit_selection=config.exit_selection,
            dtype="" if first is None else held_words(self.model),
            parameters=self.parameters,
            n_bytes=self.n_bytes,
            chats=self.chats,
            lens_misleads=direct_lens_misleads(config, self.model.config),
            gated=bool(getattr(self.model, "spare_gates", None)),  # of its own gates the configuration tells
        )

    def check(self, loop: Mapping[str, Any]) -> list[FieldError]:
        """Why the model refuses these loop fields; [] if it takes them."""
        try:
            self.model.with_loop(**loop)
        except FieldError as error:
            return [error]
        return []

    def rate(self, *, doubted: bool = False) -> Rate:
        """How fast it is on this machine: measured as it arrives, and again if `doubted`."""
        return rate_of(self.model, doubted=doubted)

    # -- a run ---------------------------------------------------------------------------------------------------------

    def start(self, request: Request, stop: threading.Event | None = None) -> Handle:
        """Begin a run on a view of the model; raises as :func:`loopviz.engine.stream`."""
        return self._begin(request, threading.Event() if stop is None else stop, shared=True)

    def alone(self, request: Request, stop: threading.Event) -> Handle:
        """:meth:`start` of a run that shares its passes with none, where there is none beside it."""
        return self._begin(request, stop, shared=False)

    def _begin(self, request: Request, stop: threading.Event, *, shared: bool) -> Handle:
        from loopviz.engine import run_meta, stream  # by these names: who measures runs puts its own there

        view, settings, steering = self.model.with_loop(**request.loop), StreamSettings(**request.settings), Steering()
        which = (view, self.tokenizer, request.prompt, settings)
        meta = run_meta(*which, model_name=request.name or None, steering=steering)
        return Handle(meta, stream(*which, stop=stop, steering=steering, shared=shared), steering.set_loop, stop.set)

    def read_again(self, trace: Trace) -> Reading:
        """A finished run's tokens, read again by the model; raises as :class:`loopviz.engine.reading.LocalReading`."""
        from loopviz.engine.reading import LocalReading

        return LocalReading(self.model, self.tokenizer, trace)

    def _subject(self, article: bool) -> Any:
        from loopviz.anatomy import parity

        return parity.article() if article else parity.of_model(self.model, self.name)

    def parity_need(self, article: bool, dtype: str) -> ParityNeed:
        """What :meth:`parity` takes, on this machine."""
        import torch

        from loopviz.anatomy import parity

        subject, kind, device = self._subject(article), getattr(torch, dtype), self.model.device
        needed, free = parity.memory(subject, kind), parity.free_memory(device)
        return ParityNeed(subject.name, needed, free, parity.seconds(subject, kind, device))

    def parity(self, article: bool, dtype: str, stop: threading.Event) -> list[ParityRow]:
        """`llama.py` against transformers' Llama; raises as :func:`loopviz.anatomy.parity.compare`, but for its Interrupted."""
        import torch

        from loopviz.anatomy import parity
        from loopviz.model.interrupt import Interrupted, interruptible

        try:
            with interruptible(stop):
                rows = parity.compare(self._subject(article), getattr(torch, dtype), self.model.device)
        except Interrupted:
            return []
        return [
            ParityRow(
                subject=row.subject,
                dtype=dtype,
                attention=row.attention,
                logits=row.logits,
                equal=row.equal,
                agrees=row.agrees,
                max_delta_logit=row.max_delta_logit,
                largest_logit=row.largest_logit,
                delta_loss=row.delta_loss,
                loss=row.loss_ours,
                cause=row.cause,
                bound=row.bound,
                own=row.own_delta_logit,
            )
            for row in rows
        ]

    # -- its words -----------------------------------------------------------------------------------------------------

    def end_of(self, text: str, most: int, **wording: Any) -> str:
        """The end of a text, of at most so many tokens when it is read as a prompt; ValueError: it cannot be read."""
        ids = encode(self.tokenizer, text, add_special_tokens=False)
        over = 0  # what the template adds, and what the cut changed
        for _ in range(CUTS):
            cut = decode(self.tokenizer, ids[-max(1, most - over) :]).lstrip("\ufffd")
            more = self.tokens(cut, **wording) - most
            if more <= 0:
                break
            over += more
        return cut

    def unread_share(self, prompt: str) -> tuple[str, float] | None:
        """What of a prompt the tokenizer has no words for; ValueError: it cannot read it."""
        return unread_share(self.tokenizer, prompt)


def engine_of(model: Any) -> Engine:
    """`model` as an engine: itself if it is one, else (a LoopLlama that a script has at hand) one without a tokenizer."""
    return model if hasattr(model, "describe") else LocalEngine("", model, None)


# -- how a model becomes one -------------------------------------------------------------------------------------------


class Lends(Protocol):
    """What a graphics card is lent by (:class:`loopviz.engine.lent_card.LentCard`)."""

    def wants(self, parameters: int) -> bool:
        """Whether a model's runs are to be made on it."""

    def lent(self, engine: LocalEngine) -> LocalEngine:
        """An engine of the same model whose runs are."""


@dataclass(frozen=True)
class LocalPrepared:
    """A model of which all is here but its weights.

    Attributes:
        name: what was asked for.
        precision: what it is to be held in.
        must: whether it is refused where it cannot be that.
        device: where it is computed, as :func:`loopviz.model.devices.resolve_device` takes it.
        card: a graphics card that is lent for runs of large models; None: there is none.
    """

    name: str
    checkpoint: PreparedCheckpoint
    precision: str = "exact"
    must: bool = False
    device: str = "cpu"
    card: Lends | None = None

    @property
    def n_weights(self) -> int:
        """Numbers in its tensors."""
        return self.checkpoint.found.n_weights

    @property
    def n_bytes(self) -> int:
        """Bytes of them in its files."""
        return self.checkpoint.found.n_bytes

    @property
    def need(self) -> int:
        """Bytes of memory that :meth:`load` needs at its peak."""
        checkpoint = self.checkpoint
        exact = surely_exact(checkpoint.config, self.precision)
        smaller = 0 if exact else 2 * checkpoint.found.n_weights  # beside what was read, at most
        return checkpoint.need + smaller

    def same(self, held: Engine) -> Engine | None:
        """The model with the weights of `held`, an engine of the same name, where they are what would be read; None where not."""
        if not isinstance(held, LocalEngine):
            return None
        if self.must and self.precision not in ("exact", "auto") and (packing := self.checkpoint.found.packing):
            refuse_packed(packing.kind, self.precision)  # before a byte of its weights is read once more
        choice = decided(self.checkpoint.config, self.precision, self.must)
        if choice.dtype is not held_in(held.model):
            return None
        # what those weights cost is so whoever wanted them; why they are wanted is not
        costs = [note for note in held.notes if note.code.startswith(("precision_cost", "precision_floor"))]
        others = [note for note in held.notes if not note.code.startswith("precision_")]
        return replace(held, notes=(*others, *choice.notes, *costs))

    def load(self) -> LocalEngine:
        """Read the weights; CheckpointError where they do not fit, or cannot be read after all, PrecisionRefused."""
        if self.card is not None and self.card.wants(self.n_weights) and (not self.must or self.precision == "exact"):
            return self._lent(self.card)
        found = lowered(self.checkpoint.load, self.precision, self.must) if self.device == "cpu" else self._placed()
        found.model.requires_grad_(False)
        return LocalEngine(self.name, found.model, found.tokenizer, found.source, found.notes)

    def _lent(self, card: Lends) -> LocalEngine:
        """For runs on a card that is lent; what the processor does of it is in float32 too, for that is what the card takes."""
        found = self.checkpoint.load()
        found.model.requires_grad_(False)
        words = "its runs are made on a graphics card that is lent for each (ZeroGPU) where one is free, all else on the processor"
        note = Note("lent_card", words, {})
        return card.lent(LocalEngine(self.name, found.model, found.tokenizer, found.source, (*found.notes, note)))

    def _placed(self) -> LoadedCheckpoint:
        """On a device, in float32; layers that it does not hold stay in main memory, and that is noted."""
        from loopviz.model.devices import resolve_device
        from loopviz.model.placing import place

        if self.precision != "exact":
            said = f"models are computed on {self.device} here, in float32"
            raise PrecisionRefused("precision_device", said, precision=self.precision, device=self.device)
        found = self.checkpoint.load()
        if not (behind := place(found.model, resolve_device(self.device))):
            return found
        words = f"{behind} of its layers stay in main memory, for {self.device} does not hold them: they are brought there as they are used"
        note = Note("layers_behind", words, {"layers": str(behind), "device": self.device})
        return replace(found, notes=(*found.notes, note))


def prepare(
    name: str,
    path: str,
    limits: LoadLimits,
    *,
    bounded: bool,
    apart: bool,
    allow_paths: bool,
    progress: Callable[[str, float | None], None],
    unwanted: Callable[[], bool],
    precision: str = "exact",
    chosen: bool = False,
    device: str = "cpu",
    card: Lends | None = None,
) -> Prepared:
    """Bring a model here and look through it: all but the weights.

    Args:
        name: what was asked for.
        path: what that is: a known model, a folder, a .gguf file, an id of the Hub.
        limits: of a stranger's model.
        bounded: whether they hold for this one.
        apart: whether its tokenizer is a stranger's, and runs in a process of its own.
        allow_paths: whether folders and files of this machine may be named.
        progress: told the stage, and the share done of it.
        unwanted: once it says so, a download ends.
        precision: what it is to be held in (:func:`loopviz.engine.lowered.lowered`).
        chosen: whether it must be that: else it is held in float32 where it cannot, and that is noted.
        device: where it is computed.
        card: a graphics card that is lent for runs of large models.

    Raises:
        CheckpointError: it cannot be had, or is more than the limits allow (CheckpointTooLarge).
        WorkerEnded: nobody waits for it any more.
    """
    largest = CheckpointLimits(limits.layers, limits.vocabulary, limits.weight_bytes, limits.download_bytes)
    texts = TokenizerLimits(limits.tokenizer_seconds, limits.tokenizer_bytes, 2 * limits.vocabulary)
    prepared = prepare_checkpoint(
        os.path.expanduser(path) if allow_paths else path,
        progress=progress,
        allow_paths=allow_paths,
        terms=Terms(largest if bounded else None, EndableFetch(unwanted)),
        apart=texts if apart else None,
    )
    if device != "cpu" and precision == "auto":
        precision = "exact"
    return LocalPrepared(name, prepared, precision, chosen, device, card)


def free_memory() -> int:
    """Bytes of memory that a model may take here now."""
    return inspect.available_memory()
