"use strict";
// SimpleBar names whatever it scrolls in English, unless it is told otherwise before it begins.
document.addEventListener("DOMContentLoaded", () => {
    const label = document.querySelector("meta[name=scrollable]");
    if (window.SimpleBar && label) {
        window.SimpleBar.defaultOptions.ariaLabel = label.content;
    }
});
