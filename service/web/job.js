// One job: its progress as it happens, then its report and how to fetch the adapter.

import { call, get, key, post, resultLink, takePass } from "./api.js";
import { byId, el, moment, tell } from "./dom.js";
import { follow, hasEnded } from "./events.js";
import { reportSection } from "./report.js";

const WORDS = {
  queued: "Waiting for a worker.", running: "Running.", succeeded: "Succeeded.",
  failed: "Failed.", canceled: "Canceled.",
};
const PHASES = {
  fetch: "Fetching", measure: "Measuring", repair: "Repairing", train: "Training",
  evaluate: "Evaluating", controls: "Comparing with controls", write: "Writing", publish: "Publishing",
};

export class JobPage {
  constructor(goTo) {
    this.goTo = goTo;
    this.leaving = null;
  }

  // Draw the job and follow it until it ends or the page is left.
  async show(jobId) {
    const leaving = new AbortController();
    this.leaving = leaving;
    const holder = byId("job");
    holder.replaceChildren();
    byId("job-title").textContent = `Job ${jobId}`;
    const job = await get(`/jobs/${jobId}`, { signal: leaving.signal });
    this.frame(holder, job);
    this.status(job.status);
    if (job.progress) this.progress(job.progress);
    if (!hasEnded(job.status)) {
      await follow(jobId, {
        signal: leaving.signal,
        onEvent: (event) => {
          if (event.type === "status") this.status(event.data.status);
          else if (event.type === "progress") this.progress(event.data);
        },
        onLink: (there) => tell(this.link, there ? "" : "Connection lost. Trying again; the job goes on."),
      });
    }
    if (leaving.signal.aborted) return;
    const ended = hasEnded(job.status) ? job : await get(`/jobs/${jobId}`, { signal: leaving.signal });
    await this.ended(ended, leaving.signal);
  }

  leave() {
    this.leaving?.abort();
  }

  frame(holder, job) {
    this.state = el("p", { className: "status", role: "status" });
    this.link = el("p", { className: "problem", role: "status", hidden: true });
    this.bar = el("progress", { max: 1, "aria-labelledby": "job-doing" });
    this.doing = el("p", { id: "job-doing" }, "Progress");
    this.spoken = el("p", { className: "quiet", "aria-live": "polite" });
    this.going = el("div", {}, this.doing, this.bar);
    this.trouble = el("p", { className: "problem", role: "alert", hidden: true });
    this.cancel = el("button", { type: "button", onclick: () => this.stop(job.id) }, "Cancel this job");
    this.remove = el("button", { type: "button", hidden: true, onclick: () => this.forget(job.id) }, "Delete with all its files");
    this.result = el("div");
    holder.replaceChildren(this.state, this.link, this.going, this.spoken, this.trouble,
      el("p", { className: "row" }, this.cancel, this.remove), this.result,
      el("h2", {}, "What was asked"), facts(job));
    this.said = "";
  }

  status(status) {
    if (this.state.dataset.status === status) return;
    this.state.dataset.status = status;
    this.state.className = `status ${status}`;
    this.state.textContent = WORDS[status] ?? status;
    const over = hasEnded(status);
    this.going.hidden = over;
    this.cancel.hidden = over;
    this.remove.hidden = !over;
    document.title = `${WORDS[status] ?? status} loramend`;
  }

  progress({ phase, done, total, unit, detail }) {
    const doing = PHASES[phase] ?? phase;
    this.doing.textContent = `${doing}: ${done} of ${total} ${unit}${detail ? `, ${detail}` : ""}`;
    if (total) this.bar.value = done / total;
    else this.bar.removeAttribute("value");
    // Read aloud by phase and quarter; every step would drown the reader.
    const quarter = total ? Math.floor((4 * done) / total) * 25 : 0;
    const said = `${doing}, ${quarter} percent`;
    if (said !== this.said) this.spoken.textContent = this.said = said;
  }

  async ended(job, signal) {
    this.status(job.status);
    tell(this.link, "");
    if (job.error) tell(this.trouble, `${job.error.title}. ${job.error.detail}`);
    if (job.status !== "succeeded") return;
    // For the ways past a click, such as the link's own menu; a click takes one where this did not.
    if (key()) takePass(job.id).catch(() => {});
    const report = await get(`/jobs/${job.id}/report`, { signal });
    this.result.replaceChildren(reportSection(job.id, report));
    if (job.result?.published) this.result.append(published(job.result.published));
    if (job.result?.adapter_digest) this.result.append(fetching(job));
  }

  async stop(jobId) {
    this.cancel.disabled = true;
    try {
      await post(`/jobs/${jobId}/cancel`);
      if (!hasEnded(this.state.dataset.status)) this.spoken.textContent = "Cancelling.";
    } catch (error) {
      if (error.code !== "job_already_finished") tell(this.trouble, error.message);
      this.cancel.disabled = false;
    }
  }

  async forget(jobId) {
    if (!confirm("Delete this job, its report and its adapter? This cannot be undone.")) return;
    try {
      await call(`/jobs/${jobId}`, { method: "DELETE" });
      this.goTo("#/jobs");
    } catch (error) {
      tell(this.trouble, error.message);
    }
  }
}

export function sourceOf(job) {
  const { hub_id: hub, revision, upload } = job.source;
  if (hub) return revision ? `${hub}@${revision}` : hub;
  return `file ${upload.slice(0, 12)}`;
}

function facts(job) {
  const model = (ref) => ref && `${ref.hub_id ?? ref.path}${ref.revision ? `@${ref.revision}` : ""}`;
  const rows = [
    ["Adapter", sourceOf(job)],
    ["Threat", job.threat],
    ["Steps", job.steps ? job.steps.map((step) => step.type).join(", then ") : job.kind === "repair" ? "the recommended ones" : null],
    ["Base", model(job.base)],
    ["Aligned", model(job.aligned)],
    ["Publish", job.publish?.repo_id],
    ["Text", Object.keys(job.data).join(", ")],
    ["Owner", job.owner],
    ["Asked", moment(job.created_at)],
  ];
  return el("dl", {}, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function published({ repo_id: repo, url }) {
  const link = /^https?:\/\//.test(url) ? el("a", { href: url, rel: "noopener noreferrer" }, repo) : repo;
  return el("p", {}, "Published on the Hub: ", link);
}

function fetching(job) {
  const hub = `HF_ENDPOINT=${location.origin} python -c '
from peft import PeftModel
model = PeftModel.from_pretrained(base, "${job.result.repo_id}")'`;
  return el("section", { "aria-labelledby": "fetch-title" },
    el("h2", { id: "fetch-title" }, "Fetch the repaired adapter"),
    command("pull", "With loramend", `loramend pull ${location.origin}/jobs/${job.id} --out repaired`),
    command("load", "Straight into peft", hub),
    key() ? el("p", { className: "help" }, "Both need the API key: set LORAMEND_KEY for the first, HF_TOKEN for the second.") : null,
    el("p", {}, resultLink(el("a", { download: "" }, "Download the archive"), job.id, "adapter")));
}

function command(id, title, text) {
  const code = el("pre", { id: `${id}-command`, tabIndex: 0, role: "group", "aria-label": title }, text);
  const said = el("span", { role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "Copied.";
    } catch {
      // Over plain HTTP from another machine a page may not write to the clipboard.
      getSelection().selectAllChildren(code);
      said.textContent = "Selected: press Ctrl+C or Command+C.";
    }
  };
  const button = el("button", { type: "button", "aria-label": `Copy: ${title}`, onclick: copy }, "Copy");
  return el("div", {}, el("h3", {}, title), code, el("p", { className: "row" }, button, said));
}
