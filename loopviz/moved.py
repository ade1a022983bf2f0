"""Modules by the names they had: an import of an old one gives the new one, with a warning.

Nothing that LoopViz stores names a module; this is for scripts and notebooks of others. A name that is a folder now says
itself what it had (``loopviz.model.checkpoints``, ``loopviz.lab.tasks``).

On the ground floor: it imports nothing of LoopViz, and nothing heavy.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType

MOVED: Mapping[str, str] = MappingProxyType(
    {
        "loopviz.panels.ops": "loopviz.figures.edits",
        "loopviz.panels.theme": "loopviz.figures.theme",
        "loopviz.panels.labels": "loopviz.figures.labels",
        "loopviz.panels.toolbar": "loopviz.figures.toolbar",
        "loopviz.plotlyjs": "loopviz.figures.plotlyjs",
        "loopviz.panels.formulas": "loopviz.panels.kit.formulas",
        "loopviz.panels.focus": "loopviz.panels.kit.focus",
        "loopviz.panels.shared": "loopviz.panels.kit.follower",
        "loopviz.panels.running": "loopviz.panels.kit.running",
        "loopviz.panels.parts": "loopviz.panels.kit.parts",
        "loopviz.panels.paths": "loopviz.panels.kit.trajectories",
        "loopviz.panels.routes": "loopviz.panels.kit.routes",
        "loopviz.panels.attention": "loopviz.panels.loop.attention",
        "loopviz.panels.convergence": "loopviz.panels.loop.convergence",
        "loopviz.panels.cost": "loopviz.panels.loop.cost",
        "loopviz.panels.instrument": "loopviz.panels.loop.instrument",
        "loopviz.panels.key_similarity": "loopviz.panels.loop.key_similarity",
        "loopviz.panels.kv_occupancy": "loopviz.panels.loop.kv_occupancy",
        "loopviz.panels.kv_projection": "loopviz.panels.loop.kv_projection",
        "loopviz.panels.layers_run": "loopviz.panels.loop.layers_run",
        "loopviz.panels.loops_per_token": "loopviz.panels.loop.loops_per_token",
        "loopviz.panels.state_trajectory": "loopviz.panels.loop.state_trajectory",
        "loopviz.panels.text_by_loop": "loopviz.panels.loop.text_by_loop",
        "loopviz.panels.token_loop_map": "loopviz.panels.loop.token_loop_map",
        "loopviz.panels.would_say": "loopviz.panels.loop.would_say",
        "loopviz.lab.drawing": "loopviz.figures.table_figures",
        "loopviz.lab.plots": "loopviz.figures.line_styles",
        "loopviz.report": "loopviz.export.report",
        "loopviz.notebook": "loopviz.export.notebook",
        "loopviz.panel_data": "loopviz.export.panel_table",
        "loopviz.command_line": "loopviz.cli.options",
        "loopviz.lab.commands": "loopviz.cli.measure",
        "loopviz.train.commands": "loopviz.cli.train",
        "loopviz.model.lenses": "loopviz.model.exit_lens",
        "loopviz.model.checkpoint_sources": "loopviz.model.checkpoints.find",
        "loopviz.model.checkpoint_files": "loopviz.model.checkpoints.inspect",
        "loopviz.model.checkpoint_errors": "loopviz.model.checkpoints.errors",
        "loopviz.model.checkpoint_json": "loopviz.model.checkpoints.json_files",
        "loopviz.model.checkpoint_keys": "loopviz.model.checkpoints.keys",
        "loopviz.model.checkpoint_limits": "loopviz.model.checkpoints.limits",
        "loopviz.model.checkpoint_tokenizer": "loopviz.model.checkpoints.tokenizer",
        "loopviz.model.apart_tokenizer": "loopviz.model.checkpoints.apart_tokenizer",
        "loopviz.model.tokenizer_worker": "loopviz.model.checkpoints.tokenizer_worker",
        "loopviz.model.gguf_llama": "loopviz.model.checkpoints.gguf",
        "loopviz.model.gguf_header": "loopviz.model.checkpoints.gguf_header",
        "loopviz.model.gguf_tokenizer": "loopviz.model.checkpoints.gguf_tokenizer",
        "loopviz.model.gguf_pretokenizers": "loopviz.model.checkpoints.gguf_pretokenizers",
        "loopviz.model.smollm2_wheel": "loopviz.model.checkpoints.smollm2_wheel",
        "loopviz.model.quiet": "loopviz.model.checkpoints.quiet",
        "loopviz.trace.io": "loopviz.trace.file",
        "loopviz.trace.sanity": "loopviz.trace.plausible",
        "loopviz.trace.recorder": "loopviz.trace.recording.recorder",
        "loopviz.trace.recorder_attention": "loopviz.trace.recording.attention",
        "loopviz.trace.recorder_keys": "loopviz.trace.recording.keys",
        "loopviz.engine.text": "loopviz.engine.pieces",
        "loopviz.lab.windows": "loopviz.lab.reading.windows",
        "loopviz.lab.corpus": "loopviz.lab.reading.windows",
        "loopviz.lab.reading.corpus": "loopviz.lab.reading.windows",
        "loopviz.lab.full": "loopviz.lab.reading.full_pass",
        "loopviz.lab.cached": "loopviz.lab.reading.cached",
        "loopviz.lab.exit_replay": "loopviz.lab.reading.exit_replay",
        "loopviz.lab.bootstrap": "loopviz.lab.reading.intervals",
        "loopviz.lab.token_classes": "loopviz.lab.reading.token_classes",
        "loopviz.lab.text_scores": "loopviz.lab.reading.text_scores",
        "loopviz.lab.beginnings": "loopviz.lab.reading.beginnings",
        "loopviz.lab.reach": "loopviz.lab.reading.reach",
        "loopviz.lab.perplexity": "loopviz.lab.tasks.perplexity",
        "loopviz.lab.ablation": "loopviz.lab.tasks.ablation",
        "loopviz.lab.exits": "loopviz.lab.tasks.exits",
        "loopviz.lab.influence": "loopviz.lab.tasks.influence",
        "loopviz.lab.where": "loopviz.lab.tasks.where",
        "loopviz.lab.starts": "loopviz.lab.tasks.starts",
        "loopviz.lab.quality": "loopviz.lab.tasks.quality",
        "loopviz.lab.loop_use": "loopviz.lab.tasks.loop_use",
        "loopviz.lab.manual_experiment": "loopviz.lab.tasks.manual_experiment",
        "loopviz.lab.compare": "loopviz.lab.tasks.compare",
        "loopviz.lab.compare_result": "loopviz.lab.comparison.result",
        "loopviz.lab.compare_table": "loopviz.lab.comparison.table",
        "loopviz.lab.compare_curves": "loopviz.lab.comparison.curves",
        "loopviz.train.tasks": "loopviz.train.data_tasks",
        "loopviz.app.faces": "loopviz.app.explore.controls_view",
        "loopviz.app.service": "loopviz.app.explore.service",
        "loopviz.app.live": "loopviz.app.explore.run",
        "loopviz.app.drawing": "loopviz.app.explore.snapshot",
        "loopviz.app.replay": "loopviz.app.explore.replay",
        "loopviz.app.recording": "loopviz.app.explore.first_run",
        "loopviz.app.questions": "loopviz.app.explore.answers",
        "loopviz.app.steer": "loopviz.app.explore.live_changes",
        "loopviz.app.linking": "loopviz.app.explore.links",
        "loopviz.app.sharing": "loopviz.app.explore.files",
        "loopviz.app.direct": "loopviz.app.explore.event_stream",
        "loopviz.app.page_config": "loopviz.app.explore.config",
        "loopviz.app.tour": "loopviz.app.explore.tour",
        "loopviz.app.readable": "loopviz.engine.prompt_words",
        "loopviz.app.explore.prompt_words": "loopviz.engine.prompt_words",
        "loopviz.app.comparison": "loopviz.app.compare.service",
        "loopviz.app.comparison_run": "loopviz.app.compare.run",
        "loopviz.app.asked": "loopviz.app.compare.request",
        "loopviz.app.laboratory": "loopviz.app.lab.service",
        "loopviz.app.lab_run": "loopviz.app.lab.run",
        "loopviz.app.lab_form": "loopviz.app.lab.form",
        "loopviz.app.settings": "loopviz.app.controls",
        "loopviz.app.controls.settings": "loopviz.app.controls",
        "loopviz.app.presets": "loopviz.app.controls.presets",
        "loopviz.app.library": "loopviz.app.controls.examples",
        "loopviz.app.url_state": "loopviz.app.controls.link_word",
        "loopviz.app.models": "loopviz.app.sessions.models",
        "loopviz.app.notes": "loopviz.app.sessions.model_notes",
        "loopviz.app.kept_runs": "loopviz.app.sessions.registry",
        "loopviz.app.kept": "loopviz.app.sessions.memory_budget",
        "loopviz.app.places": "loopviz.app.sessions.waiting_line",
        "loopviz.app.tickets": "loopviz.app.sessions.tickets",
        "loopviz.app.mailbox": "loopviz.app.sessions.mailbox",
        "loopviz.app.wire": "loopviz.app.sessions.messages",
        "loopviz.app.downloads": "loopviz.app.sessions.table_file",
        "loopviz.app.bounds": "loopviz.app.sessions.bounds",
        "loopviz.app.faults": "loopviz.app.sessions.faults",
        "loopviz.app.private_paths": "loopviz.app.sessions.private_paths",
        "loopviz.app.glossary": "loopviz.app.server.glossary",
        "loopviz.app.theme": "loopviz.app.server.theme",
        "loopviz.app.look": "loopviz.app.server.document",
        "loopviz.app.preview": "loopviz.app.server.link_preview",
        "loopviz.app.sources": "loopviz.app.server.source_code",
        "loopviz.app.door": "loopviz.app.server.request_guard",
        "loopviz.app.policy": "loopviz.app.server.security_headers",
        "loopviz.app.shell": "loopviz.app.page",
    }
)


class _Former(Loader):
    """Loads the module that a former name means: the very module, not a copy of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        warnings.warn(f"{spec.name} is {self.name} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # importing it by another name has written over it


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _Former(MOVED[fullname])) if fullname in MOVED else None


def install() -> None:
    """From now on the old names can be imported. They are asked for last: whatever exists comes first."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
