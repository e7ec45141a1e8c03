// Validators of arguments, results and documents, compiled from the JSON that functions export.
// A check gives undefined, or what is wrong in the words of Convex.

import { encode } from "./values.mjs";

const TYPES = {
  null: (value) => value === null,
  number: (value) => typeof value === "number",
  bigint: (value) => typeof value === "bigint",
  boolean: (value) => typeof value === "boolean",
  string: (value) => typeof value === "string",
  bytes: (value) => value instanceof ArrayBuffer,
  any: () => true,
};
const NAMES = { number: "float64", bigint: "int64" };

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof ArrayBuffer);
}

/** A value as messages give it. */
function display(value) {
  if (Array.isArray(value)) return `[${value.map(display).join(", ")}]`;
  if (isObject(value)) {
    return `{${Object.entries(value).map(([name, member]) => `${name}: ${display(member)}`).join(", ")}}`;
  }
  if (value === undefined || typeof value === "bigint") return String(value);
  return encode(value);
}

function show(value) {
  const text = display(value);
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

/** A validator as it is written in TypeScript. */
function describe(validator) {
  const { type, value } = validator;
  switch (type) {
    case "id": return `v.id("${validator.tableName}")`;
    case "literal": return `v.literal(${JSON.stringify(value)})`;
    case "array": return `v.array(${describe(value)})`;
    case "union": return `v.union(${value.map(describe).join(", ")})`;
    case "record": return `v.record(${describe(validator.keys)}, ${describe(validator.values.fieldType)})`;
    case "object": {
      const fields = Object.entries(value).map(([name, { fieldType, optional }]) =>
        `${name}: ${optional ? `v.optional(${describe(fieldType)})` : describe(fieldType)}`);
      return `v.object({${fields.sort().join(", ")}})`;
    }
    default: return `v.${NAMES[type] ?? type}()`;
  }
}

function mismatch(validator, value, path) {
  const where = path ? `\nPath: ${path}` : "";
  return `Value does not match validator.${where}\nValue: ${show(value)}\nValidator: ${describe(validator)}`;
}

function compileArray(validator) {
  const element = compile(validator.value);
  return (value, path) => {
    if (!Array.isArray(value)) return mismatch(validator, value, path);
    for (let i = 0; i < value.length; i++) {
      const problem = element(value[i], `${path}[${i}]`);
      if (problem) return problem;
    }
    return undefined;
  };
}

function compileRecord(validator) {
  const [key, member] = [compile(validator.keys), compile(validator.values.fieldType)];
  return (value, path) => {
    if (!isObject(value)) return mismatch(validator, value, path);
    for (const name in value) {
      const problem = key(name, `${path}.keys()`) ?? member(value[name], `${path}.values()`);
      if (problem) return problem;
    }
    return undefined;
  };
}

function compileObject(validator) {
  const fields = new Map(
    Object.entries(validator.value).map(([name, { fieldType, optional }]) => [
      name, { name, optional, check: compile(fieldType) },
    ]),
  );
  const complain = (text, value, path) =>
    `${text}${path ? `\nPath: ${path}` : ""}\n\nObject: ${show(value)}\nValidator: ${describe(validator)}`;
  return (value, path) => {
    if (!isObject(value)) return mismatch(validator, value, path);
    for (const name in value) {
      if (!fields.has(name) && value[name] !== undefined) {
        return complain(`Object contains extra field \`${name}\` that is not in the validator.`, value, path);
      }
    }
    for (const { name, optional, check } of fields.values()) {
      const problem = value[name] !== undefined ? check(value[name], `${path}.${name}`) : undefined;
      if (problem) return problem;
      if (value[name] === undefined && !optional) {
        const advice = "Consider wrapping the field validator in `v.optional(...)` if this is expected.";
        return complain(`Object is missing the required field \`${name}\`. ${advice}`, value, path);
      }
    }
    return undefined;
  };
}

/** The members of a union that a value can be at all, told by a field that is a literal in each. */
function compileUnion(validator) {
  const members = validator.value.map((member) => ({ check: compile(member), literals: literalsOf(member) }));
  return (value, path) => {
    for (const { check, literals } of members) {
      if (literals.some(([name, literal]) => !isObject(value) || value[name] !== literal)) continue;
      if (check(value, path) === undefined) return undefined;
    }
    return mismatch(validator, value, path);
  };
}

function literalsOf({ type, value }) {
  if (type !== "object") return [];
  return Object.entries(value)
    .filter(([, { fieldType, optional }]) => fieldType.type === "literal" && !optional)
    .map(([name, { fieldType }]) => [name, fieldType.value]);
}

/** A function of (value, path) that gives undefined or a message. */
export function compile(validator) {
  const { type, value: inner } = validator;
  switch (type) {
    case "array": return compileArray(validator);
    case "object": return compileObject(validator);
    case "record": return compileRecord(validator);
    case "union": return compileUnion(validator);
  }
  const test = {
    literal: (value) => value === inner,
    id: (value) => typeof value === "string" && value.replace(/^\d+/, "") === validator.tableName,
  }[type] ?? TYPES[type];
  if (!test) throw new Error(`no such type of validator: ${type}`);
  return (value, path) => (test(value) ? undefined : mismatch(validator, value, path));
}
