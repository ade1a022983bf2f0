"""Record the run the page opens with: `assets/runs/first.loopviz`.

    python scripts/record_first_run.py                        with the bundled model, looped until KL settles, the page's first prompt
    python scripts/record_first_run.py --model X --loop-count 6 --max-new-tokens 80

Takes the options of `python -m loopviz run`; those below hold where nothing else is said. Commit the file it writes.
A run made under an older format of traces is refused by the page, which then opens without one: record it again.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Until the prediction settles, as the page's preset "kl" has it: words that need more loops stand out in the text. The bound
# is one that no word reaches, so that each stops because it has settled. One slot: with two read in turn (serial), odd and
# even loops read different notes, may never agree, and run to any bound; such words are not hard.
# The prompt is one whose story reads well: the model's training texts write "Lily'S", and so does the model.
DEFAULTS = ["--model", "stories-loop", "--max-new-tokens", "73", "--loop-strategy", "dynamic_stop"]
DEFAULTS += ["--convergence-criterion", "kl", "--kl-threshold", repr(10**-3.3), "--max-loop-count", "16"]
DEFAULTS += ["--virtual-layer-count", "1", "--virtual-attention-mode", "serial", "--min-loop-count", "1"]


def main(options: list[str]) -> int:
    """Record, then read the file as the page will; returns the exit code."""
    from loopviz.app.controls.examples import offer_of
    from loopviz.app.explore import first_run
    from loopviz.cli import main as cli

    first_run.FILE.parent.mkdir(parents=True, exist_ok=True)
    # argparse takes the last of what is said twice
    prompt = offer_of(DEFAULTS[1]).examples[0]
    code = cli.main(["run", *DEFAULTS, "--prompt", prompt, *options, "--save", str(first_run.FILE)])
    if code:
        return code
    trace, first = first_run.stored(), first_run.opening("en")
    if trace is None or first is None:
        return 1
    size = first_run.FILE.stat().st_size
    print(
        f"{first_run.FILE.relative_to(ROOT)}: {len(trace)} tokens, {size:,} bytes; the page opens with {len(first):,} bytes"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
