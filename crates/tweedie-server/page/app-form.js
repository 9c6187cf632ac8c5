// The form: what the models, methods and limits of the server allow, what a person has filled in, and
// the spec that comes of it.

import { $ } from "./app-dom.js";
import { PartPicker } from "./app-parts.js";
import { recall, remember } from "./app-store.js";

const PLAIN = ["model", "prompt", "negative", "class", "steps", "guidance", "seed", "width", "height", "count"];
const LARGEST_SEED = 2n ** 64n - 1n;
// Keys of a spec that change the pictures and have no field here.
const CARRIED = ["process", "prediction", "guides", "guide", "loras", "embeddings", "clip_skip", "controls"];
// Where the field of a key of the API has another name.
const FIELDS = { taps: "cache", tap: "cache", init: "init-file", mask: "mask-on", size: "width" };

/// A value that cannot be sent; `param` is the key of the API.
export class FieldError extends Error {
  constructor(param, message) {
    super(message);
    this.param = param;
  }
}

export class Form {
  #models = [];
  #limits = { side: 2048, steps: 1000, count: 64, prompt: 10000 };
  #wanted = recall("form", {});
  #marked = null;

  /// `onModel(model)` runs when another model is chosen.
  constructor(onModel) {
    this.onModel = onModel;
    this.sampler = new PartPicker("sampler", "the model's own");
    this.grid = new PartPicker("grid", "the model's own");
    this.cache = new PartPicker("cache", "none");
    this.#put(this.#wanted);
    this.#folds();
    $("model").addEventListener("change", () => this.#modelChanged());
    for (const side of ["width", "height"]) {
      $(side).addEventListener("change", () => {
        this.#snap(side);
        this.onModel(this.model);
      });
    }
    for (const event of ["input", "change"]) {
      $("form").addEventListener(event, (e) => {
        if (e.target === this.#marked) this.mark(null);
        remember("form", this.#values());
      });
    }
  }

  get model() {
    return this.#models.find((model) => model.name === $("model").value) ?? null;
  }

  /// The size that the pictures will have.
  get size() {
    const { width = 0, height = 0 } = this.model ?? {};
    return { width: Number($("width").value) || width, height: Number($("height").value) || height };
  }

  setLimits(limits) {
    this.#limits = { ...this.#limits, ...limits };
    $("steps").max = this.#limits.steps;
    $("count").max = this.#limits.count;
    $("width").max = this.#limits.side;
    $("height").max = this.#limits.side;
  }

  setMethods(methods) {
    const of = (seam) => methods.filter((method) => method.seam === seam);
    this.sampler.setMethods(of("sampler"));
    this.grid.setMethods(of("grid"));
    this.cache.setMethods(of("tap"));
  }

  setModels(models) {
    const before = $("model").value || this.#wanted.model;
    this.#models = models;
    $("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
    if (models.some((model) => model.name === before)) $("model").value = before;
    this.#modelChanged();
  }

  #modelChanged() {
    const model = this.model;
    const classes = model?.classes ?? [];
    $("prompt-field").hidden = model !== null && !model.text;
    $("negative-field").hidden = model !== null && !model.text;
    $("class-field").hidden = classes.length === 0 || model.text;
    const chosen = $("class").value || this.#wanted.class;
    $("class").replaceChildren(...classes.map((name) => new Option(name, name)));
    if (classes.includes(chosen)) $("class").value = chosen;
    const notes = [];
    if (model?.loaded === false) notes.push("It is loaded when it is first used, which takes a while.");
    if (model && !model.text && classes.length === 0) notes.push("It takes no prompt.");
    $("model-note").textContent = notes.join(" ");
    $("model-note").hidden = notes.length === 0;
    this.sampler.setOwn(own(model?.sampler));
    this.grid.setOwn(own(model?.grid));
    for (const key of ["steps", "guidance", "width", "height"]) $(key).placeholder = model?.[key] ?? "";
    const multiple = model?.multiple ?? 1;
    $("width").step = multiple;
    $("height").step = multiple;
    $("size-note").textContent = multiple > 1 ? `Width and height go in steps of ${multiple}.` : "";
    $("size-note").hidden = multiple <= 1;
    if (model) {
      this.#snap("width");
      this.#snap("height");
    }
    this.onModel(model);
  }

  /// The nearest size that the model can draw.
  snapped(value) {
    const multiple = this.model?.multiple ?? 1;
    const most = Math.floor(this.#limits.side / multiple) * multiple;
    return Math.min(most, Math.max(multiple, Math.round(value / multiple) * multiple));
  }

  #snap(side) {
    const value = Number($(side).value);
    if ($(side).value !== "" && Number.isFinite(value)) $(side).value = this.snapped(value);
  }

  setSize(width, height) {
    $("width").value = this.snapped(width);
    $("height").value = this.snapped(height);
    remember("form", this.#values());
    this.onModel(this.model);
  }

  setSeed(seed) {
    $("seed").value = seed;
    remember("form", this.#values());
  }

  // Parts of the form that a person has folded stay so.
  #folds() {
    const folded = recall("folded", []);
    const parts = [$("sampling"), $("starting")];
    for (const part of parts) {
      part.open = !folded.includes(part.id);
      part.addEventListener("toggle", () => {
        remember("folded", parts.filter((p) => !p.open).map((p) => p.id));
      });
    }
  }

  #values() {
    const values = Object.fromEntries(PLAIN.map((id) => [id, $(id).value]));
    // These lists are empty before the models have come, or for a model without classes.
    for (const id of ["model", "class"]) values[id] ||= this.#wanted[id];
    const parts = { sampler: this.sampler.value, grid: this.grid.value, cache: this.cache.value };
    this.#wanted = { ...values, ...parts };
    return this.#wanted;
  }

  #put(values) {
    for (const id of PLAIN) if (typeof values[id] === "string") $(id).value = values[id];
    for (const part of ["sampler", "grid", "cache"]) this[part].value = values[part] ?? "";
  }

  /// Puts a spec into the form; returns what of it has no place here, in words.
  fill(spec, seed) {
    const text = (value) => (value === null || value === undefined ? "" : String(value));
    const missing = [];
    if (this.#models.some((model) => model.name === spec.model)) {
      $("model").value = spec.model;
    } else {
      missing.push(`the model ${spec.model}, which this server does not have`);
    }
    this.#modelChanged();
    const classes = this.model?.classes ?? [];
    if (classes.length) $("class").value = className(spec, this.model);
    else $("prompt").value = text(spec.prompt);
    $("negative").value = text(spec.negative);
    for (const key of ["steps", "guidance", "width", "height", "count"]) $(key).value = text(spec[key]);
    $("seed").value = text(seed);
    this.sampler.value = spec.sampler;
    this.grid.value = spec.grid;
    const taps = spec.taps ?? [];
    this.cache.value = taps[0];
    if (taps.length > 1) missing.push("all taps but the first");
    for (const key of CARRIED) {
      const value = spec[key];
      if (Array.isArray(value) ? value.length : value) missing.push(key.replaceAll("_", " "));
    }
    remember("form", this.#values());
    this.onModel(this.model);
    return missing;
  }

  /// The spec as the API takes it.
  ///
  /// Throws a FieldError for a value that cannot be sent.
  spec() {
    const model = this.model;
    if (!model) throw new FieldError("model", "This server has no model to draw with.");
    const { side, steps, count, prompt } = this.#limits;
    const spec = { model: model.name };
    if (model.text) {
      spec.prompt = longest("prompt", "The prompt", $("prompt").value, prompt);
      const negative = longest("negative", "The negative prompt", $("negative").value, prompt);
      if (negative.trim()) spec.negative = negative;
    } else if (model.classes?.length) {
      spec.prompt = $("class").value;
    }
    if (this.sampler.value) spec.sampler = this.sampler.value;
    if (this.grid.value) spec.grid = this.grid.value;
    if (this.cache.value) spec.taps = [this.cache.value];
    put(spec, "steps", whole("steps", "Steps", 1, steps));
    put(spec, "guidance", number("guidance", "Guidance"));
    put(spec, "count", whole("count", "Count", 1, count));
    put(spec, "width", whole("width", "Width", 1, side));
    put(spec, "height", whole("height", "Height", 1, side));
    put(spec, "seed", seed());
    return spec;
  }

  /// Marks the field that an error speaks of and goes there; null takes the mark away.
  mark(param) {
    if (this.#marked) {
      this.#marked.removeAttribute("aria-invalid");
      this.#marked.removeAttribute("aria-errormessage");
    }
    const classes = this.model?.classes?.length;
    const id = param === "prompt" && classes ? "class" : (FIELDS[param] ?? param);
    this.#marked = id && $(id)?.matches("input, select, textarea") ? $(id) : null;
    if (!this.#marked) return;
    this.#marked.setAttribute("aria-invalid", "true");
    this.#marked.setAttribute("aria-errormessage", "error");
    const fold = this.#marked.closest("details:not([open])");
    if (fold) fold.open = true;
    this.#marked.focus();
  }
}

const own = (text) => (text ? `the model's own (${text})` : "the model's own");

// The class of a spec by name: specs may hold its number instead.
function className(spec, model) {
  return spec.prompt || (model?.classes?.[spec.classes?.[0]] ?? "");
}

function put(spec, key, value) {
  if (value !== null) spec[key] = value;
}

function longest(param, words, text, most) {
  // Characters, not UTF-16 units: that is what the server counts.
  const length = [...text].length;
  if (length <= most) return text;
  throw new FieldError(param, `${words} has ${length} characters; at most ${most} are taken.`);
}

function number(id, words) {
  const field = $(id);
  if (field.value === "" && !field.validity.badInput) return null;
  const value = Number(field.value);
  if (!field.validity.badInput && Number.isFinite(value)) return value;
  throw new FieldError(id, `${words} must be a number.`);
}

function whole(id, words, least, most) {
  const value = number(id, words);
  if (value === null || (Number.isInteger(value) && value >= least && value <= most)) return value;
  throw new FieldError(id, `${words} must be a whole number from ${least} to ${most}.`);
}

function seed() {
  const text = $("seed").value.trim();
  if (text === "") return null;
  if (/^\d+$/.test(text) && BigInt(text) <= LARGEST_SEED) return String(BigInt(text));
  throw new FieldError("seed", "The seed must be a whole number from 0 to 2^64 - 1, or empty.");
}
