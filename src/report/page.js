// Makes the drawings of curves live: zoom, cursors that go together, another x axis, seeds one by one, smoothing.
// Without it the page shows the same curves as drawings. Text comes into the page as text alone.
(() => {
  "use strict";
  const block = document.getElementById("curves-data");
  if (!block || typeof uPlot !== "function") return;
  const data = JSON.parse(block.textContent);
  const steps = data.xs.map((x) => (typeof x === "number" ? Array.from({ length: x }, (_, i) => i) : x));
  const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3]];
  const state = { x: "steps", each: false, smooth: 0, hidden: new Set(), zoom: null };
  const charts = [];

  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const see = (name, alpha) => {
    const hex = colour(name).replace("#", "");
    const part = (at) => parseInt(hex.slice(at, at + 2), 16);
    return `rgba(${part(0)}, ${part(2)}, ${part(4)}, ${alpha})`;
  };

  const PREFIXES = [[1e21, "Z"], [1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const short = (value) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size >= 1e4) {
      const [unit, prefix] = PREFIXES.find(([unit]) => size >= unit);
      return `${+(value / unit).toPrecision(3)}${prefix}`;
    }
    return String(+value.toPrecision(5)).replace("-", "−");
  };
  // As many digits everywhere, so that numbers under the cursor stand still.
  const precise = (value) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size >= 1e4) return short(value);
    return (size >= 1000 ? value.toFixed(0) : size >= 1e-3 ? value.toPrecision(5) : value.toPrecision(3)).replace("-", "−");
  };
  // Distances of ticks: 1, 2 or 5 times a power of ten, which `tick` writes in as many digits as they have. Steps and
  // tokens are whole.
  const round = [];
  for (let power = -12; power <= 24; power++) for (const factor of [1, 2, 5]) round.push(+`${factor}e${power}`);
  const whole = round.filter((distance) => distance >= 1);
  const tick = (values, step) => {
    const digits = Math.max(0, Math.min(12, -Math.floor(Math.log10(step * 1.000001))));
    return values.map((value) => (Math.abs(value) >= 1e4 ? short(value) : value.toFixed(digits).replace("-", "−").replace(/^−?0(\.0+)?$/, "0")));
  };
  const time = (seconds) => {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds < 120) return `${+seconds.toPrecision(3)} s`;
    if (seconds < 7200) return `${+(seconds / 60).toPrecision(3)} min`;
    return `${+(seconds / 3600).toPrecision(3)} h`;
  };
  const UNITS = { steps: "steps", tokens: "tokens", flops: "FLOPs", time: "training time" };
  const shownX = (value) => (state.x === "time" ? time(value) : `${short(value)} ${UNITS[state.x]}`);

  // What a curve's x values are on the axis that is chosen.
  const xs = (chart, curve) => {
    const arm = data.arms[curve.arm];
    const own = steps[curve.x];
    switch (state.x) {
      case "tokens": return own.map((step) => (step + chart.offset) * arm.batch);
      case "flops": return own.map((step) => (step + chart.offset) * arm.batch * arm.flops);
      case "time": return curve.t || own.map(() => null);
      default: return own;
    }
  };

  // An exponential mean that starts at the first value and is not drawn towards 0 by it.
  const smoothed = (values) => {
    if (!state.smooth) return values;
    let mean = 0, weight = 0;
    return values.map((value) => {
      if (value === null) return null;
      mean = state.smooth * mean + (1 - state.smooth) * value;
      weight = state.smooth * weight + (1 - state.smooth);
      return mean / weight;
    });
  };

  // The curves of a chart as they are shown: name, arm, values, and the two bounds of a band.
  const shown = (chart) => {
    const each = state.each && chart.runs.length > 0;
    return (each ? chart.runs : chart.lines)
      .filter((curve) => !state.hidden.has(curve.arm))
      .map((curve) => ({ ...curve, each }));
  };

  const build = (figure, chart) => {
    const live = figure.querySelector(".live");
    const curves = shown(chart);
    const tables = [], series = [{}], bands = [], arms = [];
    for (const curve of curves) {
      const x = xs(chart, curve);
      const smooths = chart.smooth;
      const columns = [smooths ? smoothed(curve.y) : curve.y];
      const at = series.length;
      const look = data.arms[curve.arm];
      series.push({
        label: look.name,
        stroke: colour(`--c${look.c}`),
        dash: DASHES[look.d],
        width: curve.each ? 1.1 : 1.75,
        spanGaps: true,
        points: { show: chart.marks && curve.y.length <= 60, size: 5, fill: colour(`--c${look.c}`) },
      });
      arms.push({ curve, at });
      if (curve.lo) {
        columns.push(smooths ? smoothed(curve.lo) : curve.lo, smooths ? smoothed(curve.hi) : curve.hi);
        for (let n = 0; n < 2; n++) series.push({ stroke: "transparent", width: 0, spanGaps: true, points: { show: false } });
        bands.push({ series: [at + 2, at + 1], fill: see(`--c${look.c}`, 0.16) });
      }
      // Points that have no place on this axis are left out; the rest rises.
      const keep = x.map((value, n) => [value, n]).filter(([value]) => value !== null);
      tables.push([keep.map(([value]) => value), ...columns.map((column) => keep.map(([, n]) => column[n]))]);
    }
    const joined = tables.length > 1 ? uPlot.join(tables) : tables.length ? tables[0] : [[0, 1]];
    const grid = { stroke: colour("--rule"), width: 1 };
    const font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
    const quiet = colour("--quiet");
    const width = Math.max(200, Math.floor(live.clientWidth));
    const options = {
      width,
      height: width < 560 ? 270 : 340,
      padding: [10, 12, 0, 0],
      legend: { show: false },
      series, bands,
      scales: { x: { time: false } },
      axes: [
        { stroke: quiet, font, grid: { show: false }, ticks: { stroke: quiet, width: 1, size: 4 }, space: width < 560 ? 70 : 90,
          size: 30, label: UNITS[state.x], incrs: state.x === "steps" || state.x === "tokens" ? whole : round, labelFont: font, labelSize: 20, labelGap: 0,
          values: (_, ticks, axis, space, step) => (state.x === "time" ? ticks.map(time) : tick(ticks, step)) },
        { stroke: quiet, font, grid, ticks: { show: false }, size: 56, gap: 6, incrs: round,
          values: (_, ticks, axis, space, step) => tick(ticks, step) },
      ],
      cursor: {
        drag: { x: true, y: false, setScale: true },
        sync: { key: "nanorun", setSeries: false, scales: ["x", null], filters: { pub: (type) => type !== "mousedown" && type !== "mouseup" && type !== "dblclick" } },
        points: { size: 7 },
        // The nearest point of the curve itself: curves do not share their points.
        dataIdx: (plot, at, index) => {
          const values = plot.data[at];
          if (values[index] !== null && values[index] !== undefined) return index;
          for (let away = 1; away < values.length; away++) {
            for (const near of [index - away, index + away]) {
              if (values[near] !== null && values[near] !== undefined) return near;
            }
          }
          return index;
        },
      },
      hooks: {
        setCursor: [(plot) => tell(figure, chart, plot, arms)],
        setScale: [(plot, key) => { if (key === "x") zoomed(figure, plot); }],
      },
    };
    figure.plot?.destroy();
    live.querySelector(".plot").replaceChildren();
    figure.building = true;
    figure.plot = new uPlot(options, joined, live.querySelector(".plot"));
    figure.building = false;
    if (state.zoom) figure.plot.setScale("x", state.zoom);
    tell(figure, chart, figure.plot, arms);
    figure.dataset.drawn = String(curves.length);
  };

  // Values under the cursor, else the last ones.
  const tell = (figure, chart, plot, arms) => {
    const last = plot.cursor.idx === null || plot.cursor.idx === undefined;
    const values = new Map();
    for (const { curve, at } of arms) {
      const column = plot.data[at];
      const index = last ? column.findLastIndex((value) => value !== null && value !== undefined) : plot.cursor.idxs[at];
      if (!values.has(curve.arm)) values.set(curve.arm, []);
      values.get(curve.arm).push(column[index]);
    }
    for (const [arm, cell] of figure.cells) {
      const found = values.get(arm) || [];
      cell.textContent = found.length > 1
        ? `${precise(Math.min(...found))} to ${precise(Math.max(...found))}` : found.length ? precise(found[0]) : "";
    }
    const place = last ? null : plot.data[0][plot.cursor.idx];
    figure.place.textContent = place === null || place === undefined ? `${chart.unit}, at the end` : `${chart.unit}, at ${shownX(place)}`;
  };

  // One chart was zoomed: the others follow, and the button that undoes it appears.
  let following = false;
  const zoomed = (figure, plot) => {
    const { min, max } = plot.scales.x;
    figure.dataset.from = String(min);
    figure.dataset.to = String(max);
    if (following || figure.building || min === null) return;
    const whole = plot.data[0];
    const isWhole = min <= whole[0] && max >= whole[whole.length - 1];
    state.zoom = isWhole ? null : { min, max };
    reset.hidden = isWhole;
    following = true;
    for (const other of charts) {
      if (other.figure === figure || !other.figure.plot) continue;
      const own = other.figure.plot.data[0];
      other.figure.plot.setScale("x", state.zoom || { min: own[0], max: own[own.length - 1] });
    }
    following = false;
  };

  const draw = () => charts.forEach(({ figure, chart }) => build(figure, chart));

  const prepare = (figure, chart) => {
    const live = figure.querySelector(".live");
    live.hidden = false;
    const legend = make("ul", "legend");
    figure.place = make("li", "unit");
    legend.append(figure.place);
    figure.cells = new Map();
    for (const arm of new Set(chart.lines.map((line) => line.arm))) {
      const look = data.arms[arm];
      const name = chart.lines.find((line) => line.arm === arm).name || look.name;
      const button = make("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const key = make("span", `key c${look.c} d${look.d}`);
      const label = make("bdi", "arm", name);
      const value = make("span", "value");
      button.append(key, label, value);
      button.dataset.arm = String(arm);
      button.addEventListener("click", () => {
        state.hidden.has(arm) ? state.hidden.delete(arm) : state.hidden.add(arm);
        for (const other of document.querySelectorAll(".legend button")) {
          other.setAttribute("aria-pressed", String(!state.hidden.has(+other.dataset.arm)));
        }
        draw();
      });
      const item = make("li");
      item.append(button);
      legend.append(item);
      figure.cells.set(arm, value);
    }
    live.append(legend, make("div", "plot"));
    charts.push({ figure, chart });
  };

  // The toolbar stands in the page, hidden where nothing would answer it.
  const toolbar = document.querySelector(".toolbar");
  const reset = make("button", "reset", "Whole range");
  reset.type = "button";
  reset.hidden = true;
  reset.addEventListener("click", () => { state.zoom = null; reset.hidden = true; draw(); });
  if (toolbar) {
    toolbar.hidden = false;
    toolbar.append(reset);
    for (const input of toolbar.querySelectorAll("input[name=x]")) {
      input.addEventListener("change", () => { state.x = input.value; state.zoom = null; reset.hidden = true; draw(); });
    }
    toolbar.querySelector("input[name=each]")?.addEventListener("change", (event) => { state.each = event.target.checked; draw(); });
    toolbar.querySelector("input[name=smooth]")?.addEventListener("input", (event) => { state.smooth = +event.target.value; draw(); });
  }

  document.documentElement.classList.add("scripted");
  for (const chart of data.charts) {
    const figure = document.querySelector(`figure[data-chart="${chart.id}"]`);
    if (figure && chart.lines.length) prepare(figure, chart);
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
})();
