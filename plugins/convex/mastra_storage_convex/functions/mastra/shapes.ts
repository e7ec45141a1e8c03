/**
 * What the shared helpers need to know of each table: what keys it, and which index lists it by
 * what. They see its documents as `Stored`, whatever their columns.
 */
import type { GenericId, Infer, Value } from "convex/values";
import {
  documentDoc,
  evalDoc,
  messageDoc,
  resourceDoc,
  threadDoc,
  traceDoc,
  wireRow,
  workflowRunDoc,
} from "./tables";

/** The tables that hold rows. */
export type RowTable =
  "threads" | "messages" | "workflowRuns" | "traces" | "evals" | "resources" | "documents";

/** The parts of a key; in `documents` the name of the adapter's table comes first. */
export type Key = readonly string[];

export type WireRow = Infer<typeof wireRow>;
export type StoredRow = WireRow & { recent: bigint; generation?: number };

/** A document as functions take and give it. */
export interface Wire {
  readonly row: WireRow;
  readonly [column: string]: Value | undefined;
}

/** A document as it is stored. */
export interface Stored extends Wire {
  readonly _id: GenericId<RowTable>;
  readonly row: StoredRow;
}

/** `Doc` is the type of the table's documents on the wire. */
export interface Shape<Doc> {
  readonly table: RowTable;
  readonly doc: { readonly type: Doc; readonly fields: Record<string, unknown> };
  /** The columns of `by_key`. */
  readonly key: readonly string[];
  /** Whether the last of them is an array, of all the parts that are left. */
  readonly open?: true;
  /** The indexed fields of the rows. */
  readonly fields: readonly string[];
  /** The orders that the whole table has an index of: `by_order`, `by_recent`. */
  readonly whole: readonly ("created" | "recent")[];
  /** The columns that lead an index by `order`, and its name; the most selective first. */
  readonly ordered: Readonly<Record<string, string>>;
  /** Those of them that have an index by `recent` too, called `…_recent`. */
  readonly recent: readonly string[];
}

function shape<Doc>(given: Shape<Doc>): Shape<Doc> {
  return given;
}

export const threads = shape({
  table: "threads",
  doc: threadDoc,
  key: ["id"],
  fields: ["resourceId"],
  whole: ["created", "recent"],
  ordered: { resourceId: "by_resource" },
  recent: ["resourceId"],
});

export const messages = shape({
  table: "messages",
  doc: messageDoc,
  key: ["threadId", "id"],
  fields: ["resourceId"],
  whole: [],
  ordered: { threadId: "by_thread" },
  recent: [],
});

export const workflowRuns = shape({
  table: "workflowRuns",
  doc: workflowRunDoc,
  key: ["workflowName", "runId"],
  fields: ["runId", "resourceId", "status"],
  whole: ["created"],
  ordered: {
    runId: "by_run",
    resourceId: "by_resource",
    workflowName: "by_workflow",
    status: "by_status",
  },
  recent: [],
});

export const traces = shape({
  table: "traces",
  doc: traceDoc,
  key: ["id"],
  fields: ["traceId", "name", "scope", "threadId", "runId"],
  whole: ["created"],
  ordered: {
    traceId: "by_trace",
    runId: "by_run",
    threadId: "by_thread",
    name: "by_name",
    scope: "by_scope",
  },
  recent: [],
});

export const evals = shape({
  table: "evals",
  doc: evalDoc,
  key: ["id"],
  fields: ["agentName", "type", "threadId", "runId"],
  whole: ["created"],
  ordered: { runId: "by_run", threadId: "by_thread", agentName: "by_agent", type: "by_type" },
  recent: [],
});

export const resources = shape({
  table: "resources",
  doc: resourceDoc,
  key: ["id"],
  fields: [],
  whole: [],
  ordered: {},
  recent: [],
});

/** Listed by the slot that a query names; the indexed fields are in the column `fields`. */
export const documents = shape({
  table: "documents",
  doc: documentDoc,
  key: ["table", "key"],
  open: true,
  fields: [],
  whole: ["created", "recent"],
  ordered: {},
  recent: [],
});

export const shapes: Readonly<Record<RowTable, Shape<unknown>>> = {
  threads,
  messages,
  workflowRuns,
  traces,
  evals,
  resources,
  documents,
};

/** The key of a document. */
export function keyOf(shape: Shape<unknown>, document: Wire): Key {
  return shape.key.flatMap((column) => document[column] as string | string[]);
}

/** A whole key as the values of the columns of `by_key`; those of missing parts are undefined. */
export function columnsOf(shape: Shape<unknown>, key: Key): (Value | undefined)[] {
  const last = shape.key.length - 1;
  return shape.key.map((_, place) =>
    shape.open && place === last ? key.slice(place) : key[place],
  );
}

export function startsWith(key: Key, prefix: Key): boolean {
  return prefix.length <= key.length && prefix.every((part, place) => part === key[place]);
}

/** The value of an indexed field; empty when the row has none. */
export function fieldOf(shape: Shape<unknown>, document: Wire, field: string): string {
  const held = shape.open ? (document.fields as Record<string, Value>) : document;
  const value = Object.hasOwn(held, field) ? held[field] : undefined;
  return typeof value === "string" ? value : "";
}

/** What is given of a stored document: the columns that its validator names. */
export function wireOf<Doc>(shape: Shape<Doc>, document: Wire): Doc {
  const row = picked(document.row, wireRow.fields);
  return { ...picked(document, shape.doc.fields), row } as Doc;
}

function picked(from: object, names: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(from).filter(([name, value]) => name in names && value !== undefined),
  );
}
