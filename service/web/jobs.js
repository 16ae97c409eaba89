// The list of jobs: filter, pages, cancel.

import { get, post } from "./api.js";
import { byId, el, moment } from "./dom.js";
import { hasEnded } from "./events.js";
import { sourceOf } from "./job.js";

export class JobsPage {
  constructor() {
    this.cursor = null;
    this.asked = 0;
    for (const id of ["status", "kind"]) byId(id).addEventListener("change", () => this.again());
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("refresh").addEventListener("click", () => this.again());
    byId("more").addEventListener("click", () => this.again(true));
  }

  show() {
    return this.load(false);
  }

  again(older = false) {
    this.load(older).catch((error) => { byId("jobs-said").textContent = error.message; });
  }

  async load(older) {
    const mine = ++this.asked;
    const query = new URLSearchParams({ limit: "25" });
    for (const id of ["status", "kind"]) if (byId(id).value) query.set(id, byId(id).value);
    if (older && this.cursor) query.set("cursor", this.cursor);
    const page = await get(`/jobs?${query}`);
    if (mine !== this.asked) return; // a later filter has been chosen meanwhile
    const list = byId("jobs");
    if (!older) list.replaceChildren();
    list.append(...page.jobs.map((job) => this.item(job)));
    this.cursor = page.next_cursor;
    byId("more").hidden = !page.next_cursor;
    const count = list.children.length;
    byId("jobs-said").textContent = count ? `${count} ${count === 1 ? "job" : "jobs"}${page.next_cursor ? " so far" : ""}, newest first.` : "No jobs here.";
  }

  item(job) {
    const steps = job.steps ? job.steps.map((step) => step.type).join(", ") : "";
    const actions = el("div");
    if (!hasEnded(job.status)) {
      actions.append(el("button", { type: "button", "aria-label": `Cancel job ${job.id}`, onclick: () => this.cancel(job.id) }, "Cancel"));
    }
    return el("li", {},
      el("div", {},
        el("a", { href: `#/jobs/${job.id}` }, `${job.kind} of ${sourceOf(job)}`), " ",
        el("span", { className: `status ${job.status}` }, job.status), el("br"),
        el("span", { className: "help" }, [moment(job.created_at), steps, job.error?.title].filter(Boolean).join("; "))),
      actions);
  }

  async cancel(jobId) {
    try {
      await post(`/jobs/${jobId}/cancel`);
    } catch (error) {
      if (error.code !== "job_already_finished") {
        byId("jobs-said").textContent = error.message;
        return;
      }
    }
    await this.load(false).catch(() => null);
    byId("jobs-said").textContent = `Job ${jobId} is being canceled.`;
    byId("refresh").focus();
  }
}
