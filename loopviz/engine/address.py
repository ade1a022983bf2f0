"""Where models run: elsewhere than in this process (`LOOPVIZ_ENGINE` as it is written), or on which device; read in one place.

Importing this needs neither torch nor Ray.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

from loopviz.paths import install_hint

VARIABLE = "LOOPVIZ_ENGINE"
APPLICATION = "loopviz"  # of Ray Serve, where none is named
_ADDRESS = re.compile(
    r"ray://(?P<cluster>auto|(?:[\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5})(?:/(?P<application>[\w.-]+))?", re.ASCII
)


@dataclass(frozen=True)
class RayAddress:
    """An application of Ray Serve.

    Attributes:
        cluster: `auto`, the cluster that this machine belongs to; else the host and port of its head, as `ray start --address` takes
            them.
        application: by the name that `serve run --name` gave it.
    """

    cluster: str
    application: str = APPLICATION

    def __str__(self) -> str:
        return f"ray://{self.cluster}/{self.application}"


def engine_address(written: str) -> RayAddress | None:
    """What `LOOPVIZ_ENGINE` says; None where it is empty: models are in this process.

    Raises:
        ValueError: it is no such address, or Ray is not installed.
    """
    written = written.strip()
    if not written:
        return None
    found = _ADDRESS.fullmatch(written)
    if found is None:
        raise ValueError(
            f"{VARIABLE}={written!r}: must be ray://auto or ray://HOST:PORT (the head's, 6379 as a rule), with /NAME behind it for an "
            f"application that is not called {APPLICATION}; leave it out for models in this process"
        )
    if find_spec("ray") is None:
        raise ValueError(f"{VARIABLE}={written!r}: Ray is not installed; {install_hint('ray')}, or leave it out")
    return RayAddress(found["cluster"], found["application"] or APPLICATION)


def device_named(name: str) -> str:
    """The device that a name means on this machine, as it is called: "cpu", "cuda:0".

    Raises:
        ValueError: no such device, or none of it here, by name.
    """
    from loopviz.model.devices import resolve_device

    return str(resolve_device(name))
