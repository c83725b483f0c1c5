"use strict";
// The map and the table of texts. Whatever a sample says is put in as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const words = JSON.parse($("samples").textContent);
  const PER_PAGE = 12;
  const CANARY = words.quadrants.length;
  const KINDS = [...words.quadrants, "planted canary"];
  const MARKS = ["keep", "drop", "mask"];
  const state = { sort: words.axis, down: true, first: 0, chosen: null, box: null, letGo: 0, opened: null };
  const marks = new Map();

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }
  const number = (value) => (value === null || value === undefined ? "-" : String(Number(value.toPrecision(4))));
  const counted = (count) => count.toLocaleString("en");
  const shortened = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const plural = (count) => `${counted(count)} text${count === 1 ? "" : "s"}`;

  // ---- where the texts are: in this page, or with the server that sent it

  function inPage(columns) {
    const size = columns.ids.length;
    const haystack = Array.from({ length: size }, (_, i) =>
      [columns.text[i] || "", columns.source[i], ...columns.ids[i]].join("\n").toLowerCase());
    function row(i) {
      return {
        key: columns.ids[i][0], index: i, ids: columns.ids[i], copies: columns.copies[i],
        text: columns.text[i], chars: columns.chars[i], source: columns.source[i], canary: columns.canary[i],
        cause: columns.cause[i], quadrant: columns.quadrant[i], spans: columns.spans[i],
        curve: columns.curve[i], jitter: columns.jitter[i],
        scores: Object.fromEntries(words.scores.map(({ name }) => [name, columns.scores[name][i]])),
        actions: Object.fromEntries(words.arms.map(({ name }) => [name, words.actions[columns.actions[name][i]]])),
        revised: Object.fromEntries(Object.entries(columns.revised).map(([name, known]) => [name, known[i]])),
      };
    }
    const rows = Array.from({ length: size }, (_, i) => row(i));
    const sources = columns.source.map((source) => source.toLowerCase());
    // A filter keeps the order, so each order is made once.
    const orders = new Map();
    function ordered(by, down) {
      const name = `${by} ${down}`;
      const value = (r) => (by in r.scores ? r.scores[by] : r[by]);
      if (!orders.has(name)) {
        orders.set(name, [...rows].sort((a, b) => compare(value(a), value(b), down) || (a.key < b.key ? -1 : 1)));
      }
      return orders.get(name);
    }
    function matches(query) {
      const asked = query.search.toLowerCase();
      const source = query.source.toLowerCase();
      return ordered(query.sort, query.down).filter((r) =>
        (query.canaries || r.canary === null) &&
        (query.quadrant === "" || words.quadrants[r.quadrant] === query.quadrant) &&
        (query.cause === "" || r.cause === query.cause) &&
        (source === "" || sources[r.index].includes(source)) &&
        (query.arm === "" || r.actions[query.arm] === query.action) &&
        (query.marked === "" || (query.marked === "any-mark" ? marks.has(r.key) : (marks.get(r.key) || {}).action === query.marked)) &&
        (asked === "" || haystack[r.index].includes(asked)));
    }
    return {
      sources: () => [...new Set(columns.source.map((s) => s.replace(/:[^:]*$/, "")))].sort().slice(0, 200),
      async query(query) {
        const points = matches(query);
        const found = state.chosen ? points.filter((r) => state.chosen.has(r.key)) : points;
        return { total: found.length, all: found, rows: found.slice(query.first, query.first + PER_PAGE), points };
      },
      async open(key) { return rows.find((r) => r.key === key); },
    };
  }

  function compare(a, b, down) {
    if (a === b) return 0;
    if (a === null || a === undefined) return 1;
    if (b === null || b === undefined) return -1;
    return (a < b ? -1 : 1) * (down ? -1 : 1);
  }

  function onServer() {
    const ask = async (path, query) => (await fetch(`${path}?${new URLSearchParams(query)}`)).json();
    const places = (query) => ({ ...query, ...(state.box || {}), across: $("across").value, up: $("up").value });
    return {
      sources: () => [],
      query: (query) => ask("api/texts", places(query)),
      open: (key) => ask("api/text", { sample_id: key }),
      map: (query) => ask("api/map", { ...query, across: $("across").value, up: $("up").value }),
      download: (form, query) => { location.href = `api/download/${form}?${new URLSearchParams(places(query))}`; },
    };
  }

  const texts = words.columns ? inPage(words.columns) : onServer();

  // ---- what is asked for

  function query() {
    const [arm, action] = $("action").value.split("\t");
    return {
      search: $("search").value.trim(), quadrant: $("quadrant").value, cause: $("cause").value,
      source: $("source").value.trim(), arm: arm || "", action: action || "", marked: $("marked").value,
      canaries: $("canaries").checked, sort: state.sort, down: state.down, first: state.first,
    };
  }

  let asked = 0;
  let maps = 0;
  async function show({ map = true } = {}) {
    const turn = ++asked;
    const found = await texts.query(query());
    if (turn !== asked) return;
    state.found = found;
    if (state.first >= found.total) state.first = 0;
    drawRows(found);
    $("shown").textContent = `${plural(found.total)} shown` +
      (state.chosen || state.box ? " of those chosen on the map (double-click on it to let go)" : "") +
      (words.numShown < words.numTexts ? `; this page holds ${counted(words.numShown)} of ${counted(words.numTexts)}` : "");
    drawMarks();
    // The table first: a large map takes longer, and one that is out of date is not drawn.
    if (map) {
      const mine = ++maps;
      requestAnimationFrame(() => setTimeout(() => mine === maps && drawMap(found.points)));
    }
  }

  // ---- the table

  const COLUMNS = [
    { name: "text", title: "Text", sort: "source" },
    { name: "quadrant", title: "Quadrant", sort: "quadrant" },
    { name: "cause", title: "Cause", sort: "cause" },
    { name: "copies", title: "Exact copies", sort: "copies", numeric: true },
    { name: "up", title: null, numeric: true },
    { name: "across", title: null, numeric: true },
    { name: "mark", title: "Mark", sort: null },
  ];
  const columnScore = (column) => ($(column.name) && $(column.name).tagName === "SELECT" ? $(column.name).value : null);

  function drawHead() {
    const cells = COLUMNS.map((column) => {
      const title = column.title || columnScore(column);
      const by = column.title ? column.sort : columnScore(column);
      if (by === null) return element("th", { scope: "col" }, title);
      const sorted = state.sort === by ? (state.down ? "descending" : "ascending") : "none";
      const arrow = { descending: " ↓", ascending: " ↑", none: "" }[sorted];
      const sort = () => {
        state.down = state.sort === by ? !state.down : Boolean(column.numeric);
        state.sort = by; state.first = 0;
        drawHead(); show({ map: false });
      };
      return element("th", { scope: "col", "aria-sort": sorted, class: column.numeric ? "num" : null },
        element("button", { type: "button", class: "plain", onclick: sort }, title + arrow));
    });
    $("texts").tHead.rows[0].replaceChildren(...cells);
  }

  function dot(kind) {
    return element("span", { class: "dot", "aria-hidden": "true", style: `background: ${words.colours[KINDS[kind]]}` });
  }

  function preview(row) {
    const text = row.text === null ? row.key : shortened(row.text.replace(/\s+/g, " "), 90);
    const id = shortened(row.key, 14);
    return [
      element("button", { type: "button", class: "plain open", onclick: () => open(row.key) }, text || "(blank)"),
      element("span", { class: "soft", title: row.key }, `${row.source} · ${id}`),
    ];
  }

  function marker(row) {
    if (row.canary !== null) return "planted";
    const chosen = (marks.get(row.key) || {}).action || "";
    const options = ["", ...MARKS].map((mark) =>
      element("option", { value: mark, disabled: mark === "mask" && !row.spans.length ? "" : null }, mark || "none"));
    const select = element("select", { "aria-label": `Mark ${row.key}`, onchange: () => mark([row], select.value) }, ...options);
    select.value = chosen;
    return select;
  }

  function drawRows(found) {
    const rows = found.rows.map((row) => {
      const kind = row.canary === null ? row.quadrant : CANARY;
      const cells = {
        text: preview(row), cause: [row.cause], copies: [counted(row.copies)], mark: [marker(row)],
        quadrant: [dot(kind), words.quadrants[row.quadrant], row.canary === null ? "" : ` (${row.canary})`],
        up: [number(row.scores[$("up").value])], across: [number(row.scores[$("across").value])],
      };
      return element("tr", { class: row.key === state.opened ? "current" : null }, ...COLUMNS.map((column) =>
        element("td", { class: column.numeric ? "num" : column.name, "data-label": column.title || columnScore(column) }, ...cells[column.name])));
    });
    if (!rows.length) rows.push(element("tr", {}, element("td", { colspan: COLUMNS.length }, "No text matches.")));
    $("texts").tBodies[0].replaceChildren(...rows);
    const last = Math.min(found.total, state.first + PER_PAGE);
    $("place").textContent = found.total ? `${counted(state.first + 1)} to ${counted(last)} of ${counted(found.total)}` : "0 of 0";
    $("back").disabled = state.first === 0;
    $("on").disabled = last >= found.total;
  }

  // ---- one text

  function underlined(row) {
    const pre = element("pre", { tabindex: "0" });
    const characters = Array.from(row.text);
    let index = 0;
    for (const [start, end] of row.spans) {
      if (start >= characters.length) break;
      pre.append(characters.slice(index, start).join(""), element("u", {}, characters.slice(start, end).join("")));
      index = end;
    }
    pre.append(characters.slice(index).join(""));
    if (row.chars > characters.length) pre.append(`… (${counted(row.chars)} characters)`);
    return pre;
  }

  function curve(values) {
    const known = (values || []).map((value, i) => [i, value]).filter(([, value]) => value !== null);
    if (known.length < 2) return null;
    const highest = Math.max(...known.map(([, value]) => value));
    const points = known.map(([i, value]) => `${(40 + (250 * i) / (values.length - 1)).toFixed(1)},${(90 - (80 * value) / highest).toFixed(1)}`);
    const svg = (name, attributes, text) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      if (text) made.textContent = text;
      return made;
    };
    const label = `Loss over checkpoints: from ${number(known[0][1])} to ${number(known[known.length - 1][1])} nats per token`;
    const picture = svg("svg", { viewBox: "0 0 300 112", role: "img", "aria-label": label, class: "curve" });
    picture.append(
      svg("path", { d: "M40 8V90H292", fill: "none", stroke: "#5b6675" }),
      svg("polyline", { points: points.join(" "), fill: "none", stroke: "#D55E00", "stroke-width": 2 }),
      svg("text", { x: 36, y: 14, "text-anchor": "end", class: "tick" }, number(highest)),
      svg("text", { x: 36, y: 93, "text-anchor": "end", class: "tick" }, "0"),
      svg("text", { x: 292, y: 107, "text-anchor": "end", class: "tick" }, "last checkpoint"),
      svg("text", { x: 40, y: 107, class: "tick" }, "first"));
    return element("div", {}, element("p", { class: "soft" }, label), picture);
  }

  const listed = (pairs) => element("dl", {}, ...pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));

  const spansOf = (row) => {
    if (row.spans.length) return "Underlined: memorized.";
    const isAbove = ["hotspot-memorized", "noisy-outlier"].includes(words.quadrants[row.quadrant]);
    return isAbove ? "No memorized span is known in this text." : "Below the threshold: memorized spans are not looked for.";
  };

  const inRuns = (revised, runs) => (revised && revised[1] ? `, first in pass ${revised[0]}, in ${revised[1]} of ${runs} run${runs === 1 ? "" : "s"}` : "");

  async function open(key) {
    const row = await texts.open(key);
    state.opened = key;
    const copies = row.ids.slice(0, 20).join(", ") + (row.ids.length > 20 ? ", …" : "");
    const buttons = row.canary !== null ? [] : MARKS.map((name) => element("button", {
      type: "button", disabled: name === "mask" && !row.spans.length ? "" : null,
      title: name === "mask" && !row.spans.length ? "No memorized span is known in this text." : null,
      "aria-pressed": String((marks.get(key) || {}).action === name),
      onclick: () => { mark([row], (marks.get(key) || {}).action === name ? "" : name); open(key); },
    }, name));
    const close = () => { $("opened").hidden = true; state.opened = null; drawRows(state.found); $("search").focus(); };
    $("opened").replaceChildren(
      element("h3", { id: "opened-title" }, `${words.quadrants[row.quadrant]}, ${row.source}`),
      element("p", { class: "marks" }, ...buttons, element("button", { type: "button", onclick: close }, "Close")),
      row.text === null ? element("p", {}, "Texts are not shown (report.show_text).") : underlined(row),
      element("p", { class: "soft" }, spansOf(row)),
      curve(row.curve) || "",
      listed([
        ["Exact copies, itself included", counted(row.copies)], ["Cause", row.cause], ["Remedy", words.remedies[row.cause] || "-"],
        ...words.arms.map(({ name, runs }) => [`Arm ${name}`, (row.actions[name] || "-") + inRuns(row.revised[name], runs)]),
      ]),
      element("details", {}, element("summary", {}, "All scores and ids"),
        listed([...words.scores.map(({ name }) => [name, number(row.scores[name])]), ["Ids", copies]])));
    $("opened").hidden = false;
    $("opened").focus();
    drawRows(state.found);
  }

  // ---- marks and downloads

  const STORE = `gdc marks ${words.digest || ""}`;
  function mark(rows, action) {
    for (const row of rows) {
      if (row.canary !== null || (action === "mask" && !row.spans.length)) continue;
      if (action === "" || action === "clear") marks.delete(row.key);
      else marks.set(row.key, { action, ids: row.ids });
    }
    // Without storage, as in a private window, marks last as long as the page.
    try { localStorage.setItem(STORE, JSON.stringify([...marks])); } catch { /* they stay in memory */ }
    drawRows(state.found);
    drawMarks();
  }

  function drawMarks() {
    $("plan").disabled = marks.size === 0;
    $("plan-note").textContent = marks.size ? `${plural(marks.size)} marked` : "Mark texts first: keep, drop, or mask their memorized spans.";
  }

  function save(name, text) {
    const link = element("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/plain" })) });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  const lines = (rows) => rows.map((row) => `${row}\n`).join("");

  function plan() {
    return lines([...marks.values()].flatMap(({ action, ids }) =>
      ids.map((sample_id) => JSON.stringify({ sample_id, action }))));
  }

  function record(row) {
    return JSON.stringify({
      sample_ids: row.ids, text: row.text, source: row.source, cause: row.cause,
      quadrant: words.quadrants[row.quadrant], scores: row.scores, actions: row.actions, revised: row.revised,
    });
  }

  // ---- the map

  function letGo() {
    state.chosen = null;
    state.box = null;
    state.letGo += 1;
  }

  function jitterHeight(values) {
    // As in the picture: two fifths of the smallest gap where there are few values, down, not up.
    const distinct = [...new Set(values)].sort((a, b) => a - b);
    if (distinct.length < 2 || distinct.length > 25) return 0;
    return 0.4 * Math.min(...distinct.slice(1).map((value, i) => value - distinct[i]));
  }

  function lineAt(score, axis) {
    if (!(score in words.cuts)) return [];
    const other = axis === "x" ? "y" : "x";
    return [{ type: "line", [`${axis}0`]: words.cuts[score], [`${axis}1`]: words.cuts[score], [`${other}0`]: 0, [`${other}1`]: 1,
      [`${other}ref`]: "paper", line: { dash: "dash", width: 1, color: "#555555" } }];
  }

  function layout(across, up) {
    const label = (name) => (words.scores.find((score) => score.name === name) || { label: name }).label;
    const narrow = $("data-map").clientWidth < 560;
    return {
      height: narrow ? 400 : 480, margin: { l: 56, r: 12, t: 10, b: 50 }, hovermode: "closest",
      dragmode: words.columns ? "lasso" : "select",
      legend: { orientation: "h", y: narrow ? -0.26 : -0.16, yanchor: "top", font: { size: narrow ? 11 : 12 } },
      xaxis: { title: { text: narrow ? across : label(across), font: { size: 13 } }, zeroline: false },
      yaxis: { title: { text: narrow ? up : label(up), font: { size: 13 } }, zeroline: false },
      shapes: [...lineAt(across, "x"), ...lineAt(up, "y")], uirevision: `${across} ${up}`,
      // What is drawn on the map to choose texts goes when they are let go.
      selectionrevision: state.letGo, selections: [],
      paper_bgcolor: "#fff", plot_bgcolor: "#fff", template: { layout: { xaxis: { gridcolor: "#e3e8ee" }, yaxis: { gridcolor: "#e3e8ee" } } },
    };
  }
  const CONFIG = {
    displaylogo: false, responsive: true, showSendToCloud: false,
    modeBarButtons: [["lasso2d", "select2d"], ["zoom2d", "pan2d", "resetScale2d"], ["toImage"]],
  };

  let drawn = false;
  async function drawMap(points) {
    const [across, up] = [$("across").value, $("up").value];
    if (!points) return drawDensity(across, up);
    const known = points.filter((row) => row.scores[across] !== null && row.scores[up] !== null);
    const [jitterX, jitterY] = [across, up].map((name) => jitterHeight(known.map((row) => row.scores[name])));
    const type = words.isLarge ? "scattergl" : "scatter";
    const layers = KINDS.map((name, kind) => {
      const own = known.filter((row) => (row.canary === null ? row.quadrant : CANARY) === kind);
      return {
        type, mode: "markers", name: `${name} (${counted(own.length)})`, visible: own.length ? true : "legendonly", showlegend: kind < CANARY || own.length > 0,
        x: own.map((row) => row.scores[across] - jitterX * row.jitter), y: own.map((row) => row.scores[up] - jitterY * row.jitter),
        // Numbers alone: plotly reads markup in what it is given.
        customdata: own.map((row) => row.index), text: own.map((row) => number(row.scores[up])),
        hovertemplate: `${up} %{text}<br>click to open<extra>${name}</extra>`,
        selectedpoints: state.chosen ? own.flatMap((row, i) => (state.chosen.has(row.key) ? [i] : [])) : null,
        marker: { color: words.colours[name], size: kind === CANARY ? 6 : 7, opacity: 0.75, symbol: kind === CANARY ? "x-thin-open" : "circle" },
      };
    });
    $("map-note").textContent = jitterX || jitterY ? "Equal values are spread a little to the left or down, so that each text can be seen." : "";
    await Plotly.react("data-map", layers, layout(across, up), CONFIG);
    listen();
  }

  async function drawDensity(across, up) {
    const bins = await texts.map(query());
    const counts = bins.counts.map((line) => line.map((count) => (count ? Math.log10(count) : null)));
    const layer = { type: "heatmap", x: bins.x, y: bins.y, z: counts, text: bins.counts, hovertemplate: "%{text} texts<extra></extra>",
      colorscale: "Viridis", colorbar: { title: { text: "texts, log10" } } };
    // A density has no points to choose: points without a mark at the bins can be boxed.
    const centres = { type: "scatter", mode: "markers", marker: { size: 4, opacity: 0 }, hoverinfo: "skip", showlegend: false,
      x: bins.x.flatMap((x) => bins.y.map(() => x)), y: bins.x.flatMap(() => bins.y) };
    await Plotly.react("data-map", [layer, centres], layout(across, up), CONFIG);
    listen();
  }

  function listen() {
    if (drawn) return;
    drawn = true;
    const map = $("data-map");
    map.on("plotly_selected", (event) => {
      // Plotly tells of a choice that was let go as of an empty one.
      if (!event || !(event.lassoPoints || event.range)) return;
      if (words.columns) {
        const keys = event.points.map((point) => words.columns.ids[point.customdata][0]);
        state.chosen = new Set(keys);
      } else {
        if (!event.range) return;
        const [[left, right], [low, high]] = [event.range.x, event.range.y].map((ends) => [...ends].sort((a, b) => a - b));
        state.box = { left, right, low, high };
      }
      state.first = 0;
      show({ map: false });
    });
    map.on("plotly_deselect", () => { letGo(); show(); });
    map.on("plotly_click", (event) => {
      const point = event.points[0];
      if (words.columns && point.customdata !== undefined) open(words.columns.ids[point.customdata][0]);
    });
  }

  // ---- start

  if (!words.columns) {
    $("marked").parentElement.hidden = true;
    $("mark-all").previousElementSibling.textContent = "Mark the texts listed";
  }
  const options = (values) => values.map(([value, shown, title]) => element("option", { value, title: title || null }, shown));
  $("quadrant").append(...options(words.quadrants.map((name) => [name, name])));
  $("cause").append(...options(Object.keys(words.remedies).map((name) => [name, name])));
  $("action").append(...options(words.arms.flatMap(({ name }) => words.actions.map((action) => [`${name}\t${action}`, `${name}: ${action}`]))));
  $("sources").append(...texts.sources().map((name) => element("option", { value: name })));
  for (const id of ["across", "up"]) $(id).append(...options(words.scores.map(({ name, title }) => [name, name, title])));
  function chooseAxes() {
    $("across").value = words.axis === "difficulty" ? "memorization" : "difficulty";
    $("up").value = words.axis;
  }
  chooseAxes();
  try {
    for (const [key, kept] of JSON.parse(localStorage.getItem(STORE) || "[]")) marks.set(key, kept);
  } catch { /* nothing is kept here */ }

  const anew = () => { state.first = 0; show(); };
  let typing;
  for (const id of ["search", "source"]) $(id).addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(anew, 100); });
  for (const id of ["quadrant", "cause", "action", "marked", "canaries"]) $(id).addEventListener("change", anew);
  for (const id of ["across", "up"]) $(id).addEventListener("change", () => { letGo(); drawHead(); anew(); });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", () => {
    $("filters").reset();
    chooseAxes();
    letGo();
    Object.assign(state, { sort: words.axis, down: true });
    drawHead();
    anew();
  });
  $("back").addEventListener("click", () => { state.first = Math.max(0, state.first - PER_PAGE); show({ map: false }); });
  $("on").addEventListener("click", () => { state.first += PER_PAGE; show({ map: false }); });
  $("mark-all").addEventListener("change", () => { const action = $("mark-all").value; if (action) mark(state.found.all || state.found.rows, action); $("mark-all").value = ""; });
  $("ids").addEventListener("click", () => (texts.download ? texts.download("ids", query()) : save("ids.txt", lines(state.found.all.flatMap((row) => row.ids)))));
  $("jsonl").addEventListener("click", () => (texts.download ? texts.download("jsonl", query()) : save("texts.jsonl", lines(state.found.all.map(record)))));
  $("plan").addEventListener("click", () => save("plan.jsonl", plan()));
  drawHead();
  show();
})();
