"""Make the picture that moves at the top of the README: `assets/screenshots/hero.webp`.

    python scripts/moving_picture.py

The app's first screen as it opens, while the recorded run is replayed: one picture of the page a frame, its clock held in
between, so that the motion is as even on a slow machine as on a quick one. Needs the development requirements and a Chromium.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FILE = ROOT / "assets" / "screenshots" / "hero.webp"
MOST = 2_000_000  # bytes
FRAME_MS = 125
FRAMES = 88
FIRST_WORD = 18  # tokens of the replay that are there as it begins: words that loop long come soon after
QUALITIES = (70, 55, 40, 30)  # of WebP: the first that fits


def frames(page: Any, url: str) -> list[bytes]:
    """The first screen's pictures, PNG."""
    page.goto(url)
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    page.wait_for_timeout(2500)  # formulas, fonts, plots
    page.clock.install()
    page.evaluate(
        f"""() => {{ const {{ page }} = document.querySelector('.lv'); page.look({{ token: null, step: null }}, {FIRST_WORD}); }}"""
    )
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    page.evaluate("document.querySelector('.lv').page.player.play()")
    found = []
    for _ in range(FRAMES):
        page.clock.run_for(FRAME_MS)
        found.append(page.locator(".lv-hero").screenshot(animations="allow"))
    return found


def moving(pictures: list[bytes], quality: int) -> bytes:
    """One WebP of PNG pictures."""
    from PIL import Image

    first, *others = (Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures)
    size = first.size
    made = io.BytesIO()
    still = [other if other.size == size else other.resize(size) for other in others]
    first.save(
        made,
        "WEBP",
        save_all=True,
        append_images=still,
        duration=FRAME_MS,
        loop=0,
        quality=quality,
        method=4,
        minimize_size=True,
    )
    return made.getvalue()


def main() -> int:
    """Make it; returns the exit code."""
    from playwright.sync_api import sync_playwright

    from scripts.run import find_chromium
    from scripts.serving import served

    with served([sys.executable, "app.py"]) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1180, "height": 900}).new_page()
        page.set_default_timeout(120_000)
        pictures = frames(page, url)
        browser.close()
    for quality in QUALITIES:
        made = moving(pictures, quality)
        if len(made) < MOST:
            FILE.write_bytes(made)
            print(f"{FILE.relative_to(ROOT)}: {len(pictures)} frames, {len(made) // 1024} KB at quality {quality}")
            return 0
    print(f"{FILE.name}: more than {MOST:,} bytes at every quality", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
