// The mask painted over the start picture, by pointer or by keyboard. The mask itself has the
// picture's pixels; what is seen has the screen's, so that the brush is round over a small picture.

import { $, write } from "./app-dom.js";

// Undo steps are kept up to this many bytes.
const UNDO_BYTES = 64 << 20;

export class Mask {
  #canvas = $("mask-canvas");
  #mask = document.createElement("canvas");
  #undo = [];
  #erasing = false;
  #drawing = null;
  #cursor = null;
  #keyed = false;
  #said = 0;

  constructor() {
    const canvas = this.#canvas;
    canvas.addEventListener("pointerdown", (e) => this.#down(e));
    canvas.addEventListener("pointermove", (e) => this.#move(e));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => this.#up(e));
    canvas.addEventListener("pointerleave", () => this.#hover(null));
    canvas.addEventListener("keydown", (e) => this.#key(e));
    canvas.addEventListener("keyup", (e) => e.key === " " && this.#endKey());
    canvas.addEventListener("focus", () => this.#show());
    canvas.addEventListener("blur", () => this.#endKey());
    $("brush").addEventListener("input", () => this.#show());
    $("mask-erase").addEventListener("click", () => this.#erase(!this.#erasing));
    $("mask-undo").addEventListener("click", () => this.#back());
    $("mask-clear").addEventListener("click", () => this.#all(() => this.#clear()));
    $("mask-invert").addEventListener("click", () => this.#all(() => this.#invert()));
    new ResizeObserver(() => this.#show()).observe(canvas);
  }

  get #paint() {
    return this.#mask.getContext("2d", { willReadFrequently: true });
  }

  /// The brush's width in pixels of the picture.
  get #brush() {
    const side = Math.min(this.#mask.width, this.#mask.height);
    return Math.max(1, (side * Number($("brush").value)) / 100);
  }

  /// Starts anew, for a picture of this size.
  reset(width, height) {
    this.#mask.width = width;
    this.#mask.height = height;
    this.#undo = [];
    this.#cursor = null;
    this.#erase(false);
    this.#show();
  }

  /// Takes the mask of a former job: white is repainted.
  load(picture) {
    const { width, height } = this.#mask;
    this.#paint.drawImage(picture, 0, 0, width, height);
    const data = this.#paint.getImageData(0, 0, width, height);
    for (let i = 0; i < data.data.length; i += 4) {
      data.data[i + 3] = data.data[i] < 128 ? 0 : 255;
      data.data.fill(255, i, i + 3);
    }
    this.#paint.putImageData(data, 0, 0);
    this.#show();
  }

  /// The share of the picture that is marked.
  get share() {
    const marks = this.#marks();
    return marks.reduce((sum, alpha) => sum + (alpha > 127), 0) / Math.max(1, marks.length);
  }

  /// A PNG, white where the picture is to be repainted and black elsewhere.
  async png() {
    const { width, height } = this.#mask;
    const data = new ImageData(width, height);
    this.#marks().forEach((alpha, i) => {
      data.data.fill(alpha > 127 ? 255 : 0, 4 * i, 4 * i + 3);
      data.data[4 * i + 3] = 255;
    });
    const out = document.createElement("canvas");
    out.width = width;
    out.height = height;
    out.getContext("2d").putImageData(data, 0, 0);
    return new Promise((resolve) => out.toBlob(resolve, "image/png"));
  }

  #marks() {
    const { width, height } = this.#mask;
    const { data } = this.#paint.getImageData(0, 0, width, height);
    return Uint8Array.from({ length: width * height }, (_, i) => data[4 * i + 3]);
  }

  #keep() {
    this.#undo.push(this.#marks());
    const most = Math.max(2, Math.floor(UNDO_BYTES / (this.#mask.width * this.#mask.height)));
    if (this.#undo.length > most) this.#undo.shift();
  }

  #back() {
    const marks = this.#undo.pop();
    if (!marks) return;
    const data = new ImageData(this.#mask.width, this.#mask.height);
    data.data.fill(255);
    marks.forEach((alpha, i) => {
      data.data[4 * i + 3] = alpha;
    });
    this.#paint.putImageData(data, 0, 0);
    this.#show();
    this.#say("Undone. ");
  }

  #all(change) {
    this.#keep();
    change();
    this.#show();
    this.#say();
  }

  #clear() {
    this.#paint.clearRect(0, 0, this.#mask.width, this.#mask.height);
  }

  // What lies outside the marks becomes the marks.
  #invert() {
    const paint = this.#paint;
    paint.globalCompositeOperation = "xor";
    paint.fillStyle = "#fff";
    paint.fillRect(0, 0, this.#mask.width, this.#mask.height);
    paint.globalCompositeOperation = "source-over";
  }

  #erase(on) {
    this.#erasing = on;
    $("mask-erase").setAttribute("aria-pressed", String(on));
  }

  #stroke(from, to, erase) {
    const paint = this.#paint;
    paint.globalCompositeOperation = erase ? "destination-out" : "source-over";
    paint.strokeStyle = "#fff";
    paint.lineWidth = this.#brush;
    paint.lineCap = "round";
    paint.lineJoin = "round";
    paint.beginPath();
    paint.moveTo(from.x, from.y);
    // A line of no length draws no cap in some browsers.
    paint.lineTo(to.x + 0.001, to.y);
    paint.stroke();
    paint.globalCompositeOperation = "source-over";
  }

  #at(event) {
    const box = this.#canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.#mask.width,
      y: ((event.clientY - box.top) / box.height) * this.#mask.height,
    };
  }

  #down(event) {
    if (this.#drawing !== null || (event.button !== 0 && event.button !== 5)) return;
    event.preventDefault();
    this.#canvas.focus({ preventScroll: true });
    // The stroke goes on where the pointer leaves the picture.
    this.#canvas.setPointerCapture(event.pointerId);
    this.#drawing = event.pointerId;
    this.#keyed = false;
    this.#keep();
    this.#hover(this.#at(event), event);
  }

  #move(event) {
    if (this.#drawing !== null && event.pointerId !== this.#drawing) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const part of events.length ? events : [event]) this.#hover(this.#at(part), event);
  }

  // Button 32 is the eraser at the other end of a pen.
  #hover(point, event = null) {
    if (point && this.#drawing !== null) {
      const erase = this.#erasing || (event.buttons & 32) !== 0;
      const from = event.type === "pointerdown" || !this.#cursor ? point : this.#cursor;
      this.#stroke(from, point, erase);
    }
    this.#cursor = point ?? (this.#drawing === null && !this.#keyed ? null : this.#cursor);
    this.#show();
  }

  #up(event) {
    if (event.pointerId !== this.#drawing) return;
    this.#drawing = null;
    if (event.pointerType === "touch") this.#cursor = null;
    this.#show();
    this.#say();
  }

  #key(event) {
    const { width, height } = this.#mask;
    const step = Math.max(1, this.#brush / 4) * (event.shiftKey ? 4 : 1);
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const from = this.#cursor ?? { x: width / 2, y: height / 2 };
    if ((event.ctrlKey || event.metaKey) && event.key === "z") {
      this.#back();
    } else if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    } else if (moves[event.key]) {
      const [x, y] = moves[event.key];
      const within = (value, most) => Math.min(most, Math.max(0, value));
      this.#cursor = { x: within(from.x + x * step, width), y: within(from.y + y * step, height) };
      if (this.#drawing === "key") this.#stroke(from, this.#cursor, this.#erasing);
    } else if (event.key === " " || event.key === "Enter") {
      this.#cursor = from;
      if (this.#drawing === null) {
        this.#keep();
        this.#stroke(from, from, this.#erasing);
        // Held down, Space goes on painting while the arrows move.
        if (event.key === " ") this.#drawing = "key";
      }
    } else if (event.key === "e" || event.key === "E") {
      this.#erase(!this.#erasing);
    } else if (event.key === "[" || event.key === "]") {
      $("brush").value = Number($("brush").value) + (event.key === "]" ? 2 : -2);
    } else {
      return;
    }
    event.preventDefault();
    this.#keyed = true;
    this.#show();
    this.#say();
  }

  #endKey() {
    if (this.#drawing === "key") this.#drawing = null;
    this.#show();
  }

  // A live region: a stroke of the keyboard sends many keys.
  #say(before = "") {
    clearTimeout(this.#said);
    this.#said = setTimeout(() => {
      const at = this.#keyed && this.#cursor;
      const place = at ? `Brush at ${Math.round(at.x)}, ${Math.round(at.y)}. ` : "";
      const marked = `${Math.round(this.share * 100)} % of the picture is marked.`;
      const what = this.#erasing && this.#keyed ? "Erasing. " : "";
      write($("mask-status"), before + what + place + marked);
    }, 400);
  }

  #show() {
    const canvas = this.#canvas;
    const box = canvas.getBoundingClientRect();
    write($("brush-value"), `${Math.round(this.#brush)} px`);
    $("mask-undo").disabled = this.#undo.length === 0;
    if (box.width === 0 || this.#mask.width === 0) return;
    const dense = devicePixelRatio || 1;
    const [width, height] = [Math.round(box.width * dense), Math.round(box.height * dense)];
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const paint = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    paint.clearRect(0, 0, width, height);
    paint.imageSmoothingEnabled = false;
    paint.globalAlpha = 0.6;
    paint.drawImage(this.#mask, 0, 0, width, height);
    // Only the marks take the colour.
    paint.globalCompositeOperation = "source-in";
    paint.globalAlpha = 1;
    paint.fillStyle = style.getPropertyValue("--mask");
    paint.fillRect(0, 0, width, height);
    paint.globalCompositeOperation = "source-over";
    this.#ring(paint, width / this.#mask.width, dense);
  }

  // The brush, in two tones so that it is seen over any picture.
  #ring(paint, scale, dense) {
    const focused = document.activeElement === this.#canvas && this.#canvas.matches(":focus-visible");
    const centre = { x: this.#mask.width / 2, y: this.#mask.height / 2 };
    const at = this.#cursor ?? (focused ? centre : null);
    if (!at) return;
    for (const [colour, line] of [["#000", 3], ["#fff", 1.5]]) {
      paint.strokeStyle = colour;
      paint.lineWidth = line * dense;
      paint.beginPath();
      paint.arc(at.x * scale, at.y * scale, (this.#brush / 2) * scale, 0, 2 * Math.PI);
      paint.stroke();
    }
  }
}
