// Live updates: each section is replaced by itself, never while something in it has the focus.
"use strict";
(() => {
  const live = document.getElementById("live");
  const mode = document.getElementById("mode");
  const time = document.getElementById("data-time");
  const problem = document.getElementById("problem");
  const pause = document.getElementById("pause");
  const RETRY_MS = 10000;
  const held = new Map();
  let seen = live.dataset.seen;
  let source = null;
  let retry = 0;
  let isPaused = false;

  const show = (name, text) => {
    live.dataset.mode = name;
    if (mode.textContent !== text) mode.textContent = text;
  };

  const showState = (hasProblem) => show(hasProblem ? "waiting" : "live", hasProblem ? "Waiting" : "Live");

  const replace = (name, html) => {
    const section = document.getElementById(name);
    if (!section) return;
    // A person is there: reading by keyboard, selecting or copying.
    const selection = document.getSelection();
    const isSelected = !selection.isCollapsed && selection.intersectsNode
      ? selection.rangeCount > 0 && selection.getRangeAt(0).intersectsNode(section)
      : !selection.isCollapsed && section.contains(selection.anchorNode);
    if (section.contains(document.activeElement) || isSelected) {
      held.set(name, html);
      return;
    }
    held.delete(name);
    const template = document.createElement("template");
    template.innerHTML = html;
    const fresh = template.content.firstElementChild;
    const open = new Map();
    for (const each of section.querySelectorAll("details[data-key]")) open.set(each.dataset.key, each.open);
    for (const each of fresh.querySelectorAll("details[data-key]")) {
      if (open.has(each.dataset.key)) each.open = open.get(each.dataset.key);
    }
    const places = [...section.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
    section.replaceWith(fresh);
    fresh.querySelectorAll(".scroll").forEach((each, index) => {
      if (places[index]) [each.scrollLeft, each.scrollTop] = places[index];
    });
  };

  const releaseHeld = () => {
    if (isPaused) return;
    for (const [name, html] of [...held]) replace(name, html);
  };

  const close = () => {
    window.clearTimeout(retry);
    if (source) source.close();
    source = null;
  };

  const open = () => {
    close();
    if (isPaused || document.hidden) return;
    const query = new URLSearchParams(live.dataset.query);
    query.set("seen", seen);
    source = new EventSource(`${live.dataset.events}?${query}`);
    source.addEventListener("open", () => showState(!problem.hidden));
    source.addEventListener("section", (event) => {
      const { name, html } = JSON.parse(event.data);
      replace(name, html);
    });
    source.addEventListener("state", (event) => {
      if (event.lastEventId) seen = event.lastEventId;
      const state = JSON.parse(event.data);
      time.textContent = state.text;
      problem.hidden = !state.problem;
      if (problem.textContent !== (state.problem || "")) problem.textContent = state.problem || "";
      showState(state.problem);
    });
    source.addEventListener("over", () => window.location.reload());
    source.addEventListener("error", () => {
      show("waiting", "Reconnecting");
      // The browser itself comes back after a cut, but not after a refusal.
      if (source && source.readyState === EventSource.CLOSED) {
        close();
        retry = window.setTimeout(open, RETRY_MS);
      }
    });
  };

  document.getElementById("reload").hidden = true;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    pause.textContent = isPaused ? "Resume updates" : "Pause updates";
    if (isPaused) {
      close();
      show("paused", "Paused");
    } else {
      releaseHeld();
      open();
    }
  });
  // After the focus has moved.
  document.addEventListener("focusout", () => window.setTimeout(releaseHeld));
  document.addEventListener("selectionchange", () => {
    if (held.size) window.setTimeout(releaseHeld);
  });
  // A hidden tab needs no stream; a browser has few connections per host.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  open();
})();
