"""cloister federate end: at its coordinator the end of a federation, at a site the notice of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appliance.core.errors import ConfigWrong
from tui.cli.face import Face


def end(
    face: Face,
    name: Annotated[str, typer.Argument(help="The federation.")],
    unfinished: Annotated[
        bool,
        typer.Option("--unfinished", help="Coordinator: also with rounds left; the adapter stays as it is."),
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(help="Coordinator: write the notice for sites that the link does not reach."),
    ] = None,
    notice: Annotated[
        Path | None, typer.Option(help="Site: the notice that was carried here, a file.")
    ] = None,
) -> None:
    """End a federation for good: no round, no site and no kit more; the keys of its links are destroyed.

    After the last round it ends by itself. Sites that are there are told over the link; all others get the
    notice, which is signed and holds no secret. What was trained, and who took part, stays.
    """
    from tui import session_federate

    if notice is not None:
        if to is not None or unfinished:
            raise ConfigWrong("A notice is taken at a site.", "Give --notice alone.")
        heard = session_federate.ended(face.session, name, notice)
        face.say(f"{name} has ended, by version {heard['version']} of its agreement.")
        face.say(_gone(heard["retired"]))
        face.result(heard)
        return
    target = to.absolute() if to else None
    done = session_federate.end(face.session, name, unfinished=unfinished, to=target)
    said = "had ended already" if done["before"] else "has ended"
    face.say(f"{name} {said}, after {done['rounds']} of {done['of']} rounds (version {done['version']}).")
    if done["job"]:
        face.wrap(
            f"Job {done['job']} tells the sites that are there, keeps the adapter and destroys the keys."
        )
    else:
        face.say(_gone(done["retired"]))
    if done["notice"]:
        face.say(f"The notice is in {done['notice']}. At a site: cloister federate end {name} --notice FILE")
    elif done["sites"]:
        face.wrap(f"Sites that were not there are told by a notice: cloister federate end {name} --to FILE")
    face.result(done)


def _gone(names: list[str]) -> str:
    return f"Destroyed: {', '.join(names)}." if names else "No key of it was left here."
