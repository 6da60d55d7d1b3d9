// Sends files, a few at a time, and tells how far every import is until nothing more will happen by itself.

const form = document.getElementById("import-form");
const list = document.getElementById("import-list");
const status = document.getElementById("import-status");
const zone = document.getElementById("import-zone");
const input = document.getElementById("import-files");

const SENT_AT_ONCE = 2;
// As many as the server tells of in one answer.
const ASKED_AT_ONCE = 100;
const POLL_MILLISECONDS = 1_000;

const rows = [];
const queue = [];
let sending = 0;
let isPolling = false;

function words(name) {
    return form.dataset[name];
}

/** What a reader of the screen hears: when something ends, not each number on the way there. */
function summarize() {
    const own = rows.filter((row) => row.isOwn);
    if (own.length === 0) {
        return;
    }
    const failed = own.filter((row) => row.hasFailed).length;
    const over = own.filter((row) => row.isOver).length - failed;
    const text = words("summary").replace("[over]", over).replace("[all]", own.length).replace("[failed]", failed);
    if (status.textContent !== text) {
        status.textContent = text;
    }
}

function show(row, text, { value = null, max = null } = {}) {
    row.text.textContent = text;
    row.bar.hidden = row.isOver;
    if (max) {
        row.bar.max = max;
        row.bar.value = value;
    } else {
        row.bar.removeAttribute("value");
    }
    row.item.classList.toggle("failed", row.hasFailed);
    summarize();
}

function rowOf(item, isOwn) {
    const bar = document.createElement("progress");
    bar.hidden = true;
    item.append(bar);
    const row = {
        item, bar, isOwn, name: item.querySelector("a, strong"), text: item.querySelector(".import-text"),
        id: item.dataset.collection ?? null, isOver: "over" in item.dataset, hasFailed: false, most: 0,
    };
    bar.setAttribute("aria-label", row.name.textContent);
    rows.push(row);
    return row;
}

function add(files) {
    const added = [];
    // The first on top, above those of before.
    for (const file of [...files].reverse()) {
        const item = document.createElement("li");
        const name = document.createElement("strong");
        name.textContent = file.name;
        const text = document.createElement("span");
        text.className = "import-text";
        item.append(name, " ", text);
        list.prepend(item);
        const row = rowOf(item, true);
        if (file.size > Number(words("maximum"))) {
            fail(row, words("tooLarge"));
        } else {
            added.unshift({ row, file });
            show(row, words("queued"));
        }
    }
    queue.push(...added);
    document.getElementById("import-none").hidden = true;
    sendNext();
}

function sendNext() {
    while (sending < SENT_AT_ONCE && queue.length > 0) {
        sending += 1;
        const { row, file } = queue.shift();
        send(row, file).finally(() => {
            sending -= 1;
            sendNext();
        });
    }
}

function body(file) {
    const options = { datasetId: words("dataset"), parentId: form.elements.parent.value || null };
    const size = form.elements.chunk_size.valueAsNumber || Number(form.elements.chunk_size.value);
    if (size) {
        options.chunkSize = size;
    }
    const made = new FormData();
    made.append("data", JSON.stringify(options));
    made.append("file", file);
    return made;
}

function fail(row, reason) {
    row.isOver = row.hasFailed = true;
    show(row, `${words("failed")} ${reason}`);
}

/** One file. Not by fetch, which does not tell how much has been sent. */
function send(row, file) {
    return new Promise((resolve) => {
        const request = new XMLHttpRequest();
        request.open("POST", words("fileUrl"));
        request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
        request.responseType = "json";
        request.upload.addEventListener("progress", (event) => {
            show(row, words("sending"), { value: event.loaded, max: event.total });
        });
        request.addEventListener("load", () => {
            const id = request.response?.data?.collectionId;
            if (request.status === 200 && id) {
                row.id = id;
                show(row, words("sent"));
                poll();
            } else if (request.status === 503) {
                // It takes two files of a team at once, and somebody else may be sending one.
                show(row, words("queued"));
                const seconds = Number(request.getResponseHeader("Retry-After")) || 5;
                setTimeout(() => {
                    queue.push({ row, file });
                    sendNext();
                }, seconds * 1_000);
            } else {
                fail(row, request.response?.message ?? `HTTP ${request.status}`);
            }
        });
        request.addEventListener("error", () => fail(row, words("unreachable")));
        request.addEventListener("loadend", resolve);
        request.send(body(file));
    });
}

function take(row, collection) {
    row.isOver = collection.is_over;
    row.hasFailed = collection.has_failed;
    row.most = Math.max(row.most, collection.waiting);
    if (row.name.localName !== "a") {
        const link = document.createElement("a");
        link.href = collection.url;
        row.name.replaceWith(link);
        row.name = link;
    }
    row.name.textContent = collection.name;
    row.bar.setAttribute("aria-label", collection.name);
    show(row, collection.text, collection.is_read ? { value: row.most - collection.waiting, max: row.most } : {});
}

async function ask(asked) {
    const query = new URLSearchParams(asked.map((row) => ["collection", row.id]));
    const response = await fetch(`${words("stateUrl")}?${query}`, { headers: { Accept: "application/json" } });
    const collections = new Map((await response.json()).collections.map((one) => [one.id, one]));
    for (const row of asked) {
        if (collections.has(row.id)) {
            take(row, collections.get(row.id));
        } else {
            // Somebody has removed it meanwhile.
            row.isOver = true;
            row.item.remove();
        }
    }
}

async function poll() {
    if (isPolling) {
        return;
    }
    isPolling = true;
    try {
        for (;;) {
            const open = rows.filter((row) => row.id && !row.isOver);
            if (open.length === 0) {
                break;
            }
            if (!document.hidden) {
                await ask(open.slice(0, ASKED_AT_ONCE));
            }
            await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
        }
    } catch {
        status.textContent = words("lost");
    }
    isPolling = false;
}

for (const item of list.querySelectorAll("li")) {
    rowOf(item, false);
}
poll();

input.addEventListener("change", () => {
    add(input.files);
    // So that the same file can be chosen again, once it has been mended.
    input.value = "";
});
// A file that is dropped beside the zone would otherwise take this page's place.
for (const name of ["dragover", "drop"]) {
    window.addEventListener(name, (event) => {
        if (event.dataTransfer?.types.includes("Files")) {
            event.preventDefault();
        }
    });
}
zone.addEventListener("dragover", () => zone.classList.add("over"));
for (const name of ["dragleave", "drop"]) {
    zone.addEventListener(name, () => zone.classList.remove("over"));
}
zone.addEventListener("drop", (event) => add(event.dataTransfer.files));
window.addEventListener("beforeunload", (event) => {
    if (sending > 0) {
        event.preventDefault();
    }
});
