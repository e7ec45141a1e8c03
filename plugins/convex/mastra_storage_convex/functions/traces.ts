/** Traces, by id; listed by trace, name, scope, thread or run. */
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
import { traces } from "./mastra/shapes";
import { traceDoc } from "./mastra/tables";

const filters = { traceId: values, name: values, scope: values, threadId: values, runId: values };

/** The rows with these keys. */
export const get = internalQuery({
  args: getArgs,
  returns: getReturns(traceDoc),
  handler: (ctx, { keys }) => getRows(ctx, traces, keys),
});

/** The rows that match, in order. */
export const list = internalQuery({
  args: { ...listArgs, ...filters },
  returns: listReturns(traceDoc),
  handler: (ctx, { traceId, name, scope, threadId, runId, ...query }) =>
    listRows(ctx, traces, { ...query, fields: { traceId, name, scope, threadId, runId } }),
});

/** How many rows match. */
export const count = internalQuery({
  args: { ...countArgs, ...filters },
  returns: countReturns,
  handler: (ctx, { traceId, name, scope, threadId, runId, ...query }) =>
    countRows(ctx, traces, { ...query, fields: { traceId, name, scope, threadId, runId } }),
});
