// The server's HTTP API: JSON both ways, the key, errors in words, and the stream of events. It is
// read with fetch because EventSource cannot send the key.

import { recallHere, rememberHere } from "./app-store.js";

const BASE = "/api/v1";

/// An answer of the server that is an error.
export class ApiError extends Error {
  constructor(message, { status, param = null, wait = null }) {
    super(message);
    this.status = status;
    this.param = param;
    this.wait = wait;
  }
}

/// No answer at all.
export class LostError extends Error {
  constructor() {
    super("The server cannot be reached.");
  }
}

/// Tells `lost` when a request gets no answer, `reached` when one gets some.
export const net = new EventTarget();

// Seeds are 64 bits wide and JavaScript's numbers are not: a long one would come out as another
// seed. So seeds are text in this page. Inside a JSON string the quotes around the key would be
// escaped, so these patterns match keys alone.
const read = (text) => JSON.parse(text.replace(/"seed":\s*(\d+)/g, '"seed":"$1"'));
export const written = (value) => JSON.stringify(value).replace(/"seed":"(\d+)"/g, '"seed":$1');

let key = recallHere("key", "");
let asker = null;
let asking = null;
let declined = false;

export const hasKey = () => key !== "";

/// `ask(wrong)` shows the dialog and resolves to a key, or to an empty text.
export function onKeyNeeded(ask) {
  asker = ask;
}

/// One dialog for all requests that wait for the key.
function askKey() {
  asking ??= asker(key !== "").then((given) => {
    asking = null;
    declined = given === "";
    key = given;
    rememberHere("key", given || null);
  });
  return asking;
}

export async function enterKey() {
  declined = false;
  await askKey();
}

/// Sends a request; asks for the key where it is needed. Requests that nobody waits for (`quiet`) do
/// not ask again after a person has closed the dialog.
async function send(path, { body, signal, quiet = false } = {}) {
  if (!quiet) declined = false;
  for (;;) {
    const used = key;
    const headers = {};
    if (used) headers.Authorization = `Bearer ${used}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(path, {
        method: body === undefined ? "GET" : "POST",
        headers,
        body: body === undefined ? undefined : written(body),
        signal,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      net.dispatchEvent(new Event("lost"));
      throw new LostError();
    }
    net.dispatchEvent(new Event("reached"));
    if (answer.ok) return answer;
    if (answer.status === 401 && !declined) {
      // Another request may have asked in the meantime.
      if (used === key) await askKey();
      if (!declined) continue;
    }
    throw await errorOf(answer);
  }
}

async function errorOf(answer) {
  let said = {};
  try {
    said = (await answer.json()).error ?? {};
  } catch {
    // A proxy in between answers in HTML; the status has to do.
  }
  const wait = Number.parseInt(answer.headers.get("Retry-After") ?? "", 10);
  const plain = `The server answered ${answer.status} ${answer.statusText}`.trim();
  return new ApiError(said.message || plain, {
    status: answer.status,
    param: said.param ?? null,
    wait: Number.isFinite(wait) ? wait : null,
  });
}

export async function get(path, options) {
  return read(await text(await send(BASE + path, options)));
}

export async function post(path, body, options) {
  return read(await text(await send(BASE + path, { ...options, body })));
}

/// The bytes of a picture; `url` is one that the server gave.
export async function blob(url) {
  const answer = await send(url, { quiet: true });
  try {
    return await answer.blob();
  } catch {
    throw lost();
  }
}

// The connection can also break in the middle of an answer.
async function text(answer) {
  try {
    return await answer.text();
  } catch {
    throw lost();
  }
}

function lost() {
  net.dispatchEvent(new Event("lost"));
  return new LostError();
}

/// The events of a job as `{name, data}`, until the server or `signal` ends them.
export async function* events(id, signal) {
  const answer = await send(`${BASE}/jobs/${encodeURIComponent(id)}/events`, { signal, quiet: true });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      let part;
      try {
        part = await reader.read();
      } catch (error) {
        if (signal.aborted) throw error;
        throw lost();
      }
      if (part.done) return;
      rest += part.value;
      // An event ends with an empty line. A carriage return at the end may be half of a pair.
      const blocks = rest.replace(/\r\n|\r(?!$)/g, "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parsed(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at === 0) continue;
    const field = at < 0 ? line : line.slice(0, at);
    const value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
  }
  return data.length ? { name, data: read(data.join("\n")) } : null;
}
