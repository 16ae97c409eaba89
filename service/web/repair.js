// The form for a new repair: reading it, sending it, and showing what is wrong with it.

import { AdapterSource, named } from "./adapter.js";
import { get, post, Problem, randomId } from "./api.js";
import { byId } from "./dom.js";
import { clearProblems, showProblem } from "./places.js";
import { Steps } from "./steps.js";
import { addTexts, drawTexts, hasFiles, hasText } from "./texts.js";

export class RepairPage {
  constructor() {
    this.steps = null;
    this.source = new AdapterSource();
    this.attempt = null;
    const changed = () => this.steps?.refresh();
    drawTexts(byId("texts"), changed);
    for (const id of ["base", "aligned"]) byId(id).addEventListener("input", changed);
    for (const radio of document.querySelectorAll("[name=threat]")) radio.addEventListener("change", changed);
    byId("repair").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
  }

  async show() {
    if (!this.steps) this.steps = new Steps(await get("/methods"), situation);
  }

  async submit() {
    const form = byId("repair");
    const button = byId("submit");
    if (button.disabled) return;
    clearProblems(form);
    button.disabled = true;
    byId("sending").textContent = "Sending and checking the adapter…";
    try {
      const { body, headers } = this.message();
      const job = await post("/repair", body, headers);
      this.attempt = null;
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (error.status !== 401) showProblem(form, error);
    } finally {
      button.disabled = false;
      byId("sending").textContent = "";
    }
  }

  // The request as JSON, or as a form where files go with it. Throws Problem for what cannot be sent.
  message() {
    const source = this.source.given();
    if (source.wrong) throw wrong("/source", source.wrong);
    if (source.hub && hasFiles()) {
      throw wrong("/source", "Files of text go with an adapter that is a file too; with a Hub ID, name datasets on the Hub.");
    }
    const body = new FormData();
    const request = { threat: situation().threat, steps: this.steps.asked() };
    for (const id of ["base", "aligned"]) {
      const text = byId(id).value.trim();
      if (text) request[id] = /^[/.~]/.test(text) ? { path: text } : named(text);
    }
    addTexts(request, body);
    const headers = { "Idempotency-Key": this.key([source.weights, source.config], request) };
    if (source.hub) {
      request.source = source.hub;
      return { body: JSON.stringify(request), headers: { ...headers, "Content-Type": "application/json" } };
    }
    body.append("adapter", source.weights);
    if (source.config) body.append("config", source.config);
    body.append("request", JSON.stringify(request));
    return { body, headers };
  }

  // The same for a second try of the same request, whose answer may have been lost on the way.
  key(files, request) {
    const told = JSON.stringify([files.map((file) => file && [file.name, file.size, file.lastModified]), request, byId("hub").value]);
    if (this.attempt?.told !== told) this.attempt = { told, key: randomId() };
    return this.attempt.key;
  }
}

function situation() {
  const given = (id) => byId(id).value.trim() !== "";
  return {
    threat: document.querySelector("[name=threat]:checked").value,
    base: given("base"),
    aligned: given("aligned"),
    text: hasText(),
  };
}

function wrong(pointer, detail) {
  return new Problem(0, { detail, errors: [{ pointer, detail }] });
}
