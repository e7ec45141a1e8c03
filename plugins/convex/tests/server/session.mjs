// A session of the sync protocol: what one WebSocket is told. The types of its messages are those
// of `convex/src/browser/sync/protocol.ts`.

import { randomUUID } from "node:crypto";

import { Refusal } from "./api.mjs";
import { encode } from "./values.mjs";

const MOST_ROUNDS = 5;

function encodeTs(ts) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(ts);
  return bytes.toString("base64");
}

function decodeTs(text) {
  return Buffer.from(text, "base64").readBigUInt64LE();
}

/** What ends a session: `message` is sent, then the socket closed. */
class SessionError extends Error {
  constructor(message) {
    super(message.error);
    this.answer = message;
  }
}

function fatal(text) {
  return new SessionError({ type: "FatalError", error: text });
}

/** The members of a response or modification that tell how a function ended. */
function outcomeMembers({ error, data, logLines }) {
  const members = { errorMessage: error, logLines };
  if (data !== undefined) members.errorData = JSON.parse(encode(data));
  return members;
}

/** A fault that ends a socket: without a word, or with a code. */
export class SocketFault extends Error {
  constructor(code, message = "") {
    super(message);
    this.code = code;
  }
}

export class Session {
  queries = new Map(); // query id → {live, sent}
  version = { querySet: 0, identity: 0, ts: 0n };
  admin = false;
  changed = false; // something besides the values of queries has to be told
  mutations = Promise.resolve();

  constructor(socket, sync) {
    Object.assign(this, { socket, sync });
    this.target = { ...this.version };
  }

  receive(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      throw fatal("Received Invalid JSON on websocket");
    }
    switch (message.type) {
      case "Connect": return this.connect(message);
      case "Authenticate": return this.authenticate(message);
      case "ModifyQuerySet": return this.modify(message);
      case "Mutation":
        this.mutations = this.mutations.then(() => this.call("mutation", message));
        return this.mutations.catch((error) => this.fail(error));
      case "Action": return this.call("action", message).catch((error) => this.fail(error));
      case "Event": return undefined;
      default: throw fatal(`Received a message of unknown type ${JSON.stringify(message.type)}`);
    }
  }

  connect({ maxObservedTimestamp }) {
    if (maxObservedTimestamp === undefined || maxObservedTimestamp === null) return;
    if (decodeTs(maxObservedTimestamp) > this.sync.deployment.ts) {
      this.close(1011, "the client has observed a timestamp ahead of the server's");
    }
  }

  authenticate({ tokenType, value, baseVersion }) {
    this.check("identity", baseVersion);
    const deny = (error) =>
      new SessionError({ type: "AuthError", error, baseVersion, authUpdateAttempted: true });
    if (tokenType === "User") throw deny("no auth provider is configured");
    if (tokenType === "Admin" && !this.sync.keys.accepts(value)) throw deny(new Refusal(401).message);
    this.admin = tokenType === "Admin";
    this.target.identity = baseVersion + 1;
    this.changed = true;
    for (const [id, { live }] of [...this.queries]) {
      this.unwatch(id);
      this.watch(id, live.path, live.args);
    }
    this.update();
  }

  modify({ baseVersion, newVersion, modifications }) {
    this.check("querySet", baseVersion);
    for (const { type, queryId, udfPath, args } of modifications) {
      if (type === "Add") this.watch(queryId, udfPath, args[0] ?? {});
      else this.unwatch(queryId);
    }
    this.target.querySet = newVersion;
    this.changed = true;
    this.update();
  }

  check(name, baseVersion) {
    if (baseVersion !== this.target[name]) {
      throw fatal(`Base version ${baseVersion} passed up doesn't match the current version ${this.target[name]}`);
    }
  }

  watch(id, path, args) {
    const live = this.sync.live.watch(this, path, args, this.admin);
    this.queries.set(id, { live, sent: this.queries.get(id)?.sent });
  }

  unwatch(id) {
    const query = this.queries.get(id);
    if (!query) return;
    this.queries.delete(id);
    const watched = [...this.queries.values()].some(({ live }) => live === query.live);
    if (!watched) this.sync.live.unwatch(this, query.live);
  }

  async call(kind, { requestId, udfPath, args }) {
    const outcome = await this.sync.call(kind, udfPath, args[0] ?? {}, this.admin);
    const { error, value, ts } = outcome;
    const response = { type: kind === "mutation" ? "MutationResponse" : "ActionResponse", requestId };
    if (error === undefined) {
      Object.assign(response, { success: true, result: null, logLines: outcome.logLines });
      if (kind === "mutation") response.ts = encodeTs(ts ?? this.sync.deployment.ts);
      this.sendRaw(JSON.stringify(response).replace('"result":null', () => `"result":${encode(value)}`));
    } else {
      const { errorMessage, ...members } = outcomeMembers(outcome);
      this.send({ ...response, success: false, result: errorMessage, ...members });
    }
    this.changed = true; // a client waits for a transition that is as late as its mutation
    this.update();
  }

  /** Sends a transition soon; what comes until then is in it. */
  update() {
    if (this.updating) return;
    this.updating = true;
    setImmediate(() => this.transition().catch((error) => this.fail(error)));
  }

  async transition() {
    for (let round = 0; ; round++) {
      const every = Array.from(this.queries.values(), ({ live }) => live);
      const waiting = new Set(every.filter(({ dirty, running }) => dirty || running));
      if (waiting.size === 0) break;
      // Under commits without end, values that were right a moment ago; but a value for each query.
      if (round >= MOST_ROUNDS && every.every(({ outcome }) => outcome)) break;
      await Promise.all(Array.from(waiting, (live) => this.sync.live.refresh(live)));
    }
    this.updating = false;
    this.sendTransition();
    if ([...this.queries.values()].some(({ live }) => live.dirty)) this.update();
  }

  sendTransition() {
    const modifications = [];
    for (const [queryId, query] of this.queries) {
      const text = this.modification(queryId, query.live.outcome);
      if (text === query.sent) continue;
      query.sent = text;
      modifications.push(text);
    }
    if (!modifications.length && !this.changed) return;
    const end = { ...this.target, ts: this.sync.deployment.ts };
    const version = ({ ts, ...rest }) => JSON.stringify({ ...rest, ts: encodeTs(ts) });
    this.sendInParts(
      `{"type":"Transition","startVersion":${version(this.version)},"endVersion":${version(end)},` +
        `"modifications":[${modifications.join()}]}`,
    );
    this.version = end;
    this.changed = false;
  }

  modification(queryId, outcome) {
    if (outcome.error === undefined) {
      const logLines = JSON.stringify(outcome.logLines);
      return `{"type":"QueryUpdated","queryId":${queryId},"value":${encode(outcome.value)},"logLines":${logLines},"journal":null}`;
    }
    return JSON.stringify({ type: "QueryFailed", queryId, ...outcomeMembers(outcome), journal: null });
  }

  /** Sends a transition, in chunks when it is longer than the setting `chunkChars`. */
  sendInParts(text) {
    const { chunkChars } = this.sync.settings();
    if (chunkChars === null || text.length <= chunkChars) return this.sendRaw(text);
    const parts = text.match(new RegExp(`.{1,${chunkChars}}`, "gsu")); // never within a character
    const transitionId = randomUUID();
    parts.forEach((chunk, partNumber) => {
      this.send({ type: "TransitionChunk", chunk, partNumber, totalParts: parts.length, transitionId });
    });
    return undefined;
  }

  send(message) {
    this.sendRaw(JSON.stringify(message));
  }

  sendRaw(text) {
    if (this.socket.readyState === this.socket.OPEN && !this.sync.settings().silenceSockets) this.socket.send(text);
  }

  /** Ends the session for an error that is the client's or a fault's; any other is a defect. */
  fail(error) {
    if (error instanceof SessionError) {
      this.send(error.answer);
      this.close(1008, "");
    } else if (error instanceof SocketFault) {
      if (error.code) this.close(error.code, error.message);
      else this.socket.terminate();
    } else {
      this.sync.defect(error);
    }
  }

  close(code, reason) {
    this.socket.close(code, reason);
  }

  end() {
    for (const { live } of this.queries.values()) this.sync.live.unwatch(this, live);
    this.queries.clear();
  }
}
