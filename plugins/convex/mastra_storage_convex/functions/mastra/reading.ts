/** Reading rows by their keys. */
import { v } from "convex/values";
import type { QueryCtx } from "./builders";
import { MiB, sizeOf } from "./limits";
import { find } from "./scanning";
import { wireOf, type Key, type Shape } from "./shapes";
import { isVisible, Purges } from "./visibility";

// How many keys are looked up (a client sends no more), how many bytes of rows given (but for the
// last), and read at most.
const KEYS = 1_000;
const BYTES = 6 * MiB;
const READ_BYTES = 15 * MiB;

/** The keys of the rows wanted. */
export const getArgs = { keys: v.array(v.array(v.string())) };

/** The rows of a first part of the keys, at least of one; null for a row that is not there. */
export function getReturns<Doc extends Parameters<typeof v.array>[0]>(doc: Doc) {
  return v.object({ rows: v.array(v.union(doc, v.null())) });
}

/** The rows with these keys, in their order, as many as can be read at once. */
export async function get<Doc>(
  ctx: QueryCtx,
  shape: Shape<Doc>,
  keys: readonly Key[],
): Promise<{ rows: (Doc | null)[] }> {
  const purges = await Purges.of(ctx.db, shape.table);
  const rows: (Doc | null)[] = [];
  let bytes = 0;
  while (rows.length < Math.min(keys.length, KEYS) && bytes < BYTES) {
    const together = Math.floor((READ_BYTES - bytes) / MiB); // each may be of 1 MiB
    const part = keys.slice(rows.length, rows.length + together);
    for (const found of await Promise.all(part.map((key) => find(ctx.db, shape, key)))) {
      bytes += found ? sizeOf(found) : 0;
      rows.push(found && isVisible(shape, found, purges) ? wireOf(shape, found) : null);
    }
  }
  return { rows };
}
