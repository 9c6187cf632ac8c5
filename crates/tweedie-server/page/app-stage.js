// The current picture with its preview and progress, and the list of what is running and queued.

import { $, duration, el, plural, write } from "./app-dom.js";
import { altOf, sharpen, show, titleOf } from "./app-images.js";
import { finished } from "./app-jobs.js";

// The status is a live region; so often at most it is written during a run.
const CALM = 5000;

export class Stage {
  #job = null;
  #spoken = 0;
  #cancelling = new Set();

  /// `acts` has `view(job, k)` and `cancel(job)`.
  constructor(jobs, acts) {
    this.jobs = jobs;
    this.acts = acts;
    jobs.addEventListener("change", () => this.#change());
    jobs.addEventListener("progress", (e) => this.#progress(e.detail));
    jobs.addEventListener("preview", (e) => this.#preview(e.detail));
    $("cancel").addEventListener("click", () => this.cancel());
  }

  /// The unfinished job that is shown, if one is.
  get running() {
    return this.#job && !finished(this.#job) ? this.#job : null;
  }

  cancel() {
    if (this.running) this.#stop(this.running);
  }

  #stop(job) {
    if (!this.#cancelling.has(job.id)) this.acts.cancel(job);
  }

  /// Marks a job as asked to stop, until the server says that it has.
  cancelling(job, on) {
    if (on) this.#cancelling.add(job.id);
    else this.#cancelling.delete(job.id);
    this.#change();
  }

  // A job that has ended stays until another one is followed.
  #change() {
    const before = this.#job;
    const followed = this.jobs.followed();
    this.#job = followed ?? (before && this.jobs.get(before.id));
    const job = this.#job;
    if (before?.id !== job?.id) {
      $("preview").hidden = true;
      $("preview").removeAttribute("src");
    }
    this.#queue();
    const busy = this.running !== null;
    $("progress-row").hidden = !busy;
    $("mat").setAttribute("aria-busy", String(busy));
    if (!busy) {
      // Focus would fall to the top of the page with the button that had it.
      if (document.activeElement === $("cancel")) $("generate").focus();
      document.title = "tweedie";
      write($("progress-text"), "");
    }
    if (!job) {
      $("stage-empty").hidden = false;
      $("results").hidden = true;
      $("preview").hidden = true;
      if (before) write($("status"), "Ready.");
      return;
    }
    this.#results(job);
    mute($("cancel"), this.#cancelling.has(job.id));
    $("stage").dataset.state = job.state;
    const changed = before?.id !== job.id || before?.state !== job.state || before?.position !== job.position;
    if (changed || finished(job)) this.#say(this.#words(job));
    if (busy) this.#progress(job);
  }

  #say(text) {
    this.#spoken = Date.now();
    write($("status"), text);
  }

  #words(job) {
    if (this.#cancelling.has(job.id) && !finished(job)) return "Stopping…";
    switch (job.state) {
      case "queued":
        return `Queued${job.position > 0 ? `, place ${job.position}` : ""}.`;
      case "running":
        return "Drawing…";
      case "done": {
        const took = job.finished && job.started ? ` in ${duration(job.finished - job.started)}` : "";
        const seed = job.images[0]?.seed;
        return `Done: ${plural(job.images.length, "picture")}${took}${seed ? `, seed ${seed}` : ""}.`;
      }
      case "cancelled":
        return "Cancelled.";
      default:
        return `It failed: ${job.error ?? "the server does not say why"}`;
    }
  }

  #results(job) {
    const images = job.images ?? [];
    const showing = finished(job) && images.length > 0;
    $("results").hidden = !showing;
    $("stage-empty").hidden = showing || !$("preview").hidden;
    write($("stage-empty"), finished(job) ? "No picture was drawn." : "The picture appears here.");
    if (finished(job)) {
      $("preview").hidden = true;
      $("stage-empty").hidden = showing;
    }
    const key = showing ? `${job.id} ${images.length}` : "";
    if ($("results").dataset.key === key) return;
    $("results").dataset.key = key;
    $("results").dataset.count = images.length > 4 ? "many" : images.length;
    $("results").replaceChildren(...(showing ? images : []).map((picture, k) => {
      const image = el("img", { alt: altOf(job, k) });
      show(image, picture, false);
      const button = el("button", { type: "button", className: "thumb" }, image);
      button.addEventListener("click", () => this.acts.view(job, k));
      return el("li", {}, button);
    }));
  }

  #progress(job) {
    const listed = $("queue").querySelector(`[data-id="${CSS.escape(job.id)}"] .state`);
    if (listed) write(listed, stateOf(job));
    if (job.id !== this.#job?.id || !this.running) return;
    const { fraction = 0, step = 0, steps = 0, image = 0, count = 1, seconds_left: left } = job.progress ?? {};
    if (job.state === "queued") {
      $("progress").removeAttribute("value");
      document.title = "queued, tweedie";
      return;
    }
    $("progress").value = fraction;
    document.title = `${Math.round(fraction * 100)} %, tweedie`;
    const parts = [];
    if (count > 1) parts.push(`picture ${Math.min(count, image + 1)} of ${count}`);
    if (steps) parts.push(`step ${step} of ${steps}`);
    const wait = typeof left === "number" ? `about ${duration(Math.max(1, Math.ceil(left)))} left` : "";
    write($("progress-text"), [...parts, wait].filter(Boolean).join(", "));
    if (this.#cancelling.has(job.id) || Date.now() - this.#spoken < CALM) return;
    this.#say(`Drawing, ${Math.round(fraction * 100)} %${wait && `, ${wait}`}.`);
  }

  #preview({ job, png }) {
    if (job.id !== this.#job?.id || !this.running) return;
    const image = $("preview");
    image.src = `data:image/png;base64,${png}`;
    image.alt = `Preview of: ${titleOf(job)}`;
    image.onload = () => sharpen(image, image.naturalWidth, image.naturalHeight);
    image.hidden = false;
    $("stage-empty").hidden = true;
  }

  // Rows are kept as long as their jobs, so that a button does not lose the focus.
  #queue() {
    const list = $("queue");
    const jobs = this.jobs.unfinished();
    const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
    const focused = list.contains(document.activeElement);
    jobs.forEach((job, i) => {
      const row = rows.get(job.id) ?? this.#row(job);
      rows.delete(job.id);
      write(row.querySelector(".state"), stateOf(job));
      mute(row.querySelector("button"), this.#cancelling.has(job.id));
      if (list.children[i] !== row) list.insertBefore(row, list.children[i] ?? null);
    });
    for (const row of rows.values()) row.remove();
    $("queue-section").hidden = jobs.length === 0;
    if (focused && !list.contains(document.activeElement)) {
      if (jobs.length) $("queue-heading").focus();
      else $("gallery-heading").focus();
    }
  }

  #row(job) {
    const id = `queue-${job.id}`;
    const title = el("p", { className: "what", id, textContent: titleOf(job) });
    const button = el("button", { type: "button", textContent: "Cancel", "aria-describedby": id });
    button.addEventListener("click", () => this.#stop(job));
    return el("li", { "data-id": job.id }, el("div", {}, title, el("p", { className: "note state" })), button);
  }
}

// Not `disabled`: a button that is disabled loses the focus.
const mute = (button, on) => button.setAttribute("aria-disabled", String(on));

function stateOf(job) {
  if (job.state === "running") return `running, ${Math.round((job.progress?.fraction ?? 0) * 100)} %`;
  return job.position > 0 ? `queued, place ${job.position}` : "queued";
}
