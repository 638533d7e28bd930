// The same trial is highlighted in all of a sweep's charts and its leaderboard: the one under the pointer, else the one
// whose number is given.
for (const sweep of document.querySelectorAll(".sweep")) {
  const field = sweep.querySelector("[name=trial]"), said = sweep.querySelector("[name=trial-words]");
  if (!field) continue;
  field.closest(".tools").hidden = false;
  let lit = "";
  const light = number => {
    if (number === lit) return;
    lit = number;
    sweep.querySelectorAll(".lit").forEach(shape => shape.classList.remove("lit"));
    const shapes = number === "" ? [] : [...sweep.querySelectorAll(`[data-trial~="${number}"], tr[data-number="${number}"]`)];
    shapes.forEach(shape => shape.classList.add("lit"));
    const title = shapes.map(shape => shape.querySelector("title")).find(Boolean);
    said.textContent = number === "" ? "" : title?.textContent ?? `trial ${number} has no shape of its own`;
  };
  const near = event => [[0, 0], [0, 4], [0, -4], [4, 0], [-4, 0]] // lines are thin
    .map(([x, y]) => document.elementFromPoint(event.clientX + x, event.clientY + y)?.closest("[data-trial], tr[data-number]"))
    .find(Boolean);
  const at = event => {
    if (!event.target.closest(".chart, tr[data-number]")) return "";
    const { trial, number } = near(event)?.dataset ?? {};
    return number ?? trial?.split(" ").at(-1) ?? "";
  };
  sweep.addEventListener("pointermove", event => light(at(event) || field.value));
  sweep.addEventListener("click", event => { if (at(event)) light(field.value = at(event)); });
  field.addEventListener("input", () => light(field.value));
}
