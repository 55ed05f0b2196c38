// The page's program without a page: node program.mjs FOLDER IMAGES SCORES.
// Scores of all images are the host's, bit for bit; a damaged file is an error with a sentence.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, imagesFile, scoresFile] = process.argv.slice(2).map((path) => resolve(path));
// A server says what a script is; node goes by its name, or by what is said here.
const source = readFileSync(join(folder, "page.js"), "utf8");
const { Model, images, shares, offCentre } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const program = new WebAssembly.Module(readFileSync(join(folder, "multibit.wasm")));
const file = new Uint8Array(readFileSync(join(folder, "model.bpk")));
const model = new Model(program, file);
assert.deepEqual(model.shape, [1, 28, 28]);
assert.deepEqual(model.labels, Array.from("0123456789"));

const [raw, expected] = [readFileSync(imagesFile), readFileSync(scoresFile)];
const count = raw.length / 784;
for (let image = 0; image < count; image += 1) {
  const scores = model.run(new Uint8Array(raw.subarray(image * 784, (image + 1) * 784)));
  const bits = Buffer.from(scores.buffer);
  assert.ok(bits.equals(expected.subarray(image * 40, (image + 1) * 40)), `scores of image ${image}`);
}
console.log(`${count} images: the host's scores, bit for bit`);

const digits = images(new Uint8Array(readFileSync(join(folder, "digits.idx"))));
digits.forEach((grey, digit) => {
  const all = shares(model.run(model.sample(grey)));
  assert.equal(all.indexOf(Math.max(...all)), digit, `the page's digit ${digit}`);
  const [x, y] = offCentre(grey, [28, 28]);
  // MNIST centres by whole pixels.
  assert.ok(Math.abs(x) < 1 && Math.abs(y) < 1, `the middle of digit ${digit}: ${x}, ${y}`);
});

/** What the program says of a file that it must refuse. */
function refused(bytes, what) {
  try {
    new Model(program, bytes);
  } catch (error) {
    // What traps has no sentence of its own.
    assert.ok(error.message && !/memory than a page/.test(error.message), `${what}: ${error.message}`);
    return error.message;
  }
  return assert.fail(`${what} was taken`);
}
let damaged = 0;
for (let at = 0; at < file.length; at += 61) {
  refused(file.subarray(0, at), `the first ${at} bytes`);
  damaged += 1;
}
// The directory and the data are under a checksum; the container's head is short.
for (let at = file.length >> 1; at < file.length; at += 37) {
  const flipped = file.slice();
  flipped[at] ^= 1 << (at % 8);
  refused(flipped, `byte ${at} flipped`);
  damaged += 1;
}
assert.match(refused(new TextEncoder().encode("<!doctype html>"), "a page"), /not a burnpack file/);
assert.throws(() => model.run(new Uint8Array(783)), /784/);
console.log(`${damaged} damaged files: a sentence each`);
