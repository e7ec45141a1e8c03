/** Carrying out the calls of `system:write`, with an outcome each. */
import type { MutationCtx } from "./builders";
import type { Place } from "./changes";
import { Draft, Layer, Refusal } from "./draft";
import { RECEIPT_BYTES, sizeOf } from "./limits";
import type { Call, Delete, Operation, Outcome, Put, Touch } from "./operations";
import { keyOf, shapes, type Wire, type WireRow } from "./shapes";

const OK: Outcome = { status: "ok" };

/** The outcomes of a first part of the calls, at least of one. */
export async function carryOut(ctx: MutationCtx, calls: readonly Call[]): Promise<Outcome[]> {
  const draft = new Draft(ctx);
  await draft.load(calls.flatMap(placesOf));
  const outcomes: Outcome[] = [];
  let size = 0;
  for (const call of calls) {
    const outcome = size < RECEIPT_BYTES ? await tried(draft, call) : null;
    if (!outcome) break;
    outcomes.push(outcome);
    size += sizeOf(outcome);
  }
  if (outcomes.length === 0) outcomes.push(...calls.slice(0, 1).map(tooMuch));
  await draft.flush();
  return outcomes;
}

/** Carry out one call, or nothing of it. Null when this transaction has no room for it. */
async function tried(draft: Draft, call: Call): Promise<Outcome | null> {
  if (!placesOf(call).every((place) => draft.isLoaded(place))) return null;
  const layer = new Layer(draft);
  try {
    for (const op of call.ops) {
      await apply(layer, op);
    }
  } catch (error) {
    if (error instanceof Refusal) return refused(error);
    throw error;
  }
  return draft.accept(layer) ? OK : null;
}

/** For a call that has no room even in a transaction of its own. */
function tooMuch({ ops }: Call): Outcome {
  const [op] = ops;
  return op ? refused(new Refusal("full", placeOf(op))) : OK;
}

function refused({ status, place }: Refusal): Outcome {
  return { status, table: place.table, key: [...place.key] };
}

/** The rows that a call has to do with, but for those under prefixes. */
function placesOf(call: Call): Place[] {
  return call.ops.filter((op) => op.op !== "deletePrefix").map(placeOf);
}

function placeOf(op: Operation): Place {
  if (op.op === "put") return { table: op.table, key: keyOf(shapes[op.table], op.doc) };
  return { table: op.table, key: op.op === "deletePrefix" ? op.prefix : op.key };
}

async function apply(layer: Layer, op: Operation): Promise<void> {
  switch (op.op) {
    case "put":
      put(layer, op);
      break;
    case "touch":
      touch(layer, op);
      break;
    case "delete":
      remove(layer, op);
      break;
    case "deletePrefix":
      await layer.drop(op);
      break;
  }
}

/** A row keeps its place among others of one order, and is never less touched than before. */
function put(layer: Layer, op: Put): void {
  const place = placeOf(op);
  const document: Wire = op.doc;
  const old = layer.read(place);
  if (op.ifVersion !== undefined) {
    if (old?.row.version === document.row.version) return; // this very write, repeated
    if ((old?.row.version ?? null) !== op.ifVersion) throw new Refusal("conflict", place);
  }
  layer.put(place, old ? { ...document, row: rowOver(old.row, document.row, op) } : document);
}

function rowOver(old: WireRow, given: WireRow, { keepPlace }: Put): WireRow {
  const row = { ...given };
  if (old.touched !== undefined && (row.touched === undefined || row.touched < old.touched)) {
    row.touched = old.touched;
  }
  if (keepPlace && row.order === old.order) row.seq = old.seq;
  return row;
}

function touch(layer: Layer, op: Touch): void {
  const place = placeOf(op);
  const old = layer.read(place);
  if (!old) throw new Refusal("missing", place);
  if (old.row.touched !== undefined && old.row.touched >= op.at) return;
  layer.touch(place, { ...old, row: { ...old.row, touched: op.at } });
}

function remove(layer: Layer, op: Delete): void {
  const place = placeOf(op);
  const old = layer.read(place);
  if (op.ifVersion !== undefined && old?.row.version !== op.ifVersion) {
    throw new Refusal("conflict", place);
  }
  layer.delete(place);
}
