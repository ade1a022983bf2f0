"""What a run leaves behind: Frames, the Trace they make, its numbers and its file."""

from loopviz.trace.changes import as_of, blocks_at, changed_at, changes_of
from loopviz.trace.packed import decode_floats, encode_floats
from loopviz.trace.schema import (
    EXTRAS,
    SCHEMA_VERSION,
    BlockFrame,
    BlockMeta,
    Change,
    Frame,
    KVFrame,
    Meta,
    StepColumns,
    check_frame,
    check_meta,
    decode_states,
    encode_states,
)
from loopviz.trace.trace import Trace

__all__ = [
    "EXTRAS",
    "SCHEMA_VERSION",
    "BlockFrame",
    "BlockMeta",
    "Change",
    "Frame",
    "KVFrame",
    "Meta",
    "StepColumns",
    "Trace",
    "as_of",
    "blocks_at",
    "changed_at",
    "changes_of",
    "check_frame",
    "check_meta",
    "decode_floats",
    "decode_states",
    "encode_floats",
    "encode_states",
]
