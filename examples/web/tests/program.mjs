// The page's programs without a page: node program.mjs FOLDER IMAGES SCORES.
// Scores of all images are the host's, bit for bit; a damaged file is an error with a sentence.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const [folder, imagesFile, scoresFile] = process.argv.slice(2).map((path) => resolve(path));
// A server says what a script is; node goes by its name, or by what is said here.
const source = readFileSync(join(folder, "page.js"), "utf8");
const { Model, images, programFile, shares, offCentre } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const file = new Uint8Array(readFileSync(join(folder, "model.bpk")));
const [raw, expected] = [readFileSync(imagesFile), readFileSync(scoresFile)];
const count = raw.length / 784;
const digits = images(new Uint8Array(readFileSync(join(folder, "digits.idx"))));

/** What the program says of a file that it must refuse. */
function refused(program, bytes, what) {
  try {
    new Model(program, bytes);
  } catch (error) {
    // What traps has no sentence of its own.
    assert.ok(error.message && !/memory than a page/.test(error.message), `${what}: ${error.message}`);
    return error.message;
  }
  return assert.fail(`${what} was taken`);
}
function test(name) {
  const program = new WebAssembly.Module(readFileSync(join(folder, name)));
  const model = new Model(program, file);
  assert.deepEqual(model.shape, [1, 28, 28]);
  assert.deepEqual(model.labels, Array.from("0123456789"));

  const start = performance.now();
  for (let image = 0; image < count; image += 1) {
    const scores = model.run(new Uint8Array(raw.subarray(image * 784, (image + 1) * 784)));
    const bits = Buffer.from(scores.buffer);
    assert.ok(bits.equals(expected.subarray(image * 40, (image + 1) * 40)), `scores of image ${image}`);
  }
  const ms = (performance.now() - start) / count;
  console.log(`${name}: ${count} images, the host's scores bit for bit, ${ms.toPrecision(3)} ms each`);

  digits.forEach((grey, digit) => {
    const all = shares(model.run(model.sample(grey)));
    assert.equal(all.indexOf(Math.max(...all)), digit, `the page's digit ${digit}`);
    const [x, y] = offCentre(grey, [28, 28]);
    // MNIST centres by whole pixels.
    assert.ok(Math.abs(x) < 1 && Math.abs(y) < 1, `the middle of digit ${digit}: ${x}, ${y}`);
  });

  let damaged = 0;
  for (let at = 0; at < file.length; at += 61) {
    refused(program, file.subarray(0, at), `the first ${at} bytes`);
    damaged += 1;
  }
  // The directory and the data are under a checksum; the container's head is short.
  for (let at = file.length >> 1; at < file.length; at += 37) {
    const flipped = file.slice();
    flipped[at] ^= 1 << (at % 8);
    refused(program, flipped, `byte ${at} flipped`);
    damaged += 1;
  }
  assert.match(refused(program, new TextEncoder().encode("<!doctype html>"), "a page"), /not a burnpack file/);
  assert.throws(() => model.run(new Uint8Array(783)), /784/);
  console.log(`${name}: ${damaged} damaged files, a sentence each`);
}

assert.equal(programFile(null), programFile("simd128"), "what this engine runs fastest");
for (const name of ["scalar", "simd128"].map(programFile)) test(name);
