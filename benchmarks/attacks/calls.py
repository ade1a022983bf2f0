"""Random hostile calls over every callable address: no answer 5xx, none late, none that tells of the server."""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.attacks.far_ends import warm
from benchmarks.attacks.finding import Finding, Options, most
from benchmarks.attacks.sent import RECORDED, a_call, recorded
from benchmarks.attacks.serving import MIB, ROOT, Attacked, attacked
from benchmarks.attacks.visiting import API, Answer, Visitor, ready, request
from loopviz.app.contract import FILES, TICKET_HEADER

CALLS = 10_000
LATE = 5.0  # seconds
FLAT = 12  # threads and files that may be more than before: connections close when they like
SETTLES = 30.0  # seconds in which what a call began may end
FULL = (503, 507)  # no place in a line, or among stored runs: said in words, and counted apart
STREAMS = re.compile(
    rf"{API}/(heartbeat|queue/data)|/loopviz-run/|/loopviz-mcp$"
)  # lines that stand, by intent, and MCP's answers
_FILE = "root:x:0:"  # what /etc/passwd begins with
_TELLS = (
    _FILE,
    "Traceback (most recent call last)",
    'File "/',
    "site-packages",
    str(ROOT),
    sys.prefix,
    str(Path.home()) + "/",
)


def row(options: Options) -> Finding:
    calls, wrong = options.trials or CALLS, []
    with attacked() as server:
        ready(server, "stories-loop")
        warm(server)
        warm_files(server)
        server.rest()
        counts, before = server.counts(), server.held()
        answers = attack(server, calls, options.seed, wrong)
        alive = server.alive
        until = time.monotonic() + SETTLES
        while alive and time.monotonic() < until:
            now = server.counts()
            if all(new - old <= FLAT for new, old in zip(now, counts, strict=True)):
                break
            time.sleep(1)
        if not alive:
            wrong.append(f"the server is gone: {server.ended or server.words()[-400:]}")
        else:
            if any(new - old > FLAT for new, old in zip(now, counts, strict=True)):
                wrong.append(f"threads, files: {counts} before, {now} after")
            page = request(server, "GET", "/")
            if page.status != 200:
                wrong.append(f"GET / after it all: {page.status}")
        grown = server.held() - before if alive else 0
    statuses = Counter(answer.status for answer in answers)
    told = ", ".join(f"{n} x {status or 'cut'}" for status, n in sorted(statuses.items()) if status not in FULL)
    full = sum(statuses[status] for status in FULL)
    found = f"{len(answers)} calls: {told}; {full} told in words that there is no room now; "
    found += f"slowest {most([a.seconds for a in answers]):.1f} s; "
    found += f"threads, files {counts} -> {now}; memory {grown / MIB:+.0f} MiB" if alive else "the server is gone"
    bar = f"0 answers 5xx but in words for want of room, 0 over {LATE:g} s, 0 files, paths or stacks told; "
    bar += "alive, threads and files as before"
    return Finding(f"{calls:,} random hostile calls over every callable address", bar, found, wrong)


def warm_files(server: Attacked) -> None:
    """What a server needs once for files: one of each kind is opened, kept, and its picture drawn; a TTT model reads."""
    visitor = Visitor(server)
    file = {"Content-Type": "application/octet-stream", TICKET_HEADER: visitor.shown}
    for name, path in (("first", "open"), ("ttt", "ttt/open")):
        request(server, "POST", f"/{FILES}/{path}", recorded(name), file)
    kept = visitor.stored("save", {"run": RECORDED, "view": "{}"}).said
    request(server, "GET", f"/loopviz-card?run={kept.get('id', '')}")
    visitor.leave()
    reader = Visitor(server, "ttt")
    reader.run({"model": "stories-ttt", "prompt": "Once upon a time", "max_new_tokens": 2, "scale": 1.0})
    reader.leave()


def attack(server: Attacked, calls: int, seed: int, wrong: list[str]) -> list[Answer]:
    """Make the calls; what is wrong with an answer goes into `wrong`."""
    rng, visitor, answers = random.Random(seed), Visitor(server), []
    for number in range(calls):
        method, path, body, headers = a_call(rng, visitor)
        answer = request(server, method, path, body, headers, patience=LATE + 3, most=2_000_000)
        answers.append(answer)
        said = fault(method, path, answer)
        if said and (reference := re.search(r"[Rr]eference (\w+)", answer.text)):
            said += f"; in the log: {cause(server, reference.group(1))}"
        if said:
            shown = (body or b"")[:160].decode("utf-8", "replace")
            wrong.append(f"call {number} {method} {path[:120]} {headers.get('Content-Type', '')} {shown!r}: {said}")
        if not server.alive:
            break
        if not number % 50:
            visitor.leave()
            visitor = Visitor(server)
    visitor.leave()
    return answers


def cause(server: Attacked, reference: str) -> str:
    """The end of what the log says under a reference: the lines of our code, and the error."""
    logged = server.words().partition(reference)[2][:20_000]
    lines = logged.splitlines()
    last = next((n for n, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Warning|Exit)?: ", line)), 0)
    own = [line.strip() for line in lines[:last] if "File " in line]
    return " < ".join([lines[last][:200] if lines else "nothing", *own[-3:][::-1]])


def fault(method: str, path: str, answer: Answer) -> str:
    """What is wrong with an answer."""
    streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
    if streamed and not STREAMS.match(path):
        return "a stream that nothing uses"
    if answer.status >= 500 and not (answer.status in FULL and (answer.text.strip() or method == "HEAD")):
        return f"status {answer.status}: {answer.text[:100]!r}"
    if answer.seconds > LATE and not streamed:
        return f"{answer.seconds:.1f} s"
    source = path.startswith(("/loopviz-source", "/loopviz-assets", "/assets", "/static"))
    tells = (_FILE,) if source and answer.status == 200 else (*_TELLS, tempfile.gettempdir() + "/")
    return next((f"tells {word!r}" for word in tells if word in answer.text), "")
