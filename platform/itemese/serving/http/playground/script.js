"use strict";

// Titles and ids are data: they reach the page through textContent only.
const byId = (id) => document.getElementById(id);
const history = [];
let asked = 0;
let searched = 0;

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function call(path, body) {
  const headers = { "content-type": "application/json" };
  const token = byId("token").value;
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(path, {
    method: body ? "POST" : "GET",
    headers,
    body: body ? JSON.stringify(body) : undefined,
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error.message);
  return content;
}

function say(text, failed = false, where = "status") {
  byId(where).textContent = text;
  byId(where).className = failed ? "failed" : "";
}

function showHistory() {
  byId("history").replaceChildren(...history.map((item, place) => {
    const button = element("button", item.title);
    button.type = "button";
    button.setAttribute("aria-label", `Take out ${item.title}`);
    button.addEventListener("click", () => { history.splice(place, 1); changed(); });
    const row = document.createElement("li");
    row.append(button);
    return row;
  }));
}

function path(codes) {
  const line = element("p", "Codes ", "detail");
  for (const code of codes) line.append(element("span", String(code), "code"), " ");
  return line;
}

function shown(item) {
  const row = document.createElement("li");
  const add = element("button", item.title, "title");
  add.type = "button";
  add.setAttribute("aria-label", `Add ${item.title} to the history`);
  add.addEventListener("click", () => { history.push(item); changed(); });
  const score = item.score === null ? "no score" : `score ${item.score.toFixed(4)}`;
  row.append(add, element("p", `${item.item_id} · ${score}`, "detail"));
  const why = item.explanation;
  if (why) {
    row.append(path(why.codes));
    if (why.nearest) {
      const shared = why.nearest.shared_codes;
      const text = `Shares ${shared} ${shared === 1 ? "code" : "codes"} with ${why.nearest.title}, seen before`;
      row.append(element("p", text, "detail"));
    }
    if (why.siblings.length) {
      const names = why.siblings.map((other) => other.title).join(" · ");
      row.append(element("p", `Siblings: ${names}`, "detail"));
    }
  }
  return row;
}

async function ask(body, turn, status, items) {
  const started = performance.now();
  try {
    const answer = await call("v1/recommend", body);
    if (turn !== asked) return; // a newer question is on its way
    const whole = (performance.now() - started).toFixed(0);
    const notes = [`${answer.model}: ${answer.latency_ms.toFixed(1)} ms in the service, ${whole} ms here`];
    if (answer.cold_start) notes.push("no known item in the history, so popular items came");
    if (answer.unknown_items.length) notes.push(`unknown: ${answer.unknown_items.join(", ")}`);
    say(`${notes.join("; ")}.`, false, status);
    byId(items).replaceChildren(...answer.items.map(shown));
  } catch (error) {
    if (turn === asked) say(error.message, true, status);
  }
}

function changed() {
  showHistory();
  const turn = ++asked;
  const k = Math.min(50, Math.max(1, Number(byId("k").value) || 10));
  const body = { history: history.map((item) => item.item_id), k, explain: true };
  ask({ ...body, version: "champion" }, turn, "status", "items");
  if (!byId("other").hidden) ask({ ...body, version: "canary" }, turn, "other-status", "other-items");
}

async function find() {
  const turn = ++searched;
  const text = byId("search").value.trim();
  if (!text) return byId("found").replaceChildren();
  try {
    const answer = await call(`v1/items?search=${encodeURIComponent(text)}`);
    if (turn !== searched) return;
    byId("found").replaceChildren(...answer.items.map((item) => {
      const button = element("button", item.title);
      button.type = "button";
      button.addEventListener("click", () => { history.push(item); changed(); });
      const row = document.createElement("li");
      row.append(button, element("p", item.item_id, "detail"));
      return row;
    }));
  } catch (error) {
    say(error.message, true);
  }
}

async function introduce() {
  try {
    const model = await call("v1/model");
    byId("model").textContent = `${model.model} (${model.method}), ${model.num_items} items`;
    byId("other").hidden = !model.canary;
  } catch (error) {
    byId("model").textContent = error.message;
  }
  changed();
}

byId("search").addEventListener("input", find);
byId("find").addEventListener("submit", (event) => { event.preventDefault(); find(); });
byId("k").addEventListener("change", changed);
byId("token").addEventListener("change", introduce);
byId("settings").addEventListener("submit", (event) => event.preventDefault());
byId("clear").addEventListener("click", () => { history.length = 0; changed(); });
byId("paste").addEventListener("submit", (event) => {
  event.preventDefault();
  const ids = byId("ids").value.split(/[\n,]/).map((id) => id.trim()).filter(Boolean);
  history.push(...ids.map((id) => ({ item_id: id, title: id })));
  byId("ids").value = "";
  changed();
});
introduce();
