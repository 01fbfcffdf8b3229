"""What workers tell screens. Workers never touch widgets."""

from __future__ import annotations

from textual.message import Message

from tui.screens.deeds import Deed
from tui.screens.site import SiteView
from tui.screens.story import Line, Picture


class Progress(Message):
    """The newest picture of a job. A newer one makes this one needless: it holds all of it."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """A waiting Progress of the same kind stands in for this one."""
        return isinstance(message, Progress)


class LogLines(Message):
    """New lines of a job's log. Never replaced, never dropped."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        super().__init__()


class Ended(Message):
    """The job has ended; drawn at once. Never replaced, never dropped."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        super().__init__()


class Looked(Message):
    """A fresh look at the site."""

    def __init__(self, view: SiteView) -> None:
        self.view = view
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Only the newest look counts."""
        return isinstance(message, Looked)


class BudgetsRead(Message):
    """What is left of each dataset's privacy budget, as lines."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__()


class Started(Message):
    """A job was started from here."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__()


class Planned(Message):
    """The plan of a deed that is to be asked about."""

    def __init__(self, deed: Deed, text: str) -> None:
        self.deed, self.text = deed, text
        super().__init__()


class Read(Message):
    """Words to be shown, read by a worker."""

    def __init__(self, title: str, text: str) -> None:
        self.title, self.text = title, text
        super().__init__()
