"use strict";
// Select2 leaves the fields that it puts in place of a select without a name. They get the select's,
// whenever one is made: after the page is read, or with a row that is added to a form.
(() => {
    function named(select) {
        const shown = select.nextElementSibling;
        const label = select.id && document.querySelector(`label[for="${CSS.escape(select.id)}"]`);
        const name = (label ? label.textContent : select.getAttribute("aria-label") || select.name).trim();
        shown?.querySelectorAll("[role=combobox], [role=textbox], [role=searchbox]").forEach((field) => {
            field.removeAttribute("aria-labelledby");
            field.setAttribute("aria-label", name);
        });
    }
    function nameAll() {
        // Django names the icons beside its filters of choices, but gives them no role that may have a name.
        document.querySelectorAll(".search-label-icon:not([role])").forEach((icon) => icon.setAttribute("role", "img"));
        document.querySelectorAll("select.select2-hidden-accessible").forEach(named);
    }
    document.addEventListener("DOMContentLoaded", () => {
        nameAll();
        new MutationObserver((changes) => {
            if (changes.some((change) => change.addedNodes.length)) {
                nameAll();
            }
        }).observe(document.body, { childList: true, subtree: true });
    });
})();
