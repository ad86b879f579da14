// The log viewer: scrolls through a million lines with some dozens of elements. Without it, the page shows the log
// page by page.
//
// The scrollbar stands for the share of the lines above; wheel and keys move by lines, so that nothing depends on how
// tall an element may be, nor on how tall a wrapped line is. Lines are fetched in ranges, drawn by the server.
"use strict";
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const ROW = 20; // pixels of a line that is not wrapped
  const TALLEST = 8000000; // pixels: browsers ignore what is much taller
  const MATCHES = 10000; // of a search
  const NEWS = 10000; // milliseconds between two announcements of new lines

  const stored = {
    get: (name) => { try { return localStorage.getItem(name); } catch { return null; } },
    set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* private mode: forget */ } },
  };
  const hashed = () => {
    const range = /^#L(\d+)(?:-L(\d+))?$/.exec(location.hash);
    return range && [Number(range[1]), Number(range[2] || range[1])];
  };

  customElements.define("log-view", class extends LogRows {
    connectedCallback() {
      this.box = $(".logbox", this);
      this.list = $(".lines", this);
      if (!this.box || !this.list || this.window) return;
      this.attempt = Number(this.dataset.attempt);
      this.searched = this.dataset.q;
      this.total = Number(this.searched ? this.dataset.stored : this.list.dataset.total);
      this.cuts = JSON.parse(this.list.dataset.cuts);
      this.ranges = new Map();
      this.asked = new Set();
      this.found = [];
      this.top = 0;
      this.rest = 0;
      this.build();
      this.wrap(stored.get("co-wrap") !== "off");
      this.listen();
      const line = Number(this.dataset.line);
      if (hashed()) this.select();
      else if (line) this.jump(line - 1);
      else this.follow("live" in this.dataset);
      if (!hashed() && !line) this.end();
      if (this.searched) this.search(this.searched);
    }

    build() {
      for (const one of $$(".more", this)) one.remove();
      this.window = document.createElement("div");
      this.window.className = "logwin";
      this.space = document.createElement("div");
      this.box.classList.add("rows");
      this.list.replaceChildren();
      this.window.append(this.list);
      this.box.append(this.window, this.space);
    }

    listen() {
      this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
      this.box.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
      this.box.addEventListener("keydown", (event) => this.pressed(event));
      this.addEventListener("click", (event) => this.clicked(event));
      this.onHash = () => this.select();
      addEventListener("hashchange", this.onHash);
      this.resized = new ResizeObserver(() => this.draw());
      this.resized.observe(this.box);
      $("#log .search:not(.jump)")?.addEventListener("submit", (event) => {
        event.preventDefault();
        const query = $("#log-q").value;
        if (query && query === this.searched) this.step(1);
        else this.search(query);
      });
      $("#log .jump")?.addEventListener("submit", (event) => {
        event.preventDefault();
        const line = Number($("#log-line").value);
        if (line > 0) location.hash = `L${line}`;
      });
    }

    disconnectedCallback() {
      removeEventListener("hashchange", this.onHash);
      this.resized?.disconnect();
    }

    // ---- drawing --------------------------------------------------------------------------------------------
    soon() {
      this.frame ??= requestAnimationFrame(() => {
        this.frame = undefined;
        this.draw();
      });
    }

    get wraps() { return !this.box.classList.contains("nowrap"); }

    // The last row that may be the first in sight.
    get last() { return Math.max(0, this.rows() - (this.wraps ? 1 : Math.floor(this.box.clientHeight / ROW))); }

    draw() {
      const rows = this.rows();
      this.box.hidden = rows === 0;
      if (rows) $("[data-none]", this)?.remove();
      this.box.style.height = `${Math.max(2, Math.min(rows, 2000)) * ROW}px`;
      const height = this.box.clientHeight;
      const many = Math.ceil(height / ROW) + 1;
      this.top = Math.min(Math.max(0, this.top), this.last);
      if (!this.wraps && this.top >= this.last && rows > many) this.atEnd = true;
      const first = this.atEnd ? Math.max(0, rows - many - 1) : Math.floor(this.top);
      const items = [];
      for (let row = first; row < Math.min(rows, first + many + 1); row += 1) items.push(this.element(row));
      this.list.replaceChildren(...items);
      this.mark(items);
      if (this.wraps && rows < many) this.box.style.height = `${this.list.offsetHeight}px`;
      const tall = this.list.offsetHeight;
      if (!this.atEnd && first + items.length >= rows && tall <= height) this.atEnd = true;
      this.window.style.height = `${this.box.clientHeight}px`;
      this.list.classList.toggle("low", Boolean(this.atEnd) && tall > this.box.clientHeight);
      this.space.style.height = `${Math.max(0, Math.min(rows * ROW, TALLEST) - this.box.clientHeight)}px`;
      this.place();
    }

    // Put the scrollbar where it belongs, without taking that for somebody's scrolling.
    place() {
      const room = this.box.scrollHeight - this.box.clientHeight;
      const share = this.atEnd ? 1 : this.last ? this.top / this.last : 0;
      if (Math.abs(this.box.scrollTop - share * room) > 1) this.box.scrollTop = share * room;
      this.placed = this.box.scrollTop;
    }

    mark(items) {
      const range = hashed();
      const now = this.found[this.match];
      for (const item of items) {
        const number = Number(item.id.slice(1));
        const chosen = (range && number >= range[0] && number <= range[1]) || (number > 0 && number - 1 === now);
        item.classList.toggle("sel", Boolean(chosen));
      }
    }

    // ---- moving ---------------------------------------------------------------------------------------------
    scrolled() {
      if (Math.abs(this.box.scrollTop - this.placed) < 2) return;
      const room = this.box.scrollHeight - this.box.clientHeight;
      const share = room > 0 ? this.box.scrollTop / room : 0;
      this.placed = this.box.scrollTop;
      this.atEnd = this.box.scrollTop >= room - 1;
      if (!this.atEnd) {
        this.follow(false);
        this.top = share * this.last;
      }
      this.soon();
    }

    // The first row in sight.
    sight() {
      if (!this.atEnd) return Math.floor(this.top);
      const edge = this.box.getBoundingClientRect().top;
      const first = [...this.list.children].findIndex((item) => item.getBoundingClientRect().bottom > edge + 1);
      return this.rows() - this.list.children.length + Math.max(0, first);
    }

    move(lines) {
      const from = this.sight();
      const to = Math.min(Math.max(0, from + lines), this.last);
      if ((lines > 0 && this.atEnd) || (lines < 0 && to === from && !this.rest)) return false;
      this.atEnd = false;
      if (lines < 0) this.follow(false);
      this.top = to;
      this.draw();
      return true;
    }

    wheeled(event) {
      if (event.ctrlKey || event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
      this.rest += event.deltaY / (event.deltaMode === 1 ? 1 : ROW);
      const lines = Math.trunc(this.rest);
      this.rest -= lines;
      if (lines && !this.move(lines)) this.rest = 0;
      else event.preventDefault();
    }

    pressed(event) {
      if (event.altKey || event.ctrlKey || event.metaKey || event.target !== this.box) return;
      const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 2);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, " ": event.shiftKey ? -page : page };
      if (event.key === "End") this.end();
      else if (event.key === "Home") this.jump(0, false);
      else if (steps[event.key]) this.move(steps[event.key]);
      else return;
      event.preventDefault();
    }

    end() {
      this.atEnd = true;
      this.draw();
    }

    // Lines above it may take several rows each when they are wrapped: then fewer of them stand above.
    jump(line, middle = true) {
      const rows = this.wraps ? 6 : Math.floor(this.box.clientHeight / ROW);
      this.follow(false);
      this.atEnd = false;
      this.top = (this.level ? 0 : this.row(line)) - (middle ? Math.floor(rows / 2) : 0);
      this.draw();
    }

    follow(on = !this.follows) {
      this.follows = on;
      $("[data-log=follow]")?.setAttribute("aria-pressed", String(on));
      if (on) {
        this.end();
        this.more();
      }
    }

    wrap(on = !this.wraps) {
      const row = this.window && this.sight();
      this.box.classList.toggle("nowrap", !on);
      stored.set("co-wrap", on ? "on" : "off");
      $("[data-log=wrap]")?.setAttribute("aria-pressed", String(on));
      if (!this.follows) this.top = row;
      this.draw();
    }

    // ---- growing --------------------------------------------------------------------------------------------
    // What the stream says: a line, or how many it has left out.
    told(news) {
      if (news.attempt !== this.attempt || !this.window) return;
      const total = news.next_seq ?? news.seq + 1;
      if (this.level) {
        this.later ??= setTimeout(() => {
          this.later = undefined;
          this.more();
        }, 500);
      } else if (total > this.total) this.grow(total);
    }

    grow(total) {
      this.fresh = (this.fresh || 0) + total - this.total;
      this.total = total;
      if (this.follows) this.atEnd = true;
      else if (this.atEnd) this.top = this.sight();
      if (!this.follows) this.atEnd = false;
      this.soon();
      const said = $("[data-said]", this);
      if (Date.now() - (this.spoke || 0) > NEWS) {
        this.spoke = Date.now();
        said.textContent = `${this.fresh} new ${this.fresh === 1 ? "line" : "lines"}`;
        this.fresh = 0;
      }
    }

    // Ask how long the log is: without a stream, or when following begins.
    async more() {
      try {
        const before = this.total;
        const got = await this.read(this.level ? { rank: 0, limit: 1 } : { from: Math.max(0, before - 1), limit: 1 });
        const total = Number(got.dataset.total);
        this.learn({ dataset: { total: before, cuts: got.dataset.cuts } });
        if (total > before) this.grow(total);
      } catch {
        // the next event, or the next poll, tries again
      }
    }

    // ---- linking --------------------------------------------------------------------------------------------
    // #L12 is one line, #L12-L20 a range; Shift extends the selection.
    clicked(event) {
      const step = event.target.closest("[data-step]");
      if (step) {
        if (step.dataset.step === "0") this.search("");
        else this.step(Number(step.dataset.step));
        return;
      }
      const number = event.target.closest("a.no");
      if (!number) return;
      event.preventDefault();
      const id = number.getAttribute("href").slice(1);
      const from = /^#(L\d+)/.exec(location.hash)?.[1];
      const ends = event.shiftKey && from ? [from, id].sort((a, b) => a.slice(1) - b.slice(1)) : [id];
      history.replaceState(history.state, "", `#${ends.join("-")}`);
      this.follow(false);
      this.mark([...this.list.children]);
    }

    select() {
      const range = hashed();
      if (!range) return;
      if (this.level) {
        const address = new URL(location.href);
        address.searchParams.delete("level");
        location.replace(address);
        return;
      }
      this.jump(range[0] - 1);
      this.box.scrollIntoView({ block: "nearest" });
    }

    async link(button) {
      const word = $("span", button);
      if (!hashed()) {
        const id = [...this.list.children].map((item) => item.id).find(Boolean);
        if (id) history.replaceState(history.state, "", `#${id}`);
      }
      try {
        await navigator.clipboard.writeText(location.href);
        word.textContent = "Copied";
      } catch {
        word.textContent = "In the address";
      }
      setTimeout(() => { word.textContent = "Link"; }, 2000);
    }

    // ---- searching ------------------------------------------------------------------------------------------
    // The server searches a part of the log at a time; the next match is shown as soon as it is known.
    async search(query) {
      const line = this.line(this.sight());
      if (this.searched !== query) this.ranges.clear();
      this.searched = query;
      this.found = [];
      this.match = undefined;
      const bar = $(".found", this);
      bar.hidden = !query;
      if (!query) {
        if (this.dataset.level) location.reload();
        this.draw();
        return;
      }
      if (this.dataset.level) this.total = Number(this.dataset.stored);
      this.draw();
      let from = 0;
      while (from !== null && this.searched === query && this.found.length < MATCHES) {
        const address = new URL(this.dataset.matches, location.href);
        address.searchParams.set("q", query);
        address.searchParams.set("from_seq", from);
        address.searchParams.set("limit", MATCHES);
        if (this.dataset.level) address.searchParams.set("level", this.dataset.level);
        const answer = await fetch(address);
        if (!answer.ok || this.searched !== query) break;
        const got = await answer.json();
        this.found.push(...got.items);
        from = got.next_seq;
        this.tell(from === null ? "" : `, ${Math.round((100 * from) / Math.max(1, got.lines))} % searched`);
        if (this.match === undefined && this.found.length) {
          const next = this.found.findIndex((one) => one >= (typeof line === "number" ? line : 0));
          if (next >= 0 || from === null) {
            this.match = Math.max(0, next) - 1;
            this.step(1);
          }
        }
      }
      if (this.searched === query) this.tell(from === null ? "" : ", and more");
    }

    tell(more) {
      const many = this.found.length;
      this.more_ = more ?? this.more_;
      const count = many.toLocaleString("en");
      const place = this.match >= 0 ? `${(this.match + 1).toLocaleString("en")} of ${count}` : count;
      $("[data-found]", this).textContent = `${place} ${many === 1 ? "line" : "lines"}${this.more_ || ""}`;
    }

    step(by) {
      if (!this.found.length) return;
      this.match = ((this.match ?? -1) + by + this.found.length) % this.found.length;
      this.jump(this.found[this.match]);
      this.tell();
    }
  });
})();
