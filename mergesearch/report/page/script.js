"use strict";

// Tables: a click on a head sorts, numbers from the largest; a second click turns it round.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const cells = [...body.rows].map((row) => row.cells[column]);
    const numeric = cells.some((cell) => cell.dataset.value !== undefined);
    head.classList.toggle("right", numeric && !cells.some((cell) => cell.querySelector(".span")));
    head.querySelector("button").addEventListener("click", () => {
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows];
      rows.sort((a, b) => compare(a.cells[column], b.cells[column], numeric, sign));
      body.append(...rows);
    });
  });
}

function compare(a, b, numeric, sign) {
  if (!numeric) return sign * a.textContent.trim().localeCompare(b.textContent.trim());
  const [x, y] = [a, b].map((cell) => parseFloat(cell.dataset.value));
  if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is not known comes last
  return sign * (x - y);
}

for (const input of document.querySelectorAll("input[data-filter]")) {
  const rows = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      code.closest("details")?.setAttribute("open", ""); // what is folded cannot be selected
      const range = document.createRange(); // where pages from disk may not write to the clipboard
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

// A search under way: load again, but not while someone reads a document or filters.
const pause = Number(document.body.dataset.reload);
if (pause) {
  setInterval(() => {
    const busy = document.querySelector(".document[open], .spoils[open]");
    const filters = [...document.querySelectorAll("input[data-filter]")];
    if (!busy && !filters.some((input) => input.value)) location.reload();
  }, 1000 * pause);
}

// Plots: plotly is unpacked once, and every figure drawn in the colours of the page.
const DIGITS =
  "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;.=>?@^_`{|}~";

function unpacked(text, length) {
  const values = new Uint8Array(128);
  for (let i = 0; i < 85; i++) values[DIGITS.charCodeAt(i)] = i;
  const bytes = new Uint8Array((text.length / 5) * 4);
  for (let i = 0, at = 0; i < text.length; at += 4) {
    let group = 0;
    for (const end = i + 5; i < end; i++) group = group * 85 + values[text.charCodeAt(i)];
    bytes[at] = group >>> 24;
    bytes[at + 1] = group >>> 16;
    bytes[at + 2] = group >>> 8;
    bytes[at + 3] = group;
  }
  return bytes.subarray(0, length); // the last group is padded
}

function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Paper is white whatever the screen is, and what is folded cannot be opened on it.
let unfolded = [];
addEventListener("beforeprint", () => {
  document.documentElement.classList.add("paper");
  unfolded = [...document.querySelectorAll(".code details:not([open])")];
  for (const details of unfolded) details.open = true;
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("paper");
  for (const details of unfolded) details.open = false;
});

const dark = matchMedia("(prefers-color-scheme: dark)");

// On a narrow page a legend is a column: the plot grows by it, where it would be scrolled in.
const LINE = 19;

function withColumn(layout, data) {
  const names = data.filter((trace) => trace.name && trace.showlegend !== false).length;
  if (names < 5 || layout.legend?.orientation !== "h") return layout;
  const column = names * LINE + 10;
  return { ...layout, height: layout.height + column, legend: { ...layout.legend, maxheight: column } };
}

function themed(figure, width, isNarrow) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const scale = (name) => {
    const stops = colour(name).split(/\s+/);
    return stops.map((stop, i) => [i / (stops.length - 1), stop]);
  };
  const axis = { gridcolor: colour("--grid"), zerolinecolor: colour("--grid"), linecolor: colour("--line") };
  const template = {
    layout: {
      font: { color: colour("--ink") },
      xaxis: axis,
      yaxis: axis,
      hoverlabel: { bgcolor: colour("--surface"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
    },
  };
  const data = figure.data.map((trace) => {
    if (trace.type === "bar" && trace.error_y) return { ...trace, error_y: { ...trace.error_y, color: colour("--ink") } };
    if (!trace.meta) return trace;
    const colorscale = scale("--" + trace.meta);
    if (trace.type === "heatmap") return { ...trace, colorscale };
    const part = trace.type === "parcoords" ? "line" : "marker";
    return { ...trace, [part]: { ...trace[part], colorscale } };
  });
  const layout = { ...figure.layout, template, font: { ...figure.layout.font, color: colour("--ink") } };
  if (width) layout.width = width;
  return [data, isNarrow ? withColumn(layout, data) : layout];
}

async function draw() {
  const packed = document.getElementById("plotly");
  if (!packed) return;
  const source = await inflated(unpacked(packed.textContent, Number(packed.dataset.length)));
  packed.remove();
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  const plots = [...document.querySelectorAll("[data-plot]")].map((place) => {
    const held = document.querySelector(`[data-figure="${place.dataset.plot}"]`);
    return [place, JSON.parse(held.textContent)];
  });
  const config = { displayModeBar: false, responsive: true, showLink: false };
  const paint = async () => {
    const paper = document.documentElement.classList.contains("paper");
    for (const [place, figure] of plots) {
      const width = paper ? 680 : figure.layout.width;
      const [data, layout] = themed(figure, width, !width && place.clientWidth < 560);
      place.style.height = `${layout.height}px`;
      await Plotly.react(place, data, layout, config);
    }
    document.body.dataset.drawn = plots.length;
  };
  await paint();
  dark.addEventListener("change", paint);
  addEventListener("beforeprint", paint);
  addEventListener("afterprint", paint);
}

draw().catch((error) => {
  for (const place of document.querySelectorAll("[data-plot]")) {
    place.style.height = "auto";
    place.textContent = "This browser cannot unpack the plots; one of 2023 or later can.";
  }
  console.error(error);
});
