// Axes: from numbers to pixels and back, round ticks.

function extent(values, pad = 0.05) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const margin = (high - low) * pad || Math.abs(high) * pad || 1;
  return [low - margin, high + margin];
}

function scale([low, high], [from, to]) {
  const slope = (to - from) / (high - low);
  const map = (value) => from + (value - low) * slope;
  map.invert = (pixel) => low + (pixel - from) / slope;
  map.domain = [low, high];
  return map;
}

function ticks([low, high], count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return found.map((value) => [value, Math.abs(value) >= 1e5 ? value.toExponential(1) : value.toFixed(digits)]);
}

// Mean and its 95 % interval (Student's t) over n values; that of a share ends at 0 and 1.
// Of two values it would be wider than the plot: fewer than three have none.
const FEWEST = 3;

function meanAndBar(values, t, isShare) {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < FEWEST) return { mean, low: mean, high: mean };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  const half = (t[n - 2] ?? 1.96 + 2.4 / (n - 1)) * Math.sqrt(variance / n);
  const [low, high] = [mean - half, mean + half];
  return isShare ? { mean, low: Math.max(low, 0), high: Math.min(high, 1) } : { mean, low, high };
}
