"use strict";
const toggle = document.querySelector(".theme");
toggle.hidden = false;
toggle.onclick = () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches !== (document.documentElement.dataset.theme !== undefined);
  if (document.documentElement.dataset.theme) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = dark ? "light" : "dark";
};

// Each leaderboard: sorted by a column, rows chosen by text and status, siblings hidden until they are asked for.
for (const board of document.querySelectorAll(".board")) {
  const body = board.tBodies[0], rows = [...body.rows], headers = [...board.tHead.rows[0].cells];
  const tools = document.getElementById(board.dataset.tools), [text, status, siblings, said] =
    ["text", "status", "siblings", "said"].map(name => tools.querySelector(`[name=${name}]`));
  tools.hidden = false;
  const choose = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const line = row.textContent.toLowerCase();
      row.hidden = (row.classList.contains("sibling") && !siblings?.checked)
        || (status.value && row.dataset.status !== status.value) || !words.every(word => line.includes(word));
      shown += !row.hidden;
    }
    said.textContent = `${shown} of ${rows.length} trials`;
  };
  const keyed = (row, place) => {
    const said = row.cells[place].dataset.value;
    return said === undefined ? null : said !== "" && !isNaN(said) ? Number(said) : said;
  };
  headers.forEach((header, place) => {
    const button = header.querySelector("button");
    if (!button) return;
    button.onclick = () => {
      const down = header.ariaSort === "ascending" ? -1 : 1;
      headers.forEach(other => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
      const keys = new Map(rows.map(row => [row, keyed(row, place)]));
      const compare = (a, b) => typeof a === typeof b && typeof a === "number" ? a - b : String(a).localeCompare(String(b));
      rows.sort((a, b) => {
        const [x, y] = [keys.get(a), keys.get(b)];
        return x === null || y === null ? (x === null) - (y === null) : down * compare(x, y);
      });
      body.append(...rows);
    };
  });
  text.oninput = status.onchange = choose;
  if (siblings) siblings.onchange = choose;
  board.onclick = event => {
    const command = event.target.closest(".repeat")?.dataset.command;
    if (!command) return;
    const code = document.createElement("code");
    code.textContent = command;
    said.replaceChildren("Copied: ", code);
    navigator.clipboard?.writeText(command).catch(() => said.replaceChildren("To copy: ", code));
  };
  choose();
}
