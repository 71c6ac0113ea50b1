"""The menu, in the order of the data flow."""

from dataclasses import dataclass

from app.flow import STAGES


@dataclass(frozen=True, slots=True)
class Entry:
    """A page of the menu; `stage` is the one it belongs to, None for what shows all of them."""

    path: str
    title: str
    stage: str | None = None


PAGES = (
    Entry("/overview", "Overview"),
    Entry("/problems", "Problems", "problems"),
    Entry("/workers", "Workers", "rollouts"),
    Entry("/curricula", "Curriculum", "curricula"),
    Entry("/disputes", "Disputes", "rollouts"),
    Entry("/runs", "Runs", "training"),
    Entry("/batches", "Batches", "batches"),
)
ORDER = (None, *STAGES)
MENU = sorted(PAGES, key=lambda entry: ORDER.index(entry.stage))
