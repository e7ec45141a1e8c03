// Scheduled functions: pending documents of `_scheduled_functions`, run when they are due.

const TABLE = "_scheduled_functions";
const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds; Node fires later ones at once

export class Schedule {
  pending = new Map(); // id → when, in milliseconds
  held = false;
  running = 0;
  onRun = () => {};

  constructor(deployment) {
    this.deployment = deployment;
  }

  /** Looks for all pending functions anew: the documents are others. */
  restart() {
    this.pending.clear();
    const { documents } = this.deployment.database.table(TABLE);
    for (const job of documents.values()) this.note(job);
    this.arm();
  }

  committed(changes) {
    const jobs = changes.filter(({ table }) => table === TABLE);
    for (const { id, after } of jobs) {
      if (after) this.note(after);
      else this.pending.delete(id);
    }
    if (jobs.length) this.arm();
  }

  note({ _id, scheduledTime, state }) {
    if (state.kind === "pending") this.pending.set(_id, scheduledTime);
    else this.pending.delete(_id);
  }

  /** Sets the timer for the earliest one. It does not keep the process alive. */
  arm() {
    clearTimeout(this.timer);
    if (this.held || this.pending.size === 0) return;
    const delay = Math.min(Math.max(this.next - Date.now(), 0), LONGEST_TIMER);
    this.timer = setTimeout(() => this.runDue(), delay).unref();
  }

  get next() {
    let next = Infinity;
    for (const time of this.pending.values()) if (time < next) next = time;
    return next;
  }

  runDue() {
    const now = Date.now();
    const due = [...this.pending].filter(([, time]) => time <= now).sort(([, a], [, b]) => a - b);
    for (const [id] of due) {
      this.pending.delete(id);
      this.running += 1;
      this.deployment.using(() => this.run(id)).catch(this.deployment.defect).finally(() => { this.running -= 1; });
    }
    this.arm();
  }

  async run(id) {
    const { database } = this.deployment;
    const job = database.table(TABLE).documents.get(id);
    if (job?.state.kind !== "pending") return;
    const mark = (change) => database.write((fake) => fake.patch(TABLE, id, change));
    await mark({ state: { kind: "inProgress" } });
    const call = await this.deployment.execute("any", job.name, job.args[0], { admin: true, decoded: true });
    const kind = call.error === undefined ? "success" : "failed";
    await mark({ state: { kind }, completedTime: Date.now() });
    this.onRun(job.name, call);
  }

  /** Whether anything is due or running: tests wait until this is false. */
  get busy() {
    return this.running > 0 || (!this.held && this.next <= Date.now());
  }
}
