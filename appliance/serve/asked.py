"""What is wrong with an endpoint that is asked for, as far as it can be known before anything is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from appliance.core.errors import NotFound
from appliance.core.home import Home
from appliance.models import registry
from appliance.serve.documents.embedding import embedder_id
from appliance.serve.engine import pick_binary
from appliance.serve.header import read_header
from appliance.serve.listen import DEFAULT_HOST, DEFAULT_PORT, check_tls, is_loopback, open_port
from appliance.serve.neighbours import job_on
from appliance.serve.opening import check_cache, choose_all, context_of


def check_serving(home: Home, spec: dict[str, Any]) -> None:
    """Check a spec of the job `serve`, so that no job is made only to fail; the job checks again.

    The bytes of the models are not hashed here, and whether they load only the job can tell.

    Raises:
        NotFound, ConfigWrong, GateFailed: no such model, or it cannot be served as asked. Busy: the port is
        taken. ModelRejected: a file is no GGUF.
    """
    check_cache(spec)
    pick_binary(spec.get("engine") or "auto")
    chosen = choose_all(spec, home)
    if name := spec.get("embed"):
        embedder_id(home, name)
    needed = [model for one in chosen for model in (one.file, one.adapter) if model is not None]
    for model in [*needed, *([registry.get(home, name)] if name else [])]:
        if not os.access(model.path, os.R_OK):
            raise NotFound(f"The file of {model.name} cannot be read.", "Quantise or import it again.")
    if spec.get("context") is not None:
        for one in chosen:
            context_of(spec, one.file.name, read_header(one.file.path))
    host, port = spec.get("host") or DEFAULT_HOST, spec.get("port")
    tls = spec.get("tls_cert") or spec.get("tls_key")
    if tls:
        check_tls(Path(spec.get("tls_cert") or ""), Path(spec.get("tls_key") or ""))
    open_port(
        host,
        DEFAULT_PORT if port is None else int(port),
        tls=bool(tls) or not is_loopback(host),
        holder=lambda taken: job_on(home, taken, DEFAULT_PORT),
    ).close()
