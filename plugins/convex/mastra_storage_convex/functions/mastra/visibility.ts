/** Which stored rows are there: those that have not expired and that no purge covers. */
import type { GenericId } from "convex/values";
import type { QueryCtx } from "./builders";
import { keyOf, startsWith, type Key, type RowTable, type Shape, type Stored } from "./shapes";

/** A deletion under way: all rows under `prefix` that were put before it are gone. */
export interface Purge {
  readonly _id: GenericId<"purges">;
  readonly _creationTime: number;
  readonly prefix: Key;
  readonly generation: number;
  /** When it was last helped on, in milliseconds. */
  readonly resumed?: number;
}

/** The deletions under way in a table. */
export class Purges {
  private constructor(readonly active: readonly Purge[]) {}

  static async of(db: QueryCtx["db"], table: RowTable): Promise<Purges> {
    const active: Purge[] = [];
    const found = db.query("purges").withIndex("by_table", (range) => range.eq("table", table));
    for await (const purge of found) {
      active.push(purge);
    }
    return new Purges(active);
  }

  /** What a row that is put now must be at least, for none of them to hide it. */
  get generation(): number | undefined {
    if (this.active.length === 0) return undefined;
    return Math.max(...this.active.map((purge) => purge.generation));
  }

  hide(key: Key, generation = 0): boolean {
    return this.active.some(
      (purge) => generation < purge.generation && startsWith(key, purge.prefix),
    );
  }
}

/** Whether a stored row is there for readers and writers. */
export function isVisible(shape: Shape<unknown>, document: Stored, purges: Purges): boolean {
  return (
    !isExpired(document.row.expiresAt) &&
    !purges.hide(keyOf(shape, document), document.row.generation)
  );
}

/** Asks for the time only when it matters, since a query that does is cached for less long. */
export function isExpired(expiresAt: bigint | undefined): boolean {
  return expiresAt !== undefined && expiresAt <= now();
}

/** The last microsecond of this millisecond: a row is never there too long. */
export function now(): bigint {
  return BigInt(Date.now()) * 1000n + 999n;
}
