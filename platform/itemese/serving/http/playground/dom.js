// Titles, ids and messages are data: they reach the page as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** Make an element of attributes, listeners (`onclick: f`) and texts or nodes. */
export function make(name, attributes = {}, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...content.filter((one) => one !== null));
  return made;
}

export function button(text, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, text);
}

/** Turn the `names` in a message into code elements. */
export function message(text) {
  return text.split("`").map((part, place) => (place % 2 ? make("code", {}, part) : part));
}

/** Replace the content of an element; the focus stays at its place among the buttons. */
export function replace(parent, ...content) {
  const buttons = () => [...parent.querySelectorAll("button")];
  const place = buttons().indexOf(document.activeElement);
  parent.replaceChildren(...content);
  if (place < 0) return true;
  const left = buttons();
  left[Math.min(place, left.length - 1)]?.focus();
  return left.length > 0;
}

/** Say a text to screen readers; what was done and what was answered do not displace each other. */
export function announce(text, where = "done") {
  byId(where).textContent = text;
}

export const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
