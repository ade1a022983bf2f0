"""What a server lets its visitors do, in words: told before anybody meets a limit (:mod:`loopviz.app.profile` has them all)."""

from __future__ import annotations

from collections.abc import Iterator

from loopviz.app.profile import GIB, MIB, Profile
from loopviz.app.sessions.bounds import PROMPT_CHARACTERS
from loopviz.app.sessions.store_desk import quotas_of
from loopviz.app.texts import text
from loopviz.engine.limits import CARD_SECONDS
from loopviz.store.mirror import AN_HOUR

TIMES = ("seconds_run", "seconds_compare", "seconds_lab", "estimate_seconds")
STORED_SIZES = ("store_run_bytes", "store_place_bytes", "store_bytes")
SIZES = ("work_bytes", "together_bytes", "run_bytes", "kept_bytes", "trace_bytes", "model_bytes", "answer_bytes")
COUNTS = (
    "runs_at_once",
    "measurements_at_once",
    "runs_of_one",
    "queue",
    "ttt_tokens",
    "trace_tokens",
    "trace_rows",
    "text_characters",
    "line_characters",
    "table_characters",
    "calls_of_one",
)
# Of a model that a visitor names; where nobody may name one, nobody meets them.
NAMED_SIZES = ("download_bytes", "one_model_bytes")
NAMED_COUNTS = ("layers", "vocabulary")
# Of a class folder, by the store's own quotas (:class:`loopviz.store.Quotas`).
FOLDER_SIZES = ("folder_answer_bytes", "answer_bytes")


def told(profile: Profile, lang: str) -> Iterator[tuple[str, str]]:
    """A server's limits that a visitor may meet: what each is of, and how much; who may name which models first."""
    which = "any" if profile.any_model else "some" if profile.named_models else "list"
    yield text(lang, "limits.models"), text(lang, f"limits.models.{which}", names=", ".join(profile.named_models))
    if which != "list":
        for name in NAMED_SIZES:
            yield text(lang, f"limits.{name}"), _size(getattr(profile, name))
        for name in NAMED_COUNTS:
            yield text(lang, f"limits.{name}"), f"{getattr(profile, name):,}"
    yield text(lang, "limits.paths"), text(lang, "limits.yes" if profile.paths else "limits.no")
    if profile.zero_gpu:
        yield text(lang, "limits.zero_gpu"), _card(profile, lang)
    for name in TIMES:
        seconds = getattr(profile, name)
        yield text(lang, f"limits.{name}"), text(lang, "limits.none") if seconds is None else _time(seconds, lang)
    yield text(lang, "limits.prompt_characters"), f"{PROMPT_CHARACTERS:,}"
    for name in COUNTS:
        yield text(lang, f"limits.{name}"), f"{getattr(profile, name):,}"
    for name in SIZES:
        yield text(lang, f"limits.{name}"), _size(getattr(profile, name))
    yield from _kept(profile, lang)


def _card(profile: Profile, lang: str) -> str:
    if profile.lend_from is None:
        return text(lang, "limits.zero_gpu.off")
    if profile.lend_from == 0:
        return text(lang, "limits.zero_gpu.all", seconds=CARD_SECONDS)
    return text(lang, "limits.zero_gpu.on", millions=f"{profile.lend_from / 1e6:,.0f}", seconds=CARD_SECONDS)


def _kept(profile: Profile, lang: str) -> Iterator[tuple[str, str]]:
    """What is kept of saved runs, and in class folders; one line where none are."""
    days = text(lang, "limits.days", n=profile.store_days) if profile.store else text(lang, "limits.store_off")
    yield text(lang, "limits.store_days"), days
    if not profile.store:
        return
    yield text(lang, "limits.store_visitor_runs"), f"{profile.store_visitor_runs:,}"
    for name in STORED_SIZES:
        yield text(lang, f"limits.{name}"), _size(getattr(profile, name))
    if profile.store_dataset:
        yield text(lang, "limits.commits"), f"{AN_HOUR:,}"
    folders = f"{profile.store_folders:,}" if profile.store_new_folders else text(lang, "limits.store_folders.host")
    yield text(lang, "limits.store_folders"), folders
    quotas = quotas_of(profile)
    yield text(lang, "limits.folder_answers"), f"{quotas.folder_answers:,}"
    for name in FOLDER_SIZES:
        yield text(lang, f"limits.folder.{name}"), _size(getattr(quotas, name))


def _time(seconds: float, lang: str) -> str:
    whole, unit = (seconds / 60, "minutes") if seconds % 60 == 0 else (seconds, "seconds")
    return text(lang, f"limits.{unit}", n=f"{whole:g}")


def _size(amount: int) -> str:
    return f"{amount / GIB:g} GiB" if amount >= GIB else f"{amount / MIB:g} MiB"
