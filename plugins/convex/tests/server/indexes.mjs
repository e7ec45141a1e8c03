// Tables with sorted indexes: an index is built when it is first read, then kept up to date.

import { jsonToConvex } from "convex/values";

import { LAST, documentKey, keyOf } from "./keys.mjs";

const LARGE_CHANGE = 64; // from here on, sorting an index again is cheaper than inserting one by one

class Index {
  constructor(fields, documents) {
    this.key = documentKey(fields);
    this.entries = Array.from(documents, (document) => ({ key: this.key(document), document }));
    this.sort();
  }

  sort() {
    this.entries.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  }

  /** Where the first entry at or behind `key` is. */
  position(key) {
    let [low, high] = [0, this.entries.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].key < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  apply(changes) {
    if (changes.length >= LARGE_CHANGE) return this.applyMany(changes);
    for (const { before, after } of changes) {
      if (before) this.entries.splice(this.position(this.key(before)), 1);
      if (!after) continue;
      const key = this.key(after);
      this.entries.splice(this.position(key), 0, { key, document: after });
    }
  }

  applyMany(changes) {
    const gone = new Set(changes.map(({ before }) => before));
    this.entries = this.entries.filter(({ document }) => !gone.has(document));
    for (const { after } of changes) {
      if (after) this.entries.push({ key: this.key(after), document: after });
    }
    this.sort();
  }
}

export class Table {
  documents = new Map();
  indexes = new Map();

  index(fields) {
    const name = fields.join();
    let index = this.indexes.get(name);
    if (!index) this.indexes.set(name, (index = new Index(fields, this.documents.values())));
    return index;
  }

  /** Takes what a commit changed: `{id, before, after}`, null where there is no document. */
  apply(changes) {
    for (const { id, after } of changes) {
      if (after) this.documents.set(id, after);
      else this.documents.delete(id);
    }
    for (const index of this.indexes.values()) index.apply(changes);
  }
}

function bound({ value }) {
  const there = !(typeof value === "object" && value !== null && "$undefined" in value);
  return keyOf(there ? jsonToConvex(value) : undefined);
}

/** The keys of a query's index range: from `low` up to, and without, `high`. */
export function boundsOf({ range = [] }) {
  let prefix = "";
  let [low, high] = [undefined, undefined];
  for (const part of range) {
    const key = prefix + bound(part);
    switch (part.type) {
      case "Eq": prefix = key; break;
      case "Gt": low = key + LAST; break;
      case "Gte": low = key; break;
      case "Lt": high = key; break;
      case "Lte": high = key + LAST; break;
    }
  }
  return { low: low ?? prefix, high: high ?? prefix + LAST };
}

/**
 * What one query reads of an index, in order: committed documents, and over them those that the
 * transaction has staged. `range` tells, at any time, the part that has been read.
 */
export class Walk {
  constructor(index, { low, high, descending }, staged) {
    Object.assign(this, { index, low, high, descending });
    this.range = descending ? { index, low: high, high } : { index, low, high: low };
    this.staged = Array.from(staged.values())
      .filter((document) => document !== null)
      .map((document) => ({ key: index.key(document), document }))
      .filter(({ key }) => key >= low && key < high)
      .sort((a, b) => (a.key < b.key === descending ? 1 : -1));
    this.hidden = staged;
    this.from = index.position(low);
    this.to = index.position(high);
  }

  committed() {
    const { entries } = this.index;
    while (this.from < this.to) {
      const entry = entries[this.descending ? this.to - 1 : this.from];
      if (!this.hidden.has(entry.document._id)) return entry;
      this.step();
    }
    return undefined;
  }

  step() {
    if (this.descending) this.to -= 1;
    else this.from += 1;
  }

  /** The next document, or undefined behind the last one. */
  next() {
    const [entry, staged] = [this.committed(), this.staged[0]];
    if (!entry && !staged) {
      this.extend(this.descending ? this.low : this.high);
      return undefined;
    }
    if (staged && (!entry || staged.key < entry.key !== this.descending)) {
      this.staged.shift();
      this.extend(staged.key);
      return staged.document;
    }
    this.step();
    this.extend(entry.key);
    return entry.document;
  }

  extend(key) {
    if (this.descending) this.range.low = key;
    else this.range.high = key === this.high ? key : key + LAST;
  }
}

/** Whether a change of a table touches a range that was read of it. */
export function touches({ index, low, high }, { before, after }) {
  return [before, after].some((document) => {
    if (!document) return false;
    const key = index.key(document);
    return key >= low && key < high;
  });
}
