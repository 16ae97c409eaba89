// Publishing the result on the Hub: fields that are there where the service can do it.

import { byId } from "./dom.js";

// Show what goes for this service, as GET /methods tells it.
export function offerPublishing({ own_token: own, takes_token: takes }) {
  byId("publishing").hidden = !own && !takes;
  byId("hub-token-field").hidden = !takes;
  byId("hub-token-help").textContent = own
    ? "Empty: the service's own account publishes. A token of yours is kept encrypted and deleted when the job ends."
    : "With the right to write there. It is kept encrypted and deleted when the job ends.";
  byId("hub-token").required = takes && !own;
}

// Add to the request what is asked for. Returns {pointer, detail} of what is wrong, or null.
export function addPublishing(request) {
  if (byId("publishing").hidden) return null;
  const repo = byId("publish").value.trim();
  const token = byId("hub-token").value.trim();
  if (token) request.hub_token = token;
  if (!repo) return null;
  if (!token && byId("hub-token").required) {
    return { pointer: "/hub_token", detail: "Give a Hub token: this service has none of its own." };
  }
  request.publish = { repo_id: repo, private: byId("publish-private").checked, create_pr: byId("publish-pr").checked };
  return null;
}

// A token is for one request.
export function forgetToken() {
  byId("hub-token").value = "";
}
