/** What a write is made of, as `system:write` takes it. */
import { v, type Infer } from "convex/values";
import {
  evalDoc,
  groupedDocumentDoc,
  messageDoc,
  outcome,
  resourceDoc,
  threadDoc,
  traceDoc,
  workflowRunDoc,
} from "./tables";

const table = v.union(
  v.literal("threads"),
  v.literal("messages"),
  v.literal("workflowRuns"),
  v.literal("traces"),
  v.literal("evals"),
  v.literal("resources"),
  v.literal("documents"),
);

/** `ifVersion`: absent stores always, null only where no row is, text only over that version. */
const put = {
  op: v.literal("put"),
  ifVersion: v.optional(v.union(v.string(), v.null())),
  keepPlace: v.boolean(),
};

const key = v.array(v.string());

const operation = v.union(
  v.object({ ...put, table: v.literal("threads"), doc: threadDoc }),
  v.object({ ...put, table: v.literal("messages"), doc: messageDoc }),
  v.object({ ...put, table: v.literal("workflowRuns"), doc: workflowRunDoc }),
  v.object({ ...put, table: v.literal("traces"), doc: traceDoc }),
  v.object({ ...put, table: v.literal("evals"), doc: evalDoc }),
  v.object({ ...put, table: v.literal("resources"), doc: resourceDoc }),
  v.object({ ...put, table: v.literal("documents"), doc: groupedDocumentDoc }),
  v.object({ op: v.literal("delete"), table, key, ifVersion: v.optional(v.string()) }),
  v.object({ op: v.literal("deletePrefix"), table, prefix: key }),
  v.object({ op: v.literal("touch"), table, key, at: v.int64() }),
);

/**
 * Several calls that waited together: each happens wholly or not at all, whatever the others do.
 * `store` and `number` name them, so that they happen once however often they are sent: a store
 * sends one write after the other, with growing numbers.
 */
export const writeArgs = {
  calls: v.array(v.object({ ops: v.array(operation) })),
  store: v.string(),
  number: v.number(),
};

/** The outcomes of a first part of the calls, at least of one: what fits one transaction. */
export const writeReturns = v.object({ outcomes: v.array(outcome) });

export type Operation = Infer<typeof operation>;
export type Put = Extract<Operation, { op: "put" }>;
export type Delete = Extract<Operation, { op: "delete" }>;
export type DeletePrefix = Extract<Operation, { op: "deletePrefix" }>;
export type Touch = Extract<Operation, { op: "touch" }>;
export type Outcome = Infer<typeof outcome>;
export interface Call {
  readonly ops: readonly Operation[];
}
