"""Make the picture that moves at the top of the README: `assets/screenshots/hero.webp`.

    python scripts/moving_picture.py

The app's first screen as it opens, while the recorded run is replayed, filmed as it is: on a busy machine the motion is as uneven
as it was. Needs the development requirements and a Chromium.
"""

from __future__ import annotations

import base64
import io
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FILE = ROOT / "assets" / "screenshots" / "hero.webp"
MOST = 2_000_000  # bytes
LEAST_MS = 90  # a frame that comes sooner is left out
SECONDS = 12
MARGIN = 10  # pixels
FIRST_WORD = 18  # tokens of the replay that are there as it begins: words that loop long come soon after
QUALITIES = (70, 55, 40, 30)  # of WebP: the first that fits


def frames(page: Any, url: str) -> list[tuple[float, bytes]]:
    """The first screen's pictures, each with its time, seconds, and JPEG."""
    page.goto(url)
    page.wait_for_selector('.lv[data-ready="1"][data-model="ready"]')
    page.wait_for_timeout(2500)  # formulas, fonts, plots
    page.evaluate(
        f"""() => {{ const {{ page }} = document.querySelector('.lv'); page.look({{ token: null, step: null }}, {FIRST_WORD}); }}"""
    )
    page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    film, found = page.context.new_cdp_session(page), []

    def frame(event: dict[str, Any]) -> None:
        film.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})
        found.append((event["metadata"]["timestamp"], base64.b64decode(event["data"])))

    film.on("Page.screencastFrame", frame)
    film.send("Page.startScreencast", {"format": "jpeg", "quality": 95})
    page.evaluate("document.querySelector('.lv').page.player.play()")
    page.wait_for_timeout(1000 * SECONDS)
    film.send("Page.stopScreencast")
    return found


def thinned(film: list[tuple[float, bytes]]) -> tuple[list[bytes], list[int]]:
    """Pictures at least `LEAST_MS` apart, and how long each stands, ms."""
    kept = film[:1]
    for one in film[1:]:
        if one[0] - kept[-1][0] >= LEAST_MS / 1000:
            kept.append(one)
    times = [time for time, _ in kept]
    stands = [round(1000 * (after - before)) for before, after in pairwise(times)]
    return [picture for _, picture in kept], [*stands, 1000]


def moving(pictures: list[bytes], stands: list[int], box: tuple[int, int, int, int], quality: int) -> bytes:
    """One WebP of the part of the pictures that is in `box` (left, top, right, bottom, pixels)."""
    from PIL import Image

    first, *others = (Image.open(io.BytesIO(picture)).convert("RGB").crop(box) for picture in pictures)
    made = io.BytesIO()
    first.save(
        made,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=stands,
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
        film = frames(page, url)
        at, below = (page.locator(part).first.bounding_box() for part in (".lv-hero", ".lv-row"))
        browser.close()
    assert at is not None
    assert below is not None
    box = (int(at["x"]) - MARGIN, int(at["y"]), int(at["x"] + at["width"]) + MARGIN, int(below["y"]))
    pictures, stands = thinned(film)
    for quality in QUALITIES:
        made = moving(pictures, stands, box, quality)
        if len(made) < MOST:
            FILE.write_bytes(made)
            print(f"{FILE.relative_to(ROOT)}: {len(pictures)} frames, {len(made) // 1024} KB at quality {quality}")
            return 0
    print(f"{FILE.name}: more than {MOST:,} bytes at every quality", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
