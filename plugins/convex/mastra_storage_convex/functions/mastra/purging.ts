/**
 * Deleting many rows: what a prefix covers is gone at once, and deleted in steps behind it.
 *
 * A purge has a generation, greater than those of all purges before it. It covers the rows under
 * its prefix that have a smaller one or none; a row that is put while purges are under way gets
 * the greatest of theirs, and so is not covered.
 */
import { makeFunctionReference } from "convex/server";
import type { GenericId } from "convex/values";
import type { MutationCtx } from "./builders";
import { Budget } from "./limits";
import { prefixSpan, scan } from "./scanning";
import { keyOf, shapes, type Key, type RowTable, type Shape } from "./shapes";
import { now, type Purge } from "./visibility";

const purge = makeFunctionReference<
  "mutation",
  { purge: GenericId<"purges">; after?: string[] }
>("system:purge");
const sweep = makeFunctionReference<"mutation", Record<string, never>>("system:sweep");

/** When a purge is looked after, and how many of a table at once. */
const PURGE_MILLISECONDS = 10 * 60 * 1000;
const RESUMED_PURGES = 10;

/** How late expired rows may be deleted, for one sweep to do for many. */
const SWEEP_MILLISECONDS = 10 * 60 * 1000;

/** Scheduling reaches a few years ahead; what expires later is hidden then, and kept. */
const FAR_MILLISECONDS = 4 * 365 * 24 * 3600 * 1000;
const EARLIEST = -(2n ** 63n);

/** Number the purges that begin now; gives the generation of all of them. */
export async function nextGeneration(ctx: MutationCtx): Promise<number> {
  const counter = await ctx.db.query("generations").first();
  if (!counter) {
    await ctx.db.insert("generations", { last: 1 });
    return 1;
  }
  await ctx.db.patch("generations", counter._id, { last: counter.last + 1 });
  return counter.last + 1;
}

/** Hide the rows under a prefix, and have them deleted. */
export async function startPurge(
  ctx: MutationCtx,
  table: RowTable,
  prefix: Key,
  generation: number,
): Promise<void> {
  const id = await ctx.db.insert("purges", { table, prefix: [...prefix], generation });
  await ctx.scheduler.runAfter(0, purge, { purge: id });
}

/**
 * Have those of these purges go on that take so long that their next step may be lost: scheduled
 * functions can be cancelled, be missing when they are due, or not be in a backup. Where it is
 * not lost, two steps get in each other's way at worst.
 */
export async function resumePurges(ctx: MutationCtx, active: readonly Purge[]): Promise<void> {
  const time = Date.now();
  const late = active.filter(
    (each) => (each.resumed ?? each._creationTime) + PURGE_MILLISECONDS < time,
  );
  for (const { _id } of late.slice(0, RESUMED_PURGES)) {
    await ctx.db.patch("purges", _id, { resumed: time });
    await ctx.scheduler.runAfter(0, purge, { purge: _id });
  }
}

/** Delete a part of what a purge covers, behind a key; have the rest deleted next. */
export async function purgeStep(
  ctx: MutationCtx,
  id: GenericId<"purges">,
  after?: Key,
): Promise<void> {
  const active = await ctx.db.get("purges", id);
  if (!active) return;
  const shape: Shape<unknown> = shapes[active.table as RowTable];
  const budget = Budget.purge();
  for await (const document of scan(ctx.db, prefixSpan(shape, active.prefix, after))) {
    budget.spend(document);
    if ((document.row.generation ?? 0) < active.generation) {
      await ctx.db.delete(shape.table, document._id);
    }
    if (budget.exhausted) {
      const reached = [...keyOf(shape, document)];
      await ctx.scheduler.runAfter(0, purge, { purge: id, after: reached });
      return;
    }
  }
  await ctx.db.delete("purges", id);
}

/** Have the rows deleted that expire at these times. */
export async function scheduleSweep(
  ctx: MutationCtx,
  times: readonly (bigint | undefined)[],
): Promise<void> {
  const due = times.flatMap((time) => (time === undefined ? [] : [time]));
  if (due.length > 0) await planSweep(ctx, Math.min(...due.map(passed)));
}

/** The millisecond in which a time in microseconds is over. */
function passed(time: bigint): number {
  return Number(time / 1000n) + 1;
}

/** Have a sweep at a time, unless one is planned that comes soon enough; at once if that is lost. */
async function planSweep(ctx: MutationCtx, time: number): Promise<void> {
  const planned = await ctx.db.query("sweeps").first();
  const isLost = planned !== null && planned.at + SWEEP_MILLISECONDS < Date.now();
  if (planned) {
    if (!isLost && planned.at <= time + SWEEP_MILLISECONDS) return;
    await ctx.db.delete("sweeps", planned._id);
  }
  const earliest = isLost ? 0 : Math.min(time, Date.now() + FAR_MILLISECONDS);
  const at = Math.max(earliest, Date.now());
  await ctx.db.insert("sweeps", { at });
  await ctx.scheduler.runAt(at, sweep, {});
}

/** Delete a part of the expired rows; have the rest deleted next. */
export async function sweepStep(ctx: MutationCtx): Promise<void> {
  const budget = Budget.purge();
  const time = now();
  for (const { table } of Object.values(shapes)) {
    const expired = expiring(ctx, table, EARLIEST, time);
    for await (const document of expired) {
      budget.spend(document);
      await ctx.db.delete(table, document._id);
      if (budget.exhausted) {
        await ctx.scheduler.runAfter(0, sweep, {});
        return;
      }
    }
  }
  await planNextSweep(ctx, time);
}

/** Have the next sweep when the first of the rows expires that are left, but not too soon. */
async function planNextSweep(ctx: MutationCtx, time: bigint): Promise<void> {
  const planned = await ctx.db.query("sweeps").first();
  if (planned && planned.at > Date.now()) return;
  if (planned) await ctx.db.delete("sweeps", planned._id);
  const next: number[] = [];
  for (const { table } of Object.values(shapes)) {
    for await (const { row } of expiring(ctx, table, time + 1n)) {
      if (row.expiresAt !== undefined) next.push(passed(row.expiresAt));
      break;
    }
  }
  if (next.length === 0) return;
  await planSweep(ctx, Math.max(Math.min(...next), Date.now() + SWEEP_MILLISECONDS));
}

/** The rows of a table that expire from one moment to another, both included. */
function expiring(ctx: MutationCtx, table: RowTable, from: bigint, to?: bigint) {
  return scan(ctx.db, {
    table,
    index: "by_expiry",
    equal: [],
    sort: ["row.expiresAt"],
    low: { value: from, inclusive: true },
    high: to === undefined ? undefined : { value: to, inclusive: true },
    descending: false,
  });
}
