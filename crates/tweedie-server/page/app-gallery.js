// The gallery: past jobs, newest first, each with its settings and what can be done with it.

import { $, confirmed, copy, el, moment, plural } from "./app-dom.js";
import { hasKey } from "./app-api.js";
import { command, curl, files, seedOf } from "./app-command.js";
import { altOf, download, fileName, forget, show, titleOf } from "./app-images.js";
import { finished } from "./app-jobs.js";
import { partText } from "./app-parts.js";

// So many pictures of one job stand in the gallery; the rest is in the viewer.
const SHOWN = 4;

export class Gallery {
  #cards = new Map();

  /// `acts` has `view(job, k)`, `use(job)`, `repeat(job)`, `start(job, k)` and `fail(error)`.
  constructor(jobs, acts) {
    this.jobs = jobs;
    this.acts = acts;
    jobs.addEventListener("change", () => this.#change());
    $("more").addEventListener("click", () => this.#try(() => this.#more()));
  }

  async #more() {
    const before = new Set(this.#cards.keys());
    await this.jobs.fetchOlder();
    // The button may be gone; whoever pressed it wants to go on with what came.
    const first = this.jobs.all().find((job) => this.#cards.has(job.id) && !before.has(job.id));
    if (first) this.#cards.get(first.id).card.querySelector("button").focus();
  }

  async #try(act) {
    try {
      await act();
    } catch (error) {
      this.acts.fail(error);
    }
  }

  #change() {
    const list = $("gallery");
    const jobs = this.jobs.all().filter(finished);
    const ids = new Set(jobs.map((job) => job.id));
    for (const [id, { card }] of this.#cards) {
      if (ids.has(id)) continue;
      card.remove();
      this.#cards.delete(id);
    }
    jobs.forEach((job, i) => {
      if (!this.#cards.has(job.id)) this.#cards.set(job.id, { card: this.#card(job) });
      const { card } = this.#cards.get(job.id);
      if (list.children[i] !== card) list.insertBefore(card, list.children[i] ?? null);
    });
    $("gallery-empty").hidden = jobs.length > 0;
    $("more").hidden = !this.jobs.older;
  }

  #card(job) {
    const id = `job-${job.id}`;
    const heading = el("h3", { id, textContent: titleOf(job), title: titleOf(job) });
    const body = el("div", { className: "card-body" }, heading);
    const line = (className, textContent) => body.append(el("p", { className, textContent }));
    if (job.spec.negative) line("note", `without ${job.spec.negative}`);
    if (job.state === "failed") line("bad", job.error ?? "It failed.");
    if (job.state === "cancelled") line("note", "Cancelled.");
    body.append(el("ul", { className: "facts" }, ...facts(job).map((fact) => el("li", { textContent: fact }))));
    const [first, rest] = this.#actions(job, id);
    body.append(first);
    const data = { className: "card", "data-id": job.id, "data-state": job.state };
    return el("li", data, this.#thumbs(job), body, rest);
  }

  #thumbs(job) {
    const images = job.images ?? [];
    if (images.length === 0) return null;
    const shown = images.slice(0, SHOWN).map((picture, k) => {
      const image = el("img", { alt: altOf(job, k) });
      show(image, picture);
      const button = el("button", { type: "button", className: "thumb" }, image);
      const rest = images.length - SHOWN;
      if (k === SHOWN - 1 && rest > 0) {
        button.append(el("span", { className: "rest", textContent: `+${rest}` }));
      }
      button.addEventListener("click", () => this.acts.view(job, k));
      return button;
    });
    return el("div", { className: "thumbs", "data-count": shown.length }, ...shown);
  }

  // What is wanted most, and the rest, which is folded away.
  #actions(job, id) {
    const button = (action, text, act) => {
      const names = { "data-action": action, "aria-describedby": id };
      const made = el("button", { type: "button", textContent: text, ...names });
      made.addEventListener("click", () => this.#try(act));
      return made;
    };
    const names = files(job);
    const beside = [job.init && names.init, job.mask && names.mask].filter(Boolean).join(" and ");
    const copied = beside ? `Copied. It reads ${beside}; save them beside it.` : "Copied as a command.";
    const more = [
      button("command", "Copy as command", () => copy(command(job), copied)),
      button("curl", "Copy as curl", () => copy(curl(job, location.origin, hasKey()), "Copied as curl.")),
    ];
    const images = job.images ?? [];
    if (images.length === 1) {
      more.push(
        button("start", "Start from this", () => this.acts.start(job, 0)),
        button("download", "Download", () => download(images[0].url, fileName(job, 0))),
      );
    } else if (images.length > 1) {
      more.push(button("download", `Download all ${images.length}`, () => all(job)));
    }
    const from = (name) => `/api/v1/jobs/${encodeURIComponent(job.id)}/${name}.png`;
    if (job.init) more.push(button("init", "Save start picture", () => download(from("init"), names.init)));
    if (job.mask) more.push(button("mask", "Save mask", () => download(from("mask"), names.mask)));
    const away = button("delete", "Delete", () => this.#delete(job));
    away.classList.add("danger");
    more.push(away);
    const rest = el("div", { className: "rest-actions", id: `more-${job.id}`, hidden: true }, ...more);
    const open = button("more", "More", () => {
      rest.hidden = !rest.hidden;
      open.setAttribute("aria-expanded", String(!rest.hidden));
    });
    open.setAttribute("aria-expanded", "false");
    open.setAttribute("aria-controls", rest.id);
    const first = [
      button("repeat", "Repeat", () => this.acts.repeat(job)),
      button("use", "Use settings", () => this.acts.use(job)),
    ];
    return [el("div", { className: "actions" }, ...first, open), rest];
  }

  async #delete(job) {
    const count = job.images?.length ?? 0;
    const what = count ? `Delete this job and its ${plural(count, "picture")}?` : "Delete this job?";
    if (!(await confirmed(`${what} It cannot be undone.`, "Delete"))) return;
    const card = this.#cards.get(job.id)?.card;
    const next = card?.nextElementSibling ?? card?.previousElementSibling;
    await this.jobs.remove(job.id);
    forget(job);
    (next?.querySelector("[data-action]") ?? $("gallery-heading")).focus();
  }
}

async function all(job) {
  for (const [k, { url }] of job.images.entries()) await download(url, fileName(job, k));
}

/// The settings of a job in few words; what it does not say was the model's own.
function facts(job) {
  const { spec } = job;
  const picture = job.images?.[0];
  const width = picture?.width ?? spec.width;
  const height = picture?.height ?? spec.height;
  const seed = seedOf(job);
  const number = (name, value) => (value === null || value === undefined ? null : `${name} ${value}`);
  return [
    spec.model,
    partText(spec.sampler) || null,
    partText(spec.grid) || null,
    spec.steps ? plural(spec.steps, "step") : null,
    number("guidance", spec.guidance),
    ...(spec.taps ?? []).map(partText),
    number("seed", seed),
    width && height ? `${width} × ${height}` : null,
    job.mask ? "repainted" : job.init ? "from a picture" : null,
    job.init ? number("strength", spec.strength) : null,
    moment(job.created),
  ].filter(Boolean);
}
