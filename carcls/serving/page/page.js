"use strict";
// All texts of models and images are put in as text, never as markup.
const byId = (id) => document.getElementById(id);
const make = (tag, text, cls) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (cls) made.className = cls;
  return made;
};
const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 2 : 1)}%`;
let models = [], image = null, asked = 0, pictures = [];

const ask = async (path, options = {}) => {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    byId("login").hidden = false;
    byId("token").focus();
    throw new Error(token ? "That is not the token of this server." : "This server asks for its token.");
  }
  return answer;
};
const told = async (answer) => {
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || `The server answered ${answer.status}.`);
  return found;
};
const say = (text) => { byId("status").textContent = text; };
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
const modelOf = (id) => models.find((one) => one.model === byId(id).value);

const begin = async () => {
  try {
    models = (await told(await ask("/models"))).models;
  } catch (error) { say(sentence(error.message)); return; }
  byId("login").hidden = true;
  say("");
  for (const id of ["model", "other"]) {
    byId(id).replaceChildren(...models.map((one) => new Option(one.title, one.model)));
  }
  byId("other").prepend(new Option("nothing", ""));
  byId("other").value = models.length > 1 ? models[1].model : "";
  const counts = [...new Set(models.map((one) => one.classes.length))].join(" or ");
  byId("models-line").textContent = `${models.length === 1 ? models[0].title : `${models.length} models`}, ${counts} classes.`;
  fit();
};
const fit = () => {
  const search = [modelOf("model"), modelOf("other")].find((one) => one && one.search)?.search;
  document.querySelectorAll(".search").forEach((one) => { one.hidden = !search; });
  if (search && !byId("k").dataset.set) {
    byId("k").value = search.k;
    byId("k").max = search.most_k;
    byId("distance").value = search.distance;
    byId("k").dataset.set = "1";
  }
};

const show = async () => {
  if (!image) return;
  const mine = ++asked, looked = byId("looked").checked;
  say("Looking …");
  const wanted = [modelOf("model"), modelOf("other")].filter((one, place, all) => one && all.indexOf(one) === place);
  const cards = await Promise.all(wanted.map(async (one) => {
    const query = new URLSearchParams({ model: one.model, ...(looked ? { looked: 1 } : {}) });
    if (one.search) {
      query.set("k", Math.min(byId("k").value || one.search.k, one.search.most_k));
      query.set("distance", byId("distance").value);
    }
    try {
      return { one, found: await told(await ask(`/predict?${query}`, { method: "POST", body: image, headers: { "Content-Type": image.type || "application/octet-stream" } })) };
    } catch (error) { return { one, wrong: sentence(error.message) }; }
  }));
  if (mine !== asked) return;  // another photograph came meanwhile
  pictures.forEach(URL.revokeObjectURL);
  pictures = [];
  byId("answers").replaceChildren(...cards.map(card));
  const right = cards.filter((each) => each.found);
  say(right.length ? right.map(({ one, found }) => `${wanted.length > 1 ? `${one.title}: ` : ""}${found.label}, ${percent(found.probability)}.`).join(" ") : cards[0].wrong);
};
const kept = (blob) => { const url = URL.createObjectURL(blob); pictures.push(url); return url; };

const card = ({ one, found, wrong }) => {
  const made = make("article");
  made.append(make("h2", one.title));
  if (wrong) { made.append(make("p", wrong)); return made; }
  const stage = make("div", undefined, "stage"), photo = make("img");
  photo.alt = "Your photograph";
  photo.src = kept(image);
  stage.append(photo);
  if (found.looked) stage.append(overlay(found.looked));
  made.append(stage, make("p", found.label, "label"));
  const sure = found.calibrated ? "of such answers are right, judged by the validation images" : "of the votes; not calibrated for this choice";
  made.append(make("p", `${percent(found.probability)} ${sure}`, "small"));
  if (found.looked !== undefined) {
    made.append(make("p", found.looked ? "Bright places are those whose features spoke for the answer. It does not say why, and a wrong answer can look at the right place." : "Where this model looked cannot be said: an ONNX model, or a network that keeps no maps, does not tell.", "small"));
  }
  const top = make("ol", undefined, "top");
  for (const each of found.top) {
    const line = make("li"), row = make("div", undefined, "row"), bar = make("div", undefined, "bar"), inner = make("i");
    row.append(make("span", each.label), make("span", percent(each.probability)));
    inner.style.width = `${100 * each.probability}%`;
    bar.append(inner);
    line.append(row, bar);
    top.append(line);
  }
  made.append(make("h3", "Likeliest classes"), top);
  if (found.neighbours) made.append(make("h3", "Most similar training pictures"), near(found.neighbours));
  const about = Object.entries(one.about).map(([name, value]) => `${name} ${value}`).join(", ");
  if (about) made.append(make("p", about, "small"));
  return made;
};
const near = (neighbours) => {
  const list = make("ul", undefined, "near");
  for (const each of neighbours) {
    const item = make("li"), picture = make("img");
    picture.alt = `Training picture of ${each.label}`;
    ask(each.thumbnail).then(async (answer) => {
      if (answer.ok) picture.src = kept(await answer.blob()); else picture.replaceWith(make("span", each.image));
    }).catch(() => {});
    item.append(picture, make("div", each.label), make("div", `distance ${each.distance.toPrecision(3)}`, "small"));
    list.append(item);
  }
  return list;
};
const overlay = (rows) => {
  const canvas = make("canvas");
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  canvas.setAttribute("aria-hidden", "true");
  const paint = canvas.getContext("2d"), pixels = paint.createImageData(canvas.width, canvas.height);
  rows.flat().forEach((share, place) => pixels.data.set([255, 190, 0, 190 * share], 4 * place));
  paint.putImageData(pixels, 0, 0);
  return canvas;
};

const take = (file) => {
  if (!file) return;
  image = file;
  show();
};
byId("file").addEventListener("change", (event) => take(event.target.files[0]));
byId("camera").addEventListener("change", (event) => take(event.target.files[0]));
document.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
document.addEventListener("dragover", (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
for (const id of ["model", "other", "k", "distance", "looked"]) byId(id).addEventListener("change", () => { fit(); show(); });
byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  begin();
});
begin();
