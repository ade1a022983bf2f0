"""What a comparison comes to, in a sentence or two made of its table by rules: what looping buys, at what cost, and what is thriftier.

Each number is one of the table's as it is said there in three digits, or a ratio of two of a column. Values that look the same as
they are said are the same (:mod:`loopviz.lab.headline`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from loopviz.lab.headline import TIED, known, least, number, percent, same, tied
from loopviz.lab.task import Row

EVEN = 0.05  # of a time: so much another run of the same differs
THRIFTY = 0.75  # of the best one's cache: what needs more saves too little to be told
KEPT = 0.5  # of what the best one gains: what keeps less is not told for the little it needs
FRACTIONS = {"en": {2: "half", 3: "a third", 4: "a quarter", 6: "a sixth", 8: "an eighth", 16: "a sixteenth"},
             "zh": {2: "一半", 3: "三分之一", 4: "四分之一", 6: "六分之一", 8: "八分之一", 16: "十六分之一"}}  # fmt: skip
NEAR = 0.015  # of a fraction, for it to be called so

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "gain": "{name}: perplexity {base} → {best}{cost}.",
        "keeps": "{name} keeps {value} with {share} of the cache.",
        "alone": "Only {name} was measured: perplexity {best}. There is nothing to compare it with.",
        "none_better": "Nothing beats {baseline} (perplexity {base}). Nearest: {name} with {best}{cost}{also}.",
        "as_good": "Nothing beats {baseline} (perplexity {base}); {name} is as good{cost}{also}.",
        "all_same": "All have the same perplexity, {base}.",
        "buys_nothing": "All have the same perplexity, {base}: here looping buys nothing.",
        "best": "Best: {name}, perplexity {best}{also}.",
        "best_of": "Best: {name}, perplexity {best}{also}. {baseline} has no perplexity to compare with.",
        "unscored": "Without a continuation nothing says which is better.",
        "unread": "No perplexity was measured: nothing says which is better.",
        "agree": "{name} agrees most with {baseline}: {share} of its words{cost}{also}.",
        "differ": "{name} least: {share}{also}.",
        "agree_same": "All others would choose {share} of {baseline}’s words.",
        "missing": "No value from: {names}.",
        "nothing": "Nothing was measured: the ⚠ on each card says why.",
        "ended": "It was ended before anything was measured.",
        "times": " for {n}x the time",
        "level": " in the same time",
        "less": " in {share} of the time",
        "loops": "{name} ({n} loops)",
        "one_loop": "{name} (1 loop)",
        "swept": "{n} loops ({name})",
        "one_swept": "1 loop ({name})",
        "and": ", ",
        "join": " ",
    },
    "zh": {
        "gain": "{name}：困惑度 {base} → {best}{cost}。",
        "keeps": "{name}用{share}的缓存保持在 {value}。",
        "alone": "只测量了{name}：困惑度 {best}。没有可比较的对象。",
        "none_better": "没有配置胜过{baseline}（困惑度 {base}）。最接近的是{name}：{best}{cost}{also}。",
        "as_good": "没有配置胜过{baseline}（困惑度 {base}）；{name}与它相同{cost}{also}。",
        "all_same": "各配置的困惑度相同，都是 {base}。",
        "buys_nothing": "各配置的困惑度相同，都是 {base}：在这里循环没有换来什么。",
        "best": "最好：{name}，困惑度 {best}{also}。",
        "best_of": "最好：{name}，困惑度 {best}{also}。{baseline}没有可比较的困惑度。",
        "unscored": "没有续文，就无法判断哪个更好。",
        "unread": "没有测到困惑度，无法判断哪个更好。",
        "agree": "{name}与{baseline}最一致：{share} 的词{cost}{also}。",
        "differ": "{name}最不一致：{share}{also}。",
        "agree_same": "其他配置都会选出{baseline} {share} 的词。",
        "missing": "没有数值的：{names}。",
        "nothing": "没有测到任何结果：各卡片上的 ⚠ 说明了原因。",
        "ended": "在测到任何结果之前就结束了。",
        "times": "，用时为 {n} 倍",
        "level": "，用时相同",
        "less": "，用时为其 {share}",
        "loops": "{name}（循环 {n} 次）",
        "one_loop": "{name}（循环 1 次）",
        "swept": "循环 {n} 次（{name}）",
        "one_swept": "循环 1 次（{name}）",
        "and": "、",
        "join": "",
    },
}  # fmt: skip


def verdict(
    rows: Sequence[Row], lang: str, missing: Sequence[str] = (), *, continued: bool = False, refused: bool = True
) -> str:
    """The sentence of a comparison's table, finished or not; "" for one without rows.

    Args:
        missing: names of configurations that have no row and will have none.
        continued: whether there is a continuation, or may be: then it is not for want of one that no row has a perplexity.
        refused: whether those were refused; otherwise it was ended before it came to them.
    """
    words = WORDS[lang]
    scored = known(rows, "perplexity")
    told = _by_perplexity(scored, rows, lang) if scored else _by_agreement(rows, lang, continued)
    if not rows:
        return words["nothing" if refused else "ended"] if missing else ""
    silent = [called(row, lang) for row in rows if scored and row not in scored]
    if names := [*dict.fromkeys(silent), *missing]:
        told.append(words["missing"].format(names=words["and"].join(names)))
    return words["join"].join(told)


def called(row: Row, lang: str) -> str:
    """A row's configuration, with how often it loops."""
    words, name, loops = WORDS[lang], row["setup"], row.get("loops_mean")
    if row.get("swept") is not None:
        return words["one_swept" if row["swept"] == 1 else "swept"].format(name=name, n=row["swept"])
    if _is_plain(row) or loops is None:
        return name
    return words["one_loop" if number(loops) == "1" else "loops"].format(name=name, n=number(loops))


def _by_perplexity(scored: Sequence[Row], rows: Sequence[Row], lang: str) -> list[str]:
    words = WORDS[lang]
    first = next((row for row in rows if row["baseline"]), None)
    base = first if first in scored else None
    others = [row for row in scored if row is not base]
    best = least(others or scored, _perplexity, _cost)
    said = {"name": called(best, lang), "best": number(best["perplexity"])}
    said["also"] = tied(others or scored, _perplexity, best, lang)
    if base is None and first is not None:
        return [words["best_of"].format(**said, baseline=first["setup"])]
    if base is None and len(scored) > 1:
        return [words["best"].format(**said)]
    if base is None or not others:
        return [words["alone"].format(**said)]
    said |= {"base": number(base["perplexity"]), "baseline": called(base, lang), "cost": _time(best, base, lang)}
    if same(best["perplexity"], base["perplexity"]):
        if not all(same(row["perplexity"], base["perplexity"]) for row in others):
            return [words["as_good"].format(**said)]
        # what loops buy is told against a model that has none
        against = {_is_plain(row) for row in scored}
        return [words["buys_nothing" if len(against) == 2 else "all_same"].format(**said)]
    if best["perplexity"] > base["perplexity"]:
        return [words["none_better"].format(**said)]
    told, thrifty = [words["gain"].format(**said)], _thrifty(best, base, others)
    if thrifty is not None:
        share = fraction(thrifty["kv_bytes_per_token"] / best["kv_bytes_per_token"], lang)
        value = number(thrifty["perplexity"])
        told.append(words["keeps"].format(name=called(thrifty, lang), value=value, share=share))
    return told


def _thrifty(best: Row, base: Row, others: Sequence[Row]) -> Row | None:
    """Of those that need far less cache than the best and keep most of what it gains, the one that needs least."""
    size = best.get("kv_bytes_per_token")
    if not size:
        return None
    enough = base["perplexity"] - KEPT * (base["perplexity"] - best["perplexity"])
    found = [
        row
        for row in known(others, "kv_bytes_per_token")
        if row["kv_bytes_per_token"] <= THRIFTY * size
        and row["perplexity"] <= enough
        and not same(row["perplexity"], base["perplexity"])
    ]
    return least(found, lambda row: row["kv_bytes_per_token"], _perplexity) if found else None


def _by_agreement(rows: Sequence[Row], lang: str, continued: bool) -> list[str]:
    words, base = WORDS[lang], next((row for row in rows if row["baseline"]), None)
    told, others = (
        [words["unread" if continued else "unscored"]],
        known([row for row in rows if not row["baseline"]], "agreement"),
    )
    if base is None or not others:
        return told
    most = max(others, key=lambda row: row["agreement"])
    fewest = min(others, key=lambda row: row["agreement"])
    share, baseline = percent(most["agreement"]), called(base, lang)
    if len(others) > 1 and share == percent(fewest["agreement"]):
        return [*told, words["agree_same"].format(share=share, baseline=baseline)]
    cost = _time(most, base, lang)
    told.append(
        words["agree"].format(
            name=called(most, lang), baseline=baseline, share=share, cost=cost, also=_tied(others, share, lang)
        )
    )
    if len(others) > 1:
        share = percent(fewest["agreement"])
        told.append(words["differ"].format(name=called(fewest, lang), share=share, also=_tied(others, share, lang)))
    return told


def _tied(rows: Sequence[Row], share: str, lang: str) -> str:
    """That a share, as it is said, is more than one's."""
    return TIED[lang] if sum(percent(row["agreement"]) == share for row in rows) > 1 else ""


def _is_plain(row: Row) -> bool:
    """Whether a row's model has no loop."""
    return row.get("stops") in ("plain", "ttt")


def _perplexity(row: Row) -> float:
    return float(row["perplexity"])


def _cost(row: Row) -> tuple[float, float]:
    """Bytes, then time; what is not known counts as most."""
    return row.get("kv_bytes_per_token") or math.inf, row.get("ms_per_token") or math.inf


def _time(row: Row, base: Row, lang: str) -> str:
    """How long it takes against the baseline; "" where one was too short to be timed."""
    words, times = WORDS[lang], (row.get("ms_per_token"), base.get("ms_per_token"))
    if not times[0] or not times[1]:
        return ""
    ratio = times[0] / times[1]
    if abs(ratio - 1) <= EVEN:
        return words["level"]
    return words["times"].format(n=multiple(ratio)) if ratio > 1 else words["less"].format(share=percent(ratio))


def multiple(ratio: float) -> str:
    """A ratio in two digits."""
    return f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.2g}"


def fraction(share: float, lang: str) -> str:
    """A share of something, as a fraction where it is one."""
    for n, name in FRACTIONS[lang].items():
        if abs(share * n - 1) <= NEAR:
            return name
    return percent(share)
