import type { AuthConfig } from "convex/server";

/** Whose tokens say who somebody is: your sign-in service, and what it calls this app. */
export default {
  providers: [{ domain: "https://login.example.com", applicationID: "convex" }],
} satisfies AuthConfig;
