// Puts live plots in the place of the page's still pictures, from the JSON beside them. Where this does not run
// the pictures stay.
(() => {
  "use strict";

  const PAGE = 24; // modules drawn at once
  const MOST_BARS = 64; // of more singular values, evenly spaced ones are drawn
  const data = JSON.parse(document.getElementById("plots").textContent);
  const { layers, kinds } = data.modules;
  const modules = data.modules.each.map((each, index) => {
    const [layer, kind] = Array.isArray(each) ? [layers[each[0]], kinds[each[1]]] : [null, null];
    const name = layer === null ? each : `${layer}.${kind}`;
    return { name, layer, kind, sigma: data.sigma.map((side) => side[index]) };
  });
  const [first, second] = data.sides;
  const at = (id) => document.getElementById(id);
  const names = shortened(modules.map((module) => module.name));
  const placed = [...modules.keys()].filter((index) => modules[index].layer !== null);
  const layerNames = shortened(layers);
  const parts = [];
  const drawn = new Map();
  let chosen = 0;
  let page = 0;

  // Names without the parts that all of them begin with.
  function shortened(all) {
    const split = all.map((name) => name.split("."));
    let shared = 0;
    while (all.length > 1 && split.every((each) => each.length > shared + 1 && each[shared] === split[0][shared])) {
      shared++;
    }
    return split.map((each) => each.slice(shared).join("."));
  }

  // A module's layer and kind, in as many letters as stand above a small plot; or the end of its name.
  function label(index) {
    const { layer, kind } = modules[index];
    const known = layer === null ? "" : `${layerNames[layers.indexOf(layer)]} `;
    return known + tail(layer === null ? names[index] : kind, Math.max(8, 26 - known.length));
  }

  const tail = (text, most) => (text.length > most ? `…${text.slice(1 - most)}` : text);
  const number = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(4))));
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  const room = (place) => Math.max(240, place.parentElement.clientWidth);

  function evenly(count) {
    const spaced = (index) => Math.round((index * (count - 1)) / (MOST_BARS - 1));
    return count <= MOST_BARS ? [...Array(count).keys()] : [...Array(MOST_BARS).keys()].map(spaced);
  }

  function made(tag, text, properties = {}) {
    const element = Object.assign(document.createElement(tag), properties);
    element.textContent = text;
    return element;
  }

  // Expressions are interpreted, not compiled: the page's policy lets no text become code. What is drawn is one
  // picture to a screen reader; its parts are in the page's tables.
  async function draw(place, spec) {
    const inside = made("div", "");
    inside.setAttribute("aria-hidden", "true");
    drawn.get(place)?.finalize();
    place.replaceChildren(inside);
    const options = { ast: true, renderer: "svg", actions: false, tooltip: { theme: "page" } };
    drawn.set(place, await vegaEmbed(inside, spec, options));
    return drawn.get(place);
  }

  // A row a singular value, with both sides in it.
  function rows(index) {
    const [before, after] = modules[index].sigma;
    return evenly(Math.max(before.length, after ? after.length : 0)).map((k) => ({
      module: index,
      k: k + 1,
      before: before[k] ?? null,
      after: after?.[k] ?? null,
      told: `${names[index]}, σ${k + 1}`,
      [first]: number(before[k]),
      ...(second && { [second]: number(after?.[k]) }),
    }));
  }

  function order() {
    const by = {
      model: () => 0,
      sigma: (index) => -(modules[index].sigma[0][0] ?? 0),
      change: (index) => -(data.measures[0].values[0][index] ?? 0),
    }[at("spectra-order").value];
    const wanted = at("spectra-find").value.trim().toLowerCase();
    const found = [...modules.keys()].filter((index) => modules[index].name.toLowerCase().includes(wanted));
    return found.sort((a, b) => by(a) - by(b));
  }

  async function spectra() {
    const found = order();
    page = Math.max(0, Math.min(page, Math.ceil(found.length / PAGE) - 1));
    const shown = found.slice(page * PAGE, (page + 1) * PAGE);
    at("spectra-where").textContent = found.length
      ? `${page * PAGE + 1} to ${page * PAGE + shown.length} of ${found.length} modules`
      : "No module's name holds this.";
    at("spectra-back").disabled = page === 0;
    at("spectra-on").disabled = (page + 1) * PAGE >= found.length;
    const place = at("spectra-all");
    if (!shown.length) return place.replaceChildren();
    const labels = [];
    for (const text of shown.map(label)) {
      const before = labels.filter((one) => one === text || one.startsWith(`${text} (`)).length;
      labels.push(before ? `${text} (${before + 1})` : text);
    }
    const values = shown.flatMap((index, nth) => rows(index).map((row) => ({ ...row, facet: labels[nth] })));
    const oneScale = at("spectra-same").checked;
    const { view } = await draw(place, plotSpecs.multiples(values, labels, data.sides, room(place), oneScale));
    view.addEventListener("click", (_, item) => {
      if (item?.datum?.module !== undefined) choose(item.datum.module);
    });
  }

  async function detail() {
    const place = at("detail-plot");
    at("detail-name").textContent = modules[chosen].name;
    const cells = modules[chosen].sigma.map((sigma) => sigma.slice(0, MOST_BARS).map(number).join(", "));
    const lines = data.measures.map(({ label, values }) => [label, ...values.map((side) => number(side[chosen]))]);
    at("detail-numbers").replaceChildren(...[["σ, largest first", ...cells], ...lines].map(line));
    await draw(place, plotSpecs.detail(rows(chosen), data.sides, room(place), at("detail-log").checked));
  }

  function line([name, ...cells]) {
    const row = made("tr", "");
    const known = data.sides.map((_, side) => made("td", cells[side] ?? ""));
    row.append(made("th", name, { scope: "row" }), ...known);
    return row;
  }

  function choose(index) {
    chosen = index;
    at("detail-module").value = String(index);
    return detail();
  }

  // What the map shows of a module: a side's number, or how it changed; of shares the difference, else the ratio.
  function shownValue(measure, look, index) {
    const [before, after] = [measure.values[0][index], measure.values[1]?.[index] ?? null];
    if (look !== "change") return look === "after" ? after : before;
    if (before === null || after === null) return null;
    return measure.share ? after - before : before ? after / before - 1 : null;
  }

  async function heat() {
    const place = at("heat-plot");
    const measure = data.measures[Number(at("heat-measure").value)];
    const sides = data.sides.slice(0, measure.values.length);
    at("heat-look").parentElement.hidden = sides.length < 2;
    const look = sides.length < 2 ? "before" : at("heat-look").value;
    const signed = look === "change";
    const cells = placed.map((index) => ({ index, shown: shownValue(measure, look, index) }));
    const known = cells.filter((cell) => cell.shown !== null);
    const size = Math.max(0, ...known.map((cell) => Math.abs(cell.shown)));
    const written = (value) => (signed && !measure.share ? percent(value) : number(value));
    const values = known.map(({ index, shown }) => {
      const { layer, kind, name } = modules[index];
      const share = size ? shown / size : 0;
      return {
        index, kind, told: name, value: written(shown),
        row: layerNames[layers.indexOf(layer)],
        shade: signed ? Math.round(share * 3) + 3 : Math.max(0, Math.min(6, Math.floor(share * 7))),
        ...Object.fromEntries(sides.map((side, nth) => [side, number(measure.values[nth][index])])),
      };
    });
    const told = `${measure.label}${sides.length > 1 ? `, ${at("heat-look").selectedOptions[0].text}` : ""}`;
    const label = signed ? "change" : measure.label;
    place.setAttribute("aria-label", `${told}: ${layers.length} layers by ${kinds.length} kinds, up to ${written(size)}`);
    const colour = (shade) => made("span", "", { className: `key ${signed ? "turn" : "heat"}-${shade}` });
    const ends = signed ? [`-${written(size)}`, `+${written(size)}`] : ["0", written(size)];
    at("heat-key").replaceChildren(ends[0], ...plotSpecs.SHADES.map(colour), ends[1]);
    const { view } = await draw(place, plotSpecs.heat(values, layerNames, kinds, label, sides, room(place), signed));
    view.addEventListener("click", (_, item) => {
      if (item?.datum?.index !== undefined) choose(item.datum.index);
    });
  }

  const withInterval = (value) => ({
    ...value,
    shown: `${value.count} of ${value.n}: ${percent(value.rate)} (${percent(value.low)} to ${percent(value.high)})`,
  });

  function behaviour() {
    const place = at("behaviour-plot");
    const group = (variant) => (["before", "after"].includes(variant) ? variant : "control");
    const values = data.behaviour.map((value) => ({ ...withInterval(value), group: group(value.variant) }));
    return draw(place, plotSpecs.behaviour(values, room(place)));
  }

  function calibration(nth) {
    const place = at(`calibration-plot-${nth + 1}`);
    const { points, floor } = data.calibration[nth];
    return draw(place, plotSpecs.calibration(points.map(withInterval), floor, room(place)));
  }

  // Shows a part of the page and draws it; then its still picture goes.
  async function live(id, ...drawers) {
    const place = at(id);
    if (!place) return;
    place.hidden = false;
    try {
      for (const drawer of drawers) await drawer();
    } catch (error) {
      place.hidden = true;
      throw error;
    }
    for (const still of document.querySelectorAll(`[data-still="${id}"]`)) still.hidden = true;
    parts.push(...drawers);
  }

  function fill(select, texts) {
    select.replaceChildren(...texts.map((text, index) => made("option", text, { value: String(index) })));
  }

  function wireSpectra() {
    const again = () => {
      page = 0;
      return spectra();
    };
    const turn = (by) => () => {
      page += by;
      return spectra();
    };
    const step = (by) => () => choose((chosen + by + modules.length) % modules.length);
    fill(at("detail-module"), modules.map((module) => module.name));
    at("spectra-order").addEventListener("change", again);
    at("spectra-find").addEventListener("input", again);
    at("spectra-same").addEventListener("change", spectra);
    at("spectra-back").addEventListener("click", turn(-1));
    at("spectra-on").addEventListener("click", turn(1));
    at("detail-module").addEventListener("change", (event) => choose(Number(event.target.value)));
    at("detail-log").addEventListener("change", detail);
    at("detail-back").addEventListener("click", step(-1));
    at("detail-on").addEventListener("click", step(1));
    chosen = order()[0];
  }

  function wireHeat() {
    fill(at("heat-measure"), data.measures.map((measure) => measure.label));
    for (const id of ["heat-measure", "heat-look"]) at(id).addEventListener("change", heat);
  }

  // Plots are as wide as the page was when they were drawn.
  function followWidth() {
    let drawnFor = document.body.clientWidth;
    let waiting = 0;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        if (Math.abs(document.body.clientWidth - drawnFor) < 16) return;
        drawnFor = document.body.clientWidth;
        for (const drawer of parts) drawer();
      }, 150);
    });
  }

  async function start() {
    if (at("heat")) wireHeat();
    if (at("spectra")) wireSpectra();
    followWidth();
    await live("behaviour-live", behaviour);
    for (const nth of data.calibration.keys()) await live(`calibration-live-${nth + 1}`, () => calibration(nth));
    await live("heat", heat);
    await live("spectra", spectra, () => choose(chosen));
    document.documentElement.dataset.drawn = "yes";
  }

  start();
})();
