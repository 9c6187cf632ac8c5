// Whether the server answers: says so when it stops, tries again at growing intervals, and tells the
// rest of the page when it is back.

import { get, net } from "./app-api.js";
import { $, toast, write } from "./app-dom.js";

const LONGEST = 15;

/// Tells `back` after a loss.
export const connection = new EventTarget();

let lost = false;
let wait = 1;
let timer = 0;

export const isLost = () => lost;

net.addEventListener("lost", () => {
  if (lost) return;
  lost = true;
  wait = 1;
  write($("server"), "not connected");
  $("server").dataset.state = "lost";
  $("connection").hidden = false;
  write($("connection-text"), "The connection to the server is lost. The page keeps trying.");
  later();
});

net.addEventListener("reached", () => {
  write($("server"), "connected");
  $("server").dataset.state = "ok";
  if (!lost) return;
  lost = false;
  clearTimeout(timer);
  $("connection").hidden = true;
  toast("Connected again.");
  connection.dispatchEvent(new Event("back"));
});

function later() {
  clearTimeout(timer);
  timer = setTimeout(probe, wait * 1000);
  wait = Math.min(LONGEST, wait * 2);
}

async function probe() {
  try {
    await get("/jobs?limit=1", { quiet: true });
  } catch {
    // An answer that is an error is an answer; `net` has told which it was.
    if (lost) later();
  }
}

$("connection-retry").addEventListener("click", () => {
  wait = 1;
  clearTimeout(timer);
  probe();
});
