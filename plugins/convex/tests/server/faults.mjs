// What goes wrong between a client and its functions: refusals, lost connections, broken answers.

import { jsonToConvex } from "convex/values";

import { seeded } from "./random.mjs";
import { encode } from "./values.mjs";

const KINDS = ["status", "error", "value", "drop", "truncate", "malformed", "html", "slow", "delay"];
const REPLACING = ["status", "error", "value", "drop", "html"];
const CODES = {
  400: ["BadJsonBody", "Failed to read the request body."],
  401: ["BadAdminKey", "The provided admin key was invalid for this instance"],
  403: ["BadDeployKey", "The provided deploy key was invalid for this deployment."],
  429: ["TooManyConcurrentRequests", "Too many concurrent requests. Please wait and retry."],
  500: ["InternalServerError", "Your request couldn't be completed. Try again later."],
  503: [
    "OptimisticConcurrencyControlFailure",
    "Data read or written in this mutation changed while it was being run. Consider reducing the amount of data read.",
  ],
};

/** An answer with a status and the backend's form of an error. */
export function refusal(status, code = CODES[status]?.[0], message = CODES[status]?.[1]) {
  const body = JSON.stringify({ code: code ?? "Error", message: message ?? `status ${status}` });
  return { status, headers: { "content-type": "application/json" }, body };
}

/** One fault of a control request. */
class Fault {
  /**
   * kind          status, error, value, drop, truncate, malformed, html, slow or delay
   * match         a regular expression for "mutation system:write" and the like
   * when          status, error, value, drop and html: "before" the function ran (the default) or "after"
   * skip, times   lets that many calls pass, then meets that many (1, or all with a probability)
   * probability   meets a matching call with this probability
   * status        for kind status: 503, 429, 500, 401 …
   * code          the code in its body
   * message       the message in its body, or that of kind error
   * value         for kind value: what the function seems to return, as JSON
   * retryAfter    the value of its retry-after header
   * ms            how long slow and delay take
   */
  constructor({ kind, match = "", when = "before", skip = 0, times, probability, ms = 100, ...rest }) {
    if (!KINDS.includes(kind)) throw new Error(`no such kind of fault: ${kind}`);
    if (!["before", "after"].includes(when)) throw new Error(`when is before or after, not ${when}`);
    const known = ["status", "code", "message", "value", "retryAfter"];
    const unknown = Object.keys(rest).filter((name) => !known.includes(name));
    if (unknown.length) throw new Error(`a fault has no ${unknown}`);
    Object.assign(this, { kind, when, skip, probability, ms, ...rest });
    this.match = new RegExp(match);
    this.times = times ?? (probability === undefined ? 1 : Infinity);
  }

  get replaces() {
    return REPLACING.includes(this.kind);
  }

  meets(label, random) {
    if (this.times <= 0 || !this.match.test(label)) return false;
    if (this.probability !== undefined && random() >= this.probability) return false;
    if (this.skip > 0) {
      this.skip -= 1;
      return false;
    }
    this.times -= 1;
    return true;
  }

  /** The answer instead of the function's, for the kinds that have one. */
  get answer() {
    const { status = 503, code, message, retryAfter } = this;
    if (this.kind === "html") {
      const body = "<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>";
      return { status: 200, headers: { "content-type": "text/html; charset=utf-8" }, body };
    }
    if (this.kind === "error") {
      const body = JSON.stringify({ status: "error", errorMessage: message ?? "[Request ID: 0123456789abcdef] Server Error" });
      return { status: 200, headers: { "content-type": "application/json" }, body };
    }
    if (this.kind === "value") {
      const body = `{"status":"success","value":${encode(jsonToConvex(this.value ?? null))}}`;
      return { status: 200, headers: { "content-type": "application/json" }, body };
    }
    const answer = refusal(status, code, message);
    if (retryAfter !== undefined) answer.headers["retry-after"] = String(retryAfter);
    return answer;
  }
}

export class Faults {
  constructor(faults = [], seed = 1) {
    this.faults = faults.map((fault) => new Fault(fault));
    this.random = seeded(seed);
  }

  /** The first fault that this call meets, or undefined. */
  next(label) {
    return this.faults.find((fault) => fault.meets(label, this.random));
  }
}
