// A choice among the methods of a seam, with fields for the settings of the chosen one. A part is
// written `name` or `name:key=value,key=value`; the server may also answer with an object.

import { $, el } from "./app-dom.js";

/// The text of a part, whichever way the server wrote it.
export function partText(part) {
  if (part === null || part === undefined) return "";
  if (typeof part === "string") return part;
  const { name, ...settings } = part;
  const pairs = Object.entries(settings).map(([key, value]) => `${key}=${valueText(value)}`);
  return pairs.length ? `${name}:${pairs.join(",")}` : name;
}

function valueText(value) {
  return typeof value === "string" ? quoted(value) : JSON.stringify(value);
}

// Words stand bare; what a comma or a bracket would break apart goes in quotes.
function quoted(text) {
  try {
    JSON.parse(text);
    return text;
  } catch {
    return /^([\w./ -]+|\[.*\])$/.test(text) ? text : JSON.stringify(text);
  }
}

/// The name and the settings as texts. Commas in brackets and quotes do not part settings.
function parted(text) {
  const at = text.indexOf(":");
  if (at < 0) return [text.trim(), []];
  const pieces = text.slice(at + 1).match(/(?:"(?:\\.|[^"\\])*"|\[[^\]]*\]|[^,])+/g) ?? [];
  const pairs = pieces.map((piece) => {
    const equals = piece.indexOf("=");
    return [piece.slice(0, equals).trim(), piece.slice(equals + 1).trim()];
  });
  return [text.slice(0, at).trim(), pairs];
}

export class PartPicker {
  #methods = [];
  #fields = new Map();
  #own;

  /// `name` is the id of the select; `own` words the choice of none.
  constructor(name, own) {
    this.name = name;
    this.#own = own;
    this.select = $(name);
    this.what = $(`${name}-what`);
    this.place = $(`${name}-settings`);
    this.select.append(new Option(own, ""));
    this.select.addEventListener("change", () => this.#describe());
  }

  setMethods(methods) {
    const value = this.value;
    this.#methods = methods;
    this.select.replaceChildren(
      new Option(this.#own, ""),
      ...methods.map((method) => new Option(method.id, method.id)),
    );
    this.value = value;
  }

  /// What the model does where nothing is chosen.
  setOwn(text) {
    this.#own = text;
    this.select.options[0].textContent = text;
  }

  get value() {
    const chosen = this.select.value;
    const pairs = [];
    for (const [key, field] of this.#fields) {
      const value = field.type === "checkbox" ? String(field.checked) : field.value.trim();
      if (value !== "" && value !== field.dataset.usual) pairs.push(`${key}=${quoted(value)}`);
    }
    return pairs.length ? `${chosen}:${pairs.join(",")}` : chosen;
  }

  /// Takes any part. One that the fields cannot show stands in the list as it was written.
  set value(part) {
    const text = partText(part);
    const [name, pairs] = parted(text);
    const method = this.#methods.find((m) => m.id === name || m.aliases?.includes(name));
    const settings = method?.settings ?? {};
    const shown = method && pairs.every(([key]) => key in settings);
    for (const old of this.select.querySelectorAll("[data-custom]")) old.remove();
    if (!shown && text !== "") {
      this.select.append(el("option", { value: text, textContent: text, "data-custom": "" }));
    }
    this.select.value = shown ? method.id : text;
    this.#describe();
    if (!shown) return;
    for (const [key, value] of pairs) {
      const field = this.#fields.get(key);
      if (field.type === "checkbox") field.checked = value === "true";
      else field.value = value;
    }
    if (pairs.length) this.place.querySelector("details").open = true;
  }

  #describe() {
    const method = this.#methods.find((m) => m.id === this.select.value);
    const source = method && [method.title, method.year].filter(Boolean).join(", ");
    this.what.textContent = method?.what ?? "";
    this.what.title = source ?? "";
    this.#fields.clear();
    const settings = Object.entries(method?.settings ?? {});
    this.place.replaceChildren();
    if (settings.length === 0) return;
    const fields = settings.map(([key, usual]) => this.#field(key, usual));
    this.place.append(
      el(
        "details",
        { className: "settings" },
        el("summary", { textContent: `Settings of ${method.id}` }),
        el("div", { className: "row" }, ...fields),
      ),
    );
  }

  #field(key, usual) {
    const id = `${this.name}-${key}`;
    const words = key.replaceAll("_", " ");
    const field = el("input", { id, spellcheck: false, "data-usual": JSON.stringify(usual) });
    this.#fields.set(key, field);
    if (typeof usual === "boolean") {
      field.type = "checkbox";
      field.checked = usual;
      return el("label", { className: "check" }, field, ` ${words}`);
    }
    if (typeof usual === "number") field.inputMode = "decimal";
    if (typeof usual === "string") field.dataset.usual = usual;
    field.placeholder = usual === null ? "none" : field.dataset.usual;
    return el("div", { className: "field" }, el("label", { htmlFor: id, textContent: words }), field);
  }
}
