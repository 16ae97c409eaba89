// The clean text of a repair, and what to measure it on: fields, and what they say in the request.

import { byId, el } from "./dom.js";

const ROLES = [
  ["clean", "Labelled examples", "Of the adapter's own task: text and label, or prompt and completion."],
  ["unlabelled", "Plain text", "Of the same kind, without labels."],
  ["validation", "Examples kept out of training", "For calibration; empty holds back a fifth of the labelled ones."],
  ["evaluation", "Examples to measure on", "Labelled; accuracy and attack success are measured before and after."],
];
const FIELDS = ["text", "label", "prompt", "completion", "messages"];

// Put the fields on the page; onChange() when what is given changes.
export function drawTexts(holder, onChange) {
  holder.replaceChildren(...ROLES.map(([role, title, help]) => {
    const more = role === "evaluation" ? [trigger()] : [];
    return el("details", { open: role === "clean" }, el("summary", {}, title), ...fields(role, help), ...more);
  }));
  holder.addEventListener("input", onChange);
}

function fields(role, help) {
  const described = `${role}-help ${role}-problem`;
  return [
    el("p", { className: "help", id: `${role}-help` }, help),
    el("div", { className: "pair" },
      field(`${role}-file`, "File (.jsonl)", { type: "file", accept: ".jsonl,.ndjson,.json", "aria-describedby": described }),
      field(`${role}-hub`, "Or a dataset on the Hub", { placeholder: "org/dataset or org/dataset:train.jsonl", "aria-describedby": described })),
    el("details", {}, el("summary", {}, "Names of its fields"),
      el("div", { className: "params" }, ...FIELDS.map((name) => field(`${role}-as-${name}`, name, { placeholder: name })))),
    el("p", { className: "problem", id: `${role}-problem`, hidden: true }),
  ];
}

function trigger() {
  const kinds = ["word", "sentence", "prefix", "suffix"].map((kind) => el("option", {}, kind));
  return el("div", {}, el("div", { className: "params" },
    field("trigger", "Trigger, if it is known", {}),
    el("div", { className: "field" }, el("label", { for: "trigger-kind" }, "Its kind"), el("select", { id: "trigger-kind" }, ...kinds)),
    field("target", "What it asks for", { placeholder: "a label, or text of the answer" })),
  el("p", { className: "problem", id: "trigger-problem", hidden: true }),
  el("p", { className: "problem", id: "target-problem", hidden: true }));
}

function field(id, label, props) {
  return el("div", { className: "field" }, el("label", { for: id }, label), el("input", { id, autocomplete: "off", spellcheck: false, ...props }));
}

// Whether there is clean text to learn from.
export function hasText() {
  return ["clean", "unlabelled"].some((role) => fileOf(role) || value(`${role}-hub`));
}

// Add the texts to the request's document and to the form that carries its files.
export function addTexts(request, form) {
  for (const [role] of ROLES) {
    const file = fileOf(role);
    const named = reference(role, file);
    if (!named) continue;
    if (file) form.append(role, file);
    if (role === "evaluation") request.evaluation = { data: named };
    else request[role] = named;
  }
  const text = value("trigger");
  const target = value("target");
  if (!text && !target) return;
  request.evaluation = request.evaluation ?? {};
  if (text) request.evaluation.trigger = { kind: byId("trigger-kind").value, text };
  if (target) request.evaluation.target = /^-?\d{1,15}$/.test(target) ? Number(target) : target;
}

// Whether a file is given that a form must carry.
export function hasFiles() {
  return ROLES.some(([role]) => fileOf(role));
}

function reference(role, file) {
  const [hub, path] = value(`${role}-hub`).split(":");
  if (!file && !hub) return null;
  const named = file ? {} : { hub_id: hub, ...(path ? { file: path } : {}) };
  const renamed = FIELDS.map((name) => [name, value(`${role}-as-${name}`)]).filter(([, theirs]) => theirs);
  return renamed.length ? { ...named, fields: Object.fromEntries(renamed) } : named;
}

function fileOf(role) {
  return byId(`${role}-file`).files[0] ?? null;
}

function value(id) {
  return byId(id).value.trim();
}
