// The interactive part of a report: one figure to explore, an overview of all settings, and tables that can be sorted.
// Everything it shows comes from the JSON of #data. Names of runs and axes are data: they become text, never markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const DASHES = ["solid", "dot", "dashdot"];
  const SYMBOLS = ["square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"];
  const SIGNS = { circle: "●", square: "■", "triangle-up": "▲", diamond: "◆", "triangle-down": "▼", cross: "✚", x: "✖", star: "★" };
  const LEGEND = 8; // coefficients with markers of their own; of more there is a bar of colours, as in the pictures
  const CHIPS = 24; // coefficients that can be switched one by one; of more there is a range
  const RESAMPLES = 400;
  const BEST = 40; // settings of all tables together whose curves are drawn
  const ROWS = 200; // settings that the overview lists
  const BINS = 8; // values of an axis of the heat map; more numbers are put together
  const MINUS = "\u2212", DASH = "\u2013";

  // ---- small helpers

  const show = (x) => (x === null || !Number.isFinite(x) ? DASH : String(Number(x.toPrecision(4))).replace("-", MINUS));
  const escaped = (text) => String(text).replace(/[&<>]/g, (sign) => `&#${sign.charCodeAt(0)};`); // for plotly's labels
  const unique = (values) => [...new Set(values)];
  const range = (count) => Array.from({ length: count }, (_, place) => place);
  const finite = (values) => values.filter((x) => x !== null && Number.isFinite(x));

  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function fill(select, options) { // options: [value, label]
    select.replaceChildren(...options.map(([value, label]) => element("option", label, { value })));
    if (options.length < 2) select.closest("label").hidden = true;
  }

  const decoded = new Map();
  function curves(quantity) { // values of all members with curves: `data.points` of each
    if (!decoded.has(quantity)) {
      const bytes = atob(data.curves[quantity]);
      const array = new Uint8Array(bytes.length);
      for (let place = 0; place < bytes.length; place++) array[place] = bytes.charCodeAt(place);
      decoded.set(quantity, new Float32Array(array.buffer));
    }
    return decoded.get(quantity);
  }

  function iqm(values) { // the mean of the middle half, as dr3_ray.stats.iqm
    const sorted = Float64Array.from(values).sort();
    const cut = Math.floor(sorted.length / 4);
    const kept = sorted.subarray(cut, sorted.length - cut);
    return kept.reduce((sum, x) => sum + x, 0) / kept.length;
  }

  function interval(values) { // of the interquartile mean: 95% percentiles over resampled runs, always the same ones
    if (values.length < 2) return [NaN, NaN];
    let state = 1;
    const draw = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 4294967296;
    const drawn = Float64Array.from(range(RESAMPLES), () => iqm(values.map(() => values[Math.floor(draw() * values.length)])));
    drawn.sort();
    const at = (share) => {
      const place = share * (RESAMPLES - 1), low = Math.floor(place);
      return drawn[low] + (place - low) * (drawn[Math.min(low + 1, RESAMPLES - 1)] - drawn[low]);
    };
    return [at(0.025), at(0.975)];
  }

  // ---- how coefficients look

  const coefficients = data.coefficients; // ascending: {value, css}
  const others = coefficients.filter((each) => each.value !== 0);
  const few = coefficients.length <= LEGEND;
  const hidden = new Set(); // of coefficients, those switched off
  function look(value) {
    const place = coefficients.findIndex((each) => each.value === value);
    const other = others.indexOf(coefficients[place]);
    const base = value === 0;
    return {
      color: css(coefficients[place].css),
      dash: base ? "dash" : few ? DASHES[other % DASHES.length] : "solid",
      symbol: base || !few ? "circle" : SYMBOLS[other % SYMBOLS.length],
    };
  }

  function colourBar() { // an invisible trace with a bar: one band a coefficient
    const count = coefficients.length;
    const bands = coefficients.flatMap((each, place) => [place, place + 1].map((end) => [end / count, css(each.css)]));
    const named = unique(range(6).map((place) => Math.round((place * (count - 1)) / 5)));
    const colorbar = {
      title: { text: "c₀" }, thickness: 12, outlinewidth: 0,
      tickvals: named, ticktext: named.map((place) => show(coefficients[place].value)),
    };
    const marker = { color: [0], cmin: -0.5, cmax: count - 0.5, colorscale: bands, showscale: true, colorbar, opacity: 0 };
    return { x: [null], y: [null], mode: "markers", marker, showlegend: false, hoverinfo: "skip" };
  }

  // ---- plotly

  const CONFIG = {
    responsive: true, displaylogo: false, showEditInChartStudio: false, showSendToCloud: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  function plot(target, traces, x, y, more = {}, config = CONFIG) {
    const axis = { gridcolor: css("--grid"), zerolinecolor: css("--grid"), linecolor: css("--muted"), automargin: true };
    const font = { family: "system-ui, sans-serif", size: 13, color: css("--ink") };
    const layout = {
      font, paper_bgcolor: css("--paper"), plot_bgcolor: css("--paper"), hovermode: "closest", showlegend: false,
      margin: { l: 56, r: 12, t: 28, b: 48 }, xaxis: { ...axis, ...x }, yaxis: { ...axis, ...y },
      hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--muted"), font: { color: css("--ink") }, align: "left" },
      ...more,
    };
    return Plotly.react(target, traces, layout, config);
  }

  // ---- the figure

  const view = { of: "curves", hasScale: null };
  const tables = data.tables;
  const datasets = unique(tables.map((table) => table.dataset));
  const together = datasets.filter((name) => tables.filter((table) => table.dataset === name).length > 1);

  function chosenTables() {
    const [kind, which] = [$("table").value.slice(0, 1), Number($("table").value.slice(1))];
    return kind === "t" ? [tables[which]] : tables.filter((table) => table.dataset === datasets[which]);
  }

  const membersOf = (table) => range(table.count).map((place) => table.start + place);
  const visible = (member) => !hidden.has(data.members.coefficient[member]);
  const nameOf = (table) => data.axes.map((axis, place) => `${axis} ${table.values[place]}`).slice(1).join(", ");

  function about(member, table) {
    const { member: id, seed, status, coefficient } = data.members;
    const further = data.axes.length > 1 ? [nameOf(table)] : [];
    return [`c₀ = ${show(coefficient[member])}, seed ${seed[member]}`, ...further, `${id[member]}, ${status[member]}`];
  }
  const hover = (lines) => lines.map(escaped).join("<br>");

  function drawCurves() {
    const quantity = $("quantity").value, label = data.quantities.find((each) => each.name === quantity).label;
    const values = curves(quantity), wanted = chosenTables();
    const groups = []; // of runs of one setting
    for (const table of wanted.filter((each) => each.row !== null)) {
      for (const { value } of coefficients.filter((each) => !hidden.has(each.value))) {
        const own = membersOf(table).filter((member) => data.members.coefficient[member] === value && data.members.drawn[member]);
        if (own.length) groups.push({ table, value, own });
      }
    }
    if (wanted.length > 1) groups.sort((a, b) => scoreOf(b) - scoreOf(a)).splice(BEST);
    const traces = [];
    for (const { table, value, own } of groups) {
      const style = look(value), name = `c₀ = ${show(value)}`, base = value === 0;
      const line = (member) => {
        const from = (member - table.start + table.row) * data.points;
        return Array.from(values.subarray(from, from + table.steps.length));
      };
      const lines = new Map(own.map((member) => [member, line(member)]));
      const lost = own.filter((member) => data.members.status[member] === "diverged");
      const well = own.filter((member) => !lost.includes(member));
      const at = table.steps.map((step, place) => [step, finite(well.map((member) => lines.get(member)[place])), place]);
      const band = at.filter(([, found]) => found.length).map(([step, found]) => [step, iqm(found), ...(wanted.length > 1 ? [NaN, NaN] : interval(found)), found.length]);
      const sure = band.filter((each) => Number.isFinite(each[2]));
      if (sure.length > 1) {
        const x = sure.map((each) => each[0]);
        traces.push({ x: [...x, ...x.slice().reverse()], y: [...sure.map((each) => each[3]), ...sure.map((each) => each[2]).reverse()],
          fill: "toself", fillcolor: style.color + "26", line: { width: 0 }, mode: "lines", hoverinfo: "skip" });
      }
      const singles = $("singles").checked ? own : lost;
      for (const member of singles) {
        const points = table.steps.map((step, place) => [step, lines.get(member)[place]]).filter(([, y]) => Number.isFinite(y));
        const ended = lost.includes(member);
        traces.push({ x: points.map(([x]) => x), y: points.map(([, y]) => y), mode: ended ? "lines+markers" : "lines", line: { color: style.color, width: 0.8 },
          opacity: 0.65, marker: { symbol: "x-thin-open", color: style.color, size: points.map((_, place) => (place === points.length - 1 ? 8 : 0)) },
          hoverinfo: "text", text: points.map(([x, y]) => hover([`${show(y)} at ${x.toLocaleString("en")}`, ...about(member, table)])) });
      }
      const text = band.map(([x, y, low, high, n]) => hover([`${name}: ${show(y)}` + (Number.isFinite(low) ? ` [${show(low)}, ${show(high)}]` : ""),
        `at ${x.toLocaleString("en")} updates, ${n} run${n > 1 ? "s" : ""}`, ...(wanted.length > 1 ? [nameOf(table)] : [])]));
      const every = Math.max(1, Math.ceil(band.length / 8));
      const size = band.map((_, place) => (few && place % every === 0 ? 9 : 0));
      traces.push({ x: band.map((each) => each[0]), y: band.map((each) => each[1]), mode: "lines+markers", name,
        line: { color: style.color, dash: style.dash, width: base ? 2.4 : 2 }, marker: { symbol: style.symbol, size, color: style.color }, hoverinfo: "text", text });
    }
    if (!few) traces.push(colourBar());
    const type = $("scale").value;
    plot($("plot"), traces, { title: { text: "gradient updates" } }, { title: { text: escaped(label) }, type });
    tell(groups.length ? (wanted.length > 1 ? `The ${groups.length} settings with the highest final returns of all tables, interquartile means over runs.`
      : "Interquartile mean and 95% interval over runs.") : "Nothing to draw: no curve of this choice.");
  }

  const scoreOf = ({ table, value }) => {
    const place = range(data.settings.table.length).find((at) => tables[data.settings.table[at]] === table && data.settings.coefficient[at] === value);
    const score = data.settings.values[data.measures[0].key][place];
    return score === null || score === undefined ? -Infinity : score;
  };

  function drawByCoefficient() {
    const variable = data.variables[$("variable").value], traces = [], shown = coefficients.filter((each) => !hidden.has(each.value));
    const means = [];
    shown.forEach(({ value }, x) => {
      const style = look(value), own = [];
      for (const table of chosenTables()) for (const member of membersOf(table)) {
        if (data.members.coefficient[member] === value && data.members.counted[member] && variable.values[member] !== null) own.push([member, table]);
      }
      if (!own.length) return;
      const values = own.map(([member]) => variable.values[member]), [low, high] = interval(values), middle = iqm(values);
      means.push([x, middle]);
      traces.push({ x: own.map((_, place) => x + 0.18 + 0.14 * (place % 2)), y: values, mode: "markers", marker: { color: style.color, size: 5, opacity: 0.7 },
        hoverinfo: "text", text: own.map(([member, table], place) => hover([show(values[place]), ...about(member, table)])) });
      const known = Number.isFinite(low);
      traces.push({ x: [x], y: [middle], mode: "markers", marker: { color: style.color, size: 10, symbol: style.symbol },
        error_y: { type: "data", symmetric: false, array: [known ? high - middle : 0], arrayminus: [known ? middle - low : 0], color: style.color, thickness: 2 },
        hoverinfo: "text", text: [hover([`c₀ = ${show(value)}: ${show(middle)}` + (known ? ` [${show(low)}, ${show(high)}]` : ""), `${values.length} runs`])] });
    });
    traces.unshift({ x: means.map(([x]) => x), y: means.map(([, y]) => y), mode: "lines", line: { color: css("--muted"), width: 1 }, hoverinfo: "skip" });
    const named = shown.length <= 12 ? range(shown.length) : unique(range(12).map((place) => Math.round((place * (shown.length - 1)) / 11)));
    const ticks = { tickvals: named, ticktext: named.map((place) => show(shown[place].value)), title: { text: "DR3 coefficient c₀" } };
    plot($("plot"), traces, ticks, { title: { text: escaped(variable.label) }, type: $("scale").value });
    tell("Interquartile mean and 95% interval; beside it each run.");
  }

  function drawRelation() {
    const [across, up] = [data.variables[$("across").value], data.variables[$("up").value]];
    const byCoefficient = new Map(), ends = [];
    for (const table of chosenTables()) for (const member of membersOf(table).filter(visible)) {
      const [x, y] = [across.values[member], up.values[member]];
      if (x === null || y === null) continue;
      const value = data.members.coefficient[member];
      if (!byCoefficient.has(value)) byCoefficient.set(value, []);
      byCoefficient.get(value).push([x, y, hover([`${show(x)}, ${show(y)}`, ...about(member, table)])]);
      ends.push(x, y);
    }
    const traces = [...byCoefficient].map(([value, points]) => {
      const style = look(value);
      return { x: points.map((each) => each[0]), y: points.map((each) => each[1]), text: points.map((each) => each[2]), mode: "markers", hoverinfo: "text",
        marker: { color: style.color, symbol: style.symbol, size: 8, opacity: 0.85 } };
    });
    const same = across.quantity === up.quantity && ends.length;
    if (same) {
      const line = [Math.min(...ends), Math.max(...ends)];
      traces.unshift({ x: line, y: line, mode: "lines", line: { color: css("--muted"), width: 1, dash: "dot" }, hoverinfo: "skip" });
    }
    if (!few) traces.push(colourBar());
    const type = $("scale").value;
    plot($("plot"), traces, { title: { text: escaped(across.label) }, type }, { title: { text: escaped(up.label) }, type });
    tell(!ends.length ? "Nothing to draw: no run has both." : same ? "A run that lies off the dotted line changed after its best evaluation." : "Each point is a run.");
  }

  function drawSpectra() {
    const traces = data.spectra.filter((each) => !hidden.has(each.coefficient)).map((each) => {
      const style = look(each.coefficient), x = each.values.map((_, place) => place + 1);
      const text = each.values.map((value, place) => hover([`singular value ${place + 1}: ${show(value)}`, `c₀ = ${show(each.coefficient)}, seed ${each.seed}`, each.member]));
      const marker = { symbol: style.symbol, size: 6, color: style.color };
      return { x, y: each.values, text, hoverinfo: "text", mode: "lines+markers", line: { color: style.color, dash: style.dash, width: 1.5 }, marker, name: each.member };
    });
    if (!few) traces.push(colourBar());
    plot($("plot"), traces, { title: { text: "place" } }, { title: { text: "singular values of the features over √rows" }, type: $("scale").value });
    tell("Of the members in diagnoses/, on rows that they were trained on.");
  }

  const tell = (text) => { $("caption").textContent = text; };
  const VIEWS = { curves: drawCurves, coefficient: drawByCoefficient, relation: drawRelation, spectra: drawSpectra };

  function automatic() { // a logarithmic axis where one curve would press another flat, never for returns
    if (view.of === "relation") return "linear";
    if (view.of === "spectra") return "log";
    const key = view.of === "curves" ? $("quantity").value : data.variables[$("variable").value].quantity;
    const final = data.variables.find((each) => each.quantity === key);
    if (key === data.quantities[0].name || !final) return "linear";
    const ends = finite(chosenTables().flatMap((table) => membersOf(table).map((member) => final.values[member])));
    return ends.length && Math.min(...ends) > 0 && Math.max(...ends) > 20 * Math.min(...ends) ? "log" : "linear";
  }

  function draw(rescale = false) {
    if (rescale) $("scale").value = automatic();
    for (const part of document.querySelectorAll("[data-view]")) {
      part.hidden = !part.dataset.view.split(" ").includes(view.of) || (part.tagName === "LABEL" && part.querySelectorAll("option").length === 1);
    }
    VIEWS[view.of]();
  }

  function chips() {
    const present = coefficients.length > 1 ? coefficients : [];
    if (coefficients.length > CHIPS) {
      const ends = ["from", "to"].map((name, end) => {
        const label = element("label", `c₀ ${name} `), select = element("select", undefined, { id: `c-${name}` });
        label.append(select);
        fill(select, coefficients.map((each, place) => [place, show(each.value)]));
        select.value = end ? coefficients.length - 1 : 0;
        select.addEventListener("change", () => {
          const [low, high] = ["c-from", "c-to"].map((id) => Number($(id).value));
          hidden.clear();
          coefficients.forEach((each, place) => { if (place < low || place > high) hidden.add(each.value); });
          draw();
        });
        return label;
      });
      return $("chips").replaceChildren(...ends);
    }
    $("chips").replaceChildren(...present.map(({ value, css: variable }) => {
      const chip = element("button", undefined, { type: "button", "aria-pressed": "true", "data-coefficient": value });
      const key = element("span", undefined, { class: value === 0 ? "key base" : "key" });
      key.style.borderColor = `var(${variable})`;
      const sign = element("span", few ? SIGNS[look(value).symbol] : "");
      sign.style.color = `var(${variable})`;
      chip.append(key, sign, ` c₀ = ${show(value)}`);
      chip.addEventListener("click", () => {
        if (!hidden.delete(value)) hidden.add(value);
        chip.setAttribute("aria-pressed", String(!hidden.has(value)));
        draw();
      });
      return chip;
    }));
  }

  function explore() {
    fill($("table"), [...tables.map((table, place) => [`t${place}`, table.heading]), ...together.map((name) => [`a${datasets.indexOf(name)}`, `all tables on ${data.labels[name]}`])]);
    fill($("quantity"), data.quantities.filter((each) => data.curves[each.name]).map((each) => [each.name, each.label]));
    const variables = data.variables.map((each, place) => [place, each.label]);
    for (const name of ["variable", "across", "up"]) fill($(name), variables);
    const at = (key) => data.variables.findIndex((each) => each.key === key);
    const presets = data.relations.filter((each) => at(each.x) >= 0 && at(each.y) >= 0);
    fill($("relation"), [...presets.map((each, place) => [place, each.label]), ["own", "two of your choice"]]);
    const preset = () => {
      const chosen = presets[$("relation").value];
      if (chosen) [$("across").value, $("up").value] = [at(chosen.x), at(chosen.y)];
    };
    preset();
    chips();
    document.querySelector("#views button[value=spectra]").hidden = !data.spectra.length;
    for (const button of document.querySelectorAll("#views button")) {
      button.addEventListener("click", () => {
        view.of = button.value;
        for (const each of document.querySelectorAll("#views button")) each.setAttribute("aria-pressed", String(each === button));
        draw(true);
      });
    }
    $("relation").addEventListener("change", () => { preset(); draw(true); });
    for (const name of ["across", "up"]) $(name).addEventListener("change", () => { $("relation").value = "own"; draw(); });
    for (const name of ["table", "quantity", "variable"]) $(name).addEventListener("change", () => draw(true));
    for (const name of ["scale", "singles"]) $(name).addEventListener("change", () => draw());
    for (const link of document.querySelectorAll("a[data-table]")) {
      link.hidden = false;
      link.addEventListener("click", () => { $("table").value = `t${link.dataset.table}`; draw(true); });
    }
    $("explore").hidden = false;
    for (const link of document.querySelectorAll("a[href='#explore']")) link.parentElement.hidden = false;
    draw(true);
  }

  // ---- the overview of all settings

  const settingsOf = (dataset) => range(data.settings.table.length).filter((at) => tables[data.settings.table[at]].dataset === dataset);
  const axisNames = [...data.axes, "c₀"];
  const axisValue = (at, axis) => (axis === data.axes.length ? data.settings.coefficient[at] : tables[data.settings.table[at]].values[axis]);
  const varying = (settings) => range(axisNames.length).filter((axis) => unique(settings.map((at) => axisValue(at, axis))).length > 1);
  const measured = (key, at) => data.settings.values[key][at];

  function rank() {
    const all = settingsOf($("scope").value), axes = varying(all), words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const score = (at) => measured(data.measures[0].key, at) ?? -Infinity;
    const ordered = all.slice().sort((a, b) => data.settings.late[a] - data.settings.late[b] || score(b) - score(a));
    const text = (at) => axes.map((axis) => `${axisNames[axis]} ${axisNames[axis]}=${axisValue(at, axis)} ${axisValue(at, axis)}`).join(" ").toLowerCase();
    const found = ordered.filter((at) => words.every((word) => text(at).split(" ").some((part) => part.startsWith(word))));
    const head = element("tr");
    head.append(...["place", ...axes.map((axis) => axisNames[axis]), "runs"].map((title) => element("th", title)));
    head.append(...data.measures.map((each) => element("th", each.label.replace(/ (\w+)$/, "\n$1"), { class: "n" })));
    const rows = found.slice(0, ROWS).map((at) => {
      const row = element("tr"), link = element("td"), table = tables[data.settings.table[at]];
      link.append(element("a", ordered.indexOf(at) + 1, { href: `#${table.name}` }), data.settings.mark[at]);
      const cells = axes.map((axis) => element("td", typeof axisValue(at, axis) === "number" ? show(axisValue(at, axis)) : axisValue(at, axis)));
      const values = data.measures.map((each, place) => {
        const cell = element("td", show(measured(each.key, at)), { class: "n" });
        const [low, high] = [data.settings.low[at], data.settings.high[at]];
        if (place === 0 && low !== null) cell.append(" ", element("small", `[${show(low)}, ${show(high)}]`));
        return cell;
      });
      row.append(link, ...cells, element("td", data.settings.runs[at]), ...values);
      return row;
    });
    const table = element("table", undefined, { class: "summary" }), [top, body] = [element("thead"), element("tbody")];
    top.append(head);
    body.append(...rows);
    table.append(top, body);
    sortable(table);
    $("ranked").replaceChildren(table);
    $("count").textContent = `${found.length} of ${all.length} settings` + (found.length > ROWS ? `, the first ${ROWS} are shown` : "");
  }

  function binned(settings, axis) { // the place of each setting on an axis, and what the places are called
    const values = new Map(settings.map((at) => [at, axisValue(at, axis)])), distinct = unique(values.values());
    const numbers = distinct.map(Number);
    if (numbers.some((x) => !Number.isFinite(x))) return { place: (at) => distinct.indexOf(values.get(at)), names: distinct.map(String) };
    numbers.sort((a, b) => a - b);
    if (numbers.length <= 12) return { place: (at) => numbers.indexOf(Number(values.get(at))), names: numbers.map(show) };
    const group = (number) => Math.floor((numbers.indexOf(number) * BINS) / numbers.length);
    const names = range(BINS).map((bin) => {
      const own = numbers.filter((number) => group(number) === bin);
      return `${show(own[0])} … ${show(own[own.length - 1])}`;
    });
    return { place: (at) => group(Number(values.get(at))), names };
  }

  const scale = () => data.scale[dark.matches ? "dark" : "light"];
  const shade = (share) => scale()[Math.min(scale().length - 1, Math.floor(share * scale().length))];
  function inkOn(colour) {
    const [r, g, b] = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
    return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#1b1f27" : "#ffffff";
  }

  function heat() {
    const settings = settingsOf($("scope").value), key = $("heat-measure").value, mean = $("heat-over").value === "mean";
    const measure = data.measures.find((each) => each.key === key), best = measure.better === "less" ? Math.min : Math.max;
    const [across, down] = ["heat-x", "heat-y"].map((id) => binned(settings, Number($(id).value)));
    const cells = new Map();
    for (const at of settings.filter((each) => measured(key, each) !== null && !data.settings.late[each])) {
      const place = `${down.place(at)},${across.place(at)}`;
      cells.set(place, [...(cells.get(place) ?? []), measured(key, at)]);
    }
    const value = (own) => (mean ? own.reduce((sum, x) => sum + x, 0) / own.length : best(...own));
    const all = [...cells.values()].map(value), [low, high] = [Math.min(...all), Math.max(...all)];
    const table = element("table", undefined, { class: "heat" }), [top, body] = [element("thead"), element("tbody")];
    const named = (id) => axisNames[Number($(id).value)];
    const head = element("tr");
    head.append(element("th", `${named("heat-y")} \\ ${named("heat-x")}`), ...across.names.map((name) => element("th", name, { class: "n" })));
    top.append(head);
    down.names.forEach((name, row) => {
      const line = element("tr");
      line.append(element("th", name));
      across.names.forEach((other, column) => {
        const own = cells.get(`${row},${column}`), cell = element("td", own ? show(value(own)) : DASH, { class: "n" });
        if (own) {
          const colour = shade(high > low ? (value(own) - low) / (high - low) : 0.5);
          [cell.style.backgroundColor, cell.style.color] = [colour, inkOn(colour)];
          cell.title = `${named("heat-y")} ${name}, ${named("heat-x")} ${other}: ${show(value(own))}, ${own.length} setting${own.length > 1 ? "s" : ""}`;
        }
        line.append(cell);
      });
      body.append(line);
    });
    table.append(top, body);
    $("heat").replaceChildren(table);
  }

  function parallel() {
    const key = data.measures[0].key, settings = settingsOf($("scope").value).filter((at) => measured(key, at) !== null);
    const axes = varying(settings), score = settings.map((at) => measured(key, at));
    const [low, high] = [Math.min(...score), Math.max(...score)], share = (x) => (high > low ? (x - low) / (high - low) : 0.5);
    const spaced = axes.map((axis) => {
      const bins = binned(settings, axis), numbers = settings.map((at) => Number(axisValue(at, axis)));
      if (bins.names.length > 1 && unique(numbers).length > 12 && numbers.every(Number.isFinite)) {
        const [least, most] = [Math.min(...numbers), Math.max(...numbers)], logarithmic = least > 0 && most > 100 * least;
        const to = (x) => (logarithmic ? Math.log(x) : x);
        return { height: (at) => (to(Number(axisValue(at, axis))) - to(least)) / (to(most) - to(least)), ticks: [[0, show(least)], [1, show(most)]] };
      }
      const height = (place) => (bins.names.length > 1 ? place / (bins.names.length - 1) : 0.5);
      return { height: (at) => height(bins.place(at)), ticks: bins.names.map((name, place) => [height(place), name]) };
    });
    spaced.push({ height: (at) => share(measured(key, at)), ticks: [[0, show(low)], [1, show(high)]] });
    const groups = scale().map(() => ({ x: [], y: [], text: [] }));
    settings.forEach((at) => {
      const group = groups[Math.min(groups.length - 1, Math.floor(share(measured(key, at)) * groups.length))];
      const said = hover([`${data.measures[0].label} ${show(measured(key, at))}`, ...axes.map((axis) => `${axisNames[axis]} ${axisValue(at, axis)}`)]);
      spaced.forEach((each, x) => { group.x.push(x); group.y.push(each.height(at)); group.text.push(said); });
      group.x.push(null); group.y.push(null); group.text.push("");
    });
    const traces = groups.map((group, place) => ({ ...group, mode: "lines", hoverinfo: "text", line: { color: scale()[place], width: 1.2 + place / 4 }, opacity: 0.75 }));
    const label = { showarrow: false, xanchor: "left", xshift: 5, bgcolor: css("--paper"), opacity: 0.9, borderpad: 1, font: { size: 12 } };
    const annotations = spaced.flatMap((each, x) => each.ticks.map(([y, name]) => ({ ...label, x, y, text: escaped(name) })));
    const names = [...axes.map((axis) => axisNames[axis]), data.measures[0].label];
    plot($("parallel"), traces, { tickvals: range(names.length), ticktext: names.map(escaped), range: [-0.1, names.length - 0.6], side: "top", zeroline: false },
      { visible: false, range: [-0.06, 1.06] }, { annotations, margin: { l: 12, r: 12, t: 40, b: 12 } }, { ...CONFIG, displayModeBar: false });
  }

  function overview() {
    if (!together.length || !data.measures.length) return;
    fill($("scope"), together.map((name) => [name, data.labels[name]]));
    fill($("heat-measure"), data.measures.map((each) => [each.key, each.label]));
    const axes = () => {
      const found = varying(settingsOf($("scope").value));
      for (const [id, place] of [["heat-x", found.length - 1], ["heat-y", 0]]) {
        fill($(id), found.map((axis) => [axis, axisNames[axis]]));
        $(id).value = found[place];
      }
    };
    const all = () => { rank(); heat(); parallel(); };
    axes();
    $("scope").addEventListener("change", () => { axes(); all(); });
    $("filter").addEventListener("input", rank);
    for (const id of ["heat-x", "heat-y", "heat-measure", "heat-over"]) $(id).addEventListener("change", heat);
    $("settings").hidden = false;
    for (const link of document.querySelectorAll("a[href='#settings']")) link.parentElement.hidden = false;
    all();
  }

  // ---- tables

  function sortable(table) {
    const key = (row, column) => {
      const text = row.cells[column].textContent.trim().replaceAll(",", "").replace(MINUS, "-"), number = parseFloat(text);
      return text === DASH ? NaN : Number.isNaN(number) || !/^[-+\d.]/.test(text) ? text : number;
    };
    const before = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
        const lacks = ([value]) => Number.isNaN(value);
        rows.sort((a, b) => lacks(a) - lacks(b) || (down ? -1 : 1) * before(a[0], b[0]));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      };
      head.tabIndex = 0;
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
    table.classList.add("sortable");
  }

  // ---- begin

  document.documentElement.classList.add("scripted");
  for (const table of document.querySelectorAll("main table")) sortable(table);
  const pictures = [...document.querySelectorAll("details.pictures")];
  for (const each of pictures) each.open = false;
  window.addEventListener("beforeprint", () => { for (const each of pictures) each.open = true; });
  window.addEventListener("afterprint", () => { for (const each of pictures) each.open = false; });
  if (data.quantities.length && tables.some((table) => table.row !== null)) explore();
  overview();
  dark.addEventListener("change", () => {
    const on = (id) => $(id) && !$(id).hidden;
    if (on("explore")) draw();
    if (on("settings")) { heat(); parallel(); }
  });
  document.documentElement.dataset.ready = "yes";
})();
