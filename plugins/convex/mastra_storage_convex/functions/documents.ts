/** Rows of the tables that adapters register, by table and key; listed by what each declares. */
import { v } from "convex/values";
import { internalQuery } from "./mastra/builders";
import {
  count as countRows,
  countArgs,
  countReturns,
  list as listRows,
  listArgs,
  listReturns,
  type Position,
} from "./mastra/listing";
import { get as getRows, getArgs, getReturns } from "./mastra/reading";
import { documents } from "./mastra/shapes";
import { documentDoc } from "./mastra/tables";

const slot = v.object({
  index: v.union(
    v.literal(0),
    v.literal(1),
    v.literal(2),
    v.literal(3),
    v.literal(4),
    v.literal(5),
    v.literal(6),
    v.literal(7),
  ),
  group: v.array(v.string()),
});

/** `slot` names the listing to walk: its number, and what the rows have in that column. */
const filters = {
  table: v.string(),
  fields: v.record(v.string(), v.array(v.string())),
  slot: v.optional(slot),
};

/** The rows of one table with these keys. */
export const get = internalQuery({
  args: { ...getArgs, table: v.string() },
  returns: getReturns(documentDoc),
  handler: (ctx, { table, keys }) =>
    getRows(
      ctx,
      documents,
      keys.map((key) => [table, ...key]),
    ),
});

/** The rows of one table that match, in order. */
export const list = internalQuery({
  args: { ...listArgs, ...filters },
  returns: listReturns(documentDoc),
  handler: async (ctx, args) => {
    const found = await listRows(ctx, documents, { ...args, ...inTable(args) });
    return { ...found, next: outside(found.next) };
  },
});

/** How many rows of one table match. */
export const count = internalQuery({
  args: { ...countArgs, ...filters },
  returns: countReturns,
  handler: async (ctx, args) => {
    const found = await countRows(ctx, documents, { ...args, ...inTable(args) });
    return { ...found, next: outside(found.next) };
  },
});

interface InTable {
  readonly table: string;
  readonly prefix: string[];
  readonly after?: Position;
}

/** Inside, the name of the table is the first part of each key. */
function inTable({ table, prefix, after }: InTable) {
  return {
    prefix: [table, ...prefix],
    after: after && { ...after, key: [table, ...after.key] },
  };
}

function outside(next: Position | null): Position | null {
  return next && { ...next, key: next.key.slice(1) };
}
