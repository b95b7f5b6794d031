// The stream of samples: one EventSource, watched. It reconnects by itself when a connection breaks; this adds what it
// leaves to others: a refused stream is tried again, one that has gone silent is replaced, and none is held open for
// a page that nobody sees.

const SILENCE_MS = 4000; // samples come every 250 ms: after this long without one, something is wrong
const RETRY_MS = 2000;

/** Calls onWorld with each sample, and onState with ("live" | "connecting" | "broken", why). */
export function watch(onWorld, onState) {
  let source = null, last = 0, retry = 0;

  function open() {
    close();
    last = performance.now();
    source = new EventSource("events");
    source.addEventListener("world", (event) => {
      last = performance.now();
      onState("live");
      onWorld(JSON.parse(event.data));
    });
    source.addEventListener("error", async () => {
      const failed = source;
      if (failed.readyState !== EventSource.CLOSED) {
        onState("broken", "The stream broke; reconnecting. The numbers are the last that came.");
        return;
      }
      const why = await refusal();
      if (source !== failed) return;
      onState("broken", why);
      retry = setTimeout(open, RETRY_MS);
    });
  }

  function close() {
    clearTimeout(retry);
    source?.close();
    source = null;
  }

  setInterval(() => {
    if (source && source.readyState === EventSource.OPEN && performance.now() - last > SILENCE_MS) {
      onState("broken", "No sample has come for some seconds; reconnecting. The numbers are the last that came.");
      open();
    }
  }, 1000);

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
    } else if (!source) {
      onState("connecting");
      open();
    }
  });
  onState("connecting");
  if (!document.hidden) open();
}

/** Why a stream was refused: EventSource does not tell, so ask again without one. */
async function refusal() {
  try {
    const reply = await fetch("events", { method: "HEAD", cache: "no-store" });
    if (reply.status === 503) return "The demo is stopping, or has as many viewers as it serves; trying again.";
    return `The stream was refused (HTTP ${reply.status}); trying again.`;
  } catch {
    return "The demo cannot be reached; trying again. The numbers are the last that came.";
  }
}
