// Convex functions as modules that run here: bundled from a directory, or as they were pushed.

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";

import { build } from "esbuild";

import { checkSchema } from "./limits.mjs";

const SOURCE = /(?<!\.d|\.config|\.test)\.(ts|tsx|js|jsx|mjs)$/;

function entryPoints(directory) {
  return readdirSync(directory, { recursive: true })
    .filter((path) => SOURCE.test(path) && !/(^|[\\/])(_generated|node_modules)[\\/]/.test(path))
    .map((path) => join(directory, path));
}

/** The functions of a directory, bundled as `npx convex deploy` does: `[{path, source}]`. */
export async function bundle(directory) {
  const { outputFiles } = await build({
    entryPoints: entryPoints(directory),
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "browser",
    target: "esnext",
    conditions: ["convex", "module"],
    define: { Buffer: "undefined", global: "undefined", require: "undefined" }, // Node's only
    nodePaths: [join(import.meta.dirname, "node_modules")],
    outbase: directory,
    outdir: directory,
    chunkNames: "_deps/[hash]",
    write: false,
    logLevel: "silent",
  });
  return outputFiles.map(({ path, text }) => ({ path: relative(directory, path), source: text }));
}

/** Loads modules: `{modules: Map of name → exports, schema, directory}`. */
export async function load(sources) {
  const directory = mkdtempSync(join(tmpdir(), "convex-server-"));
  try {
    writeFileSync(join(directory, "package.json"), '{"type": "module"}');
    return { ...(await loadFrom(directory, sources)), directory };
  } finally {
    rmSync(directory, { recursive: true, force: true }); // they are loaded: nothing is read again
  }
}

async function loadFrom(directory, sources) {
  for (const { path, source } of sources) {
    const file = join(directory, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, source);
  }
  const modules = new Map();
  let schema = null;
  for (const { path } of sources) {
    if (path.startsWith("_deps/")) continue;
    const exports = await import(pathToFileURL(join(directory, path)));
    const name = path.replace(/\.[^.]+$/, "");
    if (name === "schema") schema = exports.default;
    modules.set(name, exports);
  }
  checkSchema(schema);
  return { modules, schema };
}

export const NO_FUNCTIONS = { modules: new Map(), schema: null, directory: "/" };

export const KINDS = { query: "isQuery", mutation: "isMutation", action: "isAction" };

/** The kind of an exported Convex function, or undefined for anything else. */
export function kindOf(exported) {
  if (typeof exported !== "function" || !exported.exportArgs) return undefined;
  return Object.keys(KINDS).find((kind) => exported[KINDS[kind]]);
}
