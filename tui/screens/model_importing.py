"""Bringing a model in: the small base that is shipped, a base of the site's own, or a GGUF file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from appliance.core.errors import ConfigWrong
from appliance.models.importing import check_model_name
from appliance.models.registry import Model
from tui.fields import Field
from tui.screens.frame import Framed
from tui.screens.trying import ask_and_try

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


def ask_model(screen: Framed, *, file: bool = False) -> None:
    """Ask which, and bring it in; `file`: only a GGUF file makes sense here. Asked from Home, or from a job
    that Home opened, it ends at Home with its new next step. What is refused brings the form back."""
    site = screen.site

    def check(found: dict[str, Any]) -> None:
        if found["source"] == OWN:
            if not found["path"].exists():
                raise ConfigWrong(f"There is nothing at {found['path']}.", "Look for it with ctrl+o.")
            name_of(found)

    def work(found: dict[str, Any]) -> Model:
        told = "Checking and copying the model ..."
        screen.app.call_from_thread(screen.app.notify, told, timeout=5, markup=False)
        if found["source"] == SHIPPED:
            return site.demo_base()
        return site.import_model(found["path"], name_of(found))

    def brought(model: Model) -> None:
        screen.app.notify(f"{model.name} is in. 5 Models shows it.", timeout=6, markup=False)
        if screen.HERE == "home":
            cast("Cloister", screen.app).show_screen("home")

    ask_and_try(
        screen,
        FIELDS,
        work,
        brought,
        title="Bring in a model",
        label="Bring it in",
        check=check,
        given={"source": OWN} if file else None,
    )
