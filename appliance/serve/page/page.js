// The page: a key, a conversation, a passage. The key lives in this tab's sessionStorage and in no address.

import { Trouble, call, events } from "./api.js";
import { newTurn } from "./turn.js";

const KEY = "cloister-key";
const at = (id) => document.getElementById(id);
const log = at("log");
const question = at("question");
const empty = at("empty"); // stands in the log while it holds no turn
let messages = []; // what the model is shown of the conversation
let running = null; // the AbortController of the answer that is being written
let opener = null; // the button that opened the passage

const key = () => sessionStorage.getItem(KEY) ?? "";

function tell(words) {
  at("status").textContent = words;
}

function show(open) {
  at("gate").hidden = open;
  at("talk").hidden = at("controls").hidden = !open;
  (open ? question : at("key")).focus();
}

// Forget the key and all that was shown; `why` is told at the gate.
function lock(why) {
  running?.abort();
  sessionStorage.removeItem(KEY);
  clear();
  at("model").replaceChildren();
  showCollections([]);
  show(false);
  at("gate-problem").textContent = why;
  at("gate-problem").hidden = !why;
}

function clear() {
  running?.abort();
  running = null;
  messages = [];
  log.replaceChildren(empty);
  question.value = "";
  closePassage();
  working(false);
  tell("");
}

async function open() {
  try {
    const models = await (await call("v1/models", key())).json();
    at("model").replaceChildren(...models.data.map(({ id }) => new Option(id, id)));
    showCollections(await collections());
    at("key").value = "";
    at("gate-problem").hidden = true;
    show(true);
  } catch (problem) {
    const kept = problem.status === 401 ? "" : key(); // an endpoint that is away is no reason to lose the key
    lock(problem instanceof Trouble ? problem.message : "The endpoint gave no list of models. Try again.");
    at("key").value = kept;
  }
}

// Which documents this key may ask; none where the endpoint has no documents.
async function collections() {
  try {
    const found = await (await call("v1/collections", key())).json();
    return Array.isArray(found.data) ? found.data : [];
  } catch {
    return [];
  }
}

function showCollections(found) {
  const field = at("collections");
  const lines = found.map(({ id, files }) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", value: id });
    const count = Array.isArray(files) ? files.length : files;
    label.append(box, typeof count === "number" ? `${id} (${count} file${count === 1 ? "" : "s"})` : id);
    return label;
  });
  field.replaceChildren(field.firstElementChild, ...lines);
  at("documents").hidden = found.length === 0;
  showChosen();
}

const chosen = () => [...at("collections").querySelectorAll("input:checked")].map((box) => box.value);

function showChosen() {
  const count = chosen().length;
  at("chosen").textContent = count ? `(${count})` : "";
  at("notice").hidden = count === 0;
}

function working(on) {
  at("ask").hidden = on;
  at("stop").hidden = !on;
}

function follow(work) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  work();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

async function ask() {
  const asked = question.value.trim();
  if (!asked || running) return;
  const control = new AbortController();
  const used = chosen();
  const turn = newTurn(asked, { open: openPassage, give });
  const facts = { model: at("model").value, finish: "", cloister: {}, collections: used, stopped: false };
  running = control;
  question.value = "";
  empty.remove();
  log.append(turn.element);
  log.scrollTop = log.scrollHeight;
  working(true);
  tell("The model is answering.");
  const said = [...messages, { role: "user", content: asked }];
  const body = { model: facts.model, messages: said, stream: true, ...(used.length && { collections: used }) };
  try {
    for await (const event of events(await call("v1/chat/completions", key(), body, control.signal))) {
      const choice = event.choices?.[0];
      if (event.model) facts.model = event.model;
      if (choice?.finish_reason) facts.finish = choice.finish_reason;
      if (event.cloister) Object.assign(facts.cloister, event.cloister);
      if (choice?.delta?.content) follow(() => turn.part(choice.delta.content));
    }
    if (!facts.finish) throw new Trouble(502, "The answer was cut off before its end. Ask again.");
  } catch (problem) {
    if (running !== control) return; // locked or begun anew meanwhile
    facts.stopped = control.signal.aborted;
    if (problem.status === 401) return lock(problem.message);
    if (!facts.stopped) {
      const words = problem instanceof Trouble ? problem.message : "The connection broke before the end of the answer.";
      follow(() => turn.fail(words));
      tell("");
      if (!question.value) question.value = asked;
    }
  }
  if (running !== control) return;
  running = null;
  working(false);
  if (turn.text && (facts.finish || facts.stopped)) {
    messages = [...said, { role: "assistant", content: turn.text }];
    tell(`${facts.stopped ? "Stopped." : "Answer:"} ${turn.text}`);
  }
  if (facts.finish || facts.stopped) follow(() => turn.end(facts));
  question.focus();
}

async function give(body) {
  try {
    await call("v1/feedback", key(), body);
  } catch (problem) {
    if (problem.status === 401) lock(problem.message);
    throw problem;
  }
}

async function openPassage(citation, from) {
  opener = from;
  at("passage-title").textContent = citation.page == null ? citation.file ?? citation.address : `${citation.file}, page ${citation.page}`;
  at("passage-note").textContent = "Opening the passage…";
  at("passage-text").replaceChildren();
  at("passage").hidden = false;
  at("passage-title").focus();
  try {
    const found = await (await call(`v1/passages?address=${encodeURIComponent(citation.address)}`, key())).json();
    if (opener === from) showPassage(found, citation);
  } catch (problem) {
    if (problem.status === 401) return lock(problem.message);
    if (opener === from) at("passage-note").textContent = problem.message;
  }
}

function showPassage({ text, before, after, stale }, { quote, verified }) {
  const notes = [verified ? "The quoted words stand in this passage." : "The quoted words were not found in this passage."];
  if (stale) notes.push("The document has changed since it was read in.");
  at("passage-note").textContent = notes.join(" ");
  const place = quote ? text.indexOf(quote) : -1;
  const [start, end] = place < 0 ? [0, text.length] : [place, place + quote.length];
  const mark = document.createElement("mark");
  mark.textContent = text.slice(start, end);
  const around = (words) => Object.assign(document.createElement("span"), { textContent: words ?? "", className: "around" });
  at("passage-text").replaceChildren(around(before), text.slice(0, start), mark, text.slice(end), around(after));
  mark.scrollIntoView({ block: "center" });
}

function closePassage() {
  if (at("passage").hidden) return;
  at("passage").hidden = true;
  at("passage-text").replaceChildren();
  opener?.focus();
  opener = null;
}

at("gate").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("key").value.trim());
  open();
});
at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (!at("passage").hidden) closePassage();
  else at("documents").open = false;
});
at("stop").addEventListener("click", () => running?.abort());
at("fresh").addEventListener("click", () => {
  clear();
  question.focus();
});
at("lock").addEventListener("click", () => lock(""));
at("collections").addEventListener("change", showChosen);
at("passage-close").addEventListener("click", closePassage);
if (key()) open();
else show(false);
