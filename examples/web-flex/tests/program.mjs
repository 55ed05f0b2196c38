// The program under node: node program.mjs PROGRAM MODEL IMAGES SCORES, scores of the host's in f32.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const [programFile, modelFile, imagesFile, scoresFile] = process.argv.slice(2);
const program = new WebAssembly.Module(readFileSync(programFile));
const [file, images, expected] = [modelFile, imagesFile, scoresFile].map((path) => readFileSync(path));

/** What crates for the browser import through the glue of a tool, such as clocks: no layer calls it. */
function imports() {
  const all = {};
  for (const { module, name } of WebAssembly.Module.imports(program)) {
    (all[module] ??= {})[name] = () => {
      throw new Error(`${name} was called`);
    };
  }
  return all;
}

const calls = new WebAssembly.Instance(program, imports()).exports;
// The memory moves when it grows.
const memory = (Type, at, length) => new Type(calls.memory.buffer, at, length);
const text = () => new TextDecoder().decode(memory(Uint8Array, calls.flex_text(), calls.flex_text_len()));

function load(bytes) {
  const at = calls.flex_file(bytes.length);
  memory(Uint8Array, at, bytes.length).set(bytes);
  return calls.flex_load();
}

assert.equal(calls.flex_run(), 0);
assert.match(text(), /no model/);
assert.equal(load(file.subarray(0, file.length - 9)), 0);
assert.match(text(), /^the file: /);
assert.equal(load(file), 1, text());

const count = images.length / 784;
let largest = 0;
let furthest = 0;
const start = performance.now();
for (let image = 0; image < count; image += 1) {
  memory(Uint8Array, calls.flex_input(), 784).set(images.subarray(image * 784, (image + 1) * 784));
  assert.equal(calls.flex_run(), 1);
  memory(Float32Array, calls.flex_scores(), 10).forEach((score, place) => {
    const host = expected.readFloatLE((image * 10 + place) * 4);
    largest = Math.max(largest, Math.abs(host));
    furthest = Math.max(furthest, Math.abs(score - host));
  });
}
const ms = (performance.now() - start) / count;
// Sums of up to 800 products in f32, in another order.
assert.ok(furthest <= 1e-5 * largest, `scores up to ${largest} differ by ${furthest}`);
console.log(`${count} images, scores up to ${largest.toFixed(1)} within ${furthest.toExponential(1)} of the host's, ${ms.toPrecision(3)} ms each`);
