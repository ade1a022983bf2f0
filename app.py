"""Open LoopViz: `python app.py`, here or as a Hugging Face Space.

Options, or the environment variables beside them: --host (GRADIO_SERVER_NAME), --port (GRADIO_SERVER_PORT),
--model (LOOPVIZ_MODEL): the model loaded at the start; a name, a Hugging Face id, a folder or a .gguf file;
--profile (LOOPVIZ_PROFILE): what visitors may do, `local` or `public`. A server that others can reach is public unless told
otherwise.

More names by which the server is reached (a domain of yours; numbers, this machine's own name and a Space's are known):
LOOPVIZ_HOSTS=loops.example.org,*.school.example. Sites whose pages may show it in a frame: LOOPVIZ_FRAMES=https://course.example
"""

from __future__ import annotations

import argparse
import os

from loopviz.app.door import rules_of
from loopviz.app.main import DEFAULT_MODEL, build, launch
from loopviz.app.profile import PROFILES, profile_of


def main() -> None:
    """Read the settings and serve until interrupted."""
    parser = argparse.ArgumentParser(description="LoopViz: watch a looped language model think, in the browser.")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=os.environ.get("GRADIO_SERVER_PORT"))
    parser.add_argument("--model", default=os.environ.get("LOOPVIZ_MODEL", DEFAULT_MODEL))
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--profile", choices=PROFILES, help="what visitors may do")
    options = parser.parse_args()
    try:
        profile = profile_of(options.host, os.environ, options.profile)
        rules_of(options.host, os.environ)
    except ValueError as error:
        parser.error(str(error))
    print(f"* Profile: {profile.name}", flush=True)
    page = build(options.model, profile=profile)
    launch(page, host=options.host, port=options.port, browser=options.open)


if __name__ == "__main__":
    main()
