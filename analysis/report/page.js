(() => {
  "use strict";
  const MOST_CHOICES = 14;
  const FEW_ROWS = 12;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const isEmpty = (text) => text === "";

  // Of "0.95 ± 0.03" the number counts; nothing where there is none.
  const numberIn = (text) => Number.parseFloat(text.replace("\u2212", "-"));
  const isMissing = (value) => Number.isNaN(value) || isEmpty(value);

  // Rows without a value stay last whichever way the others are sorted.
  function compare(a, b, direction) {
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
    return direction * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        const numeric = head.classList.contains("n");
        const keyed = [...table.tBodies[0].rows].map((row) => {
          const text = row.cells[column].textContent;
          return [numeric ? numberIn(text) : text, row];
        });
        keyed.sort((one, other) => compare(one[0], other[0], direction));
        table.tBodies[0].append(...keyed.map(([, row]) => row));
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      });
    });
  }

  function makeFilterable(table, before) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < FEW_ROWS) return;
    const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent));
    const words = texts.map((cells) => cells.join(" ").toLowerCase());
    const search = make("input", { type: "search" });
    const count = make("output", { "aria-live": "polite" });
    const menus = [];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const values = [...new Set(texts.map((cells) => cells[column]))].sort();
      if (head.classList.contains("n") || values.length < 2 || values.length > MOST_CHOICES) return;
      const options = values.map((value) => make("option", { value }, isEmpty(value) ? "(none)" : value));
      menus.push([column, make("select", {}, make("option", { value: "*" }, "all"), ...options), head.textContent]);
    });
    const update = () => {
      const wanted = search.value.toLowerCase().split(/\s+/);
      const chosen = menus.filter(([, menu]) => menu.selectedIndex > 0);
      let kept = 0;
      rows.forEach((row, index) => {
        const found = wanted.every((word) => words[index].includes(word));
        row.hidden = !(found && chosen.every(([column, menu]) => texts[index][column] === menu.value));
        kept += !row.hidden;
      });
      count.textContent = kept === rows.length ? "" : `${kept} of ${rows.length} rows`;
    };
    search.addEventListener("input", update);
    menus.forEach(([, menu]) => menu.addEventListener("change", update));
    const labels = menus.map(([, menu, name]) => make("label", {}, name, menu));
    before.before(make("div", { class: "filters" }, make("label", {}, "rows with", search), ...labels, count));
  }

  document.querySelectorAll("details.table table").forEach((table) => {
    makeFilterable(table, table.parentElement);
    makeSortable(table);
  });

  // A link to what is folded, or into it, opens it.
  const unfold = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const folded = target && target.closest("details");
    if (!folded) return;
    folded.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  unfold();
  if (matchMedia("(max-width: 60rem)").matches) document.querySelector("nav details").open = false;

  const specification = JSON.parse(document.getElementById("scatter-specification").textContent);
  const { renderer } = specification.usermeta.embedOptions;
  const actions = { export: true, source: false, compiled: false, editor: false };
  // `ast`: expressions are interpreted, so that the page needs no right to make code from text.
  vegaEmbed("#scatter", specification, { renderer, actions, ast: true, bind: "#scatter-choices" })
    .then((embedded) => { window.scatter = embedded.view; });
})();
