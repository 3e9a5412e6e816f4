/** A plot as SVG: time to the first query against the size of the database, both axes logarithmic. */

export interface Series {
  readonly name: string;
  /** Bytes and seconds, both above 0. */
  readonly points: readonly { readonly bytes: number; readonly seconds: number }[];
}

const WIDTH = 720;
const HEIGHT = 420;
const MARGIN = { left: 70, right: 170, top: 40, bottom: 50 };
const COLOURS = ['#0b6e4f', '#c8553d', '#3d5a98', '#8a6d1d', '#6a3d9a'];

/** Throws RangeError if there is nothing to draw. */
export function renderPlot(title: string, series: readonly Series[]): string {
  const points = series.flatMap((each) => each.points);
  if (points.length === 0) throw new RangeError('there is nothing to plot');
  const x = axis(
    points.map(({ bytes }) => bytes),
    MARGIN.left,
    WIDTH - MARGIN.right,
  );
  const y = axis(
    points.map(({ seconds }) => seconds),
    HEIGHT - MARGIN.bottom,
    MARGIN.top,
  );
  const parts = [
    text(WIDTH / 2, 22, title, 'middle'),
    text((MARGIN.left + WIDTH - MARGIN.right) / 2, HEIGHT - 12, 'size of the files in the snapshot', 'middle'),
    ...x.decades.flatMap((bytes) => [
      line(x.at(bytes), MARGIN.top, x.at(bytes), HEIGHT - MARGIN.bottom),
      text(x.at(bytes), HEIGHT - MARGIN.bottom + 18, siBytes(bytes), 'middle'),
    ]),
    ...y.decades.flatMap((seconds) => [
      line(MARGIN.left, y.at(seconds), WIDTH - MARGIN.right, y.at(seconds)),
      text(MARGIN.left - 8, y.at(seconds) + 4, `${seconds} s`, 'end'),
    ]),
    ...series.flatMap((each, i) => drawSeries(each, COLOURS[i % COLOURS.length]!, { x: x.at, y: y.at, row: i })),
  ];
  const size = `width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}"`;
  const style = 'font-family="sans-serif" font-size="12"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${style}>\n<rect width="100%" height="100%" fill="white"/>\n${parts.join('\n')}\n</svg>\n`;
}

function drawSeries(
  { name, points }: Series,
  colour: string,
  { x, y, row }: { x: (value: number) => number; y: (value: number) => number; row: number },
): string[] {
  const sorted = [...points].sort((a, b) => a.bytes - b.bytes);
  const places = sorted.map(({ bytes, seconds }) => [x(bytes).toFixed(1), y(seconds).toFixed(1)] as const);
  const legendAt = MARGIN.top + 10 + row * 20;
  return [
    `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${places.map((place) => place.join(',')).join(' ')}"/>`,
    ...places.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3.5" fill="${colour}"/>`),
    `<circle cx="${WIDTH - MARGIN.right + 16}" cy="${legendAt - 4}" r="4" fill="${colour}"/>`,
    text(WIDTH - MARGIN.right + 26, legendAt, name, 'start'),
  ];
}

/** A logarithmic scale over whole decades, from `first` to `last` pixels. */
function axis(values: readonly number[], first: number, last: number) {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
  const decades = Array.from({ length: high - low + 1 }, (_, i) => Number(`1e${low + i}`));
  return { decades, at: (value: number) => first + ((Math.log10(value) - low) / (high - low)) * (last - first) };
}

function siBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(bytes) / 3)));
  return `${bytes / 1000 ** step} ${units[step]}`;
}

function line(x1: number, y1: number, x2: number, y2: number): string {
  return `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="#ddd"/>`;
}

function text(x: number, y: number, content: string, anchor: 'start' | 'middle' | 'end'): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}">${escapeXml(content)}</text>`;
}

function escapeXml(content: string): string {
  return content.replace(/[<>&"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
