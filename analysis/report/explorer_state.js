// What the explorer shows, as the fragment of the page's address, so that a view can be sent to others.

const EXPLORE = "#explore";

const pair = (text) => {
  const numbers = (text ?? "").split(",").map(Number);
  return numbers.length === 4 && numbers.every(Number.isFinite) && numbers[0] < numbers[1] && numbers[2] < numbers[3]
    ? { x: numbers.slice(0, 2), y: numbers.slice(2) }
    : null;
};
const written = (area) => [...area.x, ...area.y].map((value) => Number(value.toPrecision(5))).join(",");

// What the address says, as far as the data know it.
function readState(data, defaults) {
  const state = { ...defaults };
  if (!location.hash.startsWith(EXPLORE)) return state;
  const asked = new URLSearchParams(location.hash.slice(EXPLORE.length + 1));
  const among = (name, allowed) => {
    if (asked.has(name) && allowed(asked.get(name))) state[name] = asked.get(name);
  };
  const isMeasure = (name) => Boolean(data.column("measure", name));
  among("x", isMeasure);
  among("y", isMeasure);
  among("color", (key) => key === "" || data.byName.has(key));
  among("shape", (key) => key === "" || data.byName.get(key)?.role === "factor");
  const plan = Number(asked.get("plan") ?? NaN);
  if (data.plans[plan] !== undefined) state.plan = plan;
  if (asked.has("earlier")) state.earlier = asked.get("earlier") === "1";
  if (asked.has("means")) state.means = asked.get("means") === "1";
  state.view = pair(asked.get("view"));
  state.brush = pair(asked.get("brush"));
  // Each level is encoded by itself, so that commas in it do not end it.
  state.only = new Set((asked.get("only") ?? "").split(",").filter(Boolean).map(decodeLevel));
  return state;
}

function decodeLevel(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function writeState(state, defaults) {
  const said = new URLSearchParams();
  for (const name of ["x", "y", "color", "shape", "plan"]) {
    if (state[name] !== defaults[name]) said.set(name, state[name]);
  }
  for (const name of ["earlier", "means"]) {
    if (state[name] !== defaults[name]) said.set(name, state[name] ? "1" : "0");
  }
  if (state.only.size) said.set("only", [...state.only].map(encodeURIComponent).join(","));
  if (state.view) said.set("view", written(state.view));
  if (state.brush) said.set("brush", written(state.brush));
  const text = said.toString();
  history.replaceState(null, "", text ? `${EXPLORE}?${text}` : EXPLORE);
}
