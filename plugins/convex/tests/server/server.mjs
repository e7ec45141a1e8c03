// Convex on 127.0.0.1: the real functions of a directory on Convex's own convex-test, behind the
// HTTP API and the sync protocol, with faults on demand.
//
//   node server.mjs [--port N] [--functions DIR|default|none] [--admin-key K] [--data FILE]
//
// Prints one line of JSON when it is ready, and ends when its standard input does.

import "./clock.mjs";

import { existsSync } from "node:fs";
import http from "node:http";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { Keys, Refusal, answerOf, parseCall } from "./api.mjs";
import { setClockAhead } from "./clock.mjs";
import { loadDocuments, saveDocuments } from "./data.mjs";
import { Deployment } from "./deployment.mjs";
import { Faults, refusal } from "./faults.mjs";
import { NO_FUNCTIONS, bundle, load } from "./functions.mjs";
import { Pushes } from "./push.mjs";
import { Sync } from "./sync.mjs";

const LONGEST_LOG = 10_000;
const LARGEST_BODY = 64 * 1024 * 1024;
const SHIPPED = resolve(import.meta.dirname, "../../mastra_storage_convex/functions");
const VERSION = "convex-server-for-tests";
const DEFAULTS = {
  delayMs: 0, idleMs: 60_000, recordBodies: false, faults: [], seed: 1, redact: false,
  refuseKeys: false, refuseSockets: false, silenceSockets: false, pingMs: 15_000, chunkChars: null,
  holdScheduled: false, clockAheadMs: 0,
};

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    functions: { type: "string", default: "default" },
    "admin-key": { type: "string", default: "convex-self-hosted|01a2b3c4d5e6f708192a3b4c5d6e7f8091" },
    data: { type: "string" },
  },
});

/** A defect of this server, not of a function or a client: the end, with a status of 1. */
function defect(error) {
  process.stderr.write(`${error?.stack ?? error}\n`);
  process.exit(1);
}
process.on("uncaughtException", defect);
process.on("unhandledRejection", defect);

const keys = new Keys(options["admin-key"]);
let settings, faults, counts, log, deployed;
let clears = 0;

async function functionsOf(name) {
  if (name === "none") return NO_FUNCTIONS;
  return load(await bundle(name === "default" ? SHIPPED : resolve(name)));
}

const deployment = await Deployment.open(await functionsOf(options.functions), defect);
deployed = options.functions;
deployment.schedule.onRun = (name, call) => {
  const entry = record("scheduled", name);
  account(entry, call);
};
const pushes = new Pushes(deployment, keys, async (functions) => {
  await deployment.deploy(functions);
  deployed = "pushed";
});
const sync = new Sync(deployment, keys, { settings: () => settings, faultOf, record, account, defect });
if (options.data && existsSync(options.data)) await loadDocuments(deployment, options.data);

/** Takes the settings named; with `reset`, all others go back to what they were at the start. */
async function control({ reset = false, clear = false, settle = false, dropSockets = false, functions, ...changes }) {
  for (const name of Object.keys(changes)) {
    if (!(name in DEFAULTS)) throw new Error(`no such setting: ${name}`);
  }
  if (reset) {
    settings = { ...DEFAULTS };
    [counts, log, faults] = [{}, [], new Faults()];
  }
  Object.assign(settings, changes);
  if ("faults" in changes || "seed" in changes) faults = new Faults(settings.faults, settings.seed);
  deployment.redact = settings.redact;
  keys.refused = settings.refuseKeys;
  setClockAhead(settings.clockAheadMs);
  const wanted = functions ?? (reset ? options.functions : deployed);
  if (clear) clears += 1;
  if (wanted !== deployed || functions || clear) {
    const next = wanted !== deployed || functions ? await functionsOf(wanted) : deployment.functions;
    await deployment.deploy(next, clear ? [] : undefined);
    deployed = wanted;
  }
  deployment.schedule.held = settings.holdScheduled;
  deployment.schedule.arm();
  if (dropSockets) sync.drop();
  while (settle && deployment.schedule.busy) await sleep(2);
}

function state() {
  const { schedule } = deployment;
  const documents = {};
  for (const [name, table] of deployment.database.tables) documents[name] = table.documents.size;
  const next = Number.isFinite(schedule.next) ? schedule.next : null;
  const scheduled = { pending: schedule.pending.size, next };
  return { settings, counts, functions: deployed, documents, scheduled, sockets: sync.sessions.size };
}

async function answerControl(request, response) {
  let [status, body] = [200, undefined];
  try {
    if (request.method === "POST") await control(JSON.parse(await readBody(request)));
    body = { ...state(), ...(request.url.endsWith("?log") && { log }) };
  } catch (error) {
    [status, body] = [400, { error: error.message }];
  }
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function record(kind, path) {
  const label = `${kind} ${path}`;
  counts[label] = (counts[label] ?? 0) + 1;
  const entry = { label, at: Date.now() };
  log.push(entry);
  if (log.length > LONGEST_LOG) log.shift();
  return entry;
}

/** The fault that a recorded call meets. */
function faultOf(entry) {
  const fault = faults.next(entry.label);
  entry.fault = fault?.kind;
  return fault;
}

function account(entry, { usage, error }) {
  Object.assign(entry, usage, { error });
}

async function readBody(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function send(response, { status, headers, body }, fault) {
  if (response.destroyed) return; // the client did not wait
  body = Buffer.from(body);
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

/** A call of a function, with the fault that it meets. */
async function answerCall(request, response, kind) {
  const body = await readBody(request);
  if (body.length > LARGEST_BODY) throw new Refusal(413, "RequestTooLarge", "The request body is too large.");
  const call = parseCall(body.toString());
  const entry = record(kind, call.path);
  const fault = faultOf(entry);
  entry.bytesIn = body.length;
  if (settings.recordBodies) entry.body = body.toString();
  const delayMs = settings.delayMs + (fault?.kind === "delay" ? fault.ms : 0);
  const before = clears;
  if (delayMs > 0) await sleep(delayMs);
  if (clears !== before) return request.socket.destroy(); // it would write to what comes after
  let answer;
  if (!fault?.replaces || fault.when === "after") answer = await run(kind, call, request, entry);
  if (fault?.kind === "drop") return request.socket.destroy();
  if (fault?.replaces) answer = fault.answer;
  Object.assign(entry, { status: answer.status, bytesOut: Buffer.byteLength(answer.body) });
  return send(response, answer, fault);
}

async function run(kind, { path, args, format }, request, entry) {
  const admin = keys.isAdmin(request.headers.authorization);
  const started = performance.now();
  const outcome = await deployment.call(kind, path, args, { admin });
  account(entry, outcome);
  const answer = answerOf(outcome, format);
  entry.ms = performance.now() - started;
  return answer;
}

async function answerApi(request, response) {
  const [path] = request.url.split("?", 1);
  const { method } = request;
  const kind = /^\/api\/(query|mutation|action)$/.exec(path)?.[1];
  if (method === "GET" && path === "/version") return response.end(VERSION);
  if (kind && method === "POST") return answerCall(request, response, kind);
  const answer = await pushes.answer(path, request, await readBody(request));
  if (!answer) throw new Refusal(404, "NotFound", `no route for ${method} ${path}`);
  return send(response, answer);
}

const server = http.createServer((request, response) => {
  // Node's keepAliveTimeout, without the second it adds in some versions.
  response.once("finish", () => request.socket.setTimeout(settings.idleMs));
  const serve = request.url.startsWith("/__control") ? answerControl : answerApi;
  serve(request, response).catch((error) => {
    if (error instanceof Refusal) return send(response, error.answer);
    // A client may leave while it is being answered; anything else is a defect of this server.
    if (error.code === "ECONNRESET" && request.socket.destroyed) return undefined;
    return defect(error);
  });
});

server.on("upgrade", (request, socket, head) => sync.upgrade(request, socket, head).catch(defect));

function stop() {
  if (options.data) saveDocuments(deployment, options.data);
  process.exit();
}

await control({ reset: true });
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, stop);
process.stdin.on("end", stop).resume();
server.requestTimeout = 0;
server.once("error", (error) => {
  process.stderr.write(`${error.message}\n`); // such as a port that is taken
  process.exit(1);
});
server.listen(Number(options.port), "127.0.0.1", () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const admin_key = options["admin-key"];
  const wrong_key = admin_key.replace(/.$/, (last) => (last === "0" ? "1" : "0"));
  console.log(JSON.stringify({ url, control: `${url}/__control`, admin_key, wrong_key }));
});
