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
from tui.fields import Field
from tui.screens.agreeing import Agreeing
from tui.screens.deeds import quantising
from tui.screens.form import FormWindow
from tui.screens.modals import ConfirmName, Words
from tui.session import Session
from tui.words import bytes_text

DAY = 24 * 3600
CHECK, TAKE = "check it", "take it in"
_TYPES = "Q4_K_M,Q8_0"

QUANTISING = (
    Field(
        key="types",
        title="types",
        help="F16, IQ4_XS, Q4_0, Q4_K_M, Q5_K_M, Q6_K, Q8_0, with commas. Less bits: smaller, faster, less"
        " exact. What is too lossy for its bound is stepped up, and told.",
        default=_TYPES,
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


def ask_quantising(screen: Agreeing, model: Model) -> None:
    """Ask which types, show the plan, and start it."""

    def spec_of(found: Mapping[str, Any]) -> dict[str, Any]:
        types = [part.strip().upper() for part in found["types"].split(",") if part.strip()]
        if not types:
            raise ConfigWrong("No type is named.", f"Such as {_TYPES}.")
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


def ask_export(screen: Agreeing, model: Model) -> None:
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
                screen.attempt_by_two(lambda: session_bundle.export(site, asked, path.absolute()), written)

        text = leaving_text(leaving(asked), path)
        screen.app.push_screen(ConfirmName(text, model.name, "Send it"), sure)

    def written(made: Mapping[str, Any]) -> None:
        about = f"number {made['seq']}, sha256 {made['digest'][:16]}, good until {made['expires']}"
        screen.app.push_screen(Words("Written", f"{made['path']}\n\n{about}"))

    screen.attempt(fields, ask)


def _asked(site: Session, model: Model, found: Mapping[str, Any]) -> Request:
    return session_bundle.request(
        site, model.name, [found["to"]], suite=found["suite"], lifetime=found["days"] * DAY
    )


def leaving_text(shown: Mapping[str, Any], path: Path) -> str:
    """Everything that leaves, for whom, and what is not protected."""
    lines = [
        f"This leaves the building ({bytes_text(shown['size'])}), in {path}:",
        *(f"  {one['path']}  {bytes_text(one['size'])}  {one['what']}" for one in shown["files"]),
        f"For {', '.join(one['name'] for one in shown['recipients'])}, for {shown['days']} days.",
        f"Privacy: {shown['privacy']}.",
        "Not protected:",
        *(f"- {told}" for told in shown["not_protected"]),
        f"Request {shown['request']}",
    ]
    return "\n".join(lines)


# --- what comes


def ask_bundle(screen: Agreeing, then: Callable[[], object]) -> None:
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
        screen.app.push_screen(Words("The bundle is good", inside_text(found)))

    def taken(found: Mapping[str, Any]) -> None:
        screen.app.push_screen(Words(f"{found['made']} is in", inside_text(found)))
        then()

    screen.app.push_screen(FormWindow("A bundle that came", "Go on", INCOMING), answered)


def inside_text(found: Mapping[str, Any]) -> str:
    """What a bundle says of itself, and who vouches for it."""
    return "\n".join(
        [
            f"signed by    {found['signer']} ({found['vouched']}), {found['words']}",
            f"made         {found['created']}, good until {found['expires']}",
            f"number       {found['seq']} of line {found['line']}, key epoch {found['key_epoch']}",
            f"sealed       {found['suite']} for {found['recipients']}",
            f"privacy      {found['privacy_text']}",
            *(
                f"file         {one['path']}  {bytes_text(one['size'])}  {one['what']}"
                for one in found["files"]
            ),
        ]
    )


# --- what goes


def ask_removal(screen: Agreeing, model: Model, then: Callable[[], object]) -> None:
    """Say what is lost, have the name typed, and remove it once two people agreed."""

    def planned(going: Removal) -> None:
        screen.app.push_screen(ConfirmName(removal_text(going), model.name, "Remove for good"), sure)

    def sure(yes: bool | None) -> None:
        if yes:
            screen.attempt_by_two(lambda: screen.site.remove_model(model.name), removed)

    def removed(going: Removal) -> None:
        screen.app.notify(f"{going.model.name} is removed.", timeout=6, markup=False)
        then()

    screen.attempt(lambda: screen.site.plan_removal(model.name), planned)


def removal_text(going: Removal) -> str:
    """What goes with a model."""
    model = going.model
    files = f"{going.files} {'file' if going.files == 1 else 'files'}, {bytes_text(going.size)}"
    lines = [f"Remove {model.name} ({model.kind}, sha256 {model.sha256[:12]}): {files}."]
    if not going.files:
        lines.append(f"Its files lie outside of the site's models and stay: {model.path}")
    if going.reports:
        lines.append(f"Its reports ({going.reports}) will let no model of that name be served.")
    return "\n".join([*lines, "Privacy that was spent on it stays spent."])
