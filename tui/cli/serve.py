"""cloister serve, chat."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.core.errors import ConfigWrong
from tui.cli.endpoint_lines import endpoint_lines
from tui.cli.face import Face, command
from tui.words import reply_words

if TYPE_CHECKING:
    from tui.endpoint import Line

_SNIPPET = """\
export KEY=clo_...        # an API key: cloister key new --for NAME

curl {trust}{url}/v1/chat/completions \\
  -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'

import os{imports}
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key=os.environ["KEY"]{http})
messages = [{{"role": "user", "content": "Hello"}}]
answer = client.chat.completions.create(model="{model}", messages=messages)
print(answer.choices[0].message.content)
"""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    command(app)(serve)
    command(app)(chat)


def serve(
    face: Face,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="GGUF models, adapters that have GGUF files, or adapters' own files. Or the word: status.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Beyond this machine it is https.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8080,
    engine: Annotated[str, typer.Option(help="auto, native (llama-server) or in-process.")] = "auto",
    context: Annotated[
        int | None,
        typer.Option(
            help="Tokens that one request may fill, prompt and answer; else 4096, or what the model reads.",
            min=64,
        ),
    ] = None,
    slots: Annotated[int, typer.Option(help="Requests answered at once by each model.", min=1, max=64)] = 4,
    system: Annotated[
        Path | None, typer.Option(help="A file with the system message of every conversation without one.")
    ] = None,
    embed: Annotated[
        str | None, typer.Option(help="An embedding GGUF, for /v1/embeddings and the search in documents.")
    ] = None,
    cache: Annotated[
        str,
        typer.Option(
            help="Answers kept for the same question of the same key: off, exact, or near (politeness, "
            "abbreviations and number words may differ; every other word must be the same)."
        ),
    ] = "exact",
    most_loaded: Annotated[
        int | None, typer.Option(help="Models in memory at once; the others wait on disk.", min=1)
    ] = None,
    sleep_after: Annotated[
        float | None, typer.Option(help="Seconds without a request until a model leaves memory.", min=1)
    ] = None,
    memory_mb: Annotated[
        int | None, typer.Option(help="MiB of working memory that one engine may take.", min=64)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each engine.", min=1)] = None,
    tls_cert: Annotated[
        str | None, typer.Option(help="PEM certificate; else the site makes its own.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option(help="PEM key of --tls-cert.")] = None,
    watts_per_core: Annotated[
        float | None, typer.Option(help="For the energy estimate where it cannot be measured.", min=0.1)
    ] = None,
    price_per_kwh: Annotated[float | None, typer.Option(help="Shows the cost of a query.", min=0)] = None,
    ungated: Annotated[
        bool,
        typer.Option(
            "--ungated", help="Serve a model that has not passed the gate. Written to the audit log."
        ),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Come back when it is ready; it goes on.")] = False,
) -> None:
    """Serve models on an OpenAI-compatible endpoint, with a web page at /.

    Every request needs an API key: cloister key new --for NAME. Ctrl-C stops the endpoint.
    What it does now: cloister serve status.
    """
    if models == ["status"]:
        status(face)
        return
    spec = {
        "models": models,
        "host": host,
        "port": port,
        "engine": engine,
        "context": context,
        "slots": slots,
        "system": _words(system),
        "embed": embed,
        "cache": cache,
        "most_loaded": most_loaded,
        "sleep_after": sleep_after,
        "memory_mb": memory_mb,
        "threads": threads,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "watts_per_core": watts_per_core,
        "price_per_kwh": price_per_kwh,
        "ungated": ungated,
    }
    job_id = face.session.start_serving(spec)
    job = face.follow(job_id, until="ready")
    ready = next(event for event in job.events if event["event"] == "ready")
    told = {
        key: ready.get(key) for key in ("url", "model", "models", "routes", "engine", "ca", "fingerprint")
    }
    for name in ready["models"]:
        face.say(f"{name} is served at {ready['url']} (engine: {ready['engine']})")
    for name in ready["routes"]:
        face.say(f"Ask for the route {name}: it sends each request to one of its two models.")
    if not any(key.state() == "valid" for key in face.session.api_keys()):
        face.say("There is no API key yet. Make one: cloister key new --for NAME")
    if ready.get("ca"):
        face.say(f"Copy {ready['ca']} to every client: through it they trust this endpoint.")
        face.wrap(f"Compare its SHA-256 there: {ready['fingerprint']}", "", "  ")
    face.say(snippet(ready["url"], next(iter(ready["routes"]), ready["model"]), ready.get("ca")))
    face.say(f"Web page: {ready['url']}/")
    face.result({"job": job_id, **told})
    if detach:
        face.say(f"Stop it with: cloister job stop {job_id}")
        return
    face.say("Ctrl-C stops it.")
    face.follow(job_id)


def snippet(url: str, model: str, ca: str | None) -> str:
    """What to paste to ask `model` at `url`; `ca` is the file that vouches for a site certificate."""
    trust = f"--cacert {ca} " if ca else ""
    http = f",\n    http_client=httpx.Client(verify=ssl.create_default_context(cafile={ca!r}))" if ca else ""
    imports = ", ssl, httpx" if ca else ""
    return _SNIPPET.format(url=url, model=model, trust=trust, http=http, imports=imports)


def status(face: Face) -> None:
    """What the running endpoints do: requests, speed, waiting, cache, routes, energy."""
    found = face.session.endpoints()
    if not found:
        face.say("No endpoint is running. Start one: cloister serve MODEL")
    for one in found:
        for line in endpoint_lines(one):
            face.say(line)
    face.result({"endpoints": found})


def _words(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigWrong(f"{path} cannot be read as text.", "Give --system a UTF-8 text file.") from problem


def chat(
    face: Face,
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="GGUF models, or adapters that have GGUF files.")
    ],
    ask: Annotated[str | None, typer.Option("--ask", help="Ask this one thing and leave.")] = None,
    free: Annotated[
        bool, typer.Option("--free", help="Free text, even from a model that answers labels.")
    ] = False,
) -> None:
    """Ask a model in the terminal. Starts a private endpoint on a free port and stops it at the end.

    Several models get the same question, one after the other, and how fast each was is told.
    """
    if (ask is None and not sys.stdin.isatty() and face.as_json) or (ask is not None and not ask.strip()):
        raise ConfigWrong("Nothing to ask.", "Add --ask TEXT.")
    from tui.endpoint import Endpoint

    with Endpoint(face.session, models, ungated=True) as endpoint:
        names = endpoint.line.models
        if face.as_json and ask is not None:
            replies = [endpoint.ask(ask, model=name, free=free) for name in names]
            answers = [
                {"answer": one.text.strip(), "confidence": one.confidence, "model": name}
                for name, one in zip(names, replies, strict=True)
            ]
            face.result(answers[0] if len(names) == 1 else {"answers": answers})
            return
        if ask is None and sys.stdin.isatty():
            face.say(f"{', '.join(names)}. An empty line leaves.")
        for line in [ask] if ask is not None else _lines():
            if len(names) > 1:
                _compared(face, endpoint.line, line, free=free)
            elif free:
                _stream(endpoint.stream(line))
            else:
                reply = endpoint.ask(line)
                sure = "" if reply.confidence is None else f"  ({reply.confidence:.0%} sure)"
                face.say(reply.text.strip() + sure)


def _compared(face: Face, line: Line, question: str, *, free: bool) -> None:
    """Each model's answer, and how fast it was."""
    for name in line.models:
        face.say(f"--- {name}")
        for part in line.talk(question, model=name, free=free):
            if isinstance(part, str):
                sys.stdout.write(part)
                sys.stdout.flush()
            else:
                face.say(f"\n    {reply_words(part)}")


def _stream(pieces: Iterator[str]) -> None:
    """Free text as it comes."""
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _lines() -> Iterator[str]:
    """What is asked, line by line: of a person up to an empty line, of a pipe every line with words."""
    asked = sys.stdin.isatty()
    while True:
        if asked and sys.stdout.isatty():
            sys.stdout.write("> ")
            sys.stdout.flush()
        read = sys.stdin.readline()
        line = read.strip()
        if not read or (asked and not line):
            return
        if line:
            yield line
