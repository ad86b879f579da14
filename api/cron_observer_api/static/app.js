// Everything here makes a page that already works more pleasant: live updates, keys, copying, a log that follows.
"use strict";
(() => {
  const root = document.documentElement;
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  root.classList.add("scripted");

  const store = {
    get: (name) => { try { return localStorage.getItem(name); } catch { return null; } },
    set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* private mode: forget */ } },
  };

  // ---- time -------------------------------------------------------------------------------------------------
  const span = (seconds) => {
    const s = Math.abs(seconds);
    if (s < 60) return `${Math.floor(s)} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h`;
    const days = Math.floor(s / 86400);
    return days === 1 ? "1 day" : `${days} days`;
  };
  const tick = () => {
    if (document.hidden) return;
    for (const element of $$("time[data-rel]")) {
      const seconds = (Date.now() - Date.parse(element.dateTime)) / 1000;
      const said = Math.abs(seconds) < 1 ? "now" : seconds > 0 ? `${span(seconds)} ago` : `in ${span(seconds)}`;
      if (element.textContent !== said) element.textContent = said;
    }
  };
  setInterval(tick, 5000);

  const localZone = () => {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
    for (const link of $$(".zone-local")) {
      const address = new URL(link.href);
      address.searchParams.set("zone", zone);
      link.href = address.pathname + address.search;
      link.title = zone;
    }
  };

  // ---- live -------------------------------------------------------------------------------------------------
  // One stream for the visible page says that something has changed; then the page is read again and morphed into
  // place. Without a stream, the page is read again every ten seconds.
  const QUIET = 1000;
  const POLL = 10000;
  const live = {
    stream: null, timer: 0, poll: 0, busy: false, again: false, last: 0, failures: 0, retry: 0,
    on: store.get("co-live") !== "off",

    state(name, said) {
      const chip = $("#live-state");
      if (!chip) return;
      chip.dataset.state = name;
      chip.setAttribute("aria-pressed", String(live.on));
      chip.title = { live: "Updates arrive as they happen", poll: "Read again every 10 s", off: "Updates are paused" }[name];
      $(".word", chip).textContent = { live: "Live", poll: "Polling", off: "Paused" }[name];
      const stale = $("#stale");
      if (stale) {
        stale.hidden = !said;
        stale.textContent = said || "";
      }
    },

    start() {
      live.stop();
      if (!live.on) return live.state("off");
      if (document.hidden) return undefined;
      const topics = $("#live")?.dataset.topics;
      if (!topics) return live.polling();
      const stream = new EventSource(`/api/v1/stream?topics=${encodeURIComponent(topics)}`);
      live.stream = stream;
      stream.onopen = () => {
        live.failures = 0;
        clearInterval(live.poll);
        live.poll = 0;
        live.state("live");
        if (Date.now() - live.last > POLL) live.soon();
      };
      stream.onerror = () => {
        live.failures += 1;
        if (stream.readyState === EventSource.CLOSED || live.failures > 2) {
          stream.close();
          live.polling();
          clearTimeout(live.retry);
          live.retry = setTimeout(() => live.start(), 60000);
        }
      };
      for (const kind of ["execution", "task", "source", "reset"]) stream.addEventListener(kind, () => live.soon());
      for (const kind of ["log", "more"]) {
        stream.addEventListener(kind, (event) => $$("log-view").forEach((view) => view.told(JSON.parse(event.data))));
      }
      return undefined;
    },

    polling() {
      live.state("poll");
      clearInterval(live.poll);
      live.poll = setInterval(() => {
        live.refresh();
        $$("log-view").forEach((view) => view.more());
      }, POLL);
    },

    stop() {
      live.stream?.close();
      live.stream = null;
      clearInterval(live.poll);
      clearTimeout(live.timer);
      clearTimeout(live.retry);
      live.timer = 0;
    },

    // Many events in a row make one reading; a reading follows another after a second at the earliest.
    soon() {
      if (live.timer || !live.on || document.hidden) return;
      live.timer = setTimeout(() => {
        live.timer = 0;
        live.refresh();
      }, Math.max(250, live.last + QUIET - Date.now()));
    },

    async refresh() {
      if (live.busy) {
        live.again = true;
        return;
      }
      live.busy = true;
      try {
        const address = location.pathname + location.search;
        const answer = await fetch(address, { headers: { "HX-Request": "true" } });
        live.last = Date.now();
        if (!answer.ok) throw new Error(String(answer.status));
        const text = await answer.text();
        if (address === location.pathname + location.search) await morph(text, "#live");
        live.state(live.stream && live.stream.readyState === EventSource.OPEN ? "live" : live.on ? "poll" : "off");
      } catch {
        live.state("poll", "The server does not answer; what you see may be old.");
      } finally {
        live.busy = false;
        if (live.again) {
          live.again = false;
          live.soon();
        }
      }
    },

    toggle() {
      live.on = !live.on;
      store.set("co-live", live.on ? "on" : "off");
      live.start();
      if (live.on) live.refresh();
    },
  };
  const morph = async (text, selector) => {
    const rowHref = $("tr.cur a")?.getAttribute("href");
    const scrolled = $$(".scroll").map((box) => box.scrollLeft);
    await htmx.swap({ text, target: selector, select: selector, swap: "outerMorph", sourceElement: document.body });
    $$(".scroll").forEach((box, n) => { box.scrollLeft = scrolled[n] || 0; });
    if (rowHref) $$("tr[data-row]").find((row) => $("a", row)?.getAttribute("href") === rowHref)?.classList.add("cur");
    prepare();
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? live.stop() : (live.start(), live.on && live.soon(), tick())));
  addEventListener("pagehide", () => live.stop());
  addEventListener("pageshow", (event) => { if (event.persisted) live.start(); });

  // ---- searching while typing ---------------------------------------------------------------------------------
  let searching = 0;
  document.addEventListener("input", (event) => {
    if (event.target.id !== "q") return;
    clearTimeout(searching);
    searching = setTimeout(async () => {
      const query = event.target.value.trim();
      const address = query ? `/tasks?q=${encodeURIComponent(query)}` : "/tasks";
      history.replaceState(history.state, "", address);
      const answer = await fetch(address, { headers: { "HX-Request": "true" } });
      if (answer.ok && location.pathname + location.search === address) await morph(await answer.text(), "#live");
    }, 250);
  });

  // ---- charts: one stop for Tab, arrows from mark to mark -------------------------------------------------------
  const rove = (event) => {
    const chart = event.target.closest?.("[data-rove]");
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!chart || !step || event.altKey || event.ctrlKey || event.metaKey) return false;
    const marks = $$("a", chart);
    const next = marks[marks.indexOf(event.target.closest("a")) + step];
    if (next) {
      event.preventDefault();
      next.focus();
    }
    return true;
  };

  // ---- keys -------------------------------------------------------------------------------------------------
  let prefix = 0;
  const go = (selector) => { const link = $(selector); if (link) location.href = link.href; };
  const rows = () => $$("tr[data-row]");
  const row = (step) => {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((one) => one.classList.contains("cur"));
    const next = all[Math.min(all.length - 1, Math.max(0, at + step))];
    all[at]?.classList.remove("cur");
    next.classList.add("cur");
    $("a", next)?.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  };
  const view = () => $("log-view");
  const actions = {
    "/": () => ($("#log-q") || $("#q") || $("#q-top"))?.focus(),
    "?": () => help(),
    j: () => row(1),
    k: () => row(-1),
    "[": () => go('[data-key="["]'),
    "]": () => go('[data-key="]"]'),
    t: () => { location.href = "/"; },
    ".": () => live.toggle(),
    f: () => view()?.follow(),
    w: () => view()?.wrap(),
    n: () => view()?.step(1),
    N: () => view()?.step(-1),
    g: () => { prefix = Date.now(); },
  };
  const places = { o: "/", t: "/tasks", s: "/sync" };
  const help = () => { const dialog = $("#help"); if (!dialog.open) dialog.showModal(); };
  document.addEventListener("keydown", (event) => {
    if (rove(event) || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, dialog[open]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (root.dataset.keys === "off") return;
    if (Date.now() - prefix < 1500 && places[event.key]) {
      prefix = 0;
      location.href = places[event.key];
      return;
    }
    if (actions[event.key]) {
      if (event.key !== "g") prefix = 0;
      event.preventDefault();
      actions[event.key]();
    }
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.id === "help-open") help();
    else if (button?.id === "live-state") live.toggle();
    else if (button?.dataset.log === "follow") view()?.follow();
    else if (button?.dataset.log === "wrap") view()?.wrap();
    else if (button?.dataset.log === "link") view()?.link(button);
  });

  // ---- copying ----------------------------------------------------------------------------------------------
  customElements.define("copy-text", class extends HTMLElement {
    connectedCallback() {
      this.addEventListener("click", async (event) => {
        if (!event.target.closest(".copy")) return;
        const word = $(".copy span", this);
        try {
          await navigator.clipboard.writeText($("pre", this).textContent);
          word.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren($("pre", this));
          word.textContent = "Selected";
        }
        setTimeout(() => { word.textContent = "Copy"; }, 2000);
      });
    }
  });

  const prepare = () => {
    localZone();
    tick();
    live.state(!live.on ? "off" : live.stream ? "live" : "poll");
  };
  const toNow = () => {
    const now = $(".timeline .nowdot");
    const box = now?.closest(".scroll");
    if (box && box.scrollWidth > box.clientWidth) {
      box.scrollLeft = (now.cx.baseVal.value / now.ownerSVGElement.viewBox.baseVal.width) * box.scrollWidth - box.clientWidth * 0.7;
    }
  };
  localZone();
  toNow();
  live.start();
})();
