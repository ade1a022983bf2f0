"""A run's notebook: of the format, executed from top to bottom by Jupyter itself, and what it shows is the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.util import run_sync

from loopviz.engine import StreamSettings, run
from loopviz.export.jupyter import PANELS, notebook, notebook_bytes
from loopviz.model.checkpoints import load_checkpoint
from loopviz.paths import PACKAGE
from loopviz.trace import Trace
from loopviz.trace.file import load
from tests.export.test_report import hostile
from tests.lab.small import save


@pytest.fixture(scope="module")
def executed() -> Iterator[Callable[[dict[str, Any], Path], Any]]:
    """The notebook with its outputs, run by a kernel in the folder `where`.

    One kernel for all, whose namespace is emptied for each: what takes its time is to start it and to import torch.
    """
    kernel = AsyncKernelManager(kernel_name="python3")

    def execute(made: dict[str, Any], where: Path) -> Any:
        read = nbformat.reads(json.dumps(made), as_version=4)
        fresh = nbformat.v4.new_code_cell(f"%reset -f\nimport os\nos.chdir({str(where)!r})\ndel os")
        read["cells"].insert(0, fresh)
        client = NotebookClient(read, timeout=300, km=kernel)
        client.execute()
        client.kc.stop_channels()
        assert read["cells"].pop(0)["outputs"] == []
        return read

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PACKAGE.parent))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield execute
        if kernel.has_kernel:
            run_sync(kernel.shutdown_kernel)(now=True)


def outputs(read: Any) -> list[list[Any]]:
    return [cell["outputs"] for cell in read["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_notebook_executes_from_top_to_bottom(tmp_path: Path, executed: Any, lang: str) -> None:
    folder = save(tmp_path / "tiny", loop_count=3)
    loaded = load_checkpoint(folder)
    settings = StreamSettings(max_new_tokens=6, do_sample=True, temperature=1.2, seed=5)
    trace = run(loaded.model, loaded.tokenizer, "Once upon a time, 从前", settings, model_name="tiny")
    made = notebook(trace, folder, lang)
    nbformat.validate(nbformat.reads(json.dumps(made), as_version=4))
    found = outputs(executed(made, tmp_path))
    _, ran, compared, saved, *panels = found
    assert trace.text in ran[0]["text"]
    assert compared[0]["text"].strip() == {"en": "the same text as then", "zh": "与当时的文本相同"}[lang]
    assert "n_steps" in saved[0]["data"]["text/plain"]
    assert load(tmp_path / "run.loopviz").text == trace.text
    assert len(panels) == len(PANELS) == 3
    for name, shown in zip(PANELS, panels, strict=True):
        page = shown[0]["data"]["text/html"]
        assert "<iframe" in page
        assert f"data-panel=&#x27;{name}&#x27;" in page


def test_another_text_is_told_and_where_it_parts(tmp_path: Path, executed: Any) -> None:
    folder = save(tmp_path / "tiny", loop_count=3)
    loaded = load_checkpoint(folder)
    trace = run(loaded.model, loaded.tokenizer, "Once upon", StreamSettings(max_new_tokens=4))
    other = Trace(trace.meta, [*trace.frames[:-1], {**trace.frames[-1], "next_text": "# nothing that it says"}])
    said = outputs(executed(notebook(other, folder), tmp_path))[2][0]["text"]
    assert said.startswith("another text than then; they part after")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_strangers_run_is_a_notebook_too(lang: str) -> None:
    read = nbformat.reads(notebook_bytes(hostile(), lang=lang).decode(), as_version=4)
    nbformat.validate(read)
    assert len({cell["id"] for cell in read["cells"]}) == len(read["cells"])
    words = "".join(cell["source"] for cell in read["cells"] if cell["cell_type"] == "markdown")
    assert "alert(1)" not in words
    for cell in read["cells"]:
        if cell["cell_type"] == "code":
            compile(cell["source"], "cell", "exec")
