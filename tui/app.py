"""The screens: `cloister` without arguments on a terminal.

The app is thin: modes, keys that work everywhere, how errors are told. The door is tui/session.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.command import CommandPalette

from appliance.core.errors import ApplianceError
from appliance.core.home import open_home
from appliance.security.people.guard import looking
from appliance.security.people.signing import Signer
from tui import session_people
from tui.cli.asking import open_screens_as
from tui.cli.face import signer_of
from tui.commands import Commands
from tui.discreet import Discreet
from tui.first import Begun, FirstRun, needed
from tui.idle import LOOK, Idle
from tui.screens.form import FormWindow
from tui.screens.frame import Framed
from tui.screens.jobs import JobsScreen
from tui.screens.modals import Words
from tui.screens.modes import new_screen
from tui.session import Session
from tui.settings import SETTINGS, place, read_settings, write_settings
from tui.starting import at_start
from tui.widgets.frame import SCREENS, folder_name
from tui.widgets.themes import CONTRAST, THEMES


class Cloister(Discreet[None]):
    """Nine screens over one session."""

    CSS_PATH = "app.tcss"
    TITLE = "Cloister"
    LAST_WORDS = "error: The screens stopped on an unexpected error; jobs go on.\ntry: cloister job list"
    MODES = {mode: partial(new_screen, mode) for _, mode, _ in SCREENS}  # noqa: RUF012
    DEFAULT_MODE = "home"
    COMMANDS = {Commands}  # noqa: RUF012
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (80, "-normal"), (120, "-wide")]  # noqa: RUF012
    NOTIFICATION_TIMEOUT = 12
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, f"mode('{mode}')", name, show=False) for key, mode, name in SCREENS),
        Binding("j", "jobs", "Jobs", show=False),
        Binding("ctrl+l", "redraw", "Draw the screen again", show=False),
        Binding("comma", "settings", "Settings", show=False, key_display=","),
        Binding("colon,ctrl+p", "command_palette", "Command", key_display=":"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "leave", "Leave"),
    ]

    def __init__(
        self, session: Session, settings: Mapping[str, str] | None = None, begun: Begun | None = None
    ) -> None:
        super().__init__()
        self.begun = begun
        self.session = session
        self.settings = dict(settings or {field.key: field.default for field in SETTINGS})
        self._told = ""
        self.site_name = title_of(session)
        self.idle = Idle(session)
        if "TEXTUAL_ANIMATIONS" not in os.environ:
            self.animation_level = "none"

    def on_mount(self) -> None:
        """Look as this person set it."""
        self.register_theme(CONTRAST)
        self.apply_settings()
        self.set_interval(LOOK, self.look_idle)
        if self.begun is not None:
            self.call_after_refresh(self.push_screen, Words("Your site", self.begun.told))

    def action_redraw(self) -> None:
        """Draw the whole screen: others can write on a terminal, such as a console's kernel."""
        self.refresh()

    def apply_settings(self) -> None:
        """Theme and characters; a console without box characters gets ASCII."""
        self.theme = THEMES[self.settings["theme"]]
        self.set_class(plain(self.settings["plain"]), "-plain")

    def action_settings(self) -> None:
        """Change how the screens look."""
        if not isinstance(self.screen, Framed):
            return

        def answered(found: dict[str, str] | None) -> None:
            if found is not None:
                write_settings(place(), found)
                self.settings = found
                self.apply_settings()

        form = FormWindow("Settings of the screens", "Keep", SETTINGS, given=self.settings)
        self.push_screen(form, answered)

    async def on_event(self, event: events.Event) -> None:
        """A key or the mouse: somebody is there."""
        if isinstance(event, events.Key | events.MouseEvent | events.Paste):
            self.idle.touch()
        await super().on_event(event)

    def look_idle(self) -> None:
        """Close the screens, and with them all that they know: nobody is there, or the site was locked."""
        if why := self.idle.over():
            self.exit(message=why)

    def action_command_palette(self) -> None:
        """The palette, with words of ours."""
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(placeholder="Type a command", id="--command-palette"))

    def action_mode(self, mode: str) -> None:
        """Switch to a numbered screen; pressed on its own number, back to its top."""
        if mode != self.current_mode:
            self.switch_mode(mode)
        else:
            while len(self.screen_stack) > 1:
                self.pop_screen()

    def show_screen(self, mode: str, action: str = "") -> None:
        """Switch to a numbered screen, at its top, and do the action of one of its keys."""
        self.switch_mode(mode)
        while len(self.screen_stack) > 1:
            self.pop_screen()
        if action:
            self.call_after_refresh(self.screen.run_action, action)

    def action_jobs(self) -> None:
        """All jobs, over the screen of now."""
        if isinstance(self.screen, Framed) and not isinstance(self.screen, JobsScreen):
            self.push_screen(JobsScreen(self.screen.HERE))

    def action_help(self) -> None:
        """The keys that work here, and why some do not."""
        if isinstance(self.screen, Framed):
            self.push_screen(Words("Help", self.screen.help_text()))

    def action_leave(self) -> None:
        """Close the screens; jobs are processes of their own."""
        self.exit()

    def tell(self, problem: BaseException) -> None:
        """Two lines for any trouble; the same trouble again, as a poll meets it, is told once a while."""
        if isinstance(problem, ApplianceError):
            text = f"error: {problem.message}" + (f"\ntry: {problem.hint}" if problem.hint else "")
        else:
            text = (
                f"error: Something unexpected: {type(problem).__name__}."
                "\ntry: the same in a shell, for example `cloister job list`; jobs go on."
            )
        if text != self._told:
            self._told = text
            self.set_timer(self.NOTIFICATION_TIMEOUT, self._forget)
            self.notify(text, severity="error", markup=False)

    def _forget(self) -> None:
        self._told = ""


def plain(setting: str = "auto") -> bool:
    """Whether this is a terminal for ASCII only: as it was set, else asked for, or the Linux console."""
    if setting != "auto":
        return setting == "always"
    return os.environ.get("CLOISTER_PLAIN", "") not in ("", "0") or os.environ.get("TERM") == "linux"


def title_of(session: Session) -> str:
    """The site's name, or its folder where it has none or nobody is signed in."""
    name = "" if session.why_not("site.read") else session_people.site_name(session)
    return name or folder_name(session.home.path)


def _signer(home: Path | None) -> Signer | None:
    """Who opens the screens, where people have roles: asked before Textual takes the terminal."""
    return signer_of(home, open_screens_as(open_home(home)))


def run(home: Path | None = None, *, look: bool = False) -> None:
    """Open the screens until the person leaves; `look`: nothing can be changed in them."""
    try:
        settings, begun = read_settings(place()), None
        if not look and needed(home):
            begun = FirstRun(home, theme=settings["theme"], plain=plain(settings["plain"])).run()
            if begun is None:
                sys.stderr.write(
                    "Nothing was made. Come back with `cloister`, or see `cloister init --help`.\n"
                )
                raise SystemExit(0)
        session = Session(home, signer=begun.signer if begun else _signer(home))
        if look:
            session.actor = looking(session.actor)
        at_start(session.home, who=session.who)
    except ApplianceError as problem:
        sys.stderr.write(f"error: {problem.message}\ntry: {problem.hint}\n")
        raise SystemExit(problem.exit_code) from None
    for told in (
        "COLUMNS",
        "LINES",
    ):  # as the terminal was once; Textual would believe them at every new size
        os.environ.pop(told, None)
    app = Cloister(session, settings, begun)
    app.run()
    raise SystemExit(app.return_code)
