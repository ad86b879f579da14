// The rows of a log: which lines there are, fetched from the server in ranges, drawn by it. `log.js` shows them.
"use strict";
(() => {
  const $ = (selector, from) => from.querySelector(selector);
  const RANGE = 500; // lines fetched at a time
  const KEPT = 20; // ranges remembered

  globalThis.LogRows = class extends HTMLElement {
    // ---- which lines there are ------------------------------------------------------------------------------
    // A row is a line, or the place of lines that are not kept. Narrowed to a level, rows are counted by the server.
    get level() { return this.searched ? "" : this.dataset.level; }

    rows() {
      if (this.level) return this.total;
      return this.cuts.reduce((rows, cut) => rows - cut.lines + 1, this.total);
    }

    // The line of a row, or the cut that it is.
    line(row) {
      for (const cut of this.cuts) {
        if (row < cut.from_seq) break;
        if (row === cut.from_seq) return cut;
        row += cut.lines - 1;
      }
      return row;
    }

    row(line) {
      let row = line;
      for (const cut of this.cuts) {
        if (line >= cut.from_seq + cut.lines) row -= cut.lines - 1;
        else if (line >= cut.from_seq) return row - (line - cut.from_seq);
      }
      return row;
    }

    learn(got) {
      this.total = Math.max(this.total, Number(got.dataset.total));
      const cuts = got.dataset.cuts;
      if (cuts === JSON.stringify(this.cuts)) return;
      const line = this.line(Math.floor(this.top));
      if (this.level) this.ranges.clear();
      this.cuts = JSON.parse(cuts);
      if (!this.level) this.top = this.row(typeof line === "number" ? line : line.from_seq);
    }

    // ---- fetching -------------------------------------------------------------------------------------------
    async read(query) {
      const address = new URL(this.dataset.url, location.href);
      if (this.level) address.searchParams.set("level", this.level);
      if (this.searched) address.searchParams.set("mark", this.searched);
      for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value);
      const answer = await fetch(address);
      if (!answer.ok) throw new Error(String(answer.status));
      return $(".lines", new DOMParser().parseFromString(await answer.text(), "text/html"));
    }

    // The element of a row if it is at hand; else it is fetched, and drawn when it has come.
    element(row) {
      const line = this.level ? row : this.line(row);
      if (typeof line !== "number") return this.gap(line);
      const number = Math.floor(line / RANGE);
      const range = this.ranges.get(number);
      if (range) {
        this.ranges.delete(number);
        this.ranges.set(number, range);
      }
      if (!range || range.total < Math.min(this.total, (number + 1) * RANGE)) this.fetch(number);
      return range?.lines.get(line) || this.waiting(line);
    }

    async fetch(number) {
      if (this.asked.has(number)) return;
      this.asked.add(number);
      const first = number * RANGE;
      const of = `${this.level}/${this.searched}`;
      try {
        const got = await this.read(this.level ? { rank: first, limit: RANGE } : { from: first, limit: RANGE });
        if (!got || of !== `${this.level}/${this.searched}`) return;
        const total = Number(got.dataset.total);
        this.learn(got);
        const lines = new Map();
        [...got.querySelectorAll("li[id]")].forEach((line, place) => {
          const where = this.level ? first + place : Number(line.id.slice(1)) - 1;
          if (where < first + RANGE) lines.set(where, document.adoptNode(line));
        });
        this.ranges.delete(number);
        this.ranges.set(number, { lines, total });
        if (this.ranges.size > KEPT) this.ranges.delete(this.ranges.keys().next().value);
        this.soon();
      } catch {
        setTimeout(() => this.soon(), 2000);
      } finally {
        this.asked.delete(number);
      }
    }

    gap(cut) {
      const item = document.createElement("li");
      item.className = "gap";
      item.textContent = `${cut.lines.toLocaleString("en")} lines (${(cut.bytes / 1048576).toFixed(1)} MiB) are not kept`;
      return item;
    }

    waiting(line) {
      const item = document.createElement("li");
      item.className = "wait";
      const number = document.createElement("span");
      number.className = "no";
      number.textContent = this.level ? "…" : String(line + 1);
      item.append(number);
      return item;
    }
  };
})();
