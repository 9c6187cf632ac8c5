// Pictures of the server in the page. An <img> cannot send the key, so with a key they are fetched,
// and only once they come near the window.

import { blob, hasKey } from "./app-api.js";
import { toast } from "./app-dom.js";

// Pictures up to this side are shown with their pixels as squares.
const SMALL = 160;

const fetched = new Map();
const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      fill(target, target.dataset.url);
    }
  },
  { rootMargin: "400px" },
);

async function fill(image, url) {
  try {
    if (!fetched.has(url)) fetched.set(url, blob(url).then((bytes) => URL.createObjectURL(bytes)));
    const local = await fetched.get(url);
    if (image.dataset.url === url) image.src = local;
  } catch {
    fetched.delete(url);
  }
}

/// Shows a picture of a job in an <img>; `wait` leaves it until it comes near.
export function show(image, { url, width, height }, wait = true) {
  image.dataset.url = url;
  image.width = width;
  image.height = height;
  sharpen(image, width, height);
  if (!hasKey()) {
    if (wait) image.loading = "lazy";
    image.src = url;
  } else if (wait) near.observe(image);
  else fill(image, url);
}

export function sharpen(image, width, height) {
  image.classList.toggle("pixels", Math.max(width, height) <= SMALL);
}

export async function forget(job) {
  for (const { url } of job.images ?? []) {
    const local = await fetched.get(url)?.catch(() => null);
    if (local) URL.revokeObjectURL(local);
    fetched.delete(url);
  }
}

/// What a job draws, for headings and descriptions.
export function titleOf(job) {
  const numbers = job.spec.classes ?? [];
  return job.spec.prompt || (numbers.length ? `class ${numbers.join(", ")}` : "no prompt");
}

export function altOf(job, k) {
  const count = job.images.length;
  return count > 1 ? `Picture ${k + 1} of ${count}: ${titleOf(job)}` : titleOf(job);
}

/// Saves a file of the server under a name.
export async function download(url, name) {
  const local = URL.createObjectURL(await blob(url));
  const link = document.createElement("a");
  link.href = local;
  link.download = name;
  link.click();
  // The browser has to have begun before the address goes.
  setTimeout(() => URL.revokeObjectURL(local), 60_000);
  toast(`Saved as ${name}.`);
}

/// A name that says what is in the file.
export function fileName(job, k) {
  const words = titleOf(job).toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const title = words.join("-").slice(0, 60).replace(/-$/, "") || "picture";
  return `${title}-${job.images[k].seed ?? k}.png`;
}
