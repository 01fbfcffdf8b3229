"""API keys: who may ask the endpoint, how much, until when; make one, end one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from appliance.security.amounts import read_end, read_rate, read_tokens
from appliance.security.keys import OWN_NAME, Key, utc_now
from tui.cli.keys import key_rows, may_lines
from tui.fields import Field
from tui.screens.listing import Listing
from tui.screens.modals import Confirm, Words
from tui.screens.site import SiteView
from tui.screens.trying import ask_and_try

FIELDS = (
    Field(
        key="name",
        title="For whom",
        help="Who or what will use it, such as the ward's program. Shown in lists and the log.",
        needed=True,
    ),
    Field(
        key="models",
        title="Models",
        help="The only ones it may ask, with commas between. Left empty: all that are served.",
    ),
    Field(
        key="collections",
        title="Documents",
        help="Collections that it may search, with commas between. Left empty: none.",
    ),
    Field(key="rate", title="Requests", help="At most so many: 60/m, 5/s or 1000/h. Left empty: any number."),
    Field(
        key="tokens",
        title="Tokens a day",
        help="Read and written in a day: 200k or 2M. Left empty: any number.",
    ),
    Field(
        key="expires",
        title="Until",
        help="12h, 90d, 2w, a date such as 2030-12-31, or never.",
        default="90d",
        needed=True,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Known:
    """The keys, and the tokens that each used today."""

    keys: list[Key]
    used: dict[str, int]


class KeysScreen(Listing):
    """The keys."""

    HERE = "serve"
    HELP = (
        "A key opens the endpoint for one program or person. It is shown once, when it is made; what it may"
        " do never changes. Revoke a key that may have been seen: it opens nothing from that moment."
        " The same in a shell: cloister key new|list|show|revoke."
    )
    COLUMNS = ("ID", "FOR", "MODELS", "LIMITS", "TODAY", "EXPIRES", "STATE")
    EMPTY = "No API key yet.\n\nWhoever asks the endpoint needs one. Press n to make a key; it is shown once."
    RIGHTS: ClassVar[dict[str, str]] = {"new": "key.new", "revoke": "key.revoke"}
    BINDINGS: ClassVar[list[BindingType]] = [Binding("n", "new", "New"), Binding("x", "revoke", "Revoke")]

    def crumbs(self) -> list[str]:
        """Serve, then this list."""
        return [*super().crumbs(), "Keys"]

    def body(self) -> ComposeResult:
        """The list, in a box."""
        with Vertical(id="body", classes="box") as box:
            box.border_title = "API keys"
            yield from self.table()

    def read_more(self, view: SiteView) -> Known:
        """Keys; those that this terminal made for itself are gone by now, and left out."""
        every = [key for key in self.site.api_keys() if not (key.revoked and key.name == OWN_NAME)]
        used = {key: days[0].tokens for key, days in self.site.key_usage(1).items()}
        return Known(keys=every, used=used)

    def draw(self, view: SiteView) -> None:
        """Fill the list, newest first."""
        rows = key_rows(self.more.keys, self.more.used, utc_now(), self.size.width - 6)
        found = [(row[0], tuple(row)) for row in rows]
        self.fill(found[::-1])

    @property
    def key(self) -> Key | None:
        """The key under the cursor."""
        return next((key for key in (self.more.keys if self.more else ()) if key.id == self.chosen), None)

    def reason(self, action: str) -> str | None:
        """Only a key that opens something can be ended."""
        if action == "revoke" and (self.key is None or self.key.revoked):
            return "no key is chosen" if self.key is None else "it is revoked already"
        return super().reason(action)

    def on_data_table_row_selected(self) -> None:
        """What the chosen key may do."""
        if self.key is not None:
            lines = "\n".join(may_lines(self.key.grant))
            state = f"{self.key.id} for {self.key.name}, made {self.key.created[:16]}: {self.key.state()}"
            self.app.push_screen(Words(f"Key {self.key.id}", f"{state}\n\n{lines}"))

    def action_new(self) -> None:
        """Ask what it may do, make it, and show it once."""
        ask_and_try(
            self,
            FIELDS,
            lambda found: self.site.new_key(found["name"], **scope_of(found, utc_now())),
            self._made,
            title="New API key",
            label="Make it",
            check=lambda found: scope_of(found, utc_now()),
        )

    def _made(self, made: tuple[str, str]) -> None:
        key_id, secret = made
        self.look_again()
        self.app.push_screen(Words("The key, shown this once", f"{secret}\n\n{_KEEP.format(id=key_id)}"))

    def action_revoke(self) -> None:
        """End the chosen key, after a question."""
        key = self.key
        if key is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.attempt(lambda: self.site.revoke_key(key.id), lambda _: self.look_again())

        question = (
            f"Revoke key {key.id} for {key.name}?\n\nWhoever uses it gets no more answers from now on. It"
            " cannot be taken back; a new key can be made."
        )
        self.app.push_screen(Confirm(question, "Revoke"), answered)


def scope_of(found: dict[str, Any], now: datetime) -> dict[str, Any]:
    """What a key may do, from the answers of the form.

    Raises:
        ConfigWrong: a limit or an end that cannot be read.
    """
    return {
        "models": _names(found["models"]),
        "collections": _names(found["collections"]),
        "requests_per_minute": read_rate(found["rate"]) if found["rate"] else None,
        "tokens_per_day": read_tokens(found["tokens"]) if found["tokens"] else None,
        "expires": None if found["expires"] == "never" else read_end(found["expires"], now),
    }


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


_KEEP = (
    "This is key {id}. Copy it now: only its hash is stored, and nobody can show it again.\n\n"
    "It goes into a request as: Authorization: Bearer KEY\nOn the web page of the endpoint it is asked for."
)
