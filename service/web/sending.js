// Sending a request, however long it takes: bytes, percent, and a way to stop.

import { send } from "./api.js";
import { byId, shown } from "./dom.js";

export class Sending {
  constructor() {
    this.stopping = null;
    byId("stop-sending").addEventListener("click", () => this.stopping?.abort());
  }

  // The answer. Throws what send throws.
  async post(path, body, headers) {
    this.stopping = new AbortController();
    byId("submit").disabled = true;
    byId("sending").hidden = false;
    this.said = "";
    this.draw({ sent: 0, total: 0 });
    try {
      return await send(path, body, { headers, signal: this.stopping.signal, onSent: (progress) => this.draw(progress) });
    } finally {
      byId("submit").disabled = false;
      byId("sending").hidden = true;
    }
  }

  draw({ sent, total }) {
    const bar = byId("sending-bar");
    const over = total > 0 && sent >= total;
    if (total && !over) bar.value = sent / total;
    else bar.removeAttribute("value");
    const percent = total ? Math.floor((100 * sent) / total) : 0;
    byId("sending-doing").textContent = over ? "Sent. The adapter is being checked…"
      : total ? `Sending: ${shown(sent)} of ${shown(total)} (${percent}%)` : "Sending…";
    // Read aloud by quarter; every step would drown the reader.
    const said = over ? "Sent. The adapter is being checked." : `Sending, ${Math.floor(percent / 25) * 25} percent`;
    if (said !== this.said) byId("sending-said").textContent = this.said = said;
  }
}
