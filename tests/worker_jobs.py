"""What the workers of `test_worker` do."""

from __future__ import annotations

import os
import time
from typing import Any


class PanicException(BaseException):
    """As native code's: no Exception."""


def serve(request: dict[str, Any], tell: Any) -> dict[str, Any]:
    """Whatever the test asks for."""
    kind = request["do"]
    if kind == "sleep":
        time.sleep(request["seconds"])
    elif kind == "spin":
        while True:
            pass
    elif kind == "take":
        return {"length": len(bytearray(request["bytes"]))}
    elif kind == "die":
        os._exit(3)
    elif kind == "panic":
        raise PanicException("entered unreachable code")
    elif kind == "raise":
        raise ValueError("it is refused")
    elif kind == "tell":
        for n in range(request["times"]):
            tell({"n": n})
    elif kind == "print":
        print("not an answer", flush=True)
    elif kind == "long":
        return {"text": "x" * request["bytes"]}
    return {"echo": request.get("value"), "pid": os.getpid()}
