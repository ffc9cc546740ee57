// Sorting and filtering of tables, and figures that are drawn when they come into view.
"use strict";

const figures = JSON.parse(document.getElementById("figures").textContent);
const number = (text) => {
  const found = text.replace("−", "-").match(/-?\d+(\.\d+)?(e[-+]?\d+)?/i);
  return found ? parseFloat(found[0]) : NaN;
};

function cellValue(row, at) {
  const cell = row.cells[at].cloneNode(true);
  cell.querySelectorAll("small").forEach((detail) => detail.remove());
  return cell.textContent.trim();
}

function sortBy(table, at, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [cellValue(row, at), row]);
  const label = heading.classList.contains("label");
  rows.sort(([a], [b]) => {
    if (label) return (down ? -1 : 1) * a.localeCompare(b, "en", { numeric: true });
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is undefined stays below
    return (down ? -1 : 1) * (x - y);
  });
  body.append(...rows.map(([, row]) => row));
}

document.querySelectorAll("main table").forEach((table) => {
  [...table.tHead.rows[0].cells].forEach((heading, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sortBy(table, at, heading));
    heading.replaceChildren(button);
  });
});

document.querySelectorAll("input[data-filter]").forEach((input) => {
  const section = document.getElementById(input.dataset.filter);
  const rows = [...section.querySelectorAll("tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach(([row, text]) => { row.hidden = !words.every((word) => text.includes(word)); });
  });
});

const dark = window.matchMedia("(prefers-color-scheme: dark)");
function theme() {
  const style = getComputedStyle(document.body);
  const color = style.color;
  const grid = dark.matches ? "#3a3a44" : "#e3e3ea";
  const axis = { gridcolor: grid, zerolinecolor: grid, automargin: true };
  return { axis, layout: {
    font: { color, family: style.fontFamily, size: 13 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 60, r: 20, t: 20, b: 50 }, hovermode: "closest", legend: { orientation: "h", y: -0.2 },
    colorway: ["#3b7dd8", "#e07b39", "#3a9d5d", "#b64fb0", "#c8553d", "#6b7fd7", "#8a8a2f", "#2f9a9a"],
  } };
}

function draw(figure) {
  const variants = figures[figure.dataset.figure];
  const select = figure.querySelector("select");
  const chosen = variants[select ? select.value : Object.keys(variants)[0]];
  const { axis, layout } = theme();
  const merged = { ...layout, ...chosen.layout };
  for (const name of ["xaxis", "yaxis"]) merged[name] = { ...axis, ...(chosen.layout[name] || {}) };
  const plot = figure.querySelector(".plot");
  plot.style.minHeight = `${merged.height || 420}px`;
  Plotly.react(plot, chosen.data, merged, { responsive: true, displaylogo: false });
  figure.dataset.drawn = "yes";
}

const drawn = [...document.querySelectorAll("figure[data-figure]")];
const watcher = new IntersectionObserver((entries) => {
  entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    watcher.unobserve(entry.target);
    draw(entry.target);
  });
}, { rootMargin: "400px" });
drawn.forEach((figure) => {
  watcher.observe(figure);
  const select = figure.querySelector("select");
  if (select) select.addEventListener("change", () => draw(figure));
});
dark.addEventListener("change", () => drawn.filter((f) => f.dataset.drawn).forEach(draw));
window.addEventListener("beforeprint", () => drawn.filter((f) => !f.dataset.drawn).forEach(draw));
document.documentElement.dataset.ready = "yes";
