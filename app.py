"""Open LoopViz: `python app.py`, here or as a Hugging Face Space.

Options, or the environment variables beside them: --host (GRADIO_SERVER_NAME), --port (GRADIO_SERVER_PORT),
--model (LOOPVIZ_MODEL): the model loaded at the start; a name, a Hugging Face id, a folder or a .gguf file.
"""

from __future__ import annotations

import argparse
import os

from loopviz.app.main import DEFAULT_MODEL, build, launch


def main() -> None:
    """Read the settings and serve until interrupted."""
    parser = argparse.ArgumentParser(description="LoopViz: watch a looped language model think, in the browser.")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=os.environ.get("GRADIO_SERVER_PORT"))
    parser.add_argument("--model", default=os.environ.get("LOOPVIZ_MODEL", DEFAULT_MODEL))
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    options = parser.parse_args()
    # a Space is public: its visitors may not name the server's own files
    page = build(options.model, local="SPACE_ID" not in os.environ)
    launch(page, host=options.host, port=options.port, browser=options.open)


if __name__ == "__main__":
    main()
