"""The engine of a model that runs on a cluster: Ray Serve's replicas (:mod:`loopviz.engine.ray_app`) are asked and run.

    remote_engine("stories-loop", RayAddress("auto"))

No weights come into this process, nor a tokenizer. What does not change of a model is asked once; what was asked lately is
remembered, for a page asks it at every keystroke. What passes is told in :mod:`loopviz.engine.replica`.

Importing this needs neither torch nor Ray.
"""

from __future__ import annotations

import os
import pickle
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from loopviz.checks import ABSENT, FieldError
from loopviz.engine.address import RayAddress
from loopviz.engine.engine import Description, EngineLost, Handle, ParityNeed, ParityRow, Reading, Request
from loopviz.engine.ray_line import ANSWER, Line, RemoteWork, told_all
from loopviz.engine.ray_reading import RemoteReading
from loopviz.engine.replica import checked, versions
from loopviz.engine.work import Rate
from loopviz.worker import WorkerEnded

if TYPE_CHECKING:
    from loopviz.trace import Frame, Trace

REMEMBERED = 512  # answers
LONGEST_KEY = 16_384  # bytes of a question that is remembered


def remote_engine(name: str, address: RayAddress) -> RayEngine:
    """The engine of a model that a cluster serves.

    Args:
        name: as `models=` of the application has it.

    Raises:
        EngineLost: the cluster, or the application, does not answer.
        FieldError: it does not serve this model, or with another LoopViz.
    """
    import ray
    from ray import serve

    _join(ray, address)
    lost = lost_kinds()
    try:
        served = serve.get_app_handle(address.application).models.remote().result(timeout_s=ANSWER)
    except (*lost, serve.exceptions.RayServeException, TimeoutError) as error:
        raise _unreached(address, error) from error
    if name not in served:
        raise FieldError("model", name, "engine_not_served", known=", ".join(served))
    return RayEngine(name, serve.get_deployment_handle(served[name], address.application), lost)


_DOOR = threading.Lock()  # a process joins one cluster, once


def _join(ray: Any, address: RayAddress) -> None:
    with _DOOR:
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that somebody serves
        try:
            ray.init(address=address.cluster, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _unreached(address, error) from error


def _unreached(address: RayAddress, error: BaseException) -> EngineLost:
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return EngineLost("", ABSENT, "engine_unreached", address=str(address), said=said)


def lost_kinds() -> tuple[type[BaseException], ...]:
    """What Ray raises where a replica, or its machine, is gone, or may be."""
    from ray import exceptions
    from ray.serve.exceptions import DeploymentUnavailableError

    return (
        exceptions.RayActorError,
        exceptions.NodeDiedError,
        exceptions.OwnerDiedError,
        exceptions.ObjectLostError,
        exceptions.WorkerCrashedError,
        exceptions.LocalRayletDiedError,
        exceptions.RpcError,
        DeploymentUnavailableError,
    )


class RayEngine:
    """A model that runs elsewhere, as :class:`loopviz.engine.engine.Engine`.

    Args:
        name: what was asked for.
        handle: of the deployment (`ray.serve.handle.DeploymentHandle`), whose replicas are :class:`loopviz.engine.replica.Replica`.
        lost: what it raises where a replica is gone.

    Raises:
        EngineLost: no replica answers.
        FieldError: it has another version of LoopViz.
    """

    def __init__(self, name: str, handle: Any, lost: tuple[type[BaseException], ...]) -> None:
        self._name, self._handle, self._lost = name, handle, lost
        self._known: OrderedDict[bytes, Any] = OrderedDict()
        self._lock = threading.Lock()
        about = self._ask("about")
        if (there := {key: about.get(key) for key in versions()}) != versions():
            raise FieldError("engine", ABSENT, "engine_version", there=_said(there), here=_said(versions()))
        self._description: Description = about["description"]
        self._rate: Rate = about["rate"]

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What was asked for."""
        return self._name

    @property
    def layers(self) -> int:
        """Physical decoder layers, L."""
        return self._description.shape.layers

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return self._description.parameters

    @property
    def n_bytes(self) -> int:
        """Bytes that keeping it takes in this process: none worth counting."""
        return 0

    def describe(self, loop: Mapping[str, Any] | None = None) -> Description:
        """As :meth:`Engine.describe`; EngineLost with loop fields that were not asked lately."""
        return self._description if loop is None else self._remembered("describe", dict(loop))

    def check(self, loop: Mapping[str, Any]) -> list[FieldError]:
        """As :meth:`Engine.check`; raises EngineLost."""
        return list(self._remembered("check", dict(loop)))

    def rate(self, *, doubted: bool = False) -> Rate:
        """How fast the replica is that was asked; measured anew if `doubted`, where one answers."""
        if doubted:
            with suppress(EngineLost):
                self._rate = self._ask("rate", doubted=True)
        return self._rate

    # -- its words -----------------------------------------------------------------------------------------------------

    def prompt_tokens(self, prompt: str, **wording: Any) -> int:
        """As :meth:`Engine.prompt_tokens`; raises EngineLost too."""
        return self._remembered("prompt_tokens", prompt, **wording)

    def tokens(self, text: str, **wording: Any) -> int:
        """As :meth:`Engine.tokens`; raises EngineLost too."""
        return self._remembered("tokens", text, **wording)

    def end_of(self, text: str, most: int, **wording: Any) -> str:
        """As :meth:`Engine.end_of`; raises EngineLost too."""
        return self._ask("end_of", text, most, **wording)

    def unread_share(self, prompt: str) -> tuple[str, float] | None:
        """As :meth:`Engine.unread_share`; raises EngineLost too."""
        return self._remembered("unread_share", prompt)

    # -- a run ---------------------------------------------------------------------------------------------------------

    def start(self, request: Request, stop: threading.Event | None = None) -> Handle:
        """As :meth:`Engine.start`.

        A run whose replica ends before its first Frame has come is begun once more, elsewhere.

        Raises:
            ValueError: what is refused. WorkerEnded: `stop` was set before there was a Meta.
            EngineLost: no replica begins it; at a Frame, where its replica ended.
        """
        run = RemoteRun(self._handle, self._lost, request, threading.Event() if stop is None else stop)
        return Handle(run.begin(), run.frames(), run.steer, run.halt)

    # -- work ----------------------------------------------------------------------------------------------------------

    def work(self, make: Callable[..., Iterator[Any]], *args: Any) -> RemoteWork:
        """Work at one replica, with its model, for as long as this lives.

        Args:
            make: a generator function of a module, called there as `make(bench, *args)` (:class:`loopviz.engine.replica.Bench`).
        """
        return RemoteWork(self._handle, self._lost, make, args)

    def read_again(self, trace: Trace) -> Reading:
        """As :meth:`Engine.read_again`; raises EngineLost too."""
        return RemoteReading(self.work, trace)

    def parity_need(self, article: bool, dtype: str) -> ParityNeed:
        """As :meth:`Engine.parity_need`, of the replica's machine; raises EngineLost too."""
        return self._ask("parity_need", article, dtype)

    def parity(self, article: bool, dtype: str, stop: threading.Event) -> list[ParityRow]:
        """As :meth:`Engine.parity`; raises EngineLost too."""
        with closing(self.work(checked, article, dtype)) as work:
            found = work.step(stop.is_set)
        return [] if found is None else found[0]

    # -- asking --------------------------------------------------------------------------------------------------------

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        for again in (True, False):
            try:
                kind, said = self._handle.ask.remote(method, args, kwargs).result(timeout_s=ANSWER)
                break
            except TimeoutError as error:
                raise EngineLost("", ABSENT, "engine_silent", seconds=ANSWER) from error
            except self._lost as error:
                if not again:
                    raise EngineLost("", ABSENT, "engine_silent", seconds=ANSWER) from error
        if kind == "refused":
            raise said
        return said

    def _remembered(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`_ask`, of what the model answers always alike; refusals are asked again."""
        key = pickle.dumps((method, args, sorted(kwargs.items())))
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        said = self._ask(method, *args, **kwargs)
        if len(key) <= LONGEST_KEY:
            with self._lock:
                self._known[key] = said
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        return said


def _said(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items())


class RemoteRun:
    """A run that is made elsewhere, from this end.

    Args:
        handle, lost: as :class:`RayEngine` has them.
        stop: ends it.
    """

    def __init__(
        self, handle: Any, lost: tuple[type[BaseException], ...], request: Request, stop: threading.Event
    ) -> None:
        self._handle, self._lost, self._request, self.stop = handle, lost, request, stop
        self._gone: tuple[type[BaseException], ...] = (*lost, TimeoutError)
        self._lock = threading.Lock()
        self._steered: list[dict[str, Any]] = []  # what it took, to be said again where it begins again
        self._retries = 1
        self._meta: dict[str, Any] = {}

    def begin(self) -> dict[str, Any]:
        """Its Meta; raises as :meth:`RayEngine.start`."""
        self._open()
        item = self._next(again=True)
        if item is None:
            self._line.end()
            raise WorkerEnded("over", "it was stopped")
        self._meta = item[1]
        return self._meta

    def frames(self) -> Iterator[Frame]:
        """Its Frames as they come; EngineLost where its replica ends after the first of them."""
        shown = False
        try:
            while (item := self._next(again=not shown)) is not None:
                if item[0] == "meta":  # it was begun again
                    continue
                for frame in item[1]:
                    if self.stop.is_set():
                        return
                    self._note([change for change in item[2] if change["index"] <= frame["index"]])
                    shown = True
                    yield frame
        finally:
            self._line.end()

    def halt(self) -> None:
        """End it at once, whether or not anybody waits for a Frame."""
        self.stop.set()
        self._line.end()

    def steer(self, **fields: Any) -> None:
        """Change its loop from the next pass on.

        Raises:
            ValueError: what the run refuses. EngineLost: nobody makes it now.
        """
        with self._lock:
            told_all(self._handle, self._gone, "engine_lost", "steer", self._id, fields)
            self._steered.append(fields)

    def _note(self, changes: list[Any]) -> None:
        known = self._meta.get("changes")
        if known is not None:
            known += changes[len(known) :]

    # -- the line ------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        with self._lock:  # what is asked for meanwhile goes to nobody, and is told so
            self._id, steered = secrets.token_hex(8), [*self._steered]
        self._line = Line(self._handle.options(stream=True).run.remote(self._id, self._request, steered))

    def _next(self, again: bool) -> Any:
        """What comes next; None: its end, or it was stopped.

        Args:
            again: whether it may be begun once more where its replica ends.

        Raises:
            ValueError: it is refused. EngineLost: its replica ended. What else was raised there.
        """
        while (item := self._line.next(self.stop.is_set)) is not None:
            if item[0] not in ("refused", "error"):
                return item
            if item[0] == "refused" or not isinstance(item[1], self._lost):
                raise item[1]
            if not again or not self._retries:
                raise EngineLost("", ABSENT, "engine_lost") from item[1]
            self._retries -= 1
            self._open()
        return None
