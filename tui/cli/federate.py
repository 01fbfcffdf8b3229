"""cloister federate: train one model with other sites, whose records stay where they are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.core.errors import ConfigWrong
from tui.cli import federate_carry, federate_end, federate_setup, federate_simulate
from tui.cli import federate_lines as lines
from tui.cli.asking import passphrase_of, read_passphrase
from tui.cli.face import Face, command

app = typer.Typer(help="Train one model with other sites; records stay at home.", no_args_is_help=True)
command(app, "init")(federate_setup.init)
command(app, "export-round")(federate_carry.export_round)
command(app, "import-round")(federate_carry.import_round)
command(app, "simulate")(federate_simulate.simulate)
command(app, "end")(federate_end.end)

Name = Annotated[str, typer.Argument(help="The federation.")]


@command(app, "request")
def request(
    face: Face,
    name: Name,
    dataset: Annotated[str, typer.Option(help="The records of this site that it would train on.")],
    site: Annotated[
        str | None, typer.Option(help="What this site will be called. Default: as its keys are.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(help="The most patients it will ever claim. Default: as many as it has.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With new keys: the request before is void.")
    ] = False,
    to: Annotated[Path | None, typer.Option(help="Where to write it. Default: SITE.request")] = None,
) -> None:
    """At a site: make its keys, which never leave it, and a request to be enrolled."""
    from tui import session_federate

    target = to or Path(f"{site or name}.request")
    made = session_federate.request(
        face.session, name, site=site, dataset=dataset, units=units, again=again, to=target.absolute()
    )
    face.say(f"The request of {made['site']} for {name} is in {made['path']}.")
    face.say(f"  words  {made['words']}")
    face.wrap(
        "Carry it to the coordinator, and read these words out by telephone or face to face. The kit that"
        " comes back is joined with: cloister federate join KIT"
    )
    face.result(made)


@command(app, "approve")
def approve(
    face: Face,
    request: Annotated[Path, typer.Argument(help="A site's request, a file.")],
    words: Annotated[str, typer.Option(help="The eight words, as the site read them out.")] = "",
    to: Annotated[Path | None, typer.Option(help="Where to write the kit. Default: REQUEST.kit")] = None,
    authority: Annotated[
        Path | None, typer.Option(help="The authority's key, where init wrote it to a file.")
    ] = None,
    passphrase_file: Annotated[Path | None, typer.Option(help="A file with that key's passphrase.")] = None,
) -> None:
    """At the coordinator: take a site in whose words were read out; its kit goes back to it.

    The kit holds no secret. Of a request that was approved before, the same kit is written again.
    """
    from tui import session_federate

    def asked() -> str:
        return read_passphrase(passphrase_file) if passphrase_file else passphrase_of("the authority's key")

    made = session_federate.approve(
        face.session,
        request,
        words=words,
        to=(to or request.with_suffix(".kit")).absolute(),
        authority=authority,
        passphrase=asked,
    )
    face.say(f"{made['site']} has seat {made['seat']} of {made['federation']}. Its kit: {made['kit']}")
    face.say(f"  our words  {made['words']}")
    face.wrap("Read our words out to the site: it needs them to join.")
    face.say(f"{made['sites']} sites are in; a round needs {made['quorum']}.")
    face.result(made)


@command(app, "join")
def join(
    face: Face,
    kit: Annotated[Path, typer.Argument(help="The kit that came back, a file.")],
    words: Annotated[
        str,
        typer.Option(help="The coordinator's eight words, as it read them out; not if its card is pinned."),
    ] = "",
    base: Annotated[str, typer.Option(help="The agreed base here, if it has another name.")] = "",
    epsilon: Annotated[float | None, typer.Option(help="The most epsilon this site allows.")] = None,
    min_cohort: Annotated[
        int | None, typer.Option(help="The fewest sites this site lets itself be averaged with.")
    ] = None,
    max_rounds: Annotated[int | None, typer.Option(help="The most rounds it answers.")] = None,
    from_time: Annotated[str | None, typer.Option(help="It answers from this time (UTC): 20:00.")] = None,
    to_time: Annotated[str | None, typer.Option(help="And until this time.")] = None,
    worst_loss: Annotated[
        float | None, typer.Option(help="It refuses an adapter with a higher loss on its own records.")
    ] = None,
    secure_only: Annotated[
        bool, typer.Option("--secure-only", help="It takes part in secure aggregation only.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--keep-loss", help="It does not tell the coordinator its loss.")
    ] = False,
) -> None:
    """At a site: take the seat of a kit, after a preflight. Its own rules are written to policy.toml."""
    from tui import session_federate

    policy: dict[str, Any] = {
        "epsilon": epsilon,
        "min_cohort": min_cohort,
        "max_rounds": max_rounds,
        "from_time": from_time,
        "to_time": to_time,
        "worst_loss": worst_loss,
        "secure_only": secure_only or None,
        "tell_loss": False if quiet else None,
    }
    done = session_federate.join(face.session, kit, words=words, base=base, policy=policy)
    lines.checks(face, done["checks"], joining=True)
    if not done["joined"]:
        face.result(done)
        _refuse(done["checks"], "join")
    face.say(f"{done['site']} has joined {done['federation']}, seat {done['seat']}.")
    lines.policy(face, done["policy"])
    face.say(f"Next: cloister federate start {done['federation']}")
    face.result(done)


@command(app, "list")
def list_(face: Face) -> None:
    """List the federations of this home."""
    from tui import session_federate

    found = session_federate.listed(face.session)
    face.table(
        ("name", "this home", "sites", "rounds", "until", "job"),
        [
            (
                one["name"][:24],
                one["side"],
                one["sites"] if one["sites"] is not None else "-",
                one["rounds"] or "-",
                "ended" if one["ended"] else one["expires"] or "-",
                f"{one['job']} {one['state']}" if one["job"] else "-",
            )
            for one in found
        ],
        "None yet. Make one: cloister federate init --help. Or ask to be in one: federate request --help",
    )
    face.result({"federations": found})


@command(app, "start")
def start(
    face: Face,
    name: Name,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and come back at once.")] = False,
    host: Annotated[
        str, typer.Option(help="Coordinator: the address that the gateway listens on.")
    ] = "0.0.0.0",  # noqa: S104
    port: Annotated[
        int | None, typer.Option(help="Coordinator: the port it listens on. Default: that of the agreement.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Coordinator: name of the adapter made.")] = None,
    carried: Annotated[
        bool, typer.Option("--carried", help="Site: without a link; rounds come and go by stick.")
    ] = False,
) -> None:
    """Start this home's side: at the coordinator it runs the rounds, at a site it answers them.

    Ctrl-C stops it; what was committed stays, and `cloister job resume` or another start goes on from there.
    """
    from tui import session_federate

    job_id = session_federate.start(face.session, name, host=host, port=port, model=model, carried=carried)
    if detach:
        face.say(f"Job {job_id} runs. See it: cloister federate status {name}")
        face.result({"job": job_id})
        return
    result = face.follow(job_id).end["result"]
    if isinstance(result, dict) and result.get("name"):
        face.say(f"{result['name']}: {result['rounds']} rounds on {result['base']}")
        face.say(f"{name} has ended. Next: cloister evaluate {result['name']}")
    elif isinstance(result, dict) and result.get("ended"):
        face.say(f"{name} has ended, after {result['rounds']} rounds here.")
    face.result({"job": job_id, **(result or {})})


@command(app, "status")
def status(
    face: Face,
    name: Name,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew every 2 seconds, until Ctrl-C.")
    ] = False,
) -> None:
    """Show rounds and sites, what was refused and why; at a site, what was spent there."""
    from tui import session_federate

    found = session_federate.status(face.session, name)
    lines.status(face, found)
    while watch:
        time.sleep(2)
        found = session_federate.status(face.session, name)
        face.say("\x1b[H\x1b[2J" if not face.as_json else "")
        lines.status(face, found)
    face.result(found)


@command(app, "check")
def check(
    face: Face,
    name: Name,
    port: Annotated[
        int | None, typer.Option(help="Coordinator: the port the gateway will listen on.")
    ] = None,
) -> None:
    """Check what must be in order before this home starts: each thing by name, with what to do."""
    from tui import session_federate

    found = session_federate.check(face.session, name, port=port)
    lines.checks(face, found)
    face.result({"checks": found, "good": all(one["good"] for one in found)})
    if not all(one["good"] for one in found):
        raise typer.Exit(ConfigWrong.exit_code)


@command(app, "pause")
def pause(face: Face, name: Name) -> None:
    """At a site: answer no round until `resume`. A round that is being answered ends first."""
    from tui import session_federate

    done = session_federate.pause(face.session, name, paused=True)
    face.say(f"This site answers no round of {name} until: cloister federate resume {name}")
    face.result(done)


@command(app, "resume")
def resume(face: Face, name: Name) -> None:
    """At a site: answer rounds again."""
    from tui import session_federate

    done = session_federate.pause(face.session, name, paused=False)
    face.say(f"This site answers rounds of {name} again.")
    face.result(done)


@command(app, "veto")
def veto(
    face: Face,
    name: Name,
    round_: Annotated[int | None, typer.Option("--round", help="The round that is refused.")] = None,
    model: Annotated[bool, typer.Option("--model", help="The model: every round from now on.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
) -> None:
    """At a site: refuse a round, or the model as such. The coordinator is told that a person refused it."""
    from tui import session_federate

    if (round_ is None) == (not model):
        raise ConfigWrong("A round or the model is vetoed.", "Give --round N, or --model.")
    done = session_federate.veto(face.session, name, round_=round_, undo=undo)
    what = "the model" if model else f"round {round_}"
    face.say(f"This site {'refuses' if not undo else 'no longer refuses'} {what} of {name}.")
    face.result(done)


@command(app, "leave")
def leave(face: Face, name: Name) -> None:
    """At a site: give the seat up for good. The keys of its link are destroyed."""
    from tui import session_federate

    done = session_federate.leave(face.session, name)
    face.wrap(
        f"This site has left {name}: it cannot answer any more. Tell the coordinator, who writes it down:"
        " cloister federate drop NAME SITE --left"
    )
    face.result(done)


@command(app, "drop")
def drop(
    face: Face,
    name: Name,
    site: Annotated[str, typer.Argument(help="The site.")],
    revoked: Annotated[bool, typer.Option("--revoked", help="Its kit or keys are lost or stolen.")] = False,
    left: Annotated[bool, typer.Option("--left", help="It has left by itself.")] = False,
) -> None:
    """At the coordinator: end a site's part for good. The gateway refuses it from the next message on."""
    from tui import session_federate

    if revoked and left:
        raise ConfigWrong("A site has left, or its keys are revoked.", "Give one of --revoked and --left.")
    state = "revoked" if revoked else "left" if left else "dropped"
    done = session_federate.drop(face.session, name, site, state=state)
    face.say(f"{site} is {state}: version {done['version']} of {name} says so, and the gateway goes by it.")
    face.wrap(
        "A round that runs goes on without it. To come back it needs new keys and another name:"
        " federate request --again --site NAME"
    )
    face.result(done)


def _refuse(checks: list[dict[str, Any]], step: str) -> None:
    bad = [one for one in checks if not one["good"] and one["stops"] == step]
    more = f" ({len(bad) - 1} more above)" if len(bad) > 1 else ""
    raise ConfigWrong(f"{bad[0]['name']}: {bad[0]['cause']}{more}.", bad[0]["next"])
