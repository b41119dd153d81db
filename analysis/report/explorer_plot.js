// The plot itself: grid, points, means with bars; dragging gives a rectangle, moving the nearest point.

const MARGIN = { top: 30, right: 14, bottom: 46, left: 58 };
const NEAR = 14;

class Plot {
  constructor(svg, { dragged, hovered, reset, zoomed }) {
    this.svg = svg;
    this.calls = { dragged, hovered, reset, zoomed };
    this.points = [];
    this.start = null;
    svg.addEventListener("pointerdown", (event) => this.down(event));
    svg.addEventListener("pointermove", (event) => this.move(event));
    svg.addEventListener("pointerup", (event) => this.up(event));
    svg.addEventListener("pointercancel", () => this.cancel());
    svg.addEventListener("pointerleave", () => this.calls.hovered(null));
    svg.addEventListener("dblclick", () => this.calls.reset());
    svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  at(event) {
    const area = this.svg.getBoundingClientRect();
    return [event.clientX - area.left, event.clientY - area.top];
  }

  draw({ points, means, titles, view, brush }) {
    const width = Math.max(280, Math.round(this.svg.parentElement.clientWidth));
    const height = Math.round(Math.min(560, Math.max(340, width * 0.62)));
    fill(this.svg, { viewBox: `0 0 ${width} ${height}`, width, height }, []);
    const [left, right] = [MARGIN.left, width - MARGIN.right];
    const [top, bottom] = [MARGIN.top, height - MARGIN.bottom];
    this.box = { left, right, top, bottom };
    this.x = scale(view.x, [left, right]);
    this.y = scale(view.y, [bottom, top]);
    const inside = draw("g", { "clip-path": "url(#explorer-clip)" });
    const clip = draw("clipPath", { id: "explorer-clip" }, draw("rect", { x: left - 6, y: top - 6, width: right - left + 12, height: bottom - top + 12 }));
    this.points = points.map((point) => ({ ...point, px: this.x(point.x), py: this.y(point.y) }));
    inside.append(...this.points.map((point) => this.mark(point)));
    if (means.length) inside.append(this.means(means));
    this.rectangle = draw("rect", { class: "brush", visibility: "hidden", "clip-path": "url(#explorer-clip)" });
    if (brush) this.place(brush);
    this.ring = draw("circle", { class: "ring", r: 9, visibility: "hidden" });
    this.svg.replaceChildren(clip, ...this.axes(width, height, titles), inside, this.rectangle, this.ring);
  }

  mark({ px, py, path, color, hollow, faded, size, row, chosen }) {
    const made = draw("path", { d: path, transform: `translate(${px.toFixed(1)},${py.toFixed(1)}) scale(${size})`, "data-row": row });
    made.setAttribute("class", `point${hollow ? " hollow" : ""}${faded ? " faded" : ""}${chosen ? " chosen" : ""}`);
    made.style.setProperty("--mark", color);
    return made;
  }

  means(means) {
    const group = draw("g", { class: "means" });
    const taken = means.map(({ x, y }) => ({ x0: this.x(x.mean) - 7, x1: this.x(x.mean) + 7, y0: this.y(y.mean) - 7, y1: this.y(y.mean) + 7 }));
    for (const { level, x, y, color, path } of means) {
      const [px, py] = [this.x(x.mean), this.y(y.mean)];
      const one = draw("g", { class: "mean", "data-level": level });
      one.style.setProperty("--mark", color);
      one.append(draw("line", { x1: this.x(x.low), x2: this.x(x.high), y1: py, y2: py }), draw("line", { x1: px, x2: px, y1: this.y(y.low), y2: this.y(y.high) }));
      one.append(draw("path", { d: path, transform: `translate(${px.toFixed(1)},${py.toFixed(1)}) scale(6.5)` }));
      group.append(one);
    }
    // Names lie over all marks, each where it covers no other name and no mean.
    for (const { level, x, y } of means) group.append(this.name(level, this.x(x.mean), this.y(y.mean), taken));
    return group;
  }

  name(level, px, py, taken) {
    const text = clipped(level || "not given", 22);
    const width = text.length * 7.2;
    const places = [[10, -8], [10, 16], [-10, -8], [-10, 16], [10, -22], [10, 30], [-10, -22], [-10, 30]];
    const boxes = places.map(([dx, dy]) => ({ dx, dy, x0: dx > 0 ? px + dx : px + dx - width, x1: dx > 0 ? px + dx + width : px + dx, y0: py + dy - 10, y1: py + dy + 2 }));
    const free = (box) => box.x0 > this.box.left && box.x1 < this.box.right + 8 &&
      taken.every((other) => box.x1 < other.x0 || box.x0 > other.x1 || box.y1 < other.y0 || box.y0 > other.y1);
    const best = boxes.find(free) ?? boxes[px > this.box.right - width ? 2 : 0];
    taken.push(best);
    return draw("text", { x: px + best.dx, y: py + best.dy, "text-anchor": best.dx > 0 ? "start" : "end" }, text);
  }

  axes(width, height, titles) {
    const { left, right, top, bottom } = this.box;
    const grid = draw("g", { class: "grid" });
    const labels = draw("g", { class: "ticks" });
    for (const [value, text] of ticks(this.x.domain, width < 500 ? 4 : 8)) {
      const at = this.x(value);
      grid.append(draw("line", { x1: at, x2: at, y1: top, y2: bottom }));
      labels.append(draw("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, text));
    }
    for (const [value, text] of ticks(this.y.domain, 7)) {
      const at = this.y(value);
      grid.append(draw("line", { x1: left, x2: right, y1: at, y2: at }));
      labels.append(draw("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, text));
    }
    const named = draw("g", { class: "titles" },
      draw("text", { x: right, y: height - 8, "text-anchor": "end" }, titles.x),
      draw("text", { x: 4, y: 16 }, titles.y));
    return [grid, labels, named];
  }

  place({ x, y }) {
    const [x0, x1] = x.map((value) => this.x(value)).sort((a, b) => a - b);
    const [y0, y1] = y.map((value) => this.y(value)).sort((a, b) => a - b);
    this.frame(x0, y0, x1, y1);
  }

  frame(x0, y0, x1, y1) {
    fill(this.rectangle, { x: x0, y: y0, width: x1 - x0, height: y1 - y0, visibility: "visible" }, []);
  }

  nearest([x, y], within = NEAR) {
    let [best, least] = [null, within ** 2];
    for (const point of this.points) {
      const distance = (point.px - x) ** 2 + (point.py - y) ** 2;
      if (distance < least && !point.faded) [best, least] = [point, distance];
    }
    return best;
  }

  highlight(point) {
    fill(this.ring, point ? { cx: point.px, cy: point.py, visibility: "visible" } : { visibility: "hidden" }, []);
  }

  down(event) {
    if (event.button !== 0) return;
    this.start = this.at(event);
    this.svg.setPointerCapture(event.pointerId);
  }

  move(event) {
    const now = this.at(event);
    if (!this.start) {
      this.calls.hovered(this.nearest(now));
      return;
    }
    const [[x0, x1], [y0, y1]] = [0, 1].map((axis) => [this.start[axis], now[axis]].sort((a, b) => a - b));
    this.frame(x0, y0, x1, y1);
  }

  up(event) {
    if (!this.start) return;
    const [[x0, y0], [x1, y1]] = [this.start, this.at(event)];
    this.start = null;
    if (Math.abs(x1 - x0) < 4 || Math.abs(y1 - y0) < 4) {
      this.calls.dragged(null);
      return;
    }
    const sorted = (map, a, b) => [map.invert(a), map.invert(b)].sort((one, other) => one - other);
    this.calls.dragged({ x: sorted(this.x, x0, x1), y: sorted(this.y, y0, y1) });
  }

  cancel() {
    this.start = null;
    this.rectangle.setAttribute("visibility", "hidden");
  }

  // With Ctrl or ⌘ alone: the wheel by itself scrolls the page.
  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const [x, y] = this.at(event);
    this.calls.zoomed(event.deltaY > 0 ? 1.25 : 0.8, [this.x.invert(x), this.y.invert(y)]);
  }
}
