"""LoopLlama as a transformers model: configuration, model, cache, and the registries that extend it."""

from .block import LoopBlock
from .cache import KVOccupancy, LayerOccupancy, LoopCache
from .choosers import CHOOSERS, ChooserContext, register_layer_chooser
from .configuration import LOOP_FIELDS, LoopLlamaConfig
from .criteria import CRITERIA, CriterionContext, register_criterion
from .events import AttentionRead, LoopReport, LoopStep, LoopStepStart, PassSeconds
from .exit_lens import direct_lens_misleads
from .interrupt import Interrupted, interruptible
from .merges import MERGES, register_merge
from .modeling import LoopLlamaForCausalLM, LoopLlamaModel
from .watching import AttentionWatch

__all__ = [
    "CHOOSERS",
    "CRITERIA",
    "LOOP_FIELDS",
    "MERGES",
    "AttentionRead",
    "AttentionWatch",
    "ChooserContext",
    "CriterionContext",
    "Interrupted",
    "KVOccupancy",
    "LayerOccupancy",
    "LoopBlock",
    "LoopCache",
    "LoopLlamaConfig",
    "LoopLlamaForCausalLM",
    "LoopLlamaModel",
    "LoopReport",
    "LoopStep",
    "LoopStepStart",
    "PassSeconds",
    "direct_lens_misleads",
    "interruptible",
    "register_criterion",
    "register_layer_chooser",
    "register_merge",
]
