/** Which tables hold rows. */
import type { QueryCtx } from "./builders";
import { Budget } from "./limits";
import { prefixSpan, scan } from "./scanning";
import { documents, shapes, type Key, type Shape } from "./shapes";
import { isVisible, Purges } from "./visibility";

const NAMES = 200;

/** The tables of records with a row in them. */
export async function coreTables(ctx: QueryCtx): Promise<string[]> {
  const names: string[] = [];
  for (const shape of Object.values(shapes)) {
    if (shape !== documents && (await holdsRows(ctx, shape, [], Budget.census()))) {
      names.push(shape.table);
    }
  }
  return names;
}

/** The names of adapters' tables behind `after` with a row in them, and where to go on. */
export async function adapterTables(
  ctx: QueryCtx,
  after?: string,
): Promise<{ names: string[]; next: string | null }> {
  const names: string[] = [];
  const budget = Budget.page();
  for (let name = await nextName(ctx, after); name !== null; name = await nextName(ctx, name)) {
    if (await holdsRows(ctx, documents, [name], budget)) names.push(name);
    if (budget.exhausted || names.length === NAMES) return { names, next: name };
  }
  return { names, next: null };
}

/** Whether there is a row under a prefix; also true when more were hidden than can be read. */
async function holdsRows(
  ctx: QueryCtx,
  shape: Shape<unknown>,
  prefix: Key,
  budget: Budget,
): Promise<boolean> {
  const purges = await Purges.of(ctx.db, shape.table);
  for await (const document of scan(ctx.db, prefixSpan(shape, prefix))) {
    budget.spend(document);
    if (budget.exhausted || isVisible(shape, document, purges)) return true;
  }
  return false;
}

/** The first name of an adapter's table behind `after`. */
async function nextName(ctx: QueryCtx, after?: string): Promise<string | null> {
  const found = await ctx.db
    .query("documents")
    .withIndex("by_key", (range) => (after === undefined ? range : range.gt("table", after)))
    .first();
  return found?.table ?? null;
}
