// The picture that a job starts from: chosen, dropped, pasted or taken from the gallery, with its
// strength and, where only a part is to be drawn anew, its mask.

import { blob } from "./app-api.js";
import { $, toast } from "./app-dom.js";
import { FieldError } from "./app-form.js";
import { Mask } from "./app-mask.js";
import { recall, remember } from "./app-store.js";

const KINDS = ["image/png", "image/jpeg", "image/webp"];
// The engine's own strengths: image to image, and repainting a part.
const STRENGTH = 0.75;
const REPAINTING = 1;

export class StartPicture {
  #mask = new Mask();
  #picture = null;
  #able = true;
  #model = null;
  side = 2048;

  /// `form` gives the size of what is drawn; `fail(error)` shows an error.
  constructor(form, fail) {
    this.form = form;
    this.fail = fail;
    this.strength = recall("strength", STRENGTH);
    const file = $("init-file");
    file.addEventListener("change", () => {
      this.#take(file.files);
      // The same file may be chosen again after it has been removed.
      file.value = "";
    });
    this.#drops();
    $("init-remove").addEventListener("click", () => {
      this.clear();
      file.focus();
    });
    $("init-match").addEventListener("click", () => this.#match());
    $("mask-on").addEventListener("change", () => {
      this.strength = $("mask-on").checked ? REPAINTING : STRENGTH;
      this.#tools();
    });
    $("strength").addEventListener("input", () => {
      this.strength = Number($("strength").value);
      remember("strength", this.strength);
    });
  }

  get strength() {
    return Number($("strength").value);
  }

  set strength(value) {
    $("strength").value = value;
    $("strength-value").textContent = Number($("strength").value).toFixed(2);
  }

  get #masking() {
    return $("mask-on").checked;
  }

  /// Not every model can start from a picture.
  allow(model) {
    this.#model = model;
    this.#able = model?.images !== false;
    $("init-none").hidden = this.#able;
    $("init-panel").hidden = !this.#able;
    this.#note();
  }

  clear() {
    if (this.#picture) URL.revokeObjectURL(this.#picture.url);
    this.#picture = null;
    $("init-image").removeAttribute("src");
    $("mask-on").checked = false;
    this.#tools();
    $("init-set").hidden = true;
    $("drop").hidden = false;
  }

  /// Takes a picture of the server, with the mask that it had.
  async load(url, maskUrl = null) {
    await this.set(await blob(url));
    if (!maskUrl) return;
    const mask = await createImageBitmap(await blob(maskUrl));
    $("mask-on").checked = true;
    this.#tools();
    this.#mask.load(mask);
    mask.close();
  }

  /// Takes a file. What the server might turn, or would have to scale down, is drawn anew as a PNG:
  /// so the mask lies where it was painted, and what a camera wrote into the file stays here.
  async set(file) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      throw new FieldError("init", "This file could not be read as a picture. PNG, JPEG and WebP are taken.");
    }
    const scale = Math.min(1, this.side / Math.max(bitmap.width, bitmap.height));
    const width = Math.max(1, Math.round(bitmap.width * scale));
    const height = Math.max(1, Math.round(bitmap.height * scale));
    const bytes = file.type === "image/png" && scale === 1 ? file : await redrawn(bitmap, width, height);
    bitmap.close();
    this.clear();
    this.#picture = { blob: bytes, width, height, url: URL.createObjectURL(bytes) };
    const image = $("init-image");
    image.src = this.#picture.url;
    image.width = width;
    image.height = height;
    image.classList.toggle("pixels", Math.max(width, height) <= 160);
    this.#mask.reset(width, height);
    $("init-set").hidden = false;
    $("drop").hidden = true;
    this.#note();
  }

  /// What the request needs beside the spec's own keys; empty where there is no picture.
  ///
  /// Throws a FieldError where the mask marks nothing.
  async body() {
    if (!this.#picture || !this.#able) return { spec: {} };
    const { width, height } = this.form.size;
    // Said outright, so that the picture's own size cannot be meant.
    const spec = { strength: this.strength, ...(width && height ? { width, height } : {}) };
    const body = { spec, init: await base64(this.#picture.blob) };
    if (this.#masking) {
      if (this.#mask.share === 0) {
        const why = "Paint over the part that is to be drawn anew, or repaint the whole picture.";
        throw new FieldError("mask", why);
      }
      body.mask = await base64(await this.#mask.png());
    }
    return body;
  }

  #tools() {
    $("mask-canvas").hidden = !this.#masking;
    $("mask-tools").hidden = !this.#masking;
  }

  #note() {
    if (!this.#picture) return;
    const { width, height } = this.#picture;
    const target = this.form.size;
    const ratio = target.width / target.height / (width / height);
    const bent = target.width > 0 && (ratio > 1.02 || ratio < 1 / 1.02);
    const how = bent ? `; stretched to ${target.width} × ${target.height}` : "";
    $("init-note").textContent = `${width} × ${height}${how}`;
    $("init-match").hidden = !bent;
  }

  // The picture's shape with about as many pixels as the model draws by itself.
  #match() {
    const { width, height } = this.#picture;
    const own = (this.#model?.width ?? width) * (this.#model?.height ?? height);
    const scale = Math.sqrt(own / (width * height));
    this.form.setSize(width * scale, height * scale);
    $("width").focus();
  }

  #drops() {
    const zone = $("starting");
    const holds = (event) => [...event.dataTransfer.types].includes("Files");
    zone.addEventListener("dragover", (event) => {
      if (!holds(event)) return;
      event.preventDefault();
      zone.classList.add("over");
    });
    zone.addEventListener("dragleave", (event) => {
      if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
    });
    // A file that misses the zone would otherwise replace the page.
    for (const name of ["dragover", "drop"]) {
      addEventListener(name, (event) => holds(event) && event.preventDefault());
    }
    zone.addEventListener("drop", (event) => {
      zone.classList.remove("over");
      if (holds(event)) this.#take(event.dataTransfer.files);
    });
    addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.some((file) => KINDS.includes(file.type))) this.#take(files);
    });
  }

  async #take(files) {
    const file = [...files].find((f) => KINDS.includes(f.type)) ?? files[0];
    if (!file) return;
    if (!this.#able) {
      this.fail(new FieldError("init", "The chosen model cannot start from a picture."));
      return;
    }
    try {
      await this.set(file);
      toast("The next pictures start from this one.");
    } catch (error) {
      this.fail(error);
    }
  }
}

async function redrawn(bitmap, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const paint = canvas.getContext("2d");
  paint.imageSmoothingQuality = "high";
  paint.drawImage(bitmap, 0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

export function base64(bytes) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(bytes);
  });
}
