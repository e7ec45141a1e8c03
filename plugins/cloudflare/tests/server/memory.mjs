// A KV binding's methods over memory, for runs that write more than Miniflare's files allow in
// the time (`--store memory`). The tests of the server run on both.

const LONGEST_RUN = 512;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Orders strings as their UTF-8 bytes are ordered: by code point. */
export function compare(a, b) {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    const [highX, highY] = [x, y].map((unit) => unit >= 0xd800 && unit <= 0xdfff);
    return highX === highY ? x - y : highX - highY;
  }
  return a.length - b.length;
}

/** The first of the numbers from `low` up to `high` for which `found` holds, else `high`. */
function first(low, high, found) {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (found(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Names in order, in runs that are short enough to be changed at little cost. */
class Names {
  #runs = [[]];

  /** The run that `name` is in, or would be, and where in it. */
  #place(name) {
    const run = first(1, this.#runs.length, (i) => compare(this.#runs[i][0], name) > 0) - 1;
    const names = this.#runs[run];
    return [run, first(0, names.length, (i) => compare(names[i], name) >= 0)];
  }

  add(name) {
    const [run, i] = this.#place(name);
    const names = this.#runs[run];
    names.splice(i, 0, name);
    if (names.length > LONGEST_RUN) this.#runs.splice(run + 1, 0, names.splice(LONGEST_RUN >> 1));
  }

  delete(name) {
    const [run, i] = this.#place(name);
    this.#runs[run].splice(i, 1);
    if (this.#runs[run].length === 0 && this.#runs.length > 1) this.#runs.splice(run, 1);
  }

  /** Those from `name` on. */
  *from(name) {
    const [start, i] = this.#place(name);
    yield* this.#runs[start].slice(i);
    for (let run = start + 1; run < this.#runs.length; run++) yield* this.#runs[run];
  }
}

export class MemoryKV {
  #pairs = new Map();
  #names = new Names();

  #live(name) {
    const pair = this.#pairs.get(name);
    return pair?.expiration * 1000 <= Date.now() ? undefined : pair;
  }

  #read(name, type) {
    const { value = null, metadata = null } = this.#live(name) ?? {};
    if (type === "text") {
      return { value: value instanceof ArrayBuffer ? decoder.decode(value) : value, metadata };
    }
    return { value: typeof value === "string" ? encoder.encode(value).buffer : value, metadata };
  }

  async getWithMetadata(name, type) {
    if (!Array.isArray(name)) return this.#read(name, type);
    return new Map(name.map((each) => [each, this.#read(each, "text")]));
  }

  async put(name, value, { expiration, metadata }) {
    if (!this.#pairs.has(name)) this.#names.add(name);
    const kept = typeof value === "string" ? value.toWellFormed() : value;
    this.#pairs.set(name, { value: kept, expiration, metadata });
  }

  async delete(name) {
    if (this.#pairs.delete(name)) this.#names.delete(name);
  }

  async list({ prefix = "", limit = 1000, cursor } = {}) {
    const after = cursor && decodeURIComponent(cursor);
    const keys = [];
    for (const name of this.#names.from(after ?? prefix)) {
      if (!name.startsWith(prefix) || keys.length > limit) break;
      const pair = name === after ? undefined : this.#live(name);
      if (pair) keys.push({ name, expiration: pair.expiration, metadata: pair.metadata });
    }
    if (keys.length <= limit) return { keys, list_complete: true };
    keys.pop();
    return { keys, list_complete: false, cursor: encodeURIComponent(keys.at(-1).name) };
  }
}
