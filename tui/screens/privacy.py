"""Privacy: each dataset's budget, what was spent of it, attack tests on its newest model. Drawing 8."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable

from appliance.core.profile import has_site
from tui import session_privacy
from tui.cli.privacy_lines import (
    finding_lines,
    meaning_lines,
    promise_lines,
    short_charges,
    state_word,
)
from tui.cli.tables import wrapped
from tui.screens.entry import Entry
from tui.screens.listing import Listing
from tui.screens.modals import Confirm
from tui.screens.privacy_detail import PrivacyDetail
from tui.screens.privacy_forms import ask_budget, ask_export
from tui.screens.site import LIVE, SiteView
from tui.widgets.gauge import gauge
from tui.widgets.pane import Pane

_CHANGING = ("train", "join", "search", "audit-privacy")
_ATTACK = (
    "Attack {model} and its files as an outsider would? It takes minutes, spends nothing of the budget, and"
    " changes nothing."
)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of one dataset: its budget, its charges, its newest model, the tests on that."""

    row: dict[str, Any]
    charges: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    tested: dict[str, Any] | None = None


class PrivacyScreen(Listing):
    """The budgets."""

    HERE = "privacy"
    HELP = (
        "Epsilon bounds what the models trained here can give away of one person: smaller is safer. A"
        " dataset's budget is the most that all trainings on it may spend together. Attack tests try to find"
        " people in a model; PASS means that they found nothing, not that there is nothing. The same in a"
        " shell: cloister budget show|set|export, cloister audit-privacy MODEL."
    )
    COLUMNS = ("DATASET", "SPENT", "", "STATE")
    EMPTY = (
        "No budget used yet.\n\nA dataset has a privacy budget from its first private training on."
        "\nPress 1 for Home: it names the next step."
    )
    RIGHTS: ClassVar[dict[str, str]] = {
        "attack": "privacy.audit",
        "export": "report.export",
        "budget": "budget.raise",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "attack", "Attack"),
        Binding("b", "budget", "Budget"),
        Binding("x", "export", "Export"),
    ]
    PALETTE: ClassVar[tuple[Entry, ...]] = (
        Entry(words="budget show", help="What is left of each budget"),
        Entry(words="budget set", help="Change the chosen dataset's budget", action="budget"),
        Entry(words="budget export", help="The chosen dataset's privacy report as text", action="export"),
        Entry(words="audit-privacy", help="Attack the newest model of the chosen dataset", action="attack"),
    )

    def begin(self) -> None:
        """Nothing was read yet."""
        self._read_for: object = None
        super().begin()

    def body(self) -> ComposeResult:
        """The list and what was spent of the chosen one; below, the tests."""
        with Vertical(id="body"):
            with Horizontal(id="upper"):
                with Vertical(classes="box", id="budgets") as box:
                    box.border_title = "Budget by dataset"
                    yield from self.table()
                yield Pane("Spent", id="spent")
            yield Pane("Attack tests", id="tests")

    def read_more(self, view: SiteView) -> list[Known]:
        """All of it; reading takes seconds, so it is done when a training or an audit has begun or ended."""
        jobs = tuple((job.id, job.state in LIVE) for job in view.jobs if job.kind in _CHANGING)
        now = (view.budgets, jobs, tuple(model.name for model in view.models))
        if now == self._read_for:
            return list(self.more)
        found = [self._known(row, view) for row in self.site.budgets()] if has_site() and view.budgets else []
        self._read_for = now
        return found

    def _known(self, row: dict[str, Any], view: SiteView) -> Known:
        model = session_privacy.newest_trained(view.models, row["name"])
        may = model is not None and self.site.why_not("report.read") is None
        return Known(
            row=row,
            charges=session_privacy.charges(self.site, row["name"]),
            model=model,
            tested=session_privacy.privacy_audit(self.site, model) if model and may else None,
        )

    def read_again(self) -> None:
        """A budget was changed."""
        self._read_for = None
        self.look_again()

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        self.fill([(one.row["name"], cells(one.row)) for one in self.more])
        self.show_chosen()

    @property
    def known(self) -> Known | None:
        """The chosen dataset."""
        return next((one for one in self.more or () if one.row["name"] == self.chosen), None)

    @on(DataTable.RowHighlighted)
    def show_chosen(self) -> None:
        """What was spent of the chosen budget, and what attacks found."""
        one = self.known
        spent, tests = self.query_one("#spent", Pane), self.query_one("#tests", Pane)
        spent.display = tests.display = one is not None
        if one is None:
            return
        made = {model.job: model.name for model in (self.view.models if self.view else ()) if model.trained}
        spent.border_title = f"Spent on {one.row['name']}"
        spent.show(lambda width, height: "\n".join(short_charges(one.charges, made, height)))
        verdict = f": {one.tested['verdicts'][one.model]}" if one.tested else ""
        tests.border_title = f"Attack tests on {one.model}{verdict}" if one.model else "Attack tests"
        tests.show(lambda width, height: "\n".join(test_lines(one, width, height)))

    def reason(self, action: str) -> str | None:
        """Nothing can be done to what is not there."""
        if action in ("export", "budget", "attack") and self.known is None:
            return "there is no budget"
        if action == "attack" and self.known is not None and self.known.model is None:
            return "no model has learnt from it"
        return super().reason(action)

    @on(DataTable.RowSelected)
    def show_detail(self) -> None:
        """All that is known of the chosen one."""
        if self.known is not None:
            one = self.known
            self.app.push_screen(PrivacyDetail(one.row, one.charges, one.model, one.tested))

    def action_attack(self) -> None:
        """Ask, then start the audit of the newest model."""
        model = self.known.model if self.known else None
        if model is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.attempt(lambda: self.site.start_privacy_audit({"model": model}), self.open_job)

        self.app.push_screen(Confirm(_ATTACK.format(model=model), "Attack"), answered)

    def action_budget(self) -> None:
        """Change the chosen budget."""
        if self.known is not None:
            ask_budget(self, self.known.row, self.read_again)

    def action_export(self) -> None:
        """Write the chosen one's report to a file."""
        if self.known is not None:
            ask_export(self, self.known.row["name"])


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row."""
    spent, limit = row["epsilon_spent"], row["epsilon_limit"]
    share = spent / limit if limit else 1.0
    return (row["name"], f"{spent:.2f}/{limit:g}", gauge(share, 5), state_word(spent, limit))


def test_lines(one: Known, width: int, height: int) -> list[str]:
    """What attacks found, then what the promise is and means; the findings give way."""
    promise = [*promise_lines(one.row, width), *meaning_lines(one.row, width)]
    if one.model is None:
        return [*wrapped("No model that has learnt from it is here.", width=width), *promise]
    if one.tested is None:
        told = "None was run yet: press a. They try to find this site's people in the model and its files."
        return [*wrapped(told, width=width), "", *promise]
    return [*finding_lines(one.tested, width, max(2, height - len(promise) - 1)), "", *promise]
