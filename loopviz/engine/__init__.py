"""Running a prompt through a LoopLlama: settings in, Frames out."""

from loopviz.engine.sampling import Sampler, StreamSettings
from loopviz.engine.steering import Steering
from loopviz.engine.stream import context_length, run, run_meta, stream
from loopviz.engine.summary import Summary, summarize
from loopviz.engine.text import Pieces, TokenTexts, encode_prompt

__all__ = [
    "Pieces",
    "Sampler",
    "Steering",
    "StreamSettings",
    "Summary",
    "TokenTexts",
    "context_length",
    "encode_prompt",
    "run",
    "run_meta",
    "stream",
    "summarize",
]
