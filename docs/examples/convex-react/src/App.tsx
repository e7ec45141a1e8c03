import { ConvexProviderWithAuth, ConvexReactClient } from "convex/react";
import { useCallback, useMemo } from "react";
import { Conversations } from "./Conversations";

const convex = new ConvexReactClient("https://cheerful-lemur-123.convex.cloud");

/** Where tokens of your sign-in service come from; its package may bring such a hook along. */
function useAuth() {
  const fetchAccessToken = useCallback(async (): Promise<string | null> => {
    const answer = await fetch("/api/token", { credentials: "same-origin" });
    return answer.ok ? await answer.text() : null;
  }, []);
  return useMemo(
    () => ({ isLoading: false, isAuthenticated: true, fetchAccessToken }),
    [fetchAccessToken],
  );
}

export default function App() {
  return (
    <ConvexProviderWithAuth client={convex} useAuth={useAuth}>
      <Conversations />
    </ConvexProviderWithAuth>
  );
}
