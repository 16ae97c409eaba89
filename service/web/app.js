// Which page is shown, by the address's fragment, and signing in when the service asks for a key.

import { get, keepKey, key, signOut } from "./api.js";
import { byId, tell } from "./dom.js";
import { JobPage } from "./job.js";
import { JobsPage } from "./jobs.js";
import { RepairPage } from "./repair.js";

const JOB = /^#\/jobs\/([A-Za-z0-9_-]{1,64})$/;

class App {
  constructor() {
    this.pages = { repair: new RepairPage(), jobs: new JobsPage(), job: new JobPage((hash) => { location.hash = hash; }) };
    this.started = false;
    addEventListener("hashchange", () => this.route());
    document.addEventListener("signed-out", (event) => this.askForKey(event.detail));
    document.addEventListener("went-wrong", (event) => tell(byId("notice"), event.detail.message));
    byId("sign-in").addEventListener("submit", (event) => { event.preventDefault(); this.signIn(); });
    byId("sign-out").addEventListener("click", async () => { await signOut(); location.reload(); });
    // The fragment is the page's address, so the skip link moves the focus without it.
    document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });
  }

  async route() {
    const job = JOB.exec(location.hash);
    const name = job ? "job" : location.hash === "#/jobs" ? "jobs" : "repair";
    this.pages.job.leave();
    this.open(name);
    try {
      await this.pages[name].show(job?.[1]);
    } catch (error) {
      if (error.name !== "AbortError" && error.status !== 401) tell(byId("notice"), error.message);
    }
  }

  open(name) {
    tell(byId("notice"), "");
    byId("sign-out").hidden = !key();
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== `page-${name}`;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.page === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const title = byId(`${name}-title`);
    document.title = `${title.textContent}: loramend`;
    // On the first page the reader starts at the top; afterwards at what has changed.
    if (this.started) title.focus();
    this.started = true;
  }

  askForKey(problem) {
    this.pages.job.leave();
    const had = key();
    keepKey(null);
    this.open("sign-in");
    tell(byId("key-problem"), had ? problem.message : "");
    if (had) byId("key").setAttribute("aria-invalid", "true");
    byId("key").focus();
  }

  async signIn() {
    const given = byId("key").value.trim();
    if (!given) {
      tell(byId("key-problem"), "Give the key.");
      byId("key").focus();
      return;
    }
    keepKey(given);
    try {
      await get("/jobs?limit=1");
    } catch (error) {
      keepKey(null);
      tell(byId("key-problem"), error.message);
      return;
    }
    byId("key").value = "";
    this.route();
  }
}

new App().route();
