// The REST API of Workers KV on KV bindings. Runs in workerd, behind the front in server.mjs,
// which hands over the raw request target (a URL would lose keys such as "%2E"). Answers to what
// does not come through the front wait for its delay here.

import {
  ApiError, LIMITS, byteLength, checkKey, checkMetadata, checkValue, errors, expirationOf, ok,
} from "./api.mjs";
import { bulk, checkPair, decodedKey, openCursor, parsed, valueIn } from "./input.mjs";
import { MemoryKV } from "./memory.mjs";
import { View } from "./namespace.mjs";
import { Pool } from "./pool.mjs";
import { routeOf } from "./routes.mjs";

const CONCURRENT_WRITES = 32;

let pool;
let view = new View();
let delayMs = 0;

const handlers = {
  "GET namespaces": ({ query }) => {
    const page = Number(query.get("page") ?? 1);
    const perPage = Number(query.get("per_page") ?? 20);
    if (!(page >= 1 && perPage >= 1 && perPage <= LIMITS.namespacesPerPage)) {
      throw errors.badRequest("page must be at least 1, per_page from 1 to 100");
    }
    const shown = pool.namespaces.slice((page - 1) * perPage, page * perPage);
    const total = pool.namespaces.length;
    const info = { page, per_page: perPage, count: shown.length, total_count: total };
    return ok(shown.map(describe), { ...info, total_pages: Math.ceil(total / perPage) });
  },

  "POST namespaces": async ({ json }) => {
    const body = await json();
    return ok(describe(await pool.create(() => titleIn(body), () => view)));
  },

  "GET namespace": ({ namespace }) => ok(describe(namespace)),

  "PUT namespace": async ({ namespace, json }) => {
    namespace.title = titleIn(await json(), namespace);
    return ok(describe(namespace));
  },

  "DELETE namespace": ({ namespace }) => {
    pool.delete(namespace.id);
    return ok({});
  },

  "GET keys": async ({ namespace, query, bill }) => {
    const limit = Number(query.get("limit") ?? 1000);
    const [least, most] = LIMITS.listKeys;
    if (!(limit >= least && limit <= most)) throw errors.badLimit(query.get("limit"));
    const prefix = query.get("prefix") ?? "";
    const from = openCursor(query.get("cursor"));
    bill("list", 1);
    const page = await namespace.list({ prefix, limit, cursor: from });
    const cursor = page.cursor === undefined ? "" : btoa(`kv:${page.cursor}`);
    const keys = page.keys.map(({ name, expiration, metadata }) => ({
      name,
      ...(expiration && { expiration }),
      ...((metadata ?? null) !== null && { metadata }),
    }));
    return ok(keys, { count: keys.length, cursor });
  },

  "GET values": async ({ namespace, key, bill }) => {
    const name = key();
    bill("read", 1);
    const entry = await namespace.get(name);
    if (!entry) throw errors.keyNotFound();
    const headers = { "content-type": "application/octet-stream" };
    if (entry.expiration) headers.expiration = String(entry.expiration);
    return new Response(entry.value, { headers });
  },

  "PUT values": async ({ namespace, key, request, query, bill }) => {
    const name = key();
    const { value, metadata } = await valueIn(request);
    const expiration = expirationOf(query.get("expiration"), query.get("expiration_ttl"));
    checkValue(value.byteLength);
    const pair = { expiration, metadata: checkMetadata(metadata) };
    bill("write", 1);
    await namespace.put(name, value, pair);
    return ok({});
  },

  "DELETE values": async ({ namespace, key, bill }) => {
    const name = key();
    bill("delete", 1);
    await namespace.delete(name);
    return ok({});
  },

  "GET metadata": async ({ namespace, key, bill }) => {
    const name = key();
    bill("read", 1);
    const entry = await namespace.get(name);
    if (!entry) throw errors.keyNotFound();
    return ok(entry.metadata ?? null);
  },

  "PUT bulk": async ({ namespace, json, bill }) => {
    const pairs = new Map(bulk(await json()).map((pair) => [checkKey(pair?.key), checkPair(pair)]));
    bill("write", pairs.size);
    return writeAll(pairs, (key, { value, ...options }) => namespace.put(key, value, options));
  },

  "POST bulk/delete": async ({ namespace, json, bill }) => {
    const keys = new Map(bulk(await json()).map((key) => [checkKey(key)]));
    bill("delete", keys.size);
    return writeAll(keys, (key) => namespace.delete(key));
  },

  "POST bulk/get": async ({ namespace, json, bill }) => {
    const { keys, type = "text", withMetadata = false } = (await json()) ?? {};
    const names = bulk(keys, LIMITS.bulkGetKeys).map(checkKey);
    if (!["text", "json"].includes(type)) throw errors.badRequest(`unknown type '${type}'`);
    bill("read", names.length);
    const values = Object.create(null); // may hold a key called __proto__
    let size = 0;
    for (const [name, entry] of await namespace.getMany(names)) {
      size += entry ? entry.value.length : 0;
      if (size > LIMITS.bulkGetBytes) throw errors.tooLarge("Total", size, LIMITS.bulkGetBytes);
      const value = entry && (type === "json" ? parsed(entry.value) : entry.value);
      const { metadata = null, expiration } = entry ?? {};
      values[name] = entry && withMetadata
        ? { value, metadata, ...(expiration && { expiration }) }
        : value;
    }
    return ok({ values });
  },
};

function describe({ id, title }) {
  return { id, title, supports_url_encoding: true };
}

function titleIn(body, self) {
  const title = body?.title;
  if (typeof title !== "string" || !title) throw errors.missingTitle();
  if (byteLength(title) > 512) throw errors.badRequest("title exceeds 512 bytes");
  const taken = pool.namespaces.some((other) => other !== self && other.title === title);
  if (taken) throw errors.titleTaken();
  return title;
}

/** Writes what the faults allow, some at a time, and tells which keys were left out. */
async function writeAll(entries, write) {
  const failed = [...entries.keys()].filter(view.nextBulkFailure());
  failed.forEach((key) => entries.delete(key));
  const queue = entries.entries();
  const count = entries.size;
  const refused = [];
  const work = async () => {
    for (const [key, entry] of queue) {
      try {
        await write(key, entry);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        refused.push(key);
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENT_WRITES }, work));
  return ok({
    successful_key_count: count - refused.length,
    unsuccessful_keys: [...failed, ...refused],
  });
}

function checkAccess(request, route, env) {
  const [, token] = /^Bearer (.+)$/.exec(request.headers.get("authorization")) ?? [];
  if (route.name === "unknown") throw errors.noRoute();
  if (!/^[0-9a-f]{32}$/.test(route.account)) throw errors.badIdentifier(route.account);
  if (!token) throw errors.noCredentials();
  const right = env.TOKENS[token];
  if (right === undefined) throw errors.badToken();
  const reads = request.method === "GET" || route.name === "bulk/get";
  const allowed = right === "write" || (right === "read" && reads);
  if (!allowed || route.account !== env.ACCOUNT) throw errors.notPermitted();
}

function namespaceOf({ namespace: id }) {
  if (id === undefined) return undefined;
  if (!/^[0-9a-f]{32}$/.test(id)) throw errors.badNamespaceId(id);
  const namespace = pool.get(id);
  if (!namespace) throw errors.namespaceNotFound();
  return namespace;
}

function targetOf(request) {
  const { pathname, search } = new URL(request.url);
  return request.headers.get("x-kv-target") ?? pathname + search;
}

/** What stands behind the first question mark; others belong to it. */
function queryOf(target) {
  const start = target.indexOf("?");
  return new URLSearchParams(start < 0 ? "" : target.slice(start + 1));
}

async function answer(request, env, bill) {
  const target = targetOf(request);
  const route = routeOf(target);
  checkAccess(request, route, env);
  const handler = handlers[`${request.method} ${route.name}`];
  if (!handler) throw errors.noRoute();
  return handler({
    request,
    bill,
    namespace: namespaceOf(route),
    query: queryOf(target),
    key: () => decodedKey(route.key),
    json: async () => parsed(await request.text()),
  });
}

/** What the front asks for itself: other consistency faults, a delay, and deleting everything. */
async function control(request) {
  const { consistency, clear, delayMs: delay } = await request.json();
  delayMs = delay;
  if (consistency) view = new View(consistency);
  if (clear) pool.namespaces.forEach(({ id }) => pool.delete(id));
  return Response.json(view);
}

export default {
  async fetch(request, env) {
    pool ??= new Pool(env.STORE.map((name) => env[name] ?? new MemoryKV()));
    if (request.headers.has("x-kv-control")) return control(request);
    const bill = {};
    const response = await answer(request, env, (kind, count) => (bill[kind] = count)).catch(
      (error) => {
        if (!(error instanceof ApiError)) throw error;
        return error.response();
      },
    );
    response.headers.set("x-kv-bill", JSON.stringify(bill));
    if (delayMs > 0 && !request.headers.has("x-kv-target")) await scheduler.wait(delayMs);
    return response;
  },
};
