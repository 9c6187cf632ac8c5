// The dialog that asks for the server's key.

import { enterKey, onKeyNeeded } from "./app-api.js";
import { $ } from "./app-dom.js";

/// `after` runs when a person has given a key by the button in the header.
export function setUpKey(after) {
  const dialog = $("key-dialog");
  onKeyNeeded(
    (wrong) =>
      new Promise((resolve) => {
        let given = "";
        $("key").value = "";
        $("key-why").textContent = wrong
          ? "The server refused the key. It may have a space too many, or be an old one."
          : "It is kept until this tab is closed.";
        $("key-not").onclick = () => dialog.close();
        $("key-form").onsubmit = () => {
          given = $("key").value.trim();
        };
        dialog.addEventListener(
          "close",
          () => {
            $("key-button").hidden = given !== "";
            resolve(given);
          },
          { once: true },
        );
        dialog.showModal();
        $("key").focus();
      }),
  );
  $("key-button").addEventListener("click", async () => {
    await enterKey();
    after();
  });
}
