"""What Serve asks before an endpoint is started, and the spec that the answers make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.core.errors import ConfigWrong
from tui.fields import Field
from tui.screens.frame import Framed
from tui.screens.modals import Words
from tui.screens.site import SiteView
from tui.screens.trying import ask_and_try

NOBODY_ELSE, OTHERS = "this machine only", "other machines too"
SERVER, BOX = "server", "small box"
NONE = "none"
_LARGEST_SYSTEM = 100_000  # bytes


def serving_fields(view: SiteView, model: str = "", *, ungated: bool = False) -> tuple[Field, ...]:
    """The form for an endpoint; `model` is chosen beforehand, else the newest that has passed its gate."""
    newest = list(reversed(view.models))
    files = [one for one in newest if one.kind == "gguf" and not one.facts.get("embeds")]
    parents = {one.parent for one in files}
    able = [one.name for one in newest if one.kind in ("adapter", "base") and one.name in parents]
    able += [one.name for one in files] + [one.name for one in newest if one.kind == "lora"]
    family = {one.name: {one.name, one.parent} for one in files}
    passed = {part for name, ok in view.passed.items() if ok for part in family.get(name, {name})}
    fresh = next((name for name in able if name in passed), "")
    vectors = [one.name for one in newest if one.facts.get("embeds")]
    return (
        Field(
            key="model",
            title="Model",
            help="What answers. Of an adapter the smallest file that passed its gate is taken.",
            kind="choice",
            choices=tuple(able),
            default=model or fresh,
            needed=True,
        ),
        Field(
            key="also",
            title="Second model",
            help="One more at the same address, such as a larger one for hard questions or one on trial.",
            kind="choice",
            choices=(NONE, *able),
            default=NONE,
        ),
        Field(
            key="reach",
            title="Who may reach it",
            help="This machine only, or others in the house: then over https, with the site's certificate."
            " Everybody needs an API key (k) either way.",
            kind="choice",
            choices=(NOBODY_ELSE, OTHERS),
            default=NOBODY_ELSE,
        ),
        Field(key="port", title="Port", help="The number behind the address.", kind="whole", default="8080"),
        Field(
            key="machine",
            title="Machine",
            help="server: four answers at once. small box: for 4 to 8 GB without a GPU: one answer at once,"
            " one model in memory, which leaves it after five quiet minutes.",
            kind="choice",
            choices=(SERVER, BOX),
            default=SERVER,
        ),
        Field(
            key="embed",
            title="Documents by",
            help="An embedding model, so that questions find documents (cloister docs add) by meaning and"
            " not by words alone. A key says which collections it may search.",
            kind="choice",
            choices=(NONE, *vectors),
            default=NONE,
        ),
        Field(
            key="cache",
            title="Same question again",
            help="exact: the same question of the same key is answered from memory. near: politeness and"
            " number words may differ. off: always the model.",
            kind="choice",
            choices=("exact", "near", "off"),
            default="exact",
        ),
        Field(
            key="context",
            title="Tokens a request",
            help="Question and answer together; about three letters a token. Left empty: 4096, or less where"
            " the model reads less.",
            kind="whole",
        ),
        Field(
            key="system",
            title="Standing words",
            help="A text file that stands before every conversation, such as: answer in one sentence.",
            kind="path",
        ),
        Field(
            key="price",
            title="Price of a kWh",
            help="Such as 0.30: the cost of a query is shown then.",
            kind="number",
        ),
        Field(
            key="ungated",
            title="Without a gate",
            help="yes: serve it though it has not passed (a base, a file from elsewhere, a failure). That"
            " is written to the audit log.",
            kind="yes",
            default="yes" if ungated else "no",
        ),
    )


def serving_spec(found: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of the job `serve` (appliance/serve/job.py) for the answers of the form.

    Raises:
        ConfigWrong: a port above 65535, the same model twice, or a file that is no text.
    """
    if (found["port"] or 0) > 65535:
        raise ConfigWrong("Port: at most 65535.", "8080 is usual.")
    if found["also"] == found["model"]:
        raise ConfigWrong("Second model: it is the first one.", "Choose another, or none.")
    small = found["machine"] == BOX
    return {
        "models": [found["model"], *([] if found["also"] == NONE else [found["also"]])],
        "host": "127.0.0.1" if found["reach"] == NOBODY_ELSE else "0.0.0.0",  # noqa: S104
        "port": found["port"] or 8080,
        "engine": "auto",
        "slots": 1 if small else 4,
        "most_loaded": 1 if small else None,
        "sleep_after": 300.0 if small else None,
        "embed": None if found["embed"] == NONE else found["embed"],
        "cache": found["cache"],
        "context": found["context"],
        "system": _words(found["system"]),
        "price_per_kwh": found["price"],
        "ungated": found["ungated"],
    }


def ask_serving(screen: Framed, view: SiteView, model: str = "", *, ungated: bool = False) -> None:
    """Ask how `model` is served, start it, and show the job; what cannot start brings the form back."""
    fields = serving_fields(view, model, ungated=ungated)
    if not fields[0].choices:
        screen.app.push_screen(Words("Nothing to serve", _NONE))
        return
    ask_and_try(
        screen,
        fields,
        lambda found: screen.site.start_serving(serving_spec(found)),
        screen.show_job,
        title="Serve",
        label="Start",
        check=serving_spec,
    )


def _words(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        if path.stat().st_size > _LARGEST_SYSTEM:
            raise OSError
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigWrong(f"Standing words: {path} cannot be read.", "A UTF-8 text file is needed.") from None


_NONE = (
    "There is no GGUF file yet. Models are served as GGUF files: quantise one that passed its gate, or import"
    " a file.\n\nPress 1 for Home: it names the next step."
)
