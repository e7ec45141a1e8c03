// Convex values as the JSON that Convex sends: a float64 always has a fraction or an exponent.

function float(value) {
  if (!Number.isFinite(value) || Object.is(value, -0)) {
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleLE(value);
    return `{"$float":"${bytes.toString("base64")}"}`;
  }
  const text = String(value);
  return Number.isInteger(value) && !text.includes("e") ? `${text}.0` : text;
}

function integer(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(value);
  return `{"$integer":"${bytes.toString("base64")}"}`;
}

function base64(value) {
  return Buffer.from(value).toString("base64");
}

const ENCODED = { number: float, bigint: integer, bytes: (value) => `{"$bytes":"${base64(value)}"}` };

// The format "json" has no int64, no bytes and no special floats: strings instead.
const CLEAN = {
  number: (value) => (Number.isFinite(value) ? float(Object.is(value, -0) ? 0 : value) : `"${cleanName(value)}"`),
  bigint: (value) => `"${value}"`,
  bytes: (value) => `"${base64(value)}"`,
};

function cleanName(value) {
  return Number.isNaN(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity";
}

function write(value, forms) {
  switch (typeof value) {
    case "string": return JSON.stringify(value);
    case "number": return forms.number(value);
    case "bigint": return forms.bigint(value);
    case "boolean": return value ? "true" : "false";
  }
  if (value === null || value === undefined) return "null";
  if (value instanceof ArrayBuffer) return forms.bytes(value);
  if (Array.isArray(value)) return `[${value.map((element) => write(element, forms)).join()}]`;
  const members = [];
  for (const name in value) {
    if (value[name] !== undefined) members.push(`${JSON.stringify(name)}:${write(value[name], forms)}`);
  }
  return `{${members.join()}}`;
}

/** A Convex value as text in "convex_encoded_json", or in "json". */
export function encode(value, format = "convex_encoded_json") {
  return write(value, format === "json" ? CLEAN : ENCODED);
}
