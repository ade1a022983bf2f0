"""Record how far what LoopViz measures is from exact: `assets/runs/verified.json`, which every page's foot tells of.

    python scripts/verify_instrument.py

Runs glassbox, the model whose every number is known beforehand, over all its symbols, and takes the largest differences that the
panel "Can the instrument be trusted?" would show. Run it again with every release, and commit the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def measured() -> dict[str, Any]:
    """The record, as it comes out on this machine."""
    from loopviz.engine import StreamSettings, run
    from loopviz.model.checkpoints import load_checkpoint
    from loopviz.panels.loop import instrument
    from loopviz.train.glassbox import SYMBOLS
    from loopviz.version import version

    loaded = load_checkpoint(instrument.MODEL)
    trace = run(loaded.model, loaded.tokenizer, SYMBOLS, StreamSettings(max_new_tokens=1), model_name=instrument.MODEL)
    cosine, rate = instrument.largest_differences(trace)
    made = {"version": version(), "model": instrument.MODEL, "panel": instrument.NAME, "tokens": len(trace)}
    return {**made, "cosine": cosine, "rate": rate}


def main() -> int:
    """Write the record; returns the exit code."""
    from loopviz.app.server.footer import VERIFIED

    found = measured()
    VERIFIED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{VERIFIED.relative_to(ROOT)}: {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
