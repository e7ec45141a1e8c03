// The sync protocol: WebSockets, each with a session, and the functions that these call.

import { setTimeout as sleep } from "node:timers/promises";

import { jsonToConvex } from "convex/values";
import { WebSocketServer } from "ws";

import { LiveQueries } from "./live.mjs";
import { Session, SocketFault } from "./session.mjs";

const LARGEST_MESSAGE = 64 * 1024 * 1024;

export class Sync {
  sessions = new Set();
  sockets = new WebSocketServer({ noServer: true, maxPayload: LARGEST_MESSAGE });

  /** `hooks` are those of the server: settings(), faultOf(entry), record(kind, path), account(), defect(). */
  constructor(deployment, keys, hooks) {
    Object.assign(this, { deployment, keys, ...hooks });
    this.live = new LiveQueries((path, args, admin, reads) => this.call("watch", path, args, admin, reads));
    deployment.listeners.add((changes) => {
      for (const session of this.live.committed(changes)) session.update();
    });
  }

  /** Takes a connection, or refuses it. */
  async upgrade(request, socket, head) {
    socket.on("error", () => socket.destroy());
    const entry = this.record("socket", "connect");
    const fault = this.faultOf(entry);
    if (fault?.kind === "delay") await sleep(fault.ms);
    if (fault?.kind === "drop") return socket.destroy();
    const known = /^\/api\/([^/]+\/)?sync$/.test(request.url.split("?", 1)[0]);
    const status = fault?.kind === "status" ? fault.answer.status : this.settings().refuseSockets ? 503 : known ? 101 : 404;
    entry.status = status;
    if (status !== 101) return socket.end(`HTTP/1.1 ${status} Refused\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
    return this.sockets.handleUpgrade(request, socket, head, (open) => this.open(open));
  }

  open(socket) {
    const session = new Session(socket, this);
    this.sessions.add(session);
    const ping = setInterval(() => session.send({ type: "Ping" }), this.settings().pingMs);
    socket.on("message", (data) => {
      try {
        session.receive(data.toString());
      } catch (error) {
        session.fail(error);
      }
    });
    socket.on("error", () => socket.terminate());
    socket.on("close", () => {
      clearInterval(ping);
      session.end();
      this.sessions.delete(session);
    });
  }

  /** Runs a function for a session, with the fault that it meets. */
  async call(kind, path, args, admin, reads) {
    const entry = this.record(kind, path);
    const fault = this.faultOf(entry);
    const delayMs = this.settings().delayMs + (fault?.kind === "delay" ? fault.ms : 0);
    if (delayMs > 0) await sleep(delayMs);
    let outcome;
    if (!fault?.replaces || fault.when === "after") {
      const started = performance.now();
      outcome = await this.deployment.call(kind === "watch" ? "query" : kind, path, args, { admin, reads });
      entry.ms = performance.now() - started;
      this.account(entry, outcome);
    }
    if (fault?.kind === "error") return { error: JSON.parse(fault.answer.body).errorMessage, logLines: [] };
    if (fault?.kind === "value") return { value: jsonToConvex(fault.value ?? null), logLines: [] };
    if (fault?.kind === "drop" || fault?.kind === "html") throw new SocketFault(); // no socket carries a page
    if (fault?.kind === "status") throw new SocketFault(1011, JSON.parse(fault.answer.body).code);
    return outcome;
  }

  drop() {
    for (const { socket } of this.sessions) socket.terminate();
  }
}
