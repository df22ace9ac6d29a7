"use strict";

// Not a module: it runs before the page is drawn, so that the page does not change its colours.
const kept = localStorage.getItem("theme");
if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
