// Numbers and spans of time, as the page writes them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 1234567.8 → "1,234,568" */
export const count = (n) => whole.format(n);

/** 3.42 → "3.4", 1042.6 → "1,043": a rate keeps a decimal only where it matters. */
export const rate = (n) => (n > 0 && n < 9.95 ? n.toFixed(1) : whole.format(n));

/** 0.9876 → "98.7 %": cut, not rounded, so that 100 % is said of nothing less. */
export const percent = (f) => `${(Math.floor(f * 1000) / 10).toFixed(1)} %`;

/** 8 → "8 ms", 1234 → "1.2 s", 90000 → "1:30" */
export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59950) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.round(ms / 1000);
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
}

/** 3725 seconds → "1 h 2 min", for how long the world has run. */
export function running(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** "1 vote", "2 votes" */
export const votes = (n) => `${count(n)} ${n === 1 ? "vote" : "votes"}`;

export const sum = (totals) => Object.values(totals ?? {}).reduce((a, b) => a + b, 0);
