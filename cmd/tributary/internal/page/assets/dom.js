// The few things that the page does to its document.

export const $ = (id) => document.getElementById(id);

/** make("li", {class: "x"}, "text", node…): an element. Attributes that are null or false are left out. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function makeSVG(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Writes a text only where it changed: four samples a second must not make the browser lay out what stands still. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The same for an attribute. */
export function set(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

const LONGEST_MS = 250;
const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * A number that flows to its next value over the time between two samples, and ends exactly on it. data-value is
 * always the exact one.
 */
export function flowing(element, format) {
  let from = 0, to = null, start = 0, took = 0, frame = 0;
  const step = (now) => {
    const t = Math.max(0, Math.min(1, (now - start) / took)); // a frame's time may lie before the sample that it draws
    say(element, format(t === 1 ? to : from + (to - from) * t));
    frame = t < 1 ? requestAnimationFrame(step) : 0;
  };
  return (value) => {
    if (value === to) return;
    element.dataset.value = value;
    // Nothing flows up from zero on the first sample, nor for those who asked for less motion.
    if (to === null || still.matches || document.hidden) {
      cancelAnimationFrame(frame);
      frame = 0;
      to = value;
      say(element, format(value));
      return;
    }
    from = to; // wherever it had come to: however slowly frames are drawn, it is never more than a sample behind
    to = value;
    const now = performance.now();
    took = Math.max(1, Math.min(LONGEST_MS, now - start)); // as long as the last sample took to come
    start = now;
    if (!frame) frame = requestAnimationFrame(step);
  };
}
