"""The header of a GGUF file: metadata and the tensors' names, shapes and places, every length checked before use.

`gguf.GGUFReader` trusts the lengths a file states: on a damaged file it can loop for ever, and it needs seconds for a
vocabulary. So a file is looked at here; only the blocks of a tensor are left to gguf, which knows every quantisation.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from .errors import CheckpointError, cause

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
_VERSIONS = (2, 3)
# Far more than any Llama has: lists of a file's whole length would take many times the file's size.
_MOST_VALUES = 4_000_000  # in all lists together
_MOST_ENTRIES = 200_000  # tensors, and keys
_MOST_BYTES = 64 * 2**20  # before the tensors' data


@dataclass(frozen=True)
class Array:
    """An array in the metadata: how many values, and the values when they are strings or numbers.

    Args:
        kind: type of the values.
        values: list of str, int, float or bool.
    """

    kind: GGUFValueType
    values: list[Any]


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: `shape` as torch has it (rows first), `offset` in bytes from the start of the file."""

    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class Header:
    """Metadata by key (scalars, str, or `Array`) and tensors by name."""

    fields: dict[str, Any]
    tensors: dict[str, Tensor]


def read_header(file: Path) -> Header:
    """Read and check the header of `file`.

    Raises:
        CheckpointError: not GGUF, of another version, damaged, or shorter than its tensors.
    """
    try:
        if file.stat().st_size < 24:
            raise CheckpointError(f"{file}: has {file.stat().st_size} bytes, too few for a GGUF file; fetch it again")
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check_start(data[:8], file)
            return _Walker(data).header()
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be opened ({cause(error)})") from error
    except _NotRead as error:
        raise CheckpointError(f"{file}: {error}; take another file of this model") from error
    except Exception as error:  # a length that lies, a type that does not exist: the bytes are not what was written
        raise CheckpointError(f"{file}: damaged or not finished ({cause(error)}); fetch it again") from error


class _NotRead(Exception):
    """The file is whole, and holds what is not read here."""


def _check_start(start: bytes, file: Path) -> None:
    if start[:4] != b"GGUF":
        raise CheckpointError(f"{file}: does not start with 'GGUF'; it is not a GGUF file")
    version, swapped = int.from_bytes(start[4:], "little"), int.from_bytes(start[4:], "big")
    if version in _VERSIONS:
        return
    if swapped in (1, *_VERSIONS):
        raise CheckpointError(f"{file}: its numbers are stored big end first (for other processors); take a usual file")
    raise CheckpointError(
        f"{file}: GGUF version {version}; only {', '.join(map(str, _VERSIONS))} are read: take a newer file of this model"
    )


class _Walker:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 4
        self.size = len(data)
        self.values = 0  # in lists, so far

    def header(self) -> Header:
        self.take("I")  # the version, known by now
        n_tensors, n_fields = self.take("Q"), self.take("Q")
        if max(n_tensors, n_fields) > _MOST_ENTRIES:
            raise _NotRead(f"it announces {n_tensors} tensors and {n_fields} keys, which no Llama has")
        fields: dict[str, Any] = {}
        for _ in range(n_fields):
            key = self.text()
            if key in fields:
                raise ValueError(f"{key} is there twice")
            fields[key] = self.value(GGUFValueType(self.take("I")))
        places = [self.place() for _ in range(n_tensors)]
        alignment = fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment={alignment}, expected a power of two")
        start = -(-self.at // alignment) * alignment
        tensors: dict[str, Tensor] = {}
        for name, shape, kind, offset in places:
            tensor = Tensor(shape, kind, start + offset, _n_bytes(shape, kind))
            if tensor.offset + tensor.n_bytes > self.size:
                raise ValueError(f"tensor {name} ends at byte {tensor.offset + tensor.n_bytes} of {self.size}")
            if name in tensors:
                raise ValueError(f"tensor {name} is there twice")
            tensors[name] = tensor
        return Header(fields, tensors)

    def take(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def need(self, n_bytes: int) -> None:
        if n_bytes > self.size - self.at:
            raise ValueError(f"{n_bytes} bytes announced at byte {self.at} of {self.size}")

    def text(self) -> str:
        length = self.take("Q")
        self.need(length)
        if self.at + length > _MOST_BYTES:
            raise _NotRead(f"its metadata are longer than {_MOST_BYTES >> 20} MiB, which no Llama's are")
        self.at += length
        # Token texts may be cut inside a character.
        return self.data[self.at - length : self.at].decode("utf-8", errors="replace")

    def value(self, kind: GGUFValueType) -> Any:
        if kind == GGUFValueType.STRING:
            return self.text()
        if kind == GGUFValueType.ARRAY:
            return self.array()
        return self.take(_SCALARS[kind])

    def array(self) -> Array:
        kind, count = GGUFValueType(self.take("I")), self.take("Q")
        if kind == GGUFValueType.ARRAY:
            raise _NotRead("its metadata hold an array of arrays, which no Llama has")
        self.values += count
        if self.values > _MOST_VALUES:
            raise _NotRead(f"its metadata hold lists of {self.values} values, which no Llama has")
        if kind == GGUFValueType.STRING:
            self.need(8 * count)
            return Array(kind, [self.text() for _ in range(count)])
        code = f"<{count}{_SCALARS[kind]}"
        self.need(count * struct.calcsize("<" + _SCALARS[kind]))
        values = list(struct.unpack_from(code, self.data, self.at))
        self.at += struct.calcsize(code)
        return Array(kind, values)

    def place(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
        name, n_dims = self.text(), self.take("I")
        if n_dims > 4:
            raise ValueError(f"tensor {name} has {n_dims} dimensions, at most 4 are possible")
        shape = tuple(self.take("Q") for _ in range(n_dims))[::-1]
        number = self.take("I")
        if number not in iter(GGMLQuantizationType):
            raise _NotRead(f"tensor {name} is stored as type {number}, which the installed gguf package does not know")
        kind = GGMLQuantizationType(number)
        if shape and shape[-1] % GGML_QUANT_SIZES[kind][0]:
            raise ValueError(f"tensor {name} has rows of {shape[-1]} numbers, no multiple of a block of {kind.name}")
        return name, shape, kind, self.take("Q")


def _n_bytes(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    block, n_bytes = GGML_QUANT_SIZES[kind]
    return math.prod(shape) * n_bytes // block
