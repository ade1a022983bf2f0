"""How far each published family is from what its own code computes: README's table.

    python scripts/family_differences.py

The folders and how they were made: `tests/model/families/data`. Float32, largest difference of any number.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from loopviz.model.families import FAMILIES, PLAIN
from tests.model.families.official import KINDS, difference, kind_of, wanted
from tests.model.families.test_oracles import FOLDERS


def main() -> None:
    """Print the table."""
    kinds = ("prefill", *KINDS)
    print(f"| family | tensors | {' | '.join(kinds)} |")
    print(f"|---|---:|{'---:|' * len(kinds)}")
    for family in FAMILIES:
        if family is PLAIN:
            continue
        name = FOLDERS[family.name]
        cells = []
        for kind in kinds:
            keys = [key for key in wanted(name) if kind_of(key) == kind]
            cells.append(f"{max(difference(name, key) for key in keys):.1e}" if keys else "none known")
        print(f"| {family.title} | {len(wanted(name))} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
