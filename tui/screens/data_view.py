"""One dataset: what its import did, what was found, who learnt from it, the import's log."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll

from appliance.core.errors import NotFound
from appliance.core.events import Event
from appliance.data.store import Dataset
from tui.screens.data_lines import found_text, learnt_from, log_text, steps_text, used_text, versions_of
from tui.screens.data_removing import ask_removal
from tui.screens.frame import Looking
from tui.screens.importing import ask_import
from tui.screens.site import SiteView
from tui.screens.story import Line, Story
from tui.widgets.pane import Pane


class DataView(Looking):
    """A dataset version."""

    HERE = "data"
    HELP = (
        "Records that are empty, double, too long, or say nobody's name are left out, and counted here. A"
        " version never changes: an import under the same name makes the next one. What the texts say stays"
        " as it is: nothing takes names or numbers out of them. The same in a shell: cloister data show NAME."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"import": "data.import", "remove": "data.delete"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "import", "Next version"),
        Binding("l", "log", "Log"),
        Binding("d", "remove", "Remove"),
    ]

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        self.data = data

    def crumbs(self) -> list[str]:
        """Data, then this one."""
        return [*super().crumbs(), self.data.title]

    def body(self) -> ComposeResult:
        """Four panes."""
        with VerticalScroll(id="body", can_focus=False):
            with Horizontal(id="upper"):
                yield Pane("Steps", id="steps")
                yield Pane("Found", id="found")
            yield Pane("Learnt from it", id="used")
            yield Pane("Log of its import", id="import-log")

    def read_more(self, view: SiteView) -> list[Event]:
        """The events of its import, as long as that job is kept."""
        try:
            return list(self.site.job(self.data.job).events)
        except NotFound:
            return []

    def draw(self, view: SiteView) -> None:
        """Fill the panes."""
        data, events = self.data, self.more
        log: list[Line] = Story().take(events, "done")
        models, others = learnt_from(data, view.models), versions_of(data, view.datasets)
        for name, draw in (
            ("steps", lambda width, height: steps_text(data, events)),
            ("found", lambda width, height: found_text(data, width)),
            ("used", lambda width, height: used_text(data, models, others)),
            ("import-log", lambda width, height: log_text(log, height)),
        ):
            self.query_one(f"#{name}", Pane).show(draw)

    def reason(self, action: str) -> str | None:
        """Its log is that of a job."""
        if action == "log" and not self.more:
            return "its import is not known any more"
        return super().reason(action)

    def action_import(self) -> None:
        """Import a next version of it."""
        ask_import(self, {"name": self.data.name})

    def action_log(self) -> None:
        """The whole import."""
        self.open_job(self.data.job)

    def action_remove(self) -> None:
        """Remove it and go back to the list."""
        ask_removal(self, self.data, self.action_back)
