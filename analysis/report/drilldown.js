// Single images: the least stable ones of a network, the shifts that flip them, its classes, and a second network.

const ORDERS = [
  { value: "flip_rate", title: "most flips" },
  { value: "nearest_flip", title: "smallest shift that flips" },
  { value: "lowest_probability", title: "lowest probability" },
  { value: "difference", title: "difference between the two" },
  { value: "image", title: "number of the image" },
];
const MOST_CLASSES = 20;

async function startDrilldown() {
  const payload = await unpack("drilldown-data");
  if (!payload) return;
  new Drilldown(payload);
  byId("images").dataset.ready = "1";
}

class Drilldown {
  constructor(data) {
    this.data = data;
    this.state = { a: 0, b: data.networks.length > 1 ? 1 : -1, plan: 0, order: "flip_rate", pictures: false };
    this.controls();
    this.show();
  }

  set(change) {
    Object.assign(this.state, change);
    this.show();
  }

  controls() {
    const { data, state } = this;
    const networks = data.networks.map((title, value) => ({ value: String(value), title }));
    const choose = (title, options, name) =>
      menu(title, options, String(state[name]), (value) => this.set({ [name]: name === "order" ? value : Number(value) })).element;
    const made = [
      choose("network A", networks, "a"),
      choose("beside it, B", [{ value: "-1", title: "none" }, ...networks], "b"),
      choose("shifts", data.plans.map((title, value) => ({ value: String(value), title })), "plan"),
      choose("images by", ORDERS, "order"),
    ];
    if (Object.keys(data.thumbnails).length) made.push(box("thumbnails", false, (pictures) => this.set({ pictures })).element);
    byId("drilldown-controls").replaceChildren(...made);
  }

  show() {
    const { data, state } = this;
    this.view = data.views[state.plan];
    this.two = state.b >= 0 && state.b !== state.a && this.view.of[state.b];
    byId("drilldown-pair").replaceChildren(...this.compared());
    byId("drilldown-classes").replaceChildren(...this.classes());
    byId("drilldown-strip").replaceChildren(...this.strip());
  }

  compared() {
    const { data, state, view } = this;
    if (!this.two) return [];
    const turned = state.a > state.b;
    const rows = view.pairs[turned ? `${state.b},${state.a}` : `${state.a},${state.b}`];
    if (!rows) return [make("p", {}, "These two have no images under the same shifts in common.")];
    const sign = turned ? -1 : 1;
    const points = (value) => (value === null ? "" : (100 * value).toFixed(1));
    const body = rows.map((row) => {
      const [low, high] = turned && row.low !== null ? [-row.high, -row.low] : [row.low, row.high];
      const [first, second] = turned ? [row.value_b, row.value_a] : [row.value_a, row.value_b];
      const [onlyA, onlyB] = turned ? [row.only_b, row.only_a] : [row.only_a, row.only_b];
      const change = row.difference === null ? row.reason : `${points(sign * row.difference)} (${low === null ? row.reason : `${points(low)} to ${points(high)}`})`;
      const test = onlyA === null ? "Wilcoxon" : `McNemar, ${onlyA} against ${onlyB} images`;
      return make("tr", {},
        make("th", { scope: "row" }, row.score === "stable" ? "no shift changes the class" : row.score),
        make("td", { class: "n" }, points(first)), make("td", { class: "n" }, points(second)), make("td", { class: "n" }, change),
        make("td", { class: "n" }, row.p === null ? "" : row.p < 1e-4 ? "< 0.0001" : shortNumber(row.p)), make("td", {}, row.p === null ? row.reason : test));
    });
    const heads = ["in %", "A", "B", "B − A (95 % interval)", "p", "test"];
    const head = make("tr", {}, ...heads.map((text, index) => make("th", { scope: "col", class: index && index < 5 ? "n" : null }, text)));
    return [
      make("h3", {}, `A and B on the same ${rows[0].n_images} images`),
      make("div", { class: "scroll", role: "region", "aria-label": "Two networks on the same images", tabindex: "0" },
        make("table", {}, make("thead", {}, head), make("tbody", {}, ...body))),
    ];
  }

  classes() {
    const { data, state, view } = this;
    const sides = (this.two ? [state.a, state.b] : [state.a]).map((place) => view.classes[place] ?? []);
    if (!sides[0].length) return [];
    const worst = [...sides[0]].sort((one, other) => one.consistency - other.consistency);
    const rows = worst.slice(0, MOST_CLASSES);
    const low = Math.min(...sides.flat().map((row) => row.low ?? row.consistency ?? 1));
    const [width, step, left] = [520, this.two ? 26 : 20, 88];
    const height = rows.length * step + 34;
    const x = scale([Math.max(0, low - 0.03), 1], [left, width - 12]);
    const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "classes", role: "img", "aria-label": "Consistency per class; the table Stability of classes holds the numbers" });
    for (const [value, text] of ticks(x.domain, 5)) {
      picture.append(draw("line", { class: "grid", x1: x(value), x2: x(value), y1: 4, y2: height - 28 }), draw("text", { x: x(value), y: height - 12, "text-anchor": "middle" }, text));
    }
    rows.forEach((row, index) => {
      const y = index * step + step / 2 + 4;
      picture.append(draw("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, `class ${row.label}`));
      sides.forEach((side, which) => {
        const mine = side.find((other) => other.label === row.label);
        if (!mine || mine.consistency === null) return;
        const at = y + (this.two ? which * 10 - 5 : 0);
        const one = draw("g", { class: which ? "b" : "a" });
        if (mine.low !== null) one.append(draw("line", { x1: x(mine.low), x2: x(mine.high), y1: at, y2: at }));
        one.append(draw(which ? "rect" : "circle", which ? { x: x(mine.consistency) - 4, y: at - 4, width: 8, height: 8 } : { cx: x(mine.consistency), cy: at, r: 4.5 }));
        one.append(draw("title", {}, `${mine.n_images} images, ${(100 * mine.share_stable).toFixed(0)} % of them stable${mine.flips_to === null ? "" : `, flips to class ${mine.flips_to}`}`));
        picture.append(one);
      });
    });
    const left_out = worst.length - rows.length;
    const about = `Consistency with its 95 % interval, least stable class of A first${left_out > 0 ? `; ${left_out} more stable ones are in the table` : ""}. `;
    return [make("h3", {}, "Stability of each class"), make("p", {}, about, ...this.key()), picture];
  }

  key() {
    const { data, state } = this;
    const one = (kind, place) => make("span", { class: `key ${kind}` }, `${kind.toUpperCase()}: ${clipped(data.networks[place], 60)}`);
    return this.two ? [one("a", state.a), " ", one("b", state.b)] : [one("a", state.a)];
  }

  strip() {
    const { data, state, view } = this;
    const [a, b] = [view.of[state.a], this.two ? view.of[state.b] : null];
    if (!a) return [make("p", {}, "This network has no predictions under these shifts.")];
    const shown = [...new Set([...a.least, ...(b ? b.least : [])])];
    const known = (value, instead) => (value === null ? instead : value);
    const key = {
      flip_rate: (at) => -known(a.flip_rate[at], -1),
      nearest_flip: (at) => known(a.nearest_flip[at], Infinity),
      lowest_probability: (at) => known(a.lowest_probability[at], 2),
      difference: (at) => (b ? -Math.abs(known(a.flip_rate[at], 0) - known(b.flip_rate[at], 0)) : 0),
      image: (at) => view.images[at],
    }[state.order];
    shown.sort((one, other) => key(one) - key(other) || view.images[one] - view.images[other]);
    const cards = shown.map((at) => this.card(at, [[a, "a"], ...(b ? [[b, "b"]] : [])]));
    const which = b ? "Least stable images of A and of B" : "Least stable images of A";
    return [
      make("h3", {}, which),
      make("p", {}, "A map per image: a dot where it was shifted to, and the class in its place where that is not the class of the unshifted image."),
      make("ul", { class: "cards" }, ...cards),
    ];
  }

  card(at, sides) {
    const { data, state, view } = this;
    const picture = state.pictures && data.thumbnails[view.data]?.[view.images[at]];
    const label = view.labels[at] >= 0 ? [make("div", { class: "told" }, `class ${view.labels[at]}`)] : [];
    const head = make("div", { class: "head" }, make("div", {}, `image ${view.images[at]}`, ...label));
    if (picture) head.append(make("img", { src: picture, alt: "", width: 40, height: 40 }));
    const maps = sides.map(([side, kind]) => {
      const flips = side.n_shifts_flipped[at];
      const all = side.prediction[at]?.length ?? 0;
      const near = side.nearest_flip[at];
      const told = flips === null ? "not predicted" : flips ? `${flips} of ${all} flip, from ${near} px` : `none of ${all} flips`;
      return make("div", { class: `side ${kind}` }, this.map(at, side), make("div", {}, `${sides.length > 1 ? `${kind.toUpperCase()}: ` : ""}says ${side.clean_prediction[at] ?? "?"}`), make("div", { class: "told" }, told));
    });
    return make("li", {}, head, make("div", { class: "sides" }, ...maps));
  }

  map(at, side) {
    const { view } = this;
    const reach = Math.max(1, ...view.dy[at].map(Math.abs), ...view.dx[at].map(Math.abs));
    const edge = reach + 0.9;
    const made = draw("svg", { viewBox: `${-edge} ${-edge} ${2 * edge} ${2 * edge}`, class: "map", "aria-hidden": "true" });
    made.append(draw("path", { class: "cross", d: `M${-edge},0H${edge}M0,${-edge}V${edge}` }));
    const unit = edge / 9;
    side.prediction[at]?.forEach((predicted, k) => {
      const [x, y] = [view.dx[at][k], view.dy[at][k]];
      if (predicted === side.clean_prediction[at]) {
        made.append(draw("circle", { cx: x, cy: y, r: unit * 0.75, class: "kept" }));
        return;
      }
      made.append(draw("circle", { cx: x, cy: y, r: unit * 1.7, class: "flipped" }));
      if (predicted < 100) made.append(draw("text", { x, y: y + unit * 0.85, "font-size": unit * (predicted < 10 ? 2.5 : 1.8), "text-anchor": "middle" }, String(predicted)));
    });
    return made;
  }
}
