// A KV binding's methods over memory, for runs that write more than Miniflare's files allow in
// the time (`--store memory`). The tests of the server run on both.

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

export class MemoryKV {
  #pairs = new Map();
  #names = []; // in order

  /** Where `name` is in the ordered names, or would be. */
  #position(name) {
    let [low, high] = [0, this.#names.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compare(this.#names[middle], name) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #live(name) {
    const pair = this.#pairs.get(name);
    return pair?.expiration * 1000 <= Date.now() ? undefined : pair;
  }

  async getWithMetadata(name, type) {
    if (Array.isArray(name)) {
      const found = name.map(async (each) => [each, await this.getWithMetadata(each, "text")]);
      return new Map(await Promise.all(found));
    }
    const { value = null, metadata = null } = this.#live(name) ?? {};
    return { value: value && type === "text" ? decoder.decode(value) : value, metadata };
  }

  async put(name, value, { expiration, metadata }) {
    if (!this.#pairs.has(name)) this.#names.splice(this.#position(name), 0, name);
    const bytes = typeof value === "string" ? encoder.encode(value).buffer : value;
    this.#pairs.set(name, { value: bytes, expiration, metadata });
  }

  async delete(name) {
    if (this.#pairs.delete(name)) this.#names.splice(this.#position(name), 1);
  }

  async list({ prefix = "", limit = 1000, cursor } = {}) {
    const after = cursor && decodeURIComponent(cursor);
    let i = this.#position(after ?? prefix);
    if (after !== undefined && this.#names[i] === after) i += 1;
    const keys = [];
    for (; i < this.#names.length && keys.length <= limit; i++) {
      const name = this.#names[i];
      if (!name.startsWith(prefix)) break;
      const pair = this.#live(name);
      if (pair) keys.push({ name, expiration: pair.expiration, metadata: pair.metadata });
    }
    if (keys.length <= limit) return { keys, list_complete: true };
    keys.pop();
    return { keys, list_complete: false, cursor: encodeURIComponent(keys.at(-1).name) };
  }
}
