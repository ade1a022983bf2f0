"""Places to write to: looked at before the work, written whole or not at all, and another one found when that fails.

A command calls :func:`check_file`, :func:`check_folder` or :func:`check_free` before it loads anything; whoever writes does
it inside :func:`replacing` (several files of a library's own naming: :func:`filling`); and what cannot be written where it
was wanted is put elsewhere by :func:`rescue`. What is not whole yet has a name that says which process makes it; what a kill
left is found by that and swept (:func:`sweep`) by the next that writes there.

On the ground floor: it imports nothing of LoopViz, and nothing heavy.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PROBE = 64 * 1024  # bytes that a place must take before work for it begins
STALE = 24 * 3600.0  # seconds after which a part of another machine's, or of nobody known, is left over
_PREFIX = ".loopviz-"  # of files that are not whole yet
_SCRATCH = "loopviz-lab-"  # of folders for a visitor's texts
_PART = re.compile(
    rf"(?:{re.escape(_PREFIX)}|{re.escape(_SCRATCH)})(?:(?P<machine>[0-9a-f]{{8}})-(?P<process>\d+)-)?[a-z0-9_]{{8}}(?:\.part)?"
)
_swept: set[str] = set()  # folders this process has looked through


class OutputError(OSError, ValueError):
    """What cannot be written; the message names the place and why."""


# -- before the work ---------------------------------------------------------------------------------------------------


def check_file(path: Path, option: str, *, inputs: Iterable[Path | str | None] = (), parents: bool = False) -> None:
    """Refuse a file that could not be written when the work is done. Leaves nothing behind.

    Args:
        path: the file; it may exist.
        option: what gave it, for messages: ``--save``.
        inputs: files that the work reads: none of them may be written over.
        parents: its folder will be made if there is none.

    Raises:
        OutputError: naming the option, the path and the reason.
    """
    with _named(option, path):
        place = Path(os.path.realpath(path))  # a link is written through, not replaced
        if place.is_dir():
            raise OutputError(f"{option} {path}: is a folder; name a file, {path / 'NAME'}")
        for read in inputs:
            if read is not None and _same(place, Path(read)):
                raise OutputError(f"{option} {path}: is the file that is read; name another one")
        if place.exists() and not stat.S_ISREG(place.stat().st_mode):
            if not os.access(place, os.W_OK):
                raise OutputError(f"{option} {path}: may not be written")
            return  # a device or a pipe: written straight
        if place.exists() and not os.access(place, os.W_OK):
            raise OutputError(f"{option} {path}: is write-protected; name another file")
        folder = place.parent
        if not folder.is_dir() and not parents:
            what = "is no folder" if folder.exists() else "there is no such folder"
            raise OutputError(f"{option} {path}: {folder}: {what}; make it first, or name another")
        _check_room(folder, option, path)


def check_folder(path: Path, option: str, names: Iterable[str] = ()) -> None:
    """As :func:`check_file`, for a folder that will hold files (and is made if there is none).

    Args:
        path: the folder.
        option: what gave it.
        names: of the files that will be written into it.
    """
    with _named(option, path):
        place = Path(os.path.realpath(path))
        if place.exists() and not place.is_dir():
            raise OutputError(f"{option} {path}: is a file; name a folder")
        _check_room(place, option, path)
        for name in names:
            if place.is_dir():
                check_file(place / name, option)


def check_free(paths: Iterable[Path], option: str, why: str) -> None:
    """Refuse to write over files that are not ours to replace.

    Args:
        paths: of the files that would be written.
        option: what gave them.
        why: what they are, as far as is known: "of another task (ablation)".
    """
    for path in paths:
        if path.exists():
            raise OutputError(f"{option}: {path} is there already, {why}; name another place, or give --force")


@contextlib.contextmanager
def alone(path: Path, option: str, what: str) -> Iterator[None]:
    """While the block runs, nobody else writes to `path` so: work that is done there bit by bit must not be done twice.

    A lock beside it, which goes with the process that has it, also when that is killed, and when the block ends. On a file
    system that knows no locks there is none.

    Args:
        path: what will be written; its folder is made if there is none, and removed again if it stays empty.
        option: what gave it, for messages.
        what: is done, for messages: "sweep".

    Raises:
        OutputError: somebody else has it.
    """
    from filelock import FileLock, Timeout

    place = Path(os.path.realpath(path))
    note = place.with_name(f".{place.name}.lock")
    missing = [folder for folder in place.parents if not folder.exists()]
    with _named(option, path):
        place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(note))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        whose = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            whose = note.read_text("utf-8")[:100]
        raise OutputError(
            f"{option} {path}: another {what} is writing there{f' ({whose})' if whose else ''}; "
            "wait for its end, or name another place"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise OutputError(f"{option} {path}: cannot be written ({_reason(error)})") from error
    try:
        with contextlib.suppress(OSError):  # for those who find it taken
            note.write_text(f"process {os.getpid()} on {platform.node()}", "utf-8")
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):  # by whoever waits for it this is noticed
                note.unlink()
            lock.release()
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _named(option: str, path: Path) -> Iterator[None]:
    """Whatever the system has against a path is told with the option's name."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"{option} {os.fspath(path)!r}: cannot be written ({_reason(error)})") from error


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _check_room(folder: Path, option: str, path: Path) -> None:
    """Try the folder itself, or where it would be made."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(path)  # a name that the system does not take is said here
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"{option} {path}: {folder} is a file, no folder")
    try:
        sweep(folder)
        handle, name = tempfile.mkstemp(prefix=_mark(_PREFIX), dir=folder)
    except OSError as error:
        raise OutputError(f"{option} {path}: {folder} cannot be written to ({_reason(error)})") from error
    try:
        _fill(handle)
    except OSError as error:
        raise OutputError(f"{option} {path}: {folder} takes no more ({_reason(error)})") from error
    finally:
        os.close(handle)
        os.unlink(name)


def _fill(handle: int) -> None:
    left = bytes(PROBE)
    while left:
        left = left[os.write(handle, left) :]
    os.fsync(handle)


# -- writing -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a file beside `path` to write to; put in its place when the block ends well, gone when it does not.

    There is always a whole file: the old one, or the new one, after a loss of power too. Devices and pipes are given as
    they are.

    Raises:
        OutputError: the system would not write; the message names `path`.
    """
    place = Path(os.path.realpath(path))
    part: Path | None = None
    try:
        if place.exists() and not place.is_file() and not place.is_dir():
            yield place
            return
        _sweep_once(place.parent)
        handle, name = tempfile.mkstemp(prefix=_mark(_PREFIX), suffix=".part", dir=place.parent)
        os.close(handle)
        part = Path(name)
        yield part
        _settle(part, place)
        part = None
    except Exception as error:
        if isinstance(error, OutputError) or not _is_writing(error):
            raise
        raise OutputError(f"{os.fspath(path)}: cannot be written ({_reason(error)})") from error
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def filling(folder: str | os.PathLike[str], keep: Iterable[str] = ()) -> Iterator[Path]:
    """As :func:`replacing`, for a library that writes several files of its own naming: gives a folder to write them to,
    of the same name.

    Each of them is then put into `folder` (made if there is none), whole; what is there besides stays.

    Args:
        folder: where they belong.
        keep: names of files that stay as they are when they are there already.
    """
    place = Path(os.path.realpath(folder))
    part: Path | None = None
    made_anew = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        _sweep_once(place)
        part = Path(tempfile.mkdtemp(prefix=_mark(_PREFIX), suffix=".part", dir=place))
        own = part / place.name
        own.mkdir()
        yield own
        for made in sorted(path for path in own.rglob("*") if path.is_file()):
            target = place / made.relative_to(own)
            if made.name in keep and target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            _settle(made, target)
    except Exception as error:
        if isinstance(error, OutputError) or not _is_writing(error):
            raise
        raise OutputError(f"{os.fspath(folder)}: cannot be written ({_reason(error)})") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
        if made_anew:
            with contextlib.suppress(OSError):  # what holds anything stays
                place.rmdir()


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Gives a file in `folder` for what is needed on the way; gone when the block ends."""
    _sweep_once(folder)
    handle, name = tempfile.mkstemp(prefix=_mark(_PREFIX), suffix=".part", dir=folder)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def scratch_folder() -> Path:
    """A new folder for temporary files, of a name by which :func:`sweep` knows whose it was."""
    _sweep_once(Path(tempfile.gettempdir()))
    return Path(tempfile.mkdtemp(prefix=_mark(_SCRATCH)))


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` as :func:`replacing` does."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """:func:`write`, in UTF-8."""
    write(path, text.encode())


def _settle(part: Path, place: Path) -> None:
    """Put a finished file in its place, its content on the disk before its name."""
    os.chmod(part, stat.S_IMODE(place.stat().st_mode) if place.exists() else 0o666 & ~_umask())
    handle = os.open(part, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)  # a disk that is full may say so only now
    finally:
        os.close(handle)
    os.replace(part, place)
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):  # not every file system has it
            folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


# -- what a kill left ----------------------------------------------------------------------------------------------------


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove from `folder` the parts of files, and folders of temporary files, whose process is there no more.

    Those of another machine (a network folder), or of an older LoopViz that did not say whose they are, when they are a
    day old. What cannot be looked at or removed stays.
    """
    _swept.add(os.fspath(folder))
    try:
        found = [entry for entry in os.scandir(folder) if _PART.fullmatch(entry.name)]
    except OSError:
        return
    for entry in found:
        with contextlib.suppress(OSError):
            if not _is_left_over(entry):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def _sweep_once(folder: Path) -> None:
    if os.fspath(folder) not in _swept:
        sweep(folder)


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    known = entry.stat(follow_symlinks=False)
    if hasattr(os, "getuid") and known.st_uid != os.getuid():
        return False
    named = _PART.fullmatch(entry.name)
    if named is not None and named["machine"] == _machine() and not _is_alive(int(named["process"])):
        return True
    return time.time() - known.st_mtime > STALE


def _is_alive(process: int) -> bool:
    import psutil

    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _mark(prefix: str) -> str:
    """A name's beginning that says which process of which machine makes it."""
    return f"{prefix}{_machine()}-{os.getpid()}-"


@functools.cache
def _machine() -> str:
    """This machine, or the part of it (a container) whose numbers of processes are its own: 8 hex digits."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around a library's own writing: what it raises when the system would not write becomes an OutputError.

    An error that names a file elsewhere is that file's, and stays what it is.
    """
    try:
        yield
    except Exception as error:
        own = getattr(error, "filename", None)
        elsewhere = own is not None and not os.path.abspath(os.fsdecode(own)).startswith(os.path.abspath(path))
        if isinstance(error, (OutputError, BrokenPipeError)) or elsewhere or not _is_writing(error):
            raise  # a reader that is gone is nothing that anybody must be told
        raise OutputError(f"{os.fspath(path)}: cannot be written ({_reason(error)})") from error


def rescue(path: Path, save: Callable[[Path], object]) -> Path | None:
    """Save elsewhere what could not be saved at `path`.

    Args:
        path: where it was wanted; its name is kept.
        save: writes to a path it is given.

    Returns:
        Where it is now, in a new folder of its own; `None` when no other place takes it either.
    """
    for root in (tempfile.gettempdir, Path.home, Path.cwd):
        folder = None
        try:
            folder = Path(tempfile.mkdtemp(prefix="loopviz-rescued-", dir=root()))
            save(folder / path.name)
            return folder / path.name
        except (OSError, RuntimeError):  # no home, no place for temporary files, or that is full too
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
    return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _is_writing(error: BaseException) -> bool:
    """Whether the system would not write: libraries wrap what it says."""
    if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
        return True
    if "(os error " in str(error):  # Rust libraries raise bare Exception
        return True
    # torch's zip writer, after a write that failed
    return isinstance(error, RuntimeError) and (
        "unexpected pos" in str(error) or isinstance(error.__context__, OSError)
    )


def _reason(error: BaseException) -> str:
    """What the system said, without the path that the message names anyway."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return " ".join(str(error).split()) or type(error).__name__
