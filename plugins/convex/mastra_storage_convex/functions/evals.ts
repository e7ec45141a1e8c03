/** Evals, by id; listed by agent, type, thread or run. */
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
import { evals } from "./mastra/shapes";
import { evalDoc } from "./mastra/tables";

const filters = { agentName: values, type: values, threadId: values, runId: values };

/** The rows with these keys. */
export const get = internalQuery({
  args: getArgs,
  returns: getReturns(evalDoc),
  handler: (ctx, { keys }) => getRows(ctx, evals, keys),
});

/** The rows that match, in order. */
export const list = internalQuery({
  args: { ...listArgs, ...filters },
  returns: listReturns(evalDoc),
  handler: (ctx, { agentName, type, threadId, runId, ...query }) =>
    listRows(ctx, evals, { ...query, fields: { agentName, type, threadId, runId } }),
});

/** How many rows match. */
export const count = internalQuery({
  args: { ...countArgs, ...filters },
  returns: countReturns,
  handler: (ctx, { agentName, type, threadId, runId, ...query }) =>
    countRows(ctx, evals, { ...query, fields: { agentName, type, threadId, runId } }),
});
