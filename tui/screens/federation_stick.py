"""The forms for rounds that are carried: how a site's come, one written to a file, one brought in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tui import session_carry
from tui.fields import Field
from tui.screens.form import FormWindow
from tui.screens.frame import Framed
from tui.screens.modals import Words
from tui.screens.trying import ask_and_try

NETWORK, STICK = "over the network", "by stick"
WRITE, BRING = "write one", "bring one in"


def ask_start(screen: Framed, words: str, then: Callable[[bool], object]) -> None:
    """How a site's rounds come; `then` is given whether they are carried."""
    field = Field(
        key="way",
        title="Rounds come",
        help="by stick: for a site without a link. Each round is a file that is brought in, answered, and"
        " written to a file again (e).",
        kind="choice",
        choices=(NETWORK, STICK),
        default=NETWORK,
    )

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            then(found["way"] == STICK)

    screen.app.push_screen(FormWindow("Start", "Start", (field,), words=words), answered)


def ask_carry(
    screen: Framed, name: str, site: str | None, then: Callable[[], object], *, write: bool
) -> None:
    """Write what waits to be carried, at the coordinator for `site`, at a site (None) for the coordinator; or
    bring in what was carried here. Without `write` there is nobody to write for."""

    def work(found: dict[str, Any]) -> dict[str, Any]:
        path = found["out" if found["what"] == WRITE else "file"].expanduser().absolute()
        if found["what"] == WRITE:
            return session_carry.export_round(screen.site, name, site=site, out=path)
        return session_carry.import_round(screen.site, path)

    def told_any(made: dict[str, Any]) -> None:
        (told_written if "path" in made else told_brought)(made)

    def told_written(made: dict[str, Any]) -> None:
        told = (
            f"{made['path']}, {made['size']:,} bytes, sealed for {made['to']}, good until {made['expires']}."
        )
        if made["reason"]:
            told += f"\nThe site takes no part in this round; the file says why: {made['reason']}."
        told += f"\n\nCarry it there. There: e, in {name}."
        screen.app.push_screen(Words(f"Round {made['round']} is written", told))
        then()

    def told_brought(found: dict[str, Any]) -> None:
        at_site = found["side"] == "site"
        whose = "It" if at_site else f"The answer of {found['site']}"
        after = "Once it is answered, e writes the answer." if at_site else "It is judged with the others."
        told = f"{whose} is of {found['federation']}. {after if found['runs'] else 'Press s to start.'}"
        screen.app.push_screen(Words(f"Round {found['round']} is here", told))
        then()

    whom = f"the round for {site}, which is carried from then on" if site else "this site's answer"
    fields = (
        Field(
            key="what",
            title="Do",
            help=f"{WRITE}: {whom}. {BRING}: a file that came from the other side."
            if write
            else "Bring it in.",
            kind="choice",
            choices=(WRITE, BRING) if write else (BRING,),
            default=WRITE if write else BRING,
        ),
        Field(
            key="out",
            title="File",
            help="On a stick, say. Only the other side can read it.",
            kind="path",
            default=str(Path.cwd() / f"{name}-{site or 'answer'}.clb"),
            needed=True,
            when=("what", WRITE),
        ),
        Field(
            key="file",
            title="File",
            help="What was carried here.",
            kind="path",
            needed=True,
            when=("what", BRING),
        ),
    )
    ask_and_try(screen, fields, work, told_any, title="A round by stick", label="Do it")
