"""What a bundle holds, in lines, for the command line and the screens. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.security.bundle.show import size_text
from tui.cli.tables import WIDTH, table_lines, wrapped


def leaving_lines(shown: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """What would leave, for whom, what it says of privacy, and what is not protected (show.leaving)."""
    lines = [f"This leaves the building ({size_text(shown['size'])}):", *file_lines(shown, width)]
    names = ", ".join(one["name"] for one in shown["recipients"])
    lines += wrapped(f"For {names}, for {shown['days']} days.", width=width)
    lines += wrapped(f"Privacy: {shown['privacy']}.", rest="  ", width=width)
    if shown["eval"]:
        report = ", ".join(f"{key} {value}" for key, value in shown["eval"].items())
        lines += wrapped(f"Report: {report}", rest="  ", width=width)
    lines.append("Not protected:")
    for told in shown["not_protected"]:
        lines += wrapped(told, "- ", "  ", width=width)
    return [*lines, f"Request {shown['request']}"]


def inside_lines(found: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """What a bundle says of itself (show.inside)."""
    rest = " " * 15
    lines = [
        f"  signed with  {found['words']}",
        f"  made         {found['created']}, good until {found['expires']}",
        f"  number       {found['seq']} of line {found['line']}, key epoch {found['key_epoch']}",
        f"  sealed       {found['suite']} for {found['recipients']}",
        *wrapped(found["privacy_text"], "  privacy      ", rest, width=width),
    ]
    if found["eval"]:
        report = ", ".join(f"{key} {value}" for key, value in found["eval"].items())
        lines += wrapped(report, "  report       ", rest, width=width)
    return [*lines, *file_lines(found, width)]


def file_lines(shown: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """The files, with their sizes and what each is."""
    if not shown["files"]:
        return ["Nothing."]
    rows = [(one["path"][:40], size_text(one["size"]), one["what"][:26]) for one in shown["files"]]
    return table_lines(("file", "size", "what it is"), rows, width=width)
