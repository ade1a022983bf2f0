"""Opening the app from a command line: `python app.py`, and `loopviz` without a command.

Nothing heavy is imported before the options are known to be well-formed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace

from loopviz import imports
from loopviz.app.profile import PROFILES, on_its_device, profile_of, with_usual_precision, with_usual_store
from loopviz.app.server import zero_gpu
from loopviz.app.sessions import run_log
from loopviz.machine import PRECISIONS


def serve(arguments: Sequence[str] | None = None, *, program: str | None = None, more: str | None = None) -> None:
    """Read the options and serve until interrupted; options that are refused end the process with 2, as argparse does.

    Args:
        arguments: of the command line; None takes the process's own.
        program: as the help calls it; None takes the process's own name.
        more: what stands at the end of the help.
    """
    parser = _parser(program, more)
    options = parser.parse_args(arguments)
    try:
        profile = with_usual_store(profile_of(options.host, os.environ, options.profile), os.environ)
        profile = replace(profile, device=options.device or profile.device)
        profile = with_usual_precision(profile, os.environ)
        profile = on_its_device(replace(profile, precision=options.precision or profile.precision))
        from loopviz.app.server.request_guard import rules_of

        rules_of(options.host, os.environ)
    except ValueError as error:
        parser.error(str(error))
    print(f"* Profile: {profile.name}", flush=True)
    run_log.set_up(profile)
    if profile.zero_gpu:
        profile = zero_gpu.declare(profile)
    from loopviz.app.main import DEFAULT_MODEL, build, launch, spare_a_core

    spare_a_core()
    try:
        _import(options.imports)
    except imports.ImportingError as error:
        parser.error(str(error))
    page = build(options.model or DEFAULT_MODEL, profile=profile)
    launch(page, host=options.host, port=options.port, browser=options.open)


def _import(modules: Sequence[str]) -> None:
    """The modules that visitors find the names of in the pages' lists; importing what they register with takes seconds."""
    if modules:
        from loopviz.lab import TASKS  # LoopViz's own names are taken before anybody else's

        assert TASKS
    imports.load(modules)


def _parser(program: str | None, more: str | None) -> argparse.ArgumentParser:
    """Of the app's options, each with the environment variable beside it."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="LoopViz: watch a looped language model think, in the browser.",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    host, port = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), os.environ.get("GRADIO_SERVER_PORT")
    parser.add_argument("--host", default=host, help="address to serve at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="default: the first free one from 7860")
    told = "loaded at the start: a name, a Hugging Face id, a folder or a .gguf file"
    parser.add_argument("--model", default=os.environ.get("LOOPVIZ_MODEL"), help=told)
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--profile", choices=PROFILES, help="what visitors may do")
    told = (
        "what models' weights are held in: exact (float32), half, int8, or auto (the default: exact wherever a token is expected within "
        "125 ms here, as it is of every small model, else half or int8); pages say which, and what it costs"
    )
    parser.add_argument("--precision", choices=PRECISIONS, help=told)
    told = "where models are computed: cpu (the default), cuda, cuda:1, mps, xpu, or auto (an accelerator where there is one)"
    parser.add_argument("--device", help=told)
    named = [name.strip() for name in os.environ.get("LOOPVIZ_IMPORT", "").split(",") if name.strip()]
    parser.add_argument(
        imports.OPTION, dest="imports", action="append", default=named, metavar="MODULE", help=imports.HELP
    )
    return parser
