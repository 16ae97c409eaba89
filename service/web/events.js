// A job's events as they happen, over as many connections as it takes.

import { call } from "./api.js";

const ENDED = new Set(["succeeded", "failed", "canceled"]);
const SILENCE_MS = 45000; // the service sends a comment every 15 s unless its settings say otherwise
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;

export function hasEnded(status) {
  return ENDED.has(status);
}

// Call onEvent({id, type, data}) for each event after the last seen, until the job ends or `signal` says stop.
// onLink(true or false) tells whether the service is heard. Throws Problem for answers that trying again
// cannot mend. EventSource would do, but for the key: it sends no headers.
export async function follow(jobId, { signal, onEvent, onLink }) {
  let last = "";
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      for await (const event of connection(jobId, last, signal)) {
        if (event === null) {
          wait = FIRST_WAIT_MS;
          onLink(true);
          continue;
        }
        if (event.type === "end") return;
        last = event.id;
        onEvent(event);
        if (event.type === "status" && ENDED.has(event.data.status)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // 429 and the server's own troubles pass; a job that is gone or a key that is refused does not.
      if (error.status && error.status < 500 && error.status !== 429) throw error;
    }
    onLink(false);
    await pause(wait, signal);
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}

// One connection's events: null once it stands, `end` where the job has no more; it is over where the service
// closes it or falls silent.
async function* connection(jobId, last, signal) {
  const own = new AbortController();
  const stop = () => own.abort();
  signal.addEventListener("abort", stop, { once: true });
  let watch = setTimeout(stop, SILENCE_MS);
  try {
    const headers = { Accept: "text/event-stream" };
    if (last) headers["Last-Event-ID"] = last;
    const answer = await call(`/jobs/${jobId}/events`, { headers, signal: own.signal });
    yield null;
    if (answer.status === 204) {
      yield { type: "end" };
      return;
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watch);
      watch = setTimeout(stop, SILENCE_MS);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (data.length) yield JSON.parse(data.join("\n"));
      }
    }
  } finally {
    clearTimeout(watch);
    signal.removeEventListener("abort", stop);
    own.abort();
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
