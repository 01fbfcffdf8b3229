"""Text of a record on its way through code that raises and logs: whatever writes it out shows none of it."""

from __future__ import annotations

from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")


class Phi(Generic[T]):
    """Holds protected information; `plain` gives it out.

    It is no str: to join, cut or encode it one must ask for `plain`, so nothing of it is written by an
    f-string, a `%s`, a log line, an exception's argument or a repr, and no placeholder is taken for text.
    """

    __slots__ = ("plain",)

    plain: T

    def __init__(self, plain: T) -> None:
        self.plain = plain

    def __repr__(self) -> str:
        return f"<{len(self.plain):,} characters>" if isinstance(self.plain, str) else "<not shown>"

    def __format__(self, form: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Phi) and bool(self.plain == other.plain)

    def __hash__(self) -> int:
        return hash(self.plain)

    def __bool__(self) -> bool:
        return bool(self.plain)

    def __reduce__(self) -> NoReturn:
        raise TypeError("record text is not pickled")
