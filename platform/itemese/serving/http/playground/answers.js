// One list of recommendations: a heading, what the service says of it, and a card an item.

import { button, make, message, plural, replace } from "./dom.js";
import { strongest } from "./reasons.js";

const GOLDEN_ANGLE = 137.5; // degrees: neighbouring codes get colours far apart

const group = (codes, length) => make("span", { class: "code" }, codes.slice(0, length).join("-"));

/** Join nodes as in a sentence: A, B and C. */
function listed(nodes) {
  return nodes.flatMap((node, n) => [n === 0 ? null : n === nodes.length - 1 ? " and " : ", ", node]).filter(Boolean);
}

export class AnswerList {
  /** root: a section; titleOf(id): a title; add(item): puts an item into the history. */
  constructor(root, { titleOf, add }) {
    this.root = root;
    this.heading = root.querySelector("h3");
    this.facts = root.querySelector(".facts");
    this.notice = root.querySelector(".notice");
    this.list = root.querySelector("ol");
    this.titleOf = titleOf;
    this.add = add;
    this.cards = new Map();
  }

  /** Show that an answer is on its way; the earlier one stays until then. */
  busy(heading, facts) {
    this.heading.textContent = heading;
    this.facts.textContent = facts;
    this.list.setAttribute("aria-busy", "true");
  }

  say(kind, text, ...actions) {
    this.notice.className = `notice ${kind}`;
    this.notice.replaceChildren(make("p", {}, ...message(text)), ...actions);
    this.notice.hidden = !text;
  }

  fail(text, ...actions) {
    this.list.removeAttribute("aria-busy");
    this.cards.clear();
    this.list.replaceChildren();
    this.say("error", text, ...actions);
  }

  show(answer, facts) {
    this.facts.textContent = facts;
    this.cards.clear();
    this.list.removeAttribute("aria-busy");
    replace(this.list, ...answer.items.map((item, place) => this.card(item, place + 1, answer)));
  }

  card(item, place, answer) {
    const why = item.explanation ?? null;
    const number = make("span", { class: "place", "aria-hidden": "true" }, String(place));
    if (why?.codes.length) {
      number.classList.add("coloured");
      number.style.setProperty("--hue", String((why.codes[0] * GOLDEN_ANGLE) % 360));
    }
    const reason = make("p", { class: "reason" });
    const more = make("div", { class: "more" });
    const agrees = make("p", { class: "agrees", hidden: true });
    const details = make("details", { hidden: true }, make("summary", {}, "Details"), more);
    const add = button("Add", () => this.add(item), {
      class: "add",
      "aria-label": `Add ${item.title} to the history`,
    });
    const score = item.score === null || answer.cold_start ? "" : ` · score ${item.score.toFixed(3)}`;
    const card = make(
      "li",
      { class: "card" },
      number,
      make("div", { class: "body" },
        make("h4", {}, item.title),
        make("p", { class: "id" }, `${item.item_id}${score}`),
        reason, agrees, details),
      add,
    );
    const parts = { card, place, reason, more, details, agrees, item, answer };
    this.cards.set(item.item_id, parts);
    this.explain(parts, null, 0);
    return card;
  }

  /** Write the reason of a card; fallen is null while it is not known. */
  explain({ reason, more, details, item, answer, place }, fallen, k) {
    const why = item.explanation ?? null;
    const clauses = [];
    if (answer.cold_start) {
      const events = item.score === null ? "" : `: ${plural(item.score, "event")} in training`;
      clauses.push([`One of the most popular items${events}`]);
    }
    const strong = fallen?.length ? strongest(fallen, k) : [];
    const name = (id) => make("b", {}, this.titleOf(id));
    if (strong.length) clauses.push(["Because of ", ...listed(strong.map(({ left }) => name(left)))]);
    if (why?.nearest) {
      const near = why.nearest;
      const start = clauses.length ? "shares group " : "Shares group ";
      clauses.push([start, group(why.codes, near.shared_codes), " with ", make("b", {}, near.title)]);
    }
    if (why?.copied?.item_id) {
      const { share, title } = why.copied;
      const start = clauses.length ? "often follows " : "Often follows ";
      clauses.push([start, make("b", {}, title), ` (${Math.round(100 * share)} % of its probability)`]);
    }
    if (!clauses.length && fallen) clauses.push(["Keeps its place without any one item of the history"]);
    const sentence = clauses.flatMap((clause, n) => (n ? ["; ", ...clause] : clause));
    reason.replaceChildren(...sentence, sentence.length ? "." : "");
    const facts = [];
    for (const { left, from, to } of fallen ?? []) {
      const where = to === null ? `below place ${k}` : `place ${to}`;
      facts.push(make("li", {}, "Without ", name(left), `: ${where} instead of ${from}.`));
    }
    if (why?.codes.length) {
      facts.push(make("li", {}, "Semantic ID: ", group(why.codes, why.codes.length)));
      for (const other of why.siblings) {
        facts.push(make("li", {}, "Group ", group(why.codes, other.shared_codes), " has ", make("b", {}, other.title), " too."));
      }
    }
    more.replaceChildren(make("ul", {}, ...facts));
    details.hidden = !facts.length;
    details.firstChild.setAttribute("aria-label", `Details of place ${place}, ${item.title}`);
  }

  /** Write the reasons that came later. */
  explainAll(found, k) {
    for (const parts of this.cards.values()) {
      const fallen = found.get(parts.item.item_id);
      if (fallen) this.explain(parts, fallen, k);
    }
  }

  /** Mark the cards that the other list has too; return how many these are. */
  compare(other) {
    let both = 0;
    for (const [item, { card, agrees, place }] of this.cards) {
      const there = other?.cards.get(item)?.place ?? null;
      card.classList.toggle("both", there !== null);
      agrees.hidden = there === null;
      if (there === null) continue;
      both++;
      agrees.textContent = there === place ? "In both lists, same place" : `In both lists, place ${there} there`;
    }
    return both;
  }
}
