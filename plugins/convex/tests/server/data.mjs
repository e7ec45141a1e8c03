// Documents in a file, so that a server that is started again has those of the one before it.

import { readFileSync, renameSync, writeFileSync } from "node:fs";

import { convexToJson, jsonToConvex } from "convex/values";

export function saveDocuments({ database }, file) {
  const { nextId, lastTs } = database.state;
  const documents = Array.from(database.documents(), convexToJson);
  writeFileSync(`${file}.new`, JSON.stringify({ nextId, lastTs: String(lastTs), documents }));
  renameSync(`${file}.new`, file);
}

export async function loadDocuments(deployment, file) {
  const { nextId, lastTs, documents } = JSON.parse(readFileSync(file, "utf8"));
  deployment.database.adopt({ nextId, lastTs: BigInt(lastTs), documents: documents.map(jsonToConvex) });
  deployment.schedule.restart();
}
