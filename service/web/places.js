// Where on the form a problem belongs, and showing it there.

import { byId, tell } from "./dom.js";

const SOURCE = /^\/(source|adapter|config|files)(\/|$)/;
const STEP = /^\/steps\/(\d+)(?:\/(\w+))?/;
const TEXT = /^\/(?:evaluation\/)?(clean|unlabelled|validation|data|triggered|trigger|target|evaluation)\b/;
const MODEL = /^\/(base|aligned|threat)\b/;

// Take all messages off the form.
export function clearProblems(form) {
  for (const node of form.querySelectorAll(".problem")) tell(node, "");
  for (const node of form.querySelectorAll("[aria-invalid]")) node.removeAttribute("aria-invalid");
}

// Show each part of the problem beside what it is about, and go to the first of them.
export function showProblem(form, problem) {
  clearProblems(form);
  const items = problem.errors?.length ? problem.errors : [{ pointer: "", detail: problem.message }];
  const places = items.map((item) => place(item.pointer || "", problem.code));
  items.forEach((item, index) => say(places[index], item, problem));
  const first = places[0];
  const target = first.input ?? first.message;
  if (!first.input) target.tabIndex = -1;
  first.message.closest("details")?.setAttribute("open", "");
  target.focus();
}

function say(where, item, problem) {
  const inFile = item.pointer && !item.pointer.startsWith("/") ? `${item.pointer}: ` : "";
  // Words of the list of codes first, then what is particular to this adapter.
  const title = problem.title && problem.code !== "request_invalid" ? `${problem.title}. ` : "";
  const text = `${title}${inFile}${item.detail}`;
  const message = where.message;
  tell(message, message.textContent ? `${message.textContent}\n${text}` : text);
  where.input?.setAttribute("aria-invalid", "true");
}

function place(pointer, code) {
  const step = STEP.exec(pointer);
  if (step) return pick(`step-${step[1]}-${step[2]}`) ?? pick("steps", "method");
  if (pointer === "/steps" || code === "no_default_recipe") return pick("steps", "method");
  const text = TEXT.exec(pointer);
  if (text) {
    const role = text[1] === "data" ? "evaluation" : text[1];
    return pick(role, `${role}-file`) ?? general();
  }
  if (/^\/publish\b/.test(pointer)) return pick("publish");
  if (pointer === "/hub_token") return pick("hub-token");
  const model = MODEL.exec(pointer);
  if (model) return pick(model[1]);
  // Pointers into the adapter are `file#tensor`, without a slash in front.
  if (SOURCE.test(pointer) || (pointer && !pointer.startsWith("/"))) {
    return pick("source", byId("hub").value.trim() ? "hub" : "files");
  }
  return general();
}

function pick(name, inputId = name) {
  const message = byId(`${name}-problem`);
  return message && { message, input: byId(inputId) };
}

function general() {
  return { message: byId("form-problem"), input: null };
}
