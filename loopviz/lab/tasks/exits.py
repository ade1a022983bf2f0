"""Exit-policy bench: when could each token have stopped, what would that have saved, and what would it have cost?

One run at the most loops, every policy and threshold replayed on it; what a replay can know: :mod:`.exit_replay`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from loopviz.checks import FieldError, check_number, check_one_of, check_real, check_whole
from loopviz.engine.work import Work
from loopviz.lab.headline import TIED, known, number, percent, same
from loopviz.lab.reading.exit_replay import (
    POLICIES,
    UNITS,
    ExitRun,
    RealRun,
    exit_steps,
    max_loop_view,
    outcome,
    own_floor,
    pareto,
    real_run,
    record,
    settings_of,
)
from loopviz.lab.reading.reach import ROW_BYTES
from loopviz.lab.reading.windows import CorpusParams
from loopviz.lab.task import MOST_LOOPS, Row, Subject, Task, column, param, register, titled
from loopviz.loop_fields import PUBLISHED_CRITERIA

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from loopviz.model import LoopLlamaForCausalLM

NAME, ORDER = "exits", 50
TITLE = {"en": "Exit policies", "zh": "退出策略"}

_FIXED = {"loop_strategy": "fixed_count", "loop_count": 1, "exit_selection": "last"}
SCORES, PUBLISHED_SCORES = 9, 5  # numbers kept of a step of a token, and more of them with the rules huginn_*
SCORE_BYTES = 8 * 2  # of one, and once more where parts are joined
MOST_SCORE = 1e6  # of a threshold
MOST_KEPT = 2**28  # numbers of log-probabilities kept for a check: 1 GiB of float32


@dataclass(frozen=True)
class ExitParams(CorpusParams):
    """Parameters of the exit bench."""

    loop: dict[str, Any] = param({}, "Loop settings.", "循环设置。", kind="loop")
    max_loops: int = param(
        0,
        "Steps of the recorded run; 0: the configuration's max_loop_count.",
        "所记录运行的步数；0 表示配置中的 max_loop_count。",
        low=0,
        high=MOST_LOOPS,
    )
    floor: int = param(
        0,
        "First step that may stop; 0: min_loop_count (where virtual_layer_count is given and more: that).",
        "最早允许停止的步；0 表示 min_loop_count（若另行给出的 virtual_layer_count 更大，则为后者）。",
        low=0,
        high=MOST_LOOPS,
    )
    unit: str = param(
        "token",
        "token: read token by token through the cache, each decides alone. pass: a window in one pass, decided on its mean.",
        "token：经缓存逐个词元读入，各自决定。pass：整个窗口一次前向，按平均值决定。",
        choices=UNITS,
    )
    cosine: tuple[float, ...] = param(
        (0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999),
        "Stop at cos(s_r, s_{r-1}) >= this.",
        "cos(s_r, s_{r-1}) ≥ 此值时停止。",
        low=-1,
        high=1,
    )
    kl: tuple[float, ...] = param(
        (0.1, 0.01, 5e-4, 1e-4, 1e-5),
        "Stop at KL(p_{r-1} || p_r) <= this, nats.",
        "KL(p_{r-1} || p_r) ≤ 此值（nat）时停止。",
        low=0,
        high=MOST_SCORE,
    )
    rel_delta: tuple[float, ...] = param(
        (0.3, 0.1, 0.03, 0.01, 0.003),
        "Stop at |Δ_r| / |s_r| <= this.",
        "|Δ_r| / |s_r| ≤ 此值时停止。",
        low=0,
        high=MOST_SCORE,
    )
    acceleration: tuple[float, ...] = param(
        (0.3, 0.1, 0.03, 0.01, 0.003),
        "Stop at |Δ_r - Δ_{r-1}| / |s_r| <= this at two steps in a row.",
        "|Δ_r − Δ_{r−1}| / |s_r| 连续两步 ≤ 此值时停止。",
        low=0,
        high=MOST_SCORE,
    )
    argmax: tuple[int, ...] = param(
        (1, 2, 3, 5),
        "Stop when the likeliest token stayed the same for so many steps.",
        "最可能的词元连续这么多步不变时停止。",
        low=1,
        high=MOST_LOOPS,
    )
    entropy: tuple[float, ...] = param(
        (0.1, 0.01, 1e-3, 1e-4),
        "Stop at |H(p_r) - H(p_{r-1})| <= this, nats.",
        "|H(p_r) − H(p_{r−1})| ≤ 此值（nat）时停止。",
        low=0,
        high=MOST_SCORE,
    )
    gate: tuple[float, ...] = param(
        (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99),
        "Models with an exit gate: stop once it has said so with this probability.",
        "有出口门的模型：门说停的累计概率达到此值时停止。",
        low=0,
        high=1,
    )
    published: bool = param(
        False,
        "Huginn's six stop rules at their authors' thresholds, too.",
        "另外加上 Huginn 的六条停止规则，用其作者的阈值。",
    )
    check: bool = param(
        False,
        "Really run count, cosine, KL, gate and huginn_* at each threshold too, and show the difference.",
        "另外按每个阈值真正运行 count、cosine、KL、gate 与 huginn_*，并给出差别。",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_loops", "floor"):
            check_whole(name, getattr(self, name), 0)
        check_one_of("unit", self.unit, UNITS, quoted=False)
        for name, most in (("cosine", 1.0), *((name, float("inf")) for name in ("kl", "rel_delta", "entropy"))):
            for value in getattr(self, name):
                check_number(name, value, -1.0 if name == "cosine" else 0.0, most)
        for value in self.gate:
            check_real("gate", value, 0, 1)
        for value in self.acceleration:
            check_number("acceleration", value, 0.0)
        for value in self.argmax:
            check_whole("argmax", value, 1)

    def steps(self, subject: Subject) -> int:
        """N, the steps of the recorded run.

        Raises:
            ValueError: not exactly one looped block.
        """
        blocks = self._fixed(subject).config.loop_blocks()
        steps = self.max_loops or (blocks[0].max_count if blocks else 1)
        self.most(subject, steps)  # refuses what cannot be replayed
        return steps

    def most(self, subject: Subject, steps: int) -> LoopLlamaForCausalLM:
        """The view that always runs ``steps`` steps; raises as :meth:`steps`."""
        loop = None if self.loop is None else {**self.loop, **_FIXED, **self.slots(subject, steps)}
        return max_loop_view(subject.view(loop), {}, steps)

    def slots(self, subject: Subject, steps: int) -> dict[str, int]:
        """One KV slot instead of the model's, as loop fields, where a layer has more than the floor allows; else none.

        Every slot must be written in every pass, so more would lift the floor, and rules that hold early would all seem to
        stop at it. One, not just fewer: with two, odd and even steps would each read an entry of their own. What was asked
        for stays.
        """
        blocks = self._fixed(subject).config.loop_blocks()
        if len(blocks) != 1 or "virtual_layer_count" in self.loop:
            return {}
        floor = min(self.floor or blocks[0].floor, steps)
        return {"virtual_layer_count": 1} if blocks[0].slots > floor else {}

    def _fixed(self, subject: Subject) -> LoopLlamaForCausalLM:
        """The model with these settings and no rule that stops it: rules are what is tried out here."""
        return subject.view(None if self.loop is None else {**self.loop, **_FIXED})

    def points(self, view: LoopLlamaForCausalLM, steps: int) -> list[tuple[str, float]]:
        """Every (policy, threshold) that a model has, fixed counts first."""
        counts = [("count", float(r)) for r in range(1, steps + 1)]
        lacking = {"count"} if view.model.gate_of(0) is not None else {"count", "gate"}
        rules = [name for name in POLICIES if name not in {*lacking, *PUBLISHED_CRITERIA}]
        own = [(name, float(x)) for name in rules for x in getattr(self, name)]
        return counts + own + ([*PUBLISHED_CRITERIA.items()] if self.published else [])


def _cells(subject: Subject, params: ExitParams) -> int:
    steps = params.steps(subject)
    return len(params.points(params.most(subject, steps), steps))


def _work(subject: Subject, params: ExitParams) -> Work:
    """One recorded run, every step read twice; with a check, a run a point that the model can run by itself."""
    steps, reach = params.steps(subject), params.reach(subject)
    view = params.most(subject, steps)
    shape, tried = subject.shape(view), params.points(view, steps)
    read = reach.cached if params.unit == "token" else reach.whole
    held = None if params.unit == "pass" else min(reach.batch, reach.windows)
    run = read(shape) + reach.heads(shape, 2 * steps + 1) + reach.states(shape, held=held)
    run += Work(layer_tokens=steps * reach.tokens * shape.loops[-1].coda)
    points = len(tried)
    replay = Work(python=2e-8 * points * reach.tokens * steps, kept=points * (ROW_BYTES + 8 * reach.tokens))
    scores = SCORES + params.published * PUBLISHED_SCORES
    found = run + replay + reach.text + Work(kept=reach.tokens * steps * scores * SCORE_BYTES)
    if not params.check:
        return found
    real = sum(policy == "count" or POLICIES[policy].setting is not None for policy, _ in tried)
    return found + read(shape).times(real) + Work(kept=4 * reach.tokens * shape.vocab)


def _run(subject: Subject, params: ExitParams) -> Iterator[Row | None]:
    steps = params.steps(subject)
    most = params.most(subject, steps)
    floor = params.floor or own_floor(most)
    most.with_loop(**(settings_of("cosine", 1.0, floor, steps) or {}))  # refuses what could not be run
    text = params.windows(subject)
    kept_numbers = len(text.text) * most.config.vocab_size
    if params.check and kept_numbers > MOST_KEPT:
        raise FieldError("limit_tokens", params.limit_tokens, "check_keeps", n=kept_numbers, most=MOST_KEPT)
    windows = [part.ids.to(most.device) for part in text.batches(params.batch, unpadded=True)]
    kept: list[list[Tensor]] = [[] for _ in windows]
    recorded = []
    for rows, own in zip(windows, kept, strict=True):
        for part in record(most, rows, params.unit, own if params.check else None, params.published):
            recorded.append(part)
            yield None
    run = ExitRun.join(recorded)
    points = params.points(most, steps)
    stops = [exit_steps(run, policy, threshold, floor) for policy, threshold in points]
    found = [outcome(run, stop) for stop in stops]
    fronts = [pareto([x["saved"] for x in found], [x[paid] for x in found]) for paid in ("kl_mean", "changed")]
    for (policy, threshold), stop, result, by_kl, by_change in zip(points, stops, found, *fronts, strict=True):
        real: Row = dict.fromkeys(REAL)
        settings = settings_of(policy, threshold, floor, steps) if params.check else None
        if settings is not None:
            view = most.with_loop(**settings)
            parts = []
            for rows, own in zip(windows, kept, strict=True):
                parts.append(real_run(view, rows, params.unit, own))
                yield None
            real = _really(RealRun.join(parts), stop)
        yield {
            "policy": policy,
            "threshold": threshold,
            "floor": 1 if policy == "count" or POLICIES[policy].alone else floor,
            "max_loops": steps,
            **result,
            "pareto_kl": by_kl,
            "pareto_changed": by_change,
            **real,
        }


def _really(real: RealRun, stop: Any) -> Row:
    """What running said, and how many tokens ran as many loops as the replay ``stop`` ``[M]`` has."""
    return {
        "real_loops": float(real.loops.mean()),
        "real_agrees": float((real.loops == stop).mean()),
        "real_changed": float(real.changed.mean()),
        "real_kl_mean": float(real.kl_paid.mean()),
        "real_kl_worst": float(real.kl_paid.max()),
    }


REAL = ("real_loops", "real_agrees", "real_changed", "real_kl_mean", "real_kl_worst")

_KL = "KL(p_N || p) with p_N after all N steps"
_REALLY = "really run, every token stopping by the rule"
_ZH_REALLY = "真正运行，每个词元都按规则停止"
COLUMNS = tuple(
    column(*told)
    for told in (
        ("policy", "", "Policy: what is watched; count is a fixed number of steps", "策略：观察什么；count 为固定步数"),
        (
            "threshold",
            "",
            "Threshold: where it stops (steps for count and argmax)",
            "阈值：在何处停止（count 与 argmax 为步数）",
        ),
        ("floor", "", "Floor: first step that may stop", "下限：最早允许停止的步"),
        ("max_loops", "", "Most: steps N of the recorded run", "上限：所记录运行的步数 N"),
        ("mean_loops", "", "Loops: mean over tokens", "循环数：各词元的平均"),
        ("saved", "", "Saved: share of the N steps not run", "节省：N 步中未运行的比例"),
        (
            "changed",
            "",
            "Changed: share of tokens after which the likeliest next token is another",
            "改变：最可能的下一词元变了的词元比例",
        ),
        ("kl_mean", "nats", f"KL paid: mean {_KL}", "付出的 KL：平均 KL(p_N || p)，p_N 为全部 N 步之后"),
        ("kl_worst", "nats", "Worst KL: of a single token", "最大 KL：单个词元"),
        (
            "pareto_kl",
            "",
            "Front, KL: no other point saves more for less KL",
            "前沿（KL）：没有别的点节省更多而 KL 更低",
        ),
        (
            "pareto_changed",
            "",
            "Front, changes: no other point saves more for fewer changes",
            "前沿（改变）：没有别的点节省更多而改变更少",
        ),
        ("real_loops", "", f"Loops, real: {_REALLY}", f"循环数（真实）：{_ZH_REALLY}"),
        (
            "real_agrees",
            "",
            "Same loops: share of tokens that really ran as many loops as replayed",
            "循环数一致：真实循环数与重放一致的词元比例",
        ),
        ("real_changed", "", f"Changed, real: {_REALLY}", f"改变（真实）：{_ZH_REALLY}"),
        ("real_kl_mean", "nats", f"KL paid, real: {_REALLY}", f"付出的 KL（真实）：{_ZH_REALLY}"),
        ("real_kl_worst", "nats", f"Worst KL, real: {_REALLY}", f"最大 KL（真实）：{_ZH_REALLY}"),
    )
)

WORDS = {
    "en": {
        "question": "When could each token have stopped looping, and what would that have cost?",
        "how": "The text is run once with all N steps. Every rule is then replayed on that one run: the first step (from "
        "the floor on) at which it holds, the mean over a pass's tokens deciding for all of them. What a token pays is "
        "KL(p_N || p_r): p_r is what the model really says when it stops after r (the state through the layers after the "
        "block), p_N what it says after all steps. cosine: cos(s_r, s_{r-1}). KL: KL(p_{r-1} || p_r). rel_delta: "
        "|Δ_r|/|s_r|, Δ_r = s_r - s_{r-1} (both in arXiv 2502.05171). acceleration: |Δ_r - Δ_{r-1}|/|s_r|, at two steps in "
        "a row (arXiv 2509.23314, eq. 5, whose threshold is on |Δ_r - Δ_{r-1}| itself; divided by |s_r| here, so that one "
        "threshold fits models of any scale). argmax: the likeliest token stays. entropy: |H(p_r) - H(p_{r-1})|. These p "
        "are read directly from the state, as the model's own rules do. gate, of models that have one: how likely it is to have stopped by "
        "step r (arXiv 2510.25741), each token by itself and without a floor (the rules huginn_*, when asked for, are arXiv 2502.05171's own, of the last token's words); as published all loops run and it chooses among them, so "
        "its steps are replayed exactly, and what it pays too where no layers follow the block. A model with more KV slots a layer (virtual_layer_count) than "
        "the floor is run with one, unless slots were asked for: all of them must be written in every pass, so they would be "
        "the floor. "
        "What a replay can know: a whole pass (unit pass) is replayed exactly, in every cache mode. A token (unit token) is "
        "replayed exactly given that all tokens before it ran N steps; when they stop early too, their keys and values "
        "differ, and so may the result (exact even then only with merge first and no layers after the block). Turn check "
        "on to really run count, cosine, KL and gate and see the difference.",
        "cost": "One run with all N steps, plus what the model says after each of them: 2N + 1 readings of the output head a "
        "token. Rules and thresholds cost nothing more; check runs the text once more for each count, cosine, KL and gate row.",
    },
    "zh": {
        "question": "每个词元本可以在何时停止循环，代价是什么？",
        "how": "文本以全部 N 步运行一次，然后在这一次运行上重放每条规则：从下限起规则首次成立的那一步，一次前向中由各词元的平均值共同决定。"
        "词元付出的是 KL(p_N || p_r)：p_r 是模型在第 r 步之后停止时真正会说的（状态经过块之后的各层），p_N 是全部步数之后所说的。"
        "cosine：cos(s_r, s_{r-1})。KL：KL(p_{r-1} || p_r)。rel_delta：|Δ_r|/|s_r|，Δ_r = s_r − s_{r−1}（两者见 arXiv 2502.05171）。"
        "acceleration：|Δ_r − Δ_{r−1}|/|s_r|，须连续两步成立（arXiv 2509.23314 式 5，原文阈值直接用于 |Δ_r − Δ_{r−1}|；这里除以 |s_r|，"
        "使同一阈值适用于任何尺度的模型）。argmax：最可能的词元不变。entropy：|H(p_r) − H(p_{r−1})|。这些 p 与模型自己的规则一样直接由状态读出。"
        "gate（有出口门的模型）：到第 r 步为止门说停的累计概率（arXiv 2510.25741），每个词元各自决定，没有下限（若要求，huginn_* 是 arXiv 2502.05171 自己的规则，看最后一个词元的预测）；按发表的做法所有循环都会运行，门只在其中选择，因此所选的步重放得精确；若块后没有层，代价也是。"
        "若模型每层的 KV 槽数（virtual_layer_count）多于下限且未另行指定，则以一个槽运行：每次前向必须写满所有槽，否则槽数就成了下限。"
        "重放能知道什么：整次前向（unit pass）的重放在任何缓存模式下都精确。单个词元（unit token）的重放在之前的词元都运行了 N 步的前提下精确；"
        "若它们也提前停止，其键和值会不同，结果也可能不同（此时只有在合并方式为 first 且块后没有层时才精确）。打开 check 可真正运行 count、cosine、KL 与 gate 并看到差别。",
        "cost": "一次全部 N 步的运行，外加每步之后模型会说什么：每个词元读 2N + 1 次输出头。规则和阈值不再增加开销；check 对每个 count、cosine、KL 与 gate 行再运行一遍文本。",
    },
}

_PLOT = {
    "en": {
        "x": "share of loop steps saved",
        "y": "mean KL paid, nats (≥ 1e-8)",
        "front": "front",
        "hover": "{policy} at {threshold:g}<br>{loops:.2f} loops<br>saved {saved:.1%}<br>changed {changed:.1%}<br>KL {kl:.3g} nats",
    },
    "zh": {
        "x": "节省的循环步比例",
        "y": "付出的 KL 平均值，nat（≥ 1e-8）",
        "front": "前沿",
        "hover": "{policy}，阈值 {threshold:g}<br>{loops:.2f} 步<br>节省 {saved:.1%}<br>改变 {changed:.1%}<br>KL {kl:.3g} nat",
    },
}
LOWEST = 1e-8


def plot(table: pd.DataFrame, lang: str) -> go.Figure:
    """Loops saved against KL paid: a curve a policy, and the front."""
    import plotly.graph_objects as go

    from loopviz.figures import table_figures, theme

    if table.empty:
        return table_figures.empty(lang)
    words, traces = _PLOT[lang], []
    for index, policy in enumerate(name for name in POLICIES if name in set(table["policy"])):
        rows = table[table["policy"] == policy].sort_values("saved")
        hover = [
            words["hover"].format(
                policy=policy, threshold=x.threshold, loops=x.mean_loops, saved=x.saved, changed=x.changed, kl=x.kl_mean
            )
            for x in rows.itertuples()
        ]
        traces.append(
            go.Scatter(
                x=rows["saved"].tolist(),
                y=rows["kl_mean"].clip(lower=LOWEST).tolist(),
                mode="lines+markers",
                name=policy,
                text=hover,
                hovertemplate="%{text}<extra></extra>",
                **table_figures.series(index),
            )
        )
    front = table[table["pareto_kl"].astype(bool)].sort_values("saved")
    ring = {"symbol": "circle-open", "size": 15, "color": theme.INK, "line": {"width": 1.5}}
    x, y = front["saved"].tolist(), front["kl_mean"].clip(lower=LOWEST).tolist()
    traces.append(go.Scatter(x=x, y=y, mode="markers", name=words["front"], marker=ring, hoverinfo="skip"))
    axes: dict[str, Any] = {"xaxis": {"tickformat": ".0%"}, "yaxis": {"type": "log", "exponentformat": "power"}}
    return table_figures.figure(traces, x=words["x"], y=words["y"], **axes)


def settings(subject: Subject, row: Row, params: ExitParams) -> dict[str, Any] | None:
    """The loop fields of the model that stops as a row's rule does; None for a rule that models do not have."""
    found = settings_of(row["policy"], row["threshold"], row["floor"], row["max_loops"])
    return None if found is None else {**params.loop, **params.slots(subject, row["max_loops"]), **found}


_HEADLINE = {
    "en": {
        "saves": "{policy} at {threshold} stops after {loops} of {most} loops on average: {saved} saved, {changed} of the words change{also}.",
        "none": "No rule tried saves a loop: every token runs all {most}.",
    },
    "zh": {
        "saves": "{policy}（阈值 {threshold}）平均在 {most} 步中的第 {loops} 步停止：节省 {saved}，{changed} 的词改变{also}。",
        "none": "试过的规则都没有节省循环：每个词元都运行全部 {most} 步。",
    },
}
FEW_CHANGED = 0.02  # of the words: a rule that changes more is not called a saving while another changes less


def headline(rows: Sequence[Row], lang: str) -> str:
    """The rule that saves most among those that change few words; if all change many, the one that changes fewest."""
    found = known(rows, "saved", "changed", "mean_loops", "threshold")
    if not found:
        return ""
    saving = [row for row in found if row["saved"] > 0]
    few = [row for row in saving if row["changed"] <= FEW_CHANGED]
    if not saving:
        return _HEADLINE[lang]["none"].format(most=max(row["max_loops"] for row in found))
    if few:
        best = max(few, key=lambda row: (row["saved"], -row["changed"]))
    else:
        best = min(saving, key=lambda row: (row["changed"], -row["saved"]))
    said = {"loops": number(best["mean_loops"]), "saved": percent(best["saved"]), "changed": percent(best["changed"])}
    ties = [row for row in saving if all(same(row[name], best[name]) for name in ("saved", "changed"))]
    said["also"] = TIED[lang] if len(ties) > 1 else ""
    threshold = f"{best['threshold']:g}"  # as it is set: 0.9999 is not 1
    return _HEADLINE[lang]["saves"].format(policy=best["policy"], threshold=threshold, most=best["max_loops"], **said)


# Fixed, or swept, whatever is asked for.
VARIES = (
    "loop_strategy",
    "loop_count",
    "min_loop_count",
    "convergence_criterion",
    "cosine_threshold",
    "kl_threshold",
    "criterion_threshold",
    "exit_selection",
    "exit_threshold",
)
# Some seconds with a model of this project, on the story that the Lab offers.
FIRST = {"limit_tokens": 128, "window": 64}
register(
    Task(
        NAME,
        ExitParams,
        COLUMNS,
        _cells,
        _run,
        titled(TITLE, WORDS),
        plot,
        settings,
        first=FIRST,
        headline=headline,
        asks=("max_loops",),
        work=_work,
        varies=VARIES,
    )
)
