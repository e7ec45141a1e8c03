/** Writing to all tables, what happens behind writes, and what these functions are. */
import { makeFunctionReference } from "convex/server";
import { v } from "convex/values";
import { internalMutation, internalQuery, type QueryCtx } from "./mastra/builders";
import { adapterTables, coreTables } from "./mastra/census";
import { writeArgs, writeReturns } from "./mastra/operations";
import { purgeStep, sweepStep } from "./mastra/purging";
import { PROTOCOL, VERSION } from "./mastra/version";
import { carryOut } from "./mastra/writing";

const RECEIPT_MILLISECONDS = 15 * 60 * 1000;
const forgetReceipt = makeFunctionReference<"mutation", { store: string }>("system:forget");

/**
 * Carry out calls of put, delete, deletePrefix and touch, in their order, in one transaction.
 *
 * The same number again gives the outcomes that there were; what a later number has overtaken
 * was given up by its store, and does not happen any more.
 */
export const write = internalMutation({
  args: writeArgs,
  returns: writeReturns,
  handler: async (ctx, { calls, store, number }) => {
    if (calls.length === 0) return { outcomes: [] };
    const receipt = await receiptOf(ctx, store);
    if (receipt?.number === number) return { outcomes: receipt.outcomes };
    if (receipt && receipt.number > number) throw new Error("a later write of this store has happened");
    const outcomes = await carryOut(ctx, calls);
    const last = { store, number, outcomes, at: Date.now() };
    if (receipt) {
      await ctx.db.replace("receipts", receipt._id, last);
    } else {
      await ctx.db.insert("receipts", last);
      await ctx.scheduler.runAfter(RECEIPT_MILLISECONDS, forgetReceipt, { store });
    }
    return { outcomes };
  },
});

/** Scheduled by `write` and by itself: forget a store that has not written for a while. */
export const forget = internalMutation({
  args: { store: v.string() },
  returns: v.null(),
  handler: async (ctx, { store }) => {
    const receipt = await receiptOf(ctx, store);
    if (!receipt) return null;
    const left = receipt.at + RECEIPT_MILLISECONDS - Date.now();
    if (left > 0) await ctx.scheduler.runAfter(left, forgetReceipt, { store });
    else await ctx.db.delete("receipts", receipt._id);
    return null;
  },
});

/** How the last write of a store ended. */
function receiptOf(ctx: QueryCtx, store: string) {
  return ctx.db
    .query("receipts")
    .withIndex("by_store", (range) => range.eq("store", store))
    .first();
}

/** Scheduled by `write` and by itself: delete a part of what a deletion left hidden. */
export const purge = internalMutation({
  args: { purge: v.id("purges"), after: v.optional(v.array(v.string())) },
  returns: v.null(),
  handler: async (ctx, args) => {
    await purgeStep(ctx, args.purge, args.after);
    return null;
  },
});

/** Scheduled by `write` and by itself: delete a part of the rows that have expired. */
export const sweep = internalMutation({
  args: {},
  returns: v.null(),
  handler: async (ctx) => {
    await sweepStep(ctx);
    return null;
  },
});

/** The tables with rows: those of records, and the adapters' behind `after`. */
export const tables = internalQuery({
  args: { after: v.optional(v.string()) },
  returns: v.object({
    core: v.array(v.string()),
    documents: v.array(v.string()),
    next: v.union(v.string(), v.null()),
  }),
  handler: async (ctx, { after }) => {
    const core = after === undefined ? await coreTables(ctx) : [];
    const { names, next } = await adapterTables(ctx, after);
    return { core, documents: names, next };
  },
});

/** What a client must speak to use these functions. */
export const version = internalQuery({
  args: {},
  returns: v.object({ protocol: v.number(), version: v.string() }),
  handler: () => ({ protocol: PROTOCOL, version: VERSION }),
});
