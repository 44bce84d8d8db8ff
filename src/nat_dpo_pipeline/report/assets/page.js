"use strict";
// Everything that a model wrote is shown as text (textContent), never as HTML.
(() => {
  const PAGE = 20;
  const SLICE_MS = 30;
  const DIFF_MS = 400;
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const count = (value) => value.toLocaleString("en-US");
  const short = (value) => Number(value.toPrecision(4)).toLocaleString("en-US", { maximumSignificantDigits: 4 });

  const make = (tag, className, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children);
    return node;
  };

  // ---------------------------------------------------------------- charts
  const numbers = read("numbers");

  const bins = (histogram, name) => {
    const counts = histogram.counts[name];
    const total = counts.reduce((sum, one) => sum + one, 0) || 1;
    return counts.map((one, place) => ({
      x1: histogram.edges[place], x2: histogram.edges[place + 1], count: one, share: (100 * one) / total,
    }));
  };

  const frame = (width, options) => ({
    width, height: 250, marginLeft: 46, marginRight: 12, marginBottom: 38, style: { fontSize: "12px" }, ...options,
  });

  const scores = (width) => {
    const histogram = numbers.scores.histogram;
    const of = (name, options) => vendor.rectY(bins(histogram, name), { x1: "x1", x2: "x2", y: "share", ...options });
    const outline = (name, stroke) => {
      const found = bins(histogram, name);
      const steps = [[found[0].x1, 0], ...found.map((bin) => [bin.x1, bin.share]), [found.at(-1).x2, found.at(-1).share],
        [found.at(-1).x2, 0]];
      return vendor.line(steps, { curve: "step-after", stroke, strokeWidth: 2 });
    };
    return vendor.plot(frame(width, {
      x: { label: "score" }, y: { label: "% of each", grid: true, ticks: 5 },
      marks: [
        of("all", { fill: "var(--muted)", fillOpacity: 0.4 }),
        of("chosen", { fill: "var(--chosen)", fillOpacity: 0.2 }),
        of("rejected", { fill: "var(--rejected)", fillOpacity: 0.2 }),
        outline("rejected", "var(--rejected)"),
        outline("chosen", "var(--chosen)"),
        vendor.ruleY([0], { stroke: "var(--muted)" }),
      ],
    }));
  };

  const margins = (width) => {
    const { spread, median_of_all: median } = numbers.margins;
    const found = bins(spread.histogram, "pairs");
    const halves = found.flatMap((bin) => (bin.x1 < median && median < bin.x2
      ? [{ ...bin, x2: median, under: true }, { ...bin, x1: median, under: false }]
      : [{ ...bin, under: bin.x2 <= median }]));
    return vendor.plot(frame(width, {
      x: { label: "margin" }, y: { label: "pairs", grid: true, ticks: 5, tickFormat: count },
      marks: [
        vendor.rectY(halves, {
          x1: "x1", x2: "x2", y: "count", fill: (bin) => (bin.under ? "var(--muted)" : "var(--chosen)"),
          insetLeft: 0.5, insetRight: 0.5,
        }),
        vendor.ruleX([median], { stroke: "var(--ink)", strokeDasharray: "3,3" }),
        vendor.ruleY([0], { stroke: "var(--muted)" }),
      ],
    }));
  };

  const lengths = (width) => {
    const cells = numbers.lengths.cells;
    const most = Math.max(...cells.map((cell) => cell.pairs));
    const low = Math.min(...cells.flatMap((cell) => [cell.chosen_from, cell.rejected_from]));
    const high = Math.max(...cells.flatMap((cell) => [cell.chosen_to, cell.rejected_to]));
    const side = Math.min(width, 420);
    const colour = (cell) => {
      if (cell.chosen_from === cell.rejected_from) return "var(--muted)";
      return cell.chosen_from > cell.rejected_from ? "var(--chosen)" : "var(--rejected)";
    };
    const axis = { type: "log", domain: [low, high], ticks: 4, tickFormat: (value) => count(value) };
    return vendor.plot(frame(side, {
      height: side * 0.86, marginLeft: 58, x: { ...axis, label: "rejected" }, y: { ...axis, label: "chosen" },
      marks: [
        vendor.rect(cells, {
          x1: "rejected_from", x2: "rejected_to", y1: "chosen_from", y2: "chosen_to", inset: 0.5, fill: colour,
          fillOpacity: (cell) => 0.15 + 0.85 * Math.sqrt(cell.pairs / most),
          title: (cell) => `${count(cell.pairs)} pairs`,
        }),
        vendor.line([[low, low], [high, high]], { stroke: "var(--ink)", strokeDasharray: "3,3" }),
      ],
    }));
  };

  const models = (width) => {
    const shown = numbers.models.filter((one) => one.win_rate !== null);
    const at = (share) => 100 * share;
    return vendor.plot(frame(width, {
      height: 46 * shown.length + 50, marginLeft: 8, marginRight: 44,
      x: { label: "% won", domain: [0, 100], grid: true, ticks: 5 },
      y: { type: "point", domain: shown.map((_, place) => place), axis: null, padding: 0.6 },
      marks: [
        vendor.ruleX([50], { stroke: "var(--muted)", strokeDasharray: "3,3" }),
        vendor.text(shown, {
          x: 0, y: (_, place) => place, text: (one) => (one.name.length > 42 ? `${one.name.slice(0, 41)}…` : one.name),
          textAnchor: "start", dy: -9, className: "name", fontSize: 13,
        }),
        vendor.link(shown, {
          x1: (one) => at(one.win_rate_interval[0]), x2: (one) => at(one.win_rate_interval[1]),
          y1: (_, place) => place, y2: (_, place) => place, stroke: "var(--chosen)", strokeWidth: 3,
          strokeOpacity: 0.45, strokeLinecap: "round", dy: 8,
        }),
        vendor.dot(shown, { x: (one) => at(one.win_rate), y: (_, place) => place, r: 5, fill: "var(--chosen)", dy: 8 }),
        vendor.text(shown, {
          x: (one) => at(one.win_rate_interval[1]), y: (_, place) => place, text: (one) => `${Math.round(at(one.win_rate))}\u00a0%`,
          textAnchor: "start", dx: 9, dy: 8, className: "name",
        }),
      ],
    }));
  };

  keepDrawn({
    "chart-scores": { draw: scores, isDrawable: () => numbers.flow.candidates > 0 },
    "chart-margins": { draw: margins, isDrawable: () => numbers.flow.pairs > 0 },
    "chart-lengths": { draw: lengths, isDrawable: () => numbers.lengths.cells.length > 0 },
    "chart-models": { draw: models, isDrawable: () => numbers.models.some((one) => one.win_rate !== null) },
  });

  // ----------------------------------------------------------------- pairs
  const index = read("index");
  const chunks = [...document.querySelectorAll("script.chunk")];
  const total = index.turns.length;
  let cached = [-1, null];

  const chunkOf = (turn) => {
    let low = 0;
    let high = index.chunkStarts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (index.chunkStarts[middle] <= turn) low = middle;
      else high = middle - 1;
    }
    return low;
  };

  const chunk = (place) => {
    if (cached[0] !== place) cached = [place, JSON.parse(chunks[place].textContent)];
    return cached[1];
  };

  const textsOf = (pair) => {
    const turn = index.turns[pair];
    const place = chunkOf(turn);
    const [prompt, responses] = chunk(place)[turn - index.chunkStarts[place]];
    return { prompt, chosen: responses[index.chosen[pair]], rejected: responses[index.rejected[pair]] };
  };

  const messagesOf = (prompt) => (typeof prompt === "string" ? [["user", prompt]] : prompt);
  const asked = (prompt) => messagesOf(prompt).at(-1)?.[1] ?? "";

  const filters = {
    text: byId("filter-text"), reason: byId("filter-reason"), subtopic: byId("filter-subtopic"),
    chosen: byId("filter-chosen"), rejected: byId("filter-rejected"), low: byId("filter-low"),
    high: byId("filter-high"), order: byId("filter-order"),
  };

  const fill = (select, all, names) => {
    select.append(new Option(all, ""), ...names.map(([name, place]) => new Option(name, String(place))));
    select.closest("label").hidden = names.length < 2;
  };
  const named = (names) => names
    .map((name, place) => [name || "(none)", place])
    .sort((one, other) => one[0].localeCompare(other[0]));

  fill(filters.subtopic, "all", named(index.subtopics));
  fill(filters.chosen, "any model", named(index.models));
  fill(filters.rejected, "any model", named(index.models));
  index.reasons.forEach((reason, place) => {
    filters.reason.append(new Option(place ? `left out: ${reason.replaceAll("_", " ")}` : "pairs", String(place)));
  });
  filters.reason.append(new Option("pairs and left out", ""));
  filters.reason.closest("label").hidden = index.reasons.length < 2;

  const wanted = () => {
    const chosenOnly = (select) => (select.value === "" ? -1 : Number(select.value));
    const bound = (input, otherwise) => (input.value.trim() === "" ? otherwise : Number(input.value));
    return {
      reason: chosenOnly(filters.reason), subtopic: chosenOnly(filters.subtopic),
      chosen: chosenOnly(filters.chosen), rejected: chosenOnly(filters.rejected),
      low: bound(filters.low, -Infinity), high: bound(filters.high, Infinity),
      text: filters.text.value.trim().toLowerCase(), order: filters.order.value,
    };
  };

  const fits = (pair, want) => (want.reason < 0 || index.pairReasons[pair] === want.reason)
    && (want.subtopic < 0 || index.turnSubtopics[index.turns[pair]] === want.subtopic)
    && (want.chosen < 0 || index.chosenModels[pair] === want.chosen)
    && (want.rejected < 0 || index.rejectedModels[pair] === want.rejected)
    && index.margins[pair] >= want.low && index.margins[pair] <= want.high;

  const says = (pair, text) => {
    const { prompt, chosen, rejected } = textsOf(pair);
    return [...messagesOf(prompt).map((message) => message[1]), chosen[0], rejected[0]]
      .some((one) => one.toLowerCase().includes(text));
  };

  const idle = () => new Promise((resolve) => { setTimeout(resolve); });
  let found = [];
  let shownPage = 0;
  let search = 0;

  const apply = async () => {
    search += 1;
    const mine = search;
    const want = wanted();
    let pairs = [];
    for (let pair = 0; pair < total; pair += 1) if (fits(pair, want)) pairs.push(pair);
    if (want.text) {
      const matching = [];
      let since = performance.now();
      for (const pair of pairs) {
        if (says(pair, want.text)) matching.push(pair);
        if (performance.now() - since > SLICE_MS) {
          byId("found").textContent = `searching … ${count(matching.length)} so far`;
          await idle();
          if (mine !== search) return;
          since = performance.now();
        }
      }
      pairs = matching;
    }
    if (want.order !== "run") {
      const sign = want.order === "wide" ? -1 : 1;
      pairs.sort((one, other) => sign * (index.margins[one] - index.margins[other]) || one - other);
    }
    found = pairs;
    show(0);
  };

  const show = (page) => {
    shownPage = page;
    const first = page * PAGE;
    const last = Math.min(first + PAGE, found.length);
    const one = found.length === 1 ? "pair" : "pairs";
    byId("found").textContent = found.length ? `${count(found.length)} ${one}` : "No pair is like that.";
    byId("list").replaceChildren(...found.slice(first, last).map(entry));
    byId("pager").hidden = found.length <= PAGE;
    byId("place").textContent = `${count(first + 1)}–${count(last)} of ${count(found.length)}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = last >= found.length;
  };

  const entry = (pair) => {
    const reason = index.reasons[index.pairReasons[pair]];
    const subtopic = index.subtopics[index.turnSubtopics[index.turns[pair]]];
    const [chosen, rejected] = [index.models[index.chosenModels[pair]], index.models[index.rejectedModels[pair]]];
    const ask = make("span", "ask", asked(textsOf(pair).prompt).slice(0, 300));
    ask.dir = "auto";
    const about = make("span", "about");
    if (reason) about.append(make("span", "reason", `left out: ${reason.replaceAll("_", " ")}`), " · ");
    about.append([subtopic, chosen === rejected ? chosen : `${chosen} over ${rejected}`].filter(Boolean).join(" · "));
    const margin = make("span", "margin", `+${short(index.margins[pair])}`);
    margin.title = "margin";
    const node = make("details", "pair", make("summary", "", ask, margin, about));
    node.addEventListener("toggle", () => {
      if (node.open && node.children.length === 1) node.append(body(pair));
    });
    return node;
  };

  const body = (pair) => {
    const { prompt, chosen, rejected } = textsOf(pair);
    const told = make("div", "prompt");
    told.dir = "auto";
    const messages = messagesOf(prompt);
    const spoken = ([role, content]) => [
      ...(messages.length > 1 ? [make("span", "role", role)] : []), ...pieces(content, []), "\n",
    ];
    const early = messages.length > SHOWN_MESSAGES ? messages.slice(0, -SHOWN_MESSAGES) : [];
    const tools = !early.length && messages[0]?.[0] === "tools" ? messages.slice(0, 1) : early;
    if (tools.length) {
      const title = early.length ? `${count(early.length)} earlier messages` : "tools on offer";
      told.append(make("details", "earlier", make("summary", "", title), ...tools.flatMap(spoken)));
    }
    told.append(...messages.slice(tools.length).flatMap(spoken));
    const sides = make("div", "sides",
      side("chosen", chosen, index.models[index.chosenModels[pair]]),
      side("rejected", rejected, index.models[index.rejectedModels[pair]]));
    mark(sides, chosen[0], rejected[0]);
    return make("div", "body", told, sides);
  };

  // A call in a text, as core/messages.py writes it.
  const CALL = /<tool_call>\n(.*?)\n<\/tool_call>/gs;
  const SHOWN_MESSAGES = 3;
  const parsed = (json) => {
    try { return JSON.parse(json); } catch { return null; }
  };
  const callsIn = (text) => [...text.matchAll(CALL)].map((found) => parsed(found[1])).filter(Boolean);

  // A call as its name and a table of its arguments; those that the rival's call has otherwise are marked.
  const card = (call, rival) => {
    const own = Object.entries(call.arguments ?? {});
    const other = rival?.arguments ?? {};
    const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
    const cell = (name, value) => {
      const differs = rival && JSON.stringify(other[name]) !== JSON.stringify(value);
      return make("td", "", differs ? make("mark", "", shown(value)) : shown(value));
    };
    const rows = own.map(([name, value]) => make("tr", "", make("th", "", name), cell(name, value)));
    const title = rival && rival.name !== call.name ? make("mark", "", call.name) : call.name;
    return make("div", "call", make("b", "", title), make("table", "", ...rows));
  };

  const pieces = (text, rivals) => {
    const made = [];
    let end = 0;
    let place = 0;
    for (const found of text.matchAll(CALL)) {
      const call = parsed(found[1]);
      if (!call) continue;
      made.push(text.slice(end, found.index), card(call, rivals[place]));
      place += 1;
      end = found.index + found[0].length;
    }
    made.push(text.slice(end));
    return made.filter((piece) => piece !== "");
  };

  const side = (kind, [text, score, rollouts, place], model) => {
    const behind = rollouts ? ` · ${rollouts > 1 ? `mean of ${count(rollouts)} rollouts` : "of one rollout"}${place ? `, message ${count(place + 1)}` : ""}` : "";
    const head = make("h4", "", make("span", "", make("b", "", kind), ` by ${model}`),
      make("span", "", `score ${short(score)}${behind} · ${count([...text].length)} characters`));
    const answer = make("div", "answer", ...pieces(text, []));
    answer.dir = "auto";
    answer.tabIndex = 0;
    return make("div", `side ${kind}`, head, answer);
  };

  const mark = (sides, chosen, rejected) => {
    if (!byId("mark").checked) return;
    const [ours, theirs] = [callsIn(chosen), callsIn(rejected)];
    if (ours.length || theirs.length) {
      sides.querySelector(".chosen .answer").replaceChildren(...pieces(chosen, theirs));
      sides.querySelector(".rejected .answer").replaceChildren(...pieces(rejected, ours));
      return;
    }
    const parts = vendor.diffWordsWithSpace(rejected, chosen, { timeout: DIFF_MS });
    if (!parts) return; // too different to tell in time
    const changed = (without) => parts
      .filter((part) => !part[without])
      .map((part) => (part.added || part.removed ? make("mark", "", part.value) : part.value));
    sides.querySelector(".chosen .answer").replaceChildren(...changed("removed"));
    sides.querySelector(".rejected .answer").replaceChildren(...changed("added"));
  };

  let waiting = 0;
  const later = () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, 180);
  };
  const form = byId("filters");
  form.hidden = total === 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  const changed = (event) => { if (event.target !== byId("mark")) later(); };
  form.addEventListener("input", changed);
  form.addEventListener("change", changed);
  form.addEventListener("reset", () => setTimeout(apply));
  byId("mark").addEventListener("change", () => show(shownPage));
  const turn = (by) => {
    show(shownPage + by);
    byId("pairs").scrollIntoView();
    byId("list").querySelector("summary")?.focus({ preventScroll: true });
  };
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  apply().then(() => { document.documentElement.dataset.ready = "yes"; });
})();
