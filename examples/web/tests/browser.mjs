// The page in headless Chromium: node browser.mjs FOLDER OTHER BARE [PICTURES].
// Serves FOLDER, draws, chooses, opens files, and fails on anything in the console. OTHER is a model of small images
// in several channels, BARE a packed file without a chain. With PICTURES, a folder, the page is photographed into it.
//
// Speaks the DevTools protocol through a pipe: a message is JSON and a zero.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";

const [folder, other, bare, pictures] = process.argv.slice(2).map((path) => resolve(path));

/** Any static server: no types but those that a browser insists on. */
const TYPES = { html: "text/html", js: "text/javascript", css: "text/css" };
const server = createServer((request, response) => {
  const name = basename(new URL(request.url, "http://page").pathname) || "index.html";
  try {
    const bytes = readFileSync(join(folder, name));
    response.writeHead(200, { "content-type": TYPES[name.split(".").at(-1)] ?? "application/octet-stream" }).end(bytes);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));

const profile = mkdtempSync(join(tmpdir(), "page-"));
// Its own processes are apart from the page's only where users may make namespaces; a container's may not.
const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
  "--hide-scrollbars", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"];
const chromium = spawn(process.env.CHROMIUM ?? "chromium", flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const failed = new Promise((_, reject) => {
  chromium.on("error", () => reject(new Error("chromium is missing; Debian's package chromium has it")));
  chromium.on("exit", (code) => reject(new Error(`chromium ended with ${code}`)));
  setTimeout(() => reject(new Error("the browser took more than 5 minutes")), 300_000).unref();
});
failed.catch(() => {});

const [waiting, trouble] = [new Map(), []];
let [rest, last, session] = ["", 0, undefined];
chromium.stdio[4].setEncoding("utf8").on("data", (text) => {
  const messages = (rest + text).split("\0");
  rest = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    if (message.id !== undefined) {
      waiting.get(message.id)?.(message);
    } else if (message.method === "Runtime.exceptionThrown") {
      const { exception, text } = message.params.exceptionDetails;
      trouble.push(exception?.description ?? text);
    } else if (message.method === "Runtime.consoleAPICalled" || message.method === "Log.entryAdded") {
      trouble.push(JSON.stringify(message.params));
    }
  }
});

async function send(method, params = {}) {
  last += 1;
  const id = last;
  const answer = new Promise((resolve) => waiting.set(id, resolve));
  chromium.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: session })}\0`);
  const { result, error } = await Promise.race([answer, failed]);
  waiting.delete(id);
  if (error) throw new Error(`${method}: ${error.message}`);
  return result;
}

async function evaluate(expression) {
  const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
  if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
  return result.value;
}

async function until(expression) {
  while (!(await evaluate(expression))) await new Promise((next) => setTimeout(next, 50));
}

const answer = () => evaluate("document.getElementById('answer').textContent");
const sentence = () => evaluate("(box => box.hidden ? '' : box.textContent)(document.getElementById('trouble'))");
const click = (id) => evaluate(`document.getElementById('${id}').click()`);

/** Moves the mouse over the drawing area, by strokes in a square of 100. */
async function draw(strokes) {
  const box = await evaluate(`(() => {
    const pad = document.getElementById("pad");
    pad.scrollIntoView({ block: "center" });
    const { left, top, width } = pad.getBoundingClientRect();
    return { left, top, width };
  })()`);
  const mouse = (type, [x, y]) => send("Input.dispatchMouseEvent", {
    type, x: box.left + (x * box.width) / 100, y: box.top + (y * box.width) / 100, button: "left", buttons: 1, clickCount: 1,
  });
  for (const stroke of strokes) {
    await mouse("mousePressed", stroke[0]);
    for (const place of stroke.slice(1)) await mouse("mouseMoved", place);
    await mouse("mouseReleased", stroke.at(-1));
  }
}

async function key(name, code) {
  for (const type of ["keyDown", "keyUp"]) {
    await send("Input.dispatchKeyEvent", { type, key: name, code: code ?? name, windowsVirtualKeyCode: { " ": 32, Tab: 9, Enter: 13 }[name] ?? 0 });
  }
}

/** Gives the page files, as its input of files does. */
async function open(...files) {
  const { root } = await send("DOM.getDocument");
  const { nodeId } = await send("DOM.querySelector", { nodeId: root.nodeId, selector: "#file" });
  await send("DOM.setFileInputFiles", { nodeId, files });
}

async function look(width, scheme) {
  await send("Emulation.setDeviceMetricsOverride", { width, height: 800, deviceScaleFactor: 1, mobile: width < 500 });
  await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
}

async function photograph(name) {
  if (!pictures) return;
  const { data } = await send("Page.captureScreenshot", { captureBeyondViewport: true });
  writeFileSync(join(pictures, `${name}.png`), Buffer.from(data, "base64"));
}

const ring = Array.from({ length: 33 }, (_, step) => (step / 32) * 2 * Math.PI)
  .map((angle) => [50 + 20 * Math.sin(angle), 50 - 30 * Math.cos(angle)]);
/** Digits as people write them. */
const DRAWN = {
  0: [ring],
  1: [[[52, 15], [50, 40], [48, 85]]],
  7: [[[25, 20], [50, 20], [72, 20], [60, 45], [50, 65], [44, 85]]],
};

async function attach() {
  const { targetInfos } = await send("Target.getTargets");
  const { targetId } = targetInfos.find(({ type }) => type === "page");
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  session = sessionId;
  for (const domain of ["Page", "Runtime", "Log", "DOM"]) await send(`${domain}.enable`);
  await look(1280, "light");
}

/** Opens the page, which must choose a program, and has it recognize its own digits. */
async function recognize(query, program) {
  await send("Page.navigate", { url: `http://127.0.0.1:${server.address().port}/${query}` });
  await until("document.body?.dataset.ready === 'true' || document.getElementById('trouble')?.hidden === false");
  assert.equal(await sentence(), "");
  assert.equal(await evaluate("document.body.dataset.program"), program);
  for (let digit = 0; digit < 10; digit += 1) {
    await evaluate(`document.querySelectorAll("#samples button")[${digit}].click()`);
    assert.match(await answer(), new RegExp(`^${digit}, `), `the digit ${digit} that was chosen`);
  }
  // By now the browser has compiled it well.
  const time = await evaluate("document.getElementById('time').textContent");
  assert.match(time, /ms an image/);
  console.log(`${program} in the page: ${time}`);
}

async function test() {
  for (const [digit, strokes] of Object.entries(DRAWN)) {
    await click("clear");
    await draw(strokes);
    assert.match(await answer(), new RegExp(`^${digit}, `), `the digit ${digit} that was drawn`);
    // Small and in a corner it is the same digit.
    await click("clear");
    await draw(strokes.map((stroke) => stroke.map(([x, y]) => [x / 4 + 5, y / 4 + 5])));
    assert.match(await answer(), new RegExp(`^${digit}, `), `the digit ${digit} drawn small`);
  }
  assert.equal(await evaluate("document.querySelectorAll('#scores tr.best').length"), 1);
  const shares = await evaluate("[...document.querySelectorAll('#scores td:last-child')].map(cell => parseFloat(cell.textContent))");
  assert.equal(shares.length, 10);
  // Ten of them rounded to a tenth of a percent.
  assert.ok(Math.abs(shares.reduce((sum, share) => sum + share) - 100) < 0.6, `shares ${shares}`);
  assert.ok(await evaluate("document.querySelectorAll('#kernels .plus, #kernels .minus').length > 0"), "signs of kernels");

  // The keyboard alone: a one, then a sample.
  await click("clear");
  await evaluate("document.getElementById('pad').focus()");
  for (let step = 0; step < 7; step += 1) await key("ArrowUp");
  await key(" ", "Space");
  for (let step = 0; step < 14; step += 1) await key("ArrowDown");
  await key(" ", "Space");
  assert.match(await answer(), /^1, /, "a one by keys");
  await key("Delete");
  assert.equal(await answer(), "Draw a digit, or choose one.");
  await evaluate("document.querySelectorAll('#samples button')[0].focus()");
  for (let step = 0; step < 4; step += 1) await key("Tab");
  await evaluate("document.activeElement.click()");
  assert.match(await answer(), /^4, /, "a sample by keys");
  const broken = join(profile, "broken.bpk");
  const model = readFileSync(join(folder, "model.bpk"));
  writeFileSync(broken, model.subarray(0, model.length - 100));
  await open(broken);
  await until("!document.getElementById('trouble').hidden");
  assert.match(await sentence(), /^broken\.bpk is not used: .+\. The model before it stays\.$/);
  await evaluate("document.querySelectorAll('#samples button')[3].click()");
  assert.match(await answer(), /^3, /, "after a broken file");
  await open(join(folder, "index.html"));
  await until("document.getElementById('trouble').textContent.startsWith('index.html')");
  assert.match(await sentence(), /not a burnpack file/);
  await open(bare);
  await until(`document.getElementById('trouble').textContent.startsWith('${basename(bare)}')`);
  assert.match(await sentence(), /is not used: the file holds no chain of layers/);
  await open(other);
  await until("document.getElementById('trouble').hidden");
  assert.equal(await evaluate("document.getElementById('samples').hidden"), true);
  await draw(DRAWN[1]);
  assert.match(await answer(), / %$/, "another model's answer");
  await open(join(folder, "model.bpk"));
  await until("document.querySelectorAll('#samples button').length === 10");

  for (const width of [1280, 360]) {
    for (const scheme of ["light", "dark"]) {
      await look(width, scheme);
      await evaluate("document.querySelectorAll('#samples button')[2].click()");
      const wide = await evaluate("document.documentElement.scrollWidth");
      assert.ok(wide <= width, `${wide} pixels wide at ${width}`);
      await photograph(`${width}-${scheme}`);
    }
  }
  await click("clear");
  await draw(DRAWN[7]);
  assert.match(await answer(), /^7, /, "drawn on a phone");
  assert.deepEqual(trouble, [], "the console");
}

try {
  await attach();
  await recognize("?program=scalar", "multibit.wasm");
  await recognize("", "multibit-simd128.wasm");
  await test();
  console.log("the page recognizes digits; nothing in the console");
} catch (error) {
  console.error(error.message, trouble.join("\n"));
  process.exitCode = 1;
} finally {
  server.close();
  const gone = () => chromium.exitCode !== null || chromium.signalCode !== null || chromium.pid === undefined;
  const ended = new Promise((ended) => (gone() ? ended() : chromium.once("exit", ended)));
  // It ends its own processes, which else still write into the profile.
  session = undefined;
  if (!gone()) await send("Browser.close").catch(() => chromium.kill());
  await ended;
  rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 });
}
