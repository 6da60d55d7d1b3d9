"use strict";
// A button with data-copies copies the value of the field that it names.
document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copies]");
    if (!button) {
        return;
    }
    const field = document.getElementById(button.dataset.copies);
    field.select();
    try {
        await navigator.clipboard.writeText(field.value);
    } catch {
        // Browsers give the clipboard to pages over HTTPS or from this machine only.
        if (!document.execCommand("copy")) {
            return;
        }
    }
    button.textContent = button.dataset.copied;
    // For a script that loads after the click.
    field.dataset.isCopied = "true";
    field.dispatchEvent(new Event("copied", { bubbles: true }));
});
