// Owns what the page shows of one crawl: a head, a Stop button, and a pane with the last lines of
// each worker. Runs in the page, as the module of an anywidget; panel.py is its other end.
//
// Lines, names and states are foreign text (workers and remote sites wrote them): they reach the
// page through textContent and title alone, never as HTML, and never name a class or a style.
// Lines are kept in a ring per worker and only those in sight are drawn, once per animation frame:
// so 10,000 lines a second cost a sixth of a core.

const ROWS_MAX = 5000; // of one worker; as in rings.py
const ROWS_SLACK = 500; // rows above that before the oldest are cut off, all at once
const ERRORS_MAX = 500; // rows of errors kept beyond that; as in rings.py
const ROW_PX = 16; // height of a row; as in panel.css
const OVERSCAN_ROWS = 4; // drawn above and below those in sight
const SILENT_MS = 8000; // the kernel says something each second while a crawl goes on
const WATCH_MS = 1000; // between two looks at whether it does
const TWICE_MS = 700; // a second press within this is a double click, and no order to kill
const CLOCK_CHARS = 9; // "12:00:01 "
const LEVELS = { D: 10, I: 20, W: 30, E: 40, C: 50 };
const LEVEL_CLASSES = { D: "debug", I: "info", W: "warning", E: "error", C: "error" };
const STATES = new Set(["queued", "starting", "running", "waiting", "stopping", "closing"]);
const ENDS = new Set(["finished", "stopped", "failed", "cancelled", "lost", "store_rolled_back"]);
const GOOD_ENDS = new Set(["finished", "stopped"]);
const UP_KEYS = new Set(["ArrowUp", "PageUp", "Home"]);
const SCROLL_KEYS = new Set([...UP_KEYS, "ArrowDown", "PageDown", "End"]);

// ---- what is kept: one store for each panel, shared by all its views ---------------------------

class Lines {
  constructor() {
    this.clear();
  }

  clear() {
    this.errors = [];
    this.rows = [];
    this.last = 0;
  }

  add(first, text) {
    let number = first;
    for (const row of text.split("\n")) {
      if (number > this.last) {
        this.rows.push({ number, mark: row.charAt(0), text: row.slice(1) });
        this.last = number;
      }
      number += 1;
    }
    if (this.rows.length > ROWS_MAX + ROWS_SLACK) {
      const old = this.rows.splice(0, this.rows.length - ROWS_MAX);
      this.errors.push(...old.filter((row) => level(row) >= LEVELS.E));
      this.errors.splice(0, Math.max(0, this.errors.length - ERRORS_MAX));
    }
  }

  // Rows to show, with one for each gap; a filter takes or leaves all rows of a log line.
  shown(filter) {
    const found = [];
    let after = 1;
    for (const part of [this.errors, this.rows]) {
      for (let at = 0; at < part.length; ) {
        let end = at + 1;
        while (end < part.length && part[end].mark > "Z" && part[end].number === part[end - 1].number + 1)
          end += 1;
        const missing = part[at].number - after;
        if (missing > 0 && !filter.text) found.push({ number: after, missing });
        if (matches(part, at, end, filter)) for (let i = at; i < end; i += 1) found.push(part[i]);
        after = part[end - 1].number + 1;
        at = end;
      }
    }
    return found;
  }
}

function level(row) {
  return LEVELS[row.mark.toUpperCase()] ?? LEVELS.I;
}

function matches(rows, at, end, filter) {
  if (level(rows[at]) < filter.level) return false;
  if (!filter.text) return true;
  for (let i = at; i < end; i += 1) if (rows[i].text.toLowerCase().includes(filter.text)) return true;
  return false;
}

class Store {
  constructor(model) {
    this.lines = [];
    this.views = new Set();
    this.heard = Date.now();
    this.asked = false; // whether a stop was asked for in this page
    model.on("msg:custom", (message) => this.receive(message));
    model.on("change:head", () => this.changed());
    model.on("change:panes", () => this.changed());
    model.send({ k: "hello" });
  }

  of(pane) {
    return (this.lines[pane] ??= new Lines());
  }

  receive(message) {
    if (message.k === "enter") {
      for (const view of this.views) if (view.answer(message.v)) break;
      return;
    }
    if (message.k === "backlog") this.lines.forEach((lines) => lines.clear());
    for (const [pane, first, text] of message.v ?? []) this.of(pane).add(first, text);
    this.changed();
  }

  changed() {
    this.heard = Date.now();
    for (const view of this.views) view.schedule();
  }
}

const stores = new Map();

// The model is another object for each view, so a store is found by its panel's own key.
function storeOf(model) {
  const key = model.get("key");
  if (!stores.has(key)) stores.set(key, new Store(model));
  return stores.get(key);
}

// ---- what is shown ------------------------------------------------------------------------------

function make(tag, name, attributes = {}) {
  const element = document.createElement(tag);
  element.className = `vscrapy-${name}`;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

class Pane {
  constructor(view, lines) {
    this.view = view;
    this.lines = lines;
    this.rows = [];
    this.follow = true;
    this.open = true;
    this.el = make("section", "pane");
    this.head = make("button", "pane-head", { type: "button", "aria-expanded": "true" });
    this.name = make("span", "pane-name");
    this.mark = make("span", "pane-mark");
    this.counts = make("span", "pane-counts");
    this.head.append(make("span", "arrow", { "aria-hidden": "true" }), this.name, this.mark, this.counts);
    // role=log would be read aloud, a thousand lines a second; so it is not live.
    this.body = make("div", "pane-body", {
      tabindex: "0",
      role: "log",
      "aria-live": "off",
      "data-lm-suppress-shortcuts": "true",
    });
    this.space = make("div", "pane-space");
    this.layer = make("div", "pane-rows");
    this.space.append(this.layer);
    this.body.append(this.space);
    this.el.append(this.head, this.body);
    this.head.addEventListener("click", () => this.toggle());
    this.body.addEventListener("scroll", () => this.scrolled());
    this.body.addEventListener("wheel", (event) => event.deltaY < 0 && this.leaveTail(), { passive: true });
    this.body.addEventListener("keydown", (event) => {
      if (SCROLL_KEYS.has(event.key)) event.stopPropagation();
      if (UP_KEYS.has(event.key)) this.leaveTail();
    });
  }

  // At once: a line that comes before the scrolling is done must not pull the reader back.
  leaveTail() {
    if (this.body.scrollHeight <= this.body.clientHeight) return;
    this.follow = false;
    this.view.schedule(false);
  }

  toggle() {
    this.open = !this.open;
    this.head.setAttribute("aria-expanded", String(this.open));
    this.body.hidden = !this.open;
    this.view.schedule();
  }

  scrolled() {
    if (!this.body.clientHeight) return;
    const below = this.body.scrollHeight - this.body.clientHeight - this.body.scrollTop;
    this.follow = below < ROW_PX;
    this.view.schedule(false);
  }

  describe(pane) {
    say(this.name, pane.name);
    say(this.mark, pane.mark);
    const said = [counted(pane.lines, "line")];
    if (pane.errors) said.push(counted(pane.errors, "error"));
    if (pane.dropped) said.push(`${pane.dropped.toLocaleString("en")} dropped`);
    say(this.counts, said.join(", "));
    this.el.classList.toggle("vscrapy-has-mark", Boolean(pane.mark));
    this.el.classList.toggle("vscrapy-has-errors", pane.errors > 0);
    this.el.setAttribute("aria-label", `worker ${pane.name}`);
    this.body.setAttribute("aria-label", `lines of ${pane.name}`);
  }

  // Takes what is to be shown; where the user has scrolled to stays in sight.
  fill(filter) {
    if (!this.open) return;
    const top = this.rows[Math.floor(this.body.scrollTop / ROW_PX)]?.number;
    this.rows = this.lines.shown(filter);
    this.space.style.height = `${this.rows.length * ROW_PX}px`;
    if (this.follow) {
      this.body.scrollTop = this.rows.length * ROW_PX;
    } else if (top !== undefined) {
      const now = this.rows.findIndex((row) => row.number >= top);
      const moved = (now < 0 ? this.rows.length : now) * ROW_PX + (this.body.scrollTop % ROW_PX);
      if (moved !== this.body.scrollTop) this.body.scrollTop = moved;
    }
  }

  draw() {
    const height = this.body.clientHeight;
    if (!this.open || !height) return;
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW_PX) - OVERSCAN_ROWS);
    const last = Math.min(this.rows.length, first + Math.ceil(height / ROW_PX) + 2 * OVERSCAN_ROWS);
    this.layer.style.transform = `translateY(${first * ROW_PX}px)`;
    while (this.layer.childElementCount < last - first) this.layer.append(makeRow());
    while (this.layer.childElementCount > last - first) this.layer.lastElementChild.remove();
    for (let i = first; i < last; i += 1) drawRow(this.layer.children[i - first], this.rows[i]);
  }
}

function makeRow() {
  const row = make("div", "row");
  row.append(make("span", "clock"), make("span", "text"));
  return row;
}

function drawRow(element, row) {
  const [clock, text] = element.children;
  if (row.missing) {
    element.className = "vscrapy-row vscrapy-gap";
    say(clock, "");
    say(text, `... ${counted(row.missing, "line")} not shown`);
    return;
  }
  const begins = row.mark <= "Z"; // a line; rows that go on with it have no clock
  element.className = `vscrapy-row vscrapy-${LEVEL_CLASSES[row.mark.toUpperCase()] ?? "info"}`;
  say(clock, begins ? row.text.slice(0, CLOCK_CHARS) : "");
  say(text, begins ? row.text.slice(CLOCK_CHARS) : row.text);
}

class View {
  constructor(model, store, el) {
    this.model = model;
    this.store = store;
    this.panes = [];
    this.frame = 0;
    this.isNew = true;
    this.el = make("div", "panel", { role: "region", "aria-label": "crawl" });
    this.notices = make("div", "notices", { role: "status" });
    this.grid = make("div", "grid");
    this.empty = make("div", "empty");
    say(this.empty, "no lines yet");
    this.el.append(this.makeHead(), this.notices, this.grid);
    el.append(this.el);
    this.watch = setInterval(() => this.schedule(false), WATCH_MS);
    this.sizes = new ResizeObserver(() => this.schedule(true));
    this.sizes.observe(this.grid);
    store.views.add(this);
    this.schedule();
  }

  makeHead() {
    const head = make("div", "head");
    this.dot = make("span", "dot", { "aria-hidden": "true" });
    this.title = make("span", "title");
    this.id = make("span", "id");
    this.words = make("span", "words");
    const says = make("div", "says");
    says.append(this.dot, this.title, this.id, this.words);
    this.search = make("input", "search", {
      type: "search",
      placeholder: "filter",
      "aria-label": "show only lines with this text",
      "data-lm-suppress-shortcuts": "true",
    });
    this.search.addEventListener("input", () => this.schedule());
    this.search.addEventListener("keydown", (event) => event.stopPropagation());
    this.levels = make("select", "levels", {
      "aria-label": "show lines of this level and above",
      "data-lm-suppress-shortcuts": "true",
    });
    const names = [["all", 0], ["INFO", LEVELS.I], ["WARNING", LEVELS.W], ["ERROR", LEVELS.E]];
    for (const [name, value] of names) this.levels.append(new Option(name, String(value)));
    this.levels.addEventListener("change", () => this.schedule());
    this.tail = make("button", "button", { type: "button", title: "keep the newest lines in sight" });
    say(this.tail, "Follow");
    this.tail.addEventListener("click", () => this.followAll());
    this.stop = make("button", "button vscrapy-stop", { type: "button" });
    this.stop.addEventListener("click", () => this.askToStop());
    const tools = make("div", "tools");
    tools.append(this.search, this.levels, this.tail, this.stop);
    head.append(says, tools);
    return head;
  }

  followAll() {
    const follow = !this.panes.every((pane) => pane.follow);
    for (const pane of this.panes) pane.follow = follow;
    this.schedule();
  }

  // The first press stops, the second kills. While the cell blocks, the kernel hears an interrupt
  // only; the magic counts those.
  async askToStop() {
    const { state, blocking } = this.model.get("head");
    if (Date.now() - (this.pressed ?? 0) < TWICE_MS) return;
    const now = this.store.asked || state === "stopping";
    this.store.asked = true;
    this.pressed = Date.now();
    setTimeout(() => this.schedule(false), TWICE_MS);
    this.schedule(false);
    const kernel = this.model.widget_manager?.kernel;
    try {
      if (!blocking || !kernel?.interrupt) throw new Error("nothing to interrupt");
      await kernel.interrupt();
    } catch {
      this.model.send({ k: "stop", now });
    }
  }

  // Answers the input box that is open in this notebook, as the user would.
  answer(text) {
    const boxes = (this.el.closest(".jp-Notebook") ?? document).querySelectorAll(".jp-Stdin-input:not([disabled])");
    const box = boxes[boxes.length - 1];
    if (!box) return false;
    box.value = text;
    box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }));
    return true;
  }

  schedule(isNew = true) {
    this.isNew ||= isNew;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const head = this.model.get("head");
    const going = STATES.has(head.state);
    const silent = going && Date.now() - this.store.heard > SILENT_MS;
    this.drawHead(head, silent);
    if (this.isNew) {
      this.isNew = false;
      this.drawPanes(this.model.get("panes"));
      const filter = { level: Number(this.levels.value), text: this.search.value.trim().toLowerCase() };
      for (const pane of this.panes) pane.fill(filter);
    }
    for (const pane of this.panes) pane.draw();
    this.tail.setAttribute("aria-pressed", String(this.panes.every((pane) => pane.follow)));
  }

  drawHead(head, silent) {
    say(this.title, head.title);
    say(this.id, head.crawl_id);
    say(this.words, head.words);
    this.el.setAttribute("aria-label", `crawl ${head.title} ${head.crawl_id}`);
    const known = STATES.has(head.state) || ENDS.has(head.state);
    const kind = ENDS.has(head.state) && !GOOD_ENDS.has(head.state) ? "bad" : head.state;
    this.dot.className = `vscrapy-dot${known ? ` vscrapy-is-${kind}` : ""}`;
    const said = [...head.notices];
    if (silent) said.unshift("no news from the kernel: what is shown may be old");
    this.el.classList.toggle("vscrapy-silent", silent);
    while (this.notices.childElementCount > said.length) this.notices.lastElementChild.remove();
    while (this.notices.childElementCount < said.length) this.notices.append(make("div", "notice"));
    said.forEach((text, at) => say(this.notices.children[at], text));
    const kills = this.store.asked || head.state === "stopping";
    const waits = Date.now() - (this.pressed ?? 0) < TWICE_MS;
    say(this.stop, kills ? "Kill" : "Stop");
    this.stop.disabled = !head.stoppable || silent || waits;
    this.stop.hidden = ENDS.has(head.state);
    this.stop.title = kills
      ? "stopping: what is in flight is finished; press again to end the crawl at once"
      : "send no further request and finish what is in flight";
  }

  drawPanes(states) {
    states.forEach((state, at) => {
      if (!this.panes[at]) {
        this.panes[at] = new Pane(this, this.store.of(at));
        this.panes[at].describe(state);
        this.place(this.panes[at]);
      }
      this.panes[at].describe(state);
    });
    this.grid.dataset.panes = String(Math.min(this.panes.length, 9));
    if (this.panes.length) this.empty.remove();
    else if (!this.empty.isConnected) this.grid.append(this.empty);
  }

  // Panes stand in the order of their names, host-2 before host-10; the sender comes last.
  place(pane) {
    const rank = (name) => (name === "sender" ? 1 : 0);
    const name = pane.name.textContent;
    const next = [...this.grid.querySelectorAll(".vscrapy-pane-name")].find((other) => {
      const text = other.textContent;
      return (rank(text) - rank(name) || text.localeCompare(name, "en", { numeric: true })) > 0;
    });
    this.grid.insertBefore(pane.el, next?.closest(".vscrapy-pane") ?? null);
  }

  close() {
    clearInterval(this.watch);
    cancelAnimationFrame(this.frame);
    this.sizes.disconnect();
    this.store.views.delete(this);
  }
}

export default {
  initialize({ model }) {
    storeOf(model); // so that lines are kept from the first on, whether they are in sight or not
  },
  render({ model, el }) {
    const view = new View(model, storeOf(model), el);
    return () => view.close();
  },
};
