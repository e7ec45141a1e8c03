/** Walking an index, from a position on, with as few documents read as the index allows. */
import { compareValues, type Value } from "convex/values";
import type { QueryCtx } from "./builders";
import { columnsOf, type Key, type RowTable, type Shape, type Stored } from "./shapes";

type Columns = readonly (readonly [column: string, value: Value | undefined])[];

interface Bound {
  readonly value: Value | undefined;
  readonly inclusive: boolean;
}

/** A part of an index: equal in some columns, and between two values of the next. */
interface Slice {
  readonly equal: Columns;
  readonly column: string | undefined;
  readonly low?: Bound | undefined;
  readonly high?: Bound | undefined;
}

/** What is walked: a part of an index, and there only what is behind a place. */
export interface Span {
  readonly table: RowTable;
  readonly index: string;
  /** The first columns of the index, and the values they have. */
  readonly equal: Columns;
  /** The columns that follow in the index. */
  readonly sort: readonly string[];
  /** The ends of the first column of `sort`. */
  readonly low?: Bound | undefined;
  readonly high?: Bound | undefined;
  /** The values of `sort` behind which the walk begins. */
  readonly after?: readonly (Value | undefined)[] | undefined;
  readonly descending: boolean;
}

/** The documents of a span, in its order; reading stops where the caller stops. */
export async function* scan(db: QueryCtx["db"], span: Span): AsyncGenerator<Stored, void, void> {
  for (const slice of slices(span)) {
    yield* documentsOf(db, span, slice);
  }
}

/** The one document with a key, or null. */
export async function find(
  db: QueryCtx["db"],
  shape: Shape<unknown>,
  key: Key,
): Promise<Stored | null> {
  const values = columnsOf(shape, key);
  const equal = shape.key.map((column, place) => [column, values[place]] as const);
  const span: Span = {
    table: shape.table,
    index: "by_key",
    equal,
    sort: [],
    descending: false,
  };
  for await (const document of scan(db, span)) {
    return document;
  }
  return null;
}

/** All rows whose key starts with a prefix, in the order of their keys. */
export function prefixSpan(
  shape: Shape<unknown>,
  prefix: Key,
  after?: Key,
  descending = false,
): Span {
  const [first, ...rest] = prefix;
  const fixed = shape.open ? (first === undefined ? 0 : 1) : prefix.length;
  const bounds = shape.open ? within(rest) : {};
  return {
    table: shape.table,
    index: "by_key",
    equal: shape.key.slice(0, fixed).map((column, place) => [column, prefix[place]] as const),
    sort: shape.key.slice(fixed),
    ...bounds,
    after: after && columnsOf(shape, after).slice(fixed),
    descending,
  };
}

/** Between what are all arrays that start with `prefix`: up to its last part, just made greater. */
function within(prefix: Key): { low?: Bound; high?: Bound } {
  const last = prefix.at(-1);
  if (last === undefined) return {};
  return {
    low: { value: [...prefix], inclusive: true },
    high: { value: [...prefix.slice(0, -1), `${last}\0`], inclusive: false },
  };
}

/** An index gives one range at a time: behind (a, b, c) is (a, b, >c), then (a, >b), then (>a). */
function* slices({ equal, sort, low, high, after, descending }: Span): Generator<Slice> {
  if (low && high && compareValues(low.value, high.value) > 0) return;
  const start = after?.[0];
  if (!after || isBefore(start, low, high, descending)) {
    yield { equal, column: sort[0], low, high };
    return;
  }
  if (isBefore(start, low, high, !descending)) return;
  for (let depth = after.length - 1; depth >= 0; depth--) {
    const reached = sort.slice(0, depth).map((column, place) => [column, after[place]] as const);
    const edge: Bound = { value: after[depth], inclusive: false };
    yield {
      equal: [...equal, ...reached],
      column: sort[depth],
      low: descending ? (depth === 0 ? low : undefined) : edge,
      high: descending ? edge : depth === 0 ? high : undefined,
    };
  }
}

/** Whether a walk comes upon `value` before it comes to what is between the bounds. */
function isBefore(
  value: Value | undefined,
  low: Bound | undefined,
  high: Bound | undefined,
  descending: boolean,
): boolean {
  const bound = descending ? high : low;
  if (!bound) return false;
  const order = compareValues(value, bound.value) * (descending ? -1 : 1);
  return order < 0 || (order === 0 && !bound.inclusive);
}

/** Convex types a range by the names of its index; here they are known only when it runs. */
interface Range {
  eq(column: string, value: Value | undefined): Range;
  gt(column: string, value: Value | undefined): Range;
  gte(column: string, value: Value | undefined): Range;
  lt(column: string, value: Value | undefined): Range;
  lte(column: string, value: Value | undefined): Range;
}

interface AnyTable {
  query(table: RowTable): {
    withIndex(
      index: string,
      range: (from: Range) => Range,
    ): { order(order: "asc" | "desc"): AsyncIterable<Stored> };
  };
}

function documentsOf(db: QueryCtx["db"], span: Span, slice: Slice): AsyncIterable<Stored> {
  return (db as unknown as AnyTable)
    .query(span.table)
    .withIndex(span.index, (range) => narrowed(range, slice))
    .order(span.descending ? "desc" : "asc");
}

function narrowed(range: Range, { equal, column, low, high }: Slice): Range {
  for (const [name, value] of equal) {
    range = range.eq(name, value);
  }
  if (column !== undefined && low) {
    range = low.inclusive ? range.gte(column, low.value) : range.gt(column, low.value);
  }
  if (column !== undefined && high) {
    range = high.inclusive ? range.lte(column, high.value) : range.lt(column, high.value);
  }
  return range;
}
