import { render } from "./markdown.js";

const form = document.getElementById("try");
const part = (name) => document.getElementById(`try-${name}`);
// So much of the raw events is shown; an answer may be longer than what a page can hold.
const SHOWN_EVENTS = 200_000;

let conversation = [];
let running = null;

function bubble(role, name) {
    const made = document.createElement("article");
    made.className = `try-message ${role}`;
    const title = document.createElement("h3");
    title.textContent = name;
    const body = document.createElement("div");
    body.className = "try-text";
    made.append(title, body);
    part("messages").append(made);
    return body;
}

/** The events of a stream, each as {raw, name, data}. */
async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
        const { value, done } = await reader.read();
        rest += value ?? "";
        const whole = rest.split("\n\n");
        rest = whole.pop();
        for (const raw of whole) {
            const event = { raw, name: "", data: "" };
            for (const line of raw.split("\n")) {
                if (line.startsWith("event: ")) {
                    event.name = line.slice(7);
                } else if (line.startsWith("data: ")) {
                    event.data += line.slice(6);
                }
            }
            yield event;
        }
        if (done) {
            return;
        }
    }
}

function showSteps(steps) {
    part("steps").replaceChildren(
        ...steps.map((step) => {
            const row = document.createElement("tr");
            const cells = [
                step.moduleName, step.model, step.runningTime, step.inputTokens, step.outputTokens, step.totalPoints,
            ];
            cells.forEach((value, number) => {
                const cell = document.createElement("td");
                cell.className = number > 1 ? "number" : "";
                cell.textContent = value ?? "";
                row.append(cell);
            });
            return row;
        }),
    );
}

function app() {
    return form.elements.app;
}

async function refusal(response) {
    try {
        return (await response.json()).message;
    } catch {
        return `HTTP ${response.status}`;
    }
}

async function answer(signal, body) {
    const response = await fetch(form.action, {
        method: "POST",
        signal,
        headers: { "Content-Type": "application/json", "X-CSRFToken": form.elements.csrfmiddlewaretoken.value },
        body: JSON.stringify({ appId: app().value, messages: conversation }),
    });
    if (!response.ok) {
        throw new Error(await refusal(response));
    }
    let text = "";
    let isDrawn = true;
    let isDone = false;
    const draw = () => {
        isDrawn = true;
        body.replaceChildren(render(text));
        part("messages").scrollTop = part("messages").scrollHeight;
    };
    try {
        for await (const event of events(response)) {
            if (part("events").textContent.length < SHOWN_EVENTS) {
                part("events").append(`${event.raw}\n\n`);
            }
            if (event.name === "error") {
                throw new Error(JSON.parse(event.data).message);
            } else if (event.name === "flowResponses" || event.name === "appStreamResponse") {
                showSteps(JSON.parse(event.data));
            } else if (event.data === "[DONE]") {
                isDone = true;
            } else if (event.name === "answer") {
                text += JSON.parse(event.data).choices[0]?.delta.content ?? "";
                if (isDrawn) {
                    isDrawn = false;
                    requestAnimationFrame(draw);
                }
            }
        }
        if (!isDone) {
            throw new Error(form.dataset.broken);
        }
    } finally {
        draw();
        if (text) {
            conversation.push({ role: "assistant", content: text });
        }
    }
}

function setRunning(controller) {
    running = controller;
    part("send").disabled = part("anew").disabled = controller !== null;
    part("stop").disabled = controller === null;
    form.setAttribute("aria-busy", controller !== null);
}

async function send() {
    const question = part("question").value.trim();
    if (running || !question || !app().value) {
        return;
    }
    part("error").textContent = "";
    part("events").textContent = "";
    part("steps").replaceChildren();
    part("question").value = "";
    bubble("user", form.dataset.you).textContent = question;
    conversation.push({ role: "user", content: question });
    const body = bubble("assistant", app().selectedOptions[0].textContent);
    const controller = new AbortController();
    setRunning(controller);
    part("status").textContent = form.dataset.answering;
    try {
        await answer(controller.signal, body);
        part("status").textContent = form.dataset.done;
    } catch (error) {
        part("status").textContent = controller.signal.aborted ? form.dataset.stopped : "";
        if (!controller.signal.aborted) {
            part("error").textContent = error instanceof TypeError ? form.dataset.failed : error.message;
        }
        if (conversation.at(-1).role === "user") {
            // Nothing was answered: the question is not part of what the next one follows.
            conversation.pop();
        }
    }
    setRunning(null);
    part("question").focus();
}

function begin() {
    conversation = [];
    for (const name of ["messages", "events", "steps", "status", "error"]) {
        part(name).replaceChildren();
    }
}

if (form) {
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        send();
    });
    part("question").addEventListener("keydown", (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            send();
        }
    });
    part("stop").addEventListener("click", () => running?.abort());
    part("anew").addEventListener("click", begin);
    // Another app knows nothing of what was said to this one. Select2 tells of a change through jQuery alone.
    app().addEventListener("change", begin);
    window.django?.jQuery?.(app()).on("select2:select", begin);
}
