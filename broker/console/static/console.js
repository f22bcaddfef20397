// Progressive enhancement: every page works without this. It counts down, and keeps live pages live.
"use strict";

const policy = window.trustedTypes
  ? window.trustedTypes.createPolicy("console", { createHTML: (html) => html })
  : { createHTML: (html) => html };

// The server's clock, as far as this page knows it.
const born = Number(document.body.dataset.now) || Date.now();
const drift = born - Date.now();
const now = () => Date.now() + drift;

const UNITS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
function span(ms) {
  let left = Math.max(0, Math.floor(ms / 1000));
  const parts = [];
  for (const [size, unit] of UNITS) {
    if (left >= size || unit === "s" || parts.length) {
      parts.push(Math.floor(left / size) + unit);
      left %= size;
    }
  }
  return parts.slice(0, 2).join(" ");
}

function tick() {
  const at = now();
  for (const time of document.querySelectorAll("time[data-until]")) {
    const left = Number(time.dataset.until) - at;
    time.textContent = left > 0 ? "in " + span(left) : "due";
    time.classList.toggle("soon", left < 30000);
  }
  for (const time of document.querySelectorAll("time[data-since]")) {
    time.textContent = span(at - Number(time.dataset.since)) + " ago";
  }
}

function follow(live) {
  const said = document.getElementById("live-state");
  const pause = document.getElementById("live-pause");
  let source = null;
  let paused = false;

  const say = (text, bad) => {
    if (said.textContent !== text) said.textContent = text;
    said.classList.toggle("bad", bad);
  };
  const show = (html) => {
    const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
    live.innerHTML = policy.createHTML(html);
    if (focused) document.getElementById(focused)?.focus();
    tick();
  };
  const open = () => {
    source = new EventSource(live.dataset.stream);
    source.addEventListener("open", () => say("Live", false));
    source.addEventListener("page", (event) => {
      say("Live", false);
      show(JSON.parse(event.data));
    });
    source.addEventListener("beat", () => say("Live", false));
    source.addEventListener("trouble", (event) => say(JSON.parse(event.data), true));
    source.addEventListener("end", () => {
      source.close();
      say("Ended: reload the page.", true);
    });
    source.addEventListener("error", () => {
      const over = source.readyState === EventSource.CLOSED;
      say(over ? "Not live: reload the page." : "Connection lost, trying again.", true);
    });
  };
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    if (paused) {
      source.close();
      say("Paused", false);
    } else {
      open();
    }
  });
  open();
}

tick();
setInterval(tick, 1000);
for (const live of document.querySelectorAll("[data-stream]")) follow(live);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const open of document.querySelectorAll("details.who[open]")) open.open = false;
});
