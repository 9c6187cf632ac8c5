// Small helpers for the document: finding and making elements, words for numbers and times, short
// notices, and the clipboard. Data only ever becomes text or a property, never markup.

export const $ = (id) => document.getElementById(id);

/// Makes an element; properties are set as properties, `data-` and `aria-` names as attributes.
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name in made && !name.includes("-")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/// Writes a text only where it differs: a live region that is written again is read again.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

export function duration(seconds) {
  if (seconds < 10 && !Number.isInteger(seconds)) return `${Math.max(0.1, seconds).toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds - minutes * 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/// A moment in Unix seconds: the time of day where it is today, else the date with it.
export function moment(seconds) {
  const then = new Date(seconds * 1000);
  const today = then.toDateString() === new Date().toDateString();
  const style = today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat("en-GB", style).format(then);
}

/// Moves the view to an element, at once for people who asked for less motion. In the narrow layout
/// it comes to the top; in the wide one no more is moved than has to be.
export function reveal(element) {
  const block = matchMedia("(min-width: 720px)").matches ? "nearest" : "start";
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ block, behavior: still ? "auto" : "smooth" });
}

/// Whether an element reaches beyond the window.
export function cutOff(element) {
  const box = element.getBoundingClientRect();
  return box.top < 0 || box.bottom > innerHeight;
}

let toastTimer = 0;

/// A notice at the edge of the window that goes by itself.
export function toast(text) {
  const place = $("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => {
    place.classList.remove("shown");
    place.textContent = "";
  }, 5000);
}

/// Copies a text. Pages that do not come over TLS or from this machine have no clipboard: there a
/// dialog shows the text, selected.
export async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    toast(done);
  } catch {
    const dialog = $("copy-dialog");
    $("copy-text").value = text;
    $("copy-close").onclick = () => dialog.close();
    dialog.showModal();
    $("copy-text").focus();
    $("copy-text").select();
  }
}

/// Asks before something that cannot be undone.
export function confirmed(text, yes) {
  const dialog = $("confirm-dialog");
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  return new Promise((resolve) => {
    let answer = false;
    $("confirm-no").onclick = () => dialog.close();
    $("confirm-yes").onclick = () => {
      answer = true;
      dialog.close();
    };
    dialog.addEventListener("close", () => resolve(answer), { once: true });
    dialog.showModal();
  });
}
