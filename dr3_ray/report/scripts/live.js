// A page of `dr3-ray serve`: it asks whether there is a newer one, and shows that with what was chosen, opened and sorted.
"use strict";
(() => {
  const PAUSE = 3000; // milliseconds between two questions
  const REST = 2000; // and since the last click or key, before the page shows something else
  const KEPT = "dr3-ray"; // what is kept across a reload, in this tab alone
  const version = document.documentElement.dataset.version;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const $ = (id) => document.getElementById(id);
  const changed = (element) => { for (const name of ["input", "change"]) element.dispatchEvent(new Event(name, { bubbles: true })); };

  // ---- what a reload would lose

  const textOf = (select) => select.selectedOptions[0]?.textContent; // places of options may change, their names do not
  const sorted = () => all("table.sortable").flatMap((table, place) => {
    const heads = [...table.tHead.rows[0].cells], column = heads.findIndex((head) => head.hasAttribute("aria-sort"));
    return column < 0 ? [] : [[place, column, heads[column].getAttribute("aria-sort")]];
  });

  function state() {
    return {
      selects: all("main select[id]").map((select) => [select.id, textOf(select)]),
      inputs: all("main input[id]").map((input) => [input.id, input.checked, input.value]),
      off: all("#chips button[aria-pressed=false]").map((chip) => chip.dataset.coefficient),
      view: document.querySelector("#views [aria-pressed=true]")?.value,
      open: all("details").map((details) => [details.querySelector("summary").textContent.replace(/\d/g, ""), details.open]),
      sorted: sorted(),
      zoom: ["xaxis", "yaxis"].flatMap((axis) => { const own = $("plot")?.layout?.[axis]; return own && own.autorange === false ? [[`${axis}.range`, own.range]] : []; }),
      by: $("by-itself").checked,
      at: window.scrollY,
    };
  }

  function choose(id, text) {
    const select = $(id), option = [...(select?.options ?? [])].find((each) => each.textContent === text);
    if (!option || option.selected) return;
    option.selected = true;
    changed(select);
  }

  function restore(kept) {
    const later = new Set(["scale", "across", "up"]); // which a view and a relation set, too
    for (const [id, text] of kept.selects) if (!later.has(id)) choose(id, text);
    for (const [id, checked, value] of kept.inputs) {
      const input = $(id);
      if (!input || (input.checked === checked && input.value === value)) continue;
      [input.checked, input.value] = [checked, value];
      changed(input);
    }
    for (const chip of all("#chips button")) if (kept.off.includes(chip.dataset.coefficient)) chip.click();
    all("#views button").find((button) => button.value === kept.view && button.getAttribute("aria-pressed") === "false")?.click();
    for (const [id, text] of kept.selects) if (id === "across" || id === "up") choose(id, text);
    for (const [id, text] of kept.selects) if (id === "scale") choose(id, text);
    const open = new Map(kept.open);
    for (const details of all("details")) details.open = open.get(details.querySelector("summary").textContent.replace(/\d/g, "")) ?? details.open;
    const tables = all("table.sortable");
    for (const [place, column, direction] of kept.sorted) {
      const head = tables[place]?.tHead.rows[0].cells[column];
      head?.click();
      if (direction === "descending") head?.click();
    }
    if (kept.zoom.length && $("plot")?.layout) Plotly.relayout($("plot"), Object.fromEntries(kept.zoom));
    window.scrollTo(0, kept.at);
  }

  // ---- the bar, and the questions

  const bar = document.createElement("div"), said = document.createElement("span"), button = document.createElement("button");
  const label = document.createElement("label"), box = document.createElement("input");
  Object.assign(bar, { className: "live bar-live" });
  bar.setAttribute("role", "status");
  Object.assign(box, { type: "checkbox", id: "by-itself", checked: true });
  Object.assign(button, { type: "button", id: "show-new", textContent: "Show new results", hidden: true });
  label.append(box, " show new results by themselves");
  bar.append(said, button, label);
  document.body.append(bar);
  const say = (text) => { said.textContent = text; };

  function show() {
    sessionStorage.setItem(KEPT, JSON.stringify(state()));
    location.reload();
  }
  button.addEventListener("click", show);

  let touched = -Infinity;
  for (const kind of ["pointerdown", "keydown", "wheel"]) window.addEventListener(kind, () => { touched = performance.now(); }, { passive: true });

  async function ask() {
    if (document.hidden) return;
    try {
      const answer = await fetch("state.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const now = await answer.json();
      say(now.said);
      button.hidden = now.version === version;
      if (!button.hidden && box.checked && performance.now() - touched > REST) show();
    } catch {
      say("The server does not answer: this is its last page.");
    }
  }

  history.scrollRestoration = "manual";
  const kept = sessionStorage.getItem(KEPT);
  sessionStorage.removeItem(KEPT);
  if (kept) {
    const before = JSON.parse(kept);
    box.checked = before.by;
    restore(before);
  }
  setInterval(ask, PAUSE);
  box.addEventListener("change", ask);
  document.addEventListener("visibilitychange", ask);
  ask();
  document.documentElement.dataset.live = "yes";
})();
