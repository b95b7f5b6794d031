// What happened: the links that were cut and mended, by whomever, and one's own votes. A mended link's entry tells when
// the world had caught up.

import { $, make } from "./dom.js";
import { span, votes } from "./format.js";

const KEPT = 6;
const list = $("feed");
let before = null;   // the last world
let mended = null;   // {at, cast, held, names} while a mended link's votes arrive
const cast = [];     // {at, votes}: what all cities together had, over the last second

export function tell(text, kind = "") {
  list.querySelector(".hint")?.remove();
  const now = new Date().toLocaleTimeString("en-GB");
  list.prepend(make("li", { class: kind }, make("time", {}, now), " ", text));
  while (list.children.length > KEPT) list.lastElementChild.remove();
}

/** Finds what changed between two samples. */
export function follow(world) {
  if (before && world.at < before.at) [before, mended, cast.length] = [null, null, 0]; // the world started again
  if (before) {
    const was = new Map(before.order.map((n) => [n.place.place, n.place.linked]));
    const changed = world.order.filter((n) => n.parent && was.has(n.place.place) && was.get(n.place.place) !== n.place.linked);
    for (const node of changed) {
      if (!node.place.linked) tell(`${node.place.name} is cut from ${node.parent.parent ? node.parent.place.name : "the world"}.`, "cut");
      else mended = { at: before.at, cast: before.root.below, held: before.root.transit, names: [...(mended?.names ?? []), node.place.name] };
    }
    // Caught up: no link is down, and the root has as much as all cities together had before the mend, and a second
    // ago (other cities vote on, so the first alone could be made up by theirs).
    if (mended && !world.cuts.length && world.root.own >= Math.max(mended.cast, cast[0].votes)) {
      tell(`${mended.names.join(", ")} mended: ${votes(mended.held)} arrived, and the world is up to date after ${span(world.at - mended.at)}.`, "mended");
      mended = null;
    } else if (mended && world.cuts.length && changed.length) {
      tell(`${mended.names.join(", ")} mended.`, "mended");
      mended = null;
    }
  }
  before = world;
  cast.push({ at: world.at, votes: world.root.below });
  while (world.at - cast[0].at > 1000) cast.shift();
}
