// One question and its answer on the page. Whatever comes from the model is text here, never markup.

const RUBRIC = ["correct", "complete", "clear"];
const NOT_PRIVATE = "Answers from documents are not protected by differential privacy.";

// A turn in the page: `part(text)` adds to the answer, `end(facts)` and `fail(text)` close it.
export function newTurn(question, actions) {
  const turn = document.getElementById("turn").content.firstElementChild.cloneNode(true);
  const find = (name) => turn.querySelector(name);
  const said = find(".said");
  const text = said.appendChild(document.createTextNode(""));
  find(".asked").textContent = question;
  said.setAttribute("aria-busy", "true");

  return {
    element: turn,
    get text() { return text.data; },
    part(piece) { text.appendData(piece); },
    end({ model, finish, cloister, collections, stopped }) {
      said.removeAttribute("aria-busy");
      const citations = list(cloister.citations).filter((each) => each && typeof each.address === "string");
      showSure(find(".sure"), cloister);
      if (citations.length) {
        linkMarks(said, text.data, citations, actions.open);
        showCitations(find(".citations"), citations, actions.open);
      }
      showUnsupported(find(".unsupported"), list(cloister.unsupported));
      const about = [model];
      if (typeof cloister.route === "string") about.push(`by way of ${cloister.route}`);
      if (cloister.cached) about.push("from the cache");
      if (stopped) about.push("stopped");
      if (finish === "length") about.push("cut at the length limit");
      if (collections.length) about.push(NOT_PRIVATE);
      find(".about").textContent = about.filter(Boolean).join(" · ");
      if (typeof cloister.answer_id === "string") offerFeedback(find(".feedback"), cloister.answer_id, actions.give);
    },
    fail(problem) {
      said.removeAttribute("aria-busy");
      find(".problem").textContent = problem;
      find(".problem").hidden = false;
    },
  };
}

const list = (value) => (Array.isArray(value) ? value : []);

function make(name, words, ...classes) {
  const element = document.createElement(name);
  element.textContent = words;
  element.classList.add(...classes);
  return element;
}

function showSure(place, { label, confidence }) {
  if (typeof label !== "string" || typeof confidence !== "number") return;
  const percent = Math.round(Math.min(Math.max(confidence, 0), 1) * 100);
  const bar = place.querySelector(".bar");
  bar.setAttribute("aria-valuenow", String(percent));
  bar.firstElementChild.style.width = `${percent}%`;
  place.querySelector(".percent").textContent = `${percent} % sure`;
  place.hidden = false;
}

// [1] in the answer becomes a button where there is a citation 1.
function linkMarks(said, text, citations, open) {
  const parts = text.split(/\[(\d{1,3})\]/).map((part, place) => {
    const citation = place % 2 && citations.find((each) => String(each.id) === part);
    if (!citation) return document.createTextNode(place % 2 ? `[${part}]` : part);
    const mark = make("button", part, "mark");
    mark.type = "button";
    mark.setAttribute("aria-label", `Source ${part}: ${citation.file ?? citation.address}`);
    mark.addEventListener("click", () => open(citation, mark));
    return mark;
  });
  said.replaceChildren(...parts);
}

function showCitations(place, citations, open) {
  for (const citation of citations) {
    const button = make("button", `${citation.id}  ${citation.file ?? citation.address}`, "citation");
    if (citation.page != null) button.append(`, page ${citation.page}`);
    button.append(make("span", citation.verified ? "quote found" : "quote not found", citation.verified ? "ok" : "not"));
    button.type = "button";
    button.addEventListener("click", () => open(citation, button));
    place.appendChild(document.createElement("li")).append(button);
  }
  place.hidden = false;
}

function showUnsupported(place, sentences) {
  const items = sentences.filter((each) => typeof each === "string").map((each) => make("li", each));
  place.querySelector("ul").append(...items);
  place.hidden = items.length === 0;
}

// Thumbs are sent at once, marks and correction by their button; each time all that was said so far.
function offerFeedback(place, answerId, give) {
  const find = (name) => place.querySelector(name);
  const thumbs = new Map([[find(".up"), 1], [find(".down"), -1]]);
  const form = find(".rubric");
  const thanks = find(".thanks");
  const state = { answer_id: answerId };
  form.querySelector(".marks").append(...RUBRIC.map((name) => scale(name, answerId)));

  async function send() {
    const ratings = {};
    for (const name of RUBRIC) {
      const chosen = form.elements[`${name} ${answerId}`].value;
      if (chosen) ratings[name] = Number(chosen);
    }
    const correction = form.querySelector(".correction").value.trim();
    const body = { ...state, ...(correction && { correction }), ...(Object.keys(ratings).length && { ratings }) };
    if (Object.keys(body).length < 2) {
      thanks.textContent = "Choose a thumb or a mark, or write a correction.";
      return;
    }
    thanks.textContent = "";
    try {
      await give(body);
      thanks.textContent = "Kept for review, with this conversation.";
    } catch (problem) {
      thanks.textContent = problem.message;
    }
  }

  for (const [button, thumb] of thumbs) {
    button.addEventListener("click", () => {
      state.thumb = thumb;
      for (const [each] of thumbs) each.setAttribute("aria-pressed", String(each === button));
      send();
    });
  }
  const more = find(".more");
  more.addEventListener("click", () => {
    form.hidden = !form.hidden;
    more.setAttribute("aria-expanded", String(!form.hidden));
    if (!form.hidden) form.scrollIntoView({ block: "nearest" });
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  place.hidden = false;
}

function scale(name, answerId) {
  const field = document.createElement("fieldset");
  field.append(make("legend", `${name[0].toUpperCase()}${name.slice(1)}, 1 to 5`));
  for (let mark = 1; mark <= 5; mark += 1) {
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: `${name} ${answerId}`, value: String(mark) });
    const label = document.createElement("label");
    label.append(input, make("span", String(mark)));
    field.append(label);
  }
  return field;
}
