// Which items of the history an answer rests on: the service ranks again without each of them.
//
// Scores are comparable within one answer only, so places are compared. The lists are longer than
// the one shown: an item that falls out of the first ten may still have a place.

export const MOST_LEFT_OUT = 12;
const LONGEST = 1000;

/** Return the requests of one batch: the whole history, then the history without each item. */
export function leftOutRequests(body, known, excludesSeen) {
  const k = Math.min(LONGEST, 2 * body.k + 10);
  const newest = [...new Set([...known].reverse())].slice(0, MOST_LEFT_OUT);
  const whole = { ...body, k, explain: false };
  const requests = [whole];
  for (const item of newest) {
    const request = { ...whole, history: body.history.filter((other) => other !== item) };
    if (excludesSeen) request.exclude = [item]; // else it would take a place itself
    requests.push(request);
  }
  return { requests, newest, k };
}

/** Return, for each item, what was left out and the places before and after, largest fall first. */
export function falls(answers, newest, k) {
  const places = answers.map((one) => new Map(one.items.map((item, n) => [item.item_id, n + 1])));
  const found = new Map();
  for (const [item, from] of places[0]) {
    const changes = newest.map((left, n) => ({ left, from, to: places[n + 1].get(item) ?? null }));
    const fallen = changes.filter(({ to }) => to === null || to > from);
    fallen.sort((one, other) => (other.to ?? k + 1) - (one.to ?? k + 1));
    found.set(item, fallen);
  }
  return found;
}

/** Return at most two of the falls of an item: those at least half as deep as the deepest. */
export function strongest(fallen, k) {
  const depth = ({ from, to }) => (to ?? k + 1) - from;
  return fallen.filter((one) => 2 * depth(one) >= depth(fallen[0])).slice(0, 2);
}
