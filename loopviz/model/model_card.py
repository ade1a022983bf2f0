"""What a saved LoopLlama's folder says to people who find it: which import its model type needs.

transformers knows `loop_llama` once `loopviz.model` has been imported. It could be told from the folder alone only by
code inside the folder, which readers would have to trust; a line on the card asks nobody for that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loopviz import outputs

if TYPE_CHECKING:
    from .configuration import LoopLlamaConfig

LIBRARY = "loopviz"
TAG = "loop_llama"


def usage(config: LoopLlamaConfig) -> list[str]:
    """The card's lines on how to load the model, those that register names of a user's own included."""
    imports = sorted(set(config.own_imports().values()))
    return [
        "## Load it",
        "",
        "This model loops some of its layers. transformers knows the model type `loop_llama` once LoopViz is imported:",
        "without the first line, `AutoModelForCausalLM` says that it does not recognize the architecture.",
        "",
        "```python",
        "import loopviz.model  # makes loop_llama known to transformers' Auto classes",
        *(
            "# and first whatever registers this model's own functions in your notebook or script"
            if module == "__main__"
            else f"import {module}  # registers this model's own functions"
            for module in imports
        ),
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "."  # or the model\'s id',
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
    ]


def write_if_missing(folder: Path, config: LoopLlamaConfig) -> None:
    """A short `README.md` beside saved weights; one that is there stays as it is.

    Raises:
        OSError: the folder cannot be written.
    """
    card = folder / "README.md"
    if not card.exists():
        front = ["---", f"library_name: {LIBRARY}", "pipeline_tag: text-generation", "tags:", f"  - {TAG}", "---", ""]
        outputs.write_text(card, "\n".join([*front, f"# {folder.resolve().name}", "", *usage(config), ""]))
