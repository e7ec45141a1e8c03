/** Writing to all tables, what happens behind writes, and what these functions are. */
import { makeFunctionReference } from "convex/server";
import { v } from "convex/values";
import { internalMutation, internalQuery } from "./mastra/builders";
import { adapterTables, coreTables } from "./mastra/census";
import { writeArgs, writeReturns } from "./mastra/operations";
import { purgeStep, sweepStep } from "./mastra/purging";
import { PROTOCOL, VERSION } from "./mastra/version";
import { carryOut } from "./mastra/writing";

const RECEIPT_MILLISECONDS = 15 * 60 * 1000;
const forgetReceipt = makeFunctionReference<"mutation", { token: string }>("system:forget");

/** Carry out calls of put, delete, deletePrefix and touch, in their order, in one transaction. */
export const write = internalMutation({
  args: writeArgs,
  returns: writeReturns,
  handler: async (ctx, { calls, again, token }) => {
    if (token === undefined) return { outcomes: await carryOut(ctx, calls, again) };
    const receipt = await ctx.db
      .query("receipts")
      .withIndex("by_token", (range) => range.eq("token", token))
      .first();
    if (receipt) return { outcomes: receipt.outcomes };
    const outcomes = await carryOut(ctx, calls, again);
    await ctx.db.insert("receipts", { token, outcomes });
    await ctx.scheduler.runAfter(RECEIPT_MILLISECONDS, forgetReceipt, { token });
    return { outcomes };
  },
});

/** Scheduled by `write`: forget how a write ended, when nobody can ask for it any more. */
export const forget = internalMutation({
  args: { token: v.string() },
  returns: v.null(),
  handler: async (ctx, { token }) => {
    const receipt = await ctx.db
      .query("receipts")
      .withIndex("by_token", (range) => range.eq("token", token))
      .first();
    if (receipt) await ctx.db.delete("receipts", receipt._id);
    return null;
  },
});

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
