// One key per label, as its button says.
"use strict";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.matches("input")) return;
  const key = event.key.toLowerCase();
  for (const each of document.querySelectorAll("[data-key]")) if (each.dataset.key === key) each.click();
});
