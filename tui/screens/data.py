"""Data: every dataset version, and what the chosen one is made of; import, open, remove."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from appliance.data.store import Dataset
from tui.screens.data_lines import about, cells
from tui.screens.data_removing import ask_removal
from tui.screens.data_view import DataView
from tui.screens.entry import Entry
from tui.screens.importing import ask_import
from tui.screens.listing import Listing
from tui.screens.site import SiteView
from tui.widgets.pane import Pane


class DataScreen(Listing):
    """The datasets."""

    HERE = "data"
    HELP = (
        "A dataset is your records: cleaned of empty and double ones, and split into train, val and test so"
        " that nobody stands in two of them. What the texts say stays as it is. UNIT: whose privacy is"
        " protected. The same in a shell: cloister data import|list|show|remove."
    )
    COLUMNS = ("NAME", "TASK", "UNIT", "TRAIN", "VAL", "TEST", "MADE")
    EMPTY = (
        "No data yet.\n\nHere stand the datasets that are made of your records."
        "\nPress i to import a file or a folder, or made-up records to try everything out."
    )
    RIGHTS: ClassVar[dict[str, str]] = {"import": "data.import", "remove": "data.delete"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "import", "Import"),
        Binding("d", "remove", "Remove"),
    ]
    PALETTE: ClassVar[tuple[Entry, ...]] = (
        Entry(words="data list", help="Datasets and their splits"),
        Entry(words="data import", help="Records in: a file, a folder, or made-up ones", action="import"),
        Entry(words="data show", help="What is in the chosen dataset", action="open"),
        Entry(words="data remove", help="Remove the chosen records for good", action="remove"),
    )

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

    def reason(self, action: str) -> str | None:
        """What is done to a dataset needs one."""
        if action in ("remove", "open") and self.dataset is None:
            return "no dataset is chosen"
        return super().reason(action)

    @on(DataTable.RowHighlighted)
    def show_chosen(self) -> None:
        """What the chosen dataset is."""
        pane, data = self.query_one("#about", Pane), self.dataset
        pane.display = data is not None
        if data is not None:
            pane.border_title = data.title
            pane.show(lambda width, height: about(data))

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        """Open the chosen dataset."""
        if self.dataset is not None:
            self.app.push_screen(DataView(self.dataset))

    def action_import(self) -> None:
        """Records in."""
        ask_import(self)

    def action_remove(self) -> None:
        """Remove the chosen dataset."""
        if self.dataset is not None:
            ask_removal(self, self.dataset, self.look_again)
