// What the page needs of two libraries. How vendor.js is made of it: vendor.md.
export {plot, barX, dot, gridX, gridY, axisX, axisY, line, link, rect, rectY, ruleX, ruleY, text} from "@observablehq/plot";
export {diffWordsWithSpace} from "diff";
