// A namespace as a client in one place sees it. The bindings below are strongly consistent;
// the service is not, so what it does beyond them is switched on here.

import { LIMITS, errors } from "./api.mjs";
import { compare } from "./memory.mjs";
import { seeded } from "./random.mjs";

const decoder = new TextDecoder();

/** Names that workerd leaves out of the answer to a bulk get. */
const DROPPED = /^(?:0|[1-9]\d*|__proto__)$/;

/** What is wrong with the view of this place; one object, shared by all namespaces. */
export class View {
  static defaults = {
    staleReadsMs: 0, // reads see the state as of that long ago, counted from switching it on
    staleListsMs: 0, // so do listings
    staleShare: 1, // the share of reads and listings that are stale
    cachedMissesMs: 0, // a key that was not there stays away for that long
    keyIntervalMs: 0, // a key takes one write in that time
    emptyPages: false, // every page of a listing is preceded by an empty one
    clockAheadMs: 0, // pairs expire as if it were that much later
    bulkFailures: null, // {keys, fraction, times}: what so many bulk writes leave undone
    seed: 1,
  };

  constructor(changes = {}) {
    for (const name of Object.keys(changes)) {
      if (!(name in View.defaults)) throw new Error(`no such consistency fault: ${name}`);
    }
    Object.assign(this, View.defaults, changes);
    this.random = seeded(this.seed);
    this.bulkRequests = 0;
  }

  get keepsHistory() {
    return this.staleReadsMs > 0 || this.staleListsMs > 0;
  }

  stale(ms) {
    return ms > 0 && this.random() < this.staleShare;
  }

  expired(expiration) {
    return expiration !== undefined && expiration * 1000 <= Date.now() + this.clockAheadMs;
  }

  /** What the next bulk request leaves unwritten, as a predicate of keys. */
  nextBulkFailure() {
    const { keys = [], fraction = 0, times = Infinity } = this.bulkFailures ?? {};
    this.bulkRequests += 1;
    if (this.bulkRequests > times) return () => false;
    return (key) => keys.includes(key) || (fraction > 0 && this.random() < fraction);
  }
}

export class Namespace {
  #kv;
  #view;
  #expirations = new Map(); // a binding tells expirations in listings only
  #history = new Map(); // name → versions that were replaced: [{until, entry}], oldest first
  #missed = new Map(); // name → until when the miss is remembered
  #written = new Map(); // name → when it was last written

  /** `view` is a function, for the settings change while the namespace lives. */
  constructor(id, title, kv, view) {
    this.id = id;
    this.title = title;
    this.#kv = kv;
    this.#view = view;
  }

  /** `{value, metadata, expiration}` with the value as an ArrayBuffer, or null. */
  async get(name) {
    const known = this.#withoutReading(name);
    const entry = known === undefined ? await this.#current(name) : known;
    this.#rememberMiss(name, entry);
    return entry;
  }

  /** The same for many names, with values as text: name → entry or null. */
  async getMany(names) {
    const known = new Map(names.map((name) => [name, this.#withoutReading(name)]));
    const open = [...known.keys()].filter((name) => known.get(name) === undefined);
    const together = open.filter((name) => !DROPPED.test(name));
    const read = together.length ? await this.#together(together) : new Map();
    for (const name of open) {
      known.set(name, read.has(name) ? this.#entry(name, read.get(name)) : await this.#current(name));
    }
    for (const [name, entry] of known) {
      this.#rememberMiss(name, entry);
      if (entry?.value instanceof ArrayBuffer) {
        known.set(name, { ...entry, value: decoder.decode(entry.value) });
      }
    }
    return known;
  }

  async put(name, value, { expiration, metadata }) {
    await this.#beforeWrite(name);
    await this.#kv.put(name, value, { expiration, metadata });
    if (expiration === undefined) this.#expirations.delete(name);
    else this.#expirations.set(name, expiration);
  }

  async delete(name) {
    await this.#beforeWrite(name);
    await this.#kv.delete(name);
    this.#expirations.delete(name);
  }

  /** One page: `{keys, cursor}`, the cursor being undefined on the last one. */
  async list({ prefix, limit, cursor }) {
    const view = this.#view();
    if (view.emptyPages && !cursor?.startsWith("empty:")) {
      return { keys: [], cursor: `empty:${cursor ?? ""}` };
    }
    const from = cursor?.replace(/^empty:/, "") || undefined;
    if (from?.startsWith("past:") || (!from && view.stale(view.staleListsMs))) {
      return this.#listPast(prefix, limit, from && decodeURIComponent(from.slice(5)));
    }
    const page = await this.#kv.list({ prefix, limit, cursor: from });
    return { keys: page.keys.filter((key) => !view.expired(key.expiration)), cursor: page.cursor };
  }

  async #current(name) {
    return this.#entry(name, await this.#kv.getWithMetadata(name, "arrayBuffer"));
  }

  async #together(names) {
    try {
      return await this.#kv.getWithMetadata(names, "text");
    } catch (error) {
      if (!error.message.includes(" 413 ")) throw error;
      throw errors.tooLarge("Total", "the values", LIMITS.bulkGetBytes);
    }
  }

  #entry(name, read) {
    if ((read?.value ?? null) === null) return null;
    return { ...read, expiration: this.#expirations.get(name) };
  }

  /** What this place believes without asking: an entry, null for a miss, undefined for nothing. */
  #withoutReading(name) {
    const view = this.#view();
    if (this.#missed.get(name) > Date.now()) return null;
    const past = view.stale(view.staleReadsMs)
      ? this.#past(name, Date.now() - view.staleReadsMs)
      : undefined;
    if (past !== undefined) return past;
    return view.expired(this.#expirations.get(name)) ? null : undefined;
  }

  #rememberMiss(name, entry) {
    const { cachedMissesMs } = this.#view();
    if (entry !== null || cachedMissesMs === 0 || this.#missed.get(name) > Date.now()) return;
    this.#missed.set(name, Date.now() + cachedMissesMs);
  }

  async #beforeWrite(name) {
    const { keyIntervalMs, keepsHistory } = this.#view();
    const now = Date.now();
    if (keyIntervalMs > 0) {
      if (now - this.#written.get(name) < keyIntervalMs) throw errors.writtenTooOften(name);
      this.#written.set(name, now);
    }
    if (!keepsHistory) return;
    const entry = await this.#current(name);
    if (!this.#history.has(name)) this.#history.set(name, []);
    this.#history.get(name).push({ until: Date.now(), entry });
  }

  /** The entry, or null, that `name` had at that time; undefined when it has not changed since. */
  #past(name, time) {
    return this.#history.get(name)?.find(({ until }) => until > time)?.entry;
  }

  async #listPast(prefix, limit, after) {
    const time = Date.now() - this.#view().staleListsMs;
    const found = new Map();
    for (let cursor, page; page === undefined || cursor !== undefined; cursor = page.cursor) {
      page = await this.#kv.list({ prefix, cursor });
      for (const key of page.keys) found.set(key.name, key);
    }
    for (const name of this.#history.keys()) {
      const entry = name.startsWith(prefix) ? this.#past(name, time) : undefined;
      if (entry === null) found.delete(name);
      else if (entry) found.set(name, { name, expiration: entry.expiration, metadata: entry.metadata });
    }
    const names = [...found.keys()].sort(compare);
    const rest = after === undefined ? names : names.filter((name) => compare(name, after) > 0);
    const keys = rest.slice(0, limit).map((name) => found.get(name));
    const more = rest.length > limit;
    return { keys, cursor: more ? `past:${encodeURIComponent(keys.at(-1).name)}` : undefined };
  }
}
