// The jobs as the server knows them: fetched in pages, looked at again while some are unfinished, and
// one followed closely by its stream of events. Others look on through the events that it tells:
// `change` (the jobs), `progress` and `preview` (of the followed one).

import { ApiError, LostError, events, get, post } from "./app-api.js";
import { connection, isLost } from "./app-connection.js";
import { recall, remember } from "./app-store.js";

const PAGE = 24;
const EVERY = 4000;
const MINE = 200;

export const finished = (job) => !["queued", "running"].includes(job.state);

export class Jobs extends EventTarget {
  #jobs = new Map();
  #removed = new Set();
  #mine = recall("mine", []);
  #stream = null;
  #timer = 0;
  /// Whether the server has older jobs than those here.
  older = false;

  constructor() {
    super();
    connection.addEventListener("back", () => this.refresh());
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  get(id) {
    return this.#jobs.get(id) ?? null;
  }

  isMine(id) {
    return this.#mine.includes(id);
  }

  /// Newest first.
  all() {
    return [...this.#jobs.values()].sort((a, b) => b.created - a.created || (a.id < b.id ? 1 : -1));
  }

  /// In the order in which they are worked on.
  unfinished() {
    const turn = (job) => (job.state === "running" ? -1 : (job.position ?? 0));
    return this.all().filter((job) => !finished(job)).reverse().sort((a, b) => turn(a) - turn(b));
  }

  /// The job to look at: this browser's own before those of others.
  followed() {
    const jobs = this.unfinished();
    return jobs.find((job) => this.isMine(job.id)) ?? jobs[0] ?? null;
  }

  /// Fetches the newest jobs. Errors are silent here: a lost connection is told of elsewhere, and
  /// the next look may do.
  async refresh() {
    try {
      await this.#fetch();
    } catch (error) {
      if (!(error instanceof LostError || error instanceof ApiError)) throw error;
    }
    this.#again();
  }

  async #fetch() {
    const { jobs } = await get(`/jobs?limit=${PAGE}`, { quiet: true });
    const listed = new Set(jobs.map((job) => job.id));
    const full = jobs.length >= PAGE;
    if (this.#jobs.size === 0) this.older = full;
    const gap = full && !jobs.some((job) => this.#jobs.has(job.id));
    if (gap && this.#jobs.size > 0) {
      // So much is new that what lies between is unknown; the older pages come again by hand.
      this.#jobs.clear();
      this.older = true;
    }
    const oldest = full ? Math.min(...jobs.map((job) => job.created)) : -Infinity;
    for (const job of this.all()) {
      if (listed.has(job.id)) continue;
      // It stands where the list would show it, so it has been deleted elsewhere.
      if (job.created > oldest) this.#drop(job.id);
      else if (!finished(job)) await this.#look(job.id);
    }
    for (const job of jobs) this.#put(job);
    this.#changed();
  }

  async #look(id) {
    try {
      this.#put(await get(`/jobs/${encodeURIComponent(id)}`, { quiet: true }));
    } catch (error) {
      if (error.status !== 404) throw error;
      this.#drop(id);
    }
  }

  async fetchOlder() {
    const last = this.all().at(-1);
    const { jobs } = await get(`/jobs?limit=${PAGE}&before=${encodeURIComponent(last.id)}`);
    this.older = jobs.length >= PAGE;
    for (const job of jobs) this.#put(job);
    this.#changed();
  }

  async submit(body) {
    const job = await post("/jobs", body);
    this.#mine = [job.id, ...this.#mine].slice(0, MINE);
    remember("mine", this.#mine);
    this.#put(job);
    this.#changed();
    return this.get(job.id);
  }

  async cancel(id) {
    this.#put(await post(`/jobs/${encodeURIComponent(id)}/cancel`, {}));
    this.#changed();
  }

  async remove(id) {
    try {
      await post(`/jobs/${encodeURIComponent(id)}/delete`, {});
    } catch (error) {
      // It is gone already, which is what was wanted.
      if (error.status !== 404) throw error;
    }
    this.#drop(id);
    this.#changed();
  }

  #drop(id) {
    // An answer that was on its way could bring it back.
    this.#removed.add(id);
    this.#jobs.delete(id);
  }

  #put(job) {
    const before = this.#jobs.get(job.id);
    // Answers can overtake each other; what is finished stays so.
    if (this.#removed.has(job.id) || (before && finished(before) && !finished(job))) return;
    this.#jobs.set(job.id, job);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
    this.#follow();
    this.#again();
  }

  #again() {
    clearTimeout(this.#timer);
    if (this.unfinished().length === 0) return;
    this.#timer = setTimeout(() => (document.hidden || isLost() ? this.#again() : this.refresh()), EVERY);
  }

  // One stream at a time: browsers open few connections to one server, and pictures need some.
  #follow() {
    const id = this.followed()?.id ?? null;
    if (this.#stream?.id === id) return;
    this.#stream?.stop.abort();
    this.#stream = id === null ? null : { id, stop: new AbortController() };
    if (this.#stream) this.#listen(this.#stream);
  }

  async #listen(stream) {
    try {
      for await (const { name, data } of events(stream.id, stream.stop.signal)) {
        this.#hear(stream.id, name, data);
      }
    } catch (error) {
      if (stream.stop.signal.aborted) return;
      if (error.status === 404) this.#drop(stream.id);
      else if (!(error instanceof ApiError || error instanceof LostError)) throw error;
    } finally {
      // Where the stream broke off, the next look opens it again.
      if (this.#stream === stream) this.#stream = null;
    }
    this.#again();
  }

  #hear(id, name, data) {
    if (name === "state" || name === "end") {
      this.#put(data);
      this.#changed();
      // The places of those behind it have changed too.
      if (name === "end" && this.unfinished().length > 0) this.refresh();
      return;
    }
    const job = this.get(id);
    if (!job || finished(job)) return;
    if (name === "progress") {
      job.progress = data;
      if (job.state === "queued") job.state = "running";
      this.dispatchEvent(new CustomEvent("progress", { detail: job }));
    } else if (name === "preview") {
      this.dispatchEvent(new CustomEvent("preview", { detail: { job, png: data.png } }));
    }
  }
}
