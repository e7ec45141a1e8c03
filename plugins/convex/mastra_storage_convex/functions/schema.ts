/**
 * The tables of mastra-storage. To keep your own tables beside them, merge:
 *
 *     export default defineSchema({ ...mastraTables, users: defineTable({ … }) });
 */
import { defineSchema } from "convex/server";
import { mastraTables } from "./mastra/tables";

export default defineSchema(mastraTables);
