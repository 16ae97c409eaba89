// The form for a new repair: reading it, sending it, and showing what is wrong with it.

import { AdapterSource, named } from "./adapter.js";
import { get, Problem, randomId } from "./api.js";
import { byId, tell } from "./dom.js";
import { clearProblems, showProblem } from "./places.js";
import { addPublishing, forgetToken, offerPublishing } from "./publishing.js";
import { Sending } from "./sending.js";
import { Steps } from "./steps.js";
import { addTexts, drawTexts, hasFiles, hasText } from "./texts.js";

export class RepairPage {
  constructor() {
    this.steps = null;
    this.source = new AdapterSource();
    this.attempt = null;
    this.sending = new Sending();
    const changed = () => this.steps?.refresh();
    drawTexts(byId("texts"), changed);
    for (const id of ["base", "aligned"]) byId(id).addEventListener("input", changed);
    for (const radio of document.querySelectorAll("[name=threat]")) radio.addEventListener("change", changed);
    byId("repair").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
  }

  async show() {
    if (this.steps) return;
    const methods = await get("/methods");
    offerPublishing(methods.publishing);
    this.steps = new Steps(methods, situation);
  }

  async submit() {
    const form = byId("repair");
    if (byId("submit").disabled) return;
    clearProblems(form);
    tell(byId("stopped"), "");
    try {
      const { body, headers } = this.message();
      const job = await this.sending.post("/repair", body, headers);
      this.attempt = null;
      forgetToken();
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (error.name === "AbortError") {
        tell(byId("stopped"), "Stopped. If all of it had arrived, its job is in the list of jobs.");
        byId("submit").focus();
      } else if (error.status !== 401) showProblem(form, error);
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
    const amiss = addPublishing(request);
    if (amiss) throw wrong(amiss.pointer, amiss.detail);
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
