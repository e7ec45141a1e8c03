// The envelope, the error codes and the limits of Cloudflare's API v4 for Workers KV.

export const LIMITS = {
  keyBytes: 512,
  valueBytes: 25 * 1024 * 1024,
  metadataBytes: 1024,
  ttlSeconds: 60,
  listKeys: [10, 1000],
  namespacesPerPage: 100,
  bulkPairs: 10_000,
  bulkGetKeys: 100,
  bulkGetBytes: 25 * 1024 * 1024,
  bulkBytes: 100 * 1000 * 1000,
};

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }

  response() {
    const { code, message } = this;
    const body = { result: null, success: false, errors: [{ code, message }], messages: [] };
    return Response.json(body, { status: this.status });
  }
}

export const errors = {
  badIdentifier: (path) =>
    new ApiError(404, 7003, `Could not route to ${path}, perhaps your object identifier is invalid?`),
  noRoute: () => new ApiError(404, 7000, "No route for that URI"),
  noCredentials: () =>
    new ApiError(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers"),
  badToken: () => new ApiError(401, 10000, "Authentication error"),
  notPermitted: () => new ApiError(403, 10000, "Authentication error"),
  keyNotFound: () => new ApiError(404, 10009, "get: 'key not found'"),
  badNamespaceId: (id) =>
    new ApiError(400, 10011, `could not parse UUID from request's namespace_id: 'invalid namespace format: ${id}'`),
  namespaceNotFound: () => new ApiError(404, 10013, "namespace not found"),
  titleTaken: () =>
    new ApiError(400, 10014, "a namespace with this account ID and title already exists"),
  tooManyNamespaces: () => new ApiError(403, 10018, "too many namespaces in this account"),
  missingTitle: () => new ApiError(400, 10019, "missing title in the request body"),
  writtenTooOften: (key) =>
    new ApiError(429, 10022, `put: 'more than one write per second to the key ${key}'`),
  tooLarge: (what, size, limit) =>
    new ApiError(413, 10024, `${what} length of ${size} exceeds limit of ${limit}.`),
  badLimit: (limit) =>
    new ApiError(400, 10028, `Invalid limit of ${limit}. Please specify an integer from 10 to 1000.`),
  badRequest: (message) => new ApiError(400, 10029, message),
  keyTooLong: (size) =>
    new ApiError(414, 10030, `UTF-8 encoded length of ${size} exceeds key length limit of ${LIMITS.keyBytes}.`),
  badExpiration: (message) => new ApiError(400, 10033, message),
  badTtl: (message) => new ApiError(400, 10034, message),
  badCursor: () => new ApiError(400, 10041, "invalid cursor"),
  badKey: (key) => new ApiError(400, 10042, `illegal key name: '${key}'`),
  tooManyPairs: (count, limit) =>
    new ApiError(400, 10046, `${count} entries exceed the limit of ${limit} for one bulk request`),
  badMetadata: (status, message) => new ApiError(status, 10047, message),
};

/** A successful answer; `info` becomes `result_info`. */
export function ok(result, info) {
  const body = { result, success: true, errors: [], messages: [] };
  return Response.json(info ? { ...body, result_info: info } : body);
}

const encoder = new TextEncoder();

export function byteLength(text) {
  return encoder.encode(text).length;
}

export function checkKey(key) {
  if (typeof key !== "string") throw errors.badRequest("a key must be a string");
  if (["", ".", ".."].includes(key)) throw errors.badKey(key);
  const size = byteLength(key);
  if (size > LIMITS.keyBytes) throw errors.keyTooLong(size);
  return key;
}

export function checkValue(size) {
  if (size > LIMITS.valueBytes) throw errors.tooLarge("Value", size, LIMITS.valueBytes);
}

export function checkMetadata(metadata) {
  const size = metadata === undefined ? 0 : byteLength(JSON.stringify(metadata));
  if (size > LIMITS.metadataBytes) {
    const message = `Metadata length of ${size} exceeds limit of ${LIMITS.metadataBytes}.`;
    throw errors.badMetadata(413, message);
  }
  return metadata ?? undefined;
}

/** When a pair expires, in seconds since the epoch; a TTL wins over a point in time. */
export function expirationOf(expiration, ttl) {
  const now = Math.floor(Date.now() / 1000);
  if (ttl !== undefined && ttl !== null) {
    const seconds = Number(ttl);
    if (!Number.isInteger(seconds) || seconds < LIMITS.ttlSeconds) {
      throw errors.badTtl(`Invalid expiration_ttl of ${ttl}. Expiration TTL must be at least 60.`);
    }
    return now + seconds;
  }
  if (expiration === undefined || expiration === null) return undefined;
  const at = Number(expiration);
  if (!Number.isInteger(at) || at < now + LIMITS.ttlSeconds) {
    throw errors.badExpiration(
      `Invalid expiration of ${expiration}. Expiration times must be at least 60 seconds in the future.`,
    );
  }
  return at;
}
