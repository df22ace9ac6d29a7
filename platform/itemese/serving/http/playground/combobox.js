// A search field with a list of results: the combobox of the WAI-ARIA Authoring Practices, with
// `aria-autocomplete="list"` and the focus in the field.

import { announce, make, plural } from "./dom.js";

const PAUSE_MS = 120;

/** Wire a field to its listbox.
 *
 * search(text) resolves to items; choose(item) takes one; failed(error) shows an error.
 */
export function combobox(field, list, hint, { search, choose, failed }) {
  let items = [];
  let active = -1;
  let turn = 0;
  let timer = 0;
  let found = ""; // the text that the list is of

  function close() {
    turn++;
    clearTimeout(timer);
    items = [];
    list.hidden = true;
    list.replaceChildren();
    field.setAttribute("aria-expanded", "false");
    point(-1);
  }

  function point(place) {
    active = place;
    for (const [n, option] of [...list.children].entries()) {
      option.setAttribute("aria-selected", n === place ? "true" : "false");
      if (n === place) option.scrollIntoView({ block: "nearest" });
    }
    if (place < 0) field.removeAttribute("aria-activedescendant");
    else field.setAttribute("aria-activedescendant", list.children[place].id);
  }

  function take(place) {
    const item = items[place];
    field.value = "";
    hint.textContent = "";
    close();
    choose(item);
  }

  function marked(title, text) {
    const start = title.toLowerCase().indexOf(text.toLowerCase());
    if (start < 0) return [title];
    const end = start + text.length;
    return [title.slice(0, start), make("mark", {}, title.slice(start, end)), title.slice(end)];
  }

  async function find() {
    const text = field.value.trim();
    if (!text) {
      hint.textContent = "";
      return close();
    }
    const mine = ++turn;
    let answer;
    try {
      answer = await search(text);
    } catch (error) {
      if (mine === turn) {
        close();
        failed(error);
      }
      return;
    }
    if (mine !== turn) return;
    [items, found] = [answer, text];
    list.replaceChildren(
      ...items.map((item, place) =>
        make(
          "li",
          {
            id: `${list.id}-${place}`,
            role: "option",
            "aria-selected": "false",
            onpointerdown: (event) => event.preventDefault(), // the focus stays in the field
            onclick: () => take(place),
          },
          make("span", { class: "title" }, ...marked(item.title, text)),
          make("span", { class: "id" }, item.item_id),
        ),
      ),
    );
    list.hidden = !items.length;
    field.setAttribute("aria-expanded", String(items.length > 0));
    point(-1);
    hint.textContent = items.length ? "" : `No item contains “${text}”. Try a part of its title, or its id.`;
    announce(items.length ? `${plural(items.length, "item")} found. Choose with the arrow keys.` : hint.textContent);
  }

  /** Take the first item of the text as it stands now; the list may be of an earlier one. */
  async function takeFirst() {
    clearTimeout(timer);
    if (field.value.trim() !== found || !items.length) await find();
    if (items.length) take(0);
  }

  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, PAUSE_MS);
  });
  field.addEventListener("blur", close);
  field.addEventListener("focus", () => field.value && find());
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const last = items.length - 1;
    if (event.key === "ArrowDown") {
      if (last < 0) find();
      else point(active === last ? 0 : active + 1);
    } else if (event.key === "ArrowUp") {
      if (last >= 0) point(active <= 0 ? last : active - 1);
    } else if (event.key === "Enter") {
      if (active >= 0) take(active);
      else takeFirst();
    } else if (event.key === "Escape") {
      if (last >= 0) close();
      else {
        field.value = "";
        hint.textContent = "";
      }
    } else return;
    event.preventDefault();
  });
}
