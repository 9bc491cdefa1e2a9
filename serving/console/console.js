// What the pages of the console do beyond HTML. Without it they work the same, by mouse and tab.
"use strict";

// --- single keys: an element with data-key is focused if one can type into it, else pressed -------
const SWITCH = "recourse-single-keys";
const areOn = () => localStorage.getItem(SWITCH) !== "off";
const types = (element) => element.matches("input:not([type=checkbox]):not([type=radio]), textarea, select");

function rowFrom(step) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const here = rows.findIndex((row) => row.contains(document.activeElement) || row === document.activeElement);
  const next = rows[here < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(here + step, 0), rows.length - 1)];
  next?.focus();
}

// Opened by a key, a part of the page has the focus where one goes on.
function press(element) {
  element.click();
  if (element.matches("summary") && element.parentElement.open) {
    element.parentElement.querySelector("input:not([type=hidden]), textarea, select")?.focus();
  }
}

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.key === "Escape" && types(at)) return at.blur();
  // A form would be sent by its first button, which is not what a tick or a choice means.
  if (event.key === "Enter" && at.matches("input[type=radio], input[type=checkbox]")) return event.preventDefault();
  if (event.ctrlKey || event.metaKey || event.altKey || types(at) || !areOn()) return;
  if (event.key === "j" || event.key === "k") return rowFrom(event.key === "j" ? 1 : -1);
  if (event.key === "x" && at.matches("[data-row]")) return at.closest("tr")?.querySelector("input[type=checkbox]")?.click();
  const meant = [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === event.key);
  if (!meant) return;
  event.preventDefault();
  if (types(meant)) meant.focus(); else press(meant);
});

for (const button of document.querySelectorAll("[data-keys-switch]")) {
  const show = () => { button.textContent = areOn() ? button.dataset.off : button.dataset.on; };
  button.hidden = false;
  button.addEventListener("click", () => { localStorage.setItem(SWITCH, areOn() ? "off" : "on"); show(); });
  show();
}

// --- lists of which many are chosen -----------------------------------------------------------------
for (const all of document.querySelectorAll("input[data-select-all]")) {
  const each = () => [...document.querySelectorAll(`input[type=checkbox][name="${all.dataset.selectAll}"]`)];
  all.hidden = false;
  all.addEventListener("change", () => { for (const one of each()) one.checked = all.checked; });
}

// --- drafts: what was typed outlives another form of the same page, until its own form is sent ------
const DRAFT = `recourse-draft ${location.pathname} `;
if (!document.body.classList.contains("at-work")) sessionStorage.clear();
for (const field of document.querySelectorAll("[data-draft]")) {
  const chosen = field.matches("input[type=radio]");
  const name = DRAFT + field.name;
  const kept = sessionStorage.getItem(name);
  if (kept !== null && chosen) field.checked = field.value === kept;
  else if (kept !== null && !field.value) field.value = kept;
  field.addEventListener("input", () => sessionStorage.setItem(name, field.value));
  field.form?.addEventListener("submit", () => sessionStorage.removeItem(name));
}

// --- a link that leads to a line of a text ----------------------------------------------------------
for (const link of document.querySelectorAll("[data-select-line]")) {
  link.addEventListener("click", (event) => {
    const text = document.getElementById(link.dataset.of);
    if (!text) return;
    event.preventDefault();
    const lines = text.value.split("\n"), line = Number(link.dataset.selectLine);
    const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
    text.focus();
    text.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
    text.scrollTop = (line / lines.length) * text.scrollHeight - text.clientHeight / 2;
  });
}

// --- a form is sent once -----------------------------------------------------------------------------
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "yes";
  addEventListener("pageshow", () => { delete form.dataset.sent; }, { once: true });
});

// --- what is due: past its time it says so, though the page was made before --------------------------
setInterval(() => {
  for (const time of document.querySelectorAll("[data-countdown]")) {
    time.classList.toggle("bad", Number(time.dataset.countdown) <= Date.now());
  }
}, 15_000);
