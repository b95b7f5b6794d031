// Wires the page: each sample goes to the parts that draw it, each click to the world.

import { $, say, set } from "./dom.js";
import { count, running, span } from "./format.js";
import { watch } from "./stream.js";
import { World } from "./world.js";
import { link, vote } from "./actions.js";
import { drawTotals, shapeTotals } from "./totals.js";
import { drawLimit } from "./limit.js";
import { drawMap, ping, shapeMap } from "./map.js";
import { drawTree, flash, shapeTree } from "./tree.js";
import { follow, tell } from "./feed.js";

let world = null, shape = "";

watch((sample) => {
  world = new World(sample);
  if (!world.root) return; // a world that has no place yet
  if (world.shape !== shape) {
    shape = world.shape;
    shapeTotals(world, onVote);
    shapeMap(world, onPick);
    shapeTree(world, { onVote, onLink });
  }
  drawTotals(world);
  drawLimit(world);
  drawMap(world);
  drawTree(world);
  follow(world);
  set($("main"), "aria-busy", false);
  say($("elapsed"), running(sample.elapsed_seconds));
}, onState);

function onState(state, why) {
  set($("stream"), "data-state", state);
  set(document.body, "data-stream", state);
  say($("stream-text"), state === "broken" ? "reconnecting" : state);
  $("banner").hidden = state !== "broken";
  say($("banner"), why ?? "");
}

async function onVote(place, candidate, button) {
  const city = world.nodes.get(place)?.place.name ?? place;
  ping(place);
  try {
    const { total, ms } = await vote(place, candidate);
    flash(button, "done");
    say($("vote-answer"), `durable in ${span(ms)}`);
    tell(`Your vote for ${candidate} is durable in ${city}, as its ${ordinal(total)} (${span(ms)}).`, "voted");
  } catch (error) {
    flash(button, "failed");
    say($("vote-answer"), "not counted");
    tell(`Your vote in ${city} was not taken: ${error.message}.`, "failed");
  }
}

async function onLink(place, up, button) {
  button.disabled = true;
  try {
    await link(place, up);
  } catch (error) {
    flash(button, "failed");
    tell(`${place}: ${error.message}.`, "failed");
  } finally {
    button.disabled = false;
    button.focus({ preventScroll: true });
  }
}

/** A click on the map chooses where to vote. */
function onPick(place) {
  $("vote-city").value = place;
  $("vote-city").focus();
}

function ordinal(n) {
  const tens = n % 100, end = tens >= 11 && tens <= 13 ? "th" : ["th", "st", "nd", "rd"][n % 10] ?? "th";
  return `${count(n)}${end}`;
}
