// The table of places: a row each, region → country → city.

import { $, make, say, set } from "./dom.js";
import { count, rate, span, sum } from "./format.js";

const FRESH_MS = 1500; // a view older than this has missed something: also a place that is idle says so each second

const head = $("tree").tHead, body = $("tree").tBodies[0];
const folded = new Set();
let rows = new Map();
let known = false;

/** Makes the rows. onVote(city, candidate) and onLink(place, up) are called for clicks. */
export function shapeTree(world, { onVote, onLink }) {
  // On a phone the cities are a long way down: start with the countries.
  if (!known && matchMedia("(max-width: 760px)").matches) {
    for (const node of world.order) if (node.depth && node.children.some((c) => c.city)) folded.add(node.place.place);
  }
  known = true;
  head.replaceChildren(make("tr", { role: "row" },
    make("th", { scope: "col", role: "columnheader" }, "Place"),
    ...world.candidates.map((c, i) => make("th", { scope: "col", role: "columnheader", class: `n c${i % 6}` }, make("span", { class: "swatch" }), c)),
    make("th", { scope: "col", role: "columnheader", class: "n" }, "Votes/s"),
    make("th", { scope: "col", role: "columnheader", class: "n", title: "Votes of the cities below that have not reached this place yet" }, "In transit"),
    make("th", { scope: "col", role: "columnheader", class: "n", title: "What the city knows of the world’s total, and how old that is" }, "Sees of the world"),
    make("th", { scope: "col", role: "columnheader", class: "n", title: "Places that are cut off from what the city sees" }, "Behind"),
    make("th", { scope: "col", role: "columnheader", class: "n", title: "Checks of the shared limit: admitted of offered, a second" }, "Admitted/s"),
    make("th", { scope: "col", role: "columnheader" }, "Link")));
  rows = new Map(world.order.map((node) => [node.place.place, shapeRow(world, node, onVote, onLink)]));
  body.replaceChildren(...[...rows.values()].map(({ row }) => row));
}

function shapeRow(world, node, onVote, onLink) {
  const { place } = node;
  const cell = (name, label, ...children) => make("td", { class: `n ${name}`, role: "cell", "data-label": label }, ...children);
  const r = {};

  const name = make("span", { class: "name" }, place.name);
  if (!node.city && node.parent) {
    r.fold = make("button", { type: "button", class: "fold", "aria-expanded": "true", "aria-label": `Places in ${place.name}` });
    r.fold.addEventListener("click", () => {
      if (!folded.delete(place.place)) folded.add(place.place);
      unfold(world);
    });
  }
  const heading = make("th", { scope: "row", role: "rowheader" }, r.fold ?? make("span", { class: "fold" }), name,
    make("span", { class: "path code" }, place.place), make("span", { class: "unseen" }, `, ${place.tier}`));

  r.totals = world.candidates.map((candidate, i) => {
    const number = make("span", { class: "num" });
    if (!node.city) return { number, cell: cell(`total c${i % 6}`, candidate, number) };
    // In a city the number itself is the button: what one votes for is what one sees rise.
    const button = make("button", { type: "button", class: "plus", "data-vote": candidate, title: `Vote for ${candidate} in ${place.name}` },
      number, make("span", { class: "unseen" }, `, vote for ${candidate} in ${place.name}`));
    button.addEventListener("click", () => onVote(place.place, candidate, button));
    return { number, cell: cell(`total c${i % 6}`, candidate, button) };
  });
  r.rate = make("span", { class: "num" });
  r.transit = make("span", { class: "num" });
  r.sees = make("span", { class: "num" });
  r.age = make("span", { class: "age" });
  r.behind = make("span", { class: "num" });
  r.admitted = make("span", { class: "num" });
  r.offered = make("span", { class: "num quiet" });
  if (node.parent) {
    r.link = make("button", { type: "button", class: "link", "data-link": place.place });
    r.link.addEventListener("click", () => onLink(place.place, r.link.dataset.up !== "true", r.link));
  }
  r.row = make("tr", { role: "row", class: `tier-${place.tier} depth-${Math.min(node.depth, 3)} ${node.city ? "city" : "hub"}`, "data-place": place.place },
    heading,
    ...r.totals.map((t) => t.cell),
    cell("rate", "votes/s", r.rate),
    cell("transit-cell", "in transit", node.city ? "" : r.transit),
    cell("view", "sees of the world", ...(node.city ? [r.sees, r.age] : [])),
    cell("behind", "places behind", node.city ? r.behind : ""),
    cell("limited", "admitted/s", ...(node.city ? [r.admitted, r.offered] : [])),
    make("td", { class: "link-cell", role: "cell" }, r.link ?? ""));
  return r;
}

export function drawTree(world) {
  for (const node of world.order) {
    const r = rows.get(node.place.place), { place } = node;
    set(r.row, "data-cut", node.parent !== null && !place.linked);
    set(r.row, "data-off", node.cutOff);
    r.totals.forEach(({ number }, i) => say(number, count(place.totals[world.candidates[i]] ?? 0)));
    say(r.rate, rate(votesPerSecond(node)));
    if (r.link) {
      set(r.link, "data-up", place.linked);
      say(r.link, place.linked ? "Cut" : "Mend");
      set(r.link, "aria-label", `${place.linked ? "Cut" : "Mend"} the link of ${place.name} to ${node.parent.place.name}`);
    }
    if (node.city) drawCity(r, node);
    else {
      say(r.transit, count(node.transit));
      set(r.transit, "data-held", node.transit > 0 && heldUp(node));
    }
  }
  unfold(world);
}

function drawCity(r, { place, cutOff }) {
  const none = place.global_age_ms < 0;
  say(r.sees, none ? "nothing yet" : count(sum(place.global)));
  set(r.age, "data-age", cutOff ? "cut" : none || place.global_age_ms > FRESH_MS ? "stale" : "fresh");
  say(r.age, none ? (cutOff ? "cut off" : "no view") : cutOff ? `cut off ${span(place.global_age_ms)}` : span(place.global_age_ms));
  say(r.behind, place.global_age_ms < 0 ? "" : count(place.behind));
  set(r.behind, "data-some", place.behind > 0);
  say(r.admitted, rate(place.admitted_per_second));
  say(r.offered, `of ${rate(place.offered_per_second)}`);
}

const votesPerSecond = (node) => node.city ? node.place.votes_per_second : node.children.reduce((all, c) => all + votesPerSecond(c), 0);

/** Whether a link below the node is cut. */
const heldUp = (node) => node.children.some((c) => !c.place.linked || heldUp(c));

function unfold(world) {
  for (const node of world.order) {
    const r = rows.get(node.place.place);
    if (r.fold) set(r.fold, "aria-expanded", !folded.has(node.place.place));
    let hidden = false;
    for (let n = node.parent; n; n = n.parent) hidden ||= folded.has(n.place.place);
    r.row.hidden = hidden;
  }
}

/** Shows how an action of a button went, on the button. */
export function flash(button, state) {
  if (!button) return;
  button.dataset.flash = state;
  setTimeout(() => delete button.dataset.flash, 700);
}
