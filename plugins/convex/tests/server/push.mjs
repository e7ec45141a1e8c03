// What `npx convex deploy` asks of a deployment: code is started to be pushed, the documents are
// checked against its schema, and the push is finished.

import { createHash } from "node:crypto";
import { brotliDecompressSync } from "node:zlib";

import { Refusal } from "./api.mjs";
import { kindOf, load } from "./functions.mjs";
import { compile } from "./validators.mjs";

const ROUTES = {
  "/api/get_config_hashes": "configHashes",
  "/api/deploy2/evaluate_push": "evaluate",
  "/api/deploy2/start_push": "start",
  "/api/deploy2/wait_for_schema": "waitForSchema",
  "/api/deploy2/finish_push": "finish",
  "/api/deploy2/report_push_completed": "completed",
};

function title(kind) {
  return kind[0].toUpperCase() + kind.slice(1);
}

function hash({ source, sourceMap }) {
  return createHash("sha256").update(source).update(sourceMap ?? "").digest("hex");
}

function analyzeModule(exports) {
  const functions = [];
  for (const [name, exported] of Object.entries(exports)) {
    const kind = kindOf(exported);
    if (!kind) continue;
    const visibility = { kind: exported.isPublic ? "public" : "internal" };
    const [args, returns] = [exported.exportArgs(), exported.exportReturns()];
    functions.push({ name, pos: null, udfType: title(kind), visibility, args, returns });
  }
  return { functions, httpRoutes: null, cronSpecs: null, sourceMapped: null };
}

function indexesOf(schema) {
  return Object.entries(schema?.tables ?? {}).flatMap(([table, definition]) =>
    definition.export().indexes.map(({ indexDescriptor, fields }) => ({
      name: `${table}.${indexDescriptor}`, type: "database", fields,
    })));
}

export class Pushes {
  modules = new Map(); // path → the module as it was pushed
  pending = new Map(); // id → {functions, modules}
  nextId = 1;

  /** `deploy` takes functions into use. */
  constructor(deployment, keys, deploy) {
    Object.assign(this, { deployment, keys, deploy });
  }

  /** The answer to a request of a push, or undefined for any other request. */
  async answer(path, request, body) {
    const route = ROUTES[path];
    if (!route || request.method !== "POST") return undefined;
    const text = request.headers["content-encoding"] === "br" ? brotliDecompressSync(body) : body;
    const message = JSON.parse(text);
    const key = request.headers.authorization ?? `Convex ${message.adminKey}`;
    if (!this.keys.isAdmin(key)) throw new Refusal(403);
    return { status: 200, headers: { "content-type": "application/json" }, body: JSON.stringify(await this[route](message)) };
  }

  configHashes() {
    const moduleHashes = Array.from(this.modules.values(), (module) => ({
      path: module.path, hash: hash(module), environment: module.environment,
    }));
    return { config: { functions: "convex/" }, moduleHashes, nodeDependencies: [], udfServerVersion: "1.48.0" };
  }

  async evaluate(message) {
    return { schemaChange: (await this.analyze(message)).schemaChange };
  }

  async start(message) {
    const { functions, modules, schemaChange } = await this.analyze(message);
    const id = String(this.nextId++);
    this.pending.set(id, { functions, modules });
    const httpRoutes = { httpModuleRoutes: null, mounts: [] };
    return {
      environmentVariables: {},
      externalDepsId: null,
      componentDefinitionPackages: {},
      appAuth: [],
      analysis: { "": this.definitionOf(functions, message.appDefinition.udfServerVersion) },
      app: { definitionPath: "", componentPath: "", args: {}, childComponents: {}, httpRoutes, exports: {} },
      schemaChange: { ...schemaChange, schemaIds: { "": id } },
    };
  }

  async analyze({ appDefinition }) {
    const modules = new Map();
    for (const { path } of appDefinition.unchangedModuleHashes) modules.set(path, this.modules.get(path));
    for (const module of appDefinition.changedModules) modules.set(module.path, module);
    const sources = [...modules.values(), ...(appDefinition.schema ? [appDefinition.schema] : [])];
    let functions;
    try {
      functions = await load(sources);
    } catch (error) {
      throw new Refusal(400, "InvalidModules", `Loading the pushed modules encountered an error:\n${error.stack}`);
    }
    return { functions, modules, schemaChange: this.schemaChange(functions.schema) };
  }

  schemaChange(schema) {
    const [before, after] = [indexesOf(this.deployment.functions.schema), indexesOf(schema)];
    const missing = (some, others) =>
      some.filter((index) => !others.some((other) => JSON.stringify(other) === JSON.stringify(index)));
    const diff = { added_indexes: missing(after, before), removed_indexes: missing(before, after) };
    return { allocatedComponentIds: {}, schemaIds: {}, indexDiffs: { "": diff } };
  }

  definitionOf({ modules, schema }, serverVersion) {
    const functions = {};
    for (const [name, exports] of modules) {
      if (name !== "schema") functions[`${name}.js`] = analyzeModule(exports);
    }
    const exports = { type: "branch", branch: [] };
    return {
      definition: { path: "", definitionType: { type: "app" }, childComponents: [], httpMounts: {}, exports },
      schema: schema && JSON.parse(schema.export()),
      functions,
      udfConfig: { serverVersion, importPhaseRngSeed: null, importPhaseUnixTimestamp: null },
    };
  }

  /** Whether the documents that are there match the pushed schema. */
  waitForSchema({ schemaChange }) {
    const { schema } = this.find(schemaChange).functions;
    if (!schema?.schemaValidation) return { type: "complete" };
    for (const [tableName, definition] of Object.entries(schema.tables)) {
      const check = compile(definition.export().documentType);
      for (const { _id, _creationTime, ...document } of this.deployment.database.table(tableName).documents.values()) {
        const problem = check(document, "");
        if (!problem) continue;
        const error = `Document with ID "${_id}" in table "${tableName}" does not match the schema: ${problem}`;
        return { type: "failed", error, componentPath: "", tableName };
      }
    }
    return { type: "complete" };
  }

  find({ schemaIds }) {
    const push = this.pending.get(schemaIds[""]);
    if (!push) throw new Refusal(400, "NoSuchPush", "This push was not started here.");
    return push;
  }

  async finish({ startPush, dryRun }) {
    const { functions, modules } = this.find(startPush.schemaChange);
    this.pending.clear();
    if (!dryRun) {
      this.modules = modules;
      await this.deploy(functions);
    }
    return { authDiff: { added: [], removed: [] }, definitionDiffs: {}, componentDiffs: {} };
  }

  completed() {
    return null;
  }
}
