"""What a run leaves behind: Frames, the Trace they make, its numbers and its file."""

from loopviz.trace.packed import decode_floats, encode_floats
from loopviz.trace.schema import (
    EXTRAS,
    SCHEMA_VERSION,
    BlockFrame,
    BlockMeta,
    Frame,
    KVFrame,
    Meta,
    StepColumns,
    Trace,
    check_frame,
    check_meta,
    decode_states,
    encode_states,
)

__all__ = [
    "EXTRAS",
    "SCHEMA_VERSION",
    "BlockFrame",
    "BlockMeta",
    "Frame",
    "KVFrame",
    "Meta",
    "StepColumns",
    "Trace",
    "check_frame",
    "check_meta",
    "decode_floats",
    "decode_states",
    "encode_floats",
    "encode_states",
]
