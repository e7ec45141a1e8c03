/** Listing and counting rows, a bounded part at a time, on the index that suits a query best. */
import { v, type Infer, type Value } from "convex/values";
import type { QueryCtx } from "./builders";
import { Budget, LIST_ROWS } from "./limits";
import { prefixSpan, scan, type Span } from "./scanning";
import { columnsOf, fieldOf, keyOf, startsWith, wireOf } from "./shapes";
import type { Key, Shape, Stored } from "./shapes";
import { isVisible, Purges } from "./visibility";

/** A place in the order of a listing; `order` is that of `orderBy`. */
export const position = v.object({ order: v.int64(), seq: v.int64(), key: v.array(v.string()) });
export type Position = Infer<typeof position>;

/** A filter by an indexed field: the values it may have, "" for rows without the field. */
export const values = v.optional(v.array(v.string()));

/** Which rows are counted: both ends of the time belong to it. */
export const countArgs = {
  prefix: v.array(v.string()),
  since: v.optional(v.int64()),
  until: v.optional(v.int64()),
  after: v.optional(position),
};

/** Which rows are listed, in which order, and how many of them. */
export const listArgs = {
  ...countArgs,
  orderBy: v.union(v.literal("created"), v.literal("recent"), v.literal("any")),
  descending: v.boolean(),
  skip: v.number(),
  limit: v.number(),
};

/** `next` is where to go on, null when nothing is left; `skipped` how many `skip` took. */
export function listReturns<Doc extends Parameters<typeof v.array>[0]>(doc: Doc) {
  return v.object({
    rows: v.array(doc),
    skipped: v.number(),
    next: v.union(position, v.null()),
  });
}

/** Counts add up until `next` is null. */
export const countReturns = v.object({ count: v.number(), next: v.union(position, v.null()) });

/** Which rows: those under `prefix` whose fields have one of the values given for them. */
interface Selection {
  readonly prefix: Key;
  readonly since?: bigint | undefined;
  readonly until?: bigint | undefined;
  readonly after?: Position | undefined;
  readonly fields: Readonly<Record<string, readonly string[] | undefined>>;
  /** Of `documents`: which of the groups to list by, and the group. */
  readonly slot?: { readonly index: number; readonly group: string[] } | undefined;
}

interface Listing extends Selection {
  readonly orderBy: "created" | "recent" | "any";
  readonly descending: boolean;
  readonly skip: number;
  readonly limit: number;
}

interface Listed<Doc> {
  rows: Doc[];
  skipped: number;
  next: Position | null;
}

/** The rows that match, as many as were asked for and as can be read at once. */
export async function list<Doc>(
  ctx: QueryCtx,
  shape: Shape<Doc>,
  query: Listing,
): Promise<Listed<Doc>> {
  const limit = Math.min(query.limit, LIST_ROWS);
  const rows: Doc[] = [];
  let skipped = 0;
  if (limit <= 0) return { rows, skipped, next: null };
  let last: Position | null = null; // the place of the last row given
  const budget = Budget.page();
  for await (const { document, isMatch } of walk(ctx, shape, query, planned(shape, query))) {
    budget.spend(document);
    if (isMatch && skipped < query.skip) {
      skipped += 1;
    } else if (isMatch) {
      if (rows.length === limit) return { rows, skipped, next: last };
      rows.push(wireOf(shape, document));
      last = placeOf(shape, document, query.orderBy);
    }
    const isLast = isMatch && rows.length === limit;
    if (budget.exhausted && !isLast) {
      // Behind the last row given this place says that nothing was found as far as to here.
      return { rows, skipped, next: placeOf(shape, document, query.orderBy) };
    }
  }
  return { rows, skipped, next: null };
}

/** How many rows match, of those that can be read at once. */
export async function count(
  ctx: QueryCtx,
  shape: Shape<unknown>,
  selection: Selection,
): Promise<{ count: number; next: Position | null }> {
  const budget = Budget.count();
  let found = 0;
  const span = cheapest(shape, selection);
  for await (const { document, isMatch } of walk(ctx, shape, selection, span)) {
    budget.spend(document);
    if (isMatch) found += 1;
    if (budget.exhausted) {
      return { count: found, next: placeOf(shape, document, "created") };
    }
  }
  return { count: found, next: null };
}

interface Step {
  readonly document: Stored;
  /** Whether the row is there, and one of those asked for. */
  readonly isMatch: boolean;
}

async function* walk(
  ctx: QueryCtx,
  shape: Shape<unknown>,
  selection: Selection,
  span: Span,
): AsyncGenerator<Step, void, void> {
  const purges = await Purges.of(ctx.db, shape.table);
  const filters = Object.entries(selection.fields).map(
    ([field, allowed]) => [field, allowed && new Set(allowed)] as const,
  );
  for await (const document of scan(ctx.db, span)) {
    const { order } = document.row;
    const isMatch =
      (selection.since === undefined || order >= selection.since) &&
      (selection.until === undefined || order <= selection.until) &&
      startsWith(keyOf(shape, document), selection.prefix) &&
      filters.every(([field, allowed]) => allowed?.has(fieldOf(shape, document, field)) ?? true) &&
      isVisible(shape, document, purges);
    yield { document, isMatch };
  }
}

function placeOf(
  shape: Shape<unknown>,
  document: Stored,
  orderBy: Listing["orderBy"],
): Position {
  const { order, recent, seq } = document.row;
  return {
    order: orderBy === "recent" ? recent : order,
    seq,
    key: [...keyOf(shape, document)],
  };
}

/** The best index for a listing, and what to walk of it. */
function planned(shape: Shape<unknown>, query: Listing): Span {
  const { orderBy, descending, prefix, after } = query;
  const isOne = !shape.open && prefix.length === shape.key.length && !after;
  if (orderBy === "any" || isOne) {
    return prefixSpan(shape, prefix, after?.key, descending);
  }
  const span = ordered(shape, query);
  if (!span) {
    throw new Error(
      `no index has these rows of ${shape.table} in the order "${orderBy}": only threads are ` +
        "listed by their last change, messages under one threadId, resources by their keys",
    );
  }
  return span;
}

/** What to walk of the index that has the order of a listing; null where none has. */
function ordered(shape: Shape<unknown>, query: Listing): Span | null {
  const { orderBy, descending, after } = query;
  const isRecent = orderBy === "recent";
  const lead = leading(shape, query, isRecent);
  if (!lead) return null;
  const { index, equal } = lead;
  const fixed = new Set(equal.map(([column]) => column));
  const tail = shape.key.filter((column) => !fixed.has(column));
  return {
    table: shape.table,
    index,
    equal,
    sort: [isRecent ? "row.recent" : "row.order", "row.seq", ...tail],
    low: isRecent ? undefined : bound(query.since),
    high: isRecent ? undefined : bound(query.until),
    after: after && [after.order, after.seq, ...tailOf(shape, after.key, fixed)],
    descending,
  };
}

/** For counting any order does; by key when no ordered index is as narrow. */
function cheapest(shape: Shape<unknown>, selection: Selection): Span {
  const order = { ...selection, descending: false, skip: 0, limit: 0 };
  const span = ordered(shape, { ...order, orderBy: "created" });
  const byKey = prefixSpan(shape, selection.prefix, selection.after?.key);
  if (!span) return byKey;
  const isNarrower = byKey.equal.length > span.equal.length || byKey.low !== undefined;
  return isNarrower && selection.slot === undefined ? byKey : span;
}

interface Leading {
  readonly index: string;
  readonly equal: [column: string, value: Value][];
}

/** The index that lists what a query is about, with the values of its first columns. */
function leading(shape: Shape<unknown>, query: Listing, isRecent: boolean): Leading | null {
  const suffix = isRecent ? "_recent" : "";
  const whole = isRecent ? "by_recent" : "by_order";
  const { slot, prefix } = query;
  if (shape.open) {
    const equal: Leading["equal"] = [["table", prefix[0] ?? ""]];
    if (!slot || isRecent) return { index: whole, equal };
    equal.push([`group${slot.index}`, slot.group]);
    return { index: `by_group${slot.index}`, equal };
  }
  for (const [column, index] of Object.entries(shape.ordered)) {
    const value = prefix[shape.key.indexOf(column)] ?? single(query.fields[column]);
    if (value !== undefined && (!isRecent || shape.recent.includes(column))) {
      return { index: `${index}${suffix}`, equal: [[column, value]] };
    }
  }
  return shape.whole.includes(isRecent ? "recent" : "created") ? { index: whole, equal: [] } : null;
}

/** The one value that a field may have; "" stands for several, and so does not count. */
function single(allowed: readonly string[] | undefined): string | undefined {
  return allowed?.length === 1 && allowed[0] !== "" ? allowed[0] : undefined;
}

function bound(value: bigint | undefined): { value: bigint; inclusive: true } | undefined {
  return value === undefined ? undefined : { value, inclusive: true };
}

function tailOf(
  shape: Shape<unknown>,
  key: Key,
  fixed: ReadonlySet<string>,
): (Value | undefined)[] {
  const columns = columnsOf(shape, key);
  return columns.filter((_, place) => !fixed.has(shape.key[place] ?? ""));
}
