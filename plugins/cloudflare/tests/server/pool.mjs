// The account's namespaces. Their data is in bindings, which a Worker has from its start; a
// deleted namespace leaves one behind that is emptied when a new namespace needs it.

import { errors } from "./api.mjs";
import { Namespace } from "./namespace.mjs";

export class Pool {
  #free;
  #used = []; // bindings that still hold the data of a deleted namespace
  #namespaces = new Map(); // id → Namespace, the oldest first
  #bindings = new Map(); // id → binding

  constructor(bindings) {
    this.#free = bindings;
  }

  get namespaces() {
    return [...this.#namespaces.values()];
  }

  get(id) {
    return this.#namespaces.get(id);
  }

  /** A new namespace; `title` is a function, to be asked for one when nothing can come between. */
  async create(title, view) {
    const binding = this.#free.shift() ?? (await this.#emptied(this.#used.shift()));
    if (!binding) throw errors.tooManyNamespaces();
    try {
      const id = crypto.randomUUID().replaceAll("-", "");
      const namespace = new Namespace(id, title(), binding, view);
      this.#namespaces.set(id, namespace);
      this.#bindings.set(id, binding);
      return namespace;
    } catch (error) {
      this.#free.push(binding);
      throw error;
    }
  }

  delete(id) {
    this.#namespaces.delete(id);
    this.#used.push(this.#bindings.get(id));
    this.#bindings.delete(id);
  }

  async #emptied(binding) {
    for (let page; binding && !page?.list_complete; ) {
      page = await binding.list();
      await Promise.all(page.keys.map(({ name }) => binding.delete(name)));
    }
    return binding;
  }
}
