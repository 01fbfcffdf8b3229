"""cloister serve, chat, key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from appliance.core.errors import ConfigWrong
from tui.cli.face import Face, command

keys = typer.Typer(help="API keys of the endpoint.", no_args_is_help=True)

_SNIPPET = """\
  curl {url}/v1/chat/completions -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key=KEY)
  client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hello"}}])
"""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    command(app)(serve)
    command(app)(chat)


def serve(
    face: Face,
    model: Annotated[str, typer.Argument(help="A GGUF model, or an adapter that has GGUF files.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine needs TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8080,
    engine: Annotated[str, typer.Option(help="auto, native (llama-server) or in-process.")] = "auto",
    tls_cert: Annotated[str | None, typer.Option(help="PEM certificate, for https.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="PEM key, for https.")] = None,
    ungated: Annotated[
        bool,
        typer.Option(
            "--ungated", help="Serve a model that has not passed the gate. Written to the audit log."
        ),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Come back when it is ready; it goes on.")] = False,
) -> None:
    """Serve a model on an OpenAI-compatible endpoint.

    Every request needs an API key: cloister key new --for NAME. Ctrl-C stops the endpoint.
    """
    spec = {
        "model": model,
        "host": host,
        "port": port,
        "engine": engine,
        "ungated": ungated,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
    }
    job_id = face.session.start_serving(spec)
    job = face.follow(job_id, until="ready")
    ready = next(event for event in job.events if event["event"] == "ready")
    face.say(f"{ready['model']} is served at {ready['url']} (engine: {ready['engine']})")
    if not any(key.revoked is None for key in face.session.api_keys()):
        face.say("There is no API key yet. Make one: cloister key new --for NAME")
    face.say(_SNIPPET.format(url=ready["url"], model=ready["model"]))
    face.result({"job": job_id, **{key: ready[key] for key in ("url", "model", "engine")}})
    if detach:
        face.say(f"Stop it with: cloister job stop {job_id}")
        return
    face.say("Ctrl-C stops it.")
    face.follow(job_id)


def chat(
    face: Face,
    model: Annotated[str, typer.Argument(help="A GGUF model, or an adapter that has GGUF files.")],
    ask: Annotated[str | None, typer.Option("--ask", help="Ask this one thing and leave.")] = None,
    free: Annotated[
        bool, typer.Option("--free", help="Free text, even from a model that answers labels.")
    ] = False,
) -> None:
    """Ask a model in the terminal. Starts a private endpoint on a free port and stops it at the end."""
    if ask is None and not sys.stdin.isatty() and face.as_json:
        raise ConfigWrong("Nothing to ask.", "Add --ask TEXT.")
    from tui.endpoint import Endpoint

    with Endpoint(face.session, model, ungated=True) as endpoint:
        if face.as_json and ask is not None:
            reply = endpoint.ask(ask, free=free)
            face.result(
                {"answer": reply.text.strip(), "confidence": reply.confidence, "model": endpoint.model}
            )
            return
        if ask is None and sys.stdin.isatty():
            face.say(f"{endpoint.model}. An empty line leaves.")
        for line in [ask] if ask is not None else iter(_read_line, ""):
            if free:
                _stream(endpoint.stream(line))
            else:
                reply = endpoint.ask(line)
                sure = "" if reply.confidence is None else f"  ({reply.confidence:.0%} sure)"
                face.say(reply.text.strip() + sure)


def _stream(pieces: Iterator[str]) -> None:
    """Free text as it comes."""
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _read_line() -> str:
    """One line of the person, empty at the end of input."""
    if sys.stdin.isatty():
        sys.stdout.write("> ")
        sys.stdout.flush()
    return sys.stdin.readline().strip()


@command(keys, "new")
def key_new(face: Face, name: Annotated[str, typer.Option("--for", help="Who or what will use it.")]) -> None:
    """Make an API key. It is shown once and cannot be shown again."""
    key_id, secret = face.session.new_key(name)
    face.say(secret)
    face.say(f"This is key {key_id}. Keep it now: only its hash is stored.")
    face.result({"id": key_id, "key": secret, "name": name})


@command(keys, "list")
def key_list(face: Face) -> None:
    """List API keys."""
    found = face.session.api_keys()
    face.table(
        ("id", "for", "made", "state"),
        [(key.id, key.name, key.created[:16], "revoked" if key.revoked else "valid") for key in found],
        "No API keys yet. Make one: cloister key new --for NAME",
    )
    face.result(
        {"keys": [{"id": k.id, "name": k.name, "created": k.created, "revoked": k.revoked} for k in found]}
    )


@command(keys, "revoke")
def key_revoke(face: Face, key_id: Annotated[str, typer.Argument(help="The key's id.")]) -> None:
    """Revoke an API key at once."""
    face.session.revoke_key(key_id)
    face.say(f"Key {key_id} is revoked.")
    face.result({"id": key_id, "revoked": True})
