// What the page remembers in the browser. Storage can be full, forbidden or broken by hand: then the
// page works without it.

const PREFIX = "tweedie.";

function read(storage, name, fallback) {
  try {
    return JSON.parse(storage().getItem(PREFIX + name)) ?? fallback;
  } catch {
    return fallback;
  }
}

function keep(storage, name, value) {
  try {
    if (value === null) storage().removeItem(PREFIX + name);
    else storage().setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Nothing is lost that the page cannot do without.
  }
}

// Functions, because reading the property alone throws where storage is forbidden.
const local = () => localStorage;
const session = () => sessionStorage;

export const recall = (name, fallback = null) => read(local, name, fallback);
export const remember = (name, value) => keep(local, name, value);
export const recallHere = (name, fallback = null) => read(session, name, fallback);
export const rememberHere = (name, value) => keep(session, name, value);
