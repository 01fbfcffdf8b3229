"""The command line: every command starts, follows or reads what tui.session offers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.core.errors import ConfigWrong
from tui.cli import (
    airgap,
    approve,
    audit,
    bundle,
    clock,
    data,
    docs,
    evidence,
    federate,
    feedback,
    jobs,
    keys,
    model,
    people,
    report,
    route,
    supply,
    trust,
)
from tui.cli.audit_privacy import register as register_audit
from tui.cli.demo import register as register_demo
from tui.cli.face import fail
from tui.cli.init import register as register_init
from tui.cli.quantize import register as register_quantize
from tui.cli.search import register as register_search
from tui.cli.serve import register as register_serve
from tui.cli.settings import register as register_settings
from tui.cli.train import register as register_train
from tui.cli.vault import register as register_vault

app = typer.Typer(
    name="cloister",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Tune a small language model on your own records under differential privacy, prove it, shrink it, "
        "serve it, all inside the building. Start with: cloister demo"
    ),
)


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"cloister {version('cloister')}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option("--home", help="The site's folder; alone it opens the screens there.")
    ] = None,
    look: Annotated[
        bool, typer.Option("--look", help="Open the screens to look only: nothing can be changed.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""
    if home is not None:
        os.environ["CLOISTER_HOME"] = str(
            home.expanduser().absolute()
        )  # the next best after a command's own --home
    if context.invoked_subcommand is None:
        from tui.launch import on_terminal

        if not on_terminal():
            fail(ConfigWrong("The screens need a terminal.", "cloister --help"), as_json=False)
        from tui.app import run

        run(home, look=look)


app.add_typer(data.app, name="data")
app.add_typer(docs.app, name="docs")
app.add_typer(model.app, name="model")
app.add_typer(jobs.app, name="job")
app.add_typer(jobs.budget, name="budget")
app.add_typer(audit.app, name="audit")
app.add_typer(keys.app, name="key")
app.add_typer(report.app, name="report")
app.add_typer(route.app, name="route")
app.add_typer(feedback.app, name="feedback")
app.add_typer(supply.app, name="supply")
app.add_typer(people.app, name="people")
app.add_typer(approve.app, name="approve")
app.add_typer(airgap.app, name="airgap")
app.add_typer(bundle.app, name="bundle")
app.add_typer(trust.app, name="trust")
app.add_typer(evidence.app, name="evidence")
app.add_typer(clock.app, name="clock")
app.add_typer(federate.app, name="federate")
for register in (
    register_init,
    register_demo,
    register_train,
    register_search,
    register_quantize,
    register_audit,
    register_serve,
    register_vault,
    register_settings,
):
    register(app)
