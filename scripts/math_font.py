"""Make the font of formulas, `assets/fonts/math.woff2`, of STIX Two Math.

    pip install fonttools brotli
    python scripts/math_font.py STIXTwoMath-Regular.otf

Formulas are MathML; where a system has no font with a table of mathematics (many Linux desktops), a browser sets indices beside
their letters instead of below them. What it keeps, and under which licence: `assets/fonts/README.md`.
"""

from __future__ import annotations

import sys
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "assets" / "fonts" / "math.woff2"
RANGES = (
    (0x20, 0x7F),
    (0xA0, 0x100),
    (0x300, 0x340),  # accents: hats and bars
    (0x370, 0x400),  # Greek
    (0x2010, 0x2064),  # dashes, primes, ‖, invisible operators
    (0x20D0, 0x20F0),
    (0x210E, 0x2110),  # h in italics
    (0x2113, 0x2114),  # ℓ
    (0x211D, 0x211E),  # ℝ
    (0x2190, 0x21D5),  # arrows
    (0x2200, 0x22F0),  # operators, ⊙, ⋯
    (0x2308, 0x230C),  # ⌊ ⌋
    (0x23DE, 0x23E0),  # braces over and under
    (0x27E8, 0x27EA),  # ⟨ ⟩
    (0x1D400, 0x1D4D0),  # bold, italic, script letters
    (0x1D538, 0x1D56C),  # double-struck
    (0x1D6A4, 0x1D756),  # Greek, bold and italic
    (0x1D7CE, 0x1D7D8),
)


def main(whole: str) -> int:
    """Write the font; returns the exit code."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    font = TTFont(whole)
    options = subset.Options(
        layout_features=["ssty", "mark", "ccmp"], hinting=False, notdef_outline=True, flavor="woff2"
    )
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]
    cut = subset.Subsetter(options)
    cut.populate(unicodes={code for first, end in RANGES for code in range(first, end)})
    cut.subset(font)
    OUT.parent.mkdir(exist_ok=True)
    subset.save_font(font, str(OUT), options)
    print(f"{OUT.name}: {OUT.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
