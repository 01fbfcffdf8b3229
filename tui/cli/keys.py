"""cloister key: API keys of the endpoint, what they may do and what they have used."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from appliance.core.errors import ConfigWrong, NotFound
from appliance.security.amounts import read_end, read_rate, read_tokens, short
from appliance.security.keys import OWN_NAME, Grant, Key, utc_now
from appliance.security.usage import Day, day_of
from tui.cli.face import Face, command

_WIDE, _SHOWN_DAYS = 79, 30
_WHAT, _MUCH, _LONG = "What it may use", "How much", "How long"

app = typer.Typer(
    help="API keys of the endpoint: who may ask which models, how much and until when.",
    no_args_is_help=True,
)


@command(app, "new")
def key_new(
    face: Face,
    name: Annotated[str, typer.Option("--for", help="Who or what will use it.")],
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="The only models it may ask: names with commas between, of adapters or of files"
            " (an adapter stands for every file made from it). Default: all.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    collections: Annotated[
        list[str] | None,
        typer.Option(help="Collections of documents it may search. Default: none.", rich_help_panel=_WHAT),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Requests: 60/m (or 60), 5/s or 1000/h; a minute's may come at once. Default: any.",
            rich_help_panel=_MUCH,
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Tokens read and written in a day (UTC): 200000/d (or 200000), 200k/d, 2M/d. Default: any.",
            rich_help_panel=_MUCH,
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option("--open", help="Requests open at once. Default: any.", min=1, rich_help_panel=_MUCH),
    ] = None,
    expires: Annotated[
        str,
        typer.Option(
            help="When it ends: 12h, 90d, 2w, a date such as 2030-12-31 (its first moment, UTC), or never.",
            rich_help_panel=_LONG,
        ),
    ] = "90d",
) -> None:
    """Make an API key. It is shown once and cannot be shown again.

    What a key may do never changes: to widen it, make a new one and revoke the old.

    cloister key new --for dms --models lora-0007 --rate 60/m --tokens 200k/d --open 4
    """
    key_id, secret = face.session.new_key(
        name,
        models=_names(models, "--models"),
        collections=_names(collections, "--collections"),
        expires=None if expires == "never" else read_end(expires, utc_now()),
        requests_per_minute=None if rate is None else read_rate(rate),
        tokens_per_day=None if tokens is None else read_tokens(tokens),
        open_requests=at_once,
    )
    grant = _key(face, key_id).grant
    if not face.as_json:  # the object on stdout has it, and a log of stderr must not
        face.say(secret)
    face.say(f"This is key {key_id}. Keep it now: only its hash is stored.")
    for line in may_lines(grant):
        face.say(line)
    face.say('Use it: curl URL/v1/models -H "Authorization: Bearer KEY" (serve tells the URL)')
    face.result({"id": key_id, "key": secret, **_facts(grant)})


@command(app, "list")
def key_list(face: Face) -> None:
    """List API keys, with the tokens each has used today (UTC)."""
    now = utc_now()
    used = {key: days[0].tokens for key, days in face.session.key_usage(1).items()}
    every = face.session.api_keys()
    # Keys that `chat` made for itself would bury the others; JSON has them all.
    found = [key for key in every if not (key.revoked and key.name == OWN_NAME)]
    face.table(
        ("id", "for", "models", "limits", "today", "expires", "state"),
        key_rows(found, used, now),
        "No API keys yet. Make one: cloister key new --for NAME",
    )
    for key in found:
        if key.grant.collections:
            words = f"{key.id} may search the documents of {', '.join(key.grant.collections)}"
            face.wrap(words, rest="  ")
    for key in found:
        if key.state(now) == "altered":
            face.wrap(f"{key.id} is not as the audit log says that it was made or ended: it opens nothing.")
            face.say(f"End it: cloister key revoke {key.id}; then see who can write to the database.")
    face.result({"keys": [_told(key, now) | {"used_today": used.get(key.id, 0)} for key in every]})


@command(app, "show")
def key_show(
    face: Face,
    key_id: Annotated[
        str, typer.Argument(help="The key's id, or whom it is for where only one key is.", metavar="KEY")
    ],
) -> None:
    """Show what a key may do, and what it used on each of the last 30 days (UTC)."""
    now = utc_now()
    key = _key(face, key_id)
    days = face.session.key_usage(_SHOWN_DAYS).get(key.id, [])
    face.say(f"Key {key.id} for {key.name}, made {key.created[:16]}: {key.state(now)}")
    for line in may_lines(key.grant):
        face.say(line)
    face.say()
    face.table(
        ("day", "requests", "tokens read", "tokens written", "of the limit"),
        [_day(day, key.grant.tokens_per_day) for day in days],
        f"Not used in the last {_SHOWN_DAYS} days.",
    )
    usage = [
        {
            "day": day.day,
            "requests": day.requests,
            "prompt_tokens": day.prompt_tokens,
            "completion_tokens": day.completion_tokens,
        }
        for day in days
    ]
    face.result(_told(key, now) | {"usage": usage})


@command(app, "revoke")
def key_revoke(face: Face, key_id: Annotated[str, typer.Argument(help="The key's id.")]) -> None:
    """Revoke an API key at once."""
    face.session.revoke_key(key_id)
    face.say(f"Key {key_id} is revoked.")
    face.result({"id": key_id, "revoked": True})


def _key(face: Face, key_id: str) -> Key:
    found = face.session.api_keys()
    if same := [key for key in found if key.id == key_id]:
        return same[0]
    named = [key for key in found if key.name == key_id]
    if len(named) > 1:
        raise ConfigWrong(
            f"{len(named)} keys are for {key_id}.", f"Give an id: {', '.join(key.id for key in named[-3:])}."
        )
    if named:
        return named[0]
    raise NotFound(f"There is no key {key_id}.", "See `cloister key list`.")


def _names(given: list[str] | None, option: str) -> list[str]:
    """The names in an option that may be repeated; an empty one would widen the key to all."""
    if given is None:
        return []
    names = [name.strip() for words in given for name in words.split(",")]
    if not all(names):
        raise ConfigWrong(f"{option} has an empty name.", f"Name them, or leave {option} out.")
    return names


def may_lines(grant: Grant) -> list[str]:
    """What a key may do, in words, a fact a line."""
    rate, tokens, at_once = grant.requests_per_minute, grant.tokens_per_day, grant.open_requests
    return [
        f"  models       {', '.join(grant.models) or 'all'}",
        f"  collections  {', '.join(grant.collections) or 'none'}",
        f"  requests     {'any number' if rate is None else f'{rate:,} a minute'}"
        f"{'' if at_once is None else f', {at_once:,} at once'}",
        f"  tokens       {'any number' if tokens is None else f'{tokens:,} a day'}",
        f"  expires      {'never' if grant.expires is None else f'{grant.expires:%Y-%m-%d %H:%M} UTC'}",
    ]


def key_rows(keys: list[Key], used: dict[str, int], now: datetime, width: int = _WIDE) -> list[list[str]]:
    """Rows of at most `width` columns, two spaces between: names give way to figures."""
    rows = []
    for key in keys:
        grant = key.grant
        models = [
            *grant.models[:1],
            *([f"and {len(grant.models) - 1} more"] if len(grant.models) > 1 else []),
        ]
        until = "never" if grant.expires is None else day_of(grant.expires)
        today = short(used.get(key.id, 0))
        rows.append(
            [key.id, key.name, " ".join(models) or "all", _limits(grant), today, until, key.state(now)]
        )
    if not rows:
        return rows
    titles = {0: "id", 3: "limits", 4: "today", 5: "expires", 6: "state"}
    figures = sum(max(len(title), *(len(row[place]) for row in rows)) for place, title in titles.items())
    room = width - figures - 2 * 6  # two spaces between columns
    name = min(max(len(row[1]) for row in rows), max(room // 2, room - max(len(row[2]) for row in rows)))
    for row in rows:
        row[1], row[2] = _cut(row[1], name), _cut(row[2], room - name)
    return rows


def _limits(grant: Grant) -> str:
    parts = [
        f"{short(grant.requests_per_minute)}/m" if grant.requests_per_minute else "",
        f"{short(grant.tokens_per_day)}/d" if grant.tokens_per_day else "",
        f"{short(grant.open_requests)} at once" if grant.open_requests else "",
    ]
    return " ".join(filter(None, parts)) or "none"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."


def _day(day: Day, limit: int | None) -> tuple[str, ...]:
    share = "" if limit is None else f"{day.tokens / limit:.0%}"
    return day.day, f"{day.requests:,}", f"{day.prompt_tokens:,}", f"{day.completion_tokens:,}", share


def _facts(grant: Grant) -> dict[str, Any]:
    return {
        "name": grant.name,
        "models": list(grant.models),
        "collections": list(grant.collections),
        "expires": grant.expires.isoformat() if grant.expires else None,
        "requests_per_minute": grant.requests_per_minute,
        "tokens_per_day": grant.tokens_per_day,
        "open_requests": grant.open_requests,
    }


def _told(key: Key, now: datetime) -> dict[str, Any]:
    facts = {"id": key.id, **_facts(key.grant), "created": key.created, "revoked": key.revoked}
    return facts | {"state": key.state(now)}
