// The map: an equirectangular world in tenths of a degree, a dot for each city, a line for each link. A city lies
// where it is, a tier above in the middle of what is below it.

import { $, makeSVG, set } from "./dom.js";
import { rate } from "./format.js";

const svg = $("world");
const BUSY = 150;    // votes a second of a dot of common size
const TIER_MS = 450; // what a drop takes from tier to tier: a tree at rest takes a few milliseconds, too fast to see
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let marks = new Map();
let lastWorld = null;

export function shapeMap(world, onPick) {
  const at = new Map();
  for (const node of [...world.order].reverse()) at.set(node.place.place, node.city ? project(node.place) : middle(node.children.map((c) => at.get(c.place.place))));

  marks = new Map(world.order.map((node) => {
    const [x, y] = at.get(node.place.place);
    const mark = { x, y, link: null, dot: null, label: null, title: makeSVG("title") };
    if (node.parent) mark.link = makeSVG("path", { class: `link ${node.place.tier}`, d: arc([x, y], at.get(node.parent.place.place)) });
    mark.dot = makeSVG("circle", { class: `dot ${node.city ? "city" : node.parent ? "hub" : "root"}`, cx: x, cy: y }, mark.title);
    if (node.city || node.depth < 2) mark.label = makeSVG("text", { class: node.city ? "label" : "label above" }, node.place.name);
    if (node.city) {
      mark.dot.addEventListener("click", () => onPick(node.place.place));
      mark.halo = makeSVG("circle", { class: "halo", cx: x, cy: y });
    }
    return [node.place.place, mark];
  }));
  const all = [...marks.values()];
  const layer = (name, pick) => makeSVG("g", { class: name }, ...all.map(pick).filter(Boolean));
  svg.replaceChildren(layer("links", (m) => m.link), layer("halos", (m) => m.halo), layer("dots", (m) => m.dot), layer("labels", (m) => m.label));
  lastWorld = world;
  fit();
}

export function drawMap(world) {
  lastWorld = world;
  for (const node of world.order) {
    const mark = marks.get(node.place.place);
    if (mark.link) {
      set(mark.link, "data-cut", !node.place.linked);
      set(mark.link, "data-off", node.cutOff);
    }
    set(mark.dot, "data-off", node.cutOff);
    if (node.city) {
      set(mark.halo, "data-off", node.cutOff);
      mark.halo.style.transform = `scale(${Math.sqrt(Math.max(0.15, node.place.votes_per_second / BUSY)).toFixed(2)})`;
    }
    const text = `${node.place.name}: ${rate(node.place.votes_per_second)} votes a second${node.cutOff ? ", cut off" : ""}`;
    if (mark.title.textContent !== text) mark.title.textContent = text;
  }
}

/** A vote that was cast by hand: a ring spreads from its city, and a drop runs down to the root, or to a cut. */
export function ping(place) {
  const mark = marks.get(place);
  if (!mark || calm.matches) return;
  const ring = makeSVG("circle", { class: "ping", cx: mark.x, cy: mark.y, r: 6 * unit() });
  ring.addEventListener("animationend", () => ring.remove());
  svg.append(ring);
  run(lastWorld.nodes.get(place));
}

function run(city) {
  const drop = makeSVG("circle", { class: "drop", r: 4 * unit() });
  let node = city, start = null;
  svg.append(drop);
  requestAnimationFrame(function step(now) {
    start ??= now;
    const { link } = marks.get(node.place.place), cut = link.dataset.cut === "true";
    const t = Math.min(cut ? 0.5 : 1, (now - start) / TIER_MS);
    const p = link.getPointAtLength(t * link.getTotalLength());
    drop.setAttribute("cx", p.x);
    drop.setAttribute("cy", p.y);
    if (cut && t === 0.5) {
      drop.dataset.stuck = "";
      drop.addEventListener("transitionend", () => drop.remove());
    } else if (t < 1) {
      requestAnimationFrame(step);
    } else if (node.parent.parent) {
      [node, start] = [node.parent, now];
      requestAnimationFrame(step);
    } else {
      drop.remove();
    }
  });
}

const project = ({ lat, lon }) => [lon * 10, -lat * 10];

const middle = (points) => [0, 1].map((i) => points.reduce((all, p) => all + p[i], 0) / points.length);

/** A line that bends north, as the great circles of the northern half do; a short one hardly. */
function arc([x1, y1], [x2, y2]) {
  const bend = Math.hypot(x2 - x1, y2 - y1) * 0.14;
  return `M${x1} ${y1}Q${(x1 + x2) / 2} ${(y1 + y2) / 2 - bend} ${x2} ${y2}`;
}

/** How many units of the map one pixel is. */
function unit() {
  const box = svg.viewBox.baseVal;
  return Math.min(box.width / svg.clientWidth, box.height / svg.clientHeight) || 1;
}

/** Dots and names keep their size in pixels, whatever the map's. */
function fit() {
  if (!lastWorld || !svg.clientWidth) return; // not laid out yet: the observer below calls again
  const u = unit(), small = svg.clientWidth < 640;
  svg.style.setProperty("--unit", u);
  for (const node of lastWorld.order) {
    const mark = marks.get(node.place.place);
    mark.dot.setAttribute("r", (node.city ? 3.6 : node.parent ? 2.4 : 5) * (small ? 0.66 : 1) * u);
    mark.halo?.setAttribute("r", (small ? 6 : 9) * u);
  }
  label(u, small);
}

/** Names go beside their dots where there is room: the busiest city first, then whoever still finds a free side. */
function label(u, small) {
  const size = 11.5 * u, taken = [...marks.values()].map((m) => [m, m.label ? 4 * u : 2 * u]).map(([m, r]) => [m.x - r, m.y - r, m.x + r, m.y + r]);
  const free = (b) => taken.every((t) => b[2] < t[0] || b[0] > t[2] || b[3] < t[1] || b[1] > t[3]);
  const byRate = [...lastWorld.cities].sort((a, b) => b.place.votes_per_second - a.place.votes_per_second);
  for (const node of [lastWorld.root, ...byRate, ...lastWorld.root.children]) {
    const { x, y, label } = marks.get(node.place.place);
    if (!label) continue;
    const w = node.place.name.length * size * 0.58, gap = 7 * u;
    const sides = [
      [x + gap, y + size * 0.35, "start", [x + gap, y - size * 0.5, x + gap + w, y + size * 0.5]],
      [x - gap, y + size * 0.35, "end", [x - gap - w, y - size * 0.5, x - gap, y + size * 0.5]],
      [x, y - gap, "middle", [x - w / 2, y - gap - size, x + w / 2, y - gap]],
      [x, y + gap + size * 0.8, "middle", [x - w / 2, y + gap, x + w / 2, y + gap + size]],
    ];
    const side = small ? null : sides.find((s) => free(s[3]));
    label.style.display = side ? "" : "none";
    if (!side) continue;
    taken.push(side[3]);
    label.setAttribute("x", side[0]);
    label.setAttribute("y", side[1]);
    label.setAttribute("text-anchor", side[2]);
    label.setAttribute("font-size", size);
  }
}

for (let lon = -150; lon <= 150; lon += 30) $("graticule").append(makeSVG("path", { d: `M${lon * 10} -900V900` }));
for (let lat = -60; lat <= 60; lat += 30) $("graticule").append(makeSVG("path", { d: `M-1800 ${lat * 10}H1800`, class: lat ? null : "equator" }));

new ResizeObserver(fit).observe(svg);
