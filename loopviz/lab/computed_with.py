"""What a result depends on beside its model and settings: the machine and the releases that computed it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers

from loopviz.version import version


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    modules: Sequence[Any] = (torch, transformers, np, pd)
    others = {module.__name__: str(module.__version__) for module in modules}
    return {"loopviz": version()} | others | {"python": platform.python_version()}


def machine(device: torch.device) -> dict[str, Any]:
    """This machine, and where on it a model is."""
    return {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "device": str(device)}
