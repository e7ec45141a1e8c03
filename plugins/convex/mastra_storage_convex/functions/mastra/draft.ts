/**
 * The rows that a mutation has to do with: as they are stored, and what becomes of them.
 *
 * Rows are read once, changed in memory, and written once at the end. Each call works on a
 * `Layer` of its own, which is kept when the call succeeds and forgotten when it does not.
 */
import type { MutationCtx } from "./builders";
import { covers, nameOf, store, type Area, type Change, type Place } from "./changes";
import { ACTIVE_PURGES, DOCUMENT_BYTES, MiB, sizeOf } from "./limits";
import { nextGeneration, resumePurges, scheduleSweep, startPurge } from "./purging";
import { find, prefixSpan, scan } from "./scanning";
import { keyOf, shapes, type RowTable, type Stored, type Wire } from "./shapes";
import { isVisible, Purges } from "./visibility";

// What a mutation may read, and write; a document that is changed is read twice.
const RANGES = 4_050;
const BYTES = 15.5 * MiB;
// How much is read ahead of the calls, and how many rows at once while they are not small.
const LOADED_BYTES = 7 * MiB;
const FEW = 4;
const SMALL_BYTES = 64 * 1024;
// How much is deleted by the mutation itself.
const DROPPED_DOCUMENTS = 1_000;
const DROPPED_BYTES = 4 * MiB;

interface Found extends Place {
  /** What is in the table, there or hidden. */
  readonly document: Stored | null;
  readonly isVisible: boolean;
}

/** A call cannot happen; when a transaction is `full`, not in this one. */
export class Refusal extends Error {
  constructor(
    readonly status: "conflict" | "missing" | "busy" | "large" | "full",
    readonly place: Place,
  ) {
    super(status);
  }
}

/** What one call makes of the rows. */
export class Layer {
  readonly changes = new Map<string, Change>();
  readonly dropped: Area[] = [];

  constructor(private readonly draft: Draft) {}

  /** The row as this call finds it. */
  read(place: Place): Wire | null {
    const name = nameOf(place);
    const change = this.changes.get(name);
    if (change) return change.document;
    return this.dropped.some((area) => covers(area, place)) ? null : this.draft.read(place);
  }

  put(place: Place, document: Wire): void {
    if (sizeOf(document) > DOCUMENT_BYTES) throw new Refusal("large", place);
    this.changes.set(nameOf(place), { ...place, document, isTouch: false });
  }

  touch(place: Place, document: Wire): void {
    const before = this.changes.get(nameOf(place)) ?? this.draft.changes.get(nameOf(place));
    const isTouch = before?.isTouch ?? true;
    this.changes.set(nameOf(place), { ...place, document, isTouch });
  }

  delete(place: Place): void {
    this.changes.set(nameOf(place), { ...place, document: null, isTouch: false });
  }

  /** Delete all rows of an area: one by one when they are few, else by a purge. */
  async drop(area: Area): Promise<void> {
    for (const change of [...this.draft.changes.values(), ...this.changes.values()]) {
      if (covers(area, change)) this.delete(change);
    }
    const stored = await this.draft.below(area);
    if (stored) {
      for (const place of stored) this.delete(place);
    } else {
      await this.checkPurges(area);
      this.dropped.push(area);
    }
  }

  /** Refuse one more purge of a table when there are too many, for a while or in this call. */
  private async checkPurges({ table, prefix }: Area): Promise<void> {
    const among = (areas: readonly Area[]) => areas.filter((area) => area.table === table).length;
    const { active } = await this.draft.purgesOf(table);
    const own = among(this.dropped);
    this.draft.purged.add(table);
    if (active.length + among(this.draft.dropped) + own >= ACTIVE_PURGES) {
      throw new Refusal(own < ACTIVE_PURGES ? "busy" : "full", { table, key: prefix });
    }
  }
}

export class Draft {
  readonly changes = new Map<string, Change>();
  readonly dropped: Area[] = [];
  /** The tables in which a purge was to begin. */
  readonly purged = new Set<RowTable>();
  private readonly found = new Map<string, Found>();
  private readonly purges = new Map<RowTable, Promise<Purges>>();
  private ranges = 0;
  private bytesRead = 0;
  private bytesWritten = 0;
  private droppable = DROPPED_DOCUMENTS;

  constructor(private readonly ctx: MutationCtx) {}

  /** Read rows, those of a first part of the places: as many as leave room to change them. */
  async load(places: Place[]): Promise<void> {
    const wanted = [...new Map(places.map((place) => [nameOf(place), place])).values()];
    while (wanted.length > 0 && this.bytesRead < LOADED_BYTES && this.ranges < RANGES) {
      await Promise.all(wanted.splice(0, this.together()).map((place) => this.loadOne(place)));
    }
  }

  /** How many rows to read at once; few, where what was read would be too large to be changed. */
  private together(): number {
    const areSmall = this.bytesRead < this.found.size * SMALL_BYTES;
    return areSmall ? Math.floor((BYTES - this.bytesRead) / MiB) : FEW; // each may be of 1 MiB
  }

  private async loadOne(place: Place): Promise<void> {
    const purges = await this.purgesOf(place.table);
    const shape = shapes[place.table];
    this.ranges += 1;
    this.keep(place, await find(this.ctx.db, shape, place.key), purges);
  }

  private keep(place: Place, document: Stored | null, purges: Purges): void {
    this.bytesRead += bytesOf(document);
    this.found.set(nameOf(place), {
      ...place,
      document,
      isVisible: document !== null && isVisible(shapes[place.table], document, purges),
    });
  }

  isLoaded(place: Place): boolean {
    return this.found.has(nameOf(place));
  }

  /** The row as it was before this mutation. */
  stored(place: Place): Wire | null {
    const found = this.found.get(nameOf(place));
    return found?.isVisible ? found.document : null;
  }

  /** The row as the calls so far have left it. */
  read(place: Place): Wire | null {
    const change = this.changes.get(nameOf(place));
    if (change) return change.document;
    return this.dropped.some((area) => covers(area, place)) ? null : this.stored(place);
  }

  purgesOf(table: RowTable): Promise<Purges> {
    let purges = this.purges.get(table);
    if (!purges) {
      purges = Purges.of(this.ctx.db, table);
      this.ranges += 1;
      this.purges.set(table, purges);
    }
    return purges;
  }

  /** The places of all stored rows of an area; null when they are too many to delete at once. */
  async below(area: Area): Promise<Place[] | null> {
    const purges = await this.purgesOf(area.table);
    const shape = shapes[area.table];
    const places: Place[] = [];
    // What was read may still be changed, for which Convex reads it again.
    const rows = Math.min(this.droppable, RANGES - this.ranges - this.found.size);
    const bytes = Math.min(this.bytesRead + DROPPED_BYTES, BYTES / 2 - MiB);
    if (this.bytesRead > bytes || this.ranges >= RANGES) return null;
    this.ranges += 1;
    for await (const document of scan(this.ctx.db, prefixSpan(shape, area.prefix))) {
      const place = { table: area.table, key: keyOf(shape, document) };
      this.keep(place, document, purges);
      if (places.length >= rows || this.bytesRead > bytes) return null;
      this.droppable -= 1;
      places.push(place);
    }
    return places;
  }

  /** Keep what a call did. False when there is no room left for it in this transaction. */
  accept(layer: Layer): boolean {
    let [ranges, read, written] = [this.ranges, this.bytesRead, this.bytesWritten];
    for (const [name, { document }] of layer.changes) {
      const before = this.changes.get(name);
      const stored = before ? null : this.found.get(name)?.document; // read again to be changed
      ranges += stored ? 1 : 0;
      read += bytesOf(stored);
      written += bytesOf(document) - bytesOf(before?.document);
    }
    if (ranges > RANGES || read > BYTES || written > BYTES) return false;
    [this.ranges, this.bytesRead, this.bytesWritten] = [ranges, read, written];
    for (const [name, change] of layer.changes) this.changes.set(name, change);
    this.dropped.push(...layer.dropped);
    return true;
  }

  /** Write all of it. */
  async flush(): Promise<void> {
    for (const table of this.purged) {
      await resumePurges(this.ctx, (await this.purgesOf(table)).active);
    }
    const begun = await this.startPurges();
    const changes = [...this.changes];
    await Promise.all(
      changes.map(async ([name, change]) => {
        const generation =
          begun.get(change.table) ?? (await this.purgesOf(change.table)).generation;
        await store(this.ctx, change, this.found.get(name)?.document ?? null, generation);
      }),
    );
    const ends = changes.map(([, { document, isTouch }]) =>
      isTouch ? undefined : document?.row.expiresAt,
    );
    await scheduleSweep(this.ctx, ends);
  }

  /** The generation of each table in which purges begin. */
  private async startPurges(): Promise<Map<RowTable, number>> {
    const begun = new Map<RowTable, number>();
    if (this.dropped.length === 0) return begun;
    const generation = await nextGeneration(this.ctx);
    for (const { table, prefix } of this.dropped) {
      await startPurge(this.ctx, table, prefix, generation);
      begun.set(table, generation);
    }
    return begun;
  }
}

function bytesOf(document: Wire | null | undefined): number {
  return document ? sizeOf(document) : 0;
}
