"""cloister feedback: read what people said of answers, judge it, write it out for the next dataset."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tui.cli.face import Face, command

if TYPE_CHECKING:
    from appliance.serve.review import Exported, Feedback, Words

app = typer.Typer(help="What people said of answers: review it, then learn from it.", no_args_is_help=True)
Ids = Annotated[list[str], typer.Argument(help="Ids of feedback, as `feedback list` shows them.")]
THUMBS = {1: "up", -1: "down", None: "-"}
_MODEL_WIDTH = 18  # so that the table has 80 columns


@command(app, "list")
def list_(
    face: Face,
    state: Annotated[str | None, typer.Option(help="Only what is new, accepted or rejected.")] = None,
) -> None:
    """List feedback, oldest first. The words are not shown: see `feedback show`."""
    from tui import session_feedback

    found = session_feedback.list_feedback(face.session, state)
    face.table(
        ("id", "given", "model", "thumb", "marks", "fixed", "state"),
        [
            (
                each.id,
                each.created[:16].replace("T", " "),
                each.model if len(each.model) <= _MODEL_WIDTH else each.model[: _MODEL_WIDTH - 1] + "~",
                THUMBS[each.thumb],
                _marks(each) or "-",
                "yes" if each.corrected else "-",
                each.state,
            )
            for each in found
        ],
        "No feedback yet. People give it on the endpoint's web page.",
    )
    fresh = [each for each in found if each.state == "new"]
    if fresh:
        face.say(f"{len(fresh)} new. Read the first: cloister feedback show {fresh[0].id}")
    face.result({"feedback": [asdict(each) for each in found]})


@command(app)
def show(face: Face, feedback_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show one question, its answer and what was said of it. This is record text."""
    from tui import session_feedback

    said, words = session_feedback.read_feedback(face.session, feedback_id)
    for line in words_lines(said, words):
        face.say(line)
    face.result(asdict(said) | {"words": asdict(words)})


def words_lines(said: Feedback, words: Words) -> list[str]:
    """Question, answer and what was said of it, as lines; record text."""
    lines = [
        f"{said.id}  {said.state}  given {said.created[:16].replace('T', ' ')}",
        f"model {said.model}, key {said.key}, thumb {THUMBS[said.thumb]}",
        *(f"{name}: {mark} of 5" for name, mark in said.ratings.items()),
    ]
    blocks = [(message["role"], message["content"]) for message in words.messages]
    blocks.append(("answer", words.text))
    blocks += [
        (f"from {passage.get('address', '?')}", str(passage.get("quote", ""))) for passage in words.passages
    ]
    if words.correction is not None:
        blocks.append(("should have been", words.correction))
    for title, text in blocks:
        lines += ["", f"[{title}]", *plain(text).splitlines()]
    return lines


@command(app)
def accept(face: Face, ids: Ids) -> None:
    """Accept feedback: `feedback export` will write it."""
    _judge(face, ids, accept=True)


@command(app)
def reject(face: Face, ids: Ids) -> None:
    """Reject feedback: nothing learns from it."""
    _judge(face, ids, accept=False)


@command(app)
def export(
    face: Face,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, NAME.jsonl.")],
    kind: Annotated[
        str | None,
        typer.Option("--as", help="label, answer, chat or preference; without it, what there is."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only what was said of this model.")] = None,
    like: Annotated[
        str | None,
        typer.Option(help="A dataset whose columns the file takes, so that both can be read together."),
    ] = None,
) -> None:
    """Write accepted feedback as records for `cloister data import`.

    A correction takes the place of the answer. An answer without one is written only if its thumb is up.
    As preference, the correction is the better of two answers and the model's own the worse.

    Whose privacy is it? Import with --unit user (the API key that asked: fits keys that are one
    person's) or with --unit feedback (each answer for itself). Neither is the patient: when people ask
    about patients, several answers may be of one.

    For the next version of a dataset that was read from files: export with --like DATASET, put the file
    beside them, and import the folder under the same name.
    """
    from tui import session_feedback

    done = session_feedback.export(face.session, path, kind=kind, model=model, like=like)
    records = "1 record" if done.records == 1 else f"{done.records} records"
    face.say(f"{records} of kind {done.kind} in {done.path.name}.")
    for reason, count in done.left_out.items():
        face.say(f"{count} left out: {reason}.")
    if like is None:
        face.say(f"Next: {_import_words(done)}")
    else:
        face.say(f"Next: put it beside the files of {like} and import their folder under that name.")
    face.result(asdict(done))


def _judge(face: Face, ids: list[str], *, accept: bool) -> None:
    from tui import session_feedback

    session_feedback.judge(face.session, ids, accept=accept)
    word = "accepted" if accept else "rejected"
    face.say(f"{len(ids)} {word}." + (" Next: cloister feedback export FILE.jsonl" if accept else ""))
    face.result({"ids": ids, "state": word})


def plain(text: str) -> str:
    """Text of strangers for a terminal: what would move the cursor or turn the writing is spelt out."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _marks(said: Feedback) -> str:
    return "/".join(str(mark) for mark in said.ratings.values())


def _import_words(done: Exported) -> str:
    named: list[Any] = [word for name, column in done.columns.items() for word in (f"--{name}", column)]
    return shlex.join(
        ["cloister", "data", "import", str(done.path), "--name", "NAME", *named, "--unit", "user"]
    )
