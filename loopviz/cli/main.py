"""LoopViz without a browser: ``python -m loopviz run``, ``export``, and (in ``loopviz.train``) ``train``, ``evaluate``, ``gate``,
(in ``loopviz.lab``) ``eval``, ``sweep``, (in ``loopviz.anatomy``) ``anatomy``, (in ``loopviz.lessons``) ``lesson``,
(in ``loopviz.store``) ``store``, (in ``loopviz.train``) ``teach``, ``merge``.

The generated text goes to stdout, everything else (progress, the closing table, errors) to stderr. Exit codes: 0 done;
2 refused, or could not be written (one line says why); 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by a terminal that was
closed (what was made until then is still summed up and saved); 1 cells of a sweep failed, or a bug of LoopViz's.

Heavy imports wait until the arguments are known to be well-formed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loopviz
from loopviz import imports, outputs, signals
from loopviz.cli import anatomy, gate, lesson, precision, store, teach
from loopviz.cli import measure as measuring
from loopviz.cli import train as training
from loopviz.cli.beams import OF_ARTICLE, check_beams, run_beams
from loopviz.cli.options import (
    add_adapter,
    add_import,
    add_machine,
    add_precision,
    idle_because,
    load,
    loop_options,
    option,
    path,
    usual_precision,
)
from loopviz.cli.ttt import is_ttt, run_ttt
from loopviz.loop_fields import NAMES
from loopviz.machine import UsageError, check_threads
from loopviz.prompt_templates import ARTICLE_BEAMS, ARTICLE_SAMPLING, TEMPLATES, template_of, written
from loopviz.text_file import read_text
from loopviz.version import version

if TYPE_CHECKING:
    from loopviz.model.checkpoints.load import LoadedCheckpoint
    from loopviz.trace import Trace
    from loopviz.trace.schema import BlockMeta

DEFAULT_MODEL = "smollm2-135m-instruct"
COMMANDS = (
    "run",
    "export",
    "train",
    "evaluate",
    *measuring.COMMANDS,
    *anatomy.COMMANDS,
    *gate.COMMANDS,
    *lesson.COMMANDS,
    *precision.COMMANDS,
    *store.COMMANDS,
    *teach.COMMANDS,
)
SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "seed")
# A terminal must show what a model says, not obey it.
CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def change(text: str) -> tuple[int, str, Any]:
    """``40:loop_count=8`` as (40, "loop_count", 8)."""
    token, colon, setting = text.partition(":")
    name, equals, value = (part.strip() for part in setting.partition("="))
    name = name.replace("-", "_")
    if not (colon and equals and token.strip().isdecimal() and name in NAMES):
        raise argparse.ArgumentTypeError(f"{text!r}: write the token, a loop setting and its value, as 40:loop_count=8")
    try:
        return int(token), name, loop_options()[name][0](value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is no value of {name}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loopviz", description=loopviz.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"loopviz {version()}")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser(
        "run",
        help="continue a prompt with a looped model and say how its loops ran",
        epilog="arrows-loop answers where a chain of arrows ends: --model arrows-loop --prompt 'b>c f>a a>b c>d f?'",
    )
    run.add_argument("--prompt", required=True, help="the text to continue; - reads it from stdin")
    told = f"named model, Hub id, folder or GGUF file (default: what --adapter says, or {DEFAULT_MODEL})"
    run.add_argument("--model", help=told)
    add_adapter(run)
    add_precision(run, chosen=True)
    add_machine(run)
    run.add_argument("--save", metavar="FILE", type=path, help="save the trace of the run")
    loop = run.add_argument_group("loops", "with several blocks, one value for all or one a block: 4,6")
    for name, (kind, text) in loop_options().items():
        loop.add_argument(option(name), type=kind, default=None, metavar="X", help=text)
    told = "change a loop setting when this token is read: 40:loop_count=8 (may be given several times)"
    loop.add_argument("--change", type=change, action="append", default=[], metavar="TOKEN:SETTING=X", help=told)
    how = run.add_argument_group("sampling and recording")
    how.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens to add at most (default: 64)")
    how.add_argument(
        "--sample", dest="do_sample", action="store_true", help="draw tokens instead of taking the likeliest"
    )
    how.add_argument("--temperature", type=float, metavar="X", help="with --sample (default: 1)")
    how.add_argument("--top-k", type=int, metavar="N", help="with --sample: keep the N likeliest tokens; 0 keeps all")
    how.add_argument("--top-p", type=float, metavar="X", help="with --sample: keep the likeliest that reach X together")
    how.add_argument(
        "--min-p", type=float, metavar="X", help="with --sample: keep those at least X times as likely as the best"
    )
    how.add_argument("--seed", type=int, metavar="N", help="with --sample (default: 0)")
    how.add_argument("--repetition-penalty", type=float, metavar="X", help="above 1: repeat less (default: 1)")
    told = "TTT models: factor on the inner learning rate; 0: nothing is learned while it reads (default: 1)"
    how.add_argument("--inner-lr", type=float, metavar="X", help=told)
    told = (
        "how the prompt is put: none, as it is; chat, in the model's own chat template; alpaca or vicuna, which any model reads "
        "and only one that was taught it answers well; then the answer alone is printed (default: none)"
    )
    how.add_argument("--template", choices=TEMPLATES, help=told)
    how.add_argument("--input", metavar="TEXT", help="with --template alpaca: what the instruction is about")
    how.add_argument("--chat", action="store_true", help="the same as --template chat")
    told = (
        "article: draw by the numbers that the article on LLaMA gives for Alpaca (temperature 1.5, top-p 0.8, top-k 50, 256 tokens); "
        f"its own call draws nothing, but searches over {ARTICLE_BEAMS} beams, which --beams {ARTICLE_BEAMS} beside it does; options beside it "
        "go before it"
    )
    how.add_argument("--preset", choices=("article",), help=told)
    told = (
        "search over N texts at once, as transformers' generate(num_beams=N) does, and print the likeliest; the text alone: nothing is "
        "drawn, recorded or saved"
    )
    how.add_argument("--beams", type=int, metavar="N", help=told)
    how.add_argument("--no-record", action="store_true", help="loop counts only: no per-step numbers, no states")
    how.add_argument(
        "--extras",
        type=lambda text: tuple(part.strip() for part in text.split(",")),
        metavar="X",
        help="record more of every step, each at a cost: exit, keys, attention, or several with commas",
    )
    how.add_argument("--top-tokens", type=int, metavar="N", help="likeliest tokens to record of each step (default: 5)")

    export = commands.add_parser("export", help="turn a saved trace into tables, JSON or a report")
    export.add_argument("file", type=path, help="a trace saved by run --save")
    export.add_argument("--csv", metavar="DIR", type=path, help="write a CSV file a table into this folder")
    export.add_argument("--parquet", metavar="DIR", type=path, help="write a Parquet file a table into this folder")
    export.add_argument("--json", metavar="FILE", type=path, help="write everything as one JSON file")
    panel = "write what a panel draws; the file's ending, .csv or .parquet, says how (may be given several times)"
    export.add_argument("--panel", metavar=("NAME", "FILE"), nargs=2, action="append", default=[], help=panel)
    export.add_argument("--html", metavar="FILE", type=path, help="write a report: one page that works offline")
    told = "write Python that makes the run again: the library's call with its very settings"
    export.add_argument("--python", metavar="FILE", type=path, help=told)
    told = "write a Jupyter notebook (.ipynb) that makes the run again, loads its trace and draws three panels"
    export.add_argument("--notebook", metavar="FILE", type=path, help=told)
    export.add_argument(
        "--model", metavar="NAME", help="with --python, --notebook: what to load, if not as the trace says"
    )
    told = "language of the report and the notebook (default: en)"
    export.add_argument("--lang", default="en", choices=("en", "zh"), help=told)
    add_import(export)

    training.add_parsers(commands)
    measuring.add_parsers(commands)
    anatomy.add_parsers(commands)
    gate.add_parsers(commands)
    lesson.add_parsers(commands)
    precision.add_parsers(commands)
    store.add_parsers(commands)
    teach.add_parsers(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    _open_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="replace")  # a terminal that cannot show a character shows that it cannot
    try:
        with signals.terminating():
            code = _command(arguments)
            with outputs.naming("stdout"):
                sys.stdout.flush()  # what it has against that is told, and not when Python ends
            return code
    except BrokenPipeError:
        # The reader of stdout is gone (| head): nobody is left to tell. Python would complain once more at exit.
        _mute_stdout()
        return 0
    except KeyboardInterrupt as error:
        return signals.exit_code(error)
    except (ValueError, OSError, MemoryError, OverflowError) as error:
        return _refused(" ".join(str(error).split()) or type(error).__name__)
    except RuntimeError as error:
        if not _is_memory(error):
            raise
        return _refused(
            f"not enough memory ({' '.join(str(error).split())[:200]}); a smaller batch or model needs less"
        )


def _command(arguments: list[str]) -> int:
    for argument in arguments:
        if re.fullmatch(r"--[a-z-]+=--", argument):  # argparse makes an empty list of it
            raise UsageError(f"{argument}: -- is no value; leave the option out")
    modules = imports.named(arguments)
    if modules and arguments[0] in measuring.COMMANDS:
        from loopviz.lab import TASKS  # LoopViz's own names are taken before anybody else's

        assert TASKS
    imports.load(modules)
    options = _parser().parse_args(arguments)
    own = {
        "run": _run,
        "export": _export,
        **measuring.COMMANDS,
        **anatomy.COMMANDS,
        **gate.COMMANDS,
        **lesson.COMMANDS,
        **precision.COMMANDS,
        **store.COMMANDS,
        **teach.COMMANDS,
    }
    return own.get(options.command, training.run)(options)


def _refused(text: str) -> int:
    """One line on stderr, and the exit code that goes with it."""
    print(f"loopviz: {text}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _mute_stdout()
    return 2


def _is_memory(error: RuntimeError) -> bool:
    """Torch speaks of memory in RuntimeErrors of its own."""
    told = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")
    return any(part in str(error) for part in told)


def _open_streams() -> None:
    """Standard streams that the caller has closed (`>&-`) lead nowhere: else the next file opened would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        nowhere = open(os.devnull, "w" if number else "r", encoding="utf-8")  # noqa: SIM115  for as long as we run
        setattr(sys, name, nowhere)


def _mute_stdout() -> None:
    """Nothing more goes to a stdout that does not take it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _export(options: argparse.Namespace) -> int:
    again = ("python", "notebook")
    wanted = (
        options.csv,
        options.parquet,
        options.json,
        options.html,
        options.python,
        options.notebook,
        *options.panel,
    )
    if not any(wanted):
        raise UsageError(
            "export: nothing to write; give --csv DIR, --parquet DIR, --json FILE, --panel, --html FILE, --python FILE or "
            "--notebook FILE"
        )
    if options.model is not None and not any(getattr(options, name) for name in again):
        raise UsageError("--model: no effect without --python or --notebook")
    for name in ("csv", "parquet"):
        if getattr(options, name) is not None:
            outputs.check_folder(getattr(options, name), option(name))
    files = [(option(name), getattr(options, name)) for name in ("json", "html", *again) if getattr(options, name)]
    for name, file in [*files, *(("--panel", Path(file)) for _, file in options.panel)]:
        outputs.check_file(file, name, inputs=[options.file])
    from loopviz.trace import file as io

    trace = io.load(options.file)
    if "ttt" in trace.meta:
        _check_ttt_export(options)
    if options.csv is not None:
        io.to_csv(trace, options.csv)
    if options.parquet is not None:
        io.to_parquet(trace, options.parquet)
    if options.json is not None:
        io.to_json(trace, options.json)
    if options.panel:
        from loopviz.export.panel_table import save_panel

        for name, file in options.panel:
            save_panel(trace, name, file)
    if options.html is not None:
        from loopviz.export import report

        report.save(trace, options.html, report.focus_of(trace, options.lang))
    if options.python is not None:
        from loopviz.export.python_code import python_code

        outputs.write(options.python, python_code(trace, options.model).encode("utf-8", "replace"))
    if options.notebook is not None:
        from loopviz.export.jupyter import notebook_bytes

        outputs.write(options.notebook, notebook_bytes(trace, options.model, options.lang))
    return 0


def _check_ttt_export(options: argparse.Namespace) -> None:
    """Refuse what there is of runs of loops alone."""
    given = [option(name) for name in ("python", "notebook") if getattr(options, name)]
    if given:
        raise UsageError(
            f"{', '.join(given)}: not of a TTT run, which is made by `loopviz run --model NAME`; --csv, --parquet, --json, --panel "
            "and --html are"
        )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as fields of StreamSettings."""
    if options.beams is not None:
        check_beams(options)
    names = ("max_new_tokens", "repetition_penalty", "top_tokens", "extras", "template", "input", *SAMPLING_ONLY)
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    idle = [option(name) for name in SAMPLING_ONLY if name in given]
    if idle and not options.do_sample and not options.preset:
        raise UsageError(f"{', '.join(idle)}: no effect without --sample")
    preset = ARTICLE_SAMPLING if options.preset else {"do_sample": options.do_sample}
    if options.beams is not None:
        preset = {name: value for name, value in preset.items() if name in OF_ARTICLE}
    return {**preset, **given} | {
        "chat": options.chat,
        "record": "off" if options.no_record else "full",
    }


def _run(options: argparse.Namespace) -> int:
    loop = {name: getattr(options, name) for name in NAMES if getattr(options, name) is not None}
    fields = _settings(options)
    check_threads(options.threads)
    if options.model is None:
        options.model, options.adapter = str(options.adapter or DEFAULT_MODEL), None
    if options.save is not None:
        outputs.check_file(options.save, "--save", inputs=[options.model])
        _check_is_trace(options.save)
    prompt = read_text("-", "--prompt -") if options.prompt == "-" else options.prompt

    if is_ttt(options.model):
        if options.adapter is not None:
            raise UsageError(f"--adapter {options.adapter}: {options.model} is a TTT model; adapters are put on Llamas")
        return run_ttt(options, loop, fields, prompt, _print_text, _save)
    if options.inner_lr is not None:
        raise UsageError(f"--inner-lr {options.inner_lr}: no effect, {options.model} is no TTT model")

    from loopviz.engine import Steering, StreamSettings, run_meta, stream
    from loopviz.trace import Trace

    settings = StreamSettings(**fields)
    loaded = _loaded(options, loop)
    if options.beams is not None:
        asked = Trace(run_meta(loaded.model, loaded.tokenizer, prompt, settings))
        _tell_notes(options, loaded, loop, asked)
        return run_beams(loaded, prompt, settings, options.beams, _safe())
    changes = Steering()
    for token in sorted({token for token, _, _ in options.change}):
        changes.set_loop(token=token, **{name: value for at, name, value in options.change if at == token})
    steering = changes if options.change else None
    frames = stream(loaded.model, loaded.tokenizer, prompt, settings, steering=steering)
    meta = run_meta(loaded.model, loaded.tokenizer, prompt, settings, steering=steering)
    trace = Trace(meta)
    _check_changes(options.change, trace, settings.max_new_tokens)
    _tell_notes(options, loaded, loop, trace)
    ended = _print_text(frames, trace, echo=template_of(settings.to_dict()) == "none")
    if len(trace):
        _table(trace, ended is not None)
        _tell_unmade(options.change, trace)
    if options.save is not None and len(trace):
        _save(trace, loaded.model, options.save)
    if ended is not None:
        raise ended
    return 0


def _loaded(options: argparse.Namespace, loop: dict[str, Any]) -> LoadedCheckpoint:
    """The model that was asked for, with its loop; UsageError for settings of a loop that it does not have."""
    import torch

    from loopviz.model.checkpoints.layout_choice import arrange

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    loaded = load(
        options.model,
        getattr(torch, options.dtype or "float32"),
        loop,
        options.device,
        options.adapter,
        precision=options.precision or usual_precision(options.dtype, options.quantization, options.device),
        quantization=options.quantization,
    )
    arrange(loaded.model)
    idle = [option(name) for name in loop if name != "loop_layers"]
    if idle and not loaded.model.config.loop_blocks():
        raise UsageError(f"{', '.join(idle)}: no effect without --loop-layers (nothing loops in this model)")
    return loaded


def _check_is_trace(file: Path) -> None:
    """Refuse to write a trace over something else."""
    if file.is_file() and (start := file.open("rb").read(2)) and start != b"PK":
        raise UsageError(f"--save {file}: is there already and is no trace; name another file")


def _save(trace: Trace, model: Any, file: Path) -> None:
    """Save the trace, with what its numbers come from; where that fails, elsewhere."""
    from loopviz.engine import provenance
    from loopviz.trace import file as io

    trace.meta["provenance"] = provenance(model)
    try:
        io.save(trace, file)
    except outputs.OutputError as error:
        place = outputs.rescue(file, lambda other: io.save(trace, other))
        kept = f"the trace is in {place} instead" if place else "and no other place took the trace; the text is above"
        raise outputs.OutputError(f"--save {error}; {kept}") from None
    print(f"trace saved: {file}", file=sys.stderr)


def _check_changes(changes: Sequence[tuple[int, str, Any]], trace: Trace, new: int) -> None:
    """Refuse a change that waits for a token this run cannot read."""
    read = trace.meta["prompt_tokens"] + new - 1  # the last token chosen is never read
    for token, name, value in changes:
        if token >= read:
            raise UsageError(
                f"--change {token}:{name}={value}: this run reads tokens 0 to {read - 1} at most "
                f"({trace.meta['prompt_tokens']} of prompt, --max-new-tokens {new}); give an earlier token"
            )


def _tell_unmade(changes: Sequence[tuple[int, str, Any]], trace: Trace) -> None:
    """Changes whose token was not reached: the model ended the text, or somebody did."""
    for token, name, value in changes:
        if token >= len(trace):
            print(f"loopviz: note: --change {token}:{name}={value}: not made, the run ended before", file=sys.stderr)


def _tell_notes(options: argparse.Namespace, loaded: Any, loop: dict[str, Any], trace: Trace) -> None:
    """Say on stderr what was asked for and will not be so."""
    for note in _notes(options, loaded, loop, trace):
        print(f"loopviz: note: {note}", file=sys.stderr)


def _notes(options: argparse.Namespace, loaded: Any, loop: dict[str, Any], trace: Trace) -> list[str]:
    """What was asked for and will not be so, a line each."""
    from loopviz.engine import unknown_words

    blocks = [trace.meta["blocks"]]  # as they will be, one after the other
    for token in sorted({token for token, _, _ in options.change}):
        fields = {name: value for at, name, value in options.change if at <= token}
        blocks.append(_block_metas(loaded.model, fields))
    notes = [
        f"{option(name)}: no effect {why}"
        for name in loop
        if (why := idle_because(name, [block for some in blocks for block in some]))
    ]
    notes += [
        f"--change {token}:{name}={value}: token {token} is in the prompt, which is read in one pass: made at token "
        f"{trace.meta['prompt_tokens']}"
        for token, name, value in options.change
        if 0 < token < trace.meta["prompt_tokens"]
    ]
    if options.preset and options.beams is None:
        notes.append(
            f"--preset article: the article's own call draws nothing, but searches over {ARTICLE_BEAMS} beams, in which temperature and "
            f"top-p do nothing; a run follows one text. --beams {ARTICLE_BEAMS} makes that call"
        )
    settings = trace.meta["settings"]
    template = template_of(settings)
    words = "" if template == "chat" else written(template, trace.meta["prompt"], settings["input"])
    unknown = unknown_words(loaded.tokenizer, words)
    if unknown:
        shown = ", ".join(map(repr, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
        notes.append(f"prompt: {shown}: not in the model's vocabulary, read as {loaded.tokenizer.unk_token}")
    return notes


def _block_metas(model: Any, fields: dict[str, Any]) -> list[BlockMeta]:
    from loopviz.engine.steering import block_metas

    return block_metas(model.with_loop(**fields).config)


def _safe() -> Callable[[str], str]:
    """What makes a text such that stdout, where it is a terminal, shows it and does not obey it."""
    return (lambda text: text.translate(CONTROLS)) if sys.stdout.isatty() else str


def _print_text(frames: Any, trace: Trace, echo: bool) -> BaseException | None:
    """Print pieces as they come into ``trace``.

    Returns:
        What ended it before its end: Ctrl-C, SIGTERM, a reader that is gone, an error. What was made until then is in the
        trace.
    """
    first = trace.meta["prompt_tokens"] - 1
    safe = _safe()
    try:
        with outputs.naming("stdout"), closing(frames):
            for frame in frames:
                trace.append(frame)
                if echo and frame["index"] <= first:
                    sys.stdout.write(safe(frame["text"]))
                if frame["index"] >= first and frame["finish"] != "eos":
                    sys.stdout.write(safe(frame["next_text"]))
                sys.stdout.flush()
        with outputs.naming("stdout"):
            print(flush=True)
    except (KeyboardInterrupt, Exception) as error:
        if not isinstance(error, OSError):
            print(flush=True)
        return error
    return None


def _table(trace: Trace, interrupted: bool) -> None:
    """The closing table, on stderr."""
    from rich.console import Console
    from rich.table import Table

    from loopviz.engine import summarize

    summary = summarize(trace)
    table = Table("", "", show_header=False)
    ended = (
        "interrupted"
        if interrupted
        else {"eos": "the model ended the text", "length": "max_new_tokens reached"}.get(
            summary.finish or "", "the model's context is full"
        )
    )
    table.add_row("tokens", f"{summary.prompt_tokens} of prompt, {summary.new_tokens} new ({ended})")
    for block in summary.blocks:
        reasons = ", ".join(f"{reason} {count}" for reason, count in block.reasons.items())
        table.add_row(
            f"loops of layers {block.layers[0]}-{block.layers[1]}",
            f"mean {block.mean_steps:.2f}, max {block.max_steps}; stopped by: {reasons} (tokens)",
        )
        if block.mean_read_out is not None:
            table.add_row("", f"its exit gate read out step {block.mean_read_out:.2f} on average")
    table.add_row("KV cache", f"{summary.bytes_used:,} bytes used, {summary.bytes_allocated:,} allocated")
    table.add_row("", f"plain Llama {summary.bytes_plain:,}, unrolled {summary.bytes_unrolled:,}")
    if summary.tokens_per_second is not None:
        off = "off" if trace.meta["settings"]["record"] == "off" else "on"
        table.add_row(
            "speed", f"{summary.tokens_per_second:.2f} tokens/s by the clock, after the prompt; recorder {off}"
        )
    if summary.model_tokens_per_second is not None:
        table.add_row("", f"{summary.model_tokens_per_second:.2f} passes/s in the model alone")
    if (summary.runs_per_pass or 1) > 1:
        table.add_row("", f"in passes that {summary.runs_per_pass:.2f} runs shared on average")
    Console(stderr=True).print(table)
