// Requests to this endpoint, and what a person is told when one fails.

export class Trouble extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// The response to `path`, or a Trouble in plain words. A body makes it a POST.
export async function call(path, key, body, signal) {
  const headers = { authorization: `Bearer ${key}` };
  if (body) headers["content-type"] = "application/json";
  const method = body ? "POST" : "GET";
  let response;
  try {
    const content = body && JSON.stringify(body);
    response = await fetch(path, { method, headers, body: content, signal, cache: "no-store", credentials: "omit" });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Trouble(0, "The endpoint cannot be reached. Check that it runs and that you are on its network.");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Trouble(response.status, plain(response.status, said.error, response.headers.get("retry-after")));
}

function plain(status, error, wait) {
  const said = typeof error?.message === "string" ? error.message : "";
  const seconds = /^\d+$/.test(wait ?? "") ? `${wait} s` : "a moment";
  if (status === 401) return "This key is wrong, expired or revoked. Paste another, or ask whoever runs the endpoint.";
  if (status === 403) return `This key may not do that. ${said}`;
  if (status === 413) return "That is too long. Shorten it, or start a new conversation.";
  if (status === 429) return `Too many requests at once. Wait ${seconds} and ask again.`;
  if (status === 503) return `The model does not answer now; it may be starting. Wait ${seconds} and ask again.`;
  if (status >= 500) return "The endpoint failed, and has noted where. Ask again; if it stays so, tell whoever runs it.";
  if (error?.code === "context_length_exceeded") return `${said} Shorten it, or start a new conversation with New.`;
  if (error?.code === "model_not_found") return "This model is no longer offered. Choose another one above.";
  return said || `The endpoint refused this (${status}).`;
}

// The JSON of each server-sent event, until the end of the answer.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.startsWith("data: ") ? part.slice(6) : "";
      if (data === "[DONE]") return;
      if (data) yield read(data);
    }
  }
}

function read(data) {
  let found;
  try {
    found = JSON.parse(data);
  } catch {
    throw new Trouble(502, "The answer came broken. Ask again.");
  }
  if (found.error) throw new Trouble(503, "The model stopped before the end of its answer. Ask again in a moment.");
  return found;
}
