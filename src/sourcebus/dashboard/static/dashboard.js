// The dashboard. Texts from outside only ever become text nodes: the page's policy forbids any way to markup.

const POLL_MS = 1500;      // how often the sources are looked at
const READY_MS = 5000;     // how often health and dead letters are
const OLD_MS = 6000;       // what was read longer ago is shown as old
const ANSWER_MS = 5000;    // an answer that takes longer counts as none
const PAGE = 50;           // dead letters at once
const HITS = 10;           // search results at once

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const whole = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

let skewMs = 0;            // this machine's clock against the server's
let readAt = 0;            // when the sources were last read, by this machine's clock
let lastProblem = "";      // why they could not be read since

// ---------------------------------------------------------------- small things

function el(tag, props = {}, ...children) {
  const made = Object.assign(document.createElement(tag), props);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function say(text) {
  $("said").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $("said").textContent = ""; }, 6000);
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A file's name need not be UTF-8: Python sends such a byte as the lone surrogate U+DC80…U+DCFF, and reads %80…%FF as one.
function encode(text) {
  return Array.from(text, (one) => {
    const code = one.codePointAt(0);
    if (code >= 0xdc80 && code <= 0xdcff) return "%" + (code - 0xdc00).toString(16).toUpperCase();
    return code >= 0xd800 && code <= 0xdfff ? "%3F" : encodeURIComponent(one);
  }).join("");
}

// Names are shown with what cannot be seen made visible, so that no name can pretend to be another.
function visible(text) {
  return text.replace(/(?!\u200d)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (one) => one === "\n" ? "⏎" : one === "\t" ? "⇥" : "\\u" + one.codePointAt(0).toString(16).padStart(4, "0"));
}

function count(n, one, many = one + "s") {
  return `${number.format(n)} ${n === 1 ? one : many}`;
}

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s < 600 && s % 60 ? ` ${s % 60} s` : ""}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return count(Math.floor(s / 86400), "day");
}

function ago(iso) {
  const seconds = (Date.now() + skewMs - Date.parse(iso)) / 1000;
  return seconds < 2 ? "just now" : `${span(seconds)} ago`;
}

function timeOf(iso, before = "") {
  const made = el("time", { dateTime: iso, title: whole.format(new Date(iso)) }, before + ago(iso));
  made.dataset.before = before;
  return made;
}

class Refused extends Error {
  constructor(problem, status) {
    super(problem.detail ? `${problem.title}: ${problem.detail}` : `The server answered ${status}`);
    this.problem = problem;
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { signal: AbortSignal.timeout(ANSWER_MS), cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(error.name === "TimeoutError" ? "The gateway does not answer in time" : "The gateway does not answer");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(body, answer.status);
  return body;
}

// One node per key, kept while its item is there: what has the focus keeps it, and nothing flickers.
function keyed(list, items, keyOf, make, update) {
  const have = new Map(Array.from(list.children, (node) => [node.dataset.key, node]));
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    let node = have.get(key);
    have.delete(key);
    if (!node) {
      node = make(item);
      node.dataset.key = key;
    }
    update(node, item);
    const place = before ? before.nextSibling : list.firstChild;
    if (node !== place) list.insertBefore(node, place);
    before = node;
  }
  for (const node of have.values()) node.remove();
}

// ---------------------------------------------------------------- sources

// Why it does not run, `why`, is the bus's own sentence: the same as in the terminal.
function stateOf(source) {
  const busy = source.in_flight > 0 && source.reason !== "no_worker";
  if (source.reason === "paused") return ["warn", "paused", source.pending ? "changes are kept until it is resumed" : ""];
  if (source.error && !busy) return ["bad", "in trouble", ""];
  if (source.state === "unknown") return ["unknown", "unknown", source.reason];
  if (busy) return ["busy", "working", source.reason ? source.why : ""];
  if (source.state === "idle") return ["good", "nothing waiting", ""];
  if (source.reason === "no_worker") return ["bad", "no worker", source.why];
  if (source.reason === "workers_busy") return ["warn", "waiting for a worker", source.why];
  if (source.state === "ready") return ["busy", "working", ""];
  return ["warn", source.state, source.why];
}

function makeSource() {
  const node = el("li", { className: "source" });
  const parts = { name: el("h3"), about: el("p", { className: "soft" }), chip: el("span", { className: "chip" }), reason: el("span", { className: "soft" }) };
  const numbers = el("dl", { className: "numbers" });
  for (const [key, label] of [["pending", "waiting"], ["in_flight", "in work"], ["dead", "given up"], ["indexed", "indexed"]]) {
    parts[key] = el("dd");
    numbers.append(el("div", {}, el("dt", {}, label), parts[key]));
  }
  parts.bar = el("progress", { max: 1 });
  parts.progress = el("p");
  parts.work = el("div", { className: "progress", hidden: true }, parts.bar, parts.progress);
  parts.error = el("p", { className: "note bad", hidden: true });
  parts.heldText = el("span");
  parts.release = el("button", { type: "button", className: "quiet" }, "Apply the deletes…");
  parts.held = el("div", { className: "note warn", hidden: true }, parts.heldText, parts.release);
  node.append(el("div", {}, parts.name, parts.about, el("p", { className: "state" }, parts.chip, parts.reason)), numbers, parts.work, parts.error, parts.held);
  node.parts = parts;
  return node;
}

function updateSource(node, source) {
  const { parts } = node;
  const [look, word, reason] = stateOf(source);
  set(parts.name, visible(source.id));
  const about = [source.connector];
  if (source.workspace !== "default") about.push(visible(source.workspace));
  if (source.mode === "shadow") about.push("shadow: nothing is extracted");
  if (source.unreadable) about.push(`${number.format(source.unreadable)} unreadable`);
  about.push(source.last_scan_at ? `listed ${ago(source.last_scan_at)}` : "not listed yet");
  set(parts.about, about.join(" · "));
  parts.chip.className = `chip ${look}`;
  set(parts.chip, word);
  set(parts.reason, reason);
  for (const key of ["pending", "in_flight", "dead", "indexed"]) {
    set(parts[key], source[key] === null || source[key] === undefined ? "?" : number.format(source[key]));
  }
  parts.dead.parentNode.className = source.dead ? "some" : "";
  updateProgress(parts, source);
  parts.error.hidden = !source.error;
  set(parts.error, source.error ? `Last error: ${source.error}` : "");
  parts.held.hidden = !source.held;
  if (source.held) {
    set(parts.heldText, `A listing lacks ${number.format(source.held.count)} of ${count(source.held.of, "object")}, too many to delete unasked.`);
    parts.release.onclick = () => release(source);
  }
}

function updateProgress(parts, source) {
  const progress = source.progress;
  parts.work.hidden = !progress;
  if (!progress) return;
  const { done, total, rate_per_s: rate, eta_s: eta } = progress;
  if (total) parts.bar.value = done / total;
  else parts.bar.removeAttribute("value");
  parts.bar.setAttribute("aria-label", `Progress of ${source.id}`);
  const words = [total ? `${number.format(done)} of ${number.format(total)} done` : `${number.format(done)} done`];
  if (rate) words.push(`${number.format(rate >= 10 ? Math.round(rate) : rate)} a second`);
  if (eta !== null && eta !== undefined) words.push(`about ${span(eta)} left`);
  set(parts.progress, words.join(" · "));
}

function updateOverall(items) {
  const sum = (key) => items.reduce((total, item) => total + (item[key] ?? 0), 0);
  const waiting = sum("pending") + sum("in_flight");
  const trouble = items.filter((item) => item.error || item.held).length;
  const [look, text] = !items.length ? ["unknown", "no sources"]
    : trouble ? ["bad", `${count(trouble, "source")} in trouble`]
    : waiting ? ["busy", `${count(waiting, "object")} to do`]
    : sum("dead") ? ["warn", count(sum("dead"), "dead letter")]
    : ["good", "nothing waiting"];
  $("overall").className = `chip ${look}`;
  set($("overall"), text);
  return sum("dead");
}

let dead = 0;

async function readSources() {
  const answer = await ask("/v1/status");
  readAt = Date.now();
  lastProblem = "";
  skewMs = answer.now_ms - readAt;
  keyed($("sources"), answer.items, (item) => item.id, makeSource, updateSource);
  $("empty").hidden = answer.items.length > 0;
  $("cut").hidden = !answer.next;
  if (answer.next) set($("cut"), `These are the first ${count(answer.items.length, "source")}; /v1/status?after=… has the rest.`);
  const now = updateOverall(answer.items);
  if (now !== dead) {
    dead = now;
    readLetters();
  }
}

async function release(source) {
  const sample = (source.held.sample ?? []).slice(0, 5).map(visible).join(", ");
  if (!await confirmed("Apply the deletes?", `${count(source.held.count, "object")} of ${visible(source.id)} will be taken out of the index${sample ? `: ${sample} …` : "."}`, "Apply")) return;
  await act(`/v1/sources/${encode(source.id)}/release`, "POST", "The deletes are being applied");
}

// ---------------------------------------------------------------- old, broken, not ready

function showAge() {
  const old = !readAt || lastProblem !== "" || Date.now() - readAt > OLD_MS;
  document.body.classList.toggle("stale", old && readAt > 0);
  const broken = old && lastProblem !== "";
  $("banner").hidden = !broken;
  if (broken) {
    set($("banner"), `${lastProblem.replace(/\.+$/, "")}. ` + (readAt
      ? `What is shown below was read at ${clock.format(readAt)}, ${span((Date.now() - readAt) / 1000)} ago, and may be out of date.`
      : "Nothing could be read yet; this page goes on trying."));
    $("overall").className = "chip bad";
    set($("overall"), "not known now");
    $("ready").hidden = true; // one thing at a time: this is the cause
    for (const chip of document.querySelectorAll("#sources .chip")) {
      chip.className = "chip unknown";
      set(chip, "not known now");
      set(chip.nextSibling, "");
    }
  }
  set($("as-of"), readAt ? (old ? `as of ${clock.format(readAt)}` : "live") : "");
  for (const node of document.querySelectorAll("time[datetime]")) set(node, node.dataset.before + ago(node.dateTime));
}

async function readReady() {
  let checks = [];
  try {
    await ask("/readyz");
  } catch (error) {
    checks = error.problem?.checks?.filter((check) => check.ok === false) ?? [];
  }
  $("ready").hidden = !checks.length || lastProblem !== "";
  const shown = JSON.stringify(checks);
  if ($("ready").dataset.shown === shown) return;
  $("ready").dataset.shown = shown;
  const lines = checks.map((check) => el("li", {}, el("strong", {}, check.name), `: ${check.detail}`, check.fix ? " · " : "", check.fix ? el("code", {}, check.fix) : ""));
  $("ready").replaceChildren("Not everything that is needed is running, so changes may not become searchable:", el("ul", {}, ...lines));
}

// ---------------------------------------------------------------- search

const shownHits = { q: "", next: null, asking: null };

// A snippet is escaped text with <mark>; it is taken apart here, never parsed as HTML.
function snippetOf(text) {
  const entities = { "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'", "&#39;": "'", "&amp;": "&" };
  const made = el("p", { className: "snippet" });
  for (const part of text.split(/(<mark>.*?<\/mark>)/s)) {
    const marked = part.startsWith("<mark>");
    const plain = (marked ? part.slice(6, -7) : part).replace(/&(?:lt|gt|quot|#x27|#39|amp);/g, (one) => entities[one]);
    if (plain) made.append(marked ? el("mark", {}, plain) : plain);
  }
  return made;
}

function makeHit(hit) {
  const ref = visible(hit.object_ref);
  const why = el("button", { type: "button", className: "quiet", onclick: () => showStory(hit.source_id, hit.object_ref) }, "Why", el("span", { className: "sr" }, ` is ${ref} as it is?`));
  const title = hit.title && hit.title !== hit.object_ref ? visible(hit.title) : ref.split("/").pop();
  return el("li", { className: "hit" },
    el("div", {}, el("h3", {}, title), el("p", { className: "ref soft" }, ref), el("p", { className: "soft" }, `${visible(hit.source_id)} · `, timeOf(hit.indexed_at, "indexed "))),
    why, snippetOf(hit.snippet));
}

async function search(q, offset = 0) {
  shownHits.asking?.abort();
  const asking = shownHits.asking = new AbortController();
  history.replaceState(null, "", q ? `?q=${encodeURIComponent(q)}` : location.pathname);
  if (!q) {
    $("hits").replaceChildren();
    $("more-hits").hidden = true;
    set($("found"), "");
    return;
  }
  try {
    const signal = AbortSignal.any([asking.signal, AbortSignal.timeout(ANSWER_MS)]);
    const answer = await ask(`/v1/search?limit=${HITS}&offset=${offset}&q=${encode(q)}`, { signal });
    if (!offset) $("hits").replaceChildren();
    $("hits").append(...answer.hits.map(makeHit));
    Object.assign(shownHits, { q, next: answer.next });
    $("more-hits").hidden = answer.next === null;
    const n = $("hits").children.length;
    set($("found"), n ? `${answer.next === null ? "" : "First "}${count(n, "result")} for “${q}”, searched at ${clock.format(new Date())}` : `Nothing that is indexed matches “${q}”.`);
  } catch (error) {
    if (error.name === "AbortError") return;
    $("hits").replaceChildren();
    $("more-hits").hidden = true;
    set($("found"), `The search failed. ${error.message}`);
  }
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(search.timer);
  search($("q").value.trim());
});
$("q").addEventListener("input", () => {
  clearTimeout(search.timer);
  search.timer = setTimeout(() => search($("q").value.trim()), 200);
});
$("more-hits").addEventListener("click", () => search(shownHits.q, shownHits.next));
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(input|textarea|select)$/i.test(event.target.tagName)) return;
  if (document.querySelector("dialog[open]")) return;
  event.preventDefault();
  $("q").focus();
});

// ---------------------------------------------------------------- an object's story

function shownValue(value) {
  return typeof value === "string" ? visible(value) : JSON.stringify(value);
}

function makeLine({ at, what, ...detail }) {
  const rest = Object.entries(detail).filter(([key, value]) => key !== "note" && value !== null && value !== false && value !== "");
  return el("li", { className: what === "now" ? "now" : "" },
    el("strong", {}, what === "note" ? detail.note ?? "note" : what), at ? el("span", { className: "soft" }, " · ", timeOf(at)) : null,
    rest.length ? el("p", { className: "soft" }, rest.map(([key, value]) => `${key.replaceAll("_", " ")}: ${shownValue(value)}`).join(" · ")) : null);
}

async function showStory(sourceId, ref) {
  try {
    const { items } = await ask(`/v1/why?source_id=${encode(sourceId)}&object_ref=${encode(ref)}`);
    set($("story-of"), `${visible(sourceId)} · ${visible(ref)}`);
    $("story-lines").replaceChildren(...(items.length ? items.map(makeLine) : [el("li", {}, "Nothing is known of it.")]));
    $("story").showModal();
  } catch (error) {
    say(error.message);
  }
}

// ---------------------------------------------------------------- dead letters

let letterPages = 1;

async function readLetters() {
  let answer;
  try {
    answer = dead ? await ask(`/v1/dead-letters?limit=${Math.min(1000, PAGE * letterPages)}`) : { items: [], next: null };
  } catch {
    return; // the sources cannot be read either then, and the banner says so
  }
  $("dead").hidden = !answer.items.length;
  set($("dead-title"), `Dead letters (${number.format(dead)})`);
  keyed($("letters"), answer.items, (letter) => letter.id, makeLetter, () => {});
  $("more-letters").hidden = !answer.next || PAGE * letterPages >= 1000;
}

function makeLetter(letter) {
  const ref = visible(letter.object_ref) || "the whole source";
  const of = (text) => el("span", { className: "sr" }, ` ${text} ${ref}`);
  return el("li", { className: "row" },
    el("div", {},
      el("h3", { className: "ref" }, ref),
      el("p", { className: "soft" }, `${visible(letter.source_id)} · ${count(letter.attempts, "attempt")} · `, timeOf(letter.died_at, "given up ")),
      el("p", {}, letter.error || "no error was recorded")),
    el("div", { className: "buttons" },
      el("button", { type: "button", className: "quiet", onclick: () => showStory(letter.source_id, letter.object_ref) }, "Why", of("did this happen to")),
      el("button", { type: "button", className: "quiet", onclick: () => act(`/v1/dead-letters/${encode(letter.id)}/replay`, "POST", `${ref} is tried again`) }, "Replay", of("")),
      el("button", { type: "button", className: "quiet", onclick: () => drop(letter, ref) }, "Drop…", of(""))));
}

async function drop(letter, ref) {
  if (!await confirmed("Drop this dead letter?", `${ref} will not be tried again until it changes. What is indexed of it stays as it is.`, "Drop")) return;
  await act(`/v1/dead-letters/${encode(letter.id)}`, "DELETE", `The dead letter of ${ref} is dropped`);
}

async function act(path, method, done) {
  try {
    await ask(path, { method });
    say(done);
  } catch (error) {
    say(error.status === 404 ? "Somebody else was faster: it is not there any more" : error.message);
  }
  await Promise.allSettled([readSources(), readLetters()]);
}

$("more-letters").addEventListener("click", () => { letterPages += 1; readLetters(); });

// ---------------------------------------------------------------- dialogs

function confirmed(title, text, yes) {
  const dialog = $("confirm");
  set($("confirm-title"), title);
  set($("confirm-text"), text);
  set($("confirm-yes"), yes);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

$("confirm-yes").addEventListener("click", () => $("confirm").close("yes"));
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());

// ---------------------------------------------------------------- on and on

let turn = 0;
let timer = 0;
let looking = false;

async function look() {
  clearTimeout(timer);
  if (looking || document.hidden) return; // a hidden page is begun again by visibilitychange
  looking = true;
  try {
    await readSources();
  } catch (error) {
    lastProblem = error.message;
  }
  if (turn++ % Math.round(READY_MS / POLL_MS) === 0) {
    readReady();
    if (dead) readLetters();
  }
  showAge();
  looking = false;
  timer = setTimeout(look, POLL_MS);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();

const asked = new URLSearchParams(location.search).get("q");
if (asked) {
  $("q").value = asked;
  search(asked.trim());
}
