"""The table of `benchmarks/page.py`, made of what it measured."""

from __future__ import annotations

import statistics

SMALL = "stories-loop"  # the model whose token the server's work is said in
Row = tuple[str, str, str]  # a figure, as measured, and its aim


def rows(watched: list[dict[str, float]], alone: list[dict[str, float]], steps: list[float]) -> list[Row]:
    """The table's rows, medians of the repeats.

    Args:
        watched: what `watched_run` measured of each.
        alone: what `engine_run` did.
        steps: what `small_step` did, ms.
    """

    def median(runs: list[dict[str, float]], name: str) -> float:
        return statistics.median(run[name] for run in runs)

    rate, alone_rate = median(watched, "rate"), median(alone, "rate")
    return [
        ("bytes over the wire a token", f"{median(watched, 'bytes'):.0f}", "<= 6,000"),
        ("plot nodes rebuilt while streaming", f"{max(w['rebuilt'] for w in watched):.0f}", "0"),
        ("from the last token until every panel, off screen too, shows it", f"{median(watched, 'lag'):.0f} ms", ""),
        ("the longest a panel on screen was behind", f"{median(watched, 'behind'):.0f} ms", "<= 500 ms at 20 tokens/s"),
        ("redraw of the panels on screen, end of the run / beginning", f"{median(watched, 'growth'):.2f}x", "<= 2x"),
        ("server CPU a token added by streaming to the page", f"{median(watched, 'cpu'):.2f} ms", "<= 4 ms"),
        ("making one message a token, measured by itself", f"{median(alone, 'building'):.2f} ms", ""),
        ("server CPU while a page is open and nothing runs", f"{median(watched, 'idle'):.0f} ms a second", ""),
        ("server CPU a run costs once", f"{median(watched, 'once'):.0f} ms", ""),
        ("from a click on a word to the answer", f"{median(watched, 'answered'):.0f} ms", "< 100 ms"),
        ("and until every panel on screen shows it", f"{median(watched, 'selected'):.0f} ms", ""),
        ("tokens the model still made after Stop", f"{median(watched, 'after_stop'):.0f}", "<= 1"),
        ("from Stop until the page says stopped", f"{median(watched, 'stop'):.0f} ms", ""),
        *multiples(watched, steps),
        (
            "tokens/s with the page open / the engine alone",
            f"{rate / alone_rate:.2f}x ({rate:.1f} / {alone_rate:.1f})",
            ">= 0.5x",
        ),
    ]


def multiples(watched: list[dict[str, float]], steps: list[float]) -> list[Row]:
    """What the page costs in bare draws of one panel, each run's in its own, and in tokens of the small model.

    Args:
        watched: what `watched_run` measured of each repeat; `react` is no number where the panel was not drawn.
        steps: ms of a token of the small model, of each repeat.
    """
    of, draw = "{:.1f}x".format, "draws of the convergence panel"
    step = statistics.median(steps)
    cpu = statistics.median(run["cpu"] for run in watched)
    found = [
        (f"one token of `{SMALL}`, the engine alone", f"{step:.2f} ms", ""),
        ("server CPU a token added by streaming, of that", f"{100 * cpu / step:.1f} %", "<= 5 %"),
    ]
    drawn = [run for run in watched if run["react"] == run["react"]]
    if not drawn:
        return found
    asked = (
        ("behind", "the longest a panel on screen was behind", "<= 8x"),
        ("answered", "from a click on a word to the answer", "<= 1.5x"),
        ("selected", "and until every panel on screen shows it", ""),
        ("lag", "from the last token until every panel, off screen too, shows it", "<= 14x"),
    )
    return [
        *found,
        (
            "one bare `Plotly.react` of the convergence panel",
            f"{statistics.median(r['react'] for r in drawn):.1f} ms",
            "",
        ),
        *(
            (f"{words}, {draw}", of(statistics.median(r[name] / r["react"] for r in drawn)), aim)
            for name, words, aim in asked
        ),
    ]
