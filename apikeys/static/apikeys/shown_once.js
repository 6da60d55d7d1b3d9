"use strict";
// The page of a new key: leaving it without having copied the key asks first, and nothing of it stays behind.
(() => {
    const secrets = [...document.querySelectorAll("[data-holds-key]")];
    const ask = (event) => event.preventDefault();
    const release = () => window.removeEventListener("beforeunload", ask);
    if (!secrets.some((field) => field.dataset.isCopied)) {
        window.addEventListener("beforeunload", ask);
    }
    document.querySelector("[data-stored]").addEventListener("click", release);
    document.addEventListener("copied", (event) => {
        if (secrets.includes(event.target)) {
            release();
        }
    });
    secrets.forEach((field) => field.addEventListener("copy", release));
    // Browsers may keep a page to come back to it.
    window.addEventListener("pagehide", () => {
        for (const field of secrets) {
            field.value = field.defaultValue = "";
        }
    });
})();
