// The plots as Vega-Lite specifications. Colours are the page's, so that they follow its light and dark.
const plotSpecs = (() => {
  "use strict";

  const SHADES = [0, 1, 2, 3, 4, 5, 6];
  const config = {
    font: "system-ui, sans-serif",
    background: null,
    view: { stroke: null },
    axis: {
      labelColor: "var(--soft)", titleColor: "var(--soft)", titleFontWeight: "normal",
      gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)",
      labelLimit: 160, labelFontSize: 12, titleFontSize: 12,
    },
    header: { labelColor: "var(--ink)", labelFontSize: 12, labelLimit: 170, title: null },
  };
  const header = { labelOrient: "top", labelAnchor: "start" };
  const percents = { format: ".0%", title: null };

  const quantity = (field, axis, scale = {}) => ({ field, type: "quantitative", axis, scale });
  const told = (sides) => [{ field: "told", title: "value" }, ...sides.map((side) => ({ field: side, title: side }))];

  // Wide bars for the first side, narrow ones inside for the second; all the height tells its values.
  function bars(sides, height, axes, scale = {}) {
    const tooltip = told(sides);
    const x = { field: "k", type: "ordinal", axis: axes.x };
    const drawn = (field, fill, band) => ({
      mark: { type: "bar", fill, width: { band } }, encoding: { x, y: quantity(field, axes.y, scale), tooltip },
    });
    const all = {
      mark: { type: "bar", fill: "transparent", width: { band: 1 } },
      encoding: { x, y: { value: 0 }, y2: { value: height }, tooltip },
    };
    const narrow = sides.length > 1 ? [drawn("after", "var(--after)", 0.36)] : [];
    return [all, drawn("before", "var(--before)", 0.88), ...narrow];
  }

  // Small multiples of rows {facet, k, before, after}, `labels` in order.
  function multiples(values, labels, sides, room, oneScale) {
    const columns = Math.max(1, Math.min(labels.length, Math.floor(room / 190)));
    const y = { tickCount: 2, title: null, format: ".3~g", minExtent: 34, maxExtent: 34 };
    return {
      config, columns,
      data: { values },
      facet: { field: "facet", type: "nominal", sort: labels, header },
      bounds: "flush",
      spacing: { row: 36, column: 46 },
      spec: { width: Math.floor((room - 46) / columns) - 46, height: 56, layer: bars(sides, 56, { x: null, y }, { nice: false }) },
      resolve: { scale: { x: "independent", y: oneScale ? "shared" : "independent" } },
    };
  }

  // One module's singular values; as lines on a logarithmic scale, which has no place for bars.
  function detail(values, sides, room, logarithmic) {
    const axes = {
      x: { title: "singular value, largest first", labelAngle: 0, labelOverlap: true },
      y: { title: "σ", format: ".3~g" },
    };
    const line = (field, color) => ({
      transform: [{ filter: { field, gt: 0 } }],
      mark: { type: "line", point: { fill: color, size: 40 }, stroke: color },
      encoding: {
        x: { field: "k", type: "ordinal", axis: axes.x },
        y: quantity(field, axes.y, { type: "log" }),
        tooltip: told(sides),
      },
    });
    const lines = [line("before", "var(--mark)"), line("after", "var(--after)")].slice(0, sides.length);
    const layer = logarithmic ? lines : bars(sides, 220, axes);
    return { config, data: { values }, width: room - 70, height: 220, layer };
  }

  // Cells {row, kind, shade, told, value}; signed: the shades turn about the middle one.
  function heat(values, rows, kinds, label, sides, room, signed) {
    const range = SHADES.map((shade) => `var(--${signed ? "turn" : "heat"}-${shade})`);
    const bare = { domain: false, ticks: false };
    return {
      config,
      data: { values },
      width: { step: Math.max(14, Math.min(96, Math.floor((room - 110) / kinds.length))) },
      height: { step: rows.length > 40 ? 12 : 18 },
      mark: { type: "rect", stroke: "var(--page)", strokeWidth: 1 },
      encoding: {
        x: {
          field: "kind", type: "nominal", scale: { domain: kinds },
          axis: { ...bare, orient: "top", labelAngle: -35, title: null, labelLimit: 150 },
        },
        y: {
          field: "row", type: "nominal", scale: { domain: rows },
          axis: { ...bare, title: "layer", labelOverlap: true },
        },
        fill: { field: "shade", type: "ordinal", scale: { domain: SHADES, range }, legend: null },
        tooltip: [
          { field: "told", title: "module" }, { field: "value", title: label },
          ...sides.map((side) => ({ field: side, title: side })),
        ],
      },
    };
  }

  // Shares {variant, group, what, rate, low, high, words, shown} with their intervals, a panel each kind.
  function behaviour(values, room) {
    const whats = [...new Set(values.map((value) => value.what))];
    const variants = [...new Set(values.map((value) => value.variant))];
    const columns = room > 760 ? whats.length : 1;
    const x = (field) => quantity(field, { ...percents, tickCount: 5 }, { domain: [0, 1] });
    const y = { field: "variant", type: "nominal", scale: { domain: variants }, axis: { title: null } };
    const scale = { domain: ["before", "after", "control"], range: ["var(--mark)", "var(--after)", "var(--off)"] };
    const color = { field: "group", type: "nominal", scale, legend: null };
    const tooltip = [{ field: "words", title: "adapter" }, { field: "shown", title: "share, 95% interval" }];
    return {
      config, columns,
      data: { values },
      facet: { field: "what", type: "nominal", sort: whats, header },
      spec: {
        width: Math.floor((room - 90) / columns) - 36,
        height: { step: 24 },
        layer: [
          {
            mark: { type: "rule", strokeWidth: 2 },
            encoding: { x: x("low"), x2: { field: "high" }, y, stroke: color, tooltip },
          },
          {
            mark: { type: "point", filled: true, size: 70, opacity: 1 },
            encoding: { x: x("rate"), y, fill: color, tooltip },
          },
        ],
      },
    };
  }

  // Candidates {setting, what, chosen, rate, low, high, shown}, and the least that was allowed.
  function calibration(values, floor, room) {
    const settings = [...new Set(values.map((value) => value.setting))];
    const whats = [...new Set(values.map((value) => value.what))];
    const letters = settings.length * Math.max(...settings.map((setting) => setting.length + 2));
    const angle = 7 * letters > room - 70 ? -35 : 0;
    const title = "setting, from the strongest repair to the mildest";
    const x = { field: "setting", type: "nominal", scale: { domain: settings }, axis: { title, labelAngle: angle } };
    const y = (field) => quantity(field, percents, { zero: false });
    const range = whats.map((what) => (what === "agreement" ? "var(--off)" : "var(--after)"));
    const color = { field: "what", type: "nominal", scale: { domain: whats, range }, legend: null };
    const tooltip = [
      { field: "setting" }, { field: "what", title: "measured" }, { field: "shown", title: "share, 95% interval" },
    ];
    const size = { condition: { test: { field: "chosen", equal: true }, value: 220 }, value: 45 };
    const least = {
      data: { values: [{ floor }] },
      mark: { type: "rule", strokeDash: [4, 3], stroke: "var(--soft)" },
      encoding: { y: y("floor") },
    };
    // Side by side, so that no interval hides another.
    const measured = (what, nth) => {
      const xOffset = 10 * (nth - (whats.length - 1) / 2);
      return {
        transform: [{ filter: { field: "what", equal: what } }],
        layer: [
          { mark: { type: "line", opacity: 0.5, xOffset }, encoding: { x, y: y("rate"), stroke: color } },
          {
            mark: { type: "rule", strokeWidth: 2, xOffset },
            encoding: { x, y: y("low"), y2: { field: "high" }, stroke: color, tooltip },
          },
          {
            mark: { type: "point", filled: true, opacity: 1, xOffset },
            encoding: { x, y: y("rate"), fill: color, size, tooltip },
          },
        ],
      };
    };
    return {
      config,
      data: { values },
      width: room - 70,
      height: 200,
      layer: [...whats.map(measured), ...(floor === null ? [] : [least])],
    };
  }

  return { SHADES, multiples, detail, heat, behaviour, calibration };
})();
