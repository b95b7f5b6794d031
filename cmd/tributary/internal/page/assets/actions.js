// The two things that one can do to the world.

/** Casts a vote; resolves to {total, ms} once it is durable, rejects with what the demo says. */
export async function vote(place, candidate) {
  const start = performance.now();
  const reply = await post("vote", { place, candidate });
  return { total: reply.total, ms: performance.now() - start };
}

/** Cuts or mends a place's link to its parent. */
export const link = (place, up) => post("link", { place, up });

async function post(path, body) {
  let reply;
  try {
    reply = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    throw new Error("the demo cannot be reached");
  }
  const answer = await reply.json().catch(() => null);
  if (!reply.ok) throw new Error(answer?.error?.message ?? `the demo answered HTTP ${reply.status}`);
  return answer;
}
