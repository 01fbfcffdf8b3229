"""Routes: names that clients ask for, behind which one of two models answers."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from tui import session_routes
from tui.cli.route_lines import hybrid_lines, split_lines
from tui.fields import Field
from tui.screens.form import FormWindow
from tui.screens.listing import Listing
from tui.screens.modals import ConfirmName, Words
from tui.screens.site import SiteView
from tui.screens.trying import ask_and_try

_WIDTH = 66  # of a window at 80 columns
SPLIT, HYBRID = "A/B split", "small model first"


class RoutesScreen(Listing):
    """The routes."""

    HERE = "serve"
    HELP = (
        "Clients ask for a route as for a model. A/B split: some of the people get B, always the same ones,"
        " until you know which is better. Small model first: the large one gets what the small one is unsure"
        " of. Rollback sends all to A at once. Serve the route by its name, or both models."
        " The same in a shell: cloister route split|hybrid|show|set|rollback|remove."
    )
    COLUMNS = ("ROUTE", "KIND", "STATE", "A", "B", "ASKED A", "ASKED B")
    EMPTY = (
        "No route yet.\n\nA route tries a second model on some of the people, or asks a small model first."
        "\nPress n to make one."
    )
    RIGHTS: ClassVar[dict[str, str]] = dict.fromkeys(("new", "rollback", "share", "remove"), "route.change")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New"),
        Binding("b", "rollback", "Rollback"),
        Binding("c", "share", "Change", show=False, tooltip="Another share; also ends a rollback"),
        Binding("x", "remove", "Remove"),
    ]

    def crumbs(self) -> list[str]:
        """Serve, then this list."""
        return [*super().crumbs(), "Routes"]

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "Routes"
            yield from self.table()

    def read_more(self, view: SiteView) -> list[dict[str, Any]]:
        """The routes with their counts."""
        return session_routes.routes(self.site)

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        room = max(8, (self.size.width - 56) // 2)
        self.fill([(one["name"], cells(one, room)) for one in self.more])

    @property
    def route(self) -> dict[str, Any] | None:
        """The route under the cursor."""
        return next((one for one in self.more or () if one["name"] == self.chosen), None)

    def reason(self, action: str) -> str | None:
        """There must be a route, and for a rollback one that is live."""
        if action in ("rollback", "share", "remove"):
            if self.route is None:
                return "no route is chosen"
            if action == "rollback" and self.route["state"] == "rolled back":
                return "it is rolled back already; c puts it in use again"
        return super().reason(action)

    def on_data_table_row_selected(self) -> None:
        """Counts, what they mean so far, the table of thresholds."""
        if self.route is not None:
            lines = (split_lines if self.route["kind"] == "split" else hybrid_lines)(self.route, _WIDTH)
            self.app.push_screen(Words(f"Route {self.route['name']}", "\n".join(lines)))

    def action_new(self) -> None:
        """Ask for name and models, and make it."""
        able = tuple(
            one.name for one in reversed(self.view.models if self.view else ()) if one.kind != "base"
        )
        if len(able) < 2:
            self.app.push_screen(Words("Routes need two models", "Train or import a second one first."))
            return
        ask_and_try(
            self,
            route_fields(able),
            self._make,
            lambda _: self.look_again(),
            title="New route",
            label="Make it",
        )

    def _make(self, found: dict[str, Any]) -> None:
        if found["kind"] == SPLIT:
            session_routes.make_split(
                self.site,
                found["name"],
                a=found["a"],
                b=found["b"],
                share=found["share"] / 100,
                difference=found["difference"] / 100,
            )
        else:
            session_routes.make_hybrid(
                self.site, found["name"], small=found["a"], large=found["b"], threshold=None, by=None
            )

    def action_rollback(self) -> None:
        """All to A, at once; it can be had back."""
        name = self.chosen
        if name is not None:
            self.attempt(lambda: session_routes.roll_back(self.site, name), self._rolled)

    def _rolled(self, one: dict[str, Any]) -> None:
        self.look_again()
        self.app.notify(f"Everything goes to {one['a']}. c puts {one['name']} in use again.", markup=False)

    def action_share(self) -> None:
        """Another share or threshold; it also ends a rollback."""
        one = self.route
        if one is None:
            return
        split = one["kind"] == "split"
        field = Field(
            key="value",
            title="Percent who get B" if split else "Threshold",
            help="Of the people; each always gets the same model. Counts so far stay."
            if split
            else "Below so much sureness of the small model the large one is asked: 0 to 1.",
            kind="number",
            default=f"{one['share'] * 100:g}" if split else f"{one['threshold']:g}",
            needed=True,
        )

        def answered(found: dict[str, Any] | None) -> None:
            if found is not None:
                value = found["value"]
                wanted = {"share": value / 100} if split else {"threshold": value}
                self.attempt(
                    lambda: session_routes.set_route(self.site, one["name"], **wanted),
                    lambda _: self.look_again(),
                )

        self.app.push_screen(FormWindow(f"Route {one['name']}", "Change", [field]), answered)

    def action_remove(self) -> None:
        """End the route; its counts go."""
        name = self.chosen
        if name is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.attempt(
                    lambda: session_routes.remove_route(self.site, name), lambda _: self.look_again()
                )

        question = (
            f"Remove route {name}?\n\nLost: its counts, and what its router has learnt. Clients that ask for"
            f" {name} get no more answers. Both models stay."
        )
        self.app.push_screen(ConfirmName(question, name, "Remove"), answered)


def cells(one: dict[str, Any], room: int) -> tuple[str, ...]:
    """One row; the models' names give way."""
    kind = "A/B" if one["kind"] == "split" else "small 1st"
    names = [one[arm] if len(one[arm]) <= room else one[arm][: room - 2] + ".." for arm in ("a", "b")]
    counts = [f"{one['counts'][arm]['requests']:,}" for arm in ("a", "b")]
    return (one["name"][:16], kind, one["state"], *names, *counts)


def route_fields(able: tuple[str, ...]) -> tuple[Field, ...]:
    """The form for a route over the models `able`."""
    return (
        Field(key="name", title="Name", help="What clients give as model, such as inbox-trial.", needed=True),
        Field(
            key="kind",
            title="Kind",
            help="A/B split: B on trial with some of the people. small model first: B gets what A is unsure"
            " of; learnt from a report that has both.",
            kind="choice",
            choices=(SPLIT, HYBRID),
            default=SPLIT,
        ),
        Field(
            key="a",
            title="A",
            help="The model in use, or the small one.",
            kind="choice",
            choices=able,
            default=able[-1],
        ),
        Field(
            key="b",
            title="B",
            help="The model on trial, or the large one.",
            kind="choice",
            choices=able,
            default=able[0],
        ),
        Field(
            key="share",
            title="Percent who get B",
            help="Of a split. Each person always gets the same.",
            kind="number",
            default="50",
            needed=True,
        ),
        Field(
            key="difference",
            title="Worth seeing",
            help="Of a split: the smallest difference in thumbs up, in points, that would make you change.",
            kind="number",
            default="10",
            needed=True,
        ),
    )
