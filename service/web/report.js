// What the report says first, in its own words; the whole of it is a page of its own.

import { resultLink } from "./api.js";
import { el } from "./dom.js";

export function reportSection(jobId, report) {
  const link = resultLink(el("a", { target: "_blank", rel: "noopener" }, "Read the whole report"), jobId, "report");
  return el("section", { "aria-labelledby": "report-title" },
    el("h2", { id: "report-title" }, "Report"),
    ...report.summary.map((sentence) => el("p", {}, sentence)),
    report.caveats.length ? el("details", {}, el("summary", {}, "Before you lean on these numbers"),
      el("ul", {}, ...report.caveats.map((sentence) => el("li", {}, sentence)))) : null,
    el("p", {}, link));
}
