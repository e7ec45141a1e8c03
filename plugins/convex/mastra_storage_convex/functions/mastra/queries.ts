/**
 * For queries of your own: rows of our tables, without those that have expired or are being
 * deleted. Your schema may have other tables too. Who may see which rows is for you to decide.
 */
import type { QueryCtx } from "./builders";
import { list } from "./listing";
import { get } from "./reading";
import type { Key, Shape } from "./shapes";

export { evals, messages, resources, threads, traces, workflowRuns } from "./shapes";

/** The context of a query or mutation, whatever tables its schema has beside ours. */
interface AnyCtx {
  readonly db: { query(table: never): unknown };
}

interface Newest {
  /** The first parts of the key: `[threadId]` for the messages of a thread. */
  readonly prefix?: Key;
  /** Values that indexed columns may have; "" stands for rows without any. */
  readonly where?: Readonly<Record<string, readonly string[]>>;
  /** By the time a row was created (the default), or by its last change. */
  readonly orderBy?: "created" | "recent";
  readonly limit: number;
}

/** The row with a key, such as `[threadId]` or `[threadId, messageId]`; null without one. */
export async function find<Doc>(ctx: AnyCtx, table: Shape<Doc>, key: Key): Promise<Doc | null> {
  const { rows } = await get(ctx as QueryCtx, table, [key]);
  return rows[0] ?? null;
}

/**
 * The newest rows that match, the newest first; at most 4,096, or 6 MiB of them.
 *
 * Of `where`, the one most selective column with one value leads to an index; the others are
 * checked on the way, which ends after 8,000 rows, though older ones may match. Threads alone
 * can be had by their last change, messages only with a `prefix`; any other order throws, and so
 * does a column that the table does not have.
 */
export async function newest<Doc>(
  ctx: AnyCtx,
  table: Shape<Doc>,
  { prefix = [], where = {}, orderBy = "created", limit }: Newest,
): Promise<Doc[]> {
  for (const column of Object.keys(where)) {
    // It would be "" in every row, which a filter for rows of nobody's lets through.
    if (!Object.hasOwn(table.doc.fields, column)) throw new Error(`no column ${column}`);
  }
  const order = { orderBy, descending: true, skip: 0, limit };
  const { rows } = await list(ctx as QueryCtx, table, { prefix, fields: where, ...order });
  return rows;
}
