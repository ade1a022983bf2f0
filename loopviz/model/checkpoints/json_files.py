"""The JSON files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import CheckpointError, CheckpointRuleError, cause

_JSON_LIMIT = 64 * 2**20  # bytes
SMALL_JSON = 4 * 2**20  # of files that only say things: none that anybody uses is a tenth as long


def read_json(file: Path, most: int = _JSON_LIMIT) -> dict[str, Any]:
    """A JSON object from `file`.

    Args:
        file: to read.
        most: bytes.

    Raises:
        CheckpointError: unreadable, too large, not JSON, not an object.
    """
    try:
        if file.stat().st_size > most:
            raise CheckpointRuleError("too_long", file=file, most=most >> 20)
        value = json.loads(file.read_text(encoding="utf-8"))
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointRuleError("not_opened", file=file, said=cause(error)) from error
    except Exception as error:
        raise CheckpointRuleError("not_json", file=file, said=cause(error)) from error
    if not isinstance(value, dict):
        raise CheckpointRuleError("no_object", file=file, found=type(value).__name__)
    return value
