// Functions over documents: answers calls, runs what they schedule, tells what commits change.

import { randomBytes } from "node:crypto";
import { inspect } from "node:util";

import { makeFunctionReference } from "convex/server";
import { jsonToConvex } from "convex/values";

import { Database, calls } from "./database.mjs";
import { KINDS, NO_FUNCTIONS, kindOf } from "./functions.mjs";
import { DEEPEST_VALUE, LARGEST_VALUE, measure, mib } from "./limits.mjs";
import { Schedule } from "./schedule.mjs";
import { compile } from "./validators.mjs";

/** What a call failed for, in the words of the backend. */
class Failure extends Error {}

function checked(value, what) {
  let size, depth;
  try {
    ({ size, depth } = measure(value));
  } catch (error) {
    throw new Failure(`${what.invalid}: ${error.message}`);
  }
  if (depth > DEEPEST_VALUE) throw new Failure(`${what.invalid}: Value is too deeply nested (more than ${DEEPEST_VALUE} levels)`);
  if (size > LARGEST_VALUE) throw new Failure(`${what.large} (actual: ${mib(size)}, limit: 16 MiB)`);
  return size;
}

/** A timestamp in nanoseconds, later than those of a server that ran here before. */
function now() {
  return BigInt(Date.now()) * 1_000_000n;
}

function title(kind) {
  return kind[0].toUpperCase() + kind.slice(1);
}

/** The console of functions: its lines go into the answer. */
function recorder(lines) {
  const line = (level) => (...values) => {
    lines.push(`[${level}] ${values.map((value) => inspect(value)).join(" ")}`);
  };
  return { log: line("LOG"), info: line("INFO"), warn: line("WARN"), error: line("ERROR"), debug: line("DEBUG") };
}

export class Deployment {
  functions = NO_FUNCTIONS;
  redact = false;
  listeners = new Set();
  users = 0;

  /** `defect` is called with an error that no function made. */
  static async open(functions, defect) {
    const deployment = new Deployment();
    deployment.defect = defect;
    deployment.schedule = new Schedule(deployment);
    await deployment.deploy(functions);
    return deployment;
  }

  /**
   * Runs something on the documents: never while other functions or documents are put in place,
   * which would lose what it writes.
   */
  async using(action) {
    while (this.switching) await this.switching;
    this.users += 1;
    try {
      return await action();
    } finally {
      this.users -= 1;
      if (this.users === 0) this.whenUnused?.();
    }
  }

  /** Takes other functions, over the same documents unless `documents` says otherwise. */
  async deploy(functions, documents) {
    while (this.switching) await this.switching;
    const done = this.replace(functions, documents).finally(() => { this.switching = undefined; });
    this.switching = done.catch(() => {});
    await done;
  }

  async replace(functions, documents) {
    if (this.users > 0) await new Promise((resolve) => { this.whenUnused = resolve; });
    const { schema, modules } = functions;
    const wrapped = { "./_generated/api.js": async () => ({}) };
    for (const [name, exports] of modules) {
      const module = this.wrapModule(name, exports);
      wrapped[`./${name}.js`] = async () => module;
    }
    const committed = (changes, ts) => this.committed(changes, ts);
    const database = await Database.open({ schema, modules: wrapped, committed, defect: this.defect });
    const state = this.database?.state ?? { nextId: 0, lastTs: now() };
    database.adopt({ documents: documents ?? this.database?.documents() ?? [], ...state });
    Object.assign(this, { functions, database });
    this.schedule.restart();
    this.committed(null, database.state.lastTs);
  }

  /** `changes` are null when every document may have changed. */
  committed(changes, ts) {
    if (changes?.length === 0) return;
    if (changes) this.schedule.committed(changes);
    for (const listener of this.listeners) listener(changes, ts);
  }

  get ts() {
    return this.database.state.lastTs;
  }

  wrapModule(name, exports) {
    const module = {};
    for (const [key, exported] of Object.entries(exports)) {
      const kind = kindOf(exported);
      if (kind) module[key] = this.wrap(`${name}.js:${key}`, kind, exported);
    }
    return module;
  }

  /** The function with the checks, messages and accounts of the backend. */
  wrap(path, kind, exported) {
    const [args, returns] = [JSON.parse(exported.exportArgs()), JSON.parse(exported.exportReturns())];
    const checkArgs = compile(args);
    const checkReturns = compile(returns ?? { type: "any" });
    const handler = async (ctx, value) => {
      const call = calls.getStore();
      globalThis.console = recorder(call.logLines); // this call's only: convex-test keeps them apart
      checked(value, { invalid: `Invalid arguments for ${path}`, large: `Arguments for ${path} are too large` });
      const problem = checkArgs(value, "");
      if (problem) throw new Failure(`ArgumentValidationError: ${problem}`);
      try {
        const result = (await exported._handler(ctx, value)) ?? null;
        const large = `Function ${path} return value is too large`;
        checked(result, { invalid: `Function ${path} return value invalid`, large });
        const mismatch = checkReturns(result, "");
        if (mismatch) throw new Failure(`ReturnsValidationError: ${mismatch}`);
        return result;
      } finally {
        if (kind !== "action") call.usage = { ...this.database.usage };
      }
    };
    const any = () => '{"type":"any"}';
    const nothing = () => "null";
    const { isInternal, isPublic } = exported;
    return { [KINDS[kind]]: true, isInternal, isPublic, _handler: handler, exportArgs: any, exportReturns: nothing };
  }

  find(kind, path, admin) {
    const [module, name = "default"] = path.replace(/\.js(?=:|$)/, "").split(":");
    const exported = this.functions.modules.get(module)?.[name];
    const defined = kindOf(exported);
    if (!defined || (!exported.isPublic && !admin)) {
      throw new Failure(`Could not find public function for '${module}:${name}'.`);
    }
    if (kind !== "any" && defined !== kind) {
      throw new Failure(
        `Trying to execute ${module}.js:${name} as ${title(kind)}, but it is defined as ${title(defined)}.`,
      );
    }
    return { kind: defined, reference: makeFunctionReference(`${module}:${name}`) };
  }

  /**
   * Runs a function: `{value}` or `{error, data}`, with logLines, usage (documents and bytes read and
   * written) and ts (of a commit). Into the array `reads` goes what of the documents it depends on,
   * as it reads. Arguments are JSON in Convex's encoding, or values already with `decoded`.
   */
  call(kind, path, args, options) {
    return this.using(() => this.execute(kind, path, args, options));
  }

  async execute(kind, path, args, { admin = false, reads, decoded = false } = {}) {
    const call = { logLines: [], usage: {}, reads, ts: undefined };
    try {
      const found = this.find(kind, path, admin);
      const value = decoded ? args : this.decode(path, args);
      call.kind = found.kind;
      call.value = await calls.run(call, () => this.database.test[found.kind](found.reference, value));
    } catch (error) {
      Object.assign(call, this.failure(error));
    }
    return call;
  }

  decode(path, args) {
    try {
      return jsonToConvex(Array.isArray(args) ? (args[0] ?? {}) : args);
    } catch (error) {
      throw new Failure(`Invalid arguments for ${path}: ${error.message}`);
    }
  }

  failure(error) {
    const data = error !== null && typeof error === "object" && Symbol.for("ConvexError") in error ? error.data : undefined;
    const id = randomBytes(8).toString("hex");
    if (this.redact) return { error: `[Request ID: ${id}] Server Error`, data, logLines: [] };
    return { error: `[Request ID: ${id}] Server Error\n${this.describe(error)}\n`, data };
  }

  describe(error) {
    if (error instanceof Failure) return error.message;
    if (!(error instanceof Error)) return `Uncaught ${inspect(error)}`;
    const home = `file://${this.functions.directory}/`;
    const frames = (error.stack ?? "").split("\n").filter((line) => line.includes(home));
    return [`Uncaught ${error.name}: ${error.message}`, ...frames.map((line) => line.replace(home, "../convex/"))].join("\n");
  }
}
