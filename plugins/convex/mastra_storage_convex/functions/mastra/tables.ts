/**
 * The tables: one document a record, one column a member, and an index for each listing.
 *
 * Members of free form (content, metadata, snapshot, …) hold JSON as text, so that any key and
 * any number comes back as it was given; null is JSON's null. Times are ISO 8601 in UTC.
 */
import { defineTable } from "convex/server";
import { v } from "convex/values";

const text = v.string();
const optionalText = v.union(v.string(), v.null());
const json = optionalText;

/** What every document says of its row, on the wire. Times are microseconds since 1970. */
export const wireRow = v.object({
  order: v.int64(),
  seq: v.int64(),
  updated: v.int64(),
  touched: v.optional(v.int64()),
  version: v.string(),
  expiresAt: v.optional(v.int64()),
});

/**
 * The same as it is stored. `recent` is the later of `updated` and `touched`; `generation` says
 * which purges the row was put after (see purging.ts).
 */
const row = wireRow.extend({
  recent: v.int64(),
  generation: v.optional(v.number()),
});

/** A JSON object with what the columns of a record cannot hold. */
const extra = v.optional(v.string());

const threadColumns = {
  id: text,
  resourceId: text,
  title: text,
  metadata: text,
  createdAt: text,
  updatedAt: text,
  extra,
};

const messageColumns = {
  id: text,
  threadId: text,
  role: text,
  content: json,
  type: text,
  resourceId: optionalText,
  metadata: text,
  createdAt: text,
  extra,
};

const workflowRunColumns = {
  runId: text,
  workflowName: text,
  resourceId: optionalText,
  status: optionalText,
  snapshot: json,
  error: json,
  createdAt: text,
  updatedAt: text,
  completedAt: optionalText,
  extra,
};

const traceColumns = {
  id: text,
  traceId: text,
  parentSpanId: optionalText,
  name: text,
  scope: optionalText,
  kind: json,
  status: json,
  threadId: optionalText,
  runId: optionalText,
  rootRunId: optionalText,
  transportId: optionalText,
  attributes: text,
  events: text,
  links: text,
  spans: text,
  spanDurations: text,
  properties: text,
  startedAt: text,
  endedAt: optionalText,
  createdAt: text,
  extra,
};

const evalColumns = {
  id: text,
  agentName: text,
  type: text,
  metricName: optionalText,
  threadId: optionalText,
  runId: optionalText,
  globalRunId: optionalText,
  input: json,
  output: json,
  result: json,
  instructions: json,
  testInfo: json,
  data: text,
  metadata: text,
  createdAt: text,
  extra,
};

const resourceColumns = {
  id: text,
  workingMemory: json,
  metadata: text,
  createdAt: text,
  updatedAt: text,
  extra,
};

/** A row of a table that an adapter registered: the record is JSON, with its indexed fields. */
const documentColumns = {
  table: v.string(),
  key: v.array(v.string()),
  value: v.string(),
  fields: v.record(v.string(), v.string()),
};

/** By what an adapter's rows are listed: the first parts of their key, or the value of a field. */
const group = v.optional(v.array(v.string()));
const groupColumns = {
  group0: group,
  group1: group,
  group2: group,
  group3: group,
  group4: group,
  group5: group,
  group6: group,
  group7: group,
};

/** The documents as functions take and give them. */
export const threadDoc = v.object({ ...threadColumns, row: wireRow });
export const messageDoc = v.object({ ...messageColumns, row: wireRow });
export const workflowRunDoc = v.object({ ...workflowRunColumns, row: wireRow });
export const traceDoc = v.object({ ...traceColumns, row: wireRow });
export const evalDoc = v.object({ ...evalColumns, row: wireRow });
export const resourceDoc = v.object({ ...resourceColumns, row: wireRow });
export const documentDoc = v.object({ ...documentColumns, row: wireRow });
export const groupedDocumentDoc = documentDoc.extend(groupColumns);

/** How a call of `system:write` ended. */
export const outcome = v.union(
  v.object({ status: v.literal("ok") }),
  v.object({
    status: v.union(
      v.literal("conflict"),
      v.literal("missing"),
      v.literal("busy"),
      v.literal("large"),
      v.literal("full"),
    ),
    table: v.string(),
    key: v.array(v.string()),
  }),
);

export const mastraTables = {
  threads: defineTable({ ...threadColumns, row })
    .index("by_key", ["id"])
    .index("by_order", ["row.order", "row.seq", "id"])
    .index("by_recent", ["row.recent", "row.seq", "id"])
    .index("by_resource", ["resourceId", "row.order", "row.seq", "id"])
    .index("by_resource_recent", ["resourceId", "row.recent", "row.seq", "id"])
    .index("by_expiry", ["row.expiresAt"]),

  messages: defineTable({ ...messageColumns, row })
    .index("by_key", ["threadId", "id"])
    .index("by_thread", ["threadId", "row.order", "row.seq", "id"])
    .index("by_expiry", ["row.expiresAt"]),

  workflowRuns: defineTable({ ...workflowRunColumns, row })
    .index("by_key", ["workflowName", "runId"])
    .index("by_order", ["row.order", "row.seq", "workflowName", "runId"])
    .index("by_workflow", ["workflowName", "row.order", "row.seq", "runId"])
    .index("by_run", ["runId", "row.order", "row.seq", "workflowName"])
    .index("by_resource", ["resourceId", "row.order", "row.seq", "workflowName", "runId"])
    .index("by_status", ["status", "row.order", "row.seq", "workflowName", "runId"])
    .index("by_expiry", ["row.expiresAt"]),

  traces: defineTable({ ...traceColumns, row })
    .index("by_key", ["id"])
    .index("by_order", ["row.order", "row.seq", "id"])
    .index("by_trace", ["traceId", "row.order", "row.seq", "id"])
    .index("by_name", ["name", "row.order", "row.seq", "id"])
    .index("by_scope", ["scope", "row.order", "row.seq", "id"])
    .index("by_thread", ["threadId", "row.order", "row.seq", "id"])
    .index("by_run", ["runId", "row.order", "row.seq", "id"])
    .index("by_expiry", ["row.expiresAt"]),

  evals: defineTable({ ...evalColumns, row })
    .index("by_key", ["id"])
    .index("by_order", ["row.order", "row.seq", "id"])
    .index("by_agent", ["agentName", "row.order", "row.seq", "id"])
    .index("by_type", ["type", "row.order", "row.seq", "id"])
    .index("by_thread", ["threadId", "row.order", "row.seq", "id"])
    .index("by_run", ["runId", "row.order", "row.seq", "id"])
    .index("by_expiry", ["row.expiresAt"]),

  resources: defineTable({ ...resourceColumns, row })
    .index("by_key", ["id"])
    .index("by_expiry", ["row.expiresAt"]),

  documents: defineTable({ ...documentColumns, ...groupColumns, row })
    .index("by_key", ["table", "key"])
    .index("by_order", ["table", "row.order", "row.seq", "key"])
    .index("by_recent", ["table", "row.recent", "row.seq", "key"])
    .index("by_group0", ["table", "group0", "row.order", "row.seq", "key"])
    .index("by_group1", ["table", "group1", "row.order", "row.seq", "key"])
    .index("by_group2", ["table", "group2", "row.order", "row.seq", "key"])
    .index("by_group3", ["table", "group3", "row.order", "row.seq", "key"])
    .index("by_group4", ["table", "group4", "row.order", "row.seq", "key"])
    .index("by_group5", ["table", "group5", "row.order", "row.seq", "key"])
    .index("by_group6", ["table", "group6", "row.order", "row.seq", "key"])
    .index("by_group7", ["table", "group7", "row.order", "row.seq", "key"])
    .index("by_expiry", ["row.expiresAt"]),

  /** Deletions under way: what their prefix covers is not there any more. */
  purges: defineTable({
    table: v.string(),
    prefix: v.array(v.string()),
    generation: v.number(),
    resumed: v.optional(v.number()),
  }).index("by_table", ["table"]),

  /** The generation of the last purge, in one document. */
  generations: defineTable({ last: v.number() }),

  /** When expired rows are deleted next, in milliseconds, in one document. */
  sweeps: defineTable({ at: v.number() }),

  /** How the last write of each store ended, for it to happen once. */
  receipts: defineTable({
    store: v.string(),
    number: v.number(),
    outcomes: v.array(outcome),
    at: v.number(),
  }).index("by_store", ["store"]),
};
