/** What a page may see of the agent's storage: the conversations of whoever is signed in. */
import { v } from "convex/values";
import { query, type QueryCtx } from "./_generated/server";
import * as mastra from "./mastra/queries";

/** The resource id under which the agent saves this user's threads, or null for nobody. */
async function caller(ctx: QueryCtx): Promise<string | null> {
  const identity = await ctx.auth.getUserIdentity();
  return identity === null ? null : identity.subject;
}

/** The caller's newest conversations, the one that changed last first. */
export const threads = query({
  args: {},
  returns: v.array(v.object({ id: v.string(), title: v.string() })),
  handler: async (ctx) => {
    const user = await caller(ctx);
    if (user === null) return [];
    const where = { resourceId: [user] };
    const found = await mastra.newest(ctx, mastra.threads, { where, orderBy: "recent", limit: 20 });
    return found.map(({ id, title }) => ({ id, title }));
  },
});

/** The newest messages of one of the caller's conversations, the oldest of them first. */
export const messages = query({
  args: { threadId: v.string() },
  returns: v.array(
    v.object({ id: v.string(), role: v.string(), text: v.string(), createdAt: v.string() }),
  ),
  handler: async (ctx, { threadId }) => {
    const user = await caller(ctx);
    if (user === null) return [];
    const thread = await mastra.find(ctx, mastra.threads, [threadId]);
    if (thread?.resourceId !== user) return [];
    const found = await mastra.newest(ctx, mastra.messages, {
      prefix: [threadId],
      where: { resourceId: ["", user] }, // "": the message itself names nobody
      limit: 50,
    });
    return found
      .reverse()
      .map(({ id, role, content, createdAt }) => ({ id, role, text: textOf(content), createdAt }));
  },
});

/** The text of a content, which is JSON in a column of text: a string, or a list of parts. */
function textOf(content: string | null): string {
  const value: unknown = content === null ? "" : JSON.parse(content);
  if (typeof value === "string") return value;
  const parts: unknown[] = Array.isArray(value) ? value : [];
  return parts
    .map((part) => (isTextPart(part) ? part.text : ""))
    .filter((text) => text !== "")
    .join("\n");
}

function isTextPart(part: unknown): part is { text: string } {
  return (
    typeof part === "object" && part !== null && "text" in part && typeof part.text === "string"
  );
}
