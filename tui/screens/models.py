"""Models: bases, adapters and GGUF files, where the chosen one came from, and what is done to it."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable

from appliance.models.registry import Model
from tui.screens.entry import Entry
from tui.screens.evaluate_form import ask_evaluation
from tui.screens.listing import Listing
from tui.screens.modals import Words
from tui.screens.model_deeds import ask_bundle, ask_export, ask_quantising, ask_removal
from tui.screens.model_importing import ask_model
from tui.screens.model_lines import card_text, cells, lineage, lineage_text
from tui.screens.playground import ask_models
from tui.screens.serve_form import ask_serving
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
        "\nPress i to bring one in: the small one that is shipped, or your own."
    )
    RIGHTS: ClassVar[dict[str, str]] = {
        "import": "model.import",
        "quantise": "quantize.start",
        "bundle": "bundle.export",
        "incoming": "bundle.verify",
        "remove": "model.remove",
        "evaluate": "evaluate.start",
        "serve": "serve.start",
        "play": "serve.start",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "import", "Import", show=False, tooltip="A base or a GGUF file in"),
        Binding("z", "quantise", "Quantise"),
        Binding("b", "bundle", "Send"),
        Binding("d", "remove", "Remove", show=False, tooltip="Remove it for good"),
        Binding("e", "evaluate", "Evaluate", show=False, tooltip="Measure it on records never seen"),
        Binding("s", "serve", "Serve", show=False, tooltip="Serve it, or its smallest file that may be"),
        Binding("p", "play", "Playground", show=False, tooltip="One question to several models"),
        Binding("v", "incoming", "Verify", show=False, tooltip="A bundle that came: check it, take it in"),
    ]
    PALETTE: ClassVar[tuple[Entry, ...]] = (
        Entry(words="model list", help="Bases, adapters, GGUF files"),
        Entry(words="model import", help="A base or a GGUF file in", action="import"),
        Entry(words="model card", help="Lineage, privacy and report of the chosen model", action="show_card"),
        Entry(words="playground", help="One question to several models", action="play"),
        Entry(words="model remove", help="Remove the chosen model for good", action="remove"),
        Entry(words="quantize", help="Make small GGUF files of the chosen model", action="quantise"),
        Entry(words="bundle export", help="Send the chosen model, signed and sealed", action="bundle"),
        Entry(words="bundle verify", help="Check a bundle that came", action="incoming"),
        Entry(words="bundle import", help="Take in a bundle that came", action="incoming"),
    )

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

    def reason(self, action: str) -> str | None:
        """What is done to a model needs one, of the right kind."""
        if action in ("quantise", "bundle", "remove", "evaluate", "serve", "show_card"):
            if self.model is None:
                return "no model is chosen"
            if action == "quantise" and self.model.kind == "gguf":
                return f"{self.model.name} is a GGUF file already"
        return super().reason(action)

    @on(DataTable.RowSelected)
    def action_show_card(self) -> None:
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

    def action_play(self) -> None:
        """Ask several the same; the files of the chosen one come first."""
        ask_models(self, self.model.name if self.model else "")

    def action_import(self) -> None:
        """A model in."""
        ask_model(self)

    def action_quantise(self) -> None:
        """Small files of the chosen one."""
        if self.model is not None:
            ask_quantising(self, self.model)

    def action_bundle(self) -> None:
        """Send the chosen one."""
        if self.model is not None:
            ask_export(self, self.model)

    def action_incoming(self) -> None:
        """A bundle that came."""
        ask_bundle(self, self.look_again)

    def action_remove(self) -> None:
        """Remove the chosen one."""
        if self.model is not None:
            ask_removal(self, self.model, self.look_again)

    def action_evaluate(self) -> None:
        """Measure the chosen one."""
        if self.model is not None and self.view is not None:
            ask_evaluation(self, self.view, self.model.name)

    def action_serve(self) -> None:
        """Serve the chosen one."""
        if self.model is not None and self.view is not None:
            ask_serving(self, self.view, self.model.name)
