"""The forms of federations: a request, a kit, a round refused, a site dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tui import session_federate
from tui.fields import Field
from tui.screens.form import FormWindow
from tui.screens.frame import Framed, Looking
from tui.screens.modals import ConfirmName, Words
from tui.screens.trying import ask_and_try

ROUND, MODEL = "one round", "the model"
_WAYS = {"dropped": "it is not wanted any more", "revoked": "its keys are lost", "left": "it left by itself"}


def ask_request(screen: Looking) -> None:
    """Ask to be let in: makes this site's keys and a file for the coordinator."""
    datasets = tuple(dict.fromkeys(one.name for one in reversed(screen.view.datasets))) if screen.view else ()
    if not datasets:
        screen.app.push_screen(Words("No records", "A site needs records first. Press 2 for Data."))
        return

    def told(made: dict[str, Any]) -> None:
        screen.app.push_screen(
            Words(
                "Read these words out",
                f"{made['words']}\n\nCarry {made['path']} to the coordinator, and read these words out by"
                " telephone or face to face. A kit comes back: press j.",
            )
        )
        screen.look_again()

    def work(found: dict[str, Any]) -> dict[str, Any]:
        return session_federate.request(
            screen.site,
            found["name"],
            site=found["site"],
            dataset=found["dataset"],
            units=None,
            again=False,
            to=found["to"].expanduser().absolute(),
        )

    fields = (
        Field(key="name", title="Federation", help="Its name, as the coordinator says.", needed=True),
        Field(key="site", title="Called", help="What this site is called in it. Empty: as its keys are."),
        Field(
            key="dataset",
            title="Records",
            help="What this site trains on. They never leave it.",
            kind="choice",
            choices=datasets,
            default=datasets[0],
        ),
        Field(
            key="to",
            title="File",
            help="The request, to be carried to the coordinator. It holds no secret.",
            kind="path",
            default=str(Path.cwd() / "site.request"),
            needed=True,
        ),
    )
    ask_and_try(screen, fields, work, told, title="Ask to be let in", label="Make it")


def ask_join(screen: Looking) -> None:
    """Take the seat of a kit, after a preflight."""

    def told(done: dict[str, Any]) -> None:
        bad = [one for one in done["checks"] if not one["good"]]
        lines = [f"{one['name']}: {one['cause']}\n  {one['next']}" for one in bad]
        if done["joined"]:
            lines = [f"{done['site']} has joined {done['federation']}, seat {done['seat']}.", *lines]
        screen.app.push_screen(Words("Joined" if done["joined"] else "Not joined", "\n".join(lines)))
        screen.look_again()

    def work(found: dict[str, Any]) -> dict[str, Any]:
        policy = {"epsilon": found["epsilon"], "min_cohort": found["min_cohort"]}
        return session_federate.join(
            screen.site,
            found["kit"].expanduser().absolute(),
            words=found["words"] or "",
            base="",
            policy=policy,
        )

    fields = (
        Field(key="kit", title="Kit", help="The file that came back.", kind="path", needed=True),
        Field(
            key="words",
            title="Their words",
            help="The coordinator's eight words, as it read them out. They show that the kit is from it.",
        ),
        Field(
            key="epsilon",
            title="Epsilon",
            help="The most that this site allows. Empty: what was agreed. Smaller protects more.",
            kind="number",
        ),
        Field(
            key="min_cohort",
            title="Sites together",
            help="The fewest sites that this one lets itself be averaged with. Empty: what was agreed.",
            kind="whole",
        ),
    )
    ask_and_try(screen, fields, work, told, title="Join with a kit", label="Check and join")


def ask_approve(screen: Looking) -> None:
    """Let a site in whose words were read out."""

    def told(made: dict[str, Any]) -> None:
        screen.app.push_screen(
            Words(
                f"{made['site']} is in",
                f"Its kit: {made['kit']}\nCarry it back, and read our words out to the site:"
                f"\n\n  {made['words']}\n\n{made['sites']} sites are in; a round needs {made['quorum']}.",
            )
        )
        screen.look_again()

    def work(found: dict[str, Any]) -> dict[str, Any]:
        request: Path = found["request"].expanduser().absolute()
        return session_federate.approve(
            screen.site,
            request,
            words=found["words"] or "",
            to=request.with_suffix(".kit"),
            authority=found["authority"].expanduser().absolute() if found["authority"] else None,
            passphrase=lambda: found["passphrase"] or "",
        )

    fields = (
        Field(key="request", title="Request", help="The site's file.", kind="path", needed=True),
        Field(
            key="words",
            title="Its words",
            help="The eight words, as the site read them out by telephone or face to face: not as they came"
            " with the file.",
            needed=True,
        ),
        Field(
            key="authority",
            title="Authority's key",
            help="Its file, where it was written to one. Empty: it is in this home.",
            kind="path",
        ),
        Field(
            key="passphrase",
            title="Its passphrase",
            help="Of that file. Empty: there is none.",
            kind="secret",
        ),
    )
    ask_and_try(screen, fields, work, told, title="Let a site in", label="Let it in")


def ask_veto(screen: Framed, name: str, then: Callable[[], object]) -> None:
    """Refuse one round, or the model; or take that back."""

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            number = int(found["round"]) if found["what"] == ROUND else None
            undo = bool(found["undo"])
            screen.attempt(
                lambda: session_federate.veto(screen.site, name, round_=number, undo=undo), lambda _: then()
            )

    fields = (
        Field(
            key="what",
            title="Refuse",
            help="one round: only that. the model: every round from now on. The coordinator is told that a"
            " person refused.",
            kind="choice",
            choices=(ROUND, MODEL),
            default=ROUND,
        ),
        Field(
            key="round", title="Round", help="Its number.", kind="whole", needed=True, when=("what", ROUND)
        ),
        Field(key="undo", title="Take it back", help="yes: answer again.", kind="yes", default="no"),
    )
    screen.app.push_screen(FormWindow(f"Veto in {name}", "Do it", fields), answered)


def ask_leave(screen: Framed, name: str, then: Callable[[], object]) -> None:
    """Give the seat up for good, by the typed name."""

    def sure(yes: bool | None) -> None:
        if yes:
            screen.attempt(lambda: session_federate.leave(screen.site, name), lambda _: then())

    question = (
        f"Leave {name} for good?\n\nLost: this site's keys for it; to come back it needs a new kit under"
        " another name.\nStays: the records, what was spent, and what it has sent, which is in the model."
    )
    screen.app.push_screen(ConfirmName(question, name, "Leave"), sure)


def ask_drop(screen: Framed, name: str, site: str, then: Callable[[], object]) -> None:
    """End a site's part for good: why, then its typed name."""

    def why(found: dict[str, Any] | None) -> None:
        if found is None:
            return
        state = next(state for state, said in _WAYS.items() if said == found["why"])

        def sure(yes: bool | None) -> None:
            if yes:
                screen.attempt(
                    lambda: session_federate.drop(screen.site, name, site, state=state), lambda _: then()
                )

        question = (
            f"End {site}'s part in {name} for good?\n\nLost: its seat; the gateway refuses it from the next"
            " message on.\nStays: what it has sent, which is in the model. A round that runs goes on."
        )
        screen.app.push_screen(ConfirmName(question, site, "Drop"), sure)

    fields = (
        Field(
            key="why",
            title="Because",
            help="It stands in the agreement that all sites see.",
            kind="choice",
            choices=tuple(_WAYS.values()),
            default=next(iter(_WAYS.values())),
        ),
    )
    screen.app.push_screen(FormWindow(f"Drop {site}", "Go on", fields), why)
