"""Optimisers and learning-rate schedules of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from .recipe import Recipe, Schedule
from .teach_recipe import TeachRecipe


def make_optimizers(model: nn.Module, recipe: Recipe | TeachRecipe) -> list[torch.optim.Optimizer]:
    """The recipe's optimisers over those of `model`'s parameters that are trained; every group's `lr` is the recipe's.

    With `muon` (Jordan et al. 2024; torch.optim.Muon) the layers' matrices are Muon's, at a rate matched to AdamW's
    update size (`match_rms_adamw`, arXiv 2502.16982); the rest, embeddings among it, are AdamW's. Only weights of maps and
    embeddings decay, and of a TTT layer the learned part of its token scale: the inner models that it begins with, its norms and
    its convolutions do not.
    """
    how = recipe.optimizer
    maps = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Linear, nn.Embedding))}
    matrices, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith(
            "learnable_token_idx"
        ):  # below -1/(i+1) the scale is 0 and has no gradient: decay brings it back
            decayed.append(parameter)
        elif id(parameter) not in maps or ("embed_tokens" in name and not how.decay_embeddings):
            plain.append(parameter)
        elif how.name == "muon" and ".layers." in name:
            matrices.append(parameter)
        else:
            decayed.append(parameter)
    groups = [{"params": decayed, "weight_decay": how.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=how.lr, betas=how.betas)]
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=how.lr,
                weight_decay=how.weight_decay,
                momentum=how.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """Share of the highest learning rate at a step.

    Args:
        schedule: the recipe's.
        step: 0-based.
        steps: of the whole run.
    """
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    if schedule.name == "cosine":
        done = (step - schedule.warmup) / max(steps - 1 - schedule.warmup, 1)
        fall = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    else:
        start = decay_start(schedule, steps)
        fall = 1.0 if step < start else (steps - 1 - step) / max(steps - 1 - start, 1)
    return schedule.final + (1 - schedule.final) * fall


def decay_start(schedule: Schedule, steps: int) -> int:
    """First step of a trapezoid's fall; before it the rate does not depend on `steps`."""
    return max(schedule.warmup, steps - math.ceil(schedule.decay * steps))
