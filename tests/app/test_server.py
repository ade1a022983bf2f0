"""What the server serves beside Gradio, and what importing the page may not import."""

from __future__ import annotations

import subprocess
import sys

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app import server


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=server.routes()))


def test_plotly_is_the_installed_package_s_compressed_and_kept(client: TestClient) -> None:
    from plotly.offline import get_plotlyjs

    response = client.get("/" + server.asset_url("plotly.js"), headers={"accept-encoding": "gzip"})
    assert response.status_code == 200
    assert response.headers["content-encoding"] == "gzip"
    assert "immutable" in response.headers["cache-control"]
    assert int(response.headers["content-length"]) < len(response.content) / 3
    assert response.text == get_plotlyjs()
    plain = client.get("/" + server.asset_url("plotly.js"), headers={"accept-encoding": "identity"})
    assert plain.content == response.content


def test_scripts_find_each_other_at_an_address_that_is_kept(client: TestClient) -> None:
    folder = server.asset_url("live.js").rsplit("/", 1)[0]
    assert "./panel.js" in client.get("/" + server.asset_url("live.js")).text
    assert "immutable" in client.get(f"/{folder}/panel.js").headers["cache-control"]


def test_an_old_address_gets_the_new_file_but_does_not_keep_it(client: TestClient) -> None:
    response = client.get(f"/{server.PREFIX}/0123456789abcdef/live.js")
    assert response.status_code == 200
    assert "immutable" not in response.headers["cache-control"]


@pytest.mark.parametrize("name", ["secrets.txt", "..%2f..%2fapp.py", "page.css%00"])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/{server.PREFIX}/x/{name}").status_code == 404


def test_building_the_page_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from loopviz.app.main import build; build();"
        "sys.exit(', '.join({'torch', 'transformers', 'gguf', 'accelerate'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
