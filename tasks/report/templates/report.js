"use strict";
// The rows of the night: filters, pictures, numbers and the sheet of one row. Names from the dataset only ever become text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const GALLERY_PAGE = 24, NUMBERS_PAGE = 25;
  const ARRAYS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
  const FLAG = "flag", NAME = "name";
  const live = data.live;  // of the page that `nightlens browse` serves: pictures come when they are looked at

  const $ = (id) => document.getElementById(id);
  const columns = Object.fromEntries(data.columns.map((column) => [column.name, decode(column.dtype, column.numbers)]));
  const isName = (column) => column.number_format === NAME;
  const isNumber = (column) => column.number_format !== FLAG && !isName(column);
  const isSigned = (column) => column.number_format.startsWith("+");
  const isClass = (column) => column.name === "label" || column.name === "prediction";
  const shownColumns = data.columns.filter((column) => column.shown), isSorted = (column) => isNumber(column) || isName(column) || Boolean(live);
  // name: [what it orders by, its value for a row and NaN where there is none, the direction that comes first]
  const SORTS = Object.fromEntries([["row", ["row number", (i) => i, 1]], ...(live ? data.columns : shownColumns).filter(isSorted).map((column) => [column.name, sorting(column)])]);
  const pictures = new Map(data.pictures.map((entry) => [entry.row - data.start, entry]));
  const names = data.classes.map((name) => shorten(name, 60));
  let shown = [], pictured = [], galleryPage = 0, numbersPage = 0, current = -1;

  function sorting(column) {
    const values = columns[column.name];
    if (isName(column)) return [column.title, (i) => column.names[values[i]] === "" ? NaN : values[i], 1];
    return column.by_size ? [`size of the ${column.title}`, (i) => Math.abs(values[i]), -1] : [column.title, (i) => values[i], -1];
  }
  function decode(type, text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), Kind = ARRAYS[type];
    const view = new DataView(bytes.buffer), size = Kind.BYTES_PER_ELEMENT, values = new Kind(bytes.length / size);
    const read = { u1: "getUint8", u2: "getUint16", u4: "getUint32", f4: "getFloat32" }[type];
    for (let i = 0; i < values.length; i++) values[i] = view[read](i * size, true);
    return values;
  }
  function shorten(text, n) {
    const line = text.trim().replace(/\s+/g, " ");
    return line.length > n ? line.slice(0, n - 1) + "…" : line;
  }
  function make(tag, properties = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in node) node[name] = value; else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  const count = (n) => n.toLocaleString("en");
  const signed = (v, digits) => (Math.abs(v) < 0.5 * 10 ** -digits ? "" : v < 0 ? "−" : "+") + Math.abs(v).toFixed(digits);
  const brief = (v, digits = 2) => (v && Math.abs(v) < 1e-3 ? v.toExponential(digits - 1) : String(Number(v.toPrecision(digits)))).replaceAll("-", "−");
  const percent = (v) => (100 * v).toFixed(1) + "\u202f%";
  // What the schema says of a column's numbers, as Column.say and Column.captioned in storage/file/variable.py.
  function say(column, value, exact = false) {
    const format = column.number_format, digits = Number((/\.(\d+)/.exec(format) ?? [])[1]);
    if (isName(column)) return shorten(column.names[value], 60) || column.zero;
    if (Number.isNaN(value)) return "–";
    if (format === FLAG) return value ? "yes" : "no";
    if (column.zero && value === 0) return column.zero;
    if (format.endsWith("%")) return percent(value);
    if (format.endsWith("d")) return count(value);
    if (format.endsWith("g")) return brief(value, digits);
    if (exact) return value.toPrecision(4).replaceAll("-", "−");
    return isSigned(column) ? signed(value, digits) : value.toFixed(digits);
  }
  function captioned(column, i) {
    const value = columns[column.name][i];
    return column.zero && value === 0 ? column.zero : column.caption.replace("{}", say(column, value));
  }
  const isRight = (i) => columns.label[i] === columns.prediction[i];
  const told = (i) => isRight(i) ? names[columns.label[i]] : `${names[columns.label[i]]}, taken for ${names[columns.prediction[i]]}`;

  // Filters: each has a cell of the form, and asks for a condition on a row, or for nothing.

  function choiceFilter(column) {
    const id = `is-${column.name}`, values = columns[column.name];
    const pairs = isName(column) ? column.names.map((name, k) => [String(k), shorten(name, 60) || column.zero])
      : [["1", column.choices[0]], ["0", column.choices[1]]];
    const wanted = isName(column) ? (i) => String(values[i]) : (i) => values[i] ? "1" : "0";
    return {
      cell: [make("label", { htmlFor: id }, column.title), make("select", { id }, ...choices([["", "any"], ...pairs]))],
      asks: () => { const answer = $(id).value; return answer === "" ? undefined : (i) => wanted(i) === answer; },
      python: () => {
        const answer = $(id).value, name = inTable(column);
        if (answer === "") return [];
        if (isName(column)) return [`(${name} == ${JSON.stringify(column.names[+answer])})`];
        return [(answer === "1" ? "" : "~") + (isNumber(column) ? `(${name} > 0)` : name)];
      },
    };
  }

  function rangeFilter(column) {
    const ids = ["from", "to"].map((end) => `${end}-${column.name}`), values = columns[column.name];
    const bound = (text) => values instanceof Float32Array ? Math.fround(+text) : +text;  // as NumPy compares float32
    const input = (id, k) => make("input", { id, type: "number", step: "any", inputMode: "decimal", placeholder: ["from", "to"][k],
      "aria-label": `${column.title} ${["at least", "at most"][k]}` });
    return {
      cell: [make("label", { htmlFor: ids[0] }, `${column.title}, from and to`), make("div", { className: "goto" }, ...ids.map(input))],
      asks: () => {
        const [from, to] = ids.map((id) => $(id).value);
        return from === "" && to === "" ? undefined : (i) => values[i] >= (from === "" ? -Infinity : bound(from)) && values[i] <= (to === "" ? Infinity : bound(to));
      },
      python: () => ids.flatMap((id, k) => $(id).value === "" ? [] : [`(${inTable(column)} ${[">=", "<="][k]} ${+$(id).value})`]),
    };
  }

  const inTable = (column) => `table[${JSON.stringify(column.name)}]`;
  const filters = data.columns.filter((column) => !isClass(column)).flatMap((column) => column.choices.length || isName(column) ? [choiceFilter(column)]
    : column.has_range ? [rangeFilter(column)] : []);
  // Where there is room, every other number has a range, too.
  const moreFilters = live ? data.columns.filter((column) => isNumber(column) && !isClass(column) && !column.has_range).map(rangeFilter) : [];
  const allFilters = [...filters, ...moreFilters];

  // What is shown.

  function choose() {
    const wanted = Object.fromEntries(["label", "prediction", "why"].map((id) => [id, $(id)?.value ?? ""]));
    const asked = allFilters.map((filter) => filter.asks()).filter((holds) => holds);
    const [key, direction] = $("sort").value.split(" "), value = SORTS[key][1];
    shown = [];
    for (let i = 0; i < data.n_rows; i++) {
      if (wanted.label !== "" && columns.label[i] !== +wanted.label) continue;
      if (wanted.prediction !== "" && columns.prediction[i] !== +wanted.prediction) continue;
      if (!asked.every((holds) => holds(i))) continue;
      if (wanted.why === "any" && !pictures.has(i)) continue;
      if (wanted.why !== "" && wanted.why !== "any" && pictures.get(i)?.why !== +wanted.why) continue;
      shown.push(i);
    }
    shown.sort((a, b) => {
      const [first, second] = [value(a), value(b)], missing = Number.isNaN(first) - Number.isNaN(second);
      return missing || direction * (first - second) || a - b;
    });
    pictured = live ? shown : shown.filter((i) => pictures.has(i));
    galleryPage = numbersPage = 0;
    $("count").textContent = `${count(shown.length)} of ${count(data.n_rows)} row${data.n_rows === 1 ? "" : "s"} shown`
      + (live ? "" : `, ${count(pictured.length)} of them with pictures`);
    drawGallery();
    drawNumbers();
    if (live) browsing.say();
  }

  // The pictures.

  function picture(source, alternative) {
    return source ? make("img", { src: source, alt: alternative })
      : make("span", { className: "awaited", title: "this store was handed over without its images" });
  }

  // What a method shows of a row: a signed attribution, or a map laid over the image.
  function heat(entry, explanation, method, what) {
    const alternative = `${method.title} of row ${entry.row} for ${what}`, source = explanation[method.name].source;
    if (!method.is_map || (source && !entry.image)) return picture(source, alternative);
    if (!source) return make("span", { className: "empty" }, picture(entry.image, "Empty map: " + alternative));
    return make("span", { className: "overlay" }, picture(entry.image, ""), picture(source, alternative));
  }

  function trust(i) {
    const own = shownColumns.filter((column) => column.caption && !column.of_map);
    const numbers = own.filter(isNumber).map((column) => column.name === "confidence" ? say(column, columns.confidence[i]) : captioned(column, i));
    const flags = own.filter((column) => !isNumber(column)).map((column) =>
      columns[column.name][i] ? column.choices[0] ?? column.label : make("span", { className: "open" }, column.caption));
    const why = live ? [] : [data.reasons[pictures.get(i).why]];
    return make("p", { className: "trust" }, numbers.join(" · "), make("br"), ...[...flags, ...why].flatMap((part, k) => k ? [" · ", part] : [part]));
  }

  function tilesOf(i) {
    const entry = pictures.get(i), name = names[columns.label[i]];
    const row = data.start + i, tiles = make("div", { className: "tiles", title: entry?.problem ?? "" }, ...(entry && !entry.problem
      ? [picture(entry.image, `Row ${row}, ${name}`), ...data.methods.map((method) => heat(entry, entry.true, method, name))]
      : ["", ...data.methods].map(() => make("span", { className: "awaited" }))));
    tiles.addEventListener("click", () => { location.hash = `row-${row}`; });
    return tiles;
  }

  function card(i) {
    const name = names[columns.label[i]], row = data.start + i;
    return make("li", { className: "card" }, tilesOf(i),
      make("p", { className: "told", title: told(i) }, make("a", { href: `#row-${row}` }, `Row ${row}`), " ",
        isRight(i) ? name : make("span", { className: "wrong" }, `${name} → ${names[columns.prediction[i]]}`)),
      trust(i));
  }

  function drawGallery() {
    if (live) return browsing.draw();
    const from = galleryPage * GALLERY_PAGE, part = pictured.slice(from, from + GALLERY_PAGE);
    $("gallery").replaceChildren(...part.map(card));
    drawPager($("gallery-pager"), galleryPage, GALLERY_PAGE, pictured.length, "pictures", (page) => { galleryPage = page; drawGallery(); });
  }

  function drawPager(pager, page, size, total, what, turn) {
    const focused = document.activeElement?.closest(".pager") === pager ? document.activeElement.dataset.step : undefined;
    const last = Math.max(0, Math.ceil(total / size) - 1);
    const button = (text, step, target) => {
      const node = make("button", { type: "button", className: "button", disabled: target < 0 || target > last }, text);
      node.dataset.step = step;
      node.addEventListener("click", () => {
        turn(target);
        $("turned").textContent = pager.querySelector("span").textContent;
      });
      return node;
    };
    const where = total ? `${count(page * size + 1)} to ${count(Math.min(total, (page + 1) * size))} of ${count(total)} ${what}` : `no ${what}`;
    pager.replaceChildren(button(`← Previous ${what}`, "back", page - 1), make("span", {}, where), button(`Next ${what} →`, "on", page + 1));
    const same = focused && pager.querySelector(`[data-step=${focused}]`);
    if (same) (same.disabled ? pager.querySelector("button:not(:disabled)") : same)?.focus();
  }

  // The numbers.

  // heading, what it orders by, and whether it is a number
  const HEADER = [["row", "row", true], ["true class"], ["predicted class"],
    ...shownColumns.map((column) => [column.label, isSorted(column) ? column.name : undefined, isNumber(column)]), ...(live ? [] : [["pictures"]])];

  const isText = [false, true, true, ...shownColumns.map(isName), false];

  function drawHeader() {
    $("numbers").tHead.rows[0].replaceChildren(...HEADER.map(([text, key], k) => {
      const cell = make("th", { scope: "col", className: HEADER[k][2] ? "number" : "" });
      if (!key) return cell.append(text), cell;
      const button = make("button", { type: "button", title: `order by ${SORTS[key][0]}` }, text);
      button.addEventListener("click", () => {
        const [now, direction] = $("sort").value.split(" ");
        $("sort").value = `${key} ${now === key ? -direction : SORTS[key][2]}`;
        choose();
      });
      cell.append(button);
      cell.dataset.key = key;
      return cell;
    }));
  }

  function drawNumbers() {
    const [key, direction] = $("sort").value.split(" ");
    for (const cell of $("numbers").tHead.rows[0].cells) {
      if (cell.dataset.key === key) cell.setAttribute("aria-sort", direction === "1" ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
    const from = numbersPage * NUMBERS_PAGE;
    $("numbers").tBodies[0].replaceChildren(...shown.slice(from, from + NUMBERS_PAGE).map((i) => {
      const row = data.start + i, entry = pictures.get(i);
      const cells = [make("a", { href: `#row-${row}` }, String(row)), names[columns.label[i]], names[columns.prediction[i]],
        ...shownColumns.map((column) => {
          const text = say(column, columns[column.name][i]), isFlag = column.number_format === FLAG;
          return isFlag && !columns[column.name][i] ? make("span", { className: "open" }, text) : text;
        }), ...(live ? [] : [entry ? data.reasons[entry.why] : "–"])];
      return make("tr", {}, ...cells.map((cell, k) => make(k ? "td" : "th", k ? { className: HEADER[k][2] ? "number" : "" } : { scope: "row", className: "number" },
        isText[k] ? make("span", { className: "name", title: cell }, cell) : cell)));
    }));
    drawPager($("numbers-pager"), numbersPage, NUMBERS_PAGE, shown.length, "rows", (page) => { numbersPage = page; drawNumbers(); });
  }

  // The sheet of one row.

  function tile(node, caption, ends) {
    const children = [node];
    if (ends) {
      children.push(make("span", { className: `ramp ${ends[0]}`, "aria-hidden": "true" }),
        make("span", { className: "ends" }, ...ends.slice(1).map((text) => make("span", {}, text))));
    }
    return make("figure", {}, ...children, make("figcaption", {}, caption));
  }

  function explanationTiles(entry, explanation, what, methods = data.methods) {
    return methods.map((method) => {
      const { source, end } = explanation[method.name], node = heat(entry, explanation, method, what);
      const ends = method.is_map ? ["warm", "0", brief(end)] : ["signed", "−" + brief(end), "0", "+" + brief(end)];
      return tile(node, `${method.title} for ${what}` + (source ? "" : ": empty map"), source ? ends : undefined);
    });
  }

  function openRow(i) {
    current = i;
    const row = data.start + i;
    $("row-title").textContent = `Row ${row}`;
    $("row-told").textContent = isRight(i) ? `${names[columns.label[i]]}, rightly recognised` : told(i);
    drawSheet(i, live ? browsing.large(i) : pictures.get(i));
    $("row-code").textContent = snippet(row);
    $("copied").textContent = "";
    const at = shown.indexOf(i);
    $("previous").disabled = at <= 0;
    $("next").disabled = at < 0 || at + 1 >= shown.length;
    if (live) browsing.beside(i);
    if (!$("row").open) $("row").showModal();
    if (!document.activeElement || document.activeElement.disabled || !$("row").contains(document.activeElement)) $("row-title").focus();
    $("row").scrollTop = 0;
  }

  // The pictures of a row, where they are there, and its numbers.
  function drawSheet(i, entry) {
    const row = data.start + i, label = names[columns.label[i]], tiles = [];
    if (entry?.problem) {
      tiles.push(make("p", { className: "open" }, entry.problem));
    } else if (entry) {
      tiles.push(tile(picture(entry.image, `Row ${row}, ${label}`), label), ...explanationTiles(entry, entry.true, `${label} (true)`));
      if (Object.keys(entry.predicted).length) tiles.push(...explanationTiles(entry, entry.predicted, `${names[columns.prediction[i]]} (predicted)`));
    } else if (live) {
      tiles.push(make("p", { className: "muted" }, "Its pictures are being drawn …"));
    } else {
      tiles.push(make("p", {}, `The pictures of this row are not in this page; \`nightlens show\` draws them, see below.`));
    }
    $("row-tiles").replaceChildren(...tiles);
    const facts = { "true class": label, "predicted class": names[columns.prediction[i]] };
    for (const column of shownColumns) {
      const value = columns[column.name][i];
      facts[column.title] = say(column, value, true) + (column.doubt && !value ? `: ${column.doubt}` : "");
    }
    if (entry?.likely) {
      facts["most likely"] = entry.likely.map(([k, p]) => `${names[k]}: ${percent(p)}`).join("; ");
      if (!live) facts["why it has pictures"] = data.reasons[entry.why];
    }
    $("row-facts").replaceChildren(...Object.entries(facts).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  }

  // As a shell takes it, in one line.
  function shell(text) {
    return /[\x00-\x1f]/.test(text) ? `$'${JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'` : `'${text.replaceAll("'", "'\\''")}'`;
  }

  function snippet(row) {
    const path = JSON.stringify(data.store);
    const pictures = data.methods.map((method) => `    ${method.name} = store.view("${method.name}")[${row}]`
      + (method.is_map ? "  # (cam_y, cam_x), never negative\n" : "  # (y, x, channel), signed, in units of the score\n"));
    return `import nightlens\n\nwith nightlens.open_store(${path}) as store:\n    print(store.table([${row}]).T)\n${pictures.join("")}`
      + `    store.figure(${row}).savefig("row-${row}.png")\n\n# or: nightlens show ${shell(data.store)} --row ${row}`;
  }

  function step(by) {
    const next = shown[shown.indexOf(current) + by];
    if (next !== undefined) history.replaceState(null, "", `#row-${data.start + next}`), openRow(next);
  }

  function followHash() {
    const found = /^#row-(\d+)$/.exec(location.hash);
    if (!found) return $("row").open && $("row").close();
    const i = +found[1] - data.start;
    if (i >= 0 && i < data.n_rows) return openRow(i);
    $("count").textContent = `Row ${found[1]} is not in this night, which has the rows ${data.start} to ${data.start + data.n_rows - 1}`;
    $("rows").scrollIntoView();
  }

  async function copy(code, copied) {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copied.textContent = "Copied";
    } catch (error) {
      getSelection().selectAllChildren(code);
      copied.textContent = "Selected; copy it with Ctrl+C";
    }
  }

  // Colours: the system's, until the button is pressed; remembered where the browser lets a file do that.

  function theme() {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
    const say = () => { $("theme").textContent = isDark() ? "Light colours" : "Dark colours"; };
    try {
      const kept = localStorage.getItem("nightlens-theme");
      if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
    } catch (error) { /* no storage here: the system's colours */ }
    $("theme").addEventListener("click", () => {
      document.documentElement.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("nightlens-theme", document.documentElement.dataset.theme); } catch (error) { /* not kept */ }
      say();
    });
    dark.addEventListener("change", say);
    $("theme").hidden = false;
    say();
  }

  function choices(pairs) { return pairs.map(([value, text]) => make("option", { value }, text)); }
  function options(id, pairs) { $(id).replaceChildren(...choices(pairs)); }

  // Shows the rows of some filters, by the id of their fields, and none of the others.
  function showOnly(answers) {
    $("filters").reset();
    for (const [id, answer] of Object.entries(answers)) $(id).value = answer;
    choose();
    $("rows").scrollIntoView();
    $("rows").focus({ preventScroll: true });
  }

  function begin() {
    theme();
    const have = (column) => names.map((name, k) => [k, name]).filter(([k]) => columns[column].includes(k));
    options("label", [["", "all classes"], ...have("label")]);
    options("prediction", [["", "all classes"], ...have("prediction")]);
    ($("why") ?? $("sort")).parentElement.before(...filters.map((filter) => make("div", {}, ...filter.cell)));
    if (live) $("more-filters").append(...moreFilters.map((filter) => make("div", {}, ...filter.cell)));
    const used = new Set(data.pictures.map((entry) => entry.why));
    if (!live) options("why", [["", "with and without"], ["any", "with pictures"], ...data.reasons.map((why, k) => [k, why]).filter(([k]) => used.has(k))]);
    options("sort", Object.entries(SORTS).flatMap(([key, [text, , first]]) => [first, -first].map((direction) =>
      [`${key} ${direction}`, `${text}, ${direction === 1 ? "ascending" : "descending"}`])));
    $("goto").min = data.start;
    $("goto").max = data.start + data.n_rows - 1;
    drawHeader();
    if (live) browsing.begin();
    choose();
    $("filters").addEventListener("change", (event) => { if (event.target.id !== "goto") choose(); });
    $("filters").addEventListener("reset", () => setTimeout(choose));
    $("filters").addEventListener("submit", (event) => { event.preventDefault(); if ($("goto").value) location.hash = `row-${$("goto").value}`; });
    for (const button of document.querySelectorAll("button[data-label]")) {
      button.addEventListener("click", () => showOnly({ label: button.dataset.label, prediction: button.dataset.prediction }));
    }
    for (const button of document.querySelectorAll("button[data-strategy]")) {
      const names = data.columns.find((column) => column.name === "cluster").names;
      button.addEventListener("click", () => showOnly({ "is-cluster": String(names.indexOf(button.dataset.strategy)) }));
    }
    $("previous").addEventListener("click", () => step(-1));
    $("next").addEventListener("click", () => step(1));
    $("close").addEventListener("click", () => $("row").close());
    $("copy").addEventListener("click", () => copy($("row-code"), $("copied")));
    $("row").addEventListener("close", () => { if (location.hash.startsWith("#row-")) history.replaceState(null, "", "#rows"); });
    $("row").addEventListener("click", (event) => { if (event.target === $("row")) $("row").close(); });
    $("row").addEventListener("keydown", (event) => {
      if (event.target.closest("pre, select")) return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    });
    addEventListener("hashchange", followHash);
    followHash();
  }
{% if live %}
{% include "live_rows.js" %}
{% endif %}
  begin();
})();
