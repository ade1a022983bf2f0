"""What a run leaves behind: Frames, the Trace they make, its numbers and its file."""

from loopviz.trace.schema import (
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
    "decode_states",
    "encode_states",
]
