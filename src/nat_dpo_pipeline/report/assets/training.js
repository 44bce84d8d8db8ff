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

  keepDrawn({
    "chart-accuracy": {
      isDrawable: () => [...curves.trainingAccuracy, ...curves.heldOutAccuracy].length > 0,
      draw: (width) => frame(width, { label: "% of the pairs", domain: [0, 100] }, [
        vendor.ruleY([50], { stroke: "var(--muted)", strokeDasharray: "3,3" }),
        vendor.line(at(curves.trainingAccuracy, 100), { stroke: "var(--muted)", strokeWidth: 1.5 }),
        ...curve(at(curves.heldOutAccuracy, 100), "var(--chosen)"),
      ]),
    },
    "chart-loss": {
      isDrawable: () => curves.loss.length > 0,
      draw: (width) => frame(width, { label: "loss", zero: true }, curve(at(curves.loss), "var(--accent)")),
    },
    "chart-margin": {
      isDrawable: () => curves.heldOutMargin.length > 0,
      draw: (width) => frame(width, { label: "nats" }, [
        vendor.ruleY([0], { stroke: "var(--muted)" }),
        ...curve(at(curves.heldOutMargin), "var(--chosen)"),
      ]),
    },
  });
  document.documentElement.dataset.ready = "yes";
})();
