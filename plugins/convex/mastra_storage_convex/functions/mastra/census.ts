/** Which tables hold rows. */
import type { QueryCtx } from "./builders";
import { Budget } from "./limits";
import { prefixSpan, scan } from "./scanning";
import { documents, shapes, type Key, type Shape } from "./shapes";
import { isVisible, Purges } from "./visibility";

// How many names are looked up by one call, each by two ranges of an index.
const STEPS = 500;

/** The tables of records with a row in them. */
export async function coreTables(ctx: QueryCtx): Promise<string[]> {
  const names: string[] = [];
  const budget = Budget.census();
  for (const shape of Object.values(shapes)) {
    if (shape === documents) continue;
    const purges = await Purges.of(ctx.db, shape.table);
    if (await holdsRows(ctx, shape, [], purges, budget)) names.push(shape.table);
  }
  return names;
}

/** The names of adapters' tables behind `after` with a row in them, and where to go on. */
export async function adapterTables(
  ctx: QueryCtx,
  after?: string,
): Promise<{ names: string[]; next: string | null }> {
  const names: string[] = [];
  const budget = Budget.census();
  const purges = await Purges.of(ctx.db, "documents");
  for (let step = 0; step < STEPS; step++) {
    const first = await firstBehind(ctx, after);
    if (!first) return { names, next: null };
    budget.spend(first);
    after = first.table;
    if (await holdsRows(ctx, documents, [after], purges, budget)) names.push(after);
    if (budget.exhausted) break;
  }
  return { names, next: after ?? null };
}

/** Whether there is a row under a prefix; also true when more were hidden than can be read. */
async function holdsRows(
  ctx: QueryCtx,
  shape: Shape<unknown>,
  prefix: Key,
  purges: Purges,
  budget: Budget,
): Promise<boolean> {
  for await (const document of scan(ctx.db, prefixSpan(shape, prefix))) {
    budget.spend(document);
    if (budget.exhausted || isVisible(shape, document, purges)) return true;
  }
  return false;
}

/** The first document of the first adapter's table whose name is behind `after`. */
function firstBehind(ctx: QueryCtx, after?: string) {
  return ctx.db
    .query("documents")
    .withIndex("by_key", (range) => (after === undefined ? range : range.gt("table", after)))
    .first();
}
