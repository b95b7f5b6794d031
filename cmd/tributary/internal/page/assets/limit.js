// The shared limit: a chart of the last minute, and the law that what was admitted is at most the bound.

import { $, say, set } from "./dom.js";
import { count, percent, rate } from "./format.js";

const WINDOW_MS = 60_000;
const GAP_MS = 2_000; // a hole this wide in the samples is drawn as one

const canvas = $("limit-chart");
const samples = []; // {at, offered, admitted}, oldest first
let limitRate = 0, lastLabel = 0;

export function drawLimit(world) {
  const { limit } = world;
  limitRate = limit.rate;
  // A world that started again begins a new chart.
  if (samples.length && world.at < samples.at(-1).at) samples.length = 0;
  samples.push({ at: world.at, offered: limit.offered_per_second, admitted: limit.admitted_per_second });
  while (samples[0].at < world.at - WINDOW_MS - GAP_MS) samples.shift();

  say($("limit-name"), limit.name);
  say($("limit-rule"), limit.rule);
  say($("limit-offered"), rate(limit.offered_per_second));
  say($("limit-admitted"), rate(limit.admitted_per_second));
  say($("limit-rate"), count(limit.rate));
  say($("limit-sum"), `${count(limit.admitted)} of ${count(limit.bound)}`);
  say($("limit-utilisation"), percent(limit.utilisation));

  const held = limit.admitted <= limit.bound;
  set($("law"), "data-state", held ? "held" : "broken");
  say($("law-text"), held ? "admitted ≤ bound" : "admitted > bound: the law is broken");
  const full = limit.bound ? Math.min(1, limit.admitted / limit.bound) : 0;
  $("gauge").firstElementChild.style.transform = `scaleX(${full})`;
  set($("gauge"), "aria-valuenow", Math.floor(full * 100));
  set($("gauge"), "aria-valuetext", `${count(limit.admitted)} admitted of a bound of ${count(limit.bound)}`);

  // The chart's words change seldom: whoever has them read out should hear the end of a sentence.
  if (world.at - lastLabel > 10_000 || world.at < lastLabel) {
    lastLabel = world.at;
    set(canvas, "aria-label", `Checks a second over the last minute. Now: offered ${rate(limit.offered_per_second)}, ` +
      `admitted ${rate(limit.admitted_per_second)}, limit ${count(limit.rate)}.`);
  }
  paint();
}

function paint() {
  const width = canvas.clientWidth, height = canvas.clientHeight, dpr = devicePixelRatio || 1;
  if (!width || !samples.length) return;
  if (canvas.width !== Math.round(width * dpr) || canvas.height !== Math.round(height * dpr)) {
    canvas.width = Math.round(width * dpr);
    canvas.height = Math.round(height * dpr);
  }
  const css = getComputedStyle(canvas);
  const colour = (name) => css.getPropertyValue(name).trim();
  const g = canvas.getContext("2d");
  g.setTransform(dpr, 0, 0, dpr, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = `11px ${css.fontFamily}`;

  // The scale fits what is seen, in steps, so that it does not breathe with every sample.
  const most = 1.04 * Math.max(limitRate, ...samples.map((s) => Math.max(s.offered, s.admitted)));
  const step = niceStep(most / 4.5), top = Math.ceil(most / step) * step;
  const left = g.measureText(count(top)).width + 10, bottom = height - 18, right = width - 2, head = 8;
  const now = samples.at(-1).at;
  const x = (at) => right - (now - at) / WINDOW_MS * (right - left);
  const y = (v) => bottom - v / top * (bottom - head);

  g.textBaseline = "middle";
  g.textAlign = "right";
  g.lineWidth = 1;
  for (let v = 0; v <= top; v += step) {
    g.strokeStyle = colour("--line");
    line(g, left, y(v), right, y(v));
    g.fillStyle = colour("--muted");
    g.fillText(count(v), left - 8, y(v));
  }
  g.textBaseline = "alphabetic";
  for (const ago of width < 480 ? [60, 30, 0] : [60, 45, 30, 15, 0]) {
    g.textAlign = ago === 60 ? "left" : ago ? "center" : "right";
    g.fillText(ago ? `${ago} s ago` : "now", x(now - ago * 1000), height - 2);
  }

  g.save();
  g.beginPath();
  g.rect(left, 0, right - left, bottom + 1);
  g.clip();
  g.lineJoin = "round";
  for (const run of runs()) {
    curve(g, run, "offered", x, y);
    g.strokeStyle = colour("--offered");
    g.lineWidth = 1.5;
    g.stroke();
    curve(g, run, "admitted", x, y);
    g.strokeStyle = colour("--accent");
    g.lineWidth = 2.25;
    g.stroke();
    g.lineTo(x(run.at(-1).at), bottom);
    g.lineTo(x(run[0].at), bottom);
    g.fillStyle = colour("--accent-soft");
    g.fill();
  }
  g.restore();
  g.setLineDash([5, 4]);
  g.strokeStyle = colour("--bound");
  g.lineWidth = 1.5;
  line(g, left, y(limitRate), right, y(limitRate));
  g.setLineDash([]);
}

/** The samples as runs without a hole in them (a page that was hidden got none). */
function runs() {
  const all = [[samples[0]]];
  for (const s of samples.slice(1)) {
    const run = all.at(-1);
    if (s.at - run.at(-1).at > GAP_MS) all.push([s]);
    else run.push(s);
  }
  return all;
}

function curve(g, run, field, x, y) {
  g.beginPath();
  run.forEach((s, i) => (i ? g.lineTo(x(s.at), y(s[field])) : g.moveTo(x(s.at), y(s[field]))));
}

function line(g, x1, y1, x2, y2) {
  g.beginPath();
  g.moveTo(x1, Math.round(y1) + 0.5);
  g.lineTo(x2, Math.round(y2) + 0.5);
  g.stroke();
}

/** The least of 1, 2, 2.5, 5 times a power of ten that is at least v. */
function niceStep(v) {
  const power = 10 ** Math.floor(Math.log10(Math.max(v, 1)));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= v);
}

new ResizeObserver(paint).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
