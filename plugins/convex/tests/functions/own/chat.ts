/** A public query of one's own over our tables, with one's own check of who asks. */
import { queryGeneric, type DataModelFromSchemaDefinition, type QueryBuilder } from "convex/server";
import { v } from "convex/values";
import type schema from "./schema";

const query = queryGeneric as QueryBuilder<DataModelFromSchemaDefinition<typeof schema>, "public">;

export const latest = query({
  args: { threadId: v.string() },
  returns: v.array(v.object({ role: v.string(), content: v.union(v.string(), v.null()) })),
  handler: async (ctx, { threadId }) => {
    const identity = await ctx.auth.getUserIdentity();
    const thread = await ctx.db
      .query("threads")
      .withIndex("by_key", (range) => range.eq("id", threadId))
      .first();
    const member = await ctx.db
      .query("members")
      .withIndex("by_token", (range) => range.eq("token", identity?.tokenIdentifier ?? ""))
      .first();
    if (!thread || thread.resourceId !== member?.resourceId) return [];
    const messages = await ctx.db
      .query("messages")
      .withIndex("by_thread", (range) => range.eq("threadId", threadId))
      .order("desc")
      .take(20);
    return messages.map(({ role, content }) => ({ role, content }));
  },
});
