// What goes wrong on the way to the API: errors, lost connections, slow and broken answers.

import { seeded } from "./random.mjs";

const KINDS = ["status", "drop", "truncate", "slow", "delay", "malformed", "html"];

/** One fault of a control request. */
class Fault {
  /**
   * kind          status, drop, truncate, slow, delay, malformed or html
   * match         a regular expression for "METHOD route", such as "PUT (bulk|values)"
   * path          one for the raw request target
   * when          status, drop and html: "before" the effect took place (the default) or "after"
   * skip, times   lets that many requests pass, then meets that many (1, or all with a probability)
   * probability   meets a matching request with this probability
   * status        for kind status: 429, 500, 502 …
   * code          the error code in its envelope
   * retryAfter    the value of its retry-after header
   * ms            how long slow and delay take
   */
  constructor({ kind, match = "", path = "", when = "before", skip = 0, times, probability, ms = 100, ...rest }) {
    if (!KINDS.includes(kind)) throw new Error(`no such kind of fault: ${kind}`);
    if (!["before", "after"].includes(when)) throw new Error(`when is before or after, not ${when}`);
    const known = ["status", "code", "retryAfter"];
    const unknown = Object.keys(rest).filter((name) => !known.includes(name));
    if (unknown.length) throw new Error(`a fault has no ${unknown}`);
    Object.assign(this, { kind, when, skip, probability, ms, ...rest });
    this.match = new RegExp(match);
    this.path = new RegExp(path);
    this.times = times ?? (probability === undefined ? 1 : Infinity);
  }

  meets(label, target, random) {
    if (this.times <= 0 || !this.match.test(label) || !this.path.test(target)) return false;
    if (this.probability !== undefined && random() >= this.probability) return false;
    if (this.skip > 0) {
      this.skip -= 1;
      return false;
    }
    this.times -= 1;
    return true;
  }

  /** The answer instead of the API's, for the kinds that have one. */
  get answer() {
    if (this.kind === "html") return page(200, "Sign in", "Please sign in to the network.");
    const { status = 500, code = status === 429 ? 971 : 10001, retryAfter } = this;
    if (status === 502) return page(502, "Bad gateway", "The web server reported a bad gateway.");
    const message = status === 429
      ? "Please wait and consider throttling your request speed"
      : "service temporarily unavailable";
    const body = { result: null, success: false, errors: [{ code, message }], messages: [] };
    const headers = { "content-type": "application/json" };
    if (retryAfter !== undefined) headers["retry-after"] = String(retryAfter);
    return { status, headers, body: Buffer.from(JSON.stringify(body)) };
  }
}

function page(status, title, text) {
  const html = `<!doctype html><html><head><title>${title}</title></head><body><h1>${title}</h1><p>${text}</p></body></html>`;
  return { status, headers: { "content-type": "text/html; charset=utf-8" }, body: Buffer.from(html) };
}

export class Faults {
  constructor(faults = [], seed = 1) {
    this.faults = faults.map((fault) => new Fault(fault));
    this.random = seeded(seed);
  }

  /** The first fault that this request meets, or undefined. */
  next(label, target) {
    return this.faults.find((fault) => fault.meets(label, target, this.random));
  }
}

/** The API's budget of requests: past it, everything is refused for a whole period. */
export class Budget {
  constructor({ requests = 1_000_000, periodMs = 300_000 } = {}) {
    Object.assign(this, { requests, periodMs, left: requests, until: 0, blocked: false });
  }

  /** Spends one request; the headers of the answer, and the answer itself when it is refused. */
  spend() {
    const now = Date.now();
    if (now >= this.until) {
      Object.assign(this, { left: this.requests, until: now + this.periodMs, blocked: false });
    }
    if (this.left <= 0 && !this.blocked) {
      Object.assign(this, { until: now + this.periodMs, blocked: true });
    }
    const seconds = Math.ceil((this.until - now) / 1000);
    const refusal = this.blocked && new Fault({ kind: "status", status: 429, retryAfter: seconds });
    if (!this.blocked) this.left -= 1;
    const headers = {
      ratelimit: `"default";r=${this.left};t=${seconds}`,
      "ratelimit-policy": `"default";q=${this.requests};w=${Math.ceil(this.periodMs / 1000)}`,
    };
    return { headers, refusal: refusal ? refusal.answer : undefined };
  }
}
