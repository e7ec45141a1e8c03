/** Threads, by id; listed by resource, by time or by their last update. */
import { internalQuery } from "./mastra/builders";
import {
  count as countRows,
  countArgs,
  countReturns,
  list as listRows,
  listArgs,
  listReturns,
  values,
} from "./mastra/listing";
import { get as getRows, getArgs, getReturns } from "./mastra/reading";
import { threads } from "./mastra/shapes";
import { threadDoc } from "./mastra/tables";

const filters = { resourceId: values };

/** The rows with these keys. */
export const get = internalQuery({
  args: getArgs,
  returns: getReturns(threadDoc),
  handler: (ctx, { keys }) => getRows(ctx, threads, keys),
});

/** The rows that match, in order. */
export const list = internalQuery({
  args: { ...listArgs, ...filters },
  returns: listReturns(threadDoc),
  handler: (ctx, { resourceId, ...query }) =>
    listRows(ctx, threads, { ...query, fields: { resourceId } }),
});

/** How many rows match. */
export const count = internalQuery({
  args: { ...countArgs, ...filters },
  returns: countReturns,
  handler: (ctx, { resourceId, ...query }) =>
    countRows(ctx, threads, { ...query, fields: { resourceId } }),
});
