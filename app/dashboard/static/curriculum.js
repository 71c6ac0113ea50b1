// Sliders and number fields move together, and what they would do is fetched and shown as they move.

import {pageAt, take} from "./dashboard.js";

const WAIT_MS = 150;
let waiting = 0;
let asked = null;

function preview(form) {
  asked?.abort();
  asked = new AbortController();
  const address = `${form.action}?${new URLSearchParams(new FormData(form))}`;
  history.replaceState(null, "", address);
  const box = document.getElementById("preview");
  box.setAttribute("aria-busy", "true");
  pageAt(address, {signal: asked.signal})
    .then(take)
    .catch((error) => {
      if (error.name === "AbortError") return;
      const fault = Object.assign(document.createElement("p"), {className: "fault", textContent: `No preview: ${error.message}.`});
      box.replaceChildren(fault); // what stands there belongs to other sliders
    })
    .finally(() => box.removeAttribute("aria-busy"));
}

document.addEventListener("input", ({target}) => {
  const form = target.closest("#rule");
  if (!form) return;
  const twin = target.dataset.of ? document.getElementById(target.dataset.of) : form.querySelector(`[data-of="${target.name}"]`);
  if (twin) twin.value = target.value;
  clearTimeout(waiting);
  waiting = setTimeout(() => preview(form), WAIT_MS);
});
