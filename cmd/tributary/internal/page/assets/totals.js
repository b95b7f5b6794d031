// The global totals: how many votes the root has, per candidate, and how many are still on their way to it.

import { $, flowing, make, say, set } from "./dom.js";
import { count, percent, rate, votes } from "./format.js";

const showTotal = flowing($("global-total"), count);
let rows = new Map();

/** Makes the rows and the choice of cities. onVote(city, candidate) is called for a click. */
export function shapeTotals(world, onVote) {
  const cities = $("vote-city");
  const chosen = cities.value;
  cities.replaceChildren(...world.root.children.map((region) =>
    make("optgroup", { label: region.place.name },
      ...world.cities.filter((city) => within(city, region)).map((city) => make("option", { value: city.place.place }, city.place.name)))));
  if (world.nodes.has(chosen)) cities.value = chosen;

  rows = new Map(world.candidates.map((candidate, i) => {
    const number = make("span", { class: "num total" });
    const share = make("span", { class: "num share" });
    const bar = make("span", { class: "bar" }, make("span"));
    const button = make("button", { type: "button", class: "vote", "data-vote": candidate, "aria-label": `Vote for ${candidate}` }, "Vote");
    button.addEventListener("click", () => onVote(cities.value, candidate));
    const row = make("li", { class: `c${i % 6}`, "data-candidate": candidate },
      make("span", { class: "name" }, candidate), number, share, button, bar);
    return [candidate, { row, share, bar: bar.firstChild, show: flowing(number, count) }];
  }));
  $("candidates").replaceChildren(...[...rows.values()].map(({ row }) => row));
}

function within(node, ancestor) {
  for (let n = node; n; n = n.parent) if (n === ancestor) return true;
  return false;
}

export function drawTotals(world) {
  const { root } = world;
  showTotal(root.own);
  say($("global-rate"), rate(world.cities.reduce((all, city) => all + city.place.votes_per_second, 0)));

  const totals = root.place.totals;
  const most = Math.max(1, ...world.candidates.map((c) => totals[c] ?? 0));
  for (const [candidate, { share, bar, show }] of rows) {
    const n = totals[candidate] ?? 0;
    show(n);
    say(share, root.own ? percent(n / root.own) : "");
    bar.style.transform = `scaleX(${n / most})`; // the leader's bar is full: the percentages say how much of all
  }

  // data-transit is for whoever reads the page by program.
  const cut = world.cuts.length;
  set($("transit"), "data-transit", root.transit);
  set($("transit"), "data-state", cut ? "cut" : root.transit ? "flowing" : "exact");
  say($("transit-text"), cut
    ? `in transit: ${votes(root.transit)} · ${cut === 1 ? `${world.cuts[0].place.name} is cut` : `${cut} links are cut`}`
    : root.transit ? `in transit: ${votes(root.transit)}` : "exact: the world has every city’s votes");
}
