"""How people write limits: rates, tokens a day, and when something ends. Pure: text in, numbers out."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from appliance.core.errors import ConfigWrong

_RATE = re.compile(r"([0-9]{1,9})(?:/([smhd]))?")
_A_MINUTE = {"s": (60, 1), "m": (1, 1), "h": (1, 60), "d": (1, 1440)}
_TOKENS = re.compile(r"([0-9]{1,12})([kM]?)(?:/d)?")
_THOUSANDS = {"": 1, "k": 1_000, "M": 1_000_000}
_SPAN = re.compile(r"([0-9]{1,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def read_rate(text: str) -> int:
    """Requests a minute that "60/m", "5/s", "1000/h", "9000/d" or the number alone stand for, rounded down.

    Raises:
        ConfigWrong: it is none of these, or less than one a minute.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ConfigWrong(f"{_shown(text)} is not a rate.", "Write it as 60/m, 5/s or 1000/h.")
    times, parts = _A_MINUTE[found[2] or "m"]
    rate = int(found[1]) * times // parts
    if rate < 1:
        raise ConfigWrong(f"{_shown(text)} is less than one request a minute.", "1/m is the least.")
    return rate


def read_tokens(text: str) -> int:
    """Tokens a day that "200000/d", "200k/d", "2M/d" or the number alone stand for.

    Raises:
        ConfigWrong: it is none of these, or nothing at all.
    """
    found = _TOKENS.fullmatch(text.strip())
    tokens = int(found[1]) * _THOUSANDS[found[2]] if found else 0
    if not 0 < tokens < 1 << 53:
        raise ConfigWrong(
            f"{_shown(text)} is not a number of tokens a day.", "Write it as 200000/d, 200k/d or 2M/d."
        )
    return tokens


def read_end(text: str, now: datetime) -> datetime:
    """The moment (UTC) that "12h", "90d", "2w" from `now`, or an ISO date or time, stands for.

    A date alone is its first moment; a time without a zone is UTC.

    Raises:
        ConfigWrong: it is none of these, or not after `now`.
    """
    text = text.strip()
    try:
        found = _SPAN.fullmatch(text)
        if found:
            end = now + timedelta(hours=int(found[1]) * _HOURS[found[2]])
        else:
            end = datetime.fromisoformat(text)
            end = (end if end.tzinfo else end.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigWrong(
            f"{_shown(text)} is no time to come.", "Write 12h, 90d, 2w or a date such as 2030-12-31."
        ) from None
    if end <= now:
        raise ConfigWrong(f"{_shown(text)} is not in the future.", "Write 12h, 90d, 2w or a later date.")
    return end


def short(number: int) -> str:
    """A number in at most four characters, rounded down: 999, 1.2k, 12k, 200k, 2M.

    From 1000 G on there are more.
    """
    if number < 1_000:
        return str(number)
    for unit in "kMG":
        tenths, number = number // 100, number // 1_000
        if number < 1_000 or unit == "G":
            break
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth}{unit}" if whole < 10 and tenth else f"{whole}{unit}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
