// Draws figures, follows the service while the page is seen, and keeps the theme. Pages are whole without it.

const root = document.documentElement;
root.classList.add("has-script");

// Figures: the data block of each <figure data-figure> goes to Plotly, `$name` being a colour of the style sheet

const probe = document.createElement("i"); // the computed colour of an element is the one of the theme
probe.hidden = true;
document.body.append(probe);

const colours = new Map(); // of the theme that is shown

function colour(name) {
  if (!colours.has(name)) {
    probe.style.color = `var(--${name})`;
    const isThere = getComputedStyle(root).getPropertyValue(`--${name}`) !== "";
    colours.set(name, isThere ? getComputedStyle(probe).color : `$${name}`);
  }
  return colours.get(name);
}

function coloured(value) {
  if (typeof value === "string") return /^\$[a-z][a-z0-9-]*$/.test(value) ? colour(value.slice(1)) : value;
  if (Array.isArray(value)) return value.map(coloured);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, coloured(item)]));
}

let plotly;

export function loadPlotly() {
  plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.body.dataset.plotly;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.min.js could not be loaded"));
    document.head.append(script);
  });
  return plotly;
}

export async function draw(figure) {
  const block = figure.querySelector("script[type='application/json']");
  const place = figure.querySelector(".plot");
  if (!block || !place) return;
  const library = await loadPlotly();
  const {data, layout} = coloured(JSON.parse(block.textContent));
  layout.font.family = getComputedStyle(document.body).fontFamily;
  const config = {responsive: true, displayModeBar: false, scrollZoom: false};
  await library.react(place, data, {...layout, uirevision: "kept"}, config);
  place.dataset.drawn = block.textContent.length;
}

const painted = () => new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve)); });

async function drawAll() { // one by one, so that the first is seen before the last is drawn
  colours.clear();
  for (const figure of document.querySelectorAll("[data-figure]")) {
    const isNew = !figure.querySelector(".plot")?.dataset.drawn;
    await draw(figure);
    if (isNew && !document.hidden) await painted();
  }
}

document.addEventListener("click", async (event) => {
  const figure = event.target.closest("[data-png]")?.closest("[data-figure]");
  if (!figure) return;
  const library = await loadPlotly();
  const place = figure.querySelector(".plot");
  const {width, height} = place.getBoundingClientRect();
  const paper = {paper_bgcolor: colour("surface")};
  const made = await library.toImage({data: place.data, layout: {...place.layout, ...paper}}, {format: "png", width, height, scale: 2});
  const link = Object.assign(document.createElement("a"), {href: made, download: `${figure.dataset.figure}.png`});
  link.click();
});

// Theme: the system's, or the one chosen here, which the server reads from the cookie so that no page flashes

const isDark = () => root.dataset.theme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);

document.querySelector("[data-theme-toggle]")?.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  document.cookie = `paced_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
  drawAll();
});
for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", drawAll);

document.addEventListener("change", (event) => event.target.closest("[data-submit-on-change]")?.requestSubmit());

// Following: on an event of the page's topics, and every now and then because silence is news too, the page is fetched
// again; what is marked live takes its place, or all of the page where it has other parts by now

const topics = (document.body.dataset.live || "").split(" ").filter(Boolean);
const status = document.getElementById("live-status");
const MIN_GAP_MS = 1000;
const MAX_GAP_MS = 30000;
const SILENCE_MS = 30000;
const TYPED = "input, select, textarea, button, a, summary";
let stream = null;
let lastId = null;
let isRefreshing = false;
let isWanted = false;
let isOver = false;

function say(text) {
  if (status && status.textContent !== text) status.textContent = text;
}

function over(text) {
  isOver = true;
  stream?.close();
  stream = null;
  say(text);
}

function replaceFigure(old, fresh) {
  const [was, is] = [old, fresh].map((figure) => figure.querySelector("script[type='application/json']"));
  if (!was || !is) {
    old.replaceWith(fresh);
    return draw(fresh);
  }
  if (was.textContent === is.textContent) return undefined;
  was.textContent = is.textContent;
  for (const part of [".numbers table", "figcaption"]) {
    const [before, after] = [old.querySelector(part), fresh.querySelector(part)];
    if (before && after) before.replaceWith(after);
  }
  return draw(old);
}

// What a reader has done to a part outlives its replacement: how to find it again, take it, and give it back
const KEPT = [
  [".scroll", (it) => [it.scrollLeft, it.scrollTop, it === document.activeElement],
    (it, [left, top, isFocused]) => { it.scrollTo(left, top); if (isFocused) it.focus({preventScroll: true}); }],
  ["details", (it) => it.open, (it, isOpen) => { it.open = isOpen; }],
  ["input[type=checkbox]", (it) => it.checked, (it, isChecked) => { it.checked = isChecked; }],
];

function replacePart(old, fresh) {
  const key = (it, place) => it.getAttribute("value") ?? it.getAttribute("aria-label") ?? place;
  const kept = KEPT.map(([selector, taken]) => new Map([...old.querySelectorAll(selector)].map((it, place) => [key(it, place), taken(it)])));
  old.replaceChildren(...fresh.childNodes);
  KEPT.forEach(([selector, , give], i) => old.querySelectorAll(selector).forEach((it, place) => {
    const found = kept[i].get(key(it, place));
    if (found !== undefined) give(it, found);
  }));
  old.classList.add("changed");
  old.addEventListener("animationend", () => old.classList.remove("changed"), {once: true});
}

const isBusyIn = (part) => part.contains(document.activeElement) && document.activeElement.matches(TYPED);

export function take(page) {
  for (const old of document.querySelectorAll(".live[id]")) {
    const fresh = page.getElementById(old.id);
    if (!fresh || fresh.innerHTML === old.innerHTML || isBusyIn(old)) continue;
    replacePart(old, fresh);
  }
  for (const old of document.querySelectorAll("[data-figure]")) {
    const fresh = page.getElementById(old.id);
    if (fresh) replaceFigure(old, fresh);
  }
}

const parts = (page) => [...page.querySelectorAll("main .live[id], main [data-figure], main .state")].map((it) => it.id).join();

function takeWhole(page) {
  const [old, fresh] = [document, page].map((one) => one.getElementById("main"));
  if (parts(document) === parts(page) || isBusyIn(old)) return take(page);
  old.replaceChildren(...fresh.childNodes);
  return drawAll();
}

function lookAgain() { // where the page says that something is still being worked out
  const wait = Number(document.querySelector("[data-again]")?.dataset.again);
  if (wait) setTimeout(refresh, wait);
}

export async function pageAt(address, options = {}) {
  const answer = await fetch(address, {...options, headers: {Accept: "text/html"}});
  if (answer.status === 401 || answer.status === 403 || new URL(answer.url).pathname === "/sign-in") {
    over("Signed out: load the page again");
    throw new Error("signed out");
  }
  if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

export async function refresh() {
  isWanted = true;
  if (isRefreshing) return;
  isRefreshing = true;
  let gap = MIN_GAP_MS;
  while (isWanted && !isOver && !document.hidden) {
    isWanted = false;
    try {
      takeWhole(await pageAt(location.href));
      gap = MIN_GAP_MS;
      if (stream) say("Live");
      document.getElementById("live-at").textContent = `updated ${new Date().toLocaleTimeString()}`;
      document.dispatchEvent(new CustomEvent("paced:refreshed"));
      lookAgain();
    } catch {
      isWanted = true;
      gap = Math.min(2 * gap, MAX_GAP_MS);
      if (!isOver) say("The service does not answer; trying again");
    }
    await new Promise((resolve) => setTimeout(resolve, gap));
  }
  isRefreshing = false;
}

function follow() {
  if (document.hidden) {
    stream?.close();
    stream = null;
    if (!isOver) say("Paused");
    return;
  }
  if (stream || isOver) return;
  stream = new EventSource(lastId === null ? "/live" : `/live?last=${encodeURIComponent(lastId)}`);
  const note = (event) => { lastId = event.lastEventId; };
  stream.addEventListener("ready", (event) => { note(event); say("Live"); });
  stream.addEventListener("changed", (event) => {
    note(event);
    if (JSON.parse(event.data).some((topic) => topics.includes(topic))) refresh();
  });
  stream.addEventListener("error", () => {
    say("Not live; trying again");
    if (stream?.readyState !== EventSource.CLOSED) return; // it comes back by itself
    stream = null;
    setTimeout(() => { follow(); refresh(); }, MAX_GAP_MS / 6);
  });
}

if (topics.length && status) {
  document.addEventListener("visibilitychange", () => { follow(); if (!document.hidden) refresh(); });
  addEventListener("pagehide", () => { stream?.close(); stream = null; });
  setInterval(() => { if (!document.hidden) refresh(); }, SILENCE_MS);
  follow();
}
drawAll();
lookAgain();
