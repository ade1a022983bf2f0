"""The training loop: steps, evaluations, checkpoints; killed and resumed it ends where it would have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from loopviz import signals
from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.model.checkpoints.inspect import available_memory
from loopviz.model.configuration import LOOP_FIELDS
from loopviz.ttt import InnerLossError, TTTConfig, TTTForCausalLM

from .arrows import IGNORE, sequence_length
from .data_tasks import DROPOUT, Task
from .evaluate import ArrowsResult, TextResult
from .optim import make_optimizers, rate
from .recipe import TTT, Recipe, RecipeError
from .state import CsvLog, StateError, check_same, load_state, save_state
from .teach_recipe import TeachRecipe

STATE = "checkpoint.pt"
COLUMNS = ("step", "tokens", "seconds", "loss", "loops", "lr", "gradient_norm")
EVALUATION_COLUMNS = ("step", "tokens", "hops", "loops", "metric", "value")


AnyConfig = LoopLlamaConfig | TTTConfig
AnyModel = LoopLlamaForCausalLM | TTTForCausalLM


class TrainingError(ValueError):
    """A run that cannot go on."""


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimisation steps done.
        tokens: tokens the model has read in training.
        seconds: wall time of all sittings, evaluations included.
        cpu_seconds: processor time of them, all threads; None: not known, others compute in the same process.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float | None = 0.0


@dataclass(frozen=True)
class Stepped:
    """An optimisation step that was done.

    Attributes:
        step: its number, from 1.
        loss: nats a token, of its batch.
        loops: that the loop ran; None for a model without one.
        lr: the learning rate.
        gradient_norm: before clipping.
    """

    step: int
    loss: float
    loops: int | None
    lr: float
    gradient_norm: float


@dataclass(frozen=True)
class Evaluated:
    """What was measured on held-out data.

    Attributes:
        step: after which; 0: before the first.
        result: of it.
        said: in words.
    """

    step: int
    result: TextResult | ArrowsResult
    said: str


def build_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast | None = None, finished: bool = False) -> AnyConfig:
    """The model's configuration; without a tokenizer, as far as it can be checked before there is one.

    Args:
        recipe: what to train.
        tokenizer: of the model.
        finished: as it is saved (`recipe.use`), not as it is trained.

    Raises:
        RecipeError: a field the model type does not have, one the tokenizer decides, or a block that cannot run the loops.
        ValueError: a value the configuration refuses, by name.
    """
    kind: type[AnyConfig] = TTTConfig if recipe.model_type == TTT else LoopLlamaConfig
    fields = {**recipe.model, **(recipe.use if finished else {})}
    for name, value in recipe.use.items():
        if name not in LOOP_FIELDS:
            raise RecipeError(f"use.{name}={value!r}: not a loop field; there are {', '.join(LOOP_FIELDS)}")
    for name, value in fields.items():
        if name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache"):
            raise RecipeError(f"model.{name}={value!r}: the tokenizer decides it; leave it out")
        if name not in kind.__dataclass_fields__:
            raise RecipeError(f"model.{name}={value!r}: not a field of {kind.__name__}")
    special: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
    if tokenizer is not None:
        special = {
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
    try:
        config = kind(**{**fields, **special})
    except ValueError:
        raise
    except Exception as error:  # transformers' own checks raise kinds of their own
        raise RecipeError(f"model: {' '.join(str(error.__cause__ or error).split())}") from error
    length = recipe.length if recipe.arrows is None else sequence_length(recipe.arrows)
    if config.max_position_embeddings < length:
        raise RecipeError(f"model.max_position_embeddings={config.max_position_embeddings}: must be >= {length} tokens")
    if recipe.loops is not None and isinstance(config, LoopLlamaConfig) and config.max_loop_count < recipe.loops.most:
        raise RecipeError(
            f"model.max_loop_count={config.max_loop_count}: must be >= {recipe.loops.most}, what loops may draw"
        )
    return config


_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
MOST_LAYERS = 1000
BYTES_A_PARAMETER = 16  # float32 weights, gradients and the optimiser's two moments


def _check_shape(config: AnyConfig) -> None:
    """What a configuration lets through and a model falls over."""
    if config.num_hidden_layers > MOST_LAYERS:
        raise RecipeError(f"model.num_hidden_layers={config.num_hidden_layers}: must be <= {MOST_LAYERS}")
    if isinstance(config, TTTConfig):
        return  # it has looked at its other sizes itself
    for name in _SIZES:
        value = getattr(config, name)
        if value < 1:
            raise RecipeError(f"model.{name}={value}: must be >= 1")
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        raise RecipeError(f"model.num_key_value_heads={kv_heads}: must divide num_attention_heads={heads}")
    if config.head_dim % 2:
        raise RecipeError(f"model.head_dim={config.head_dim}: must be even, its halves are rotated against each other")


def check_buildable(recipe: Recipe) -> None:
    """Build the recipe's model without its numbers, and see that training it could fit into memory.

    Raises:
        RecipeError: it cannot be built, or is too large for this machine.
    """
    config = build_config(recipe)
    _check_shape(config)
    config.vocab_size = recipe.vocab_size if recipe.arrows is None else config.vocab_size
    try:
        with torch.device("meta"):
            parameters = new_model(config).num_parameters()
    except Exception as error:
        raise RecipeError(f"model: cannot be built ({type(error).__name__}: {' '.join(str(error).split())})") from error
    need, there = parameters * BYTES_A_PARAMETER, available_memory()
    if need > there:
        raise RecipeError(
            f"model: {parameters:,} parameters need about {need / 1e9:,.1f} GB to train, and {there / 1e9:.1f} GB are free; "
            "a smaller model.hidden_size or fewer layers need less"
        )


def new_model(config: AnyConfig) -> AnyModel:
    """A model of a configuration's kind."""
    return TTTForCausalLM(config) if isinstance(config, TTTConfig) else LoopLlamaForCausalLM(config)


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> AnyModel:
    """A new model, its weights drawn from `recipe.seed`."""
    torch.manual_seed(recipe.seed)
    model = new_model(build_config(recipe, tokenizer))
    if isinstance(model, LoopLlamaForCausalLM):
        model.model.backprop_steps = recipe.backprop_steps
    if recipe.embedding_rms is not None:
        nn.init.normal_(model.model.embed_tokens.weight, std=recipe.embedding_rms)
        if model.config.tie_word_embeddings:
            nn.init.constant_(model.model.norm.weight, 1 / (recipe.embedding_rms * model.config.hidden_size**0.5))
    return model


class SharedDropout:
    """Dropout on embeddings and on what attention (or a TTT layer) and MLP add to the residual stream, while training.

    One mask a module and optimisation step, shared by all loop steps, as for recurrent networks (Gal & Ghahramani 2016,
    arXiv 1512.05287): a loop that saw other features missing at every step could not settle. It is drawn from the
    recipe's seed and the step, so a resumed run draws what it would have drawn.

    Args:
        model: its modules get the hooks.
        recipe: `dropout`, `batch`, `length` and `seed`.
    """

    def __init__(self, model: AnyModel, recipe: Recipe | TeachRecipe) -> None:
        self.recipe, self.masks = recipe, []
        if recipe.dropout == 0:
            return
        ends = (".o_proj", ".down_proj")  # of attention or a TTT layer, and of the MLP
        modules = [model.model.embed_tokens, *(m for name, m in model.named_modules() if name.endswith(ends))]
        shape = (recipe.batch, recipe.length, model.config.hidden_size)
        for module in modules:
            mask = torch.ones(shape, device=model.device)
            self.masks.append(mask)
            module.register_forward_hook(
                lambda module, arguments, output, mask=mask: output * mask if module.training else output
            )

    def draw(self, step: int) -> None:
        """New masks for a 0-based optimisation step."""
        rng, keep = np.random.default_rng([self.recipe.seed, DROPOUT, step]), 1 - self.recipe.dropout
        for mask in self.masks:
            kept = rng.random(mask.shape, dtype=np.float32) < keep
            mask.copy_(torch.from_numpy(kept)).div_(keep)


class Trainer:
    """One run of a recipe.

    Args:
        recipe: what to train.
        task: its data.
        folder: where checkpoint and logs go; it exists.
        device: where the model runs.
        resume: continue the checkpoint in `folder`.
        say: called after every step of :meth:`run` with a line on how it goes, and whether the line is worth keeping.
        alone: whether nothing else computes in this process: its processor time is the run's then, and told.

    Attributes:
        ended: whether it was ended before its last step.

    Raises:
        StateError: nothing to resume, or not as it is; without `resume`, a run in the folder.
        RecipeError: the run in the folder followed another recipe.
    """

    def __init__(
        self,
        recipe: Recipe | TeachRecipe,
        task: Task,
        folder: Path,
        *,
        device: str = "cpu",
        resume: bool = False,
        say: Callable[[Progress, str, bool], None] = lambda progress, line, keep: None,
        alone: bool = True,
    ) -> None:
        self.recipe, self.task, self.folder, self.device, self.say = recipe, task, folder, torch.device(device), say
        self.progress = Progress(cpu_seconds=0.0 if alone else None)
        self.ended = False
        self.model = self._new_model().to(self.device)
        if self.device.type == "cpu" and isinstance(self.model, LoopLlamaForCausalLM):
            # The backward pass of torch's flash attention on CPUs costs several times the plain one's at these sizes.
            self.model.set_attn_implementation("eager")
        self.dropout = SharedDropout(self.model, recipe)
        self.optimizers = make_optimizers(self.model, recipe)
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        if recipe.compile:
            # Each layer is compiled for training, for steps without a graph and for evaluation.
            torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
            for layer in self.model.model.layers:
                layer.compile()
        found = (folder / STATE).is_file()
        if resume and not found:
            raise StateError(f"{folder / STATE}: there is no run to resume; leave --resume out")
        if found and not resume:
            raise StateError(f"{folder / STATE}: a run is in this folder already; resume it, or name another folder")
        if resume:
            self._restore(load_state(folder / STATE))
        kept = self.progress.step if resume else None
        self.log = CsvLog(folder / "train.csv", COLUMNS, kept)
        self.evaluations = CsvLog(folder / "evaluation.csv", EVALUATION_COLUMNS, kept)

    # -- what is trained: `TeachTrainer` has another answer ------------------------------------------------------------

    def _new_model(self) -> AnyModel:
        assert isinstance(self.recipe, Recipe)
        return build_model(self.recipe, self.task.tokenizer)

    def _weights(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps of the model."""
        return self.model.state_dict()

    def _load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(weights)

    # -- one run -------------------------------------------------------------------------------------------------------

    def run(self) -> Progress:
        """Train to the last step.

        Raises:
            TrainingError: the loss is no longer a number.
            KeyboardInterrupt: SIGINT or SIGTERM (then :class:`loopviz.signals.Terminated`) came; the step was finished and a checkpoint is
                written.
        """
        with signals.deferred() as interrupted:
            for event in self.events(interrupted.is_set):
                if isinstance(event, Stepped):
                    self.say(self.progress, f"loss {event.loss:.4f}, {event.loops or 'no'} loops", False)
                else:
                    self.say(self.progress, event.said, True)
            if self.ended:
                raise interrupted.error
        return self.progress

    def events(self, end: Callable[[], bool] = lambda: False) -> Iterator[Stepped | Evaluated]:
        """Train to the last step, telling of each step and each evaluation once it is done; whoever listens may take his time.

        Args:
            end: asked after every step whether it is to end there; then a checkpoint is written, and `ended` is True.

        Raises:
            TrainingError: the loss is no longer a number.
        """
        recipe, progress = self.recipe, self.progress
        self.ended = False
        while progress.step < recipe.steps and not self.ended:
            with self._timed():
                row = self._step()
            self.log.add([(progress.step, progress.tokens, f"{progress.seconds:.2f}", *row)])
            yield Stepped(progress.step, *row)
            last = progress.step == recipe.steps
            if last or progress.step % recipe.evaluation.every == 0:
                with self._timed():
                    evaluated = self._evaluate()
                yield evaluated
            self.ended = end()
            if last or progress.step % recipe.checkpoint_every == 0 or self.ended:
                self.checkpoint()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """What is done inside is of the run's time."""
        began, cpu_began = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.progress.seconds += time.perf_counter() - began
            if self.progress.cpu_seconds is not None:
                self.progress.cpu_seconds += time.process_time() - cpu_began

    def _step(self) -> tuple[float, int | None, float, float]:
        """One optimisation step: loss, loops, learning rate and the gradient's norm before clipping."""
        recipe, step = self.recipe, self.progress.step
        batch = self.task.batch(step)
        if batch.loops is not None and isinstance(self.model, LoopLlamaForCausalLM):
            self.model.set_loop(loop_count=batch.loops)
        lr = recipe.optimizer.lr * rate(recipe.schedule, step, recipe.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        self.model.train()
        ids, labels = batch.ids.to(self.device), batch.labels.to(self.device)
        self.dropout.draw(step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            try:
                logits = self.model(ids, use_cache=False).logits
            except InnerLossError as error:
                raise TrainingError(f"step {step + 1}: {error}") from error
        loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimizer.clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise TrainingError(
                f"step {step + 1}: loss={loss.item()}, gradient norm={norm.item()}: the run has diverged; "
                f"lower optimizer.lr={recipe.optimizer.lr} or raise schedule.warmup={recipe.schedule.warmup}"
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += ids.numel()
        return loss.item(), batch.loops, lr, norm.item()

    def _evaluate(self) -> Evaluated:
        result = self.task.measure(self.model, final=False)
        step, tokens = self.progress.step, self.progress.tokens
        self.evaluations.add([(step, tokens, *row) for row in rows(result)])
        return Evaluated(step, result, self.task.after(result))

    # -- between sittings ----------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Write all that a later sitting needs to go on from here."""
        save_state(
            self.folder / STATE,
            {
                "recipe": self.recipe.to_dict(),
                "progress": vars(self.progress),
                "task": self.task.state(),
                "model": self._weights(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "random": torch.get_rng_state(),
                "cuda_random": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            },
        )

    def _restore(self, state: dict[str, Any]) -> None:
        check_same(self.recipe, state["recipe"], state["progress"]["step"])
        self.progress = Progress(**state["progress"])
        self.task.restore(state["task"])
        self._load_weights(state["model"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["cuda_random"])


def rows(result: TextResult | ArrowsResult) -> list[tuple[int | str, int | str, str, float]]:
    """An evaluation as rows of hops, loops, metric and value; what does not apply is empty."""
    loops: tuple[int | str, ...] = result.loops or ("",)
    if isinstance(result, TextResult):
        losses: list[tuple[int | str, int | str, str, float]] = [
            ("", r, "loss", loss) for r, loss in zip(loops, result.loss, strict=True)
        ]
        return losses + [("", r, "cosine_gap", gap) for r, gap in enumerate(result.cosine_gap, start=1)]
    return [
        (hops, r, "accuracy", value)
        for hops, line in zip(result.hops, result.accuracy, strict=True)
        for r, value in zip(loops, line, strict=True)
    ]
