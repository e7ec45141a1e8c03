/** Messages, by thread and id; listed thread by thread, in order. */
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
import { messages } from "./mastra/shapes";
import { messageDoc } from "./mastra/tables";

const filters = { resourceId: values };

/** The rows with these keys. */
export const get = internalQuery({
  args: getArgs,
  returns: getReturns(messageDoc),
  handler: (ctx, { keys }) => getRows(ctx, messages, keys),
});

/** The rows that match, in order. */
export const list = internalQuery({
  args: { ...listArgs, ...filters },
  returns: listReturns(messageDoc),
  handler: (ctx, { resourceId, ...query }) =>
    listRows(ctx, messages, { ...query, fields: { resourceId } }),
});

/** How many rows match. */
export const count = internalQuery({
  args: { ...countArgs, ...filters },
  returns: countReturns,
  handler: (ctx, { resourceId, ...query }) =>
    countRows(ctx, messages, { ...query, fields: { resourceId } }),
});
