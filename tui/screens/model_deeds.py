"""What is done to a model on its screen: quantise it, send it, remove it; and bundles that come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.models.registry import Model
from appliance.ops.removal import Removal
from appliance.security.bundle.releasing import Request
from appliance.security.bundle.show import leaving
from tui import session_bundle
from tui.cli.bundle_lines import inside_lines, leaving_lines
from tui.cli.quantize import TYPES, USUAL
from tui.fields import Field
from tui.screens.deeds import quantising
from tui.screens.form import FormWindow
from tui.screens.frame import Framed
from tui.screens.modals import ConfirmName, Words
from tui.session import Session
from tui.words import removal_lines

DAY = 24 * 3600
CHECK, TAKE = "check it", "take it in"
_WIDTH = 66  # of a window at 80 columns

QUANTISING = (
    Field(
        key="types",
        title="types",
        help=f"Of {TYPES}. Fewer bits: smaller, faster, less exact. What is too lossy for its bound is"
        " stepped up, and told.",
        default=USUAL,
        needed=True,
    ),
    Field(
        key="imatrix",
        title="importance matrix",
        help="yes: see first which weights matter, on text of ours; better at 4 bits, and takes longer."
        " no: only where a type needs it.",
        kind="yes",
        default="no",
    ),
)

INCOMING = (
    Field(key="path", title="bundle", help="A .clb file, such as on a stick.", kind="path", needed=True),
    Field(
        key="what",
        title="what",
        help="check it: whole? from whom? for us? Changes nothing. take it in: all that, then its model is"
        " checked like any foreign file and entered; all of it or nothing.",
        kind="choice",
        choices=(CHECK, TAKE),
        default=CHECK,
    ),
    Field(key="name", title="name", help="What to call it here. Empty: its own name.", when=("what", TAKE)),
)


def ask_quantising(screen: Framed, model: Model) -> None:
    """Ask which types, show the plan, and start it."""

    def spec_of(found: Mapping[str, Any]) -> dict[str, Any]:
        types = [part.strip().upper() for part in found["types"].split(",") if part.strip()]
        if not types:
            raise ConfigWrong("No type is named.", f"Such as {USUAL}.")
        return {"model": model.name, "types": types} | ({"imatrix": True} if found["imatrix"] else {})

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            screen.carry_out(quantising(spec_of(found)))

    form = FormWindow(f"Quantise {model.name}", "Plan it", QUANTISING, check=spec_of)
    screen.app.push_screen(form, answered)


# --- what leaves


def sending(model: str, receivers: Sequence[str]) -> tuple[Field, ...]:
    """The form of an export.

    Raises:
        ConfigWrong: nobody is trusted to receive anything.
    """
    if not receivers:
        raise ConfigWrong(
            "There is nobody to send it to.",
            "Add their card first: cloister trust add CARD (two people agree).",
        )
    return (
        Field(
            key="to",
            title="to",
            help="Who can open it: one of the parties this site trusts.",
            kind="choice",
            choices=tuple(receivers),
            default=receivers[0],
        ),
        Field(
            key="path",
            title="file",
            help="Where to write it, such as on a stick. It must not be there yet.",
            kind="path",
            default=str(Path.cwd() / f"{model}.clb"),
            needed=True,
        ),
        Field(
            key="days",
            title="days",
            help="After so many days nobody takes it in any more.",
            kind="whole",
            default="90",
            needed=True,
        ),
        Field(
            key="suite",
            title="suite",
            help="hybrid also holds against a quantum computer; x25519 for receivers that know no other.",
            kind="choice",
            choices=tuple(session_bundle.KEMS),
            default="hybrid",
        ),
    )


def ask_export(screen: Framed, model: Model) -> None:
    """Ask for whom, show what leaves, have its name typed, and write it once two people agreed."""
    site = screen.site

    def fields() -> tuple[Field, ...]:
        known = session_bundle.trusted(site)["signers"]
        return sending(model.name, [one["name"] for one in known if one["state"] == "trusted"])

    def ask(found: tuple[Field, ...]) -> None:
        screen.app.push_screen(FormWindow(f"Send {model.name}", "Show what leaves", found), answered)

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            screen.attempt(lambda: _asked(site, model, found), lambda asked: show(asked, found["path"]))

    def show(asked: Request, path: Path) -> None:
        def sure(yes: bool | None) -> None:
            if yes:
                screen.app.notify("Writing the bundle ...", timeout=5, markup=False)
                screen.attempt(lambda: session_bundle.export(site, asked, path.absolute()), written)

        lines = [*leaving_lines(leaving(asked), _WIDTH), f"File {path}"]
        screen.app.push_screen(ConfirmName("\n".join(lines), model.name, "Send it"), sure)

    def written(made: Mapping[str, Any]) -> None:
        about = f"number {made['seq']}, sha256 {made['digest'][:16]}, good until {made['expires']}"
        screen.app.push_screen(Words("Written", f"{made['path']}\n\n{about}"))

    screen.attempt(fields, ask)


def _asked(site: Session, model: Model, found: Mapping[str, Any]) -> Request:
    return session_bundle.request(
        site, model.name, [found["to"]], suite=found["suite"], lifetime=found["days"] * DAY
    )


# --- what comes


def ask_bundle(screen: Framed, then: Callable[[], object]) -> None:
    """Ask for a bundle; check it, or take it in."""
    site = screen.site

    def answered(found: dict[str, Any] | None) -> None:
        if found is None:
            return
        path, name = found["path"], found["name"]
        if found["what"] == CHECK:
            home = site.home.path
            screen.attempt(lambda: session_bundle.verify(home, path, keys=None, cards=()), checked)
        else:
            screen.attempt(lambda: session_bundle.receive(site, path, name=name), taken)

    def checked(found: Mapping[str, Any]) -> None:
        lines = [f"  signed by    {found['signer']} ({found['vouched']})", *inside_lines(found, _WIDTH)]
        screen.app.push_screen(Words("The bundle is good", "\n".join(lines)))

    def taken(found: Mapping[str, Any]) -> None:
        screen.app.push_screen(Words(f"{found['made']} is in", "\n".join(inside_lines(found, _WIDTH))))
        then()

    screen.app.push_screen(FormWindow("A bundle that came", "Go on", INCOMING), answered)


# --- what goes


def ask_removal(screen: Framed, model: Model, then: Callable[[], object]) -> None:
    """Say what is lost, have the name typed, and remove it once two people agreed."""

    def planned(going: Removal) -> None:
        text = "\n".join(removal_lines(going))
        screen.app.push_screen(ConfirmName(text, model.name, "Remove for good"), sure)

    def sure(yes: bool | None) -> None:
        if yes:
            screen.attempt(lambda: screen.site.remove_model(model.name), removed)

    def removed(going: Removal) -> None:
        screen.app.notify(f"{going.model.name} is removed.", timeout=6, markup=False)
        then()

    screen.attempt(lambda: screen.site.plan_removal(model.name), planned)
