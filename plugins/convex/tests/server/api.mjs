// The HTTP API of a deployment: who calls, which function, and the answer as text.

import { refusal } from "./faults.mjs";
import { encode } from "./values.mjs";

const JSON_TYPE = { "content-type": "application/json" };
const FORMATS = {
  convex_encoded_json: "convex_encoded_json", convex_json: "convex_encoded_json",
  json: "json", convex_clean_json: "json",
};
const SURROGATE = /\\u[dD][89abAB][0-9a-fA-F]{2}/;

/** An answer that is not a function's: thrown, and sent as it is. */
export class Refusal extends Error {
  constructor(...args) {
    super(args[1]);
    this.answer = refusal(...args);
  }
}

/** Who may call internal functions: those with the admin key. */
export class Keys {
  refused = false;

  constructor(adminKey) {
    this.adminKey = adminKey;
  }

  /** Whether a key is the admin key; its type ("prod:", "dev:") does not count. */
  accepts(key) {
    return !this.refused && key.replace(/^[a-z]+:(?=[^|]*\|)/, "") === this.adminKey;
  }

  /** Whether an Authorization header is an admin's; a Refusal for a wrong key. */
  isAdmin(header) {
    if (header === undefined) return false;
    if (!/^(convex|bearer) /i.test(header)) {
      throw new Refusal(400, "InvalidHeaderFailure", "Malformed Authorization header.");
    }
    if (/^bearer /i.test(header)) {
      throw new Refusal(401, "InvalidAuthHeader", "Could not verify OIDC token claim: no auth provider is configured.");
    }
    if (!this.accepts(header.slice("convex ".length))) throw new Refusal(401);
    return true;
  }
}

function isWellFormed(value) {
  if (typeof value === "string") return value.isWellFormed();
  if (typeof value !== "object" || value === null) return true;
  return Object.keys(value).every(isWellFormed) && Object.values(value).every(isWellFormed);
}

/** A request body as `{path, args, format}`. */
export function parseCall(body) {
  let call;
  try {
    call = JSON.parse(body);
  } catch (error) {
    throw new Refusal(400, "BadJsonBody", `Failed to parse the request body: ${error.message}`);
  }
  if (typeof call?.path !== "string" || typeof call.args !== "object" || call.args === null) {
    throw new Refusal(400, "BadJsonBody", "The request body needs a `path` and `args`.");
  }
  if (SURROGATE.test(body) && !isWellFormed(call)) {
    throw new Refusal(400, "BadJsonBody", "Failed to parse the request body: lone surrogate in a string");
  }
  if (!/^[\w./-]+(:\w+)?$/.test(call.path)) {
    throw new Refusal(400, "BadConvexFunctionIdentifier", `${JSON.stringify(call.path)} is not a path to a function.`);
  }
  const format = FORMATS[call.format ?? "json"];
  if (!format) throw new Refusal(400, "BadFormat", `format param must be one of [\`json\`]. Got ${call.format}`);
  return { path: call.path, args: call.args, format };
}

/** What a function gave, as the API answers it: status 200, also for the function's own errors. */
export function answerOf({ value, error, data, logLines }, format) {
  const lines = logLines.length ? `,"logLines":${JSON.stringify(logLines)}` : "";
  if (error === undefined) {
    return { status: 200, headers: JSON_TYPE, body: `{"status":"success","value":${encode(value, format)}${lines}}` };
  }
  const errorData = data === undefined ? "" : `,"errorData":${encode(data, format)}`;
  const body = `{"status":"error","errorMessage":${JSON.stringify(error)}${errorData}${lines}}`;
  return { status: 200, headers: JSON_TYPE, body };
}
