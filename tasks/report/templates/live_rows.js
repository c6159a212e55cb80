
  // What only `nightlens browse` has: rows whose pictures are drawn when they are looked at, links that say what is shown, the
  // same row of another night, and what of the rows can be taken along.

  const browsing = (() => {
    const AHEAD = 2, BATCH = 48, KEPT = 2000, LARGE = 512, KEPT_LARGE = 60;
    const larger = new Map(), cards = new Map();
    let across = 1, lineHeight = 200, from = 0, part = [], isAsking = false, other = "", besides = "", linked = location.search;

    async function fetchRows(night, rows, size) {
      let response;
      try {
        response = await fetch(`/nights/${encodeURIComponent(night)}/pictures?rows=${rows.join(",")}&size=${size}`);
      } catch (error) {
        throw new Error("`nightlens browse` does not answer; is it still running?");
      }
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.problem);
      return answer;
    }

    function keep(map, most, i, entry) {
      map.delete(i);
      map.set(i, entry);
      for (const oldest of map.keys()) {
        if (map.size <= most) break;
        map.delete(oldest);
      }
    }

    function complain(text) {
      $("trouble").hidden = !text;
      if ($("trouble").firstElementChild.textContent !== text) $("trouble").firstElementChild.textContent = text;
    }

    // Only the lines of cards that are on the screen, and a few beside, are in the page.

    function measure() {
      const first = Math.round($("window").scrollTop / lineHeight) * across, was = across;
      across = getComputedStyle($("gallery")).gridTemplateColumns.split(" ").length;
      const height = $("gallery").firstElementChild?.getBoundingClientRect().height;
      if (height) lineHeight = height + parseFloat(getComputedStyle($("gallery")).rowGap);
      $("all-lines").style.height = `${Math.ceil(pictured.length / across) * lineHeight}px`;
      if (across !== was) $("window").scrollTop = Math.floor(first / across) * lineHeight;  // the same rows stay in sight
    }

    function show() {
      const focused = document.activeElement?.closest("#gallery .card")?.dataset.row, before = new Map(cards);
      from = Math.max(0, Math.floor($("window").scrollTop / lineHeight) - AHEAD);
      const lines = Math.ceil($("window").clientHeight / lineHeight) + 2 * AHEAD;
      part = pictured.slice(from * across, (from + lines) * across);
      $("gallery").style.transform = `translateY(${from * lineHeight}px)`;
      cards.clear();
      const items = part.map((i, k) => {
        const drawn = pictures.has(i), kept = before.get(i), item = kept?.item ?? card(i);
        if (kept && kept.drawn !== drawn) item.querySelector(".tiles").replaceWith(tilesOf(i));
        cards.set(i, { item, drawn });
        item.dataset.row = i;
        item.setAttribute("aria-posinset", from * across + k + 1);
        item.setAttribute("aria-setsize", pictured.length);
        return item;
      });
      // A card that is taken out and put in again, because pictures came, would lose the click that is being made on it.
      const there = $("gallery").children;
      if (items.length !== there.length || items.some((item, k) => item !== there[k])) $("gallery").replaceChildren(...items);
      if (focused !== undefined) (linkOf(focused) ?? $("window")).focus({ preventScroll: true });
    }

    const linkOf = (i) => $("gallery").querySelector(`.card[data-row="${i}"] a`);

    function draw() {
      $("window").scrollTop = 0;
      show();
      measure();
      show();
      ask();
    }

    function onScreen() {
      const first = Math.floor($("window").scrollTop / lineHeight) - from, n = Math.ceil($("window").clientHeight / lineHeight) + 1;
      return [...part.slice(first * across, (first + n) * across), ...part];
    }

    async function ask() {
      const missing = [...new Set(onScreen().filter((i) => !pictures.has(i)))].slice(0, BATCH);
      if (isAsking || !missing.length) return;
      isAsking = true;
      try {
        const answer = await fetchRows(live.night, missing.map((i) => data.start + i), live.size);
        for (const entry of answer.rows) keep(pictures, KEPT, entry.row - data.start, entry);
        complain("");
      } catch (error) {
        complain(error.message);
        return;
      } finally {
        isAsking = false;
      }
      show();
      ask();
    }

    function moveAmongCards(event) {
      const at = pictured.indexOf(+document.activeElement?.closest("#gallery .card")?.dataset.row);
      const page = Math.max(1, Math.floor($("window").clientHeight / lineHeight)) * across, last = pictured.length - 1;
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (!(event.key in steps) || last < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const to = at < 0 ? Math.floor($("window").scrollTop / lineHeight) * across : Math.min(last, Math.max(0, at + steps[event.key]));
      const top = Math.floor(to / across) * lineHeight, box = $("window");
      if (top < box.scrollTop || top + lineHeight > box.scrollTop + box.clientHeight) {
        box.scrollTop = top < box.scrollTop ? top : top + lineHeight - box.clientHeight;
      }
      show();
      linkOf(pictured[to])?.focus({ preventScroll: true });
      ask();
    }

    // The row that is open: its pictures in full size, and the same row of another night.

    function large(i) {
      if (larger.has(i)) return larger.get(i);
      if (live.reduced || !pictures.has(i)) drawLarge(i);
      return pictures.get(i);
    }

    async function drawLarge(i) {
      let entry;
      try {
        entry = (await fetchRows(live.night, [data.start + i], LARGE)).rows[0];
      } catch (error) {
        entry = { problem: error.message };
        if (current === i && !pictures.has(i)) drawSheet(i, entry);
        return;
      }
      keep(larger, KEPT_LARGE, i, entry);
      if (current === i && $("row").open) drawSheet(i, entry);
    }

    async function beside(i) {
      const row = data.start + i, asked = other && `${other} ${row}`;
      if (asked === besides) return;
      besides = asked;
      $("beside-told").textContent = other ? "Its pictures are being drawn …" : "";
      $("beside-tiles").replaceChildren();
      if (!other) return;
      try {
        const answer = await fetchRows(other, [row], LARGE);
        if (asked !== besides) return;
        const [entry] = answer.rows, name = names[columns.label[i]];
        $("beside-told").textContent = `${answer.title}: ${entry.problem ?? entry.told}`;
        if (entry.problem) return;
        $("beside-tiles").replaceChildren(tile(picture(entry.image, `Row ${row} of the other night`), entry.told),
          ...explanationTiles(entry, entry.true, `${name} (true)`, answer.methods),
          ...(Object.keys(entry.predicted).length ? explanationTiles(entry, entry.predicted, `${entry.predicted_name} (predicted)`, answer.methods) : []));
      } catch (error) {
        if (asked !== besides) return;
        $("beside-told").textContent = error.message;
        besides = "";  // it is asked for again when the row is opened again
      }
    }

    async function findOthers() {
      let nights = [];
      try {
        const response = await fetch(`/others?night=${encodeURIComponent(live.night)}`);
        if (response.ok) nights = await response.json();
      } catch (error) {
        return;  // nobody answers, which the rows' own pictures say
      }
      if (other && !nights.some((night) => night.id === other)) {
        other = "";
        link();
      }
      if (!nights.length) return;
      options("beside", [["", "no other night"], ...nights.map((night) => [night.id, night.title])]);
      $("beside").value = other;
      $("beside-choice").hidden = false;
      if (current >= 0) beside(current);
    }

    async function drawMeans() {
      $("means-told").textContent = "The means of all rows are being computed …";
      try {
        const response = await fetch("means"), text = await response.text();
        if (response.ok) $("means").innerHTML = text;
        $("means-told").textContent = response.ok ? "" : text;
      } catch (error) {
        $("means-told").textContent = "`nightlens browse` does not answer; load this page again once it runs.";
      }
    }

    async function save(to) {
      $("saved").textContent = "Being written …";
      const body = new URLSearchParams({ to, rows: shown.map((i) => data.start + i).join(",") });
      try {
        const response = await fetch("save", { method: "POST", body });
        if (!response.ok) throw new Error((await response.json()).problem);
        const name = `${live.night}-${shown.length}-rows.${to}`, source = URL.createObjectURL(await response.blob());
        make("a", { href: source, download: name }).click();
        URL.revokeObjectURL(source);
        $("saved").textContent = `Saved as ${name}`;
      } catch (error) {
        $("saved").textContent = error instanceof TypeError ? "`nightlens browse` does not answer; is it still running?" : error.message;
      }
    }

    // What is shown, as a link, as Python and as files.

    const fields = () => [...$("filters").elements].filter((field) => field.id && field.id !== "goto");

    function follow() {
      const asked = new URLSearchParams(location.search);
      for (const field of fields()) if (asked.has(field.id)) field.value = asked.get(field.id);
      if (!$("sort").value) $("sort").selectedIndex = 0;
      for (const field of fields()) if (field.tagName === "SELECT" && field.selectedIndex < 0) field.selectedIndex = 0;
      other = asked.get("beside") ?? "";
    }

    function link() {
      const said = new URLSearchParams(fields().filter((field) => field.value && !(field.id === "sort" && field.selectedIndex === 0)).map((field) => [field.id, field.value]));
      if (other) said.set("beside", other);
      linked = said.size ? `?${said}` : "";
      history.replaceState(null, "", `${location.pathname}${linked}${location.hash}`);
    }

    function python() {
      const [key, direction] = $("sort").value.split(" "), column = data.columns.find((each) => each.name === key);
      const conditions = ["label", "prediction"].flatMap((id) => $(id).value === "" ? [] : [`(table["${id}"] == ${$(id).value})`]);
      conditions.push(...allFilters.flatMap((filter) => filter.python()));
      const lines = ["    table = store.table()"];
      if (conditions.length) lines.push(`    table = table[${conditions.join(" & ")}]`);
      // Names are in order of their length first, as in the page, and rows without one come last.
      const none = direction === "1" ? '==' : '!=';
      const by = column?.by_size ? ", key=abs" : column && isName(column) ? `, key=lambda names: names.map(lambda name: (name ${none} "", len(name), name))` : "";
      if (column) lines.push(`    table = table.sort_values("${key}"${by}, ascending=${direction === "1" ? "True" : "False"}, kind="stable")`);
      else if (direction !== "1") lines.push("    table = table.sort_index(ascending=False)");
      lines.push("    values = store.attributions(table.index[:10])  # (row, y, x, channel), signed, in units of the score");
      return `import nightlens\n\nwith nightlens.open_store(${JSON.stringify(data.store)}) as store:\n${lines.join("\n")}`;
    }

    function say() {
      $("selection-code").textContent = python();
      $("copied-selection").textContent = $("saved").textContent = "";
      $("save-png").textContent = shown.length > live.png_rows ? `the first ${live.png_rows}` : "their pictures";
      for (const button of $("save").querySelectorAll("button")) button.disabled = !shown.length;
      link();
    }

    function begin() {
      follow();
      $("window").addEventListener("scroll", () => requestAnimationFrame(() => { show(); ask(); }), { passive: true });
      $("window").addEventListener("keydown", moveAmongCards);
      $("retry").addEventListener("click", ask);
      $("copy-selection").addEventListener("click", () => copy($("selection-code"), $("copied-selection")));
      for (const button of $("save").querySelectorAll("button")) button.addEventListener("click", () => save(button.dataset.to));
      $("beside").addEventListener("change", () => { other = $("beside").value; link(); beside(current); });
      new ResizeObserver(() => { measure(); show(); ask(); }).observe($("window"));
      new IntersectionObserver(([seen], observer) => {
        if (!seen.isIntersecting) return;
        observer.disconnect();
        drawMeans();
      }).observe($("means-told"));
      // Back and forward: the link says what is shown.
      addEventListener("popstate", () => {
        if (location.search === linked) return;
        for (const field of fields()) field.value = field.id === "sort" ? field.options[0].value : "";
        follow();
        choose();
      });
      findOthers();
    }

    return { begin, beside, draw, large, say };
  })();
