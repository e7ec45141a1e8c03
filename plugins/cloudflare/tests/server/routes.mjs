// Which call of the API a request is. Used by the front (to count and to match faults) and by
// the Worker (to answer).

const NAMESPACES = /^\/client\/v4\/accounts\/([^/]*)\/storage\/kv\/namespaces(?:\/(.*))?$/s;
const BULK = ["keys", "bulk", "bulk/get", "bulk/delete"];

/**
 * The route of a raw request target. `name` is one of namespaces, namespace, keys, values,
 * metadata, bulk, bulk/get and bulk/delete; `key` is still percent-encoded.
 */
export function routeOf(target) {
  const [path] = target.split("?", 1);
  const [, account, rest] = NAMESPACES.exec(path) ?? [];
  if (account === undefined) return { name: "unknown" };
  if (!rest) return { name: "namespaces", account };
  const [namespace, ...parts] = rest.split("/");
  const tail = parts.join("/");
  if (!tail) return { name: "namespace", account, namespace };
  if (BULK.includes(tail)) return { name: tail, account, namespace };
  const [, name, key] = /^(values|metadata)\/(.*)$/s.exec(tail) ?? [];
  return { name: name ?? "unknown", account, namespace, key };
}
