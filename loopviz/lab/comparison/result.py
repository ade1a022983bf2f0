"""What is known of one configuration of a comparison: its text, its cost, how far it is from the baseline."""

from __future__ import annotations

import difflib
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from loopviz.lab.task import Row
from loopviz.trace import metrics
from loopviz.trace.exits import steps_needed

if TYPE_CHECKING:
    from loopviz.lab.comparison.setups import Setup
    from loopviz.trace import Frame

# What of a result is measured when its text is there, and not of the passes that made it.
MEASURED = ("learns", "ms", "perplexity", "fidelity", "worst", "agreement", "differs", "same_until")
QUANTITIES = ("cosine", "kl", "rel_delta")  # of a loop step; cosine is drawn as 1 - cosine


@dataclass
class Result:
    """What is known of one configuration so far.

    Attributes:
        learns: whether it is of a TTT model, which has neither loops nor keys and values.
        ids, pieces: the tokens chosen, and the text each adds.
        loops: loop steps of the pass that chose each token, summed over blocks; 1 for a model without loop, none for a TTT model.
        read_out: of the passes in which an exit gate chose, those that what was read out needed; none without a gate.
        kv_bytes: bytes in use in the cache after that pass; of a TTT model those of its state.
        curves: per quantity (`QUANTITIES`) and loop step of the first block, the values of all those passes.
        differs: per token, whether it is not part of what its text has in common with the baseline's; `None`: not known.
    """

    learns: bool = False
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    loops: list[int] = field(default_factory=list)
    read_out: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    kv_bytes: list[int] = field(default_factory=list)
    curves: dict[str, list[list[float]]] = field(default_factory=lambda: {name: [] for name in QUANTITIES})
    held: int = 0  # tokens in the cache after the last pass
    finish: str | None = None
    ms: float | None = None
    perplexity: float | None = None
    fidelity: list[float] = field(default_factory=list)
    worst: str | None = None
    agreement: float | None = None
    differs: list[bool] | None = None
    same_until: int | None = None

    def take(self, frame: Frame) -> None:
        """Add the pass that chose one token."""
        self.ids.append(frame["next_id"])
        self.pieces.append(frame["next_text"])
        if not self.learns:
            self.loops.append(sum(block["n_steps"] for block in frame["blocks"]) or 1)
        if (needed := steps_needed(frame["blocks"])) is not None:
            self.read_out.append(needed)
        self.reasons.update(block["stop_reason"] for block in frame["blocks"])
        self.kv_bytes.append(frame["kv"]["bytes_used"])
        self.held, self.finish = frame["index"] + 1, frame["finish"]
        for block in frame["blocks"][:1]:
            columns: Mapping[str, Any] = block["steps"]
            for name, curve in self.curves.items():
                for r, value in enumerate(columns[name]):
                    if r == len(curve):
                        curve.append([])
                    if value is not None:
                        curve[r].append(1 - value if name == "cosine" else value)

    def against(self, baseline: Sequence[int]) -> None:
        """Mark what this text does not have in common with the baseline's, token by token."""
        matcher = difflib.SequenceMatcher(None, list(baseline), self.ids, autojunk=False)
        self.differs = [True] * len(self.ids)
        for _, start, size in matcher.get_matching_blocks():
            self.differs[start : start + size] = [False] * size
        pairs = zip(baseline, self.ids, strict=False)
        self.same_until = next(
            (i for i, (one, other) in enumerate(pairs) if one != other), min(len(baseline), len(self.ids))
        )

    def row(self, setup: Setup, baseline: bool) -> Row:
        """The setup's row of the table, so far."""
        n = len(self.ids)
        return {
            "setup": setup.name,
            "swept": setup.swept,
            "baseline": baseline,
            "loops_mean": sum(self.loops) / n if self.loops else None,
            "loops_max": max(self.loops, default=None),
            "read_out_mean": statistics.fmean(self.read_out) if self.read_out else None,
            "stops": ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
            or ("ttt" if self.learns else "plain"),
            "new_tokens": n,
            "finish": self.finish or "stopped",
            "tokens_per_second": 1000 / self.ms if self.ms else None,
            "ms_per_token": self.ms,
            "kv_bytes_per_token": self.kv_bytes[-1] / self.held if self.held and not self.learns else None,
            "memory": "state" if self.learns else "kv",
            "memory_bytes": self.kv_bytes[-1] if self.kv_bytes else None,
            "perplexity": self.perplexity,
            "fidelity_mean": statistics.fmean(self.fidelity) if self.fidelity else None,
            "fidelity_worst": max(self.fidelity, default=None),
            "worst_token": self.worst,
            "agreement": self.agreement,
            "same_until": self.same_until,
        }


@dataclass
class Scores:
    """Of each token of a text, given all before it.

    Attributes:
        nats: -log p_cached of the token.
        kl: `KL(p_full || p_cached)`, nats.
        chosen: whether it is p_cached's likeliest token.
    """

    nats: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)

    def add(self, full: torch.Tensor, cached: torch.Tensor, token: int) -> None:
        """One more token; `full` and `cached` are log-probabilities [vocab]."""
        self.nats.append(-float(cached[token]))
        self.kl.append(max(0.0, float(metrics.kl(full, cached))))  # rounding can leave nothing just below 0
        self.chosen.append(int(cached.argmax()) == token)
