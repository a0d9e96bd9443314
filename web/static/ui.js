// What pages do with a script; each works without.
"use strict";
(() => {
  const kept = (name, value) => {
    try {
      if (value === undefined) return localStorage.getItem(name);
      localStorage.setItem(name, value);
    } catch { return null; }
  };
  const each = (selector, act, within = document) => within.querySelectorAll(selector).forEach(act);

  // Times in the zone of whoever looks, which can be changed to UTC.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const inUTC = () => kept("utc") === "1";
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });
  function tellTimes(within = document) {
    const format = new Intl.DateTimeFormat(undefined, {
      dateStyle: "medium", timeStyle: "short", timeZone: inUTC() ? "UTC" : zone });
    each("time[datetime]", (time) => {
      const at = new Date(time.dateTime);
      if (!("ago" in time.dataset)) { time.textContent = format.format(at); return; }
      const away = (at - Date.now()) / 1000;
      const [unit, size] = units.find(([, seconds]) => Math.abs(away) >= seconds) || units[3];
      time.textContent = relative.format(Math.trunc(away / size), unit);
    }, within);
    const button = document.getElementById("zone");
    button.hidden = false;
    button.textContent = inUTC() ? "UTC" : zone;
    each("[data-zone]", (said) => { said.textContent = button.textContent; });
    button.title = inUTC() ? `show times of ${zone}` : "show UTC";
  }
  document.getElementById("zone").addEventListener("click", () => { kept("utc", inUTC() ? "0" : "1"); tellTimes(); });

  // Live parts: they can be paused, and pause while nobody looks or something of them is chosen.
  const pause = document.getElementById("pause");
  const isPaused = () => pause.getAttribute("aria-pressed") === "true";
  if (document.querySelector("[hx-trigger^=every]")) pause.hidden = false;
  pause.addEventListener("click", () => {
    pause.setAttribute("aria-pressed", String(!isPaused()));
    pause.textContent = isPaused() ? "Go on refreshing" : "Pause refresh";
  });
  document.addEventListener("htmx:config:request", (event) => {
    const chosen = document.querySelector("#live input:checked, #live select:focus");
    if (isPaused() || document.hidden || chosen) event.preventDefault();
  });
  // An answer that is another page, as when the session is over, does not take the place of the live part.
  document.addEventListener("htmx:before:swap", (event) => {
    if (!event.detail.ctx.text.includes('id="live"')) event.preventDefault();
  });
  document.addEventListener("htmx:after:swap", () => tellTimes());

  // Keys.
  const help = document.getElementById("help");
  const open = document.getElementById("help-open");
  open.hidden = false;
  open.addEventListener("click", () => help.showModal());
  let began = 0;
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "?") { help.showModal(); event.preventDefault(); return; }
    if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (search) { search.focus(); event.preventDefault(); }
      return;
    }
    if (event.key === "g") { began = Date.now(); return; }
    if (Date.now() - began < 1500) {
      const link = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
      if (link) location.href = link.href;
    }
    began = 0;
  });

  // Copying, and a question before what cannot be taken back.
  each("[data-copy]", (button) => {
    if (!navigator.clipboard) return;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  });
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
    // A time that is typed is of the zone that is shown; the server would take it for UTC.
    each("input[type=datetime-local]", (input) => {
      if (!input.value || inUTC()) return;
      const sent = Object.assign(document.createElement("input"), {
        type: "hidden", name: input.name, value: new Date(input.value).toISOString() });
      input.removeAttribute("name");
      input.after(sent);
    }, event.target);
  });
  tellTimes();
  setInterval(() => { if (!document.hidden) tellTimes(); }, 30000);
})();
