/** `internalQuery` and `internalMutation`, typed by our tables alone, without generated code. */
import {
  internalMutationGeneric,
  internalQueryGeneric,
  type DataModelFromSchemaDefinition,
  type GenericMutationCtx,
  type GenericQueryCtx,
  type MutationBuilder,
  type QueryBuilder,
  type SchemaDefinition,
} from "convex/server";
import type { mastraTables } from "./tables";

type DataModel = DataModelFromSchemaDefinition<SchemaDefinition<typeof mastraTables, true>>;

export type QueryCtx = GenericQueryCtx<DataModel>;
export type MutationCtx = GenericMutationCtx<DataModel>;

/** A query that only holders of the deploy key can call. */
export const internalQuery = internalQueryGeneric as QueryBuilder<DataModel, "internal">;

/** A mutation that only holders of the deploy key can call. */
export const internalMutation = internalMutationGeneric as MutationBuilder<DataModel, "internal">;
