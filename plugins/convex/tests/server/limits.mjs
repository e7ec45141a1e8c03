// Convex's limits on values, which convex-test does not check.

export const MIB = 1 << 20;
export const LARGEST_DOCUMENT = MIB;
export const LARGEST_VALUE = 16 * MIB; // arguments and results
export const DEEPEST_DOCUMENT = 16;
export const DEEPEST_VALUE = 64;
const MOST_ELEMENTS = 8192;
const MOST_FIELDS = 1024;
const MOST_INDEXES = 32; // of a table
const MOST_INDEX_FIELDS = 16;
const LONGEST_IDENTIFIER = 64;
const FIELD_NAME = /^[\x20-\x7e]+$/;

function checkName(name) {
  if (name.startsWith("$")) throw new Error(`Field name ${name} starts with a '$', which is reserved.`);
  if (!FIELD_NAME.test(name)) {
    throw new Error(`Field name ${JSON.stringify(name)} must be nonempty and of ASCII characters 32 to 126.`);
  }
}

/** The size of a value in bytes and how deep it is nested; an Error past a limit that all values have. */
export function measure(value) {
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw new Error("Strings must not hold lone surrogates.");
    return { size: Buffer.byteLength(value) + 2, depth: 0 };
  }
  if (value === null || typeof value === "boolean") return { size: 1, depth: 0 };
  if (typeof value !== "object") return { size: 9, depth: 0 };
  if (value instanceof ArrayBuffer) return { size: value.byteLength + 2, depth: 0 };
  return Array.isArray(value) ? measureArray(value) : measureObject(value);
}

function measureArray(value) {
  if (value.length > MOST_ELEMENTS) {
    throw new Error(`Array length is too long (${value.length} > maximum length ${MOST_ELEMENTS})`);
  }
  let [size, depth] = [2, 0];
  for (const element of value) {
    const inner = measure(element);
    size += inner.size;
    if (inner.depth > depth) depth = inner.depth;
  }
  return { size, depth: depth + 1 };
}

function measureObject(value) {
  let [size, depth, fields] = [2, 0, 0];
  for (const name in value) {
    if (value[name] === undefined) continue;
    checkName(name);
    const inner = measure(value[name]);
    size += name.length + 1 + inner.size;
    if (inner.depth > depth) depth = inner.depth;
    fields += 1;
  }
  if (fields > MOST_FIELDS) {
    throw new Error(`Object has too many fields (${fields} > maximum number ${MOST_FIELDS})`);
  }
  return { size, depth: depth + 1 };
}

export function checkDocument(document) {
  for (const name in document) {
    if (name.startsWith("_") && name !== "_id" && name !== "_creationTime") {
      throw new Error(`Field '${name}' starts with an underscore, which is only allowed for system fields like '_id'`);
    }
  }
  const { size, depth } = measure(document);
  if (depth > DEEPEST_DOCUMENT) {
    throw new Error(
      `Document is too deeply nested (nested ${depth} levels deep > maximum nesting ${DEEPEST_DOCUMENT})`,
    );
  }
  if (size > LARGEST_DOCUMENT) throw new Error(`Value is too large (${mib(size)} > maximum size 1 MiB)`);
}

/** An Error for a schema that cannot be deployed. */
export function checkSchema(schema) {
  for (const [name, table] of Object.entries(schema?.tables ?? {})) {
    const { indexes } = table.export();
    if (indexes.length > MOST_INDEXES) {
      throw new Error(`Table "${name}" has ${indexes.length} indexes, which is more than ${MOST_INDEXES}.`);
    }
    for (const { indexDescriptor, fields } of indexes) {
      const index = `Index "${name}.${indexDescriptor}"`;
      if (["by_id", "by_creation_time"].includes(indexDescriptor) || indexDescriptor.startsWith("_")) {
        throw new Error(`${index} has a reserved name.`);
      }
      if (indexDescriptor.length > LONGEST_IDENTIFIER) throw new Error(`${index} has a name that is too long.`);
      if (fields.length === 0 || fields.length > MOST_INDEX_FIELDS) {
        throw new Error(`${index} must have between 1 and ${MOST_INDEX_FIELDS} fields, not ${fields.length}.`);
      }
      if (new Set(fields).size < fields.length || fields.includes("_creationTime") || fields.includes("_id")) {
        throw new Error(`${index} has a field twice, or one that every index ends with.`);
      }
    }
  }
}

/** A size as messages give it. */
export function mib(size) {
  return `${(size / MIB).toFixed(2).replace(/\.?0+$/, "")} MiB`;
}
