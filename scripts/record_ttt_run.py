"""Record the run that the TTT page opens with: `assets/runs/ttt.loopviz`.

    python scripts/record_ttt_run.py                     with the bundled TTT model, the page's first prompt
    python scripts/record_ttt_run.py --max-new-tokens 60

Takes the options of `python -m loopviz run`; those below hold where nothing else is said. Commit the file it writes: a test holds
it to the model that comes along.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main(options: list[str]) -> int:
    """Record, then read the file as the page will; returns the exit code."""
    from loopviz.app.controls.examples import STORIES
    from loopviz.app.sessions.ttt_models import DEFAULT
    from loopviz.app.ttt import opened
    from loopviz.cli import main as cli

    # It ends inside a mini-batch: at the end of one, the first layer holds nothing (its last token scale is 0)
    given = ["--model", DEFAULT, "--max-new-tokens", "80", "--prompt", STORIES[0]]
    code = cli.main(["run", *given, *options, "--save", str(opened.FILE)])
    trace = None if code else opened.stored()
    if trace is None:
        return code or 1
    print(f"{opened.FILE.relative_to(ROOT)}: {len(trace)} tokens, {opened.FILE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
