"""M3: what visitors read says nothing of the machine's folders; everything else stays as it is."""

from __future__ import annotations

import pytest

from loopviz.app.sessions.private_paths import without_paths

HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"model_type='gpt2' in /home/me/.cache/hub/models--ok--gpt2/snapshots/{HASH}/config.json: x", "model_type='gpt2' in ok/gpt2/config.json: x"),
        (f"/srv/John Doe/hf/models--ok--m.x/snapshots/{HASH}: there is none", "ok/m.x: there is none"),
        (f"C:\\Users\\me\\hf\\models--ok--m\\snapshots\\{HASH}\\tokenizer.json: bad", "ok/m\\tokenizer.json: bad"),
        ("[Errno 28] No space left on device: '/tmp/loopviz-lab-x/a b.csv'", "[Errno 28] No space left on device: 'a b.csv'"),
        ("/etc/passwd: not a checkpoint", "passwd: not a checkpoint"),
        ("in /home/me/my models/x/config.json: bad", "in config.json: bad"),
        ("\\\\host\\share\\model: no", "model: no"),
        ("~root/models/x: no", "x: no"),
        ("~/models/x: no", "x: no"),
    ],
)  # fmt: skip
def test_m3_a_path_is_its_last_part(said: str, told: str) -> None:
    assert without_paths(said) == told


@pytest.mark.parametrize(
    "said",
    [
        "checkpoint 'ok/tiny': the Hub (https://huggingface.co) shows nothing of that name (status 404)",
        "give ok/tiny/model.Q4_K.gguf, or http://127.0.0.1:8080/a/b",
        "12 tok/s, and/or 1/2; a \\n in a text; ~3 seconds; 0..31 / 32",
        "loop_count=3: must be <= 2 (a / b)",
        "模型不存在：请选择 stories-loop",
    ],
)
def test_m3_what_is_no_path_stays(said: str) -> None:
    assert without_paths(said) == said
