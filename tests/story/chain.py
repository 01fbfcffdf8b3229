"""The chain as an operator walks it, command by command: `python chain.py FOLDER [--alone]`.

Prints one JSON object with what each command said. `--alone`: in an empty network namespace, where
only a loopback of its own exists; the script brings that up first.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

_COMMAND = Path(sys.executable).parent / "cloister"


def loopback_up() -> None:
    """What `ip link set lo up` does (SIOCSIFFLAGS with IFF_UP)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, 0x8914, struct.pack("16sH14x", b"lo", 0x1))


def cloister(home: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [_COMMAND, *words, "--json", "--home", str(home)], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1, (words, done.stdout, done.stderr)
    return {"exit": done.returncode, "stderr": done.stderr, **json.loads(lines[0])}


def write_records(path: Path) -> None:
    """A site's own export, as CSV: generated messages of 400 made-up patients."""
    from appliance.data import inbox

    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["patient_id", "message", "queue", "sex"])
        for record in inbox.generate(3, patients=400):
            table.writerow([record.unit, record.text, record.answer, record.facts["sex"]])


def walk(folder: Path) -> dict[str, Any]:
    home = folder / "home"
    source = folder / "export.csv"
    write_records(source)
    columns = ("--text", "message", "--label", "queue", "--unit", "patient_id", "--fact", "sex")
    said: dict[str, Any] = {"base": cloister(home, "model", "import", "demo")}
    said["import"] = cloister(home, "data", "import", str(source), "--name", "inbox", *columns)
    said["train"] = cloister(
        home, "train", "inbox", "--steps", "3", "--sample-rate", "0.2", "--name", "tuned"
    )
    said["quantize"] = cloister(home, "quantize", "tuned", "--to", "Q8_0,Q4_K_M")
    said["evaluate"] = cloister(home, "evaluate", "tuned", "--limit", "60")
    said["budget"] = cloister(home, "budget", "show")
    said["chat"] = cloister(home, "chat", "tuned", "--ask", "Can I get more of my heart pills?")
    said["refused"] = cloister(home, "serve", "tuned-q4_k_m", "--port", "18231", "--detach")
    said["serve"] = cloister(home, "serve", "tuned-q4_k_m", "--port", "18231", "--ungated", "--detach")
    said["taken"] = cloister(home, "serve", "tuned-q8_0", "--port", "18231", "--ungated", "--detach")
    said["key"] = cloister(home, "key", "new", "--for", "dms")
    assert "url" in said["serve"], said["serve"]
    said["openai"] = ask(said["serve"]["url"], said["key"]["key"])
    said["stop"] = cloister(home, "job", "stop", said["serve"]["job"])
    said["jobs"] = cloister(home, "job", "list")
    said["models"] = cloister(home, "model", "list")
    said["audit"] = cloister(home, "audit", "tail", "-n", "100")
    return said


def ask(url: str, key: str) -> dict[str, Any]:
    """The stock client against the endpoint: chat, streamed chat, completion, models."""
    from openai import OpenAI

    messages: Any = [{"role": "user", "content": "My bill is wrong, I paid already."}]
    with OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        model = next(iter(client.models.list())).id
        label = client.chat.completions.create(model=model, messages=messages)
        stream = client.chat.completions.create(model=model, messages=messages, stream=True)
        pieces = [part.choices[0].delta.content or "" for part in stream if part.choices]
        text = client.completions.create(model=model, prompt="Message:", max_tokens=4)
    return {
        "model": model,
        "label": (label.choices[0].message.content or "").strip(),
        "streamed": "".join(pieces).strip(),
        "completion": text.choices[0].text,
    }


if __name__ == "__main__":
    if "--alone" in sys.argv:
        loopback_up()
    os.environ.pop("CLOISTER_HOME", None)
    sys.stdout.write(json.dumps(walk(Path(sys.argv[1]))))
