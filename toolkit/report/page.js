/* What reading gains by script: sorting and filtering tables, reading charts off, zooming into the network. Nothing stands only here. */
"use strict";
const every = (what, root = document) => [...root.querySelectorAll(what)];
const make = (name, text, kind) => Object.assign(document.createElement(name), { textContent: text, className: kind || "" });

/* Tables: a click on a heading sorts, the third click restores; long tables get a field that filters them. */
const value = cell => {
  const text = cell ? cell.textContent.trim() : "", found = text.replace(/,/g, "").match(/^[-+−]?[\d.]+(?:e[-+]?\d+)?/);
  if (!found) return text === "-" || text === "" ? [2, 0] : [1, text.toLowerCase()];
  const unit = (text.match(/ ?(kB|MB|GB|[kMGT])(?![a-z])/) || [])[1];
  return [0, parseFloat(found[0].replace("−", "-")) * ({ kB: 1e3, MB: 1e6, GB: 1e9, k: 1e3, M: 1e6, G: 1e9, T: 1e12 }[unit] || 1)];
};
const order = (a, b) => a[0] - b[0] || (a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0);
for (const table of every("table")) {
  const body = table.tBodies[0], rows = [...body.rows];
  if (rows.length < 2) continue;
  every("thead th", table).forEach((head, column) => {
    if (!head.textContent) return;
    const button = make("button", head.textContent, "sort");
    button.type = "button";
    head.textContent = "";
    head.append(button);
    button.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort"), now = was === null ? "descending" : was === "descending" ? "ascending" : null;
      every("th[aria-sort]", table).forEach(other => other.removeAttribute("aria-sort"));
      const sorted = now ? [...rows].sort((a, b) => {
        const [x, y] = [value(a.cells[column]), value(b.cells[column])];
        return x[0] === 2 || y[0] === 2 ? x[0] - y[0] : now === "ascending" ? order(x, y) : order(y, x);
      }) : rows;
      if (now) head.setAttribute("aria-sort", now);
      body.append(...sorted);
    });
  });
  if (rows.length < 13) continue;
  const label = make("label", "Filter ", "filter"), field = document.createElement("input"), count = make("output", "");
  field.type = "search";
  label.append(field, " ", count);
  table.parentElement.prepend(label);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    count.textContent = field.value ? `${rows.filter(row => !row.hidden).length} of ${rows.length}` : "";
  });
}

/* Charts: the point nearest to the pointer, with its values, taken from the drawing itself and its axes. */
const shown = v => (Math.abs(v) >= 1e4 ? v.toExponential(3) : +v.toPrecision(4)).toString();
for (const svg of every("svg[data-x]")) {
  const axis = name => {
    const [low, high, start, end, log] = svg.dataset[name].split(" ").map(Number);
    return at => { const share = (at - start) / (end - start); return log ? low * (high / low) ** share : low + share * (high - low); };
  };
  const x = axis("x"), y = axis("y"), points = [];
  for (const line of every("g.series", svg)) {
    const name = line.querySelector("title").textContent;
    for (const path of every("path.line, path.mark", line)) {
      let px = 0, py = 0;
      const mark = path.classList.contains("mark");
      for (const [, letter, given] of path.getAttribute("d").matchAll(/([MLHV])([^A-Za-z]*)/g)) {
        const [a, b] = given.trim().split(/[ ,]+/).map(Number);
        if (letter === "H") { px = a; continue; }  // a step's corner is no point of the data
        if (letter === "V") py = a; else [px, py] = [a, b];
        points.push(mark && path.dataset.at ? [...path.dataset.at.split(" ").map(Number), name] : [px, py, name]);
      }
    }
  }
  if (!points.length) continue;
  const said = make("p", "", "reading"), cross = document.createElementNS(svg.namespaceURI, "path");
  cross.setAttribute("class", "cross");
  svg.append(cross);
  svg.after(said);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const [mx, my] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const [px, py, name] = points.reduce((best, p) => Math.hypot(p[0] - mx, p[1] - my) < Math.hypot(best[0] - mx, best[1] - my) ? p : best);
    const [left, right, top, bottom] = ["x", "y"].flatMap(n => svg.dataset[n].split(" ").slice(2, 4));
    cross.setAttribute("d", `M${px} ${top}V${bottom}M${left} ${py}H${right}`);
    said.textContent = `${name}: ${shown(x(px))} ${svg.dataset.xLabel}, ${shown(y(py))} ${svg.dataset.yLabel}`;
  });
  svg.addEventListener("pointerleave", () => { cross.removeAttribute("d"); said.textContent = ""; });
}

/* The network: buttons and + - 0 zoom, a drag moves, arrow keys walk along the layers; what a box says is also written below. */
for (const figure of every("figure.network")) {
  const frame = figure.querySelector(".scroll"), svg = figure.querySelector("svg"), boxes = every("g.box", svg);
  if (!boxes.length) continue;
  let size = 1;
  const said = make("p", "", "reading"), bar = make("div", "", "zoom");
  said.setAttribute("aria-live", "polite");
  const zoom = next => {
    size = next === 0 ? 1 : Math.min(8, Math.max(0.5, size * next));
    svg.style.width = `${100 * size}%`;
    svg.style.minWidth = `${46 * size}rem`;
  };
  for (const [text, name, step] of [["+", "larger", 1.4], ["−", "smaller", 1 / 1.4], ["1:1", "as it was", 0]]) {
    const button = make("button", text);
    button.type = "button";
    button.setAttribute("aria-label", `The network ${name}`);
    button.addEventListener("click", () => zoom(step));
    bar.append(button);
  }
  figure.prepend(bar);
  frame.after(said);
  let at = 0;
  const focus = index => {
    boxes[at].setAttribute("tabindex", "-1");
    at = Math.min(boxes.length - 1, Math.max(0, index));
    boxes[at].setAttribute("tabindex", "0");
    boxes[at].focus();
    boxes[at].scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  boxes.forEach((box, index) => {
    box.setAttribute("tabindex", index ? "-1" : "0");
    const tell = () => { said.textContent = box.getAttribute("aria-label"); };
    box.addEventListener("focus", () => { at = index; tell(); });
    box.addEventListener("pointerenter", tell);
  });
  figure.addEventListener("keydown", event => {
    const inside = event.target.classList && event.target.classList.contains("box");
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -1e9, End: 1e9 }[event.key];
    if (inside && step) { focus(at + step); event.preventDefault(); }
    if (["+", "=", "-", "0"].includes(event.key)) zoom(event.key === "-" ? 1 / 1.4 : event.key === "0" ? 0 : 1.4);
  });
  let from = null;
  frame.addEventListener("pointerdown", event => { from = [event.clientX + frame.scrollLeft, event.clientY + frame.scrollTop]; });
  frame.addEventListener("pointermove", event => {
    if (from && event.buttons & 1) { frame.scrollLeft = from[0] - event.clientX; frame.scrollTop = from[1] - event.clientY; }
  });
  addEventListener("pointerup", () => { from = null; });
}
