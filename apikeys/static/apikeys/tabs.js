"use strict";
// Tabs as the ARIA authoring practices have them: arrows move, one panel is shown. Without this script all are shown.
document.querySelectorAll("[data-tabs]").forEach((group) => {
    const list = group.querySelector("[role=tablist]");
    const tabs = [...list.querySelectorAll("[role=tab]")];
    const show = (chosen) => {
        for (const tab of tabs) {
            const isChosen = tab === chosen;
            tab.setAttribute("aria-selected", String(isChosen));
            tab.tabIndex = isChosen ? 0 : -1;
            document.getElementById(tab.getAttribute("aria-controls")).hidden = !isChosen;
        }
    };
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    list.addEventListener("keydown", (event) => {
        const at = tabs.indexOf(document.activeElement);
        const places = { Home: 0, End: tabs.length - 1 };
        const to = event.key in steps ? (at + steps[event.key] + tabs.length) % tabs.length : places[event.key];
        if (at >= 0 && to !== undefined) {
            event.preventDefault();
            show(tabs[to]);
            tabs[to].focus();
        }
    });
    tabs.forEach((tab) => tab.addEventListener("click", () => show(tab)));
    list.hidden = false;
    show(tabs[0]);
});
