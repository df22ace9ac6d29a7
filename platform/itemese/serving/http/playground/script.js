// The playground: state, calls and what the page shows of them.

import { AnswerList } from "./answers.js";
import { Failure, call, hasToken, patientCall, setToken } from "./api.js";
import { combobox } from "./combobox.js";
import { announce, button, byId, make, message, plural, replace } from "./dom.js";
import { falls, leftOutRequests } from "./reasons.js";
import { curl, python } from "./snippets.js";
import { MOST_ITEMS, empty, read, requestOf, write } from "./state.js";

const MOST_SCORED = 1000; // items of one request to /v1/score
const NUM_EXAMPLES = 3;
const EXAMPLE_LENGTH = 4;

let state = empty();
let model = null;
let columns = [];
let language = "curl";
let asking = new AbortController();
const titles = new Map(); // item_id -> title; null for an id that the catalogue lacks

const titleOf = (id) => titles.get(id) ?? id;
const version = () => (model?.canary ? "champion" : null); // else a share of requests goes to the canary
const known = () => state.history.filter((id) => titles.get(id) !== null);
const hooks = { titleOf, add: (item) => add(item) };
const first = new AnswerList(byId("first"), hooks);
const second = new AnswerList(byId("second"), hooks);

// Failures ----------------------------------------------------------------------------------------

function actions(error) {
  const again = button("Try again", start);
  if (error.kind === "token") return [button("Enter the token", openAccess)];
  if (error.kind === "request" && Object.keys(state.filter).length) return [again, button("Clear filters", clearFilters)];
  return [again];
}

function openAccess() {
  byId("access").open = true;
  byId("token").focus();
}

function report(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Failure)) throw error;
  notify(error.message, ...actions(error));
}

function notify(text, ...more) {
  const notice = byId("page-notice");
  notice.replaceChildren(make("p", {}, ...message(text)), ...more);
  notice.hidden = !text;
}

// History -----------------------------------------------------------------------------------------

function add(item) {
  titles.set(item.item_id, item.title);
  state.history.push(item.item_id);
  announce(`Added ${item.title}. ${plural(state.history.length, "item")} in the history.`);
  changed();
  byId("history").scrollTop = byId("history").scrollHeight; // the newest
}

function remove(place) {
  const [gone] = state.history.splice(place, 1);
  announce(`Removed ${titleOf(gone)}. ${plural(state.history.length, "item")} in the history.`);
  changed();
}

function setHistory(ids) {
  state.history = ids;
  changed();
}

/** Learn the titles of ids; an id that the catalogue lacks gets none. */
async function learn(ids) {
  const unknown = [...new Set(ids)].filter((id) => !titles.has(id));
  for (let start = 0; start < unknown.length; start += MOST_SCORED) {
    const part = unknown.slice(start, start + MOST_SCORED);
    const answer = await call("v1/score", { history: [], item_ids: part });
    const missing = new Set(answer.unknown_items);
    for (const item of answer.items) titles.set(item.item_id, missing.has(item.item_id) ? null : item.title);
  }
}

/** Return the ids that a person's text names: ids or whole titles by lines, or ids by commas. */
async function parse(text) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  const parts = (line) => line.split(",").map((part) => part.trim()).filter(Boolean);
  await learn(lines.flatMap((line) => [line, ...parts(line)]));
  const ids = [];
  for (const line of lines) {
    if (titles.get(line) !== null) ids.push(line);
    else if (parts(line).some((part) => titles.get(part) !== null)) ids.push(...parts(line));
    else ids.push(...((await titled(line)) ?? parts(line)));
  }
  return ids;
}

async function titled(line) {
  const found = await call(`v1/items?search=${encodeURIComponent(line.slice(0, 100))}`);
  const item = found.items.find((one) => one.title.toLowerCase() === line.toLowerCase());
  if (!item) return null;
  titles.set(item.item_id, item.title);
  return [item.item_id];
}

function showHistory() {
  const rows = state.history.map((id, place) => {
    const missing = titles.get(id) === null;
    return make(
      "li",
      { class: missing ? "missing" : null },
      make("span", {}, titleOf(id), missing ? make("span", { class: "hint" }, " not in the catalogue, ignored") : null),
      button("×", () => remove(place), { "aria-label": `Remove ${titleOf(id)} from the history` }),
    );
  });
  if (!replace(byId("history"), ...rows)) byId("search").focus();
  byId("clear").hidden = !state.history.length;
  byId("examples-box").open = !state.history.length;
  const most = model?.max_history ?? Infinity;
  byId("history-hint").textContent = !state.history.length
    ? "Empty: the service answers with the most popular items."
    : known().length > most
      ? `Oldest first. The model reads the newest ${most}.`
      : "Oldest first.";
}

// Example users -----------------------------------------------------------------------------------

/** Offer users made of the catalogue: a few popular items of one value of a column. */
async function offerExamples() {
  const column = columns.find((one) => one.num_values > 1 && typeof one.values[0].value === "string");
  const values = column ? column.values.slice(0, NUM_EXAMPLES).map((one) => one.value) : [];
  const length = EXAMPLE_LENGTH * (values.length + 1);
  const requests = values.map((value) => ({ history: [], k: length, filter: { [column.name]: [value] } }));
  requests.push({ history: [], k: length });
  const { answers } = await call("v1/recommend/batch", { requests });
  const taken = new Set();
  const users = answers.map((answer, place) => {
    const items = (answer.items ?? []).filter((item) => !taken.has(item.item_id)).slice(0, EXAMPLE_LENGTH);
    for (const item of items) {
      taken.add(item.item_id);
      titles.set(item.item_id, item.title);
    }
    return { name: values[place] ?? "Popular items", items };
  });
  byId("examples").replaceChildren(
    ...users.filter(({ items }) => items.length).map(({ name, items }) =>
      make("li", {},
        make("button", { type: "button", onclick: () => setHistory(items.map((item) => item.item_id)) },
          make("b", {}, name),
          make("span", { class: "hint" }, items.map((item) => item.title).join(" · ")))),
    ),
  );
}

// Filters -----------------------------------------------------------------------------------------

function setValue(column, value, wanted) {
  const values = (state.filter[column] ?? []).filter((one) => one !== value);
  if (wanted) values.push(value);
  if (values.length) state.filter[column] = values;
  else delete state.filter[column];
  changed();
}

function clearFilters() {
  state.filter = {};
  changed();
}

function buildFilters() {
  const boxes = columns.map((column) => {
    const listed = [...column.values];
    const whole = column.num_values === listed.length;
    if (whole && typeof listed[0].value === "number") listed.sort((one, other) => other.value - one.value);
    const rows = listed.map(({ value, num_items }) => {
      const box = make("input", { type: "checkbox", onchange: (event) => setValue(column.name, value, event.target.checked) });
      box.filtered = { column: column.name, value };
      return make("label", { class: "check" }, box, make("span", {}, String(value)), make("span", { class: "hint" }, num_items.toLocaleString("en")));
    });
    const more = whole ? [] : [otherValue(column)];
    return make("details", { class: "filter" }, make("summary", {}, column.name), make("div", { class: "values", role: "group", "aria-label": column.name }, ...rows), ...more);
  });
  byId("filters").replaceChildren(...boxes);
  if (!boxes.length) byId("filters").append(make("p", { class: "hint" }, "The catalogue has no column to choose from."));
}

function otherValue(column) {
  const number = typeof column.values[0].value === "number";
  const field = make("input", { type: number ? "number" : "text", required: true });
  const submit = (event) => {
    event.preventDefault();
    setValue(column.name, number ? Number(field.value) : field.value, true);
    field.value = "";
  };
  const text = `Another of ${plural(column.num_values, "value")}`;
  return make("form", { onsubmit: submit }, make("label", {}, text, field), make("button", { type: "submit" }, "Add"));
}

function showFilters() {
  for (const box of byId("filters").querySelectorAll("input[type=checkbox]")) {
    box.checked = (state.filter[box.filtered.column] ?? []).includes(box.filtered.value);
  }
  const used = Object.entries(state.filter).flatMap(([column, values]) => values.map((value) => [column, value]));
  const chips = used.map(([column, value]) =>
    make("li", {}, make("span", {}, `${column}: ${value}`),
      button("×", () => setValue(column, value, false), { "aria-label": `Remove the filter ${column}: ${value}` })));
  replace(byId("active"), ...chips);
  byId("active").hidden = !used.length;
}

// Comparison --------------------------------------------------------------------------------------

/** Return what the second list shows: popular, canary or none. */
function beside() {
  const standard = model?.canary ? "canary" : "none";
  const wanted = state.beside ?? standard;
  const possible = { canary: Boolean(model?.canary), popular: model?.method !== "popularity", none: true };
  return possible[wanted] ? wanted : "none";
}

function buildComparison() {
  const options = [make("option", { value: "none" }, "Nothing")];
  const hints = [];
  if (model.canary) {
    const share = (100 * model.canary.share).toLocaleString("en", { maximumFractionDigits: 1 });
    options.push(make("option", { value: "canary" }, `Challenger ${model.canary.model}`));
    hints.push(`The challenger is the canary of the registry; it answers ${share} % of the requests.`);
  } else {
    hints.push("The service has one model. Serve a registry with a canary to compare two.");
  }
  if (model.method === "popularity") hints.push("This model is the list of popular items, so that is no comparison.");
  else options.push(make("option", { value: "popular" }, "Most popular items"));
  byId("beside").replaceChildren(...options);
  byId("beside-hint").textContent = hints.join(" ");
  if (state.beside === "canary" && !model.canary) notify("The link asks for a challenger, and the service has none now.");
}

// Asking ------------------------------------------------------------------------------------------

function headings() {
  const champion = model?.canary ? `Champion ${model.model}` : (model?.model ?? "Model");
  const other = { canary: `Challenger ${model?.canary?.model}`, popular: "Most popular items", none: "" };
  return known().length ? [champion, other[beside()]] : ["Most popular items", ""];
}

function quality(facts) {
  const found = facts?.metrics?.["test/ndcg@10"];
  if (!found) return facts?.method ?? "";
  const [value, low, high] = [found.value, found.low, found.high].map((one) => one?.toFixed(3));
  return `${facts.method} · NDCG@10 ${value}${low && high ? ` (${low}–${high})` : ""}`;
}

/** Ask for one list and show it; return its answer, or null where there is none. */
async function ask(list, heading, facts, body, signal) {
  list.busy(heading, facts);
  list.say("", "");
  try {
    const wait = (seconds) => list.say("wait", `The service is busy. The page asks again in ${plural(seconds, "second")}.`);
    const answer = await patientCall("v1/recommend", body, signal, wait);
    for (const item of answer.items) titles.set(item.item_id, item.title);
    list.say("", "");
    list.show(answer, `${facts}${facts && " · "}${answer.latency_ms.toFixed(1)} ms`);
    if (!answer.items.length) {
      const filtered = Object.keys(state.filter).length > 0;
      const text = filtered ? "No item passes these filters." : "The service has no item to recommend.";
      list.say("wait", text, ...(filtered ? [button("Clear filters", clearFilters)] : []));
    }
    return answer;
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return null;
    if (!(error instanceof Failure)) throw error;
    list.fail(error.message, ...actions(error));
    return null;
  }
}

/** Ask what the history contributes to a list and write it on the cards. */
async function giveReasons(list, body, facts, signal) {
  const read = known().slice(-(facts?.max_history ?? Infinity));
  const { requests, newest, k } = leftOutRequests(body, read, facts?.exclude_seen ?? true);
  try {
    const { answers } = await patientCall("v1/recommend/batch", { requests }, signal, () => {});
    const refused = answers.find((one) => one.error);
    if (refused) throw new Failure("busy", refused.error.message);
    list.explainAll(falls(answers, newest, k), k);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    if (!(error instanceof Failure)) throw error;
    list.say("wait", `The reasons are missing. ${error.message}`);
  }
}

async function refresh() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const other = known().length ? beside() : "none"; // without a history all lists are the popular items
  const [heading, otherHeading] = headings();
  byId("second").hidden = other === "none";
  byId("columns").classList.toggle("two", other !== "none");
  byId("agreement").textContent = "";
  const body = requestOf(state, version());
  const asked = [ask(first, heading, quality(model), body, signal)];
  let otherBody = null;
  if (other === "canary") {
    otherBody = requestOf(state, "canary");
    asked.push(ask(second, otherHeading, quality(model.canary), otherBody, signal));
  } else if (other === "popular") {
    // Without a history the service answers with the most popular items.
    const popular = { ...body, history: [], exclude: model.exclude_seen ? state.history : [] };
    asked.push(ask(second, otherHeading, "", popular, signal));
  }
  const [answer, otherAnswer] = await Promise.all(asked);
  if (signal.aborted) return;
  const both = first.compare(otherAnswer ? second : null);
  if (otherAnswer) second.compare(answer ? first : null);
  const agreement = answer && otherAnswer ? `${both} of ${answer.items.length} items are in both lists` : "";
  byId("agreement").textContent = known().length ? agreement : "Choose an example or search for an item to start.";
  if (answer) announce(`${plural(answer.items.length, "recommendation")}${agreement && `, ${agreement}`}.`, "answered");
  if (!state.reasons || !known().length) return;
  if (answer && !answer.cold_start) await giveReasons(first, body, model, signal);
  if (otherBody && otherAnswer && !otherAnswer.cold_start) await giveReasons(second, otherBody, model.canary, signal);
}

// The request as code -----------------------------------------------------------------------------

function showSnippet() {
  const url = new URL(".", location.href).href.replace(/\/$/, "");
  const body = requestOf(state, version());
  byId("code").textContent = (language === "curl" ? curl : python)(url, body, hasToken());
  byId("copied").textContent = "";
}

async function copy(text, what) {
  let done = `${what} copied.`;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = "The browser does not let the page copy. Select the text and copy it.";
  }
  byId("copied").textContent = done;
  announce(done);
}

function chooseTab(tab) {
  for (const one of [byId("tab-curl"), byId("tab-python")]) {
    one.setAttribute("aria-selected", String(one === tab));
    one.tabIndex = one === tab ? 0 : -1;
  }
  byId("snippet").setAttribute("aria-labelledby", tab.id);
  language = tab.id === "tab-curl" ? "curl" : "python";
  showSnippet();
}

// The page ----------------------------------------------------------------------------------------

function show() {
  byId("k").value = state.k;
  byId("reasons").checked = state.reasons;
  byId("beside").value = beside();
  showHistory();
  showFilters();
  showSnippet();
}

function changed() {
  notify("");
  history.replaceState(null, "", `${location.pathname}${location.search}${write(state)}`);
  show();
  refresh();
}

async function start() {
  notify("");
  const { state: given, faults } = read(location.hash);
  state = given;
  try {
    model = await call("v1/model");
    byId("model").textContent = `${model.model} · ${model.method} · ${plural(model.num_items, "item")}`;
    buildComparison();
    ({ columns } = await call("v1/filters"));
    buildFilters();
    await offerExamples();
    byId("examples-box").hidden = false;
  } catch (error) {
    byId("model").textContent = "No answer yet";
    show();
    report(error);
    return;
  }
  if (faults.length) notify(faults.join(" "));
  await learn(state.history).catch(report);
  show();
  await refresh();
}

function showTheme() {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  byId("theme").setAttribute("aria-pressed", String(dark));
  return dark;
}

combobox(byId("search"), byId("found"), byId("search-hint"), {
  search: async (text) => (await call(`v1/items?search=${encodeURIComponent(text)}&limit=20`)).items,
  choose: add,
  failed: report,
});
byId("clear").addEventListener("click", () => {
  byId("search").focus();
  announce("The history is empty.");
  setHistory([]);
});
byId("paste").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const ids = await parse(byId("ids").value);
    byId("ids").value = "";
    setHistory(ids);
  } catch (error) {
    report(error);
  }
});
byId("options").addEventListener("submit", (event) => event.preventDefault());
byId("options").addEventListener("change", (event) => {
  const k = Math.round(Number(byId("k").value));
  state.k = Math.min(MOST_ITEMS, Math.max(1, k || 10));
  state.reasons = byId("reasons").checked;
  if (event.target.id === "beside") state.beside = event.target.value;
  changed();
});
byId("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value);
  start();
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment of the address holds the state
  byId("answers-heading").focus();
});
byId("copy").addEventListener("click", () => copy(byId("code").textContent, "Request"));
byId("copy-link").addEventListener("click", () => copy(location.href, "Link"));
for (const [tab, other] of [["tab-curl", "tab-python"], ["tab-python", "tab-curl"]]) {
  byId(tab).addEventListener("click", () => chooseTab(byId(tab)));
  byId(tab).addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    chooseTab(byId(other));
    byId(other).focus();
  });
}
byId("theme").addEventListener("click", () => {
  const theme = showTheme() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  showTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
addEventListener("hashchange", start);
byId("options-panel").open = matchMedia("(min-width: 60rem)").matches; // a phone shows the items first
showTheme();
start();
