"""The forms at a coordinator for the begin and the end of a federation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong
from appliance.security.passphrase import check_new
from tui import session_federate
from tui.federation_terms import USUAL, Terms, drafted, usual_gateway
from tui.fields import Field
from tui.screens.form import FormWindow
from tui.screens.frame import Framed, Looking
from tui.screens.modals import ConfirmName, Words
from tui.screens.trying import ask_and_try

HERE, STICK = "in this home", "a file on a stick"


def ask_begin(screen: Looking) -> None:
    """Make a federation: what is trained, for how long, and what it may cost each site."""
    view = screen.view
    bases = tuple(one.name for one in reversed(view.models) if one.kind == "base") if view else ()
    datasets = tuple(dict.fromkeys(one.name for one in reversed(view.datasets))) if view else ()
    if not bases or not datasets:
        told = (
            "The agreement names a base model, and takes task and labels from a dataset here. Press {} first."
        )
        screen.app.push_screen(Words("Not yet", told.format("5 for Models" if not bases else "2 for Data")))
        return

    def work(found: dict[str, Any]) -> dict[str, Any]:
        given = session_federate.task_of(screen.site, found["dataset"])
        terms = Terms(
            rounds=found["rounds"],
            quorum=found["sites"],
            min_cohort=found["sites"],
            epsilon=found["epsilon"],
            secure=found["secure"],
        )
        draft = drafted(terms, found["name"], gateway=found["gateway"], base=found["base"], given=given)
        to = found["file"].expanduser().absolute() if found["file"] else None
        return session_federate.init(
            screen.site, draft, authority_to=to, passphrase=found["passphrase"] or ""
        )

    def told_made(made: dict[str, Any]) -> None:
        sees = "the sum of the sites' updates alone" if made["secure"] else "each site's update"
        screen.app.push_screen(
            Words(
                f"{made['name']} is begun",
                f"{made['rounds']} rounds on {made['base']}, gateway {made['gateway']}, until"
                f" {made['expires'][:10]}. This coordinator sees {sees}.\nThe authority's key is"
                f" {made['authority']}.\n\nOur words, for sites that join:\n\n  {made['words']}\n\nNext, at"
                " each site: r on its Sites screen. The request that comes here: n, in the federation.",
            )
        )
        screen.look_again()

    ask_and_try(
        screen,
        _fields(bases, datasets),
        work,
        told_made,
        title="Begin a federation",
        label="Begin it",
        words="What is agreed on here is signed; a site that joins holds everybody to it.",
        check=_check,
    )


def _fields(bases: tuple[str, ...], datasets: tuple[str, ...]) -> tuple[Field, ...]:
    return (
        Field(key="name", title="Called", help="A name for the federation, such as north.", needed=True),
        Field(
            key="base",
            title="Base",
            help="The model that all begin with. Every site needs the same file.",
            kind="choice",
            choices=bases,
            default=bases[0],
        ),
        Field(
            key="dataset",
            title="Task as of",
            help="Task, labels and whom privacy protects are taken from this dataset; its records are not.",
            kind="choice",
            choices=datasets,
            default=datasets[0],
        ),
        Field(
            key="gateway",
            title="Reached at",
            help="HOST:PORT of this machine, as the sites reach it.",
            default=usual_gateway(),
            needed=True,
        ),
        Field(
            key="rounds",
            title="Rounds",
            help="How often the sites train and are averaged.",
            kind="whole",
            default=f"{USUAL.rounds}",
            needed=True,
        ),
        Field(
            key="sites",
            title="Sites together",
            help="The fewest sites whose updates are averaged; a round with fewer does not count.",
            kind="whole",
            default=f"{USUAL.quorum}",
            needed=True,
        ),
        Field(
            key="epsilon",
            title="Epsilon",
            help="The most that a site spends in all rounds, for each of its patients. Smaller protects more"
            " and learns less; 8 is usual.",
            kind="number",
            default=f"{USUAL.epsilon:g}",
            needed=True,
        ),
        Field(
            key="secure",
            title="Secure",
            help="yes: the coordinator sees the sum of the updates and no single one, so it cannot look for"
            " bad ones; no site's rounds go by stick.",
            kind="yes",
            default="no",
        ),
        Field(
            key="authority",
            title="Authority's key",
            help="It lets sites in. A stick that lies in a safe is better than this home.",
            kind="choice",
            choices=(HERE, STICK),
            default=HERE,
        ),
        Field(
            key="file",
            title="Its file",
            help="Where the key is written, under a passphrase.",
            kind="path",
            needed=True,
            when=("authority", STICK),
        ),
        Field(
            key="passphrase",
            title="Passphrase",
            help="It opens that file.",
            kind="secret",
            needed=True,
            when=("authority", STICK),
        ),
        Field(
            key="again",
            title="Once more",
            help="The same passphrase.",
            kind="secret",
            needed=True,
            when=("authority", STICK),
        ),
    )


def _check(found: dict[str, Any]) -> None:
    if found["passphrase"] is None:
        return
    if found["passphrase"] != found["again"]:
        raise ConfigWrong("The two passphrases are not the same.", "Type both again.")
    check_new(found["passphrase"])


def ask_end(screen: Framed, name: str, *, done: int, rounds: int, then: Callable[[], object]) -> None:
    """End a federation for all its sites: where the notice for others goes, then its typed name."""

    def told(ended: dict[str, Any]) -> None:
        notice = (
            f"\n\nThe notice for all others: {ended['notice']}\nThere: n, in {name}."
            if ended["notice"]
            else ""
        )
        screen.app.push_screen(
            Words(
                f"{name} has ended",
                f"{ended['rounds']} of {ended['of']} rounds were done. Sites that are there are told over the"
                f" link.{notice}",
            )
        )
        then()

    def where(found: dict[str, Any] | None) -> None:
        if found is None:
            return
        to = found["to"].expanduser().absolute() if found["to"] else None

        def sure(yes: bool | None) -> None:
            if yes:
                screen.attempt(lambda: session_federate.end(screen.site, name, unfinished=True, to=to), told)

        left = f"{rounds - done} of {rounds} rounds are left. " if done < rounds else ""
        question = (
            f"End {name} for all its sites?\n\n{left}Lost: the keys of its links; no round, no site and no"
            " kit more.\nStays: the adapter as it is, and who took part."
        )
        screen.app.push_screen(ConfirmName(question, name, "End it"), sure)

    field = Field(
        key="to",
        title="Notice",
        help="A file for sites that the link does not reach; it is signed and holds no secret.",
        kind="path",
        default=str(Path.cwd() / f"{name}.notice"),
    )
    screen.app.push_screen(FormWindow(f"End {name}", "Go on", (field,)), where)


def ask_notice(screen: Framed, name: str, then: Callable[[], object]) -> None:
    """At a site: believe the notice of a federation's end that was carried here."""

    def told(heard: dict[str, Any]) -> None:
        gone = f" Destroyed: {', '.join(heard['retired'])}." if heard["retired"] else ""
        screen.app.push_screen(
            Words(f"{name} has ended", f"By version {heard['version']} of its agreement.{gone}")
        )
        then()

    field = Field(
        key="file",
        title="Notice",
        help="The coordinator's file. It must be signed by it.",
        kind="path",
        needed=True,
    )
    ask_and_try(
        screen,
        (field,),
        lambda found: session_federate.ended(screen.site, name, found["file"].expanduser().absolute()),
        told,
        title=f"The end of {name}",
        label="Take it",
    )
