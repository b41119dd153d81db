// The legend: a button per level. The first press shows a level alone, further ones add or take away others.

function drawLegend(element, { color, shape, only, counts, changed }) {
  const combined = color.column === shape.column || !shape.column;
  element.replaceChildren();
  element.append(...group(color, (level) => [shape.column && combined ? shape.shape(level) : color.shape(level), color.color(level)], only, counts, changed));
  if (!combined) {
    const plain = shape.levels.map((level) => make("li", {}, sign(shape.shape(level), "var(--ink)"), named(level)));
    element.append(make("h3", {}, shape.column.title), make("ul", { class: "plain" }, ...plain));
  }
}

const named = (level) => make("span", { class: "level" }, clipped(level === "" ? "not given" : level, 40));

function sign(path, color) {
  const made = draw("svg", { viewBox: "-1.4 -1.4 2.8 2.8", width: 13, height: 13, "aria-hidden": "true" }, draw("path", { d: path }));
  made.style.fill = color;
  return made;
}

function group(coding, look, only, counts, changed) {
  if (!coding.column) return [];
  const levels = coding.levels;
  const items = levels.map((level) => {
    const on = !only.size || only.has(level);
    const press = button("", () => changed(toggled(level, levels, only), level), { class: "entry", "aria-pressed": String(on), "data-level": level });
    const [path, paint] = look(level);
    press.append(sign(path, paint), named(level), make("span", { class: "count" }, String(counts.get(level) ?? 0)));
    return make("li", {}, press);
  });
  return [make("h3", {}, coding.column.title), make("ul", {}, ...items)];
}

function toggled(level, levels, only) {
  if (!only.size) return new Set([level]);
  const next = new Set(only);
  if (!next.delete(level)) next.add(level);
  return next.size === levels.length ? new Set() : next;
}
