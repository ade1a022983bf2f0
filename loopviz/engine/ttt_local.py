"""The engine of a TTT model in this process, and how a TTT checkpoint becomes one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopviz.checks import ABSENT, FieldError, check_whole
from loopviz.engine.engine import CONTROL, AttentionBeside, Handle, RulesHeld, TTTDescription, TTTRequest
from loopviz.engine.pieces import encode_prompt
from loopviz.engine.sampling import StreamSettings
from loopviz.engine.wording import Wording
from loopviz.engine.work import Rate, Shape
from loopviz.model.checkpoints.errors import CheckpointError
from loopviz.model.checkpoints.find import BUNDLED_FOLDER
from loopviz.model.checkpoints.json_files import SMALL_JSON, read_json
from loopviz.model.interrupt import Interrupted, interruptible

if TYPE_CHECKING:
    from loopviz.trace.schema import TTTChange
    from loopviz.trace.trace import Trace
    from loopviz.ttt import TTTForCausalLM

BESIDE = (CONTROL, "stories-loop")  # models that come along, whose keys and values a TTT model's state is held against
UNHEARD = ("chat", "template", "input", "record", "extras")  # of StreamSettings: what a TTT run has nothing of
FIRST, AGREES = 32, 0.02  # words by which a run's model is known, and nats by which a word of the same may differ


@dataclass(frozen=True)
class LocalTTT(Wording):
    """A TTT model of this process, shared by all who run it: a run makes a view of its own.

    Attributes:
        name: what was asked for.
        model: never changed.
        tokenizer: of the model.
    """

    name: str
    model: TTTForCausalLM
    tokenizer: Any

    @property
    def layers(self) -> int:
        """Decoder layers, L."""
        return self.model.config.num_hidden_layers

    @cached_property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @cached_property
    def n_bytes(self) -> int:
        """Bytes of its parameters."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())

    @property
    def context(self) -> int:
        """Tokens that a run can read at most: the model has no end of its own, a run has."""
        from loopviz.engine.ttt_stream import MOST_TOKENS

        return MOST_TOKENS

    def rate(self, *, doubted: bool = False) -> Rate:
        """How fast it is on this machine: measured the first time, and again if `doubted`."""
        from loopviz.engine.rate import rate_of

        return rate_of(self.model, doubted=doubted)

    def describe(self) -> TTTDescription:
        """What the model is."""
        from loopviz.engine.ttt_stream import MOST_LR_SCALE, MOST_TOKENS

        config = self.model.config
        return TTTDescription(
            name=self.name,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            mini_batch=config.mini_batch_size,
            kind=config.ttt_layer_type,
            parameters=self.parameters,
            most_tokens=MOST_TOKENS,
            most_lr_scale=MOST_LR_SCALE,
            shape=Shape.of_ttt(config, self.model.dtype.itemsize, self.context),
            chats=self.chats,
        )

    def start(self, request: TTTRequest, stop: threading.Event | None = None) -> Handle:
        """Begin a run; raises as the protocol says."""
        from loopviz.engine.ttt_stream import MOST_TOKENS, TTTWheel, meta_of, stream_ttt

        stop = threading.Event() if stop is None else stop
        settings, wheel = StreamSettings(**request.settings), TTTWheel(request.inner_lr_scale)
        _check_heard(settings)
        ids = encode_prompt(self.tokenizer, request.prompt, context=MOST_TOKENS)
        scale = float(request.inner_lr_scale)
        meta = meta_of(self.model, request.prompt, ids, settings, wheel, scale, request.name or self.name)
        meta["ttt"]["kv_beside"] = dict(self.kv_beside())
        frames = stream_ttt(self.model, self.tokenizer, ids, settings, stop, wheel, scale)
        return Handle(meta, frames, wheel.steer, stop.set)

    def read_under(self, trace: Trace, changes: Sequence[TTTChange], stop: threading.Event) -> list[float]:
        """A run's own text under other changes; raises as :func:`loopviz.engine.ttt_stream.read_under`."""
        from loopviz.engine.ttt_stream import MOST_TOKENS, read_under

        ids = [frame["token_id"] for frame in trace.frames]
        ids.append(trace.frames[-1]["next_id"])
        if len(trace) > MOST_TOKENS:
            raise FieldError("", ABSENT, "reads_at_most", n=f"{len(trace):,}", most=f"{MOST_TOKENS:,}")
        with _left():
            return read_under(self.model, ids, changes, trace.meta["ttt"]["inner_lr_scale"], stop)

    @cached_property
    def _control(self) -> Any:
        """The control, if it comes along and its tokens are these: loaded when it is first asked for; else None."""
        if not (BUNDLED_FOLDER / CONTROL / "config.json").is_file():
            return None
        from loopviz.model.checkpoints.load import load_checkpoint

        found = load_checkpoint(CONTROL)
        if found.tokenizer.get_vocab() != self.tokenizer.get_vocab():
            return None
        found.model.set_attn_implementation("eager")  # the one that hands its weights out
        return found.model.requires_grad_(False)

    def attention_beside(self, trace: Trace, index: int, stop: threading.Event) -> AttentionBeside | None:
        """What the control looks at in a mini-batch of a run's text; raises as the protocol says."""
        import torch

        check_whole("index", index, 0, len(trace) - 1)
        control = self._control
        if control is None:
            return None
        size = self.model.config.mini_batch_size
        first = index - index % size
        end = min(first + size, len(trace))
        begin = max(0, end - control.config.max_position_embeddings)
        ids = [frame["token_id"] for frame in trace.frames[begin:end]]
        with _left(), interruptible(stop), torch.inference_mode():
            out = control.model(torch.tensor([ids]), output_attentions=True, use_cache=False)
        shown = [layer[0, :, first - begin :, first - begin :].tolist() for layer in out.attentions]
        return AttentionBeside(CONTROL, first, shown)

    def inner_rules(self, trace: Trace, layer: int, head: int | None, stop: threading.Event) -> RulesHeld | None:
        """What four inner rules hold of a run's text; raises as the protocol says."""
        from loopviz.engine.ttt_rules import held_by_rules

        ids = [frame["token_id"] for frame in trace.frames]
        with _left():
            return held_by_rules(self.model, ids, min(layer, self.layers - 1), head, stop)

    def made(self, trace: Trace, stop: threading.Event) -> bool:
        """Whether a run from elsewhere is this model's; raises as the protocol says."""
        shape, said, config = trace.meta["shape"], trace.meta["ttt"], self.model.config
        names = (
            "num_hidden_layers",
            "num_attention_heads",
            "mini_batch_size",
            "ttt_layer_type",
            "hidden_size",
            "vocab_size",
        )
        told = (said["layers"], said["heads"], said["mini_batch"], said["kind"], shape["hidden"], shape["vocab"])
        if told != tuple(getattr(config, name) for name in names):
            return False
        first = type(trace)(trace.meta, trace.frames[:FIRST])
        again = self.read_under(first, [change for change in said["changes"] if change["index"] < len(first)], stop)
        known = [(frame["next_logprob"], cost) for frame, cost in zip(first.frames, again, strict=True)]
        apart = [abs(then - now) for then, now in known if then is not None]
        return bool(apart) and max(apart) <= AGREES

    def kv_beside(self) -> list[tuple[str, float]]:
        """Bytes of keys and values that models which come along keep of one token, by their configurations alone."""
        from loopviz.model.configuration import LoopLlamaConfig

        found: list[tuple[str, float]] = []
        for name in BESIDE:
            config = BUNDLED_FOLDER / name / "config.json"
            if config.is_file():
                said = LoopLlamaConfig.from_dict(json.loads(config.read_text(encoding="utf-8")))
                found.append((name, Shape.of(said, 4).kv_bytes))
        return found


def _check_heard(settings: StreamSettings) -> None:
    """FieldError for a setting that a TTT run would not hear."""
    plain = StreamSettings()
    for name in UNHEARD:
        if (value := getattr(settings, name)) != getattr(plain, name):
            raise FieldError(name, value, "ttt_unheard")


@contextmanager
def _left() -> Iterator[None]:
    """Work that was stopped in the middle is refused, as whoever asked for it is gone."""
    try:
        yield
    except Interrupted as error:
        raise FieldError("", ABSENT, "left") from error


def load_ttt(name: str, progress: Callable[[str, float | None], None], allow_paths: bool) -> LocalTTT:
    """A TTT model by its name: one that comes along, or a folder of this machine where that is allowed.

    Args:
        progress: told how far it is.

    Raises:
        CheckpointError: there is none of that name, or it is no TTT model, or is not whole.
    """
    from loopviz.ttt.checkpoint import load_ttt as load

    folder = _folder(name, allow_paths)
    progress("resolve", None)
    kind = read_json(folder / "config.json", SMALL_JSON).get("model_type")
    if kind != "ttt":
        raise CheckpointError(
            f"{name}: no TTT model (its model_type is {kind!r}, and a TTT model's is 'ttt'); its place is Explore. Choose a "
            "TTT model here"
        )
    progress("weights", None)
    found = load(folder)
    model, tokenizer = found.model, found.tokenizer
    model.config._name_or_path = name
    progress("ready", 1.0)
    return LocalTTT(name, model.requires_grad_(False).eval(), tokenizer)


def _folder(name: str, allow_paths: bool) -> Path:
    """Where a TTT model lies; CheckpointError where there is none."""
    own = BUNDLED_FOLDER / name
    if name.replace("-", "").isalnum() and (own / "config.json").is_file():
        return own
    there = Path(name).expanduser()
    if allow_paths and (there / "config.json").is_file():
        return there
    raise CheckpointError(f"{name}: there is no TTT model of this name here; {_known(allow_paths)}")


def _known(allow_paths: bool) -> str:
    names = ttt_models()
    listed = f"there is {', '.join(names)}" if names else "none comes along"
    return f"{listed}{', or give a folder with a config.json and safetensors' if allow_paths else ''}"


def ttt_models() -> list[str]:
    """Names of the TTT models that come along."""
    found = []
    for file in sorted(BUNDLED_FOLDER.glob("*/config.json")):
        if json.loads(file.read_text(encoding="utf-8")).get("model_type") == "ttt":
            found.append(file.parent.name)
    return found
