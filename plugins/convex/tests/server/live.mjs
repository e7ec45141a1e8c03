// Queries that are kept up to date: run again after a commit that touched what they had read.

import { touches } from "./indexes.mjs";

/** One query with its arguments, for all sockets that watch it. */
class LiveQuery {
  watchers = new Set();
  dirty = true;
  reads = [];

  constructor(path, args, admin) {
    Object.assign(this, { path, args, admin });
  }

  /** Whether changes touch what was read; null stands for changes of everything. */
  isTouchedBy(changes) {
    if (changes === null) return true;
    return this.reads.some(({ table, range }) =>
      changes.some((change) => change.table === table && touches(range, change)));
  }
}

export class LiveQueries {
  queries = new Map();

  /** `run(path, args, admin, reads)` gives the outcome of a query. */
  constructor(run) {
    this.run = run;
  }

  watch(watcher, path, args, admin) {
    const name = JSON.stringify([path, args, admin]);
    let query = this.queries.get(name);
    if (!query) {
      query = new LiveQuery(path, args, admin);
      query.forget = () => this.queries.delete(name);
      this.queries.set(name, query);
    }
    query.watchers.add(watcher);
    return query;
  }

  unwatch(watcher, query) {
    query.watchers.delete(watcher);
    if (query.watchers.size === 0) query.forget();
  }

  /** Marks the queries that a commit touches; the watchers of these. */
  committed(changes) {
    const affected = new Set();
    for (const query of this.queries.values()) {
      if (query.dirty || !query.isTouchedBy(changes)) continue;
      query.dirty = true;
      for (const watcher of query.watchers) affected.add(watcher);
    }
    return affected;
  }

  /** Brings a query up to date, once for all that wait for it. */
  async refresh(query) {
    if (query.dirty && !query.running) {
      query.running = this.runAgain(query);
    }
    await query.running;
  }

  async runAgain(query) {
    query.dirty = false; // a commit from here on makes it dirty, once it has read what is changed
    query.reads = [];
    try {
      query.outcome = await this.run(query.path, query.args, query.admin, query.reads);
    } catch (error) {
      query.dirty = true;
      throw error;
    } finally {
      query.running = undefined;
    }
  }
}
