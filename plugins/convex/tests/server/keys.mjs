// The order of Convex's values, as strings: JavaScript's `<` of two keys is the order of the values.
//
// Every byte of a key is one character below 256, so that the code units of a key compare as
// bytes do. A value ends where its encoding ends: what follows cannot change the order before it.

/** Above every key that begins with the same values. */
export const LAST = "\uffff";

const [UNDEFINED, NULL, INT64, FLOAT64, FALSE, TRUE, STRING, BYTES, ARRAY, OBJECT] = Array.from(
  "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a",
);
const END = "\x00";
const PLAIN = /^[\x02-\x7f]*$/; // its UTF-8 is its code units, and nothing needs escaping
const bits = new DataView(new ArrayBuffer(8));

function eightBytes() {
  return String.fromCharCode(...new Uint8Array(bits.buffer));
}

function int64Key(value) {
  bits.setBigInt64(0, value);
  bits.setUint8(0, bits.getUint8(0) ^ 0x80); // negative ones first
  return eightBytes();
}

function float64Key(value) {
  bits.setFloat64(0, value);
  const negative = bits.getUint8(0) & 0x80;
  for (let i = 0; i < 8; i++) {
    const byte = bits.getUint8(i);
    bits.setUint8(i, negative ? byte ^ 0xff : i === 0 ? byte ^ 0x80 : byte);
  }
  return eightBytes();
}

/** Zeros and ones are escaped: a zero ends the string, and no key begins with another. */
function bytesKey(buffer) {
  const escaped = buffer.toString("latin1").replaceAll("\x01", "\x01\x02").replaceAll("\x00", "\x01\x01");
  return escaped + END;
}

function stringKey(value) {
  return PLAIN.test(value) ? value + END : bytesKey(Buffer.from(value, "utf8"));
}

function objectKey(value) {
  const names = Object.keys(value).filter((name) => value[name] !== undefined).sort();
  return names.map((name) => stringKey(name) + keyOf(value[name])).join("") + END;
}

/** The key of a Convex value, or of `undefined` for a field that is not there. */
export function keyOf(value) {
  switch (typeof value) {
    case "undefined": return UNDEFINED;
    case "bigint": return INT64 + int64Key(value);
    case "number": return FLOAT64 + float64Key(value);
    case "boolean": return value ? TRUE : FALSE;
    case "string": return STRING + stringKey(value);
  }
  if (value === null) return NULL;
  if (value instanceof ArrayBuffer) return BYTES + bytesKey(Buffer.from(value));
  if (Array.isArray(value)) return ARRAY + value.map(keyOf).join("") + END;
  return OBJECT + objectKey(value);
}

/** A function that gives the key of a document under an index of these fields ("row.order" …). */
export function documentKey(fields) {
  const paths = fields.map((field) => field.split("."));
  return (document) => {
    let key = "";
    for (const path of paths) {
      let value = document;
      for (const name of path) value = isObject(value) ? value[name] : undefined;
      key += keyOf(value);
    }
    return key;
  };
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof ArrayBuffer);
}
