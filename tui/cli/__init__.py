"""The command line: every command starts, follows or reads what tui.session offers."""

from __future__ import annotations

import typer

from tui.cli import data, jobs, model
from tui.cli.demo import register as register_demo
from tui.cli.serve import keys
from tui.cli.serve import register as register_serve
from tui.cli.train import register as register_train

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
app.add_typer(data.app, name="data")
app.add_typer(model.app, name="model")
app.add_typer(jobs.app, name="job")
app.add_typer(jobs.budget, name="budget")
app.add_typer(jobs.audit, name="audit")
app.add_typer(keys, name="key")
for register in (register_demo, register_train, register_serve):
    register(app)
