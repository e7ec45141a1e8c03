import { Authenticated, Unauthenticated, useQuery } from "convex/react";
import { useState } from "react";
import { api } from "../convex/_generated/api";

/** The user's conversations. They change by themselves while the agent works. */
export function Conversations() {
  return (
    <>
      <Unauthenticated>Sign in to see your conversations.</Unauthenticated>
      <Authenticated>
        <Threads />
      </Authenticated>
    </>
  );
}

function Threads() {
  const threads = useQuery(api.conversations.threads);
  const [chosen, choose] = useState<string>();
  if (threads === undefined) return <p>Loading…</p>;
  if (threads.length === 0) return <p>No conversation yet.</p>;
  return (
    <>
      <nav>
        {threads.map(({ id, title }) => (
          <button key={id} onClick={() => choose(id)} disabled={id === chosen}>
            {title || id}
          </button>
        ))}
      </nav>
      {chosen !== undefined && <Messages key={chosen} threadId={chosen} />}
    </>
  );
}

function Messages({ threadId }: { threadId: string }) {
  const messages = useQuery(api.conversations.messages, { threadId });
  if (messages === undefined) return <p>Loading…</p>;
  return (
    <ol>
      {messages.map(({ id, role, text, createdAt }) => (
        <li key={id}>
          <strong>{role}</strong> <time dateTime={createdAt}>{when(createdAt)}</time>
          <p>{text}</p>
        </li>
      ))}
    </ol>
  );
}

function when(time: string): string {
  return new Date(time).toLocaleTimeString();
}
