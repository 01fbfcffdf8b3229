"""People: who is here, changes that two of them sign, emergencies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from appliance.security.people.rows import Asked
from tui import session_people
from tui.screens.audit_forms import ADD, EMERGENCY, PASSPHRASE, RESET, ROLE, same_twice
from tui.screens.listing import Listing
from tui.screens.modals import Confirm, ConfirmName, Words
from tui.screens.people_lines import cells, emergencies_text, why_not
from tui.screens.request_lines import asked_text
from tui.screens.site import SiteView
from tui.screens.trying import ask_and_try
from tui.widgets.pane import Pane


class PeopleScreen(Listing):
    """The list of people."""

    HERE = "audit"
    HELP = (
        "Each person signs with a key of their own. To add, change or remove one takes two people, one of"
        " them a privacy officer: what is asked here is agreed to under Sign. In an emergency anybody"
        " acts as operator for some minutes; that stays red until a privacy officer has reviewed it."
        " The same in a shell: cloister people list|add|role|remove|reset|passphrase|break-glass|review."
    )
    COLUMNS = ("NAME", "ROLE", "KEY", "STATE")
    EMPTY = (
        "One person runs this site: nobody has a role, and nobody checks anybody."
        "\n\nGive it people in a shell: cloister init"
    )
    RIGHTS: ClassVar[dict[str, str]] = {
        "add": "person.add",
        "role": "person.role",
        "remove": "person.remove",
        "reset": "person.reset",
        "passphrase": "person.passphrase",
        "emergency": "emergency.start",
        "review": "emergency.review",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "add", "Add"),
        Binding("o", "role", "Role"),
        Binding("d", "remove", "Remove"),
        Binding("k", "reset", "New key"),
        Binding("p", "passphrase", "Passphrase"),
        Binding("g", "emergency", "Emergency"),
        Binding("v", "review", "Review"),
    ]

    def crumbs(self) -> list[str]:
        """Audit, then this list."""
        return [*super().crumbs(), "People"]

    def body(self) -> ComposeResult:
        """The list, in a box, and the emergencies."""
        with Vertical(id="body"):
            with Vertical(classes="box") as box:
                box.border_title = "People"
                yield from self.table()
            yield Pane("Emergencies", id="emergencies")

    def read_more(self, view: SiteView) -> dict[str, Any]:
        """The people."""
        return session_people.people(self.site)

    def draw(self, view: SiteView) -> None:
        """Fill the list."""
        told = self.more
        self.fill(
            [(one["name"], cells(one, session_people.fingerprint(one["public"]))) for one in told["people"]]
        )
        pane, text = self.query_one("#emergencies", Pane), emergencies_text(told)
        pane.display = bool(told["people"])
        pane.show(lambda width, height: text)

    @property
    def person(self) -> dict[str, Any] | None:
        """The person under the cursor."""
        people = self.more["people"] if self.more else ()
        return next((one for one in people if one["name"] == self.chosen), None)

    def reason(self, action: str) -> str | None:
        """What this person may not do, or what cannot be done to the chosen one."""
        return super().reason(action) or why_not(action, self.more, self.person)

    def _form(
        self,
        title: str,
        fields: tuple[Any, ...],
        work: Callable[[dict[str, Any]], Any],
        then: Callable[[Any], object],
        *,
        label: str = "Ask for it",
        twice: bool = False,
    ) -> None:
        check = same_twice if twice else None
        ask_and_try(self, fields, work, then, title=title, label=label, check=check)

    def _asked(self, asked: Asked) -> None:
        self.app.push_screen(Words(f"Request {asked.id} is made", asked_text(asked)))
        self.look_again()

    def action_add(self) -> None:
        """Ask for a new person."""
        self._form(
            "New person",
            ADD,
            lambda found: session_people.add(self.site, found["name"], found["role"], found["passphrase"]),
            self._asked,
            twice=True,
        )

    def action_role(self) -> None:
        """Ask for another role of the chosen person."""
        name = self.chosen or ""
        self._form(
            f"Another role for {name}",
            ROLE,
            lambda found: session_people.give_role(self.site, name, found["role"]),
            self._asked,
        )

    def action_reset(self) -> None:
        """Ask for a new key of the chosen person, who forgot the passphrase."""
        name = self.chosen or ""
        self._form(
            f"New key for {name}",
            RESET,
            lambda found: session_people.reset(self.site, name, found["passphrase"]),
            self._asked,
            twice=True,
        )

    def action_remove(self) -> None:
        """Ask for the chosen person to be removed."""
        name = self.chosen or ""

        def answered(sure: bool | None) -> None:
            if sure:
                self.attempt(lambda: session_people.remove(self.site, name), self._asked)

        question = (
            f"Ask for {name} to be removed?\n\nLost: their key, and their way to unlock a sealed site. The"
            " name is never used again.\nStays: everything they signed and did, in the log."
        )
        self.app.push_screen(ConfirmName(question, name, "Ask for it"), answered)

    def action_passphrase(self) -> None:
        """Another passphrase for who is signed in."""
        self._form(
            f"Passphrase of {self.site.who}",
            PASSPHRASE,
            lambda found: session_people.change_passphrase(self.site, found["old"], found["passphrase"]),
            lambda _: self.app.notify(f"{self.site.who} has a new passphrase.", markup=False),
            label="Change it",
            twice=True,
        )

    def action_emergency(self) -> None:
        """Act as operator for some minutes, or end that."""
        if any(
            case["person"] == self.site.who and case["state"] == "running"
            for case in self.more["emergencies"]
        ):
            self.attempt(lambda: session_people.end_emergency(self.site), self._emergency_over)
            return
        self._form(
            "Act as operator in an emergency",
            EMERGENCY,
            lambda found: session_people.break_glass(self.site, found["reason"], found["minutes"] or 30),
            self._emergency_begun,
            label="Begin",
        )

    def _emergency_begun(self, case: Any) -> None:
        until = f"{case.until[:16].replace('T', ' ')} UTC"
        self.app.notify(f"{case.person} acts as operator until {until}. g ends it before.", markup=False)
        self.look_again()

    def _emergency_over(self, _: object) -> None:
        self.app.notify("The emergency is over; a privacy officer reviews it.", markup=False)
        self.look_again()

    def action_review(self) -> None:
        """Sign that the oldest emergency that nobody reviewed was looked at."""
        case = next(one for one in reversed(self.more["emergencies"]) if one["state"] != "reviewed")

        def answered(sure: bool | None) -> None:
            if sure:
                self.attempt(
                    lambda: session_people.review(self.site, case["id"]), lambda _: self.look_again()
                )

        question = (
            f"{case['person']} acted as operator, {case['at'][:16].replace('T', ' ')} to"
            f" {case['until'][11:16]} UTC:\n{case['reason']}\n\nSign that you looked at what was done? The"
            " entries of that time are in the log (9 Audit, / and the name)."
        )
        self.app.push_screen(Confirm(question, "Sign: reviewed"), answered)
