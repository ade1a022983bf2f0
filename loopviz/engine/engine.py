"""How anybody reaches a model, wherever it runs: what it is, what it refuses, a run of it. Plain data both ways.

    loaded.describe()               what a page says of the model, before anything runs
    loaded.check(loop)              what it refuses of loop settings
    loaded.start(request)           a run: its Meta, its Frames, a wheel and a brake
    loaded.read_again(trace)        a finished run's tokens read again: all that a layer computed for one of them

A TTT model's engine (:class:`TTTEngine`) has a description, runs, and a steering of its own.

An engine is of one model, and whoever holds it keeps the model. :class:`loopviz.engine.local.LocalEngine` is that of a model
in this process; another process, or a cluster, is reached by the same methods, for nothing of a model passes them: a
:class:`Request`, a :class:`Description`, a refusal and a Frame can be pickled, and can be written as JSON.

Importing this needs no torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from loopviz.checks import FieldError
from loopviz.engine.work import Rate, Shape

if TYPE_CHECKING:
    from loopviz.anatomy.picture import Beside, Distances, LayerPicture, TokenPicture
    from loopviz.model.block import LoopBlock
    from loopviz.model.checkpoints.errors import Note
    from loopviz.trace import Frame, Trace
    from loopviz.trace.schema import TTTChange


@dataclass(frozen=True)
class Description:
    """A model as plain data: all that is said of it before anything runs.

    It has the names of a `LoopLlamaConfig` for what it shares with one, so that a rule about loop settings reads either.

    Attributes:
        name: what was asked for.
        source: where its weights came from, for people to read.
        notes: what is to be known of it although it loads.
        shape: its sizes, and its loop's: what decides what work costs.
        blocks: its looped blocks with every setting resolved, in order; none for a plain Llama.
        loop_injection, loop_norm, exit_selection: which loop weights it has, one value or one a block.
        dtype: of its parameters, "float32"; of packed layers in words.
        parameters: how many.
        n_bytes: of them all.
        chats: whether it has a chat template.
        lens_misleads: whether the direct lens shows words that it would not say
            (:func:`loopviz.model.direct_lens_misleads`).
        gated: whether it has an exit gate that its own loop does not ask for.
    """

    name: str
    source: str
    notes: tuple[Note, ...]
    shape: Shape
    blocks: tuple[LoopBlock, ...]
    loop_injection: Any
    loop_norm: Any
    exit_selection: Any
    dtype: str
    parameters: int
    n_bytes: int
    chats: bool
    lens_misleads: bool = False
    gated: bool = False

    @property
    def num_hidden_layers(self) -> int:
        """Physical decoder layers, L."""
        return self.shape.layers

    @property
    def max_position_embeddings(self) -> int:
        """Tokens it can read at most."""
        return self.shape.context

    def loop_blocks(self) -> list[LoopBlock]:
        """As `LoopLlamaConfig.loop_blocks`."""
        return list(self.blocks)


@dataclass(frozen=True)
class Request:
    """A run that is asked for.

    Attributes:
        prompt: text.
        loop: fields of `LoopLlamaConfig`; what is not given stays as the model has it.
        settings: fields of `StreamSettings`.
        name: what the run's Meta calls the model; "": what it was loaded as.
    """

    prompt: str
    loop: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Handle:
    """A run that has begun.

    Attributes:
        meta: its Meta; `meta["changes"]` grows there as its loop is changed, before the first Frame made under the change.
        frames: one a token, as they come; closing this ends the run.
        steer: `steer(loop_count=8)` changes loop fields from the next pass on; ValueError for what the run refuses.
        stop: end it at once, in the middle of a pass too. Like `steer`, from any thread.
    """

    meta: dict[str, Any]
    frames: Iterator[Frame]
    steer: Callable[..., None]
    stop: Callable[[], None]


class EngineLost(FieldError):
    """What made a run, or was asked, is gone or does not answer: a process, a machine, a cluster. What came of it before stays.

    Raised at a Frame too. Only an engine that is elsewhere (:mod:`loopviz.engine.ray_engine`) raises it.
    """


@dataclass(frozen=True)
class Draw:
    """What the next token would be drawn from.

    Attributes:
        rows: of the likeliest tokens by the model's own logits: text, logit, its share of all at temperature 1, and its chance of being
            drawn, 0 where it is left out (or below what float64 can hold).
        kept: tokens that are not left out, of the `vocabulary`, however small their chance.
    """

    rows: tuple[tuple[str, float, float, float], ...]
    kept: int
    vocabulary: int


class TokenReading(Protocol):
    """A token that was read again, until another is. Each method raises ValueError once it is let go of."""

    picture: TokenPicture

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""

    def layer(self, layer: int, step: int) -> LayerPicture:
        """A layer in a loop step (0: of a layer that does not loop); ValueError where it did not run."""

    def beside(self, layer: int, step: int, other: int) -> Beside:
        """Two loop steps of a layer; ValueError where it did not run."""

    def distances(self, layer: int, step: int, head: int, column: int, most: int, many: int) -> Distances:
        """What a query head would score with a column's key at distances 0 to `most`; of more than `many` those around the run's own.
        ValueError for what is not there."""

    def draw(self, temperature: float, top_k: int, top_p: float) -> Draw:
        """What the next token would be drawn from; ValueError for settings that are none."""


@dataclass(frozen=True)
class ParityNeed:
    """What a check against transformers takes.

    Attributes:
        subject: what is checked.
        need, free: bytes of memory.
        seconds: about how long it takes.
    """

    subject: str
    need: int
    free: int
    seconds: float


@dataclass(frozen=True)
class ParityRow:
    """A check against transformers, in one dtype and one of its ways to compute attention: :class:`loopviz.anatomy.parity.Row`."""

    subject: str
    dtype: str
    attention: str
    logits: int
    equal: bool
    agrees: bool
    max_delta_logit: float
    largest_logit: float
    delta_loss: float
    loss: float
    cause: str
    bound: float
    own: float


class Reading(Protocol):
    """A finished run that its model reads again. It holds one token's tensors at a time; its methods take turns."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds now."""

    def need(self, position: int) -> int:
        """Bytes that :meth:`read` takes at most."""

    def read(self, position: int, stop: threading.Event) -> TokenReading | None:
        """A token; the one before is let go of. None once `stop` is set; ValueError outside the run."""


class Engine(Protocol):
    """One model, to be described, asked and run. Its methods may be called from any thread."""

    @property
    def name(self) -> str:
        """What was asked for."""

    @property
    def layers(self) -> int:
        """Physical decoder layers, L."""

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""

    @property
    def n_bytes(self) -> int:
        """Bytes that keeping it takes."""

    def describe(self, loop: Mapping[str, Any] | None = None) -> Description:
        """What the model is; with loop fields, what it would be under them.

        Raises:
            FieldError: what :meth:`check` gives.
        """

    def check(self, loop: Mapping[str, Any]) -> list[FieldError]:
        """Why the model refuses these loop fields, in its configuration's own words; [] if it takes them."""

    def start(self, request: Request, stop: threading.Event | None = None) -> Handle:
        """Begin a run.

        Args:
            stop: ends the run once it is set, as `Handle.stop` does.

        Raises:
            ValueError: here, not at the first Frame: loop fields, settings or a prompt that are refused.
        """

    def read_again(self, trace: Trace) -> Reading:
        """Read a finished run's tokens again, as the run read them. Nothing is computed yet.

        Raises:
            ValueError: a run that this model cannot have made, or that ended within its prompt.
        """

    def parity_need(self, article: bool, dtype: str) -> ParityNeed:
        """What :meth:`parity` takes; ValueError for a model that computes what `llama.py` does not."""

    def parity(self, article: bool, dtype: str, stop: threading.Event) -> list[ParityRow]:
        """`llama.py` against transformers' Llama, loss and every logit: on this model as a plain Llama, or on the reproduction
        article's configuration. This waits until it is done, or until `stop` is set: then there are no rows.

        Raises:
            ValueError: it does not fit in memory, or the model computes what `llama.py` does not.
        """

    def rate(self, *, doubted: bool = False) -> Rate:
        """How fast it is where it runs; measured anew if `doubted`."""

    def prompt_tokens(self, prompt: str, *, chat: bool = False, template: str = "none", input: str = "") -> int:
        """Tokens of a prompt as a run reads it, `chat`, `template` and `input` as in its settings; ValueError where a run would
        refuse it."""

    def tokens(
        self, text: str, *, chat: bool = False, template: str = "none", input: str = "", marks: bool = True
    ) -> int:
        """Tokens of a text, however many.

        Args:
            chat, template, input: put it into a template first, as a run does; into that of chats if there is one.
            marks: with what the tokenizer puts before every text.

        Raises:
            ValueError: the tokenizer cannot read it.
        """

    def end_of(self, text: str, most: int, **wording: Any) -> str:
        """The end of a text, of at most so many tokens when it is read as a prompt; arguments and ValueError as :meth:`tokens`."""

    def unread_share(self, prompt: str) -> tuple[str, float] | None:
        """What of a prompt the tokenizer has no words for (:func:`loopviz.engine.prompt_words.unread_share`)."""


@dataclass(frozen=True)
class TTTDescription:
    """A TTT model as plain data.

    Attributes:
        name: what was asked for.
        layers, heads, mini_batch: L, H and M.
        kind: of the inner model: "linear" or "mlp".
        parameters: how many.
        most_tokens: that a run may read.
        most_lr_scale: the largest factor on the inner learning rate.
        shape: its sizes, as of a Llama of them, without loops.
        chats: whether it has a chat template.
    """

    name: str
    layers: int
    heads: int
    mini_batch: int
    kind: str
    parameters: int
    most_tokens: int
    most_lr_scale: float
    shape: Shape
    chats: bool


@dataclass(frozen=True)
class TTTRequest:
    """A run of a TTT model that is asked for.

    Attributes:
        prompt: text.
        settings: fields of `StreamSettings`.
        inner_lr_scale: factor on the inner learning rate; 0: nothing is learned.
        name: what the run's Meta calls the model; "": what it was loaded as.
    """

    prompt: str
    settings: dict[str, Any] = field(default_factory=dict)
    inner_lr_scale: float = 1.0
    name: str = ""


@dataclass(frozen=True)
class AttentionBeside:
    """What a model of equal size with attention looks at in one mini-batch of a run's text.

    Attributes:
        name: of that model.
        first: position of the mini-batch's first word.
        weights: by layer and head, of the mini-batch's words over each other, `[L][H][K][K]`; a row sums to 1 less what went to
            words before.
    """

    name: str
    first: int
    weights: list[list[list[list[float]]]]


@dataclass(frozen=True)
class RulesHeld:
    """What four inner rules hold of a run's text, each given the same keys and values.

    Attributes:
        fade: what everything held is multiplied with before a word is written, by the rule that fades.
        rules: by name, and of each by token: `start`, the error under the weights it began with, `after`, under those it left
            when the token was written, `held`, under those at the end.
    """

    fade: float
    rules: dict[str, dict[str, list[float]]]


CONTROL = "stories-attention"  # of the size of the TTT model that comes along, trained alike, with attention


class TTTEngine(Protocol):
    """A TTT model, to be described and run. Its methods may be called from any thread."""

    @property
    def name(self) -> str:
        """What was asked for."""

    @property
    def layers(self) -> int:
        """Decoder layers, L."""

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""

    @property
    def n_bytes(self) -> int:
        """Bytes that keeping it takes."""

    def describe(self) -> TTTDescription:
        """What the model is."""

    def rate(self, *, doubted: bool = False) -> Rate:
        """As :meth:`Engine.rate`; attention's part of it is 0, for a TTT layer attends to nothing."""

    def prompt_tokens(self, prompt: str, *, chat: bool = False, template: str = "none", input: str = "") -> int:
        """As :meth:`Engine.prompt_tokens`."""

    def tokens(
        self, text: str, *, chat: bool = False, template: str = "none", input: str = "", marks: bool = True
    ) -> int:
        """As :meth:`Engine.tokens`."""

    def start(self, request: TTTRequest, stop: threading.Event | None = None) -> Handle:
        """Begin a run, whose Frames have what the inner loops did. `Handle.steer(forget=True, inner_lr_scale=0.5)` changes it.

        Raises:
            ValueError: here, not at the first Frame: settings or a prompt that are refused. At a Frame, where an inner loss is
                no number any more.
        """

    def read_under(self, trace: Trace, changes: Sequence[TTTChange], stop: threading.Event) -> list[float]:
        """Log-probability of every token of a run's text, from the second on, when it is read with other changes.

        Raises:
            ValueError: an inner loss is no number any more; `stop` was set.
        """

    def attention_beside(self, trace: Trace, index: int, stop: threading.Event) -> AttentionBeside | None:
        """What a control looks at in the mini-batch of the word at `index`; None where no control comes along that reads the same
        tokens.

        Raises:
            ValueError: there is no such word; `stop` was set.
        """

    def inner_rules(self, trace: Trace, layer: int, head: int | None, stop: threading.Event) -> RulesHeld | None:
        """What four inner rules hold of a run's text in one layer, of a head or as the mean of all; None for an inner MLP.

        Raises:
            ValueError: `stop` was set.
        """

    def made(self, trace: Trace, stop: threading.Event) -> bool:
        """Whether a run that comes from elsewhere is this model's: its sizes, and what its first words cost when they are read again.

        Raises:
            ValueError: an inner loss is no number any more; `stop` was set.
        """

    def kv_beside(self) -> list[tuple[str, float]]:
        """Bytes of keys and values that models which come along keep of one token, by their configurations."""


@dataclass(frozen=True)
class LoadLimits:
    """How large a model may be that a stranger names, and what its tokenizer may take.

    Attributes:
        layers, vocabulary: at most.
        weight_bytes: of its parameters as they are held.
        download_bytes: of the files that are fetched.
        tokenizer_seconds, tokenizer_bytes: for one text.
    """

    layers: int
    vocabulary: int
    weight_bytes: int
    download_bytes: int
    tokenizer_seconds: float
    tokenizer_bytes: int


class Prepared(Protocol):
    """A model of which all is here but its weights."""

    @property
    def n_weights(self) -> int:
        """Numbers in its tensors."""

    @property
    def n_bytes(self) -> int:
        """Bytes of them in its files."""

    @property
    def need(self) -> int:
        """Bytes of memory that :meth:`load` needs at its peak."""

    def same(self, held: Engine) -> Engine | None:
        """The model with the weights of `held`, an engine of the same name, where they are what would be read; None where not.

        Raises:
            ValueError: the model cannot be had as it is wanted.
        """

    def load(self) -> Engine:
        """Read the weights; ValueError where they cannot be had after all."""
