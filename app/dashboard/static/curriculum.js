// Sliders and number fields move together, and what they would do is fetched and shown as they move.

import {take} from "./dashboard.js";

const form = document.getElementById("rule");
const WAIT_MS = 150;
let waiting = 0;
let asked = null;

function preview() {
  asked?.abort();
  asked = new AbortController();
  const address = `${form.action}?${new URLSearchParams(new FormData(form))}`;
  history.replaceState(null, "", address);
  const box = document.getElementById("preview");
  box.setAttribute("aria-busy", "true");
  fetch(address, {headers: {Accept: "text/html"}, signal: asked.signal})
    .then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error(answer.statusText))))
    .then((text) => {
      take(new DOMParser().parseFromString(text, "text/html"));
      box.removeAttribute("aria-busy");
    })
    .catch((error) => { if (error.name !== "AbortError") box.removeAttribute("aria-busy"); });
}

form?.addEventListener("input", ({target}) => {
  const twin = target.dataset.of ? document.getElementById(target.dataset.of) : form.querySelector(`[data-of="${target.name}"]`);
  if (twin) twin.value = target.value;
  clearTimeout(waiting);
  waiting = setTimeout(preview, WAIT_MS);
});
