"""The three themes of the screens. Every state is a word as well, so none of them carries meaning alone."""

from __future__ import annotations

from textual.theme import Theme

CONTRAST = Theme(
    name="cloister-contrast",
    primary="#5fafff",
    secondary="#ffaf00",
    warning="#ffaf00",
    error="#ff8700",
    success="#5fafff",
    accent="#ffaf00",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1c1c1c",
    dark=True,
    text_alpha=1.0,
)
"""Blue and orange on black: apart for every kind of colour vision."""

THEMES = {"dark": "textual-dark", "light": "textual-light", "contrast": CONTRAST.name}
