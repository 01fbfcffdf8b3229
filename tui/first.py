"""The first run: `cloister` where there is no site yet asks four things and makes one.

The same as `cloister init`, through the same door. Nothing is made before the last answer.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import Static

from appliance.core.errors import ApplianceError
from appliance.core.home import open_home, place_of
from appliance.security.people import mode
from appliance.security.people.persons import NewPerson
from appliance.security.people.roles import OPERATOR
from appliance.security.people.signing import Signer
from tui import session_people
from tui.discreet import Discreet
from tui.fields import written
from tui.screens.first_fields import (
    ONE,
    PEOPLE,
    SITE,
    WELCOME,
    alone,
    check_first,
    founders,
    given_of,
    made_text,
    seal_fields,
)
from tui.screens.form import FormWindow
from tui.widgets.themes import CONTRAST, THEMES


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A new site. `signer` is who made it, where people have roles; `given` is where the records lie."""

    told: str
    signer: Signer | None = field(repr=False)
    given: dict[str, str]


class Made(Message):
    """The site is there, or is not, and why."""

    def __init__(self, begun: Begun | None, problem: ApplianceError | None) -> None:
        self.begun, self.problem = begun, problem
        super().__init__()


def needed(home: Path | None) -> bool:
    """Whether there is no site yet; looks only."""
    folder = place_of(home)
    return not any((folder / name).exists() for name in ("cloister.db", "people.json", "vault.json"))


class FirstRun(Discreet[Begun | None]):
    """Ends with the site that was made, or None."""

    CSS_PATH = "app.tcss"
    TITLE = "Cloister"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (80, "-normal"), (120, "-wide")]  # noqa: RUF012
    LAST_WORDS = "error: The first run stopped on an unexpected error.\ntry: cloister init"

    def __init__(self, home: Path | None, *, theme: str = "dark", plain: bool = False) -> None:
        super().__init__()
        self._home, self._theme, self._plain = home, theme, plain
        self._typed: dict[str, str] = {}
        self._first: dict[str, Any] = {}
        if "TEXTUAL_ANIMATIONS" not in os.environ:
            self.animation_level = "none"

    def compose(self) -> ComposeResult:
        """A line behind the windows."""
        yield Static("Cloister  first run", id="title", markup=False)

    def on_mount(self) -> None:
        """Look as this person set it, and ask."""
        self.register_theme(CONTRAST)
        self.theme = THEMES[self._theme]
        self.set_class(self._plain, "-plain")
        self.ask_site()

    def ask_site(self) -> None:
        """The first window."""
        form = FormWindow("A new site", "Go on", SITE, words=WELCOME, given=self._typed, check=check_first)

        def answered(found: dict[str, Any] | None) -> None:
            if found is None:
                self.exit(None)
                return
            self._typed = written(found)
            self._first = found
            self.ask_people()

        self.push_screen(form, answered)

    def ask_people(self, words: str = "") -> None:
        """The second window; esc goes back to the first."""
        first, single = self._first, self._first["who"] == ONE

        def people(found: Mapping[str, Any]) -> list[NewPerson]:
            return alone(found, getpass.getuser()) if single else founders(found)

        def answered(found: dict[str, Any] | None) -> None:
            if found is None:
                self.ask_site()
            else:
                self._say(f"making {first['site']}: its keys take some seconds ...")
                self._make(people(found), single)

        fields = seal_fields(first["records"]) if single else PEOPLE
        self.push_screen(
            FormWindow(first["site"], "Make the site", fields, words=words, check=people, leave="Back"),
            answered,
        )

    def _say(self, words: str) -> None:
        self.query_one("#title", Static).update(f"Cloister  {words}")

    @work(thread=True)
    def _make(self, people: list[NewPerson], single: bool) -> None:
        first = self._first
        try:
            home = open_home(self._home)
            made = session_people.initialise(home, first["site"], people, single=single)
            signer = None
            if mode.mode(home) != mode.SINGLE:
                who = next((one for one in people if one.role == OPERATOR), people[0])
                signer = session_people.sign_in(home, who.name, who.passphrase)
        except ApplianceError as problem:
            self.post_message(Made(None, problem))
            return
        self.post_message(Made(Begun(told=made_text(made), signer=signer, given=given_of(first)), None))

    @on(Made)
    def made(self, event: Made) -> None:
        """End, or say what is wrong and ask again."""
        if event.problem is None:
            self.exit(event.begun)
            return
        self._say("first run")
        self.ask_people(f"{event.problem.message} {event.problem.hint}\n")
