"""Running a prompt through a LoopLlama: settings in, Frames out."""

from loopviz.engine.pieces import Pieces, TokenTexts, encode_prompt, unknown_words
from loopviz.engine.provenance import provenance, shown_name, weights_digest
from loopviz.engine.sampling import Sampler, StreamSettings
from loopviz.engine.steering import Steering
from loopviz.engine.stream import context_length, run, run_meta, stream
from loopviz.engine.summary import Summary, summarize

__all__ = [
    "Pieces",
    "Sampler",
    "Steering",
    "StreamSettings",
    "Summary",
    "TokenTexts",
    "context_length",
    "encode_prompt",
    "provenance",
    "run",
    "run_meta",
    "shown_name",
    "stream",
    "summarize",
    "unknown_words",
    "weights_digest",
]
