// The commands that make a job's pictures again: `tweedie generate`, and curl against this server.
// They are quoted for a POSIX shell.

import { written } from "./app-api.js";
import { partText } from "./app-parts.js";

/// A word as the shell reads it back: within single quotes nothing is special but the quote itself.
export const quote = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

const word = (text) => (/^[\w/:=.,@%+-]+$/.test(text) ? String(text) : quote(text));

/// The seed that a job had: asked for, or drawn by the server.
export function seedOf(job) {
  return job.spec?.seed ?? job.seed ?? job.images?.[0]?.seed ?? null;
}

/// The spec that draws the same pictures again.
export function repeated(job) {
  const spec = Object.fromEntries(Object.entries(job.spec).filter(([, value]) => value !== null));
  const seed = seedOf(job);
  return seed === null ? spec : { ...spec, seed: String(seed) };
}

export function command(job) {
  const spec = repeated(job);
  const prompt = spec.prompt ?? "";
  const words = ["tweedie", "generate"];
  // A value that begins with a dash would be read as an option of its own.
  const option = (name, value) => {
    if (value === null || value === undefined || value === "") return;
    if (String(value).startsWith("-")) words.push(`--${name}=${word(value)}`);
    else words.push(`--${name}`, word(value));
  };
  if (prompt.startsWith("-")) words.push(`--prompt-text=${quote(prompt)}`);
  else if (prompt || !spec.classes?.length) words.push(quote(prompt));
  option("model", spec.model);
  if (!prompt && spec.classes?.length) option("class", spec.classes.join(","));
  option("negative", spec.negative);
  option("sampler", partText(spec.sampler));
  option("grid", partText(spec.grid));
  option("steps", spec.steps);
  option("guidance", spec.guidance);
  for (const guide of spec.guides ?? []) option("guide", partText(guide));
  for (const tap of spec.taps ?? []) option("tap", partText(tap));
  option("seed", spec.seed);
  option("count", spec.count);
  if (spec.width && spec.height) option("size", `${spec.width}x${spec.height}`);
  else {
    option("width", spec.width);
    option("height", spec.height);
  }
  if (job.init) option("init", files(job).init);
  if (job.mask) option("mask", files(job).mask);
  if (job.init) option("strength", spec.strength);
  return words.join(" ");
}

/// The names under which the page saves what a job started from, which the commands name too.
export const files = (job) => ({ init: `${job.id}-init.png`, mask: `${job.id}-mask.png` });

export function curl(job, origin, withKey) {
  const key = withKey ? ` -H ${quote("Authorization: Bearer YOUR_KEY")}` : "";
  const body = written({ spec: repeated(job) });
  const url = quote(`${origin}/api/v1/jobs`);
  const post = `curl -sS -X POST ${url}${key} -H ${quote("Content-Type: application/json")}`;
  if (!job.init) return `${post} -d ${quote(body)}`;
  // A picture is too long for an argument, so the body is put together in a pipe.
  const inner = (name) => {
    const from = quote(`${origin}/api/v1/jobs/${job.id}/${name}.png`);
    return `curl -sS ${from}${key} | base64 | tr -d '\\n'`;
  };
  const pieces = [`printf %s ${quote(`${body.slice(0, -1)},"init":"`)}`, inner("init")];
  if (job.mask) pieces.push(`printf %s ${quote('","mask":"')}`, inner("mask"));
  pieces.push(`printf %s ${quote('"}')}`);
  return `{ ${pieces.join("; ")}; } | ${post} --data-binary @-`;
}
