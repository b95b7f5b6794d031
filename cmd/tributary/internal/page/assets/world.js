// A sample, made easy to draw: the tree of its places, and what follows from it.

import { sum } from "./format.js";

/**
 * World is one sample with, for each place, a node: {place, children, parent, depth, own, below, transit, cutOff}.
 * own is the sum of its totals, below that of the cities beneath it, transit what those have and it has not yet.
 */
export class World {
  constructor(sample) {
    this.sample = sample;
    this.at = Date.parse(sample.at);
    this.candidates = sample.candidates;
    this.limit = sample.limit;
    this.nodes = new Map();
    for (const place of sample.places) {
      this.nodes.set(place.place, { place, children: [], parent: null, depth: 0, own: sum(place.totals), below: 0, transit: 0, cutOff: false });
    }
    this.root = null;
    for (const node of this.nodes.values()) {
      node.parent = this.nodes.get(node.place.parent) ?? null;
      if (node.parent) node.parent.children.push(node);
      else this.root ??= node;
    }
    /** All nodes, each before its children, a country's cities right after it: the order of the table. */
    this.order = [];
    if (this.root) this.#walk(this.root, 0, false);
    this.cities = this.order.filter((node) => node.city);
    /** The links that are down. */
    this.cuts = this.order.filter((node) => node.parent && !node.place.linked);
  }

  #walk(node, depth, cutOff) {
    node.depth = depth;
    node.cutOff = cutOff || (node.parent !== null && !node.place.linked);
    node.city = node.children.length === 0;
    this.order.push(node);
    for (const child of node.children) this.#walk(child, depth + 1, node.cutOff);
    node.below = node.city ? node.own : node.children.reduce((all, child) => all + child.below, 0);
    // A sample is not one instant in all places: what was read later may be ahead by a moment's votes.
    node.transit = Math.max(0, node.below - node.own);
  }

  /** What a change of this rebuilds the page for: the places and the candidates, not their numbers. */
  get shape() {
    return JSON.stringify([this.candidates, this.order.map(({ place }) => [place.place, place.name, place.parent])]);
  }
}
