// A step's parameters as form fields, from the JSON schema that GET /methods gives.

import { el } from "./dom.js";

// The fields of one step. `values` holds what differs from the defaults; onChange() after each edit.
export function parameterFields(prefix, schema, values, onChange) {
  return Object.entries(schema.properties)
    .filter(([name]) => name !== "type")
    .map(([name, property]) => parameterField(`${prefix}-${name}`, name, property, values, onChange));
}

function parameterField(id, name, property, values, onChange) {
  const given = name in values ? values[name] : property.default;
  const input = control(id, property, given);
  input.setAttribute("aria-describedby", `${id}-help ${id}-problem`);
  input.addEventListener("input", () => {
    const value = read(input, property);
    if (value === property.default) delete values[name];
    else values[name] = value;
    onChange();
  });
  return el("div", { className: "field" },
    el("label", { for: id }, name.replaceAll("_", " ")),
    input,
    el("p", { className: "help", id: `${id}-help` }, helpOf(property)),
    el("p", { className: "problem", id: `${id}-problem`, hidden: true }));
}

function control(id, property, value) {
  if (property.enum) {
    const select = el("select", { id }, ...property.enum.map((choice) => el("option", {}, choice)));
    select.value = value;
    return select;
  }
  if (property.type === "boolean") return el("input", { id, type: "checkbox", checked: value });
  return el("input", { id, autocomplete: "off", spellcheck: false, inputMode: words(property).length ? "text" : "decimal", value: value ?? "" });
}

// What is no number is sent as it is: the service says what is wrong with it, and the page shows it here.
function read(input, property) {
  if (input.type === "checkbox") return input.checked;
  const text = input.value.trim();
  if (property.enum) return text;
  if (text === "") return null;
  return Number.isFinite(Number(text)) ? Number(text) : text;
}

function branches(property) {
  return property.anyOf || [property];
}

function words(property) {
  return branches(property).filter((branch) => "const" in branch).map((branch) => branch.const);
}

function helpOf(property) {
  const parts = [];
  if (property.description) parts.push(property.description);
  const number = branches(property).find((branch) => branch.type === "integer" || branch.type === "number");
  if (number) parts.push(`${number.type === "integer" ? "A whole number" : "A number"}${rangeOf(number)}.`);
  if (branches(property).some((branch) => branch.type === "null")) parts.push("Empty for None.");
  const byDefault = property.default === null ? "empty" : String(property.default);
  if (property.type !== "boolean") parts.push(`Default: ${byDefault}.`);
  return parts.join(" ");
}

function rangeOf(number) {
  const low = number.minimum ?? number.exclusiveMinimum;
  const high = number.maximum ?? number.exclusiveMaximum;
  const from = low === undefined ? "" : `${number.minimum === undefined ? " over" : " from"} ${low}`;
  const to = high === undefined ? "" : `${number.maximum === undefined ? " to less than" : " to"} ${high}`;
  return from + to;
}
