"use strict";
// Moves one cursor through all figures, and lets a curve be hidden. Without it the page says the same.
const number = (v) => {
  if (v === undefined) return "–";
  const size = Math.abs(v);
  if (v && (size < 1e-3 || size >= 1e5)) return v.toExponential(2);
  return String(Number(v.toPrecision(4)));
};
const charts = [...document.querySelectorAll(".chart")].map((figure) => ({
  svg: figure.querySelector("svg"),
  cursor: figure.querySelector(".cursor"),
  head: figure.querySelector("thead .now"),
  cells: [...figure.querySelectorAll("tbody .now")],
  rows: [...figure.querySelectorAll("tbody tr")],
  lines: [...figure.querySelectorAll(".line")],
  ...JSON.parse(figure.querySelector(".points").textContent),
}));
for (const chart of charts) chart.last = chart.cells.map((cell) => cell.textContent);

const nearest = (points, at) => {
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < at) low = middle;
    else high = middle;
  }
  return Math.abs(points[high][0] - at) < Math.abs(points[low][0] - at) ? points[high] : points[low];
};

const point = (chart, at) => {
  const x = chart.x.start + (at - chart.x.offset) * chart.x.factor;
  const inside = x >= 40 && x <= 414;
  chart.cursor.toggleAttribute("hidden", !inside);
  chart.cursor.setAttribute("transform", `translate(${x},0)`);
  chart.head.textContent = chart.ticks ? `at ${chart.ticks[Math.round(at)] ?? ""}` : `at ${number(at)} kimg`;
  chart.series.forEach((series, i) => {
    chart.cells[i].textContent = number(nearest(series.points, at)[1]);
  });
};

const leave = (chart) => {
  chart.cursor.setAttribute("hidden", "");
  chart.head.textContent = "last";
  chart.cells.forEach((cell, i) => (cell.textContent = chart.last[i]));
};

for (const chart of charts) {
  const others = charts.filter((other) => Boolean(other.ticks) === Boolean(chart.ticks));
  chart.svg.addEventListener("pointermove", (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.svg.getScreenCTM().inverse());
    const at = chart.x.offset + (place.x - chart.x.start) / chart.x.factor;
    const first = chart.series[0].points[0][0];
    const last = chart.series[0].points[chart.series[0].points.length - 1][0];
    for (const other of others) point(other, Math.min(Math.max(at, first), last));
  });
  chart.svg.addEventListener("pointerleave", () => others.forEach(leave));
  chart.rows.forEach((row, i) => {
    if (chart.rows.length < 2) return;
    const name = row.querySelector("th");
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(...name.childNodes);
    name.append(button);
    button.addEventListener("click", () => {
      const off = row.classList.toggle("off");
      chart.lines[i].classList.toggle("off", off);
      button.setAttribute("aria-pressed", String(!off));
    });
  });
}
