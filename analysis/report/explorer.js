// The explorer: choices above, plot and legend, what is selected below.

const LISTED = 200;

async function startExplorer() {
  const payload = await unpack("explorer-data");
  if (!payload) return;
  new Explorer(new ExplorerData(payload));
  byId("explorer").dataset.ready = "1";
}

class Explorer {
  constructor(data) {
    this.data = data;
    this.defaults = {
      ...data.start, color: "factor:operator", shape: "factor:operator",
      earlier: false, means: true, only: new Set(), view: null, brush: null,
    };
    this.several = data.final.some((last) => !last);
    this.state = readState(data, this.defaults);
    this.drag = "select";
    this.tip = byId("explorer-tip");
    this.plot = new Plot(byId("plot"), {
      dragged: (area) => this.dragged(area),
      hovered: (point) => this.tell(point),
      reset: () => this.set({ view: null }),
      zoomed: (factor, centre) => this.zoom(factor, centre),
    });
    this.controls();
    byId("plot").addEventListener("keydown", (event) => this.key(event));
    addEventListener("hashchange", () => {
      if (!location.hash.startsWith(EXPLORE)) return;
      this.state = readState(data, this.defaults);
      this.controls();
      this.show();
    });
    new ResizeObserver(() => this.show()).observe(byId("plot").parentElement);
  }

  set(change) {
    Object.assign(this.state, change);
    this.show();
    writeState(this.state, this.defaults);
  }

  controls() {
    const { data, state } = this;
    const measures = data.measures.map(({ name, title }) => ({ value: name, title }));
    const factors = data.varied.map(({ name, title }) => ({ value: `factor:${name}`, title, group: "factors" }));
    const ramps = data.measures.map(({ name, title }) => ({ value: `measure:${name}`, title, group: "from little to much" }));
    const none = { value: "", title: "none" };
    const choose = (title, options, name, reset = {}) =>
      menu(title, options, String(state[name]), (value) => this.set({ [name]: name === "plan" ? Number(value) : value, ...reset })).element;
    const moved = { view: null, brush: null };
    const made = [
      choose("x axis", measures, "x", moved),
      choose("y axis", measures, "y", moved),
      choose("shifts", data.plans.map((title, value) => ({ value: String(value), title })), "plan", moved),
      choose("colour", [none, ...factors, ...ramps], "color", { only: new Set() }),
      choose("shape", [none, ...factors], "shape"),
      box("means with 95 % bars", state.means, (means) => this.set({ means })).element,
    ];
    if (this.several) made.push(box("earlier snapshots", state.earlier, (earlier) => this.set({ earlier })).element);
    const dragging = menu("dragging", [{ value: "select", title: "selects" }, { value: "zoom", title: "zooms" }], this.drag, (value) => { this.drag = value; });
    made.push(dragging.element, make("span", { class: "buttons" },
      button("Zoom in", () => this.zoom(0.7)), button("Zoom out", () => this.zoom(1 / 0.7)), button("Whole plot", () => this.set({ view: null }))));
    byId("explorer-controls").replaceChildren(...made);
  }

  rows() {
    const { data, state } = this;
    const [x, y] = [data.column("measure", state.x), data.column("measure", state.y)];
    const found = [];
    let [asked, missing] = [0, 0];
    data.unit.forEach((unit, row) => {
      if (data.plan[row] !== state.plan || !(state.earlier || data.final[unit])) return;
      asked += 1;
      const point = { row, x: data.value(x, row), y: data.value(y, row) };
      if (point.x === null || point.y === null) missing += 1;
      else found.push(point);
    });
    return { found, asked, missing, x, y };
  }

  show() {
    const { data, state } = this;
    const { found, asked, missing, x, y } = this.rows();
    const all = found.map((point) => point.row);
    const color = data.coding(state.color, all);
    const shape = data.coding(state.shape, all);
    const only = new Set(color.levels.filter((level) => state.only.has(level)));
    const counts = new Map();
    const size = found.length > 600 ? 3.4 : found.length > 150 ? 4.2 : 5;
    const inside = ({ x: [x0, x1], y: [y0, y1] }, point) => point.x >= x0 && point.x <= x1 && point.y >= y0 && point.y <= y1;
    for (const point of found) {
      point.level = color.level(point.row);
      counts.set(point.level, (counts.get(point.level) ?? 0) + 1);
      const unit = data.unit[point.row];
      Object.assign(point, {
        color: color.color(point.level), path: shape.shape(shape.level(point.row)), size,
        hollow: Boolean(data.elsewhere[unit]), faded: only.size > 0 && !only.has(point.level),
        chosen: Boolean(state.brush) && inside(state.brush, point),
      });
      point.chosen &&= !point.faded;
    }
    const ordered = [...found].sort((a, b) => Number(b.faded) - Number(a.faded));
    const ramped = color.column?.role === "measure";
    const means = state.means && color.column && !ramped ? this.means(found, color, { x, y }) : [];
    const reach = (axis) => extent([...found.map((point) => point[axis]), ...means.flatMap((mean) => [mean[axis].low, mean[axis].high])]);
    const view = state.view ?? { x: reach("x"), y: reach("y") };
    this.view = view;
    byId("plot").classList.toggle("with-means", means.length > 0);
    byId("plot").classList.toggle("ramped", ramped);
    byId("plot").classList.toggle("with-selection", Boolean(state.brush));
    this.plot.draw({ points: ordered, means, titles: { x: x.title, y: y.title }, view, brush: state.brush });
    drawLegend(byId("explorer-legend"), { color, shape, only, counts, changed: (next, level) => this.pressed(next, level) });
    const hidden = found.filter((point) => point.faded).length;
    const outside = state.view ? found.filter((point) => !inside(view, point)).length : 0;
    this.say({ drawn: found.length - hidden, asked, missing, hidden, outside, means: means.length });
    this.selection(found.filter((point) => point.chosen));
    byId("plot").setAttribute("aria-label", `${y.title} against ${x.title}, ${found.length} points; arrow keys go from point to point`);
  }

  pressed(next, level) {
    this.set({ only: next });
    [...document.querySelectorAll("#explorer-legend .entry")].find((entry) => entry.dataset.level === level)?.focus();
  }

  // Over networks; snapshots before a run's last one and networks from elsewhere take no part.
  means(found, coding, axes) {
    const groups = new Map();
    for (const point of found) {
      const unit = this.data.unit[point.row];
      if (point.faded || !this.data.final[unit] || this.data.elsewhere[unit]) continue;
      groups.set(point.level, [...(groups.get(point.level) ?? []), point]);
    }
    return coding.levels.filter((level) => groups.has(level)).map((level) => {
      const points = groups.get(level);
      const [x, y] = ["x", "y"].map((axis) => meanAndBar(points.map((point) => point[axis]), this.data.t, axes[axis].share));
      return { level, x, y, color: coding.color(level), path: coding.shape(level) };
    });
  }

  say({ drawn, asked, missing, hidden, outside, means }) {
    const [kept, total] = this.data.sampled;
    const parts = [`${drawn} of ${asked} checkpoints shown`];
    if (missing) parts.push(`${missing} without a number on an axis`);
    if (hidden) parts.push(`${hidden} left out by the legend`);
    if (outside) parts.push(`${outside} outside of this view`);
    if (means) parts.push("large marks: means of what is shown, bars: 95 % intervals over three networks or more");
    if (kept < total) parts.push(`the page holds a random sample of ${kept} of ${total} networks`);
    byId("explorer-note").textContent = `${parts.join("; ")}.`;
  }

  zoom(factor, centre) {
    const around = ([low, high], at = (low + high) / 2) => [at - (at - low) * factor, at + (high - at) * factor];
    this.set({ view: { x: around(this.view.x, centre?.[0]), y: around(this.view.y, centre?.[1]) } });
  }

  dragged(area) {
    if (!area) {
      if (this.state.brush) this.set({ brush: null });
    } else this.set(this.drag === "zoom" ? { view: area } : { brush: area });
  }

  // At most six lines.
  tell(point) {
    this.plot.highlight(point);
    this.tip.hidden = !point;
    if (!point) return;
    const { data, state } = this;
    const factor = (name) => data.column("factor", name);
    const about = ["operator_spec", "architecture", "padding_mode"].map(factor).filter(Boolean).map((column) => data.value(column, point.row));
    const further = [state.color, state.shape].map((key) => data.byName.get(key)).filter((column) => column && !["operator", "operator_spec", "architecture", "padding_mode"].includes(column.name));
    const lines = [
      clipped(about.filter(Boolean).join(", "), 70),
      ...[state.x, state.y].map((name) => data.column("measure", name)).map((column) => `${column.short}: ${data.told(column, point.row)}`),
      data.plans[state.plan],
      [...new Set(further)].map((column) => `${column.title}: ${data.told(column, point.row)}`).join(", "),
    ];
    this.tip.replaceChildren(make("strong", {}, clipped(data.names[data.unit[point.row]], 60)), ...lines.filter(Boolean).map((line) => make("div", {}, line)));
    const stage = this.tip.parentElement;
    const left = Math.min(point.px + 14, stage.clientWidth - this.tip.offsetWidth - 4);
    const below = point.py + 16 + this.tip.offsetHeight < stage.clientHeight;
    this.tip.style.left = `${Math.max(4, left)}px`;
    this.tip.style.top = `${below ? point.py + 16 : point.py - this.tip.offsetHeight - 12}px`;
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") {
      this.tell(null);
      this.set({ brush: null, only: new Set() });
    }
    if (!step) return;
    event.preventDefault();
    const points = this.plot.points.filter((point) => !point.faded).sort((a, b) => a.px - b.px || a.py - b.py);
    if (!points.length) return;
    const now = points.findIndex((point) => point.row === this.cursor);
    const next = points[(now + step + points.length) % points.length];
    this.cursor = next.row;
    this.tell(next);
  }

  selection(points) {
    const { data, state } = this;
    const place = byId("explorer-selection");
    place.replaceChildren();
    if (!state.brush) return;
    const columns = [...data.factors, ...data.measures];
    const save = button("Save the selection as CSV", () => {
      const head = ["checkpoint", "shifts", ...columns.map((column) => (column.role === "measure" ? column.name : `${column.name} (factor)`))];
      const rows = points.map(({ row }) => [data.names[data.unit[row]], data.plans[data.plan[row]], ...columns.map((column) => data.value(column, row))]);
      place.dataset.csv = saveCsv("selection.csv", head, rows);
    });
    const clear = button("Clear", () => this.set({ brush: null }));
    const keys = [...new Set(["factor:operator", "factor:architecture", "factor:padding_mode", state.color, state.shape, `measure:${state.x}`, `measure:${state.y}`])];
    const shown = keys.map((key) => data.byName.get(key)).filter(Boolean);
    const numeric = (column) => (column.role === "measure" ? "n" : null);
    const head = make("tr", {}, make("th", { scope: "col" }, "checkpoint"), ...shown.map((column) => make("th", { scope: "col", class: numeric(column) }, column.title)));
    const body = points.slice(0, LISTED).map(({ row }) => make("tr", {}, make("td", {}, data.names[data.unit[row]]),
      ...shown.map((column) => make("td", { class: numeric(column) }, data.told(column, row)))));
    const rest = points.length - body.length;
    place.append(
      make("p", { class: "buttons" }, make("strong", {}, `${points.length} selected`), save, clear),
      make("div", { class: "scroll", role: "region", "aria-label": "Selected checkpoints", tabindex: "0" },
        make("table", {}, make("thead", {}, head), make("tbody", {}, ...body))),
    );
    if (rest > 0) place.append(make("p", {}, `${rest} further ones are in the CSV file.`));
  }
}
