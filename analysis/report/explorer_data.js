// The explorer's data: values of a column row by row, the levels of a factor, and how a level looks.

// The explorer's rows as columns of a table: checkpoint, shifts, everything else.
async function explorerColumns() {
  const { names, plans, plan, unit, columns } = await unpack("explorer-data");
  const spread = ({ of, numbers, levels, codes }) => {
    const at = (values) => (of === "unit" ? unit.map((place) => values[place]) : values);
    return numbers ? { numbers: at(numbers) } : { levels, codes: at(codes) };
  };
  return [{ levels: names, codes: unit }, { levels: plans, codes: plan }, ...columns.map(spread)];
}

const BINS = 5;
const MOST_LEVELS = 24;
const OTHERS = "others";

class ExplorerData {
  constructor(payload) {
    Object.assign(this, payload);
    this.byName = new Map(this.columns.map((column) => [`${column.role}:${column.name}`, column]));
    this.measures = this.columns.filter((column) => column.role === "measure");
    this.factors = this.columns.filter((column) => column.role === "factor");
    this.varied = this.factors.filter((column) => column.levels && new Set(column.codes).size > 1);
  }

  column(role, name) {
    return this.byName.get(`${role}:${name}`);
  }

  place(column, row) {
    return column.of === "unit" ? this.unit[row] : row;
  }

  value(column, row) {
    const place = this.place(column, row);
    return column.numbers ? column.numbers[place] : column.levels[column.codes[place]];
  }

  interval(column, row) {
    const place = this.place(column, row);
    const low = column.low?.[place] ?? null;
    return low === null ? null : [low, column.high[place]];
  }

  told(column, row) {
    const value = this.value(column, row);
    if (value === null || value === "") return "no number";
    if (!column.numbers) return value;
    const ends = this.interval(column, row);
    return shortNumber(value) + (ends ? ` (${shortNumber(ends[0])} to ${shortNumber(ends[1])})` : "");
  }

  // "factor:operator" or "measure:see" as a function from row to level, its levels in order, and their look.
  coding(key, rows) {
    const column = this.byName.get(key);
    if (!column) return { column: null, level: () => "", levels: [""], color: () => this.palette[1], shape: () => this.shapes[0] };
    return column.role === "measure" ? this.binned(column, rows) : this.levelled(column, rows);
  }

  levelled(column, rows) {
    const counts = new Map();
    for (const row of rows) {
      const value = this.value(column, row);
      counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    const known = Object.keys(this.marks);
    const rank = (value) => (column.name === "operator" ? known.indexOf(value) : value === "" ? Infinity : 0);
    let levels = [...counts.keys()];
    const many = levels.length > MOST_LEVELS;
    if (many) levels = levels.sort((a, b) => counts.get(b) - counts.get(a)).slice(0, MOST_LEVELS - 1);
    levels.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b, "en", { numeric: true }));
    const kept = new Set(levels);
    if (many) levels.push(OTHERS);
    const index = new Map(levels.map((level, place) => [level, place]));
    const mark = (level) => (column.name === "operator" ? this.marks[level] : undefined);
    return {
      column,
      levels,
      level: (row) => {
        const value = this.value(column, row);
        return kept.has(value) ? value : OTHERS;
      },
      color: (level) => mark(level)?.[0] ?? this.palette[(index.get(level) * 5 + 1) % this.palette.length],
      shape: (level) => mark(level)?.[1] ?? this.shapes[index.get(level) % this.shapes.length],
    };
  }

  // Five groups from little to much, of equal size; of equal width where too many values are the same for that.
  binned(column, rows) {
    const sorted = rows.map((row) => this.value(column, row)).filter((value) => value !== null).sort((a, b) => a - b);
    const cuts = Array.from({ length: BINS + 1 }, (_, i) => sorted[Math.round((i * (sorted.length - 1)) / BINS)] ?? 0);
    const even = cuts.map((_, i) => cuts[0] + (i * (cuts[BINS] - cuts[0])) / BINS);
    const distinct = new Set(cuts).size > BINS - 1 ? cuts : even;
    const inner = [...new Set(distinct.slice(1, -1))];
    const ends = [cuts[0], ...inner, cuts[BINS]];
    const levels = ends.slice(1).map((end, i) => `${shortNumber(ends[i])} to ${shortNumber(end)}`);
    const missing = "no number";
    const index = new Map(levels.map((level, place) => [level, place]));
    const step = levels.length > 1 ? (this.ramp.length - 1) / (levels.length - 1) : 0;
    return {
      column,
      levels: rows.some((row) => this.value(column, row) === null) ? [...levels, missing] : levels,
      level: (row) => {
        const value = this.value(column, row);
        return value === null ? missing : levels[inner.filter((cut) => value > cut).length];
      },
      color: (level) => (index.has(level) ? this.ramp[Math.round(index.get(level) * step)] : "var(--quiet)"),
      shape: () => this.shapes[0],
    };
  }
}
