"""What every command shares: --json, --home, two-line errors, tables, and following a job."""

from __future__ import annotations

import functools
import inspect
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from appliance.core.errors import ApplianceError
from tui.cli.tables import WIDTH, table_lines, wrapped

if TYPE_CHECKING:
    from appliance.ops.jobs import JobView
    from appliance.security.people.signing import Signer
    from tui.session import Session

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
HomeDir = Annotated[
    Path | None, typer.Option("--home", help="The site's folder.", envvar="CLOISTER_HOME", show_envvar=True)
]


def _person(own: Sequence[inspect.Parameter]) -> object:
    """The option --as; --as-person where a command has an --as of its own."""
    taken = any("--as" in _declared(part.annotation) for part in own)
    return Annotated[
        str | None,
        typer.Option(
            "--as-person" if taken else "--as",
            help="Who you are, where people have roles: asks for the passphrase.",
            envvar="CLOISTER_AS",
            metavar="NAME",
        ),
    ]


def _declared(annotation: Any) -> list[str]:
    """The names of an option; typer keeps the first one as its default."""
    return [
        str(name)
        for one in getattr(annotation, "__metadata__", ())
        for name in (getattr(one, "default", None), *(getattr(one, "param_decls", None) or ()))
    ]


class Face:
    """How one command talks: people on stdout, or one JSON object there and people on stderr."""

    def __init__(self, home: Path | None, as_json: bool, person: str | None = None) -> None:
        self.home = home
        self.as_json = as_json
        self.person = person

    @functools.cached_property
    def session(self) -> Session:
        """The door to the product."""
        from tui.session import Session

        session = Session(self.home, signer=signer_of(self.home, self.person))
        if session.actor.how == "signed-in":
            from tui.session_people import alarms

            for line in alarms(session):
                sys.stderr.write(line + "\n")
        return session

    def say(self, text: str = "") -> None:
        """One line for people."""
        stream = sys.stderr if self.as_json else sys.stdout
        stream.write(text + "\n")
        stream.flush()

    def warn(self, message: str, hint: str) -> None:
        """The two lines of an error on stderr, beside a result that is told as well."""
        sys.stderr.write(f"error: {message}\ntry: {hint}\n")

    def result(self, value: Any) -> None:
        """The command's JSON object, when asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()

    def wrap(self, text: str, first: str = "", rest: str | None = None) -> None:
        """A text for people in lines of 80 columns: see tables.wrapped."""
        for line in wrapped(text, first, rest):
            self.say(line)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str, spare: Sequence[str] = ()
    ) -> None:
        """A table for people; `empty` says what to do when there is nothing yet, `spare` is in tables.py."""
        if not rows:
            self.say(empty)
            return
        width = max(WIDTH, shutil.get_terminal_size().columns - 1)
        for line in table_lines(columns, rows, spare=spare, width=width):
            self.say(line)

    def next(self, name: str | None = None) -> str:
        """Say what to do now that something was done to the model called `name`; returns the command."""
        step = self.session.step_after(name)
        # A long command goes on in the next line as a shell reads it.
        self.say(" \\\n".join(wrapped(f"Next: {step.command}", "", "      ", WIDTH - 2)))
        self.wrap(f"{step.text} {step.why}", "      ")
        return step.command

    def follow(
        self,
        job_id: str,
        *,
        until: str | None = None,
        after: int = 0,
        planned: Mapping[str, Any] | None = None,
    ) -> JobView:
        """Show a job's progress until it ends, or until an event called `until`.

        `after`: how much of its event file is old (bytes). `planned`: the plan that was shown already.

        Ctrl-C stops the job, unless it is only being watched by `job tail`.

        Raises:
            ApplianceError: the job failed, was stopped, or died.
        """
        from tui.endings import failure

        try:
            job = self.watch(job_id, until=until, after=after, planned=planned)
        except KeyboardInterrupt:
            self.say("")
            self.say(f"stopping job {job_id} ...")
            job = self.session.job(job_id)
            if job.state in ("running", "waiting"):
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave it half stopped
                job = self.session.stop_job(job_id)
        if job.state in ("failed", "stopped", "died"):
            raise failure(job)
        return job

    def watch(
        self,
        job_id: str,
        *,
        until: str | None = None,
        after: int = 0,
        planned: Mapping[str, Any] | None = None,
    ) -> JobView:
        """Print events as they come; return the job when it has ended (or at `until`).

        Of what was there before, only the newest run counts, and of its progress the newest line.
        """
        from appliance.core.events import read_events
        from tui.cli.lines import Lines, newest_run

        live = sys.stderr.isatty() if self.as_json else sys.stdout.isatty()
        lines = Lines(self.say, live=live, planned=planned)
        folder = self.session.job(job_id).folder
        past, offset = read_events(folder / "events.jsonl", after)
        fresh = newest_run(past)
        while True:
            job = self.session.job(job_id)
            events, offset = read_events(folder / "events.jsonl", offset)
            events, fresh = [*fresh, *events], []
            for event in events:
                lines.show(event)
                if event["event"] == until:
                    lines.close()
                    return self.session.job(job_id)  # the look above may be older than the event
            if job.state not in ("running", "waiting"):
                lines.close()
                return job
            time.sleep(0.1)


def signer_of(home: Path | None, person: str | None) -> Signer | None:
    """Who signs for this command: the person named, once the passphrase is given; else who has unlocked."""
    from appliance.core.home import open_home
    from tui.cli.asking import passphrase_of
    from tui.signers import signed_in

    if person is None:
        return signed_in(open_home(home))
    from tui.session_people import sign_in

    return sign_in(open_home(home), person, passphrase_of(person))


def command(
    app: typer.Typer, name: str | None = None, **kwargs: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(face, ...)` as a command that also takes --json, --home and --as."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*, as_json: bool, home: Path | None, as_person: str | None, **arguments: Any) -> None:
            face = Face(home, as_json, as_person)
            try:
                function(face, **arguments)
            except ApplianceError as problem:
                fail(problem, as_json)
            except KeyboardInterrupt:
                sys.stderr.write("\nstopped\n")
                raise typer.Exit(130) from None
            except BrokenPipeError:
                raise typer.Exit(0) from None

        signature = inspect.signature(function, eval_str=True)
        own = [part for part in signature.parameters.values() if part.name != "face"]
        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [
            inspect.Parameter("as_json", keyword, default=False, annotation=Json),
            inspect.Parameter("home", keyword, default=None, annotation=HomeDir),
            inspect.Parameter("as_person", keyword, default=None, annotation=_person(own)),
        ]
        own = [part.replace(kind=keyword) for part in own]
        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {part.name: part.annotation for part in [*own, *shared]}
        kwargs.setdefault("help", _flowing(inspect.getdoc(function) or ""))
        app.command(name, **kwargs)(run)
        return function

    return register


def _flowing(text: str) -> str:
    """Paragraphs of one line each: typer keeps the ends of lines, which would break sentences apart."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def fail(problem: ApplianceError, as_json: bool) -> NoReturn:
    """Print the two lines of an error and leave with its family's code."""
    tell(problem, as_json)
    raise typer.Exit(problem.exit_code)


def tell(problem: ApplianceError, as_json: bool) -> None:
    """Print the two lines of an error on stderr, and its JSON object on stdout when asked for."""
    if as_json:
        told = {"code": problem.code, "message": problem.message, "hint": problem.hint}
        sys.stdout.write(json.dumps({"error": told}) + "\n")
    sys.stderr.write(f"error: {problem.message}\n")
    if problem.hint:
        sys.stderr.write(f"try: {problem.hint}\n")
