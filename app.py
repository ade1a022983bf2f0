"""Open LoopViz: `python app.py`, here or as a Hugging Face Space.

Options, or the environment variables beside them: --host (GRADIO_SERVER_NAME), --port (GRADIO_SERVER_PORT),
--model (LOOPVIZ_MODEL): the model loaded at the start; a name, a Hugging Face id, a folder or a .gguf file;
--profile (LOOPVIZ_PROFILE): what visitors may do, `local`, `class` or `public`. A server that others can reach is public unless told
otherwise.

More names by which the server is reached (a domain of yours; numbers, this machine's own name and a Space's are known):
LOOPVIZ_HOSTS=loops.example.org,*.school.example. Sites whose pages may show it in a frame: LOOPVIZ_FRAMES=https://course.example
"""

from __future__ import annotations

from loopviz.app.command import serve

if __name__ == "__main__":
    serve()
