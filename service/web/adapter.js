// The adapter that is to be repaired: dropped, chosen or named.

import { byId, shown, tell } from "./dom.js";

const WEIGHTS = /\.safetensors$/i;
const CONFIG = /\.json$/i;

export class AdapterSource {
  constructor() {
    this.files = [];
    const drop = byId("drop");
    byId("files").addEventListener("change", () => this.take([...byId("files").files]));
    byId("hub").addEventListener("input", () => { if (byId("hub").value.trim()) this.forget(); });
    byId("forget").addEventListener("click", () => { this.forget(); byId("files").focus(); });
    // The whole page takes drops, so that a near miss does not make the browser leave it for the file.
    for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
    document.addEventListener("dragover", () => drop.classList.add("over"));
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
    document.addEventListener("drop", (event) => {
      drop.classList.remove("over");
      if (!drop.closest("section").hidden && event.dataTransfer.files.length) this.take([...event.dataTransfer.files]);
    });
  }

  // Weights and config may come one after the other; anything else starts anew.
  take(files) {
    const pair = this.files.length === 1 && files.length === 1
      && WEIGHTS.test(this.files[0].name) !== WEIGHTS.test(files[0].name)
      && [this.files[0], files[0]].every((file) => WEIGHTS.test(file.name) || CONFIG.test(file.name));
    this.files = pair ? [...this.files, ...files] : files;
    byId("hub").value = "";
    tell(byId("source-problem"), "");
    byId("files").removeAttribute("aria-invalid");
    this.draw();
  }

  forget() {
    this.files = [];
    byId("files").value = "";
    this.draw();
  }

  draw() {
    byId("chosen").textContent = this.files.map((file) => `${file.name} (${shown(file.size)})`).join(", ");
    byId("drop").querySelector(".chosen").hidden = this.files.length === 0;
  }

  // {weights, config} or {hub}, or {wrong} in words.
  given() {
    const name = byId("hub").value.trim();
    if (this.files.length === 0 && !name) return { wrong: "Choose a file, or give the adapter's ID on the Hub." };
    if (name) return { hub: named(name) };
    const config = this.files.find((file) => CONFIG.test(file.name)) ?? null;
    const rest = this.files.filter((file) => file !== config);
    if (rest.length === 0) return { wrong: "That is the config alone: add adapter_model.safetensors." };
    if (rest.length > 1) return { wrong: "These are several files: choose one archive, or one .safetensors file and its adapter_config.json." };
    return { weights: rest[0], config };
  }
}

// "org/name@revision" as the request spells it.
export function named(text) {
  const [hub, revision] = text.split("@");
  return revision ? { hub_id: hub, revision } : { hub_id: hub };
}
