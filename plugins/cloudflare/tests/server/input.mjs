// What comes in with a request, decoded and checked.

import {
  LIMITS, byteLength, checkKey, checkMetadata, checkValue, errors, expirationOf,
} from "./api.mjs";

export function decodedKey(encoded) {
  try {
    return checkKey(decodeURIComponent(encoded));
  } catch (error) {
    if (error instanceof URIError) throw errors.badRequest("the key is not percent-encoded");
    throw error;
  }
}

/** The binding's cursor in one of the API's, which is opaque to clients. */
export function openCursor(cursor) {
  if (!cursor) return undefined;
  try {
    const [, inner] = /^kv:(.*)$/s.exec(atob(cursor));
    return inner;
  } catch {
    throw errors.badCursor();
  }
}

export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw errors.badRequest("a value is not JSON");
  }
}

/** Value and metadata of a PUT: a raw body, or a form with both. */
export async function valueIn(request) {
  if (!/^multipart\/form-data/i.test(request.headers.get("content-type"))) {
    return { value: await request.arrayBuffer() };
  }
  const form = await request.formData();
  if (!form.has("value")) throw errors.badRequest("the form has no value");
  const value = await new Response(form.get("value")).arrayBuffer();
  const metadata = form.get("metadata");
  try {
    return { value, metadata: metadata === null ? undefined : JSON.parse(metadata) };
  } catch {
    throw errors.badMetadata(400, "metadata is not JSON");
  }
}

/** The array of a bulk request. */
export function bulk(entries, limit = LIMITS.bulkPairs) {
  if (!Array.isArray(entries)) throw errors.badRequest("expected an array");
  if (!entries.length) throw errors.badRequest("the array is empty");
  if (entries.length > limit) throw errors.tooManyPairs(entries.length, limit);
  return entries;
}

/** What is to be written for one pair of a bulk request. */
export function checkPair({ value, base64, metadata, expiration, expiration_ttl: ttl }) {
  if (typeof value !== "string") throw errors.badRequest("a value must be a string");
  const content = base64 ? decodeBase64(value) : value;
  checkValue(base64 ? content.byteLength : byteLength(content));
  return { value: content, expiration: expirationOf(expiration, ttl), metadata: checkMetadata(metadata) };
}

function decodeBase64(text) {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
  } catch {
    throw errors.badRequest("a value is not base64");
  }
}
