// Functions that the scripts of all pages share.

// Adds an element with a text and attributes to `parent`.
function put(parent, tag, text, attributes) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

// Adds the boxes of a summary: id, label and value of each.
function summarize(boxes) {
  for (const [id, label, value] of boxes) {
    const box = put(document.getElementById("summary"), "div");
    put(box, "dt", label);
    put(box, "dd", String(value), { id: "value-" + id });
  }
}

// Adds the names of colours to a legend: variable of the style, and label of each.
function legend(parent, colours) {
  for (const [name, label] of colours) {
    const item = put(parent, "span");
    put(item, "i", "", { style: `background: var(--${name})` });
    item.append(label);
  }
}

// Fills a table. `head` has the label and the class of each column.
function table(element, head, rows) {
  const line = (parent, cells, tag) => {
    const row = put(parent, "tr");
    cells.forEach((cell, column) => put(row, tag, String(cell), { class: head[column][1] }));
  };
  line(put(element, "thead"), head.map(([label]) => label), "th");
  const body = put(element, "tbody");
  rows.forEach(cells => line(body, cells, "td"));
}

// Formats a number of microseconds.
function time(us) {
  if (us < 1000) return us.toFixed(0) + " µs";
  return us < 1e6 ? (us / 1000).toFixed(us < 1e4 ? 2 : 1) + " ms" : (us / 1e6).toFixed(2) + " s";
}
