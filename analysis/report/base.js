// What every part of the page uses: elements, packed values, numbers as text, files to save.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

// Names come from other people's files: they become text nodes and attributes, never markup.
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Deflated JSON in base 64; nothing where the page has no such element.
async function unpack(id) {
  const element = byId(id);
  if (!element) return null;
  const bytes = Uint8Array.from(atob(element.textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function shortNumber(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  const size = Math.abs(value);
  if (Number.isInteger(value)) return String(value);
  return size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(2);
}

const clipped = (text, length = 64) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

// A text that a spreadsheet would take for a formula is marked as text.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function saveCsv(name, head, rows) {
  const text = [head, ...rows].map((row) => row.map(csvCell).join(",")).join("\n");
  const address = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" }));
  const link = make("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  return text;
}

function menu(title, options, value, changed) {
  const select = make("select");
  const groups = new Map();
  for (const { value: key, title: label, group } of options) {
    const option = make("option", { value: key, selected: key === value }, label);
    if (!group) {
      select.append(option);
      continue;
    }
    if (!groups.has(group)) {
      groups.set(group, make("optgroup", { label: group }));
      select.append(groups.get(group));
    }
    groups.get(group).append(option);
  }
  select.addEventListener("change", () => changed(select.value));
  return { element: make("label", {}, make("span", {}, title), select), select };
}

function box(title, checked, changed) {
  const input = make("input", { type: "checkbox", checked });
  input.addEventListener("change", () => changed(input.checked));
  return { element: make("label", { class: "box" }, input, make("span", {}, title)), input };
}

function button(title, pressed, attributes = {}) {
  const made = make("button", { type: "button", ...attributes }, title);
  made.addEventListener("click", pressed);
  return made;
}
