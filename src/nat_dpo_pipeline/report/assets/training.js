"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const curves = JSON.parse(byId("curves").textContent);

  const frame = (width, y, marks) => vendor.plot({
    width, height: 250, marginLeft: 46, marginRight: 12, marginBottom: 38, style: { fontSize: "12px" },
    x: { label: "step" }, y: { grid: true, ticks: 5, ...y }, marks,
  });
  const at = (points, scale = 1) => points.map(([step, value]) => [step, scale * value]);
  const curve = (points, stroke, options = {}) => [
    vendor.line(points, { stroke, strokeWidth: 2, ...options }),
    ...(points.length < 40 ? [vendor.dot(points, { fill: stroke, r: 3 })] : []),
  ];

  const charts = {
    "chart-accuracy": {
      points: [...curves.trainingAccuracy, ...curves.heldOutAccuracy],
      draw: (width) => frame(width, { label: "% of the pairs", domain: [0, 100] }, [
        vendor.ruleY([50], { stroke: "var(--muted)", strokeDasharray: "3,3" }),
        vendor.line(at(curves.trainingAccuracy, 100), { stroke: "var(--muted)", strokeWidth: 1.5 }),
        ...curve(at(curves.heldOutAccuracy, 100), "var(--chosen)"),
      ]),
    },
    "chart-loss": {
      points: curves.loss,
      draw: (width) => frame(width, { label: "loss", zero: true }, curve(at(curves.loss), "var(--accent)")),
    },
    "chart-margin": {
      points: curves.heldOutMargin,
      draw: (width) => frame(width, { label: "nats" }, [
        vendor.ruleY([0], { stroke: "var(--muted)" }),
        ...curve(at(curves.heldOutMargin), "var(--chosen)"),
      ]),
    },
  };

  const draw = (node, width) => {
    const chart = charts[node.id];
    if (!chart.points.length) {
      node.textContent = "Nothing to draw.";
      return;
    }
    const svg = chart.draw(width);
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
  Object.keys(charts).forEach((id) => resized.observe(byId(id)));
  document.documentElement.dataset.ready = "yes";
})();
