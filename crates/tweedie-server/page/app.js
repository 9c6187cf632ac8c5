// The page of the server: puts its parts together, sends what the form says, and shows errors.

import { ApiError, LostError, blob, get } from "./app-api.js";
import { repeated, seedOf } from "./app-command.js";
import { connection } from "./app-connection.js";
import { $, cutOff, reveal, toast } from "./app-dom.js";
import { Form, FieldError } from "./app-form.js";
import { Gallery } from "./app-gallery.js";
import { Jobs } from "./app-jobs.js";
import { setUpKey } from "./app-key.js";
import { StartPicture, base64 } from "./app-picture.js";
import { Stage } from "./app-stage.js";
import { Viewer } from "./app-viewer.js";

let upload = 32 << 20;
let sending = false;
let retry = null;
let retryTimer = 0;
let picture = null;
// Whether the error that is shown is a request that got no answer.
let unsent = false;

const form = new Form((model) => picture?.allow(model));
picture = new StartPicture(form, fail);
const jobs = new Jobs();
const viewer = new Viewer({ start, seed, fail });
const stage = new Stage(jobs, { view: (job, k) => viewer.open(job, k), cancel });
new Gallery(jobs, { view: (job, k) => viewer.open(job, k), use, repeat, start, fail });

setUpKey(() => {
  clearError();
  load();
});
connection.addEventListener("back", () => {
  if (!form.model) load();
  if (!unsent) return;
  clearError();
  $("error").textContent =
    "The connection is back. Look at the queue before you send again: the last request may have arrived.";
});
jobs.addEventListener("change", () => {
  $("seed-last").disabled = lastSeed() === null;
});
$("seed-last").addEventListener("click", () => seed(lastSeed()));
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send(asked);
});
$("error-retry").addEventListener("click", () => retry && send(retry));
addEventListener("keydown", (event) => {
  if (event.isComposing || event.defaultPrevented) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && $("form").contains(event.target)) {
    event.preventDefault();
    $("form").requestSubmit();
  }
  // A dialog closes by Escape; the jobs of other people are not stopped by a stray key.
  const job = stage.running;
  if (event.key === "Escape" && !document.querySelector("dialog[open]") && job && jobs.isMine(job.id)) {
    event.preventDefault();
    stage.cancel();
  }
});
load();

/// Fetches what the form is made of. Each part does without the others.
async function load() {
  const parts = [
    get("/limits").then((limits) => {
      form.setLimits(limits);
      upload = limits.upload ?? upload;
      picture.side = limits.side ?? picture.side;
    }),
    get("/methods").then(({ methods }) => form.setMethods(methods)),
    get("/models").then(({ models }) => {
      form.setModels(models);
      if (models.length === 0) fail(new FieldError(null, "This server has no model to draw with."));
    }),
    jobs.refresh(),
  ];
  for (const done of await Promise.allSettled(parts)) {
    if (done.status === "rejected") fail(done.reason);
  }
}

async function asked() {
  const spec = form.spec();
  const body = await picture.body();
  return { ...body, spec: { ...spec, ...body.spec }, preview: true };
}

/// Sends what `make` comes to; one at a time, so that a second press is not a second job.
async function send(make) {
  if (sending) return;
  sending = true;
  clearError();
  $("generate").setAttribute("aria-disabled", "true");
  $("generate").textContent = "Sending…";
  try {
    const body = await make();
    checkSize(body);
    await jobs.submit(body);
    if (cutOff($("stage"))) reveal($("stage"));
  } catch (error) {
    fail(error, make);
  } finally {
    sending = false;
    $("generate").removeAttribute("aria-disabled");
    $("generate").textContent = "Generate";
  }
}

function checkSize({ init = "", mask = "" }) {
  if (init.length + mask.length <= upload) return;
  const most = Math.floor(upload / (1 << 20));
  throw new FieldError("init", `The picture is too large; the server takes at most ${most} MiB.`);
}

function clearError() {
  clearInterval(retryTimer);
  unsent = false;
  $("error").textContent = "";
  $("error-retry").hidden = true;
  form.mark(null);
}

/// Says what went wrong, and marks the field that it is about; `again` is what can be sent again.
function fail(error, again = null) {
  clearError();
  retry = again;
  const known = error instanceof ApiError || error instanceof LostError || error instanceof FieldError;
  if (!known) console.error(error);
  let text = known ? error.message : `The page has a fault: ${error.message}`;
  if (!/[.!?…]$/.test(text)) text += ".";
  text = text[0].toUpperCase() + text.slice(1);
  if (error.status === 429) text = busy(text, error.wait);
  unsent = error instanceof LostError && again !== null;
  if (error.status === 401) $("key-button").hidden = false;
  $("error").textContent = text;
  form.mark(error.param ?? null);
  if (!error.param && cutOff($("error"))) reveal($("error"));
}

// The server says when it will take more; trying again stays in the person's hands.
function busy(text, wait) {
  if (!retry) return text;
  const button = $("error-retry");
  let left = wait ?? 0;
  const tick = () => {
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left <= 0) clearInterval(retryTimer);
    left -= 1;
  };
  button.hidden = false;
  tick();
  retryTimer = setInterval(tick, 1000);
  return wait ? `${text} Wait ${wait} s, then try again.` : `${text} Wait a little, then try again.`;
}

async function cancel(job) {
  stage.cancelling(job, true);
  try {
    await jobs.cancel(job.id);
  } catch (error) {
    fail(error);
    jobs.refresh();
  } finally {
    if (jobs.get(job.id)?.state !== "running") stage.cancelling(job, false);
    else setTimeout(() => stage.cancelling(job, false), 10_000);
  }
}

function lastSeed() {
  for (const job of jobs.all()) {
    const last = seedOf(job);
    if (last !== null) return last;
  }
  return null;
}

function seed(value) {
  form.setSeed(value ?? "");
  $("seed").focus();
}

const startedFrom = (job) => {
  const base = `/api/v1/jobs/${encodeURIComponent(job.id)}`;
  return { init: job.init ? `${base}/init.png` : null, mask: job.mask ? `${base}/mask.png` : null };
};

async function fill(job) {
  const missing = form.fill(job.spec, seedOf(job));
  const { init, mask } = startedFrom(job);
  if (init) await picture.load(init, mask);
  else picture.clear();
  if (init && typeof job.spec.strength === "number") picture.strength = job.spec.strength;
  return missing;
}

/// Puts a job's settings into the form, and what it started from.
async function use(job) {
  clearError();
  const missing = await fill(job);
  if (missing.length) toast(`In the form, but for ${missing.join(", ")}.`);
  else toast("The settings are in the form.");
  // Not the prompt: on a phone the keyboard would cover what has been filled in.
  $("model").focus({ preventScroll: true });
  reveal($("model"));
}

/// Draws a job again. Its own spec is sent, which may hold what the form has no field for.
async function repeat(job) {
  await fill(job);
  const { init, mask } = startedFrom(job);
  await send(async () => {
    const body = { spec: repeated(job), preview: true };
    if (init) body.init = await base64(await blob(init));
    if (mask) body.mask = await base64(await blob(mask));
    return body;
  });
}

async function start(job, k) {
  try {
    await picture.load(job.images[k].url);
    $("starting").open = true;
    toast("The next pictures start from this one.");
    $("strength").focus({ preventScroll: true });
    reveal($("easel"));
  } catch (error) {
    fail(error);
  }
}
