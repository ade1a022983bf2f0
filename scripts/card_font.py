"""Make the font of link cards, `assets/fonts/card.otf`, of a Noto Sans CJK variable collection.

    pip install fonttools
    python scripts/card_font.py NotoSansCJK-VF.otf.ttc

What it keeps, and under which licence: `assets/fonts/README.md`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "assets" / "fonts" / "card.otf"
WEIGHT = 450
RANGES = (
    (0x20, 0x7F),  # Latin, and what European languages add
    (0xA0, 0x180),
    (0x370, 0x400),  # Greek
    (0x400, 0x460),  # Cyrillic
    (0x1E00, 0x1F00),  # Vietnamese
    (0x2010, 0x2028),  # punctuation
    (0x2030, 0x205F),
    (0x2190, 0x2194),  # arrows
    (0x3000, 0x3100),  # kana
    (0xFF01, 0xFF61),  # full width
)


def characters() -> set[int]:
    """The code points that are kept."""
    kept = {code for first, end in RANGES for code in range(first, end)}
    for high in range(0xB0, 0xD8):  # GB 2312, level 1: the commonest Chinese characters
        for low in range(0xA1, 0xFF):
            try:
                kept.add(ord(bytes([high, low]).decode("gb2312")))
            except UnicodeDecodeError:  # a place that is not taken
                continue
    return kept


def main(collection: str) -> int:
    """Write the font; returns the exit code."""
    from fontTools import subset
    from fontTools.ttLib import TTCollection, TTFont
    from fontTools.varLib import instancer

    names = [font["name"].getDebugName(4) for font in TTCollection(collection, lazy=True).fonts]
    font = TTFont(collection, fontNumber=next(n for n, name in enumerate(names) if name.endswith("CJK SC")))
    options = subset.Options(layout_features=[], hinting=False, notdef_outline=True)
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]
    options.drop_tables += ["vhea", "vmtx", "VORG", "BASE", "VVAR"]
    cut = subset.Subsetter(options)
    cut.populate(unicodes=characters())
    cut.subset(font)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.otf"
        font.save(whole)
        font = TTFont(whole)
        for part in (
            font["CFF2"].cff.topDictIndex[0].FDArray
        ):  # hints that were cut are left as None, which no instance can be made of
            private = part.Private
            for name in [name for name in private.rawDict if getattr(private, name, None) is None]:
                del private.rawDict[name]
                private.__dict__.pop(name, None)
        instancer.instantiateVariableFont(font, {"wght": WEIGHT}).save(OUT)
    print(f"{OUT.name}: {OUT.stat().st_size:,} bytes, {len(characters()):,} characters asked for")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
