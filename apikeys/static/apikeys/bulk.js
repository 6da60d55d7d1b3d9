"use strict";
// Sends a bulk change in portions, one after the other, and shows a line for each key as it comes.
(() => {
    const form = document.getElementById("bulk-form");
    if (!form) {
        return;
    }
    const keys = JSON.parse(document.getElementById("bulk-keys").textContent);
    const size = Number(form.dataset.portion);
    const [results, progress, note, lines, errors] = ["results", "progress", "note", "lines", "errors"].map((name) =>
        document.getElementById(`bulk-${name}`),
    );
    const button = form.querySelector("button[type=submit]");
    let done = 0;

    const show = (line) => {
        const row = lines.insertRow();
        row.insertCell().textContent = line.name;
        const result = row.insertCell();
        result.textContent = line.result;
        result.classList.toggle("bad", !line.is_done);
    };
    const send = async (portion) => {
        const body = new FormData(form);
        body.delete("key");
        portion.forEach((key) => body.append("key", key));
        const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
        if (answer.status === 400) {
            for (const message of (await answer.json()).errors) {
                errors.appendChild(document.createElement("li")).textContent = message;
            }
            return false;
        }
        const outcome = await answer.json();
        results.hidden = false;
        outcome.lines.forEach(show);
        note.textContent = outcome.note;
        return true;
    };
    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        errors.replaceChildren();
        button.disabled = true;
        try {
            while (done < keys.length && (await send(keys.slice(done, done + size)))) {
                done = Math.min(keys.length, done + size);
                progress.value = done;
            }
        } catch {
            results.hidden = false;
            note.textContent = note.dataset.stopped;
        }
        button.disabled = done === keys.length;
    });
})();
