"""Runs the command line: what a person typed wrong is told in two lines, as every other error."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
import typer

from appliance.core.errors import ConfigWrong, lacking
from tui.cli import app
from tui.cli.face import tell

_OURS = ("appliance", "federated", "quantize", "tui")  # one of these missing is a fault of ours, to be seen


def run(words: Sequence[str]) -> int:
    """Do what `words` say; returns the exit code."""
    try:
        left = typer.main.get_command(app).main(list(words), prog_name="cloister", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as problem:
        return problem.exit_code  # making it has printed the help
    except click.ClickException as problem:
        return _misused(problem.format_message(), problem, words)
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] in _OURS:
            raise
        told = lacking(problem)
        tell(told, _as_json(words))
        return told.exit_code
    except click.Abort:
        sys.stderr.write("\nstopped\n")
        return 1
    return left if isinstance(left, int) else 0


def _misused(message: str, problem: click.ClickException, words: Sequence[str]) -> int:
    """Two lines, the second the help of the very command; the exit code is click's."""
    context = getattr(problem, "ctx", None)
    path = context.command_path if context else "cloister"
    message = " ".join(message.split())
    message += "" if message.endswith((".", "?", ")")) else "."
    tell(ConfigWrong(message, f"{path} --help"), _as_json(words))
    return problem.exit_code


def _as_json(words: Sequence[str]) -> bool:
    """Whether --json is among the options; what follows `--` is no option."""
    words = list(words)
    return "--json" in (words[: words.index("--")] if "--" in words else words)
