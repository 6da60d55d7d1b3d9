"use strict";
// Select2 leaves the fields that it puts in place of a select without a name. They get the select's.
window.addEventListener("load", () => {
    document.querySelectorAll("select.select2-hidden-accessible").forEach((select) => {
        const label = select.id && document.querySelector(`label[for="${CSS.escape(select.id)}"]`);
        const name = (label ? label.textContent : select.getAttribute("aria-label") || select.name).trim();
        const shown = select.nextElementSibling;
        if (!shown) {
            return;
        }
        shown.querySelectorAll("[role=combobox], [role=textbox]").forEach((field) => {
            field.removeAttribute("aria-labelledby");
            field.setAttribute("aria-label", name);
        });
    });
});
