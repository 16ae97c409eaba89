// The list of steps: the recommended ones until they are edited, then the user's own.

import { byId, el, tell } from "./dom.js";
import { parameterFields } from "./fields.js";

const FEW = 5; // parameters that are shown at once; more are folded away

export class Steps {
  // `situation()` tells {threat, base, aligned, text}: what the default recipe depends on.
  constructor({ methods, recipes }, situation) {
    this.methods = new Map(methods.map((method) => [method.type, method]));
    this.recipes = recipes;
    this.situation = situation;
    this.own = false;
    this.steps = [];
    byId("method").replaceChildren(...methods.map((method) => el("option", {}, method.type)));
    byId("add-step").addEventListener("click", () => this.add(byId("method").value));
    byId("recommended").addEventListener("click", () => { this.own = false; this.refresh(); byId("method").focus(); });
    this.refresh();
  }

  // What to put in the request; undefined leaves the choice to the service.
  asked() {
    return this.own ? this.steps.map((step) => ({ type: step.type, ...step.values })) : undefined;
  }

  // Take the recipe anew, unless the steps are the user's own.
  refresh() {
    const told = byId("recommended");
    told.hidden = !this.own;
    if (this.own) {
      tell(byId("steps-help"), this.steps.length ? "Your own steps, taken in this order." : "No step yet: add one.");
      return;
    }
    const now = this.situation();
    // Where no base is named the adapter's config names one, as a rule.
    const recipe = this.recipes.find((recipe) => recipe.base && recipe.threat === now.threat
      && recipe.aligned === now.aligned && recipe.text === now.text);
    const types = recipe ? recipe.steps : [];
    tell(byId("steps-help"), `Recommended for what you give${now.base ? "" : " and the base model that the adapter's config names"}. Change anything, and the steps are yours.`);
    if (types.join() === this.steps.map((step) => step.type).join() && this.steps.every(untouched)) return;
    this.steps = types.map((type) => ({ type, values: {} }));
    this.draw();
  }

  add(type) {
    this.steps.push({ type, values: {} });
    this.edited();
    this.draw();
    byId(`step-${this.steps.length - 1}-title`).focus();
  }

  move(index, by) {
    const [step] = this.steps.splice(index, 1);
    this.steps.splice(index + by, 0, step);
    this.edited();
    this.draw();
    byId(`step-${index + by}-title`).focus();
  }

  remove(index) {
    this.steps.splice(index, 1);
    this.edited();
    this.draw();
    byId("method").focus();
  }

  edited() {
    this.own = true;
    this.refresh();
  }

  draw() {
    byId("steps").replaceChildren(...this.steps.map((step, index) => this.item(step, index)));
  }

  item(step, index) {
    const method = this.methods.get(step.type);
    const prefix = `step-${index}`;
    const count = Object.keys(method.parameters.properties).length - 1;
    const button = (text, does, disabled) => el("button", { type: "button", disabled, "aria-label": `${text}: step ${index + 1}, ${step.type}`, onclick: does }, text);
    return el("li", {},
      el("div", { className: "row" },
        el("h2", { id: `${prefix}-title`, tabIndex: -1 }, `${index + 1}. ${step.type}`),
        button("Up", () => this.move(index, -1), index === 0),
        button("Down", () => this.move(index, 1), index === this.steps.length - 1),
        button("Remove", () => this.remove(index), false)),
      el("p", {}, method.summary),
      el("p", { className: "help" }, `${needsOf(method)} Source: ${method.source}.`),
      el("details", { open: count <= FEW || Object.keys(step.values).length > 0 },
        el("summary", {}, `Parameters (${count})`),
        el("div", { className: "params" }, ...parameterFields(prefix, method.parameters, step.values, () => this.edited()))));
  }
}

function untouched(step) {
  return Object.keys(step.values).length === 0;
}

function needsOf(method) {
  const needs = method.needs.map((need) => `the ${need} model`);
  if (method.text) needs.push(method.text === "clean" ? "labelled examples" : "clean text");
  return needs.length ? `Needs ${needs.join(", ")}.` : "Needs nothing beside the adapter.";
}
