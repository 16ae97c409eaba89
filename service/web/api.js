// Calls to the service: the key, and its problems as errors.

const KEY = "loramend-key";
const PASSES = "loramend-passes"; // job by job, when its pass was taken
const FRESH_MS = 8 * 60 * 1000; // of the ten minutes that the service gives

export function key() {
  return sessionStorage.getItem(KEY);
}

export function keepKey(value) {
  sessionStorage.removeItem(PASSES);
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

// A problem document (RFC 9457), or its stand-in where the service gave none.
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `The service answered ${status}.`);
    this.status = status;
    this.code = document.code || "";
    this.title = document.title || "";
    this.errors = Array.isArray(document.errors) ? document.errors : [];
    this.requestId = document.request_id || "";
  }
}

// The service could not be reached at all.
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer. Is it running? Try again shortly.");
  }
}

// The answer, if it is a success. Throws Problem, Unreachable, or AbortError where `signal` says stop.
export async function call(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (answer.ok) return answer;
  throw refused(answer.status, await answer.json().catch(() => ({})));
}

// The same as a POST whose body is large: onSent({ sent, total }) in bytes as it goes out, which fetch cannot tell.
export function send(path, body, { headers = {}, onSent, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    const all = { Accept: "application/json", ...headers, ...(key() ? { Authorization: `Bearer ${key()}` } : {}) };
    for (const [name, value] of Object.entries(all)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => onSent({ sent: event.loaded, total: event.total }));
    request.addEventListener("load", () => {
      let document = {};
      try { document = JSON.parse(request.responseText); } catch { /* the status says enough */ }
      if (request.status >= 200 && request.status < 300) resolve(document);
      else reject(refused(request.status, document));
    });
    request.addEventListener("error", () => reject(new Unreachable()));
    request.addEventListener("abort", () => reject(new DOMException("Stopped.", "AbortError")));
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

function refused(status, told) {
  const problem = new Problem(status, told);
  if (status === 401) document.dispatchEvent(new CustomEvent("signed-out", { detail: problem }));
  return problem;
}

export async function get(path, options = {}) {
  return (await call(path, options)).json();
}

export function post(path, body, headers = {}) {
  return call(path, { method: "POST", body, headers }).then((answer) => answer.json());
}

// crypto.randomUUID is missing where the page came over plain HTTP from another machine.
export function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
}

// A link to one of a job's results. A browser's own requests carry no key, so with one a pass is taken first.
export function resultLink(link, jobId, what) {
  link.href = `/jobs/${jobId}/${what}`;
  link.addEventListener("click", async (event) => {
    if (!key() || hasPass(jobId)) return;
    event.preventDefault();
    try {
      await takePass(jobId);
      link.click();
    } catch (error) {
      document.dispatchEvent(new CustomEvent("went-wrong", { detail: error }));
    }
  });
  return link;
}

// Have this browser let into the job's results for a while, by a cookie that scripts do not see.
export async function takePass(jobId) {
  await call(`/jobs/${jobId}/pass`, { method: "POST" });
  sessionStorage.setItem(PASSES, JSON.stringify({ ...passes(), [jobId]: Date.now() }));
}

// Take all of that back, and forget the key.
export async function signOut() {
  const dropped = Object.keys(passes()).map((jobId) => call(`/jobs/${jobId}/pass`, { method: "DELETE" }));
  await Promise.allSettled(dropped);
  keepKey(null);
}

function passes() {
  return JSON.parse(sessionStorage.getItem(PASSES) ?? "{}");
}

function hasPass(jobId) {
  return Date.now() - (passes()[jobId] ?? 0) < FRESH_MS;
}
