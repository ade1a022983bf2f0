"""Runs of visitors who stay: what is kept of them is weighed in bytes."""

from __future__ import annotations

import time

from benchmarks.attacks.finding import Finding, Options
from benchmarks.attacks.left import FOX, SMOLLM2
from benchmarks.attacks.serving import MIB, attacked
from benchmarks.attacks.visiting import Visitor, is_refusal, ready

RUNS = 30
PROMPT = (FOX * 120)[:6_000]  # some 1,300 tokens
OVERHEAD = 128 * MIB  # that the allocator may keep beside what is kept; the first run's working memory is no part of it
PATIENCE = 240.0  # seconds a run may take
BOUND = 1_500.0  # seconds that all may take


def row(options: Options) -> Finding:
    from loopviz.app.profile import PUBLIC
    from loopviz.panels import PANELS

    runs, wrong, grown, done = options.trials or RUNS, [], [], 0
    # few loops: a run of more holds more and takes longer, and these hold several times what may be kept
    values = {"block_start": 12, "block_end": 12, "loop_count": 2, "virtual_layer_count": 2, "max_new_tokens": 2}
    payload, wishes = (PROMPT, {"model": SMOLLM2, **values}), {"panels": list(PANELS)}
    with attacked(memory=8 * 1024 * MIB) as server:
        ready(server, SMOLLM2)
        first = Visitor(server)
        first.run(payload, PATIENCE, wishes)  # what a run needs while it is made is there from now on
        tokens = max((said.get("total") or said.get("last") or 0 for _, said in first.told), default=0)
        first.leave()
        server.rest()
        before, began = server.held(), time.monotonic()
        visitors = []
        for n in range(runs):
            if time.monotonic() - began > BOUND or not server.alive:
                wrong.append(f"only {n} of {runs} runs: {server.ended or f'{BOUND:g} s are over'}")
                break
            visitor = Visitor(server)
            visitors.append(visitor)
            seconds, said = visitor.run(payload, PATIENCE, wishes)
            refused = next((told for _, told in visitor.told if is_refusal(told)), None)
            if said is None or refused:
                wrong.append(f"run {n + 1}: {(refused or {}).get('text') or f'not done after {seconds:.0f} s'}")
                if n == 0:
                    break
            else:
                done += 1
            grown.append(server.held() - before)
            options.say(f"run {n + 1}: {seconds:.1f} s, {grown[-1] / MIB:+.0f} MiB")
        for visitor in visitors:
            visitor.leave()
        time.sleep(3)
        server.rest(most=10)
        last = Visitor(server)  # what was freed is given back as somebody comes
        last.run(("Once", {"max_new_tokens": 2}))
        last.leave()
        time.sleep(1)
        freed = server.held() - before
    limit = PUBLIC.kept_bytes + OVERHEAD
    at_most = max(grown, default=0)
    if at_most > limit:
        wrong.append(f"memory: {at_most / MIB:.0f} MiB more, {limit / MIB:.0f} are allowed")
    found = f"{done} runs of {tokens:,} tokens: memory at most {at_most / MIB:+.0f} MiB, {freed / MIB:+.0f} after all had left"
    bar = f"within {PUBLIC.kept_bytes // MIB} MiB + {OVERHEAD // MIB} MiB of overhead"
    return Finding(f"{runs} kept runs of 1,300 tokens with every panel", bar, found, wrong)
