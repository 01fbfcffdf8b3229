"""The endpoint against its own description: requests drawn from it, requests against it, and no requests.

Every answer is JSON (or an event stream) of the described shape, every error has OpenAI's, none is a 500,
and no error says again what the request said.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import serve_support as support
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, openapi

import appliance.serve.openapi as openapi_module
from appliance.serve.openapi import describe

SECRET = "zanzibar-secret-word"
QUICK, LONG = 40, 2000
COUNTS = [pytest.param(QUICK, id="sample"), pytest.param(LONG, id="thousands", marks=pytest.mark.soak)]
POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/feedback")
# Valid by the description, and yet beyond what a model has; what is not there at all is a 404.
BEYOND = {
    *("context_length_exceeded", "unsupported_parameter", "no_tools", "tool_call_failed", None),
    *("answer_not_found", "collection_not_found", "model_not_found", "not_found"),
}


@dataclass(frozen=True, kw_only=True)
class Site:
    url: str
    key: str
    http: httpx.Client
    paths: frozenset[str]
    description: dict[str, Any]

    def check(self, answer: httpx.Response, sent: Any = None) -> None:
        """The properties that every answer has."""
        assert answer.status_code != 500, sent
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if answer.status_code >= 400:
            assert kind == "application/json", (answer.status_code, answer.text)
            self._valid("Error", answer.json())
            shown = answer.text
            assert SECRET not in shown
            assert [text for text in texts(sent) if len(text) > 5 and text in shown] == []
        elif kind == "text/event-stream":
            events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
            found = [json.loads(event) for event in events if event != "[DONE]"]
            for event in found:
                self._valid("Error" if "error" in event else "Chunk", event)
            assert events[-1] == "[DONE]" or "error" in found[-1]
        elif answer.request.method == "POST" and answer.request.url.path.endswith("completions"):
            self._valid("Completion", answer.json())

    def _valid(self, name: str, value: Any) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": self.description["components"]}
        jsonschema_rs.validator_for(schema).validate(value)


@pytest.fixture(scope="module", params=["text", pytest.param("label", marks=pytest.mark.soak)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = support.new_home(tmp_path_factory.mktemp("home"), labels=request.param == "label")
    with support.endpoint(home, threads=1, max_tokens=6) as (_, url, key):
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
            there = frozenset(path for path in POSTS if http.post(path, json={}).status_code != 404)
            assert "/v1/chat/completions" in there
            description = describe(models=[support.NAME])
            yield Site(url=url, key=key, http=http, paths=there, description=description)


def texts(value: Any) -> Iterator[str]:
    """Every text of a request, except the names of fields, the model's and the words of the description."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str) and value not in WORDS and value not in OWN:
        yield value


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (word for word in [*value.get("enum", ()), value.get("const")] if isinstance(word, str))
        for inner in value.values():
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)


# What stands in our own source may stand in an error: the generator draws such words from the description.
OWN = "".join(file.read_text() for file in Path(openapi_module.__file__).parent.rglob("*.py"))
WORDS = {support.NAME, *_words(describe())}


def fuzz(site: Site, mode: GenerationMode, count: int, seen: Any) -> None:
    """Draw `count` requests for each path; `seen` gets answer, request, and whether that was a valid one."""
    schema = openapi.from_dict(site.description)
    for path in sorted(site.paths):
        wanted = site.description["paths"][path]["post"]["requestBody"]["content"]["application/json"][
            "schema"
        ]
        valid = jsonschema_rs.validator_for(wanted)

        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            derandomize=count == QUICK,
            suppress_health_check=list(HealthCheck),
        )
        @given(schema[path]["POST"].as_strategy(generation_mode=mode))
        def draw(case: Any) -> None:
            body = case.body if isinstance(case.body, dict | list | str | int | float | None) else None
            content = json.dumps(body).encode()
            answer = site.http.post(path, content=content, headers={"content-type": "application/json"})  # noqa: B023
            site.check(answer, body)
            # A field that is null is one left out, also one that we do not have.
            given = {k: v for k, v in body.items() if v is not None} if isinstance(body, dict) else body
            seen(answer, body, valid.is_valid(given))  # noqa: B023

        draw()


@pytest.mark.parametrize("count", COUNTS)
def test_what_the_description_allows_is_answered(site: Site, count: int) -> None:
    answered = []

    def seen(answer: httpx.Response, body: Any, valid: bool) -> None:
        answered.append(answer.status_code)
        if answer.status_code >= 400:
            error = answer.json()["error"]
            beyond = answer.status_code == 400 and error["code"] in BEYOND
            assert beyond or answer.status_code in (404, 422), (error, body)

    fuzz(site, GenerationMode.POSITIVE, count, seen)
    assert answered.count(200) > len(answered) / 10, answered


@pytest.mark.parametrize("count", COUNTS)
def test_what_it_does_not_allow_is_refused(site: Site, count: int) -> None:
    def seen(answer: httpx.Response, body: Any, valid: bool) -> None:
        # A case may be wrong in what is left out here, its headers, and right in its body.
        refused.append(not valid)
        assert valid or 400 <= answer.status_code < 500, (answer.status_code, body)

    refused: list[bool] = []
    fuzz(site, GenerationMode.NEGATIVE, count, seen)
    assert sum(refused) > len(refused) / 10


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SECRET)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
FIELDS = ["model", "messages", "prompt", "input", "stop", "stream", "seed", "tools", "response_format"]
FIELDS += ["temperature", "max_tokens", "tool_choice", "logit_bias", "answer_id", "ratings", "collections"]
bodies = st.one_of(
    st.binary(max_size=200),
    anything.map(lambda value: json.dumps(value).encode()),  # NaN and lone surrogates too
    st.dictionaries(st.sampled_from(FIELDS), anything, max_size=6).map(
        lambda value: json.dumps({"model": support.NAME, **value}).encode()
    ),
    st.integers(1, 100_000).map(lambda depth: b'{"messages":' + b"[" * depth),
    st.integers(1, 5000).map(lambda digits: b'{"seed":' + b"9" * digits + b"}"),
)
headers = st.dictionaries(
    st.sampled_from(["content-type", "accept", "authorization", "expect", "range", "x-forwarded-for"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip),
    max_size=2,
)


@pytest.mark.parametrize("count", COUNTS)
def test_anything_else_is_an_error_in_the_same_shape(site: Site, count: int) -> None:
    @settings(
        max_examples=count * 3,
        deadline=None,
        database=None,
        derandomize=count == QUICK,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from(["POST", "PUT", "GET", "DELETE", "PATCH", "OPTIONS"]),
        st.sampled_from([*POSTS, "/v1/models", "/v1/models/x", "/metrics", "/v1/x", "/openapi.json"]),
        bodies,
        headers,
    )
    def draw(method: str, path: str, body: bytes, more: dict[str, str]) -> None:
        site.check(site.http.request(method, path, content=body, headers=more))

    draw()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\xff\xfe zanzibar-secret-word\r\n\r\n",
        b"GET /nowhere HTTP/9.9\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"zanzibar-secret-word\r\n\r\n",
        b"GET /zanzibar-secret-word HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: zanzibar-secret-word\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (1 << 17) + b"\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_an_error_too(site: Site, raw: bytes) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as link:
        link.sendall(raw)
        found = b""
        try:
            while part := link.recv(1 << 16):
                found += part
        except ConnectionResetError:
            pass
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.split()[1][:1] == b"4", found
    assert SECRET.encode() not in found
    site._valid("Error", json.loads(body))
