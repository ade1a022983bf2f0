"""C1, C2, C3 of the security report, and the far end of every number that a visitor can send: refused at once, at no cost."""

from __future__ import annotations

import dataclasses
import json
import time
import typing
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from benchmarks.attacks.finding import Finding, Options, most
from benchmarks.attacks.hub import GIANT, standing_in
from benchmarks.attacks.serving import MIB, Attacked, attacked
from benchmarks.attacks.visiting import Answer, Visitor, is_refusal, ready, request

MODEL = "stories-loop"
SENTENCE = "Once upon a time, there was a little girl named Lily. She loved to play with her toys. One day, Lily saw a big dog in the park. "
WHOLE, REAL = (10**18, -(10**18)), (1e30, -1e30)
WRITTEN = (10**20, -(10**20))  # in the Lab, where numbers come as text: a seed may have 64 bits
BAR = 1.0  # seconds until it is refused
IDLE = 0.05  # cores that may be busy beyond what an idle server takes
KEPT = 64 * MIB  # that its memory may have grown by, of all of them together
PATIENCE = 6.0  # seconds until an attack counts as let in

Attack = Callable[[Attacked], tuple[float, str]]  # seconds, and what is wrong ("": nothing)


def row(options: Options) -> Finding:
    with standing_in() as hub:
        environ = {"HF_ENDPOINT": hub.url, "LOOPVIZ_NAMED_MODELS": GIANT}
        tried, wrong, seconds = 0, [], []
        attacks, server_number = list(everything()), 0
        grown, share, idle = 0, 0.0, 0.0
        while attacks:  # a server that an attack has got into is ended, and the others go on with a new one
            server_number += 1
            with attacked(environ=environ) as server:
                ready(server, MODEL)
                warm(server)
                idle, before = server.rest(), server.held()
                while attacks and server.alive:
                    name, attack = attacks.pop(0)
                    tried += 1
                    took, said = attack(server)
                    seconds.append(took)
                    said = said or (f"refused after {took:.1f} s" if took >= BAR else "")
                    if said:
                        wrong.append(f"{name}: {said}")
                        options.say(wrong[-1])
                        if server.ended or is_busy(server, idle):
                            wrong.append(f"{name}: {server.ended or 'the server is busy 2 s after it was left'}")
                            break
                if server.alive:
                    share, grown = max(share, after(server)), max(grown, server.held() - before)
        if grown > KEPT:
            wrong.append(f"memory: {grown / MIB:.0f} MiB more than before")
        if share > idle + IDLE:
            wrong.append(f"CPU: {share:.2f} cores 2 s after the last, {idle:.2f} before the first")
        if hub.weights:
            wrong.append(f"{GIANT}: {hub.weights:,} bytes of weights were fetched")
    found = (
        f"{tried} tried, {tried - len(wrong)} refused; at most {most(seconds):.2f} s; memory {grown / MIB:+.0f} MiB; "
    )
    found += f"{share:.2f} cores busy after (idle: {idle:.2f})"
    bar = f"refused by name in < {BAR:g} s; memory (within {KEPT // MIB} MiB) and CPU unchanged"
    return Finding("C1, C2, C3 and every number's far ends", bar, found, wrong)


def warm(server: Attacked) -> None:
    """What a server needs once: its own first run, measurement, comparison; and as many pages as it remembers."""
    from loopviz.app.profile import PUBLIC

    for _ in range(PUBLIC.sessions):
        visitor = Visitor(server)
        visitor.ask("resync", {"run": "x"})
        visitor.leave()
    for page, payload in (
        ("explore", ("Once", {"model": MODEL, "max_new_tokens": 2})),
        (
            "lab",
            {"model": MODEL, "task": "perplexity", "values": {"text": SENTENCE * 2, "loops": "1", "paths": "full"}},
        ),
        ("compare", comparison({"max_new_tokens": 2}, {})),
    ):
        visitor = Visitor(server, page)
        visitor.run(payload)
        visitor.leave()


def after(server: Attacked) -> float:
    """Cores that are busy, two seconds later."""
    time.sleep(2)
    return server.share(2)


def is_busy(server: Attacked, idle: float) -> bool:
    time.sleep(2)
    return server.share(1) > idle + 0.3


# --- the attacks ------------------------------------------------------------------------------------------------------


def everything() -> Iterator[tuple[str, Attack]]:
    """Every attack, by name."""
    yield from cases()
    yield from of_the_lab()
    yield from of_the_controls()
    yield from of_comparisons()
    yield from of_questions()
    yield from of_links()


def cases() -> Iterator[tuple[str, Attack]]:
    """C1, C2 and C3 as they were reported."""
    text = SENTENCE * 275
    huge = {"text": SENTENCE * 15_000, "loops": "1", "paths": "full", "limit_tokens": "100000000", "batch": "100000"}
    lab = {
        "C1 lab_pass_nobody_can_stop": ("perplexity", {"text": text, "loops": "1000000", "paths": "full"}, "loops"),
        "C2 lab_windows_of_all_the_text_at_once": ("perplexity", {**huge, "window": "256"}, ""),
        "C2 the same through the cache": ("perplexity", {**huge, "window": "256", "paths": "cache"}, ""),
        "C2 exits": ("exits", {"text": text, "max_loops": "1000000000"}, "max_loops"),
        "C2 starts": ("starts", {"text": text, "draws": "1000000000"}, "draws"),
    }
    for name, (task, values, field) in lab.items():
        yield name, measurement(task, values, field)
    yield "C3 hub_model_of_141_gigabytes (named by the host)", model_refused(GIANT)
    yield "C3 any Hub model (not named by the host)", model_refused("other/llama70b")


def measurement(task: str, values: dict[str, Any], field: str) -> Attack:
    def attack(server: Attacked) -> tuple[float, str]:
        return begun(server, "lab", {"model": MODEL, "task": task, "values": values}, field)

    return attack


def begun(server: Attacked, page: str, payload: Any, field: str) -> tuple[float, str]:
    """Begin it as a page does: it is to be refused, in words that name the field."""
    visitor, since = Visitor(server, page), time.monotonic()
    answer = visitor.begin(payload)
    if answer.status != 200:
        visitor.leave()
        return answer.seconds, "" if 400 <= answer.status < 500 else f"status {answer.status} {answer.text[:100]}"
    said = visitor.wait(lambda told: is_refusal(told) or told["kind"] in ("snapshot", "completed"), PATIENCE)
    took = time.monotonic() - since
    everything_said = [told for _, told in visitor.told]
    visitor.stop(patience=2)
    visitor.leave()
    if said is not None and said["kind"] == "completed" and "imum value" in said["text"]:
        return took, ""  # by Gradio's own slider, with the value and its end
    if said is None:
        return took, f"nothing was said for {PATIENCE:g} s ({str(everything_said)[:120]})"
    if not is_refusal(said):
        return took, f"let in ({str(said)[:120]})"
    if field and field not in json.dumps(said):
        return took, f"refused without naming {field}: {said['text'][:160]}"
    return took, ""


def model_refused(name: str) -> Attack:
    """A model that cannot be had: the page asks for it, and presses Run."""

    def attack(server: Attacked) -> tuple[float, str]:
        visitor, since = Visitor(server), time.monotonic()
        state = ""
        while time.monotonic() - since < PATIENCE:
            said = visitor.ask("model_status", {"model": name, "lang": "en", "agreed": True}).said
            state = said.get("state", "")
            if state == "failed":
                visitor.leave()
                return time.monotonic() - since, ""
            if state == "ask":
                took, wrong = begun(server, "explore", ("Once", {"model": name, "max_new_tokens": 2}), "")
                visitor.leave()
                return took, wrong
            time.sleep(0.05)
        visitor.leave()
        return time.monotonic() - since, f"not refused: {state}"

    return attack


def numbers_in(hint: Any) -> type | None:
    """Whether a type has numbers: int, float, or None."""
    inner = [hint, *typing.get_args(hint), *(deep for part in typing.get_args(hint) for deep in typing.get_args(part))]
    return float if float in inner else int if int in inner else None


def of_the_lab() -> Iterator[tuple[str, Attack]]:
    """Every number of every task, and of the loop that a task takes."""
    from loopviz.app import controls as st
    from loopviz.lab import TASKS

    loop = st.loop_fields(st.defaults())
    for task in TASKS.values():
        hints = typing.get_type_hints(task.params)
        base = {"text": SENTENCE * 3} if "text" in hints else {}
        for thing in dataclasses.fields(task.params):
            kind = numbers_in(hints[thing.name]) if thing.metadata["kind"] == "value" else None
            for far in () if kind is None else WRITTEN if kind is int else REAL:
                written = str(far) if kind is int else repr(far)
                values = {**base, thing.name: written}
                yield f"lab {task.name} {thing.name}={written}", measurement(task.name, values, thing.name)
            if thing.metadata["kind"] != "loop":
                continue
            several = typing.get_origin(hints[thing.name]) is tuple
            for field, value in loop.items():
                if isinstance(value, bool) or not isinstance(value, (int, float, tuple)):
                    continue
                for far in WRITTEN if not isinstance(value, float) else REAL:
                    made = {field: [0, far] if isinstance(value, tuple) else far}
                    values = {**base, thing.name: json.dumps([made] * 2 if several else made)}
                    yield f"lab {task.name} {thing.name} {made}", measurement(task.name, values, field)


def of_the_controls() -> Iterator[tuple[str, Attack]]:
    """Every number of the form of a run."""
    from loopviz.app import controls as st

    for control in st.CONTROLS:
        for far in {"whole": WHOLE, "number": REAL}.get(control.kind, ()):
            values = {"model": MODEL, control.name: far}

            def attack(server: Attacked, values: Any = values, name: str = control.name) -> tuple[float, str]:
                return begun(server, "explore", ("Once", values), name)

            yield f"explore {control.name}={far}", attack


def comparison(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    cards = [{"name": name, "plain": False, "values": own} for name in ("a", "b")]
    return {"model": MODEL, "prompt": "Once upon a time", "shared": shared, "cards": cards, "baseline": 0}


def of_comparisons() -> Iterator[tuple[str, Attack]]:
    """Every number of a comparison's cards, and of what they share."""
    from loopviz.app import controls as st

    for control in st.CONTROLS:
        for far in {"whole": WHOLE, "number": REAL}.get(control.kind, ()):
            values = {control.name: far}
            payload = comparison({}, values) if control.group in st.LOOP_GROUPS else comparison(values, {})

            def attack(server: Attacked, payload: Any = payload, name: str = control.name) -> tuple[float, str]:
                return begun(server, "compare", payload, name)

            yield f"compare {control.name}={far}", attack


def of_questions() -> Iterator[tuple[str, Attack]]:
    """Every number in a question: answered as one that asks for nothing, at once."""
    places = {"token": 0, "step": 0, "block": 0, "layer": 0, "pins": [0], "dims": 2, "context": 8192, "batch": 1}
    run = {"run": "recorded", "epoch": 0, "seq": 0}
    for far in WHOLE:
        for function in ("resync", "focus", "advance", "text_until"):
            for name in ("epoch", "seq", "token", "from", "to", "shown"):
                yield f"{function} {name}={far}", question("explore", function, {**run, name: far})
        for name, usual in places.items():
            focus = {name: [far] if isinstance(usual, list) else far}
            for function in ("focus", "advance"):
                yield f"{function} focus {focus}", question("explore", function, {**run, "focus": focus})
        yield f"compare stop place={far}", question("compare", "stop", {"ticket": "x" * 32, "place": far})
        yield f"compare look axes={far}", question("compare", "look", {"run": "x", "axes": far, "view": far})
        yield f"lab link row={far}", question("lab", "link", {"run": "x", "row": far})
        yield f"lab look={far}", question("lab", "look", {"run": far})


def question(page: str, function: str, asked: dict[str, Any]) -> Attack:
    def attack(server: Attacked) -> tuple[float, str]:
        visitor = Visitor(server, page)
        answer = visitor.ask(function, asked)
        visitor.leave()
        return answer.seconds, bad_answer(answer)

    return attack


def bad_answer(answer: Answer) -> str:
    """What is wrong with an answer to a question that asks for nothing real."""
    refused = 400 <= answer.status < 500
    return "" if refused or (answer.status == 200 and answer.text) else f"status {answer.status}: {answer.text[:120]}"


def of_links() -> Iterator[tuple[str, Attack]]:
    """Every number in a link."""
    from loopviz.app import controls as st
    from loopviz.app.controls.link_word import FOCUS, VERSION, _pack

    for control in st.CONTROLS:
        for far in {"whole": WHOLE, "number": REAL}.get(control.kind, ()):
            yield link(f"{control.name}={far}", {"values": {control.name: far}}, VERSION, _pack)
    for name, usual in FOCUS.items():
        if not isinstance(usual, str):
            yield link(f"focus {name}", {"focus": {name: [WHOLE[0]] if usual == () else WHOLE[0]}}, VERSION, _pack)


def link(name: str, state: dict[str, Any], version: str, pack: Callable[[bytes], str]) -> tuple[str, Attack]:
    word = version + pack(json.dumps(state).encode())

    def attack(server: Attacked) -> tuple[float, str]:
        answer = request(server, "GET", f"/loopviz-share/link?lang=en&s={quote(word)}")
        wrong = bad_answer(answer)
        if not wrong and str(WHOLE[0]) in json.dumps(answer.said.get("focus")):
            wrong = f"taken: {answer.text[:200]}"
        return answer.seconds, wrong

    return f"link {name}", attack
