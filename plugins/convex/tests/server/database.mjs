// Convex's own `convex-test`, with what it lacks grafted on its database in memory: sorted indexes,
// the limits on documents, what a call reads and changes, and scheduled functions that are held
// apart from timers. It reaches into private parts: the versions in package.json are exact.

import { AsyncLocalStorage } from "node:async_hooks";

import { convexTest } from "convex-test";
import { convexToJson, getDocumentSize, jsonToConvex } from "convex/values";

import { Table, Walk, boundsOf } from "./indexes.mjs";
import { LAST, keyOf } from "./keys.mjs";
import { checkDocument } from "./limits.mjs";
import { compile } from "./validators.mjs";

/** The call that is being answered: `{usage, reads, ts, logLines, …}`. */
export const calls = new AsyncLocalStorage();

/** What `convexTest` keeps to itself, seen when it first enters its context. */
async function internalsOf(test) {
  const { run } = AsyncLocalStorage.prototype;
  let internals;
  AsyncLocalStorage.prototype.run = function (store, ...rest) {
    if (store?.transactionManager && store.components) internals = store;
    return run.call(this, store, ...rest);
  };
  try {
    await test.run(async () => null);
  } finally {
    AsyncLocalStorage.prototype.run = run;
  }
  return internals;
}

function tableOf(id) {
  return id.replace(/^\d+/, "");
}

export class Database {
  tables = new Map();
  queries = new Map();
  texts = new WeakMap(); // documents as JSON, which convex-test would write at every read

  /**
   * `schema` is that of the functions or null; `committed` is called with the changes of each
   * commit and its timestamp; `defect` with an error that is no function's.
   */
  static async open({ schema, modules, committed, defect }) {
    const database = new Database();
    Object.assign(database, { committed, defect });
    database.test = convexTest({ schema: schema ?? undefined, modules, transactionLimits: true });
    const internals = await internalsOf(database.test);
    database.manager = internals.transactionManager;
    database.fake = internals.components[""].db;
    database.validators = new Map(
      Object.entries(schema?.tables ?? {}).map(([name, table]) => [name, compile(table.export().documentType)]),
    );
    database.graftSyscalls(internals);
    database.graftTransactions();
    database.graftReads();
    database.graftWrites(schema?.schemaValidation ?? false);
    return database;
  }

  table(name) {
    let table = this.tables.get(name);
    if (!table) this.tables.set(name, (table = new Table()));
    return table;
  }

  graftSyscalls(internals) {
    const [syscall, asyncSyscall] = [internals.syscall, internals.asyncSyscall];
    internals.syscall = (op, args) => this.watchingForDefects(() => syscall(op, args));
    internals.asyncSyscall = async (op, args) => {
      try {
        if (op === "1.0/queryStreamNext") return this.nextOfQuery(JSON.parse(args).queryId);
        if (op === "1.0/schedule") return this.schedule(JSON.parse(args));
        if (op === "1.0/get") this.readOne(JSON.parse(args).id);
        return await asyncSyscall(op, args);
      } catch (error) {
        throw this.checked(error);
      }
    };
  }

  watchingForDefects(action) {
    try {
      return action();
    } catch (error) {
      throw this.checked(error);
    }
  }

  /** convex-test throws plain errors for what functions do wrong; others are defects of this server. */
  checked(error) {
    if ([TypeError, ReferenceError, RangeError, SyntaxError].includes(error.constructor)) this.defect(error);
    return error;
  }

  graftTransactions() {
    const { fake, manager } = this;
    const [begin, commit] = [manager.begin.bind(manager), fake.commit.bind(fake)];
    manager.begin = async (nested, limits) => {
      await begin(nested, limits);
      if (!nested) this.queries.clear();
    };
    fake.commit = (ts) => {
      const outermost = fake._writes.length === 1;
      const changes = outermost ? this.changesOf(fake._writes[0]) : [];
      commit(ts);
      if (outermost) this.apply(changes, ts);
    };
  }

  changesOf(writes) {
    return Object.keys(writes).map((id) => ({ id, before: this.fake._documents[id] ?? null, after: null }));
  }

  apply(changes, ts) {
    const byTable = new Map();
    for (const change of changes) {
      change.after = this.fake._documents[change.id] ?? null;
      change.table = tableOf(change.id);
      if (!byTable.has(change.table)) byTable.set(change.table, []);
      byTable.get(change.table).push(change);
    }
    for (const [name, some] of byTable) this.table(name).apply(some);
    const call = calls.getStore();
    if (call) call.ts = ts;
    this.committed(changes, ts);
  }

  graftReads() {
    const { fake } = this;
    const [plan, iterate] = [fake._resolveQuerySource.bind(fake), fake._iterateDocs.bind(fake)];
    // convex-test checks the range and compiles the filters; the documents come from the index.
    this.plan = (query) => {
      if (query.source.type !== "Search") fake._iterateDocs = () => {};
      try {
        return plan(query);
      } finally {
        fake._iterateDocs = iterate;
      }
    };
    fake.startQuery = (query) => {
      const id = fake._nextQueryId++;
      this.queries.set(id, this.results(query));
      return id;
    };
    fake.queryNext = (id) => {
      const { value, done } = this.query(id).next();
      return { value: value ?? null, done };
    };
    fake._resolveQuerySource = (query) => {
      const planned = this.plan(query);
      return query.source.type === "Search" ? planned : { ...planned, sortedDocs: [...this.walk(query, planned)] };
    };
  }

  query(id) {
    const query = this.queries.get(id);
    if (!query) throw new Error("Bad queryId");
    return query;
  }

  staged(tableName) {
    const staged = new Map();
    for (const writes of this.fake._writes) {
      for (const id in writes) if (tableOf(id) === tableName) staged.set(id, writes[id]);
    }
    return staged;
  }

  *walk(query, { fieldPathsToSortBy, order }) {
    const { source } = query;
    const name = source.tableName ?? source.indexName.split(".")[0];
    const fields = fieldPathsToSortBy.includes("_id") ? fieldPathsToSortBy : [...fieldPathsToSortBy, "_id"];
    const index = this.table(name).index(fields);
    const walk = new Walk(index, { ...boundsOf(source), descending: order === "desc" }, this.staged(name));
    this.read(name, walk.range);
    for (let document = walk.next(); document; document = walk.next()) yield document;
  }

  /** The documents that a query gives; those its filter leaves out count as read too. */
  *results(query) {
    const planned = this.plan(query);
    const { filterFn, limit } = planned;
    let given = 0;
    if (limit === 0) return;
    const documents = query.source.type === "Search" ? planned.sortedDocs : this.walk(query, planned);
    for (const document of documents) {
      if (!filterFn(document)) {
        this.track(document);
        continue;
      }
      yield document;
      if (++given === limit) return;
    }
  }

  read(table, range) {
    calls.getStore()?.reads?.push({ table, range });
  }

  readOne(id) {
    const [low, table] = [keyOf(id), tableOf(id)];
    this.read(table, { index: this.table(table).index(["_id"]), low, high: low + LAST });
  }

  track(document) {
    const { size } = this.textOf(document);
    this.manager.getMetricsTracker()?.trackRead(size);
  }

  textOf(document) {
    let text = this.texts.get(document);
    if (!text) {
      text = { json: JSON.stringify(convexToJson(document)), size: getDocumentSize(document) };
      this.texts.set(document, text);
    }
    return text;
  }

  nextOfQuery(id) {
    const { value, done } = this.query(id).next();
    if (done) return '{"done":true,"value":null}';
    this.track(value);
    return `{"done":false,"value":${this.textOf(value).json}}`;
  }

  graftWrites(validates) {
    const { fake } = this;
    const addWrite = fake._addWrite.bind(fake);
    fake._addWrite = (id, document) => {
      if (document !== null) checkDocument(document);
      addWrite(id, document);
    };
    fake._validate = (table, document) => {
      const problem = validates && this.validators.get(table)?.(document, "");
      if (problem) {
        throw new Error(
          `Failed to insert or update a document in table "${table}" because it does not match the schema: ${problem}`,
        );
      }
    };
  }

  /** Scheduling is a document; whoever sees it committed runs the function. */
  schedule({ name, args, ts }) {
    const value = jsonToConvex(args);
    this.manager.getMetricsTracker()?.trackScheduledFunction(JSON.stringify(args).length);
    const job = { args: [value], name, scheduledTime: ts * 1000, state: { kind: "pending" } };
    return JSON.stringify(this.fake.insert("_scheduled_functions", job));
  }

  /** Changes documents outside any function: `change` is given convex-test's database. */
  async write(change) {
    await this.test.run(async () => {
      change(this.fake);
      return null;
    });
  }

  *documents() {
    for (const { documents } of this.tables.values()) yield* documents.values();
  }

  /** Takes the documents, ids and clock of another one, as they are. */
  adopt({ documents, nextId, lastTs }) {
    this.fake._nextDocId = Math.max(this.fake._nextDocId, nextId);
    if (lastTs > this.manager._lastCommitTs) this.manager._lastCommitTs = lastTs;
    for (const document of documents) {
      this.fake._documents[document._id] = document;
      this.table(tableOf(document._id)).apply([{ id: document._id, after: document }]);
    }
  }

  get state() {
    return { nextId: this.fake._nextDocId, lastTs: this.manager._lastCommitTs };
  }

  get usage() {
    return this.manager.getMetricsTracker()?._current()?.metrics;
  }
}
