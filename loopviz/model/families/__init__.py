"""Published looped models, one file a family: Ouro, Nanbeige 4.2, Huginn, retrofitted Llama and OLMo-2, LoopLM; and plain Llama.

family        what a family is, and what several need: fields of a loop, splitting, permuting
reading       a folder of one: recognised, checked tensor by tensor without its weights, and read

A family is added by a file with `FAMILY`, a place in `FAMILIES`, and a folder of what the published code computes, in
`tests/model/families/data`: `test_oracles.py` refuses one without.
"""

from __future__ import annotations

from . import huginn, llama, looplm, nanbeige, ouro, retrofitted
from .family import Family

# Of one model type the one without a mark comes last.
FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    ouro.FAMILY,
    nanbeige.FAMILY,
    huginn.FAMILY,
    retrofitted.OLMO2,
    retrofitted.FAMILY,
    looplm.FAMILY,
)
PLAIN = llama.FAMILY
MODEL_TYPES = tuple(dict.fromkeys(name for family in FAMILIES for name in family.model_types))
# What is known and cannot be run, and why.
REFUSED = {
    "hrm_text": "an HRM-Text nests two loops of two stacks of layers in one another, gates its attention's output and reads a prompt "
    "in both directions: none of this is a block of Llama layers run again; open it with transformers' own class "
    "(AutoModelForCausalLM)",
    "ttt": "a TTT model, which has no layers to loop; in Python open it with loopviz.ttt.load_ttt",
}
