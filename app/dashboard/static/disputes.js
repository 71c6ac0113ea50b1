// Keys decide disputes, and the next one takes the place of the last without a reload. Buttons work without this.

const place = () => document.getElementById("dispute");
let isBusy = false;

async function go(address, form) {
  if (isBusy) return;
  isBusy = true;
  try {
    const body = form && new URLSearchParams(new FormData(form));
    const answer = await fetch(address, {method: form ? "POST" : "GET", body, headers: {Accept: "text/html"}});
    if (!answer.ok) throw new Error(`${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["dispute", "reviews"]) {
      document.getElementById(id).replaceChildren(...page.getElementById(id).childNodes);
    }
    history.replaceState(null, "", answer.url);
    place().focus({preventScroll: true});
    document.getElementById("said").textContent = page.querySelector("#dispute .hint, #dispute h2")?.textContent ?? "";
  } catch {
    // the plain way shows what is wrong
    if (form) form.submit();
    else location.assign(address);
  } finally {
    isBusy = false;
  }
}

function act(target) {
  const form = target.closest("form");
  return form ? go(form.action, form) : go(target.href);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("#dispute [data-key]");
  if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  act(target);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (!event.target.closest("#dispute") || event.target.closest("input, select, textarea")) return; // keys of that part alone
  const target = place()?.querySelector(`[data-key="${CSS.escape(event.key.toUpperCase())}"]`);
  if (!target) return;
  event.preventDefault();
  act(target);
});

if (document.activeElement === document.body) place()?.focus({preventScroll: true});
