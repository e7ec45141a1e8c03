// The REST API of Workers KV on 127.0.0.1: real KV bindings in workerd (through Miniflare), and
// in front of them a proxy that counts requests and injects faults.
//
//   node server.mjs [--port N] [--store kv|memory] [--namespaces N] [--account ID]
//                   [--token T] [--read-token T] [--no-right-token T]
//
// Prints one line of JSON when it is ready, and ends when its standard input does.

import { existsSync, mkdtempSync, rmSync, statfsSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { Budget, Faults } from "./faults.mjs";
import { routeOf } from "./routes.mjs";

const LARGEST_BODY = 100 * 1000 * 1000;
const LONGEST_LOG = 10_000;
const FAST_TMP = "/dev/shm";
const MODULES = ["worker", "api", "input", "memory", "namespace", "pool", "random", "routes"];

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    store: { type: "string", default: "kv" },
    namespaces: { type: "string", default: "40" },
    account: { type: "string", default: "0123456789abcdef0123456789abcdef" },
    token: { type: "string", default: "kv-token" },
    "read-token": { type: "string", default: "kv-read-token" },
    "no-right-token": { type: "string", default: "kv-no-right-token" },
  },
});

function hasRoom(directory) {
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize > 2 ** 30;
}

/** Where Miniflare keeps every value in a file of its own: in memory, twice as fast, if it can. */
function useTemporaryDirectory() {
  const base = existsSync(FAST_TMP) && hasRoom(FAST_TMP) ? FAST_TMP : tmpdir();
  const directory = mkdtempSync(`${base}/workers-kv-`);
  process.env.TMPDIR = directory;
  process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
}

async function startWorker() {
  const { Log, LogLevel, Miniflare } = await import("miniflare");
  const store = Array.from({ length: Number(options.namespaces) }, (_, i) => `KV${i}`);
  const miniflare = new Miniflare({
    cf: false,
    compatibilityDate: "2026-04-01",
    kvNamespaces: options.store === "kv" ? store : [],
    log: new Log(LogLevel.ERROR),
    unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }], // past Miniflare's own entry Worker
    modulesRoot: import.meta.dirname,
    modules: MODULES.map((name) => ({ type: "ESModule", path: `${import.meta.dirname}/${name}.mjs` })),
    bindings: {
      ACCOUNT: options.account,
      STORE: store,
      TOKENS: {
        [options.token]: "write",
        [options["read-token"]]: "read",
        [options["no-right-token"]]: "none",
      },
    },
  });
  return { miniflare, origin: await miniflare.unsafeGetDirectURL() };
}

useTemporaryDirectory();
export const { miniflare, origin } = await startWorker();
// Idle connections are closed here before workerd does it, which is after some seconds.
const agent = new http.Agent({ keepAlive: true, maxSockets: 16, timeout: 1_000 });

let settings, faults, budget, counts, bill, log;
const DEFAULTS = { delayMs: 0, idleMs: 400_000, recordBodies: false, rateLimit: null, faults: [], seed: 1 };

async function readBody(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Sends a request to the Worker; gives its response. */
function sent(method, headers, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(origin, { method, agent, headers }, resolve);
    request.on("error", (error) => {
      // workerd has just closed the idle connection. What it is asked may be asked twice.
      const again = request.reusedSocket && ["ECONNRESET", "EPIPE"].includes(error.code);
      if (again) resolve(sent(method, headers, body));
      else reject(error);
    });
    request.end(body);
  });
}

/** Asks the Worker: `{status, headers, body}`. */
async function ask(method, headers, body) {
  const response = await sent(method, headers, body);
  const answer = { status: response.statusCode, headers: response.headers, body: await readBody(response) };
  if (answer.status === 500) throw new Error(`defect in the Worker: ${answer.body}`);
  return answer;
}

/** Takes the settings named; with `reset`, all others go back to what they were at the start. */
async function control({ reset = false, clear = false, consistency, ...changes }) {
  for (const name of Object.keys(changes)) {
    if (!(name in DEFAULTS)) throw new Error(`no such setting: ${name}`);
  }
  if (reset) {
    settings = { ...DEFAULTS };
    [counts, bill, log] = [{}, {}, []];
    [consistency, faults, budget] = [consistency ?? {}, new Faults(), new Budget()];
  }
  Object.assign(settings, changes);
  if ("faults" in changes || "seed" in changes) faults = new Faults(settings.faults, settings.seed);
  if ("rateLimit" in changes) budget = new Budget(settings.rateLimit ?? {});
  const { delayMs } = settings;
  const headers = { "x-kv-control": "1" };
  const answer = await ask("POST", headers, JSON.stringify({ consistency, clear, delayMs }));
  if (answer.status !== 200) throw new Error(answer.body.toString());
  settings.consistency = JSON.parse(answer.body);
}

async function answerControl(request, response) {
  let [status, body] = [200, undefined];
  try {
    if (request.method === "POST") await control(JSON.parse(await readBody(request)));
    body = { settings, counts, bill, ...(request.url.endsWith("?log") && { log }) };
  } catch (error) {
    [status, body] = [400, { error: error.message }];
  }
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function record(entry) {
  counts[entry.route] = (counts[entry.route] ?? 0) + 1;
  log.push(entry);
  if (log.length > LONGEST_LOG) log.shift();
}

/** The API's own answer, or the front's for a body that is too large. */
async function apiAnswer(request, body, entry) {
  if (body.length > LARGEST_BODY) {
    const errors = [{ code: 10024, message: `request body exceeds ${LARGEST_BODY} bytes` }];
    const json = JSON.stringify({ result: null, success: false, errors, messages: [] });
    return { status: 413, headers: { "content-type": "application/json" }, body: Buffer.from(json) };
  }
  const headers = { "x-kv-target": request.url };
  for (const name of ["authorization", "content-type"]) {
    if (request.headers[name]) headers[name] = request.headers[name];
  }
  const answer = await ask(request.method, headers, body);
  entry.bill = JSON.parse(answer.headers["x-kv-bill"] ?? "{}");
  for (const [kind, count] of Object.entries(entry.bill)) bill[kind] = (bill[kind] ?? 0) + count;
  const kept = ["content-type", "expiration"].filter((name) => name in answer.headers);
  return { ...answer, headers: Object.fromEntries(kept.map((name) => [name, answer.headers[name]])) };
}

async function send(response, { status, headers, body }, fault) {
  if (response.destroyed) return; // the client did not wait
  if (fault?.kind === "malformed") body = body.subarray(0, body.length >> 1);
  response.writeHead(status, { ...headers, "content-length": body.length });
  if (fault?.kind === "truncate") {
    response.write(body.subarray(0, body.length >> 1), () => response.destroy());
  } else if (fault?.kind === "slow") {
    const step = Math.ceil(body.length / 10) || 1;
    for (let start = 0; start < body.length && !response.destroyed; start += step) {
      response.write(body.subarray(start, start + step));
      await sleep(fault.ms / 10);
    }
    if (!response.destroyed) response.end();
  } else {
    response.end(body);
  }
}

async function answerApi(request, response) {
  const body = await readBody(request);
  const { name, namespace } = routeOf(request.url);
  const route = `${request.method} ${name}`;
  const { headers, refusal } = budget.spend();
  const fault = refusal ? undefined : faults.next(route, request.url);
  const entry = { route, namespace, target: request.url, fault: fault?.kind, at: Date.now() };
  if (settings.recordBodies) entry.body = body.toString();
  record(entry);
  const delayMs = settings.delayMs + (fault?.kind === "delay" ? fault.ms : 0);
  if (delayMs > 0) await sleep(delayMs);
  const replaced = fault && ["status", "drop", "html"].includes(fault.kind);
  let answer = refusal;
  if (!answer && !(replaced && fault.when === "before")) answer = await apiAnswer(request, body, entry);
  if (fault?.kind === "drop") return request.socket.destroy();
  if (replaced) answer = fault.answer;
  entry.status = answer.status;
  return send(response, { ...answer, headers: { ...answer.headers, ...headers } }, fault);
}

const server = http.createServer((request, response) => {
  // Node's keepAliveTimeout, without the second it adds in some versions.
  response.once("finish", () => request.socket.setTimeout(settings.idleMs));
  const serve = request.url.startsWith("/__control") ? answerControl : answerApi;
  serve(request, response).catch((error) => {
    // A client may leave while it is being answered; anything else is a defect of this server.
    if (error.code === "ECONNRESET" && request.socket.destroyed) return;
    console.error(error);
    process.exitCode = 1;
    request.socket.destroy();
  });
});

async function stop() {
  server.close();
  server.closeAllConnections();
  await miniflare.dispose();
  process.exit();
}

server.on("error", (error) => {
  console.error(error.message); // the port is taken
  process.exitCode = 1;
  stop();
});

await control({ reset: true });
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, stop);
process.stdin.on("end", stop).resume();
server.requestTimeout = 0;
server.listen(Number(options.port), "127.0.0.1", () => {
  const base = `http://127.0.0.1:${server.address().port}`;
  console.log(JSON.stringify({
    url: `${base}/client/v4`,
    direct_url: new URL("client/v4", origin),
    control: `${base}/__control`,
    account_id: options.account,
    token: options.token,
    read_token: options["read-token"],
    no_right_token: options["no-right-token"],
  }));
});
