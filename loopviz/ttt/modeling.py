"""TTT as a transformers model: embeddings, blocks whose memory learns while it reads, a head."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.utils import can_return_tuple

from loopviz.checks import FieldError, check_whole
from loopviz.model.checkpoints.errors import CheckpointError, reading
from loopviz.model.interrupt import check, within_operations
from loopviz.model.watching import shallow

from .arguments import OF_THE_LOSS, check_labels, lr_scale, real_tokens, refuse, text_sizes
from .block import TTTBlock
from .cache import TTTCache
from .chunk import Chunk
from .configuration import TTTConfig
from .errors import InnerLossError
from .layer import Inner, LayerState, TTTLayer, tables
from .observe import InnerStep, reconstruction


class TTTPreTrainedModel(PreTrainedModel):
    """What both TTT models share: loading, first values, who may watch."""

    config_class = TTTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["TTTBlock"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _is_stateful = True  # what was learned cannot be taken back: no assisted generation

    def __init__(self, config: TTTConfig, *args: Any, **kwargs: Any) -> None:
        if not isinstance(config, TTTConfig):
            raise ValueError(f"config={type(config).__name__}: a TTT model is made of a TTTConfig")
        config.check()  # a field may have been changed since it was made
        super().__init__(config, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, TTTLayer):
            module.init_weights(self.config.initializer_range)
        elif isinstance(module, nn.Conv1d):  # as PyTorch's own: 0.02 would all but silence queries and keys
            init.kaiming_uniform_(module.weight, a=5**0.5)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers', but a checkpoint that is not whole, or not of this family, is refused.

        Raises:
            CheckpointError: naming what is wrong with it.
        """
        name, wanted = pretrained_model_name_or_path, kwargs.pop("output_loading_info", False)
        with reading(str(name)):
            try:
                model, info = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
            except FieldError as error:
                raise CheckpointError(f"{name}: its config.json says {error}") from error
            _check_whole(str(name), cls, info)
        return (model, info) if wanted else model


def _check_whole(name: str, cls: type[TTTPreTrainedModel], info: dict[str, Any]) -> None:
    """Refuse a checkpoint whose tensors are not the model's: the rest would be noise, or left out in silence."""
    missing = sorted(info["missing_keys"])
    extra = sorted(key for key in info["unexpected_keys"] if cls is not TTTModel or not key.startswith("lm_head."))
    for what, keys in (("lacks", missing), ("has, and its config.json has no place for,", extra)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(
                f"{name}: {what} {', '.join(keys[:3])}{more}; it is not whole, or of another model than its config.json "
                f"says. Take another copy, or mend the config.json ({os.path.join(name, 'config.json')})"
            )


class TTTModel(TTTPreTrainedModel):
    """Embeddings, blocks, norm.

    Args:
        config: a `TTTConfig`.
    """

    def __init__(self, config: TTTConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(TTTBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self._inner_hooks: OrderedDict[int, Callable[[InnerStep], None]] = OrderedDict()
        self.post_init()

    @property
    def ttt_layers(self) -> list[TTTLayer]:
        """The blocks' TTT layers."""
        return [cast(TTTBlock, block).seq_modeling_block for block in self.layers]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: TTTCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        inner_lr_scale: float | Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """One pass over T new tokens of B rows.

        Args:
            input_ids: `[B, T]`; or `inputs_embeds`, `[B, T, C]`.
            attention_mask: 1 for a token, 0 for padding, at the left, at the right or in between: `[B, T]`, or with a
                column for everything that the cache has read before it too.
            past_key_values: the state after earlier passes; any number of tokens may follow.
            use_cache: hand the state on; by default as the configuration says, and where a cache is given.
            output_hidden_states: the embeddings and every block's output, the last one normed, are wanted too.
            inner_lr_scale: factor on the inner learning rate, a number or `[B, T]`; by default the cache's.

        Returns:
            `last_hidden_state` `[B, T, C]`; padding repeats the last token of this pass before it, or is 0.

        Raises:
            ValueError: by name, for what does not fit. The cache is as it was then.
        """
        refuse(self.config, kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise FieldError(
                "input_ids, inputs_embeds", None, "one_text_neither" if input_ids is None else "one_text_both"
            )
        given = input_ids if input_ids is not None else inputs_embeds
        assert given is not None
        B, T = text_sizes(*(("input_ids", given, 2) if inputs_embeds is None else ("inputs_embeds", given, 3)))
        cache = self._cache_for(past_key_values, use_cache)
        modules = self.ttt_layers
        states: list[LayerState | None] = [None] * len(modules)
        if cache is not None:
            states = cache.begin(self.config, modules, B)
        real = real_tokens(attention_mask, B, T, 0 if cache is None else cache.seqlen_offset)
        offsets = [0] * B if cache is None else cache.lengths or [0] * B
        chunk = Chunk(offsets, T, self.config.mini_batch_size, real, given.device)
        scale = lr_scale(inner_lr_scale, cache, chunk, B, T)
        x = chunk.pack(given)
        x = self.embed_tokens(x) if inputs_embeds is None else chunk.silent(x)
        hidden, after, inners = self._run(x, chunk, states, cache is not None, scale, bool(self._inner_hooks))
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(hidden[-1]).all()):
            self._find_broken(x, chunk, states, scale)
        if cache is not None:
            cache.commit(after, modules, chunk.counts, T)
        for index, inner in enumerate(inners):
            for hook in list(self._inner_hooks.values()):
                hook(InnerStep(index, modules[index], chunk, inner))
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseModelOutputWithPast(
            last_hidden_state=chunk.unpack(hidden[-1]),
            past_key_values=cache,
            hidden_states=tuple(chunk.unpack(each) for each in hidden) if wanted else None,
        )

    def _run(
        self, x: Tensor, chunk: Chunk, states: list[LayerState | None], keep: bool, scale: Tensor | None, watched: bool
    ) -> tuple[list[Tensor], list[LayerState | None], list[Inner]]:
        """All blocks: what entered each and the last one's output, normed; their states; what entered their inner loops."""
        shared = tables(self.config, chunk.slots, self.ttt_layers[0].inner_dtype)
        hidden: list[Tensor] = [x]
        after: list[LayerState | None] = []
        inners: list[Inner] = []
        with within_operations(chunk.width * len(x)):
            for block, state in zip(self.layers, states, strict=True):
                check()
                x, new, inner = block(x, chunk, shared, state, keep, watched, scale)
                hidden.append(x)
                after.append(new)
                if inner is not None:
                    inners.append(inner)
            hidden[-1] = self.norm(x)
        return hidden, after, inners

    @torch.no_grad()
    def _find_broken(self, x: Tensor, chunk: Chunk, states: list[LayerState | None], scale: Tensor | None) -> None:
        """Say where the first inner loss of a pass is that is no number, if one is: run it again and look."""
        hidden, _, inners = self._run(x, chunk, states, False, scale, True)
        for index, inner in enumerate(inners):
            step = InnerStep(index, self.ttt_layers[index], chunk, inner)
            found = step.loss_before
            if bool(torch.isfinite(found).all()):
                continue
            bad = (~torch.isfinite(found)).transpose(1, 2)  # [B, T, H]: the first token, and its first head
            token = int(bad.any(2).any(0).nonzero()[0])
            row, head = bad[:, token].nonzero()[0].tolist()
            broken = not bool(torch.isfinite(chunk.unpack(hidden[index])[row, token]).all())
            position = int(step.positions[row, token])
            raise InnerLossError(index, head, row, token, position, float(found[row, head, token]), broken)

    def _cache_for(self, given: TTTCache | None, use_cache: bool | None) -> TTTCache | None:
        if given is not None and not isinstance(given, TTTCache):
            raise ValueError(
                f"past_key_values={type(given).__name__}: a TTT model keeps weights, not keys and values; pass "
                "TTTCache(model) or leave it out"
            )
        if given is not None and use_cache is False:
            raise ValueError(
                "use_cache=False: with past_key_values the pass goes on from what that cache has read, and moves it; leave out "
                "one of the two, or give a copy (copy.deepcopy)"
            )
        if use_cache is None:
            use_cache = given is not None or (self.config.use_cache and not self.training)
        if given is None and use_cache:
            return TTTCache(self.config)
        return given

    def register_inner_hook(self, hook: Callable[[InnerStep], None]) -> RemovableHandle:
        """Call `hook(step)` for every layer at the end of every pass, until the returned handle's `remove()`."""
        handle = RemovableHandle(self._inner_hooks)
        self._inner_hooks[handle.id] = hook
        return handle


class TTTForCausalLM(TTTPreTrainedModel, GenerationMixin):
    """A language model whose memory is the weights of small models that learn while it reads.

    Args:
        config: a `TTTConfig`.
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: TTTConfig) -> None:
        super().__init__(config)
        self.model = TTTModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: TTTCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        inner_lr_scale: float | Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """As `TTTModel.forward`, and:

        Args:
            labels: `[B, T]`, -100 where nothing is asked; the loss is of each token's successor.
            logits_to_keep: how many of the last columns' logits are wanted, or which; 0 for all.

        Returns:
            `logits` `[B, T, vocab]`, `loss` where there are labels, `past_key_values`.

        Raises:
            ValueError: by name, for what does not fit. The cache is as it was then.
        """
        check_labels(labels, input_ids if input_ids is not None else inputs_embeds, logits_to_keep)
        for_loss = {name: kwargs.pop(name) for name in OF_THE_LOSS if name in kwargs}
        out = self.model(
            input_ids,
            attention_mask,
            past_key_values,
            inputs_embeds,
            use_cache,
            output_hidden_states,
            inner_lr_scale,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **for_loss)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=out.past_key_values, hidden_states=out.hidden_states
        )

    def view(self) -> TTTForCausalLM:
        """A model object of its own on the same weights: own hooks, shared parameters."""
        view = shallow(self)
        view.model = shallow(self.model)
        view.model._inner_hooks = OrderedDict()
        return view

    # -- watching ------------------------------------------------------------------------------------------------------

    def register_inner_hook(self, hook: Callable[[InnerStep], None]) -> RemovableHandle:
        """Call `hook(step: InnerStep)` for every layer at the end of every pass, until the handle's `remove()`."""
        return self.model.register_inner_hook(hook)

    @torch.no_grad()
    def current_weights(self, cache: TTTCache, layer: int) -> dict[str, Tensor]:
        """W_t by name after everything that a cache has read, `[B, H, in, out]`: θ₀ − s G of the last token.

        Raises:
            ValueError: the cache has read nothing, or there is no such layer.
        """
        check_whole("layer", layer, 0, self.config.num_hidden_layers - 1)
        module, state = self.model.ttt_layers[layer], cache.layers[layer].state
        if state is None:
            raise ValueError("past_key_values: this cache has read nothing yet; give it a pass first")
        if state.sums is None:
            return dict(state.weights)
        M = self.config.mini_batch_size
        inverse = 1 / torch.arange(1, M + 1, device=self.device, dtype=module.inner_dtype)
        slots = torch.tensor([(length - 1) % M for length in cache.lengths], device=self.device)
        scale = module.token_scale(inverse)[slots][:, None, None, None]
        return {name: weight - scale * state.sums[name] for name, weight in state.weights.items()}

    @torch.no_grad()
    def reconstruction(self, cache: TTTCache, layer: int, keys: Tensor, values: Tensor) -> Tensor:
        """Inner loss of any tokens under a cache's current weights: what these still hold of them.

        Args:
            keys, values: of the layer, as an `InnerStep` tells them, `[B, H, T, D]`.

        Returns:
            `[B, H, T]`.

        Raises:
            ValueError: the cache has read nothing.
        """
        theta = tuple(value.flatten(0, 1) for value in self.current_weights(cache, layer).values())
        norm = self.model.ttt_layers[layer].norm(len(keys))
        found = reconstruction(theta, keys.flatten(0, 1), (values - keys).flatten(0, 1), norm)
        return found.unflatten(0, keys.shape[:2])

    # -- generate ------------------------------------------------------------------------------------------------------

    def generate(self, inputs: Any = None, generation_config: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As transformers', with a cache unless `use_cache=False` is said here: a configuration's is of single passes.

        Raises:
            ValueError: by name, for what does not fit.
        """
        if generation_config is None:
            kwargs.setdefault("use_cache", True)
        elif generation_config.use_cache is None and "use_cache" not in kwargs:
            generation_config = copy.deepcopy(generation_config)
            generation_config.use_cache = True
        return super().generate(inputs, generation_config, *args, **kwargs)

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Give `generate()` a `TTTCache`; refuse cache kinds that hold keys and values."""
        kind = generation_config.cache_implementation
        if kind is not None:
            raise ValueError(
                f"cache_implementation={kind!r}: a TTT model keeps its weights in a TTTCache; leave cache_implementation out"
            )
        given = model_kwargs.get("past_key_values")
        if given is not None and generation_config.use_cache is False:
            raise ValueError(
                "use_cache=False: a cache is given, which would not move while the text grows; leave use_cache or the cache out"
            )
        if given is None and generation_config.use_cache is not False:
            model_kwargs["past_key_values"] = TTTCache(self.config)


AutoConfig.register("ttt", TTTConfig, exist_ok=True)
AutoModel.register(TTTConfig, TTTModel, exist_ok=True)
AutoModelForCausalLM.register(TTTConfig, TTTForCausalLM, exist_ok=True)
