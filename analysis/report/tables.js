// Tables: sorted by a click on a heading, filtered by words and menus, filled a page of rows at a time.

const MOST_CHOICES = 14;
const FEW_ROWS = 12;
const FIRST_ROWS = 60;
const MORE_ROWS = 500;

// Of "0.95 ± 0.03" the number counts.
const numberIn = (text) => Number.parseFloat(text.replace("\u2212", "-"));
const isMissing = (value) => Number.isNaN(value) || value === "";

// Rows without a value stay last whichever way the others are sorted.
function compareValues(a, b, direction) {
  if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
  return direction * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
}

// The rows of a table that is in the page as it is, or of packed columns whose rows are made when they are shown.
function rowsOf(table, columns) {
  if (!columns) {
    return [...table.tBodies[0].rows].map((node) => ({ cells: [...node.cells].map((cell) => cell.textContent), node }));
  }
  const texts = columns.map((column) =>
    column.numbers
      ? column.numbers.map((value) => (value === null ? "" : String(value)))
      : column.codes.map((code) => column.levels[code]),
  );
  return (texts[0] ?? []).map((_, index) => ({ cells: texts.map((column) => column[index]), node: null }));
}

function rowNode(row, numeric) {
  row.node ??= make(
    "tr",
    {},
    ...row.cells.map((text, index) =>
      make("td", { class: numeric[index] ? "n" : text.length > 60 ? "long" : null }, text),
    ),
  );
  return row.node;
}

function activateTable(table, columns) {
  const heads = [...table.tHead.rows[0].cells];
  const numeric = heads.map((head) => head.classList.contains("n"));
  const names = heads.map((head) => head.textContent.trim());
  const rows = rowsOf(table, columns);
  const state = { order: rows, kept: rows, shown: FIRST_ROWS, passes: () => true };
  const frame = table.parentElement;
  const more = make("p", { class: "more" });
  frame.after(more);

  function show() {
    const visible = state.kept.slice(0, state.shown);
    table.tBodies[0].replaceChildren(...visible.map((row) => rowNode(row, numeric)));
    const rest = state.kept.length - visible.length;
    more.replaceChildren();
    if (rest <= 0) return;
    const next = button(`Show ${Math.min(rest, MORE_ROWS)} more of ${rest}`, () => {
      state.shown += MORE_ROWS;
      show();
    });
    more.append(next);
  }
  function update() {
    state.kept = state.order.filter(state.passes);
    state.shown = FIRST_ROWS;
    show();
  }

  heads.forEach((head, column) => {
    const press = button("", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const keyed = rows.map((row) => [numeric[column] ? numberIn(row.cells[column]) : row.cells[column], row]);
      keyed.sort((one, other) => compareValues(one[0], other[0], direction));
      state.order = keyed.map(([, row]) => row);
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      update();
    });
    press.append(...head.childNodes);
    head.replaceChildren(press);
  });
  if (rows.length >= FEW_ROWS) {
    state.passes = makeFilters(frame, rows, names, numeric, update);
  }
  show();
}

function makeFilters(frame, rows, names, numeric, update) {
  const words = rows.map((row) => row.cells.join(" ").toLowerCase());
  const place = new Map(rows.map((row, index) => [row, index]));
  const search = make("input", { type: "search" });
  const count = make("output", { "aria-live": "polite" });
  const menus = [];
  names.forEach((name, column) => {
    const values = [...new Set(rows.map((row) => row.cells[column]))].sort();
    if (numeric[column] || values.length < 2 || values.length > MOST_CHOICES) return;
    const options = values.map((value) => make("option", { value }, value === "" ? "(none)" : value));
    menus.push([column, make("select", {}, make("option", { value: "*" }, "all"), ...options), name]);
  });
  let wanted = [];
  let chosen = [];
  const changed = () => {
    wanted = search.value.toLowerCase().split(/\s+/);
    chosen = menus.filter(([, select]) => select.selectedIndex > 0);
    update();
    const kept = rows.filter(passes).length;
    count.textContent = kept === rows.length ? "" : `${kept} of ${rows.length} rows`;
  };
  const passes = (row) =>
    wanted.every((word) => words[place.get(row)].includes(word)) &&
    chosen.every(([column, select]) => row.cells[column] === select.value);
  search.addEventListener("input", changed);
  menus.forEach(([, select]) => select.addEventListener("change", changed));
  const labels = menus.map(([, select, name]) => make("label", {}, name, select));
  frame.before(make("div", { class: "filters" }, make("label", {}, "rows with", search), ...labels, count));
  return passes;
}

// Long tables are unpacked when they are opened.
function startTables() {
  document.querySelectorAll("details.table").forEach((details) => {
    const table = details.querySelector("table");
    const start = async () => {
      if (details.dataset.started) return;
      details.dataset.started = "1";
      activateTable(table, await (details.dataset.of ? explorerColumns() : unpack(`${details.id}-columns`)));
      details.dataset.ready = "1";
    };
    if (details.open) start();
    details.addEventListener("toggle", () => details.open && start());
  });
}
