/** What someone has who keeps tables of their own beside ours. */
import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";
import { mastraTables } from "./mastra/tables";

export default defineSchema({
  ...mastraTables,
  members: defineTable({ token: v.string(), resourceId: v.string() }).index("by_token", ["token"]),
});
