// The charts of a page, and the native controls that change them.
//
// A control with data-state="name" gives its checked or selected values to state.name, an array. In a chart's
// specification usermeta.filter, {field: name}, keeps the rows of data whose field is among them; "@name" stands for the
// first of the values, and "@name.key" for what page.options says of it. Everything that comes from the user's data
// stays data: it is never read as markup or as an expression.
const page = JSON.parse(document.getElementById("page-data").textContent);
const state = {};
const views = {};
const turns = {};
const themed = {...page.themed, "#000": "var(--ink)", "black": "var(--ink)"};
const lines = page.lines;

function read() {
  for (const name of Object.keys(state)) delete state[name];
  for (const control of document.querySelectorAll("[data-state]")) {
    const values = (state[control.dataset.state] ??= []);
    if (control.tagName === "SELECT") values.push(control.value);
    else if (control.checked) values.push(control.value);
  }
}

// Colours stay with the losses: those suggested have theirs, the others take what is left. Above as many as there are
// colours, the suggested ones are coloured and the rest is grey.
function colours() {
  const picked = (page.losses ?? []).filter(loss => !state.picked || state.picked.includes(loss));
  const coloured = picked.length <= lines.length ? picked : picked.filter(loss => page.suggested.includes(loss));
  const own = new Map(page.suggested?.map((loss, i) => [loss, lines[i]]));
  const free = lines.filter((colour, i) => !coloured.includes(page.suggested?.[i]));
  return new Map(picked.map(loss => [loss, coloured.includes(loss) ? (own.get(loss) ?? free.shift()) : "var(--rest)"]));
}

function placed(text, used) {
  const found = /^@(\w+)(?:\.(\w+))?$/.exec(text);
  if (!found || !(found[1] in state)) return text;
  used.add(found[1]);
  const value = state[found[1]][0];
  return found[2] ? page.options[found[1]][value][found[2]] : value;
}

function fitted(spec, narrow, used) {
  const filter = Object.entries(spec.usermeta?.filter ?? {}).filter(([, name]) => name in state);
  const colour = colours();
  for (const [, name] of filter) used.add(name);
  const rows = values => {
    const kept = values.filter(row => filter.every(([field, name]) => !(field in row) || state[name].includes(row[field])));
    // What is grey lies behind.
    const grey = row => colour.get(row.loss) === "var(--rest)" ? 0 : 1;
    return spec.usermeta?.colours ? kept.sort((a, b) => grey(a) - grey(b)) : kept;
  };
  const walk = (value, key) => {
    if (typeof value === "string") return themed[value.toLowerCase()] ?? placed(value, used);
    if (Array.isArray(value)) return value.map(each => walk(each));
    if (value === null || typeof value !== "object") return value;
    if (key === "datasets") return Object.fromEntries(Object.entries(value).map(([name, found]) => [name, rows(found)]));
    if (key === "data" && Array.isArray(value.values)) return {...value, values: rows(value.values)};
    const found = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, walk(each, name)]));
    if (key === "legend" && narrow) found.columns = 1;
    if (key === "color" && spec.usermeta?.colours && value.field === "loss") {
      const there = new Set(Object.values(spec.datasets ?? {}).flat().map(row => row.loss));
      const named = [...colour].filter(([loss, shade]) => shade !== "var(--rest)" && there.has(loss)).map(([loss]) => loss);
      found.scale = {domain: [...colour.keys()], range: [...colour.values()]};
      if (found.legend) found.legend = {...found.legend, values: named};
      used.add("picked");
    }
    return found;
  };
  const done = walk(spec);
  const field = spec.usermeta?.rows;
  if (field) {
    const all = Object.values(done.datasets ?? {}).flat();
    done.height = Math.max(120, spec.usermeta.step * new Set(all.map(row => row[field]).filter(each => each !== undefined)).size);
  }
  return done;
}

function plain(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value);
}

// The table behind a chart, of what is drawn.
function tabulate(name, spec, used) {
  const details = document.querySelector(`details[data-of="${name}"]`);
  if (!details?.open) return;
  const all = Object.values(spec.datasets ?? {}).flat();
  const columns = Object.entries(spec.usermeta?.columns ?? {}).map(([field, heading]) => [placed(field, used), heading]);
  const table = document.createElement("table");
  const heading = table.createTHead().insertRow();
  for (const [, text] of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    heading.append(cell);
  }
  const body = table.createTBody();
  for (const row of all.filter(row => columns.every(([field]) => field in row))) {
    const line = body.insertRow();
    for (const [field] of columns) line.insertCell().textContent = plain(row[field]);
  }
  details.querySelector(".scroll").replaceChildren(table);
}

async function draw(name) {
  const at = document.getElementById(name);
  const used = new Set();
  const turn = (turns[name] = (turns[name] ?? 0) + 1);
  const spec = fitted(page.specs[name], at.clientWidth < 420, used);
  tabulate(name, spec, used);
  at.style.minHeight = `${at.offsetHeight}px`;
  try {
    const result = await window.vegaEmbed(at, spec, {renderer: "svg", actions: false});
    if (turn !== turns[name]) return result.finalize();
    views[name]?.result.finalize();
    views[name] = {result, used};
    at.dataset.drawn = turn;
  } catch (error) {
    at.textContent = "This chart could not be drawn.";
    at.classList.add("failed");
    throw error;
  } finally {
    if (turn === turns[name]) at.style.minHeight = "";
  }
}

function show() {
  const picked = document.querySelector("[data-picked]");
  if (picked && state.picked) picked.textContent = `${state.picked.length} of ${page.losses.length}`;
  const colour = colours();
  for (const swatch of document.querySelectorAll(".swatch")) {
    swatch.style.background = colour.get(swatch.parentElement.querySelector("input").value) ?? "transparent";
  }
  // What stands in the text for the choice, such as the metric's name.
  for (const place of document.querySelectorAll("[data-text]")) place.textContent = placed(place.dataset.text, new Set());
  for (const part of document.querySelectorAll("[data-if]")) part.hidden = !state[part.dataset.by].includes(part.dataset.if);
}

function change(names) {
  read();
  show();
  for (const name of Object.keys(page.specs)) {
    if (names.some(each => !views[name] || views[name].used.has(each))) draw(name);
  }
}

document.addEventListener("change", event => {
  if (event.target.id === "theme") document.documentElement.style.colorScheme = event.target.value;
  else if (event.target.dataset.state) change([event.target.dataset.state]);
});
for (const button of document.querySelectorAll("[data-pick]")) {
  button.addEventListener("click", () => {
    for (const box of document.querySelectorAll('[data-state="picked"]')) {
      box.checked = button.dataset.pick === "all" || (button.dataset.pick === "suggested" && page.suggested.includes(box.value));
    }
    change(["picked"]);
  });
}
for (const details of document.querySelectorAll("details[data-of]")) {
  details.addEventListener("toggle", () => {
    const name = details.dataset.of;
    tabulate(name, fitted(page.specs[name], false, new Set()), new Set());
  });
}
// An open list of losses closes by Escape, and when something else is clicked.
const picker = document.querySelector("details.picker");
if (picker) {
  picker.addEventListener("keydown", event => {
    if (event.key !== "Escape") return;
    picker.open = false;
    picker.querySelector("summary").focus();
  });
  document.addEventListener("click", event => { if (!picker.contains(event.target)) picker.open = false; });
}
read();
show();
for (const name of Object.keys(page.specs)) draw(name);
