// One picture large, with the others of its job beside it.

import { $ } from "./app-dom.js";
import { altOf, download, fileName, show, titleOf } from "./app-images.js";

export class Viewer {
  #job = null;
  #k = 0;

  /// `acts` has `start(job, k)`, `seed(seed)` and `fail(error)`.
  constructor(acts) {
    const dialog = $("viewer");
    $("viewer-close").addEventListener("click", () => dialog.close());
    $("viewer-back").addEventListener("click", () => this.#go(-1));
    $("viewer-next").addEventListener("click", () => this.#go(1));
    $("viewer-start").addEventListener("click", () => {
      dialog.close();
      acts.start(this.#job, this.#k);
    });
    $("viewer-seed").addEventListener("click", () => {
      dialog.close();
      acts.seed(this.#picture.seed);
    });
    $("viewer-download").addEventListener("click", () => {
      download(this.#picture.url, fileName(this.#job, this.#k)).catch(acts.fail);
    });
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#go(-1);
      if (event.key === "ArrowRight") this.#go(1);
    });
    // The dialog's own area is what lies behind it.
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  get #picture() {
    return this.#job.images[this.#k];
  }

  open(job, k) {
    this.#job = job;
    this.#k = k;
    this.#show();
    $("viewer").showModal();
  }

  #go(by) {
    const count = this.#job.images.length;
    this.#k = (this.#k + by + count) % count;
    this.#show();
  }

  #show() {
    const { images } = this.#job;
    const { seed, width, height } = this.#picture;
    const many = images.length > 1;
    const which = many ? `Picture ${this.#k + 1} of ${images.length}` : "Picture";
    $("viewer-heading").textContent = `${which}, ${width} × ${height}, seed ${seed}`;
    $("viewer-prompt").textContent = titleOf(this.#job);
    $("viewer-image").alt = altOf(this.#job, this.#k);
    show($("viewer-image"), this.#picture, false);
    $("viewer-back").hidden = !many;
    $("viewer-next").hidden = !many;
  }
}
