"""Work that is left, or stopped, in the middle: a prompt being read, a Lab pass, a stranger's tokenizer, template, download."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.attacks.far_ends import SENTENCE
from benchmarks.attacks.finding import Finding, Options, most
from benchmarks.attacks.hub import DOWNLOAD, HOSTILE, TEMPLATE, TOKENIZER, Hub, standing_in
from benchmarks.attacks.serving import Attacked, attacked
from benchmarks.attacks.visiting import Visitor, is_last, is_refusal, ready

TRIALS = 20
GRACE = 2.0  # seconds after which nothing may be at work any more
WATCHED = 1.0  # seconds over which that is looked at
IDLE = 0.1  # cores that may be busy beyond what an idle server takes: the machine may be
WORKING = 0.15  # cores from which a server counts as at work
PATIENCE = 30.0  # seconds until it has to be at work
SMOLLM2 = "smollm2-135m-instruct"
FOX = "the quick brown fox jumps over a lazy dog and then "


@dataclass
class Kind:
    """Something that takes long, and how it is begun."""

    name: str
    page: str
    payloads: list[Any]  # the first that is not refused is the one
    own: bool = False  # whether each trial has a payload of its own
    counted: Callable[[Hub], int] | None = None  # what shows that it is at work; None: CPU does
    shares: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)  # seconds until a stopped one said so
    begun: int = 0
    refused: str = ""


def kinds(trials: int) -> list[Kind]:
    """Each kind of long work that is left."""
    loop = {"block_start": 10, "block_end": 14, "loop_count": 4, "max_new_tokens": 2}
    prompts = [(FOX * times, {"model": SMOLLM2, **loop}) for times in (392, 196, 120, 60)]
    measure = {"model": SMOLLM2, "task": "perplexity"}
    values = {"paths": "full", "window": "1024", "batch": "4", "limit_tokens": "8000"}
    passes = [{**measure, "values": {**values, "text": SENTENCE * 275, "loops": str(n)}} for n in (16, 8, 4, 2)]
    # each of a model of its own: what has had to be ended is not begun for ever, and a download is there but once
    named = {kind: [f"{kind}-{n}" for n in range(trials)] for kind in HOSTILE}
    small = {"block_start": 1, "block_end": 1, "max_new_tokens": 2}
    return [
        Kind("long prompt", "explore", prompts),
        Kind("Lab pass", "lab", passes),
        Kind("tokenizer", "explore", [("a" * 3000, {"model": name, **small}) for name in named[TOKENIZER]], own=True),
        Kind(
            "template",
            "explore",
            [("abc", {"model": n, "template": "chat", **small}) for n in named[TEMPLATE]],
            own=True,
        ),
        Kind(
            "download",
            "explore",
            [("abc", {"model": n, **small}) for n in named[DOWNLOAD]],
            True,
            lambda hub: hub.weights,
        ),
    ]


def row(options: Options) -> Finding:
    trials = options.trials or TRIALS
    rng, wrong, found = random.Random(options.seed), [], kinds(trials)
    names = [payload[1]["model"] for kind in found if kind.own for payload in kind.payloads]
    with standing_in() as hub:
        environ = {"HF_ENDPOINT": hub.url, "LOOPVIZ_NAMED_MODELS": ",".join(names)}
        for kind in found:
            with attacked(environ=environ) as server:
                ready(server, "stories-loop" if kind.own else SMOLLM2)
                idle = server.rest()
                for trial in range(trials):
                    if not server.alive:
                        wrong.append(f"{kind.name}: {server.ended or 'the server is gone'}")
                        break
                    said = one(server, hub, kind, trial, idle, rng)
                    if said:
                        wrong.append(f"{kind.name}, trial {trial + 1}: {said}")
                        options.say(wrong[-1])
                        if server.alive and server.rest(1.0, most=20) > idle + IDLE:
                            wrong.append(f"{kind.name}: still at work 20 s later; the other trials were not made")
                            break
            options.say(f"{kind.name}: {describe(kind, trials)}")
    bar = f"0 work {GRACE:g} s later, {trials} trials each"
    return Finding(
        "long prompt, Lab pass, hostile tokenizer, template, download: left or stopped",
        bar,
        "; ".join(f"{kind.name}: {describe(kind, trials)}" for kind in found),
        wrong,
    )


def describe(kind: Kind, trials: int) -> str:
    if not kind.begun:
        return f"refused ({kind.refused[:80]})"
    late = f", said so after {most(kind.late):.1f} s at most" if kind.late else ""
    return f"{kind.begun} of {trials} at work, then at most {most(kind.shares):.2f} cores{late}"


def one(server: Attacked, hub: Hub, kind: Kind, trial: int, idle: float, rng: random.Random) -> str:
    """One trial; what is wrong with it, "" when nothing is."""
    visitor = at_work(server, hub, kind, trial)
    if visitor is None:
        return "" if kind.refused else f"was not at work after {PATIENCE:g} s"
    time.sleep(rng.uniform(0.0, 0.2 if kind.own else 1.0))
    kind.begun += not any(is_last(said) for _, said in visitor.told)  # a limit of its own may have ended it just now
    stopped, since = trial % 2 == 1, time.monotonic()
    if stopped:
        visitor.stop(patience=GRACE + 5)
        visitor.wait(is_last, GRACE + 3)
        kind.late.append(time.monotonic() - since)
    else:
        visitor.leave()
    time.sleep(max(0.0, since + GRACE - time.monotonic()))
    sent = hub.weights
    share = server.share(WATCHED)
    kind.shares.append(share)
    visitor.leave()
    how = "stopped" if stopped else "left"
    if share > idle + IDLE:
        return f"{how}: {share:.2f} cores busy {GRACE:g} s later (idle: {idle:.2f})"
    if kind.counted is not None and hub.weights > sent:
        return f"{how}: {hub.weights - sent:,} bytes more came {GRACE:g} s later"
    if stopped and kind.late[-1] > GRACE:
        return f"stopped: said so after {kind.late[-1]:.1f} s"
    return ""


def at_work(server: Attacked, hub: Hub, kind: Kind, trial: int) -> Visitor | None:
    """A visitor for whom it has begun; None when it was refused, or did not begin."""
    while kind.payloads:
        payload = kind.payloads[trial if kind.own else 0]
        if kind.own and kind.counted is None:
            ready(server, payload[1]["model"])
            server.rest(0.5)
        visitor, kind.refused = Visitor(server, kind.page), ""
        before = hub.weights
        visitor.begin(payload)
        if has_begun(server, hub, kind, visitor, before):
            return visitor
        visitor.leave()
        if not kind.refused or kind.own or len(kind.payloads) == 1:
            return None
        kind.payloads.pop(0)
    return None


def has_begun(server: Attacked, hub: Hub, kind: Kind, visitor: Visitor, before: int) -> bool:
    """Wait until it is at work, or refused."""
    until, busy = time.monotonic() + PATIENCE, 0
    while time.monotonic() < until and server.alive:
        if kind.counted is not None:
            time.sleep(0.05)
            busy = 2 if kind.counted(hub) > before else 0
        else:
            busy = busy + 1 if server.share(0.2) > WORKING else 0
        if busy == 2:  # once may be the asking
            return True
        refusal = next((said for _, said in visitor.told if is_refusal(said)), None)
        if refusal is not None:
            kind.refused = str(refusal["text"])
            return False
    return False
