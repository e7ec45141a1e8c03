// Functions of one's own beside the shipped ones, as `npx convex dev` and signed-in users see them.
//
//   node page.mjs generate DIR    writes DIR/_generated with Convex's own templates
//   node page.mjs ask DIR         reads {"writes": […], "asks": […]}, prints what each ask gave
//
// A write is the arguments of a `system:write`; an ask has `path`, `args` and `user`, who may be null.

import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";

import { makeFunctionReference } from "convex/server";
import { convexToJson, jsonToConvex } from "convex/values";
import { convexTest } from "convex-test";

import { bundle, load } from "./functions.mjs";

const TEMPLATES = join(import.meta.dirname, "node_modules/convex/dist/esm/cli/codegen_templates");
const DATA_MODEL = `import type { DataModelFromSchemaDefinition } from "convex/server";
import type schema from "../schema.js";
export type DataModel = DataModelFromSchemaDefinition<typeof schema>;
`;

async function generate(directory) {
  const { apiCodegen } = await import(join(TEMPLATES, "api.js"));
  const { serverCodegen } = await import(join(TEMPLATES, "server.js"));
  const modules = readdirSync(directory, { recursive: true }).filter(
    (path) => /(?<!\.config)\.ts$/.test(path) && path !== "schema.ts",
  );
  const generated = join(directory, "_generated");
  mkdirSync(generated);
  for (const [name, { DTS, JS }] of Object.entries({
    api: apiCodegen(modules, { useTypeScript: false }),
    server: serverCodegen({ useTypeScript: false, envVars: [] }),
    dataModel: { DTS: DATA_MODEL, JS: "" },
  })) {
    writeFileSync(join(generated, `${name}.d.ts`), DTS);
    writeFileSync(join(generated, `${name}.js`), JS);
  }
}

async function ask(directory) {
  const { writes, asks } = JSON.parse(await text(process.stdin));
  const { modules: found, schema } = await load(await bundle(directory));
  const modules = { "./_generated/api.js": async () => ({}) };
  for (const [name, exports] of found) modules[`./${name}.js`] = async () => exports;
  const test = convexTest({ schema, modules });
  for (const write of writes) {
    await test.mutation(makeFunctionReference("system:write"), jsonToConvex(write));
  }
  const answers = [];
  for (const { path, args, user } of asks) {
    const caller = user === null ? test : test.withIdentity({ subject: user });
    answers.push(convexToJson(await caller.query(makeFunctionReference(path), args)));
  }
  // What the functions scheduled for later would keep the process alive.
  process.stdout.write(`${JSON.stringify(answers)}\n`, () => process.exit());
}

const [what, directory] = process.argv.slice(2);
await { generate, ask }[what](directory);
