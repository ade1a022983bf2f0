"""Choosing the next token exactly as ``generate()`` does, with transformers' own logits processors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.checks import ABSENT, FieldError, check_flag, check_one_of, check_real, check_some_of, check_whole
from loopviz.engine import limits
from loopviz.prompt_templates import check_template, template_of
from loopviz.trace.schema import EXTRAS

if TYPE_CHECKING:
    from loopviz.model import LoopLlamaForCausalLM


@dataclass(frozen=True)
class StreamSettings:
    """How a prompt is continued, and what is recorded. The sampling fields mean what they mean to ``generate()``.

    Attributes:
        max_new_tokens: tokens to choose at most, >= 1.
        do_sample: draw from the distribution; otherwise take the most likely token.
        temperature: from 1e-4 (the most likely token, but for a tie) to 100; with ``do_sample``.
        top_k: keep this many of the most likely tokens; 0 keeps all; with ``do_sample``.
        top_p: keep the most likely tokens that together reach this probability, in (0, 1]; with ``do_sample``.
        min_p: keep tokens at least this fraction as likely as the best, in [0, 1]; with ``do_sample``.
        repetition_penalty: from 0.01 to 100; above 1 makes tokens already seen less likely. Applies to greedy choice as well.
        seed: of the run's own random generator, >= 0.
        record: ``"full"``, or ``"off"`` for text and loop counts alone.
        top_tokens: entries of each recorded top-k list, >= 1.
        extras: what to record beyond that, each at a cost of its own: ``"exit"`` (every step through the coda),
            ``"keys"`` (how much a step changes the keys), ``"attention"`` (what every step attends to).
        template: how the prompt becomes what the model reads (:mod:`loopviz.prompt_templates`): ``"none"``, as it is; ``"chat"``,
            the user's message in the tokenizer's own chat template; ``"alpaca"``, ``"vicuna"``, which any model can read.
        input: what the instruction is about; with ``template="alpaca"``, which then is its form with an input.
        chat: what ``template="chat"`` was called before there were others; it means the same still.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    max_new_tokens: int = 64
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    record: str = "full"
    top_tokens: int = 5
    chat: bool = False
    extras: tuple[str, ...] = ()
    template: str = "none"
    input: str = ""

    def __post_init__(self) -> None:
        check_whole("max_new_tokens", self.max_new_tokens, 1, limits.MAX_NEW_TOKENS)
        check_flag("do_sample", self.do_sample)
        check_real("temperature", self.temperature, limits.MIN_TEMPERATURE, limits.MAX_TEMPERATURE)
        check_whole("top_k", self.top_k, 0, limits.MAX_TOP_K)
        check_real("top_p", self.top_p, 0, 1, above=True)
        check_real("min_p", self.min_p, 0, 1)
        check_real("repetition_penalty", self.repetition_penalty, limits.MIN_PENALTY, limits.MAX_PENALTY)
        check_whole("seed", self.seed, 0, limits.MAX_SEED)
        check_one_of("record", self.record, ("full", "off"))
        check_whole("top_tokens", self.top_tokens, 1, limits.MAX_TOP_TOKENS)
        check_flag("chat", self.chat)
        check_template(self.template, self.input, chat=self.chat)
        check_some_of("extras", self.extras, EXTRAS)
        if self.extras and self.record == "off":
            raise ValueError(
                f"extras={tuple(self.extras)!r}: nothing is recorded with record='off'; set record='full' or extras=()"
            )
        object.__setattr__(self, "extras", tuple(name for name in EXTRAS if name in self.extras))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON-able data."""
        template = template_of({"chat": self.chat, "template": self.template})
        # `chat` as it always was, for whoever reads that alone
        return asdict(self) | {"template": template, "chat": template == "chat", "extras": list(self.extras)}

    @property
    def wording(self) -> dict[str, Any]:
        """The keywords that ask :func:`~loopviz.engine.encode_prompt` for what the model reads."""
        return {"chat": self.chat, "template": self.template, "input": self.input}

    def generate_kwargs(self) -> dict[str, Any]:
        """The keywords that ask ``model.generate()`` for the same tokens (under ``torch.manual_seed(seed)``)."""
        kwargs: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.do_sample,
            "repetition_penalty": float(self.repetition_penalty),
        }
        if self.do_sample:
            kwargs |= {"temperature": float(self.temperature), "top_k": self.top_k, "top_p": float(self.top_p)}
            kwargs["min_p"] = float(self.min_p)
        return kwargs


class Sampler:
    """Chooses tokens for one run.

    The processors are those ``generate()`` would build from the model's generation config and ``settings``. Random draws
    come from a generator of the run's own, seeded as ``torch.manual_seed(seed)`` would seed the global one, so that runs
    in other threads neither disturb nor are disturbed.

    Args:
        model: whose generation config applies.
        settings: of the run.
        prompt: token ids ``[1, T]`` int64.
        room: tokens that may still be chosen.
    """

    def __init__(self, model: LoopLlamaForCausalLM, settings: StreamSettings, prompt: Tensor, room: int) -> None:
        config, _ = model._prepare_generation_config(None, **settings.generate_kwargs())
        model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device=prompt.device)
        self.processors = model._get_logits_processor(
            generation_config=config,
            input_ids_seq_length=prompt.shape[1],
            device=prompt.device,
            model_kwargs={"attention_mask": torch.ones_like(prompt)},
        )
        eos = config._eos_token_tensor
        self.eos: frozenset[int] = frozenset() if eos is None else frozenset(eos.tolist())
        self.do_sample = config.do_sample
        self.narrow = model.dtype == torch.float16  # numbers beyond 65504 are infinite there, and then none at all
        self.generator = torch.Generator(prompt.device).manual_seed(settings.seed)
        self._length = prompt.shape[1]
        self._ids = torch.empty(1, self._length + room, dtype=torch.long, device=prompt.device)
        self._ids[:, : self._length] = prompt

    def choose(self, logits: Tensor) -> int:
        """The next token for the model's own ``logits``, float32 ``[1, V]``; it joins the ids the penalties look at.

        Raises:
            ValueError: the logits hold no distribution (the weights or the loop have blown up to NaN).
        """
        scores = self.processors(self._ids[:, : self._length], logits)
        if bool(torch.isnan(scores).any()):
            raise FieldError("", ABSENT, "logits_nan_float16" if self.narrow else "logits_nan")
        if self.do_sample:
            token = torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1, generator=self.generator)[0]  # [1]
        else:
            token = scores.argmax(dim=-1)  # [1]
        self._ids[:, self._length] = token
        self._length += 1
        return int(token)
