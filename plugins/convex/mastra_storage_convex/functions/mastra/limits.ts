/**
 * How much one function does at most. Convex allows a transaction to read 16 MiB, 32,000
 * documents and 4,096 index ranges and to write 16 MiB; what is left over is for documents that
 * are met after a budget was used up, which are of 1 MiB at most.
 */
import { getDocumentSize, type Value } from "convex/values";

export const MiB = 1 << 20;

/** What one row can be at most, in bytes: a document is of 1 MiB, with what is added to it here. */
export const DOCUMENT_BYTES = MiB - 256;

/** How many rows one call of `list` gives at most. */
export const LIST_ROWS = 4096;

/** How many deletions can be under way in a table. */
export const ACTIVE_PURGES = 100;

/** How much the outcomes of a mutation are, from where on it takes no more calls. */
export const RECEIPT_BYTES = 128 * 1024;

/** The size of a document (or of what is to be one) in bytes, as Convex counts it. */
export function sizeOf(document: object): number {
  return getDocumentSize(document as Record<string, Value>);
}

/** Counts documents and their bytes, until one of both is used up. */
export class Budget {
  constructor(
    private documents: number,
    private bytes: number,
  ) {}

  /** For one page of a listing. */
  static page(): Budget {
    return new Budget(8_000, 6 * MiB);
  }

  /** For counting, where only a number is given back. */
  static count(): Budget {
    return new Budget(16_000, 12 * MiB);
  }

  /** For one step of deleting, where each document is read twice. */
  static purge(): Budget {
    return new Budget(1_000, 4 * MiB);
  }

  /** For finding out which tables hold rows. */
  static census(): Budget {
    return new Budget(4_000, 4 * MiB);
  }

  get exhausted(): boolean {
    return this.documents <= 0 || this.bytes <= 0;
  }

  spend(document: Record<string, unknown>): void {
    this.documents -= 1;
    this.bytes -= sizeOf(document);
  }
}
