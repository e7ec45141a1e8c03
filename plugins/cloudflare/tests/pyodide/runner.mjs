// Python in Pyodide, as in a Python Worker, beside the local Workers KV server of ../server and
// with that server's KV bindings.
//
//   node runner.mjs [options of server.mjs]
//
// Prints what server.mjs prints. Then each line of its standard input is a request in JSON, and
// is answered by a line:
//
//   {"mount": {"name": "directory", ...}}   make Python packages of this machine importable
//   {"run": "source"}                       run Python; {"result": ...} or {"error": "traceback"}
//
// Python finds the bindings in the module `bindings`: KV0, KV1, …

import { readFileSync, readdirSync } from "node:fs";
import { createInterface } from "node:readline";

import { loadPyodide } from "pyodide";

import { miniflare } from "../server/server.mjs";

const WHEELS = `${import.meta.dirname}/node_modules/.wheels`;

async function start() {
  const python = await loadPyodide({ stdout: console.error });
  for (const name of readdirSync(WHEELS).filter((name) => name.endsWith(".whl"))) {
    python.unpackArchive(new Uint8Array(readFileSync(`${WHEELS}/${name}`)), "wheel");
  }
  const bindings = Object.entries(await miniflare.getBindings());
  const namespaces = bindings.filter(([name]) => /^KV\d+$/.test(name));
  python.registerJsModule("bindings", Object.fromEntries(namespaces));
  return python;
}

const requests = {
  mount(python, directories) {
    for (const [name, directory] of Object.entries(directories)) {
      const path = `${python.runPython("import sysconfig; sysconfig.get_path('purelib')")}/${name}`;
      python.FS.mkdirTree(path);
      python.mountNodeFS(path, directory);
    }
  },

  run: (python, source) => python.runPythonAsync(source, { globals: python.toPy({}) }),
};

async function answer(python, line) {
  try {
    const [[kind, value]] = Object.entries(JSON.parse(line));
    return { result: (await requests[kind](python, value)) ?? null };
  } catch (error) {
    return { error: error.message };
  }
}

const lines = createInterface({ input: process.stdin });
const started = start();
for await (const line of lines) console.log(JSON.stringify(await answer(await started, line)));
