/**
 * The tab "Epochcast": a table of probed configurations and pictures above one or two traces.
 *
 *   ┌ header: count, filter ───────────────────────────┐
 *   │ table: click a title to sort; Open, Compare, Save │
 *   │ pictures: measured, predicted, followed; put away │
 *   │ while traces are open                             │
 *   ├──────────────────────┬───────────────────────────┤
 *   │ Perfetto: opened     │ Perfetto: compared        │
 *   └──────────────────────┴───────────────────────────┘
 *
 * Every text from a measurement enters the page as text (textContent), never as HTML. Addresses
 * are relative to this module, because TensorBoard may be served below a path of its own.
 */

const REFRESH_MS = 5000; // as often as TensorBoard itself reads its files
// Show the operators at once; the profiler's own track of whole spans may stay folded.
const EXPAND_PROCESSES = {id: 'dev.perfetto.ExpandTracksByRegex', args: ['^(?!Spans)']};
const BASE = new URL('../', import.meta.url);

const state = {
  table: {
    columns: [],
    rows: [],
    problems: [],
    pictures: [],
    perfetto: {available: true, message: ''},
  },
  sort: {key: null, descending: false},
  workload: '',
  panes: [], // the rows whose traces are open: at most two, left and right
  dark: false,
};
const parts = {}; // the elements that change

export async function render() {
  addStylesheet();
  followTheme();
  buildPage();
  await refresh();
  setInterval(refresh, REFRESH_MS);
}

function element(name, {text, ...attributes} = {}, children = []) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, '');
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  if (text != null) node.textContent = text;
  node.append(...children);
  return node;
}

function addStylesheet() {
  const href = new URL('style.css', import.meta.url).href;
  document.head.append(element('link', {rel: 'stylesheet', href}));
}

/** As dark as TensorBoard around us, which marks its body; it is of the same origin. */
function followTheme() {
  const outside = window.parent.document.body;
  const apply = () => {
    state.dark = outside.classList.contains('dark-mode');
    document.documentElement.classList.toggle('dark', state.dark);
    if (parts.pictures) drawPictures();
  };
  apply();
  new MutationObserver(apply).observe(outside, {attributeFilter: ['class']});
}

function buildPage() {
  parts.count = element('span', {class: 'count', role: 'status'});
  parts.workload = element('select', {
    id: 'workload',
    onchange: () => {
      state.workload = parts.workload.value;
      drawTable();
      drawPictures();
    },
  });
  parts.notices = element('ul', {class: 'notices'});
  parts.list = element('div', {class: 'list'});
  parts.pictures = element('div', {class: 'pictures'});
  parts.traces = element('div', {class: 'traces'});
  document.body.append(
    element('header', {}, [
      element('h1', {text: 'Probed configurations'}),
      parts.count,
      element('label', {}, ['Workload ', parts.workload]),
    ]),
    parts.notices,
    element('div', {class: 'board'}, [parts.list, parts.pictures]),
    parts.traces,
  );
}

let known = null; // the last answer, as text

async function refresh() {
  let text;
  try {
    const response = await fetch(new URL('configurations', BASE), {cache: 'no-cache'});
    if (!response.ok) throw new Error(`TensorBoard answered ${response.status}`);
    text = await response.text();
  } catch (error) {
    known = null;
    return drawNotices([`Cannot read the configurations: ${error.message}. Trying again.`]);
  }
  if (text === known) return;
  known = text;
  state.table = JSON.parse(text);
  drawNotices([...state.table.problems, state.table.perfetto.message].filter(Boolean));
  drawFilter();
  drawTable();
  drawPictures();
}

function drawNotices(notices) {
  parts.notices.replaceChildren(...notices.map((text) => element('li', {text})));
}

function drawFilter() {
  const shown = [...state.table.rows, ...state.table.pictures];
  const names = [...new Set(shown.map((one) => one.workload))].sort();
  if (!names.includes(state.workload)) state.workload = '';
  const options = ['', ...names].map((name) =>
    element('option', {value: name, text: name || 'all', selected: name === state.workload}),
  );
  parts.workload.replaceChildren(...options);
}

function drawTable() {
  const rows = shownRows();
  const failed = rows.filter((row) => row.status !== 'ok').length;
  const plural = rows.length === 1 ? '' : 's';
  parts.count.textContent = `${rows.length} configuration${plural}, ${failed} failed`;
  if (rows.length === 0 && state.table.pictures.length > 0) return parts.list.replaceChildren();
  if (rows.length === 0) {
    const text = 'No configuration yet. Run: epochcast probe mnist-mlp --batch-sizes 32,64,128';
    return parts.list.replaceChildren(element('p', {class: 'empty', text}));
  }
  const table = element('table', {}, [
    element('thead', {}, [element('tr', {}, state.table.columns.map(drawTitle))]),
    element('tbody', {}, rows.map(drawRow)),
  ]);
  table.tHead.rows[0].append(element('th', {text: 'Trace'}));
  parts.list.replaceChildren(table);
}

/** A picture that has not changed keeps its element, and its place under the reader's eyes. */
function drawPictures() {
  const shown = state.table.pictures.filter((p) => !state.workload || p.workload === state.workload);
  const known = new Map([...parts.pictures.children].map((node) => [node.dataset.source, node]));
  const drawn = shown.map((picture) => {
    const source = new URL(`${picture.source}${state.dark ? '?dark' : ''}`, BASE).href;
    return known.get(source) ?? drawPicture(picture, source);
  });
  parts.pictures.replaceChildren(...drawn);
}

function drawPicture({title, caption}, source) {
  return element('figure', {'data-source': source}, [
    element('img', {src: source, alt: title, loading: 'lazy'}),
    element('figcaption', {}, [element('strong', {text: title}), ` ${caption}`]),
  ]);
}

function shownRows() {
  const {key, descending} = state.sort;
  const rows = state.table.rows.filter((row) => !state.workload || row.workload === state.workload);
  if (key === null) return rows;
  const value = (row) => row.cells[key]?.value ?? null;
  return rows.sort((a, b) => compare(value(a), value(b), descending));
}

/** Numbers by size, texts by alphabet, what is unknown last in both directions. */
function compare(a, b, descending) {
  if (a === null || b === null) return (a === null) - (b === null);
  const sameNumbers = typeof a === 'number' && typeof b === 'number';
  const order = sameNumbers ? a - b : String(a).localeCompare(String(b));
  return descending ? -order : order;
}

function drawTitle(column) {
  const sorted = state.sort.key === column.key;
  const direction = state.sort.descending ? 'descending' : 'ascending';
  const attributes = {class: column.numeric && 'numeric', 'aria-sort': sorted && direction};
  const onclick = () => {
    state.sort = {key: column.key, descending: sorted && !state.sort.descending};
    drawTable();
    parts.list.querySelector(`th[data-key="${CSS.escape(column.key)}"] button`).focus();
  };
  return element('th', {...attributes, scope: 'col', 'data-key': column.key}, [
    element('button', {type: 'button', text: column.title, onclick}),
  ]);
}

function drawRow(row) {
  const chosen = state.panes.some((open) => open.key === row.key);
  const classes = [row.status !== 'ok' && 'failed', chosen && 'chosen'].filter(Boolean).join(' ');
  return element('tr', {class: classes, 'data-key': row.key}, [
    ...state.table.columns.map((column) => drawCell(column, row)),
    drawActions(row),
  ]);
}

function drawCell(column, row) {
  const text = row.cells[column.key]?.text ?? '–';
  if (column.key !== 'status') {
    return element('td', {class: column.numeric && 'numeric', text});
  }
  const message = row.message ? [document.createTextNode(` ${row.message}`)] : [];
  return element('td', {class: 'status'}, [element('strong', {text}), ...message]);
}

function drawActions(row) {
  if (row.trace === null) return element('td', {class: 'none', text: row.untraced});
  const drawable = state.table.perfetto.available;
  const name = `${row.workload} ${row.label}`;
  const action = (text, title, onclick, disabled) =>
    element('button', {type: 'button', text, title, disabled, onclick});
  const save = {class: 'button', text: 'Save', title: `Download the trace of ${name}`};
  return element('td', {class: 'actions'}, [
    action('Open', `Open the trace of ${name}`, () => openTrace(row, 0), !drawable),
    action(
      'Compare',
      `Open the trace of ${name} beside the one that is open`,
      () => openTrace(row, 1),
      !drawable || state.panes.length === 0,
    ),
    element('a', {...save, href: new URL(row.trace, BASE).href, download: true}),
  ]);
}

async function openTrace(row, position) {
  state.panes[position] = row;
  const panes = (state.panes = [...state.panes]);
  const spans = panes.length < 2 ? [] : await Promise.all(panes.map(spanOf));
  if (panes !== state.panes) return; // another was opened or closed meanwhile
  parts.traces.replaceChildren(...panes.map((open, i) => drawPane(open, sameScale(spans, i))));
  drawPanesChanged();
}

/** From when to when a trace goes, in nanoseconds; null where nobody knows. */
async function spanOf(row) {
  const response = await fetch(new URL(row.span, BASE), {cache: 'no-cache'});
  if (!response.ok) return null;
  const {start, end} = await response.json();
  return {start: BigInt(start), end: BigInt(end)};
}

/** What to show of a trace beside another: as long as the shorter one is, so that scales are equal. */
function sameScale(spans, position) {
  if (spans.length < 2 || spans.includes(null)) return {};
  const lengths = spans.map((span) => span.end - span.start);
  const length = lengths[0] < lengths[1] ? lengths[0] : lengths[1];
  const {start} = spans[position];
  return {visStart: String(start), visEnd: String(start + length)};
}

function closeTrace(pane) {
  const position = [...parts.traces.children].indexOf(pane);
  state.panes = state.panes.filter((_, i) => i !== position);
  pane.remove();
  drawPanesChanged();
}

function drawPanesChanged() {
  document.body.classList.toggle('tracing', state.panes.length > 0);
  drawTable();
}

function drawPane(row, window) {
  const name = `${row.workload} ${row.label}`;
  const close = {type: 'button', text: 'Close', title: `Close the trace of ${name}`};
  const pane = element('section', {class: 'pane'}, [
    element('h2', {}, [
      element('span', {text: name, title: name}),
      element('button', {...close, onclick: () => closeTrace(pane)}),
    ]),
    element('iframe', {title: `Trace of ${name}`, src: perfettoUrl(row, window)}),
  ]);
  return pane;
}

/** Perfetto reads its settings after "#!/"; embedded, it has no analytics and takes no files. */
function perfettoUrl(row, window) {
  const url = new URL('perfetto/index.html', BASE);
  const settings = {
    url: new URL(row.trace, BASE).href,
    mode: 'embedded',
    hideSidebar: 'true',
    ...window,
    startupCommands: JSON.stringify([EXPAND_PROCESSES]),
  };
  const fields = Object.entries(settings).map(([key, value]) => `${key}=${encodeURIComponent(value)}`);
  url.hash = `!/?${fields.join('&')}`;
  return url.href;
}
