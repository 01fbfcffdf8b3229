"""Bringing a model in: the small base that is shipped, a base of the site's own, or a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from appliance.core.errors import ApplianceError, ConfigWrong, NeedsApproval
from appliance.models.importing import check_model_name
from appliance.models.registry import Model
from tui.fields import Field, written
from tui.screens.form import FormWindow
from tui.screens.frame import Framed
from tui.session import Session

if TYPE_CHECKING:
    from tui.app import Cloister

SHIPPED, OWN = "the small one shipped", "our own"

FIELDS = (
    Field(
        key="source",
        title="Model",
        help="the small one shipped: 3.6 million weights, to try everything out in minutes. our own:"
        " a base of yours, or a GGUF file, brought on a disk.",
        kind="choice",
        choices=(SHIPPED, OWN),
        default=SHIPPED,
    ),
    Field(
        key="path",
        title="Folder or .gguf file",
        help="Of a base: the folder with its safetensors files, tokenizer and chat template. It is checked,"
        " then copied into the site.",
        kind="path",
        needed=True,
        when=("source", OWN),
    ),
    Field(
        key="name",
        title="Name",
        help="What to call it here; left empty, as the folder or file is called.",
        when=("source", OWN),
    ),
)


def name_of(found: dict[str, Any]) -> str:
    """The name that was typed, else that of the file or folder.

    Raises:
        ConfigWrong: no model can be called so.
    """
    name = str(found["name"] or found["path"].name.removesuffix(".gguf"))
    check_model_name(name)
    return name


def ask_model(
    screen: Framed, *, file: bool = False, given: Mapping[str, str] | None = None, words: str = ""
) -> None:
    """Ask which, and bring it in; `file`: only a GGUF file makes sense here. Asked from Home, or from a job
    that Home opened, it ends at Home with its new next step. What is refused brings the form back."""
    site = screen.site

    def check(found: dict[str, Any]) -> None:
        if found["source"] == OWN:
            if not found["path"].exists():
                raise ConfigWrong(f"There is nothing at {found['path']}.", "Look for it with ctrl+o.")
            name_of(found)

    def answered(found: dict[str, Any] | None) -> None:
        if found is not None:
            screen.app.notify("Checking and copying the model ...", timeout=5, markup=False)
            screen.attempt(lambda: _bring(site, found), lambda made: told(made, found))

    def told(model: Model | ApplianceError, found: dict[str, Any]) -> None:
        if isinstance(model, ApplianceError):
            again = f"{model.message} {model.hint}\n"
            ask_model(screen, file=file, given=written(found), words=again)
            return
        screen.app.notify(f"{model.name} is in. 5 Models shows it.", timeout=6, markup=False)
        if screen.HERE == "home":
            cast("Cloister", screen.app).show_screen("home")

    form = FormWindow(
        "Bring in a model",
        "Bring it in",
        FIELDS,
        given=given or ({"source": OWN} if file else None),
        words=words,
        check=check,
    )
    screen.app.push_screen(form, answered)


def _bring(site: Session, found: dict[str, Any]) -> Model | ApplianceError:
    try:
        if found["source"] == SHIPPED:
            return site.demo_base()
        return site.import_model(found["path"], name_of(found))
    except NeedsApproval:
        raise
    except ApplianceError as problem:
        return problem
