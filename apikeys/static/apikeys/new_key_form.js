"use strict";
// A field with data-shown-when="other=value" is shown while the form's field `other` has that value. Hidden, it is
// not sent either. Without this script every field is there, and the server says what does not fit.
document.querySelectorAll("form").forEach((form) => {
    const fields = [...form.querySelectorAll("[data-shown-when]")];
    const update = () => {
        const values = new FormData(form);
        for (const field of fields) {
            const [name, value] = field.dataset.shownWhen.split("=");
            const isShown = values.get(name) === value;
            field.closest(".form-row").hidden = !isShown;
            field.disabled = !isShown;
        }
    };
    if (fields.length) {
        form.addEventListener("change", update);
        update();
    }
});
// A complaint must not hide in what is folded away.
document.querySelectorAll("details:has(.errors)").forEach((details) => {
    details.open = true;
});
