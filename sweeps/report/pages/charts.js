// The same trial is highlighted in all charts: the one under the pointer, else the one whose number is given.
(() => {
  const field = document.getElementById("highlight"), said = document.getElementById("highlighted");
  let lit = "";
  const light = number => {
    if (number === lit) return;
    lit = number;
    document.querySelectorAll(".lit").forEach(shape => shape.classList.remove("lit"));
    const shapes = number === "" ? [] : document.querySelectorAll(`[data-trial~="${number}"]`);
    shapes.forEach(shape => shape.classList.add("lit"));
    const title = [...shapes].map(shape => shape.querySelector("title")).find(Boolean);
    said.textContent = title ? title.textContent : number === "" ? "" : `trial ${number} is in no chart`;
  };
  const near = event => [[0, 0], [0, 4], [0, -4], [4, 0], [-4, 0]] // lines are thin
    .map(([x, y]) => document.elementFromPoint(event.clientX + x, event.clientY + y)?.closest(".chart [data-trial]"))
    .find(Boolean);
  const numbers = shape => shape?.dataset.trial.split(" ") ?? [];
  document.addEventListener("pointermove", event => {
    if (event.target.closest?.(".chart")) light(numbers(near(event)).at(-1) ?? field.value);
    else if (lit !== field.value) light(field.value);
  });
  document.addEventListener("click", event => {
    const number = event.target.closest?.(".chart") && numbers(near(event)).at(-1);
    if (number) light(field.value = number);
  });
  field.addEventListener("input", () => light(field.value));
})();
