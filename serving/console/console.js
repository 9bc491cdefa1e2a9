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

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.key === "Escape" && types(at)) return at.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || types(at) || !areOn()) return;
  if (event.key === "j" || event.key === "k") return rowFrom(event.key === "j" ? 1 : -1);
  const meant = [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === event.key);
  if (!meant) return;
  event.preventDefault();
  if (types(meant)) meant.focus(); else meant.click();
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
