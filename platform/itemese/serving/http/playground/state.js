// What the page asks for, kept in the fragment of the address so that a link can be shared.
// #h=1193&h=661&k=10&filter={"genres":["Drama"]}&with=popular&reasons=no

export const MOST_ITEMS = 50;

export function empty() {
  return { history: [], k: 10, filter: {}, beside: null, reasons: true };
}

/** Return the state of a fragment and, in words, the parts that are not understood. */
export function read(fragment) {
  const state = empty();
  const faults = [];
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  state.history = given.getAll("h").filter(Boolean);
  if (given.has("k")) {
    const k = Number(given.get("k"));
    if (Number.isInteger(k) && k >= 1 && k <= MOST_ITEMS) state.k = k;
    else faults.push(`The link asks for ${given.get("k")} items; 1 to ${MOST_ITEMS} are possible.`);
  }
  if (given.has("filter")) {
    try {
      state.filter = filterOf(JSON.parse(given.get("filter")));
    } catch {
      faults.push("The filter of the link cannot be read, so it is left out.");
    }
  }
  if (["none", "popular", "canary"].includes(given.get("with"))) state.beside = given.get("with");
  state.reasons = given.get("reasons") !== "no";
  return { state, faults };
}

function filterOf(found) {
  if (Array.isArray(found)) throw new TypeError("filter");
  const filter = {};
  for (const [column, values] of Object.entries(found)) {
    const plain = (one) => ["string", "number", "boolean"].includes(typeof one);
    if (!Array.isArray(values) || !values.every(plain)) throw new TypeError(column);
    if (values.length) filter[column] = values;
  }
  return filter;
}

export function write(state) {
  const parts = new URLSearchParams();
  for (const item of state.history) parts.append("h", item);
  if (state.k !== 10) parts.set("k", state.k);
  if (Object.keys(state.filter).length) parts.set("filter", JSON.stringify(state.filter));
  if (state.beside) parts.set("with", state.beside);
  if (!state.reasons) parts.set("reasons", "no");
  const text = parts.toString();
  return text ? `#${text}` : "";
}

/** Return the body of `POST /v1/recommend`. */
export function requestOf(state, version) {
  const body = { history: state.history, k: state.k };
  if (Object.keys(state.filter).length) body.filter = state.filter;
  if (state.reasons) body.explain = true;
  if (version) body.version = version;
  return body;
}
