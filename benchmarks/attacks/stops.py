"""Eighty Stops at once, while the page is asked for."""

from __future__ import annotations

import threading
import time

from benchmarks.attacks.finding import Finding, Options, most
from benchmarks.attacks.left import FOX, SMOLLM2
from benchmarks.attacks.serving import attacked
from benchmarks.attacks.visiting import Answer, Visitor, ready, request

STOPS = 80
BAR = 1.0  # seconds until the page is there
WATCHED = 15.0  # seconds, at most, over which the page is asked for


def row(options: Options) -> Finding:
    wrong: list[str] = []
    loop = {"block_start": 10, "block_end": 14, "loop_count": 4, "max_new_tokens": 2}
    with attacked() as server:
        ready(server, SMOLLM2)
        visitors = [Visitor(server) for _ in range(STOPS)]
        joined = [visitor.begin((FOX * 100, {"model": SMOLLM2, **loop})).status for visitor in visitors]
        time.sleep(1)
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda v=v: answers.append(v.stop(30))) for v in visitors]
        pages, began = [], time.monotonic()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or len(pages) < 20:
            pages.append(request(server, "GET", "/", patience=WATCHED))
            if time.monotonic() - began > WATCHED:
                break
        for thread in threads:
            thread.join(35)
        for visitor in visitors:
            visitor.leave()
        slow = [page for page in pages if page.status != 200 or page.seconds >= BAR]
        wrong += [f"GET /: status {page.status} after {page.seconds:.1f} s {page.text[:60]}" for page in slow]
        late = most([answer.seconds for answer in answers])
        wrong += [f"Stop: status {a.status} {a.text[:80]}" for a in answers if a.status != 200]
    longest = most([page.seconds for page in pages])
    found = f"`/` asked {len(pages)} times: at most {longest:.2f} s; the Stops were answered within {late:.2f} s "
    found += f"({joined.count(200)} of {STOPS} runs were taken)"
    return Finding(f"{STOPS} Stops at once", f"`/` in < {BAR:g} s", found, wrong)
