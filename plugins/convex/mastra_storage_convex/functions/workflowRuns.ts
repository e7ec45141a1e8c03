/** Workflow runs, by workflow and run; listed by workflow, run, resource or status. */
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
import { workflowRuns } from "./mastra/shapes";
import { workflowRunDoc } from "./mastra/tables";

const filters = { runId: values, resourceId: values, status: values };

/** The rows with these keys. */
export const get = internalQuery({
  args: getArgs,
  returns: getReturns(workflowRunDoc),
  handler: (ctx, { keys }) => getRows(ctx, workflowRuns, keys),
});

/** The rows that match, in order. */
export const list = internalQuery({
  args: { ...listArgs, ...filters },
  returns: listReturns(workflowRunDoc),
  handler: (ctx, { runId, resourceId, status, ...query }) =>
    listRows(ctx, workflowRuns, { ...query, fields: { runId, resourceId, status } }),
});

/** How many rows match. */
export const count = internalQuery({
  args: { ...countArgs, ...filters },
  returns: countReturns,
  handler: (ctx, { runId, resourceId, status, ...query }) =>
    countRows(ctx, workflowRuns, { ...query, fields: { runId, resourceId, status } }),
});
