"""Data: every dataset version, and what the chosen one is made of."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable

from appliance.data.store import Dataset
from tui.screens.entry import Entry
from tui.screens.listing import Listing
from tui.screens.site import SiteView
from tui.widgets.pane import Pane


class DataScreen(Listing):
    """The datasets."""

    HERE = "data"
    HELP = (
        "A dataset is your records, cleaned, personal data taken out, and split into train, val and test."
        " UNIT: whose privacy is protected. The same in a shell: cloister data list|show|check|import."
    )
    COLUMNS = ("NAME", "TASK", "UNIT", "TRAIN", "VAL", "TEST", "MADE")
    EMPTY = (
        "No data yet.\n\nHere stand the datasets that are made of your records."
        "\nImport some in a shell:\ncloister data import FILE --name NAME --text COLUMN --label COLUMN"
        " --unit COLUMN"
    )
    PALETTE: ClassVar[tuple[Entry, ...]] = (Entry(words="data list", help="Datasets and their splits"),)

    def body(self) -> ComposeResult:
        """The list, in a box, and what the chosen one is."""
        with Vertical(id="body"):
            with Vertical(classes="box") as box:
                box.border_title = "Datasets"
                yield from self.table()
            yield Pane("Dataset", id="about")

    def draw(self, view: SiteView) -> None:
        """Fill the list, newest first."""
        self.fill([(data.title, cells(data)) for data in reversed(view.datasets)])
        self.show_chosen()

    @property
    def dataset(self) -> Dataset | None:
        """The dataset under the cursor."""
        datasets = self.view.datasets if self.view else ()
        return next((data for data in datasets if data.title == self.chosen), None)

    @on(DataTable.RowHighlighted)
    def show_chosen(self) -> None:
        """What the chosen dataset is."""
        pane, data = self.query_one("#about", Pane), self.dataset
        pane.display = data is not None
        if data is not None:
            pane.border_title = data.title
            pane.show(lambda width, height: about(data))


def cells(data: Dataset) -> tuple[str, ...]:
    """One row."""
    made = "removed" if data.removed else data.created[:10]
    counts = (f"{data.counts.get(split, 0):,}" for split in ("train", "val", "test"))
    return (data.title, data.task, data.unit or "none", *counts, made)


def about(data: Dataset) -> str:
    """Kind, labels, units, where it came from."""
    lines = ["made-up (synthetic) records" if data.synthetic else "records of this site"]
    if data.unit:
        lines[0] += f" of {sum(data.units.values()):,} units ({data.unit})"
    if data.labels:
        lines.append("labels: " + ", ".join(data.labels))
    if data.removed:
        lines.append(f"its records were removed on {data.removed[:10]}; the figures stay")
    return "\n".join(lines)
