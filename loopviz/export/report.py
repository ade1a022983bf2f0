"""A run as one HTML file that works offline: its text, every panel, and exactly how it was made.

The figures are the panels' own (:mod:`loopviz.panels`), drawn by a Plotly.js that is in the file
(:mod:`loopviz.figures.plotlyjs`; compressed, 0.7 MB, or 2 MB where a figure needs all of it). The file can also replay the run: it
holds the panels' patches, so a reader sees it as it was after any token. Nothing is fetched, and the file forbids itself to fetch anything. Its formulas are MathML. Whatever
comes from the trace is escaped: a trace may be a stranger's.
"""

from __future__ import annotations

import base64
import functools
import gzip
import html
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from loopviz import outputs
from loopviz.figures import labels, plotlyjs, theme, toolbar
from loopviz.figures.edits import pack
from loopviz.panels import PANELS, Focus, figure_json
from loopviz.panels.kit import formulas
from loopviz.panels.ttt import TTT_PANELS, TTTFocus
from loopviz.paths import ASSETS, WEB
from loopviz.trace import Frame, Trace, changes_of
from loopviz.version import version

# unsafe-eval: parts of Plotly build functions from text. Neither can reach a network under `default-src 'none'`.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "LoopViz report",
        "made": "{model} · run of {created} · {prompt} prompt tokens and {new} more, {end}",
        "end_eos": "until the model ended its text",
        "end_length": "as many as asked for",
        "end_context": "until the context was full",
        "end_stopped": "until it was stopped",
        "text": "Text, tinted by the loops each token took",
        "legend": "loops a token took",
        "plain": "no looped block",
        "unread": "dashed: chosen, not read by the model",
        "token": "Token {index} “{text}” · {loops} loops, stopped by {why} · log p of what came next {logp} nats",
        "token_plain": "Token {index} “{text}” · log p of what came next {logp} nats",
        "replay": "Replay",
        "pause": "Pause",
        "all": "Whole run",
        "showing": "The whole run is shown. Drag the slider, click a token, or press Replay to see it as it was after any "
        "token.",
        "showing_token": "The whole run is shown, token {token} selected. Drag the slider, click a token, or press Replay "
        "to see the run as it was after any token.",
        "before": "Before the first token",
        "slider": "Tokens read",
        "waiting": "The figure is drawn when it comes into view (this needs JavaScript; the file brings all of it).",
        "failed": "The figure could not be drawn: this browser is too old for it, or does not run the scripts of files.",
        "how": "How this is computed",
        "units": "Units",
        "source": "Source",
        "cost": "What recording it costs",
        "missing": "Not in this report, because this run did not record what they show: {names}.",
        "settings": "How this run was made",
        "prompt": "Prompt",
        "sampling": "Choosing words, recording",
        "blocks": "Looped blocks",
        "block": "block {block}",
        "config": "Loop configuration",
        "changed": "Changed from token {t} on",
        "shape": "Model",
        "versions": "Versions",
        "offline": "This file is complete: it fetches nothing, and works without a network.",
    },
    "zh": {
        "title": "LoopViz 报告",
        "made": "{model} · 运行于 {created} · 提示词 {prompt} 个词元，之后 {new} 个，{end}",
        "end_eos": "直到模型结束文本",
        "end_length": "达到要求的数量",
        "end_context": "直到上下文已满",
        "end_stopped": "直到被停止",
        "text": "文本，按每个词元的循环次数着色",
        "legend": "词元的循环次数",
        "plain": "没有循环块",
        "unread": "虚线：已选出，模型尚未读入",
        "token": "词元 {index}“{text}” · 循环 {loops} 次，停止原因：{why} · 后一个词的 log p 为 {logp} 奈特",
        "token_plain": "词元 {index}“{text}” · 后一个词的 log p 为 {logp} 奈特",
        "replay": "回放",
        "pause": "暂停",
        "all": "整个运行",
        "showing": "当前显示整个运行。拖动滑块、点击词元或按“回放”，可查看读入任一词元之后的样子。",
        "showing_token": "当前显示整个运行，并选中词元 {token}。拖动滑块、点击词元或按“回放”，可查看读入任一词元之后的样子。",
        "before": "第一个词元之前",
        "slider": "已读词元数",
        "waiting": "图表在进入视野时绘制（需要 JavaScript，所需内容都在本文件中）。",
        "failed": "无法绘制图表：浏览器版本过旧，或不运行文件中的脚本。",
        "how": "如何计算",
        "units": "单位",
        "source": "来源",
        "cost": "记录它的代价",
        "missing": "以下面板不在本报告中，因为本次运行没有记录它们所需的内容：{names}。",
        "settings": "本次运行的设置",
        "prompt": "提示词",
        "sampling": "选词与记录",
        "blocks": "循环块",
        "block": "块 {block}",
        "config": "循环配置",
        "changed": "从词元 {t} 起更改",
        "shape": "模型",
        "versions": "版本",
        "offline": "本文件是完整的：不从网络获取任何内容，离线可用。",
    },
}


def to_html(
    trace: Trace, focus: Focus | TTTFocus | None = None, *, panels: Iterable[str] | None = None, replay: bool = True
) -> str:
    """The report of ``trace``.

    Args:
        focus: what the figures show when the report is opened, and its language; None: the whole run, in English.
        panels: names of the panels to include (None: all that this run recorded enough for).
        replay: whether the reader can move through the run; without it the file is smaller.

    Raises:
        ValueError: a panel there is not.
    """
    focus = focus or focus_of(trace)
    chosen, missing = _panels(trace, panels)
    drawn = _data(trace, focus, chosen, replay)
    data = json.dumps(drawn, allow_nan=False, separators=(",", ":"))
    small = plotlyjs.enough(panel["figure"] for panel in drawn["panels"].values())
    words, lang = TEXTS[focus.lang], {"en": "en", "zh": "zh-Hans"}[focus.lang]
    shown = [_panel(name, panel, trace, focus) for name, panel in chosen.items()]
    body = [
        f"<header><h1>{words['title']}</h1><p class='soft'>{_made(trace, words)}</p></header><main>",
        _text(trace, words, focus.lang),
        f"<div class='grid'>{''.join(shown)}</div>",
        f"<p class='soft'>{_missing(missing, focus.lang)}</p>" if missing else "",
        _settings(trace, words),
        f"</main><footer><p>{words['offline']}</p></footer>",
        f"<script type='text/plain' id='lv-data'>{_pack(data.encode())}</script>",
        f"<script type='text/plain' id='lv-plotly'>{_plotly(small)}</script>",
        f"<script>{_script()}</script>",
    ]
    head = [
        "<meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{words['title']} · {_escape(trace.meta['model'])}</title>",
        f"<style>{_font()}{(WEB / 'report' / 'report.css').read_text(encoding='utf-8')}</style>",
    ]
    page = f"<!doctype html>\n<html lang='{lang}'><head>{''.join(head)}</head>\n<body>{''.join(body)}</body></html>\n"
    return page.encode("utf-8", "replace").decode()  # half a character cannot be in a file


def save(
    trace: Trace,
    path: str | os.PathLike[str],
    focus: Focus | TTTFocus | None = None,
    *,
    panels: Iterable[str] | None = None,
    replay: bool = True,
) -> None:
    """Write the report of ``trace`` (:func:`to_html`) to ``path``."""
    write(to_html(trace, focus, panels=panels, replay=replay), path)


def write(page: str, path: str | os.PathLike[str]) -> None:
    """Write a report's HTML to ``path``."""
    outputs.write(path, page.encode("utf-8"))


def is_ttt(trace: Trace) -> bool:
    """Whether it is a run of a TTT model, which has panels of its own."""
    return "ttt" in trace.meta


def focus_of(trace: Trace, lang: str = "en") -> Focus | TTTFocus:
    """The whole of a run, as it is looked at first."""
    return TTTFocus(lang=lang) if is_ttt(trace) else Focus(lang=lang)


def panels_of(trace: Trace) -> Mapping[str, ModuleType]:
    """The panels that there are of a run: those of loops, or those of a TTT model."""
    return TTT_PANELS if is_ttt(trace) else PANELS


def check_panels(names: Iterable[str] | None, known: Mapping[str, ModuleType] = PANELS) -> None:
    """ValueError when ``names`` has one that is no panel."""
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"panels: {unknown[0]!r} is no panel; there are {', '.join(known)}")


_IMPORT = re.compile(r'^import .* from "(\.[\w./]+)";\n', re.M)


@functools.cache
def _script() -> str:
    """The report's script with what it imports of the pages' scripts: a single file has no others beside it."""
    return f'(() => {{\n"use strict";\n{_inlined(WEB / "report" / "report.js", set())}}})();\n'


def _inlined(path: Path, known: set[Path]) -> str:
    """A script and, before it, whatever it imports that is not in `known`, as parts of one."""
    known.add(path)
    text = path.read_text(encoding="utf-8")
    beside = [(path.parent / address).resolve() for address in _IMPORT.findall(text)]
    before = "".join(_inlined(other, known) for other in beside if other not in known)
    return before + re.sub(r"^export ", "", _IMPORT.sub("", text), flags=re.M)


def _escape(text: Any) -> str:
    return html.escape(str(text), quote=True).replace("\r", "&#13;")  # as it stands, a browser reads it as a line feed


def _pack(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


@functools.cache
def _plotly(small: bool) -> str:
    """Plotly.js, packed: 0.7 MB where all figures are of kinds the small one draws, else 2 MB."""
    return _pack(plotlyjs.small() if small else plotlyjs.whole())


def _panels(trace: Trace, wanted: Iterable[str] | None) -> tuple[dict[str, ModuleType], list[str]]:
    """The panels to draw, and the names of those this run lacks something for."""
    known = panels_of(trace)
    names = list(known if wanted is None else wanted)
    check_panels(names, known)
    recorded = set(trace.meta["settings"].get("extras") or ())
    missing = [name for name in names if not set(getattr(known[name], "NEEDS", ())) <= recorded]
    return {name: known[name] for name in names if name not in missing}, missing


def _data(trace: Trace, focus: Focus | TTTFocus, panels: Mapping[str, ModuleType], replay: bool) -> dict[str, Any]:
    """What the script needs: each panel's figure, and from which edits it grew, a list a token."""
    words, made = TEXTS[focus.lang], {}
    for name, panel in panels.items():
        made[name] = {"figure": figure_json(panel.figure(trace, focus))}
        if replay:
            made[name] |= _growth(trace, panel, replace(focus, token=None))
    opening = words["showing"] if focus.token is None else words["showing_token"].format(token=focus.token)
    return {
        "panels": made,
        "replay": replay,
        "total": len(trace),
        "selected": None if focus.token is None else focus.selected(len(trace)),
        "templates": {page: theme.template(page) for page in theme.PAGES},
        "toolbar": toolbar.dictionary(focus.lang),
        "texts": {"play": words["replay"], "pause": words["pause"], "all": opening, "none": words["before"]},
    }


def _growth(trace: Trace, panel: ModuleType, focus: Focus | TTTFocus) -> dict[str, Any]:
    """The panel's empty figure, the edits each token brings, and its summary before the first and after each."""
    seen, ops = Trace(trace.meta), []
    empty = figure_json(panel.figure(seen, focus))
    said = [panel.summary(seen, focus)]
    for frame in trace.frames:
        ops.append(pack(panel.patch(seen, frame, focus)))
        seen.append(frame)
        said.append(panel.summary(seen, focus))
    return {"empty": empty, "ops": ops, "summaries": said}


def _made(trace: Trace, words: Mapping[str, str]) -> str:
    meta, end = trace.meta, (trace.frames[-1]["finish"] if trace.frames else None) or "stopped"
    read = len(trace)
    new = max(0, read + 1 - meta["prompt_tokens"]) if read else 0  # the last one chosen was not read
    return _escape(
        words["made"].format(
            model=meta["model"],
            created=meta["created"],
            prompt=meta["prompt_tokens"],
            new=new,
            end=words[f"end_{end}"],
        )
    )


def _text(trace: Trace, words: Mapping[str, str], lang: str) -> str:
    """The text, token by token, with the bar that moves through it."""
    colours = theme.tints_of(max((b["n_steps"] for b in frame["blocks"]), default=0) for frame in trace.frames)
    tokens = "".join(_token(frame, colours, words, lang) for frame in trace.frames)
    if trace.frames and trace.frames[-1]["finish"] != "eos":
        tokens += f"<span class='tok unread'>{_escape(trace.frames[-1]['next_text'])}</span>"
    swatches = "".join(
        f"<span class='swatch' style='--tint:{colour}'>{n}</span>"
        for n, colour in enumerate(colours, start=1)
        if colour
    )
    legend = f"{words['legend']} {swatches}" if colours else words["plain"]
    bar = (
        f"<div class='replay' hidden><button type='button'>{words['replay']}</button>"
        f"<input type='range' min='0' step='1' aria-label='{words['slider']}'>"
        f"<button type='button'>{words['all']}</button><output></output></div>"
    )
    return (
        f"<section><h2>{words['text']}</h2><div class='text'>{tokens}</div>"
        f"<div class='legend soft'>{legend} <span class='swatch unread'>{words['unread']}</span></div>{bar}</section>"
    )


def _token(frame: Frame, colours: list[str | None], words: Mapping[str, str], lang: str) -> str:
    loops = [block["n_steps"] for block in frame["blocks"]]
    most = min(max(loops, default=0), len(colours))
    tint = f" style='--tint:{colours[most - 1]}'" if most > 0 else ""
    reasons = dict.fromkeys(labels.stop_label(block["stop_reason"], lang) for block in frame["blocks"])
    logp = "–" if frame["next_logprob"] is None else f"{frame['next_logprob']:.3f}"
    said = words["token" if loops else "token_plain"].format(
        index=frame["index"],
        text=labels.plain(labels.show_token(frame["text"])),
        loops=" + ".join(map(str, loops)),
        why=labels.plain(", ".join(reasons)),
        logp=logp,
    )
    kinds = (
        ["tok"] + ["prompt"] * (frame["phase"] == "prompt") + ["newline"] * frame["text"].lstrip(" ").startswith("\n")
    )
    return (
        f"<span class='{' '.join(kinds)}' data-i='{frame['index']}' title='{_escape(said)}'{tint}>"
        f"{_escape(frame['text'])}</span>"
    )


def _panel(name: str, panel: ModuleType, trace: Trace, focus: Focus | TTTFocus) -> str:
    words, own = TEXTS[focus.lang], panel.TEXTS[focus.lang]
    rows = [(words[key], own[key]) for key in ("units", "source", "cost") if own.get(key)]
    said = "".join(f"<p><b>{label}</b> {_escape(value)}</p>" for label, value in rows)
    return (
        f"<article data-panel='{_escape(name)}'><h2>{_escape(own['title'])}</h2>"
        f"<p class='question'>{_escape(own['question'])}</p>"
        f"<p class='headline' aria-hidden='true'></p>"
        f"<div class='plot' role='img' aria-label='{_escape(own['title'])}' data-waiting='{words['waiting']}' "
        f"data-failed='{words['failed']}'></div>"
        f"<p class='summary'>{_escape(panel.summary(trace, focus))}</p>"
        f"<details open><summary>{words['how']}</summary><p>{_escape(own['how'])}</p>{formula(formulas.spoken(own['formula'], focus.lang))}{said}"
        "</details></article>"
    )


@functools.cache
def _font() -> str:
    """The font of formulas, in the file: a system may have none that can set them."""
    font = base64.b64encode((ASSETS / "fonts" / "math.woff2").read_bytes()).decode()
    return f'@font-face {{ font-family: "LoopViz Math"; src: url(data:font/woff2;base64,{font}) format("woff2"); }}\n'


@functools.cache
def formula(tex: str) -> str:
    """``tex`` (KaTeX) as MathML, a piece for each part set apart by a wide space, so that lines can be broken there.

    A part the converter does not know everything of stands as its own source.
    """
    parts = re.split(r"\\q?quad(?![a-zA-Z])", tex)
    if any(part.count("{") != part.count("}") for part in parts):  # the space was inside something
        parts = [tex]
    return f"<div class='formula'>{''.join(_mathml(part.strip()) for part in parts if part.strip())}</div>"


_FENCES = re.compile(r"<mo>(\||&#x0(?:2016|2308|2309|230A|230B|27E8|27E9|007C);)</mo>")  # ‖ ⌈ ⌉ ⌊ ⌋ ⟨ ⟩ |


def _mathml(tex: str) -> str:
    from latex2mathml.converter import convert

    try:
        made = convert(
            re.sub(r"\\arg(?![a-zA-Z])", r"\\mathrm{arg}", tex), display="block"
        )  # the one operator it lacks
    except Exception:  # it raises errors of many kinds
        made = "\\"
    made = _FENCES.sub(
        r'<mo stretchy="false">\1</mo>', made
    )  # as in TeX: what is to grow is written with \left and \right
    # a command it does not know comes through as its own name
    return f"<code>{_escape(tex)}</code>" if "\\" in made or "&#x0005C;" in made else made


def _missing(names: list[str], lang: str) -> str:
    return TEXTS[lang]["missing"].format(names=", ".join(_escape(PANELS[name].TEXTS[lang]["title"]) for name in names))


def _shown(value: Any) -> str:
    """A setting's value as JSON writes it, so that text and number cannot be confused; whole numbers stay readable."""
    return _escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _rows(values: Mapping[str, Any]) -> str:
    rows = [f"<tr><th><code>{_escape(name)}</code></th><td>{_shown(value)}</td></tr>" for name, value in values.items()]
    return f"<table>{''.join(rows)}</table>"


def _settings(trace: Trace, words: Mapping[str, str]) -> str:
    meta = trace.meta
    parts = [(words["sampling"], _rows(meta["settings"]))]
    for i, block in enumerate(meta["blocks"]):
        parts.append((f"{words['blocks']}: {words['block'].format(block=i)}", _rows(block)))
    if is_ttt(trace):
        told = ("kind", "mini_batch", "base_lr", "state_bytes", "inner_lr_scale", "changes")
        parts.append(("TTT", _rows({name: meta["ttt"][name] for name in told})))
    else:
        parts.append((words["config"], _rows(meta["loop"])))
    parts += [(words["changed"].format(t=change["index"]), _rows(change["loop"])) for change in changes_of(meta)]
    parts += [
        (words["shape"], _rows({"model": meta["model"], **meta["shape"], "prompt_tokens": meta["prompt_tokens"]})),
        (words["versions"], _rows({**meta["versions"], "created": meta["created"], "report": version()})),
    ]
    columns = "".join(f"<div><h3>{title}</h3>{table}</div>" for title, table in parts)
    return (
        f"<section><h2>{words['settings']}</h2><h3>{words['prompt']}</h3><pre>{_escape(meta['prompt'])}</pre>"
        f"<div class='columns'>{columns}</div></section>"
    )
