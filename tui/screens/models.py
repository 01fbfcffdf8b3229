"""Models: bases, adapters and GGUF files, and where the chosen one came from."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable

from appliance.models.registry import Model
from tui.screens.entry import Entry
from tui.screens.listing import Listing
from tui.screens.modals import Words
from tui.screens.model_lines import card_text, cells, lineage, lineage_text
from tui.screens.site import SiteView
from tui.widgets.pane import Pane


class ModelsScreen(Listing):
    """The registry."""

    HERE = "models"
    HELP = (
        "base: a model you start from. adapter: what training made of it. gguf: a file to serve."
        " ACC: accuracy on held-out records, from the newest report. GATE: whether it may be served."
        " EPS: what training spent of the privacy budget, none: trained without privacy, -: not trained here."
        " The same in a shell: cloister model list|card."
    )
    COLUMNS = ("NAME", "KIND", "TYPE", "SIZE", "ACC", "GATE", "EPS", "FROM")
    EMPTY = (
        "No models yet.\n\nHere stand the bases you start from, the adapters that training makes of them, and"
        " the GGUF files that are served; none of them has been entered so far."
        "\nPress : and choose `model import demo` for the small one that is shipped, or bring your own:"
        "\ncloister model import FOLDER --name NAME"
    )
    PALETTE: ClassVar[tuple[Entry, ...]] = (Entry(words="model list", help="Bases, adapters, GGUF files"),)

    def body(self) -> ComposeResult:
        """The list, in a box, and the lineage of the chosen one."""
        with Vertical(id="body"):
            with Vertical(classes="box") as box:
                box.border_title = "Models"
                yield from self.table()
            yield Pane("Lineage", id="lineage")

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        room = max(12, self.size.width - 62)
        self.fill([(model.name, cells(model, view, room)) for model in view.models])
        self.show_lineage()

    @property
    def model(self) -> Model | None:
        """The model under the cursor."""
        models = self.view.models if self.view else ()
        return next((model for model in models if model.name == self.chosen), None)

    @on(DataTable.RowSelected)
    def show_card(self) -> None:
        """Open the model's card."""
        if self.model is not None and self.view is not None:
            text = card_text(lineage(self.model, self.view.models), self.view)
            self.app.push_screen(Words(f"Model {self.model.name}", text))

    @on(DataTable.RowHighlighted)
    def show_lineage(self) -> None:
        """Where the chosen model came from."""
        pane, models = self.query_one("#lineage", Pane), self.view.models if self.view else ()
        model = self.model
        pane.display = model is not None
        if model is not None:
            pane.border_title = f"Lineage of {model.name}"
            text = lineage_text(lineage(model, models))
            pane.show(lambda width, height: text)
