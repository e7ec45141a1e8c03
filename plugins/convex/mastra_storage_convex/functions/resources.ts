/** Resources: working memory and metadata, by id. */
import { internalQuery } from "./mastra/builders";
import {
  count as countRows,
  countArgs,
  countReturns,
  list as listRows,
  listArgs,
  listReturns,
} from "./mastra/listing";
import { get as getRows, getArgs, getReturns } from "./mastra/reading";
import { resources } from "./mastra/shapes";
import { resourceDoc } from "./mastra/tables";

/** The rows with these keys. */
export const get = internalQuery({
  args: getArgs,
  returns: getReturns(resourceDoc),
  handler: (ctx, { keys }) => getRows(ctx, resources, keys),
});

/** The rows that match, in order. */
export const list = internalQuery({
  args: listArgs,
  returns: listReturns(resourceDoc),
  handler: (ctx, query) => listRows(ctx, resources, { ...query, fields: {} }),
});

/** How many rows match. */
export const count = internalQuery({
  args: countArgs,
  returns: countReturns,
  handler: (ctx, query) => countRows(ctx, resources, { ...query, fields: {} }),
});
