/** What these functions are, for a client to check before it uses them. */

/** Changes with each release in which arguments, answers or tables do; clients have the same. */
export const PROTOCOL = 1;

/** The release of mastra-storage-convex that these functions came with. */
export const VERSION = "0.1.0";
