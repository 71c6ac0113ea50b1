// Draws figures, follows the service while the page is seen, and keeps the theme. Pages are whole without it.

const root = document.documentElement;
root.classList.add("has-script");

// Figures: the data block of each <figure data-figure> goes to Plotly, `$name` being a colour of the style sheet

const probe = document.createElement("i"); // the computed colour of an element is the one of the theme
probe.hidden = true;
document.body.append(probe);

function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

function coloured(value) {
  if (typeof value === "string") return value.startsWith("$") ? colour(value.slice(1)) : value;
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

function drawAll() {
  return Promise.all([...document.querySelectorAll("[data-figure]")].map(draw));
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

for (const form of document.querySelectorAll("[data-submit-on-change]")) form.addEventListener("change", () => form.requestSubmit());

// Following: on an event of the page's topics the page is fetched again, and what is marked live takes its place

const topics = (document.body.dataset.live || "").split(" ").filter(Boolean);
const status = document.getElementById("live-status");
const MIN_GAP_MS = 1000;
let stream = null;
let lastId = null;
let isRefreshing = false;
let isWanted = false;

function say(text) {
  if (status && status.textContent !== text) status.textContent = text;
}

function replaceFigure(old, fresh) {
  const [was, is] = [old, fresh].map((figure) => figure.querySelector("script[type='application/json']"));
  if (!was || !is) return old.replaceWith(fresh);
  if (was.textContent === is.textContent) return undefined;
  was.textContent = is.textContent;
  for (const part of [".numbers tbody", "figcaption"]) {
    const [before, after] = [old.querySelector(part), fresh.querySelector(part)];
    if (before && after) before.replaceWith(after);
  }
  return draw(old);
}

function lookAgain() { // where the page says that something is still being worked out
  const wait = Number(document.querySelector("[data-again]")?.dataset.again);
  if (wait) setTimeout(refresh, wait);
}

export function take(page) {
  for (const old of document.querySelectorAll(".live[id]")) {
    const fresh = page.getElementById(old.id);
    if (!fresh || fresh.innerHTML === old.innerHTML || old.contains(document.activeElement)) continue;
    old.replaceChildren(...fresh.childNodes);
    old.classList.add("changed");
    old.addEventListener("animationend", () => old.classList.remove("changed"), {once: true});
  }
  for (const old of document.querySelectorAll("[data-figure]")) {
    const fresh = page.getElementById(old.id);
    if (fresh) replaceFigure(old, fresh);
  }
}

export async function refresh() {
  isWanted = true;
  if (isRefreshing) return;
  isRefreshing = true;
  while (isWanted) {
    isWanted = false;
    try {
      const answer = await fetch(location.href, {headers: {Accept: "text/html"}});
      if (answer.redirected || !answer.ok) {
        say("Signed out: load the page again");
        stream?.close();
        break;
      }
      take(new DOMParser().parseFromString(await answer.text(), "text/html"));
      say(`Updated ${new Date().toLocaleTimeString()}`);
      document.dispatchEvent(new CustomEvent("paced:refreshed"));
      lookAgain();
    } catch {
      say("The service does not answer; trying again");
    }
    await new Promise((resolve) => setTimeout(resolve, MIN_GAP_MS));
  }
  isRefreshing = false;
}

function follow() {
  if (document.hidden) {
    stream?.close();
    stream = null;
    say("Paused");
    return;
  }
  if (stream) return;
  stream = new EventSource(lastId === null ? "/live" : `/live?last=${encodeURIComponent(lastId)}`);
  const note = (event) => { lastId = event.lastEventId; };
  stream.addEventListener("ready", (event) => { note(event); say("Live"); });
  stream.addEventListener("changed", (event) => {
    note(event);
    if (JSON.parse(event.data).some((topic) => topics.includes(topic))) refresh();
  });
  stream.addEventListener("error", () => say("Not live; trying again"));
}

if (topics.length && status) {
  document.addEventListener("visibilitychange", follow);
  addEventListener("pagehide", () => { stream?.close(); stream = null; });
  follow();
}
drawAll();
lookAgain();
