"use strict";
// Charts that are drawn as wide as their place is, and again when that changes. Used by all pages.
const keepDrawn = (charts) => {
  const draw = (node, width) => {
    const { isDrawable, draw: make } = charts[node.id];
    if (!isDrawable()) {
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = "Nothing to draw.";
      node.replaceChildren(note);
      return;
    }
    const svg = make(width);
    svg.querySelectorAll("style").forEach((style) => style.remove()); // page.css says the same; the policy forbids others
    svg.setAttribute("aria-hidden", "true");
    node.replaceChildren(svg);
  };
  const widths = new Map();
  const resized = new ResizeObserver((entries) => entries.forEach(({ target, contentRect }) => {
    const width = Math.floor(contentRect.width);
    if (width > 0 && widths.get(target) !== width) {
      widths.set(target, width);
      draw(target, width);
    }
  }));
  Object.keys(charts).map((id) => document.getElementById(id)).filter(Boolean).forEach((node) => resized.observe(node));
};
