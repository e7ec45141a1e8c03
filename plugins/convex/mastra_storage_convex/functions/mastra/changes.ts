/** Changes to rows: what a row becomes, and how that is written. */
import type { MutationCtx } from "./builders";
import { startsWith } from "./shapes";
import type { Key, RowTable, Stored, StoredRow, Wire } from "./shapes";

/** A row by table and key. */
export interface Place {
  readonly table: RowTable;
  readonly key: Key;
}

/** All rows of a table under a prefix. */
export interface Area {
  readonly table: RowTable;
  readonly prefix: Key;
}

/** What becomes of a row: the document it will be, or null. */
export interface Change extends Place {
  readonly document: Wire | null;
  /** Whether only `row` differs from what is stored. */
  readonly isTouch: boolean;
}

/** A name of a row that no other has. */
export function nameOf({ table, key }: Place): string {
  return JSON.stringify([table, ...key]);
}

export function covers(area: Area, place: Place): boolean {
  return area.table === place.table && startsWith(place.key, area.prefix);
}

/** Write a change, over what is stored in its place. */
export async function store(
  ctx: MutationCtx,
  { table, document, isTouch }: Change,
  stored: Stored | null,
  generation: number | undefined,
): Promise<void> {
  const db = ctx.db as unknown as AnyWriter;
  if (!document) {
    if (stored) await db.delete(table, stored._id);
  } else if (stored && isTouch) {
    await db.patch(table, stored._id, { row: rowOf(document, stored.row.generation) });
  } else {
    const columns = { ...document, row: rowOf(document, generation) };
    if (stored) await db.replace(table, stored._id, columns);
    else await db.insert(table, columns);
  }
}

/** The database as it writes documents of any table; their validators are checked when it does. */
interface AnyWriter {
  insert(table: RowTable, document: Wire): Promise<Stored["_id"]>;
  patch(table: RowTable, id: Stored["_id"], change: { row: StoredRow }): Promise<void>;
  replace(table: RowTable, id: Stored["_id"], document: Wire): Promise<void>;
  delete(table: RowTable, id: Stored["_id"]): Promise<void>;
}

function rowOf({ row }: Wire, generation: number | undefined): StoredRow {
  const { touched, updated } = row;
  const recent = touched !== undefined && touched > updated ? touched : updated;
  const stored = { ...row, recent };
  return generation === undefined ? stored : { ...stored, generation };
}
