"""The endpoint described for programs: OpenAPI 3.1 as a plain dict, served at /openapi.json.

The fuzz tests hold the endpoint to it: what it calls valid is answered, what it calls wrong is refused,
and every answer has the shape given here. null means the same as leaving a field out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]
_JSON = "application/json"
_STOPS, _STOP_LENGTH, _TEXTS, _TOOLS = 4, 200, 64, 32
_CALLED = r"^[a-zA-Z0-9_-]{1,64}$"
_COLLECTION = r"^[a-z0-9-]{1,40}$"
_ERRORS = {
    "400": "Not understood, not supported, or too long for the model.",
    "401": "The key is missing, wrong, expired or revoked.",
    "403": "The key may not do this.",
    "404": "There is no such model or thing, or the key may not use it.",
    "405": "The address does not take this method.",
    "408": "The request came too slowly.",
    "413": "The body is too long.",
    "422": "The model did not do what was demanded of it.",
    "429": "Too many requests or tokens; see retry-after.",
    "503": "The engine does not answer now; see retry-after.",
}


def describe(
    *, body_bytes: int = 1 << 20, tokens: int = 1024, models: Sequence[str] = (), paths: Sequence[str] = ()
) -> Schema:
    """The description. `body_bytes` and `tokens` are the endpoint's limits for one request.

    `models` names those that may be asked for, where that may be told; `paths` leaves out all others.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cloister",
            "version": "1",
            "description": f"A private endpoint in OpenAI's shapes. A body has {body_bytes} bytes at most,"
            f" an answer {tokens} tokens. A field that is not named here is refused.",
        },
        "security": [{"key": []}],
        "paths": {path: found for path, found in _paths(list(models)).items() if not paths or path in paths},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _answers(),
        },
    }


def _paths(models: list[str]) -> dict[str, Any]:
    model: Schema = {"type": "string", "enum": models} if models else {"type": "string"}
    completion = {_JSON: _ref("Completion"), "text/event-stream": {"type": "string"}}
    return {
        "/health": {"get": _get("Whether a request made now would be answered.", _ref("Health"), key=False)},
        "/metrics": {
            "get": _get("Figures in Prometheus' text format.", {"type": "string"}, kind="text/plain")
        },
        "/v1/models": {"get": _get("The models that the key may use.", _ref("Models"))},
        "/v1/models/{name}": {"get": _get("One of them.", _ref("Model"), named="name")},
        "/v1/chat/completions": {"post": _post("Answer a conversation.", _chat(model), completion)},
        "/v1/completions": {"post": _post("Go on with a text.", _text(model), completion)},
        "/v1/embeddings": {
            "post": _post("Vectors of texts.", _embedding(model), {_JSON: _ref("Embeddings")})
        },
        "/v1/feedback": {"post": _post("Say what an answer was worth.", _feedback(), {_JSON: _ref("Kept")})},
        "/v1/collections": {"get": _get("The documents that the key may ask.", _ref("List"))},
        "/v1/passages/{name}": {"get": _get("The passage that a citation names.", _thing(), named="name")},
    }


def _get(
    summary: str, answer: Schema, *, kind: str = _JSON, key: bool = True, named: str | None = None
) -> Schema:
    found: Schema = {"summary": summary, "responses": _responses({kind: answer})}
    if not key:
        found["security"] = []
        found["responses"]["503"] = {"description": "Not yet.", "content": {_JSON: {"schema": answer}}}
    if named:
        where: Schema = {"name": named, "in": "path", "required": True}
        found["parameters"] = [where | {"schema": {"type": "string", "minLength": 1, "maxLength": 200}}]
    return found


def _post(summary: str, body: Schema, answers: dict[str, Schema]) -> Schema:
    content = {_JSON: {"schema": body}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": _responses(answers),
    }


def _responses(answers: dict[str, Schema]) -> Schema:
    found: Schema = {
        "200": {
            "description": "The answer.",
            "content": {kind: {"schema": schema} for kind, schema in answers.items()},
        }
    }
    for status, text in _ERRORS.items():
        found[status] = {"description": text, "content": {_JSON: {"schema": _ref("Error")}}}
    return found


def _settings(model: Schema) -> dict[str, Schema]:
    stop = {"type": "string", "minLength": 1, "maxLength": _STOP_LENGTH}
    usage = {"include_usage": _null({"type": "boolean"})}
    return {
        "model": model,
        "max_tokens": _null({"type": "integer", "minimum": 1, "maximum": 1 << 31}),
        "temperature": _null({"type": "number", "minimum": 0, "maximum": 2}),
        "top_p": _null({"type": "number", "minimum": 0, "maximum": 1}),
        "seed": _null({"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1}),
        "stop": {"anyOf": [stop, {"type": "array", "maxItems": _STOPS, "items": stop}, {"type": "null"}]},
        "stream": _null({"type": "boolean"}),
        "stream_options": _null(_object(usage)),
        "user": _null({"type": "string", "maxLength": 128}),
        "n": {"enum": [1, None]},
    }


def _chat(model: Schema) -> Schema:
    return _object(
        {
            "messages": {"type": "array", "minItems": 1, "items": {"anyOf": _messages()}},
            "max_completion_tokens": _null({"type": "integer", "minimum": 1, "maximum": 1 << 31}),
            "response_format": {"anyOf": [*_formats(), {"type": "null"}]},
            "tools": _null({"type": "array", "maxItems": _TOOLS, "items": _tool()}),
            "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required", None]}, _named_tool()]},
            "parallel_tool_calls": _null({"type": "boolean"}),
            "collections": _null(
                {"type": "array", "maxItems": 8, "items": {"type": "string", "pattern": _COLLECTION}}
            ),
            **_settings(model),
        },
        needs=["model", "messages"],
    )


def _messages() -> list[Schema]:
    part = _object({"type": {"const": "text"}, "text": {"type": "string"}}, needs=["type", "text"])
    content: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": part}]}
    said = {"content": content, "name": _null({"type": "string"})}
    call = _object(
        {
            "id": {"type": "string"},
            "type": {"const": "function"},
            "function": _object(
                {
                    "name": {"type": "string", "pattern": _CALLED},
                    "arguments": {"type": "string", "description": "A JSON object."},
                },
                needs=["name", "arguments"],
            ),
        },
        needs=["type", "function"],
    )
    calls = {"type": "array", "minItems": 1, "items": call}
    return [
        _object(
            {"role": {"enum": ["system", "developer", "user", "assistant"]}, **said}, ["role", "content"]
        ),
        _object(
            {"role": {"const": "tool"}, **said, "tool_call_id": {"type": "string"}},
            needs=["role", "content", "tool_call_id"],
        ),
        _object(
            {"role": {"const": "assistant"}, "content": {"type": "null"}, "tool_calls": calls},
            needs=["role", "tool_calls"],
        ),
    ]


def _formats() -> list[Schema]:
    schema = {
        "type": "object",
        "description": "A JSON schema of 16 KiB and 16 levels at most, without references to elsewhere,"
        " regular expressions or counts beyond 256.",
    }
    plain = _object({"type": {"enum": ["text", "label", "json_object"]}}, needs=["type"])
    wanted = {"name": {"type": "string"}, "strict": _null({"type": "boolean"}), "schema": schema}
    held = {"type": {"const": "json_schema"}, "json_schema": _object(wanted, needs=["schema"])}
    return [plain, _object(held, needs=["type", "json_schema"])]


def _tool() -> Schema:
    function = {
        "name": {"type": "string", "pattern": _CALLED},
        "description": _null({"type": "string"}),
        "parameters": {"type": "object", "description": "A JSON schema; see response_format."},
        "strict": _null({"type": "boolean"}),
    }
    inner = _object(function, needs=["name"])
    return _object({"type": {"const": "function"}, "function": inner}, needs=["type", "function"])


def _named_tool() -> Schema:
    function = _object({"name": {"type": "string", "pattern": _CALLED}}, needs=["name"])
    return _object({"type": {"const": "function"}, "function": function}, needs=["type", "function"])


def _text(model: Schema) -> Schema:
    one = {"type": "string", "minLength": 1}
    prompt = {"anyOf": [one, {"type": "array", "minItems": 1, "maxItems": 1, "items": one}]}
    return _object({"prompt": prompt, **_settings(model)}, needs=["model", "prompt"])


def _embedding(model: Schema) -> Schema:
    one = {"type": "string", "pattern": r"\S", "maxLength": 100_000}
    return _object(
        {
            "model": model,
            "input": {"anyOf": [one, {"type": "array", "minItems": 1, "maxItems": _TEXTS, "items": one}]},
            "encoding_format": {"enum": ["float", "base64", None]},
            "user": _null({"type": "string"}),
        },
        needs=["model", "input"],
    )


def _feedback() -> Schema:
    mark = {"type": "integer", "minimum": 1, "maximum": 5}
    return _object(
        {
            "answer_id": {"type": "string", "minLength": 1, "maxLength": 100},
            "thumb": {"enum": [1, -1, None]},
            "correction": _null({"type": "string", "maxLength": 20_000}),
            "ratings": _null(_object(dict.fromkeys(("correct", "complete", "clear"), mark))),
        },
        needs=["answer_id"],
    )


def _answers() -> dict[str, Schema]:
    """The shapes of answers; more fields may come with a later version."""
    text: Schema = {"type": "string"}
    count: Schema = {"type": "integer", "minimum": 0}
    error = {"message": text, "type": text, "param": _null(text), "code": _null(text)}
    usage = _thing(prompt_tokens=count, total_tokens=count)
    model = _thing(id=text, object={"const": "model"}, created=count, owned_by=text)
    choice = _thing(index=count, finish_reason=_null({"enum": ["stop", "length", "tool_calls"]}))
    envelope = {"id": text, "created": count, "model": text}
    return {
        "Error": _thing(error=_object(error, needs=list(error))),
        "Health": _thing(status={"enum": ["ok", "starting", "log stopped"]}),
        "Model": model,
        "Models": _thing(object={"const": "list"}, data={"type": "array", "items": model}),
        "List": _thing(object={"const": "list"}, data={"type": "array", "items": {"type": "object"}}),
        "Completion": _thing(
            object={"enum": ["chat.completion", "text_completion"]},
            choices={"type": "array", "minItems": 1, "items": choice},
            usage=usage,
            **envelope,
        ),
        "Chunk": _thing(
            object={"enum": ["chat.completion.chunk", "text_completion"]},
            choices={"type": "array", "items": choice},
            **envelope,
        ),
        "Embeddings": _thing(
            object={"const": "list"},
            model=text,
            data={"type": "array", "items": _thing(object={"const": "embedding"}, index=count)},
            usage=usage,
        ),
        "Kept": _thing(id=text),
    }


def _object(properties: dict[str, Schema], needs: Sequence[str] = ()) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(needs),
        "additionalProperties": False,
    }


def _thing(**properties: Schema) -> Schema:
    """An object that has at least these fields."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
