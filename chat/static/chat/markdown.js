// A safe part of Markdown, as nodes: text is only ever set as text, so that nothing an app says becomes markup.
// Images are not loaded: their address alone could tell a stranger what was talked about.

// All repetitions are bounded, and no two take the same characters: what is opened many times and never closed must not be
// searched through to its end each time.
const INLINE = /(`{1,20})([^`](?:.{0,1000}?[^`])?)\1(?!`)|\*\*(\S(?:.{0,500}?\S)?)\*\*|(?<!\w)[*_](\S(?:.{0,500}?\S)?)[*_](?!\w)|!?\[([^[\]]{0,1000})\]\(\s{0,20}<?([^\s)>]{1,1000})>?(?:\s[^)]{0,500})?\)/;
const ITEM = /^\s{0,3}(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const DEEPEST = 8;

function element(name, text) {
    const made = document.createElement(name);
    if (text !== undefined) {
        made.textContent = text;
    }
    return made;
}

function link(label, address) {
    let url;
    try {
        url = new URL(address);
    } catch {
        return null;
    }
    if (!["http:", "https:", "mailto:"].includes(url.protocol)) {
        return null;
    }
    const made = element("a", label || address);
    made.href = url.href;
    made.target = "_blank";
    made.rel = "noopener noreferrer nofollow";
    return made;
}

function inline(parent, text, depth = 0) {
    let rest = text;
    while (rest) {
        const found = depth < DEEPEST ? INLINE.exec(rest) : null;
        if (!found) {
            parent.append(rest);
            return;
        }
        parent.append(rest.slice(0, found.index));
        const [whole, , code, strong, emphasis, label, address] = found;
        if (code !== undefined) {
            parent.append(element("code", code));
        } else if (address !== undefined) {
            parent.append(link(label, address) ?? whole);
        } else {
            const made = element(strong !== undefined ? "strong" : "em");
            inline(made, strong ?? emphasis, depth + 1);
            parent.append(made);
        }
        rest = rest.slice(found.index + whole.length);
    }
}

function paragraph(lines) {
    const made = element("p");
    lines.forEach((line, number) => {
        if (number) {
            made.append(element("br"));
        }
        inline(made, line);
    });
    return made;
}

/** The nodes of a text in Markdown, also of one that is not complete yet. */
export function render(text, depth = 0) {
    const nodes = document.createDocumentFragment();
    const lines = text.split("\n");
    let open = [];
    const close = () => {
        if (open.length) {
            nodes.append(paragraph(open));
            open = [];
        }
    };
    for (let at = 0; at < lines.length; at += 1) {
        const line = lines[at];
        const fence = /^\s{0,3}(```+|~~~+)/.exec(line);
        const heading = /^(#{1,6})\s+(.*)$/.exec(line);
        if (fence) {
            close();
            const code = [];
            for (at += 1; at < lines.length && !lines[at].trimStart().startsWith(fence[1]); at += 1) {
                code.push(lines[at]);
            }
            const block = element("pre");
            block.tabIndex = 0;
            block.append(element("code", code.join("\n")));
            nodes.append(block);
        } else if (heading) {
            close();
            // Below the headings of the page itself.
            const made = element(`h${Math.min(heading[1].length + 2, 6)}`);
            inline(made, heading[2]);
            nodes.append(made);
        } else if (/^\s{0,3}([-*_])(\s*\1){2,}\s*$/.test(line)) {
            close();
            nodes.append(element("hr"));
        } else if (ITEM.test(line)) {
            close();
            const isOrdered = ITEM.exec(line)[2] !== undefined;
            const list = element(isOrdered ? "ol" : "ul");
            if (isOrdered) {
                list.start = Number(ITEM.exec(line)[2]);
            }
            for (; at < lines.length; at += 1) {
                const item = ITEM.exec(lines[at]);
                if (!item || (item[2] !== undefined) !== isOrdered) {
                    break;
                }
                const made = element("li");
                inline(made, item[3]);
                list.append(made);
            }
            at -= 1;
            nodes.append(list);
        } else if (line.startsWith(">") && depth < DEEPEST) {
            close();
            const quoted = [];
            for (; at < lines.length && lines[at].startsWith(">"); at += 1) {
                quoted.push(lines[at].replace(/^> ?/, ""));
            }
            at -= 1;
            const quote = element("blockquote");
            quote.append(render(quoted.join("\n"), depth + 1));
            nodes.append(quote);
        } else if (line.trim()) {
            open.push(line);
        } else {
            close();
        }
    }
    close();
    return nodes;
}
