"""What a server lets its visitors do: every limit, in one table, with its value for each kind of server.

`local` is for the one who sits at the machine, `class` for thirty pupils on one laptop's network, `public` for anybody who finds
the address. Free of Gradio and torch.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from loopviz.engine.address import VARIABLE, device_named, engine_address
from loopviz.machine import PRECISIONS

GIB = 2**30
MIB = 2**20


@dataclass(frozen=True)
class Profile:
    """The limits of one server.

    Attributes:
        name: "local", "class" or "public".
        paths: whether visitors may name folders and files of this machine.
        any_model: whether visitors may name any model of the Hub.
        teaches: whether visitors may have a model taught: a copy of it in memory, and all the processor for as long as they like.
        named_models: those of the Hub that they may name all the same, by the host's own choice.
        seconds_run, seconds_compare, seconds_lab: that a run, a comparison, a measurement may take; None: no end.
        estimate_seconds: that one of these may be estimated to take before it begins; None: no end.
        work_bytes: of K/V, states, attention and logits that one of these may hold at a time.
        together_bytes: of the same, that all of these together may hold; one that does not fit beside the others waits.
        runs_at_once: runs, comparisons and measurements made at a time, on all pages together. Runs of one model share passes: eight take
            a third to a half of the time that they take one after the other. Each may be `run_bytes` in the end.
        measurements_at_once: of these, comparisons and measurements, and on TTT texts that are read again: each has passes of its own.
        runs_of_one: of these, of one visitor: what is left is free for those who come while all of hers are made.
        queue: of runs that may wait in all; who comes later is told so.
        kept_bytes: of finished runs, comparisons, measurements and opened files together.
        carried_runs: that visitors took from one page to another, kept at a time; carried_seconds: each, after it was last looked at.
        distances: at which Anatomy tells a score at a time.
        ttt_tokens: that a run on TTT may choose; each is drawn in every picture.
        readings_waiting: that wait there for a model to read a run again; reading_patience: seconds, before one is told so.
        run_bytes: that one of these may grow to while it is made.
        trace_bytes, trace_tokens, trace_rows: of a file that is opened, packed and unpacked; its tokens; its tables' rows.
        model_bytes: of parameters of the models held beside the default one; model_seconds: that one of them is held which nobody
            needs; None: until another needs its room.
        one_model_bytes: of parameters of one model that a visitor names; what memory holds is asked besides.
        model_loads: of models that visitors name, at a time; who comes later waits. Those offered never do.
        models_wanted: loads begun because a page looked at a model; one whose model is not among them asks again.
        download_bytes: of the files of a model that a visitor may fetch.
        layers, vocabulary: of a model that a visitor may load.
        tokenizer_seconds, tokenizer_bytes: that a stranger's tokenizer or template may take for one text.
        body_bytes: of a call that a page makes; a text for the Lab is part of one.
        question_bytes: of a question that a page's script asks, and of any other call.
        body_seconds: that either may take to arrive.
        files_at_once: that visitors open, on their way at a time; files_read_at_once: of these; files_made_at_once: for them.
        file_seconds: that a file may take to arrive; pause_seconds: that it may rest on its way.
        text_characters: of a text or file for the Lab; line_characters: of any other field there.
        rows_shown: of a measurement, on the page; its files have all.
        line_messages: that wait for a page which reads too slowly; answer_messages: of one answer.
        events_at_once: of one kind of a page's events, answered at a time; short_events: of those that no run holds up.
        pages: whose starts are remembered, the least recently heard of goes first.
        store: the folder of stored runs; "": none are kept.
        store_dataset: the Hub's private dataset that holds them, where the folder does not outlive the server; "": the folder does.
        store_run_bytes, store_bytes: of one stored run, of all of them; store_visitor_runs: of one visitor.
        store_place_bytes: of all visitors of one address. store_days: that one is kept.
        store_folders: class folders; store_new_folders: whether visitors may make them.
        calls_at_once, calls_of_one: of programs, answered or waiting at a time, of all and of one address.
        table_characters: of one table of what a class handed in.
        answer_bytes: of a Trace in what a program is answered, as JSON or as a file.
        zero_gpu: whether it is a Space on ZeroGPU hardware.
        lend_from: parameters of the smallest model whose runs are made on the card that is lent there; None: it is not used.
        precision: what the weights of its models are held in, one of `loopviz.machine.PRECISIONS`; a server that is opened by a command has
            `auto` (:func:`with_usual_precision`).
        device: where its models are computed, as :func:`loopviz.model.devices.resolve_device` takes it; TTT models are on the CPU.
        engine: where its models run, as `LOOPVIZ_ENGINE` is written (:mod:`loopviz.engine.address`); "": in this process.
        log: a line for every run: "text" or "json"; "": none. log_prompts: whether prompts, and errors' messages, may be in it.
        sessions: pages whose form Gradio remembers, at up to half a megabyte each; of one that it forgot it makes it anew.
    """

    name: str
    paths: bool
    any_model: bool
    teaches: bool
    named_models: tuple[str, ...]
    seconds_run: float | None
    seconds_compare: float | None
    seconds_lab: float | None
    estimate_seconds: float | None
    work_bytes: int
    together_bytes: int
    runs_at_once: int
    measurements_at_once: int
    runs_of_one: int
    queue: int
    kept_bytes: int
    carried_runs: int
    carried_seconds: float
    distances: int
    ttt_tokens: int
    readings_waiting: int
    reading_patience: float
    run_bytes: int
    trace_bytes: int
    trace_tokens: int
    trace_rows: int
    model_bytes: int
    model_seconds: float | None
    one_model_bytes: int
    model_loads: int
    models_wanted: int
    download_bytes: int
    layers: int
    vocabulary: int
    tokenizer_seconds: float
    tokenizer_bytes: int
    body_bytes: int
    question_bytes: int
    body_seconds: float
    pause_seconds: float
    events_at_once: int
    short_events: int
    pages: int
    line_messages: int
    answer_messages: int
    files_at_once: int
    files_read_at_once: int
    files_made_at_once: int
    file_seconds: float
    text_characters: int
    line_characters: int
    rows_shown: int
    store_run_bytes: int
    store_visitor_runs: int
    store_place_bytes: int
    store_bytes: int
    store_days: int
    store_folders: int
    store_new_folders: bool
    table_characters: int
    calls_at_once: int
    calls_of_one: int
    answer_bytes: int
    sessions: int
    precision: str = "exact"
    device: str = "cpu"
    store: str = ""
    store_dataset: str = ""
    engine: str = ""
    log: str = ""
    log_prompts: bool = False
    zero_gpu: bool = False
    lend_from: int | None = None


LOCAL = Profile(
    name="local",
    paths=True,
    any_model=True,
    teaches=True,
    named_models=(),
    seconds_run=None,
    seconds_compare=None,
    seconds_lab=None,
    estimate_seconds=None,
    work_bytes=8 * GIB,
    together_bytes=8 * GIB,
    runs_at_once=15,
    measurements_at_once=2,
    runs_of_one=15,
    queue=64,
    kept_bytes=2 * GIB,
    carried_runs=64,
    carried_seconds=3_600.0,
    distances=4_096,
    ttt_tokens=1_024,
    readings_waiting=4,
    reading_patience=10.0,
    run_bytes=1 * GIB,
    trace_bytes=48 * MIB,
    trace_tokens=50_000,
    trace_rows=2_000_000,
    model_bytes=8 * GIB,
    model_seconds=None,
    one_model_bytes=1024 * GIB,
    model_loads=2,
    models_wanted=8,
    download_bytes=64 * GIB,
    layers=512,
    vocabulary=1_000_000,
    tokenizer_seconds=20.0,
    tokenizer_bytes=1 * GIB,
    body_bytes=16 * MIB,
    question_bytes=MIB // 2,
    body_seconds=60.0,
    pause_seconds=20.0,
    events_at_once=4,
    short_events=32,
    pages=4_096,
    line_messages=200,
    answer_messages=32,
    files_at_once=4,
    files_read_at_once=1,
    files_made_at_once=2,
    file_seconds=300.0,
    text_characters=2_000_000,
    line_characters=2_000,
    rows_shown=300,
    store_run_bytes=48 * MIB,
    store_visitor_runs=500,
    store_place_bytes=8 * GIB,
    store_bytes=8 * GIB,
    store_days=365,
    store_folders=200,
    store_new_folders=True,
    table_characters=32 * MIB,
    calls_at_once=16,
    calls_of_one=16,
    answer_bytes=256 * MIB,
    sessions=200,
)
PUBLIC = Profile(
    name="public",
    paths=False,
    any_model=False,
    teaches=False,
    named_models=(),
    seconds_run=300.0,
    seconds_compare=600.0,
    seconds_lab=900.0,
    estimate_seconds=1_800.0,
    work_bytes=1 * GIB,
    together_bytes=4 * GIB,
    runs_at_once=8,
    measurements_at_once=2,
    runs_of_one=3,
    queue=64,
    kept_bytes=1 * GIB,
    carried_runs=64,
    carried_seconds=1_800.0,
    distances=4_096,
    ttt_tokens=512,
    readings_waiting=4,
    reading_patience=10.0,
    run_bytes=120 * MIB,
    trace_bytes=48 * MIB,
    trace_tokens=10_000,
    trace_rows=1_000_000,
    model_bytes=2 * GIB,
    model_seconds=1_800.0,
    one_model_bytes=2 * GIB,
    model_loads=2,
    models_wanted=8,
    download_bytes=4 * GIB,
    layers=128,
    vocabulary=300_000,
    tokenizer_seconds=5.0,
    tokenizer_bytes=512 * MIB,
    body_bytes=16 * MIB,
    question_bytes=MIB // 2,
    body_seconds=60.0,
    pause_seconds=20.0,
    events_at_once=4,
    short_events=32,
    pages=4_096,
    line_messages=200,
    answer_messages=32,
    files_at_once=4,
    files_read_at_once=1,
    files_made_at_once=2,
    file_seconds=300.0,
    text_characters=2_000_000,
    line_characters=2_000,
    rows_shown=300,
    store_run_bytes=16 * MIB,
    store_visitor_runs=20,
    store_place_bytes=512 * MIB,
    store_bytes=2 * GIB,
    store_days=30,
    store_folders=200,
    store_new_folders=False,
    table_characters=32 * MIB,
    calls_at_once=8,
    calls_of_one=2,
    answer_bytes=32 * MIB,
    sessions=200,
)
# Known people, many at once, one machine that they wait for together: runs end sooner, the line is long enough for all of them
# on several pages, and what is kept of each is a share of what a laptop can spare. They name no files and no models of their own.
CLASS = replace(
    PUBLIC,
    name="class",
    seconds_run=120.0,
    seconds_compare=180.0,
    seconds_lab=300.0,
    estimate_seconds=300.0,
    work_bytes=512 * MIB,
    runs_at_once=15,  # of a class of thirty, who press Run together: the first word comes in half the time that eight give it
    queue=128,
    run_bytes=64 * MIB,
    carried_seconds=3_600.0,
    ttt_tokens=256,
    trace_bytes=24 * MIB,
    trace_tokens=5_000,
    trace_rows=500_000,
    store_visitor_runs=50,
    store_place_bytes=2 * GIB,
    store_days=200,
    store_new_folders=True,
)
STORE_DATASET = "LOOPVIZ_STORE_DATASET"
_DATASET = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
USUAL_PRECISION = "auto"  # of a server that is opened by a command
LOGS = ("", "text", "json")
# Of ZeroGPU's card, by LOOPVIZ_ZERO_GPU: a model of fewer parameters is quick enough on a processor, and a visitor's minutes are few.
LENT_FROM = {"": 500_000_000, "off": None, "all": 0}
PROFILES = {profile.name: profile for profile in (LOCAL, CLASS, PUBLIC)}


def profile_of(host: str, environ: Mapping[str, str], asked: str | None = None) -> Profile:
    """The profile of a server that listens at `host`: as asked for, else `public` wherever others can reach it.

    Args:
        host: the address it listens at.
        environ: `LOOPVIZ_PROFILE` asks too; `SPACE_ID` is a Space's; `LOOPVIZ_NAMED_MODELS`: ids of the Hub, with commas;
            `LOOPVIZ_STORE`: the folder of stored runs; `LOOPVIZ_STORE_DATASET`: the dataset that holds it; as :func:`with_usual_store` else.
            `LOOPVIZ_LOG`: `text` or `json`; `LOOPVIZ_LOG_PROMPTS`: `1` or `0`. `SPACES_ZERO_GPU`: a Space's, on that hardware;
            `LOOPVIZ_ZERO_GPU`: which models its card is for, `all` or none, `off`; else large ones.
            `LOOPVIZ_PRECISION`: what weights are held in; `LOOPVIZ_DEVICE`: where they are, which is not looked at here.
            `LOOPVIZ_ENGINE`: where models run.
        asked: by the command line; counts before the environment.

    Raises:
        ValueError: no profile, no precision or no way to log is called so; an engine that is no address, or needs what is not installed; a
            dataset that is no id.
    """
    wanted = asked or environ.get("LOOPVIZ_PROFILE") or ""
    if wanted and wanted not in PROFILES:
        raise ValueError(f"profile={wanted!r}: no such profile; choose one of {', '.join(PROFILES)}")
    reached = "SPACE_ID" in environ or not is_loopback(host)
    found = PROFILES[wanted or ("public" if reached else "local")]
    named = tuple(name.strip() for name in environ.get("LOOPVIZ_NAMED_MODELS", "").split(",") if name.strip())
    found = replace(found, named_models=named) if named else found
    log, prompts = _one_of(environ, "LOOPVIZ_LOG", LOGS), _one_of(environ, "LOOPVIZ_LOG_PROMPTS", ("", "0", "1")) == "1"
    found = replace(found, log=log, log_prompts=prompts) if log or prompts else found
    if zero_gpu(environ):
        chosen = _one_of(environ, "LOOPVIZ_ZERO_GPU", tuple(LENT_FROM))
        found = replace(found, zero_gpu=True, lend_from=LENT_FROM[chosen])
    if precision := _one_of(environ, "LOOPVIZ_PRECISION", ("", *PRECISIONS)):
        found = replace(found, precision=precision)
    if device := environ.get("LOOPVIZ_DEVICE", "").strip():
        found = replace(found, device=device)
    if engine := engine_address(environ.get(VARIABLE, "")):
        found = replace(found, engine=str(engine))
    if dataset := environ.get(STORE_DATASET, "").strip():
        if not _DATASET.fullmatch(dataset):
            raise ValueError(f"{STORE_DATASET}={dataset!r}: must be the id of a private dataset of the Hub, OWNER/NAME")
        found = replace(found, store_dataset=dataset)
    folder = environ.get("LOOPVIZ_STORE", "").strip()
    return replace(found, store=folder) if folder else found


def with_usual_store(profile: Profile, environ: Mapping[str, str]) -> Profile:
    """The profile with a folder for stored runs where none was named: the user's own, but for a public server without a dataset, which
    keeps none then."""
    if profile.store or (profile.name == "public" and not profile.store_dataset):
        return profile
    data = environ.get("XDG_DATA_HOME") or environ.get("LOCALAPPDATA") or os.path.join("~", ".local", "share")
    return replace(profile, store=os.path.join(os.path.expanduser(data), "loopviz", "store"))


def with_usual_precision(profile: Profile, environ: Mapping[str, str]) -> Profile:
    """The profile with `auto` where nobody named a precision: exact wherever that is as quick as one reads along. Exact on a device, for it is
    the processor that this is measured on."""
    named = environ.get("LOOPVIZ_PRECISION", "").strip()
    return profile if named or profile.device != "cpu" else replace(profile, precision=USUAL_PRECISION)


def on_its_device(profile: Profile) -> Profile:
    """The profile with the device that its name means on this machine; for another than the CPU that imports PyTorch.

    Raises:
        ValueError: no such device, or none of it here; one beside a cluster, which has its own; or a precision other than exact on it.
    """
    if profile.device == "cpu":
        return profile
    if profile.engine:
        raise ValueError(
            f"device={profile.device!r}: models run on the cluster {profile.engine}, on devices of its own; leave it out"
        )
    device = device_named(profile.device)
    if device != "cpu" and profile.precision != "exact":
        raise ValueError(
            f"precision={profile.precision!r}: half and int8 are measured, and computed, on the CPU, and device={profile.device!r} is {device}; "
            "leave one of them out"
        )
    return replace(profile, device=device)


def zero_gpu(environ: Mapping[str, str]) -> bool:
    """Whether this is a Space on ZeroGPU hardware, by its variables: as the package `spaces` reads them."""
    return environ.get("SPACES_ZERO_GPU", "").strip().lower() in ("1", "t", "true")


def _one_of(environ: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    value = environ.get(name, "").strip()
    if value not in known:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(filter(None, known))}, or left out")
    return value


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address; names other than localhost may mean anything."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
