// The page: a packed model, run by a program in WebAssembly. `Model` and `centred` need no document, and are
// tested without one.

/** A module of one function that counts bits in SIMD128. */
const SIMD128 = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11);

/** The program in scalars, and in SIMD128. */
const PROGRAMS = { scalar: "multibit.wasm", simd128: "multibit-simd128.wasm" };

/**
 * The file of the program: the one that was asked for, else what the browser runs fastest.
 * @param {string | null} [asked]
 */
export function programFile(asked) {
  return PROGRAMS[asked] ?? PROGRAMS[WebAssembly.validate(SIMD128) ? "simd128" : "scalar"];
}

/** A packed file in an instance of the program of its own, which goes when nothing holds it. */
export class Model {
  /**
   * @param {WebAssembly.Module} program
   * @param {Uint8Array} file
   * @throws {Error} with a sentence, if the file does not run
   */
  constructor(program, file) {
    this.calls = new WebAssembly.Instance(program).exports;
    this.fileBytes = file.length;
    const at = this.calls.multibit_file(file.length);
    if (at === 0) throw new Error("the file is larger than the memory of a page");
    this.memory(Uint8Array, at, file.length).set(file);
    this.must(() => this.calls.multibit_load());
    this.name = this.text(this.calls.multibit_name());
    this.shape = this.sizes((axis) => this.calls.multibit_shape(axis));
    this.kernelShape = this.sizes((axis) => this.calls.multibit_kernel_shape(axis));
    this.channelsLast = this.calls.multibit_channels_last() === 1;
    this.divisor = this.calls.multibit_divisor();
    this.bytes = this.calls.multibit_bytes();
    this.labels = Array.from({ length: this.calls.multibit_outputs() }, (_, output) =>
      this.calls.multibit_label(output) > 0 ? this.text() : `output ${output}`);
  }

  /** The instance's memory, which moves when it grows. */
  memory(Type, at, length) {
    return new Type(this.calls.memory.buffer, at, length);
  }

  text() {
    const [at, length] = [this.calls.multibit_text(), this.calls.multibit_text_len()];
    return new TextDecoder().decode(this.memory(Uint8Array, at, length));
  }

  sizes(size) {
    const sizes = [];
    while (size(sizes.length) > 0) sizes.push(size(sizes.length));
    return sizes;
  }

  must(call) {
    let done;
    try {
      done = call();
    } catch {
      throw new Error("the model takes more memory than a page has");
    }
    if (done !== 1) throw new Error(this.text());
  }

  /**
   * The scores of one sample.
   * @param {Uint8Array} raw a byte a value, in the file's order
   * @returns {Float32Array} one for each label
   */
  run(raw) {
    const length = this.shape.reduce((product, size) => product * size, 1);
    if (raw.length !== length) throw new Error(`a sample holds ${length} bytes, not ${raw.length}`);
    this.memory(Uint8Array, this.calls.multibit_input(), length).set(raw);
    this.must(() => this.calls.multibit_run());
    return this.memory(Float32Array, this.calls.multibit_scores(), this.labels.length).slice();
  }

  /** A grey image, in all channels. */
  sample(grey) {
    const channels = this.shape[0];
    const raw = new Uint8Array(grey.length * channels);
    grey.forEach((value, pixel) => {
      for (let channel = 0; channel < channels; channel += 1) {
        raw[this.channelsLast ? pixel * channels + channel : channel * grey.length + pixel] = value;
      }
    });
    return raw;
  }

  /** Why this page has no samples for it; nothing, if it has. */
  strange() {
    if (this.shape.length !== 3) return "it takes lists of numbers, and this page draws images";
    if (this.divisor !== 255) return `its samples count to ${this.divisor}, and those of this page to 255`;
    if (Math.max(...this.shape) > 1024) return "its images are larger than this page draws";
    return undefined;
  }

  /** Signs and coordinates of a kernel on a basis; nothing, if no weight has one. */
  basis(kernel, basis) {
    const [, , height, width] = this.kernelShape;
    const places = Array.from({ length: height * width }, (_, place) => kernel * height * width + place);
    const signs = places.map((place) => this.calls.multibit_kernel_sign(place, basis));
    if (signs.every((sign) => sign === 0)) return undefined;
    const all = places.map((place) => this.calls.multibit_kernel_coordinate(place, basis));
    const coordinates = [...new Set(all.filter((_, place) => signs[place] !== 0))];
    return { signs, coordinates };
  }
}

/** Shares of 1, by softmax. */
export function shares(scores) {
  const largest = Math.max(...scores);
  const powers = Array.from(scores, (score) => Math.exp(score - largest));
  const sum = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / sum);
}

/** The images of an IDX file of bytes: the magic number 0x803, count, height and width, big-endian. */
export function images(bytes) {
  const head = new DataView(bytes.buffer, bytes.byteOffset, 16);
  const [magic, count, height, width] = [0, 4, 8, 12].map((at) => head.getUint32(at));
  if (magic !== 0x803 || bytes.length !== 16 + count * height * width) {
    throw new Error("no images in the format IDX");
  }
  const size = height * width;
  return Array.from({ length: count }, (_, image) => bytes.subarray(16 + image * size, 16 + (image + 1) * size));
}

/**
 * Where a drawing goes in a square of 1, as MNIST's digits: as large as fits a box of 20 of 28 pixels.
 * @param {{x: number, y: number}[][]} strokes
 * @returns {(point: {x: number, y: number}) => {x: number, y: number}}
 */
export function fitted(strokes) {
  const points = strokes.flat();
  const [xs, ys] = [points.map((point) => point.x), points.map((point) => point.y)];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  // The pen is added on both sides. A dot stays one.
  const scale = Math.min((20 / 28 - PEN) / Math.max(right - left, bottom - top), 6);
  return ({ x, y }) => ({
    x: 0.5 + (x - (left + right) / 2) * scale,
    y: 0.5 + (y - (top + bottom) / 2) * scale,
  });
}

/** How far the centre of mass lies from the centre, in pixels. */
export function offCentre(grey, [height, width]) {
  let [mass, x, y] = [0, 0, 0];
  grey.forEach((value, pixel) => {
    mass += value;
    x += value * (pixel % width + 0.5);
    y += value * (Math.floor(pixel / width) + 0.5);
  });
  return mass === 0 ? [0, 0] : [x / mass - width / 2, y / mass - height / 2];
}

/** Width of the pen in a square of 1: about that of MNIST's digits. */
const PEN = 2.6 / 28;

/** Dots drawn for a pixel, along each axis. */
const FINE = 8;

/** Strokes as an image of grey values, centred and scaled. */
function drawn(strokes, [height, width]) {
  const side = Math.min(height, width);
  const fine = Math.max(1, Math.min(FINE, Math.floor(2048 / Math.max(height, width))));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width * fine, height * fine];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const fit = fitted(strokes);
  let shift = [0, 0];
  let grey;
  // The second time about the centre of mass.
  for (let round = 0; round < 2; round += 1) {
    const [left, top] = [(width - side) / 2 - shift[0], (height - side) / 2 - shift[1]];
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    ink(context, strokes.map((stroke) => stroke.map(fit)), side * fine, [left * fine, top * fine]);
    grey = averaged(context.getImageData(0, 0, canvas.width, canvas.height).data, fine, [height, width]);
    shift = offCentre(grey, [height, width]);
  }
  return grey;
}

/** Each pixel the mean of its dots. */
function averaged(dots, fine, [height, width]) {
  return Uint8Array.from({ length: height * width }, (_, pixel) => {
    const [left, top] = [(pixel % width) * fine, Math.floor(pixel / width) * fine];
    let sum = 0;
    for (let y = top; y < top + fine; y += 1) {
      for (let x = left; x < left + fine; x += 1) sum += dots[4 * (y * width * fine + x)];
    }
    return Math.round(sum / (fine * fine));
  });
}

/** Draws strokes of a square of 1, `size` dots large. */
function ink(context, strokes, size, [left, top]) {
  context.strokeStyle = "#fff";
  context.lineWidth = PEN * size;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    for (const { x, y } of stroke) context.lineTo(left + x * size, top + y * size);
    // A line of no length has its round ends.
    context.lineTo(left + stroke.at(-1).x * size, top + stroke.at(-1).y * size);
    context.stroke();
  }
}

const element = (id) => document.getElementById(id);
const make = (tag, content = {}) => Object.assign(document.createElement(tag), content);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const kilobytes = (bytes) => `${bytes.toLocaleString("en")} bytes`;

/** What the page shows. */
class Page {
  constructor(program, model, digits) {
    this.program = program;
    this.model = model;
    this.digits = digits;
    this.strokes = [];
    this.pen = { x: 0.5, y: 0.5, down: false };
    this.show(model);
    this.listen();
  }

  show(model) {
    this.model = model;
    const [channels, height, width] = model.shape;
    const name = model.name || "A model without a name";
    element("facts").textContent = `${name}: a file of ${kilobytes(model.fileBytes)}, images of ` +
      `${channels} × ${height} × ${width}, ${model.labels.length} outputs, works in ${kilobytes(model.bytes)} of memory.`;
    this.showSamples();
    this.showKernels();
    this.clear();
  }

  /** Those of the page's digits that have the model's size. */
  showSamples() {
    const [, height, width] = this.model.shape;
    const fit = height === 28 && width === 28;
    element("samples-title").hidden = element("samples").hidden = !fit;
    const buttons = (fit ? this.digits : []).map((grey, digit) => {
      const button = make("button", { type: "button" });
      button.setAttribute("aria-label", `A handwritten ${digit}`);
      button.setAttribute("aria-pressed", "false");
      const canvas = make("canvas", { width: 28, height: 28 });
      paint(canvas, grey, [28, 28]);
      button.append(canvas);
      button.addEventListener("click", () => {
        this.clear();
        button.setAttribute("aria-pressed", "true");
        const pad = element("pad");
        pad.getContext("2d").drawImage(canvas, 0, 0, pad.width, pad.height);
        this.answer(grey, true);
      });
      return button;
    });
    element("samples").replaceChildren(...buttons);
  }

  showKernels() {
    const [out, into] = this.model.kernelShape;
    const most = 64;
    const count = this.model.kernelShape.length === 4 ? out * into : 0;
    element("kernels-text").textContent = count === 0
      ? "The model has no convolution."
      : "A kernel is the sum of its bases, each a sign for every weight, times its coordinate α. " +
        (count > most ? `The first ${most} of ${count}.` : "A kernel without a basis is zero: pruned.");
    const kernels = Array.from({ length: Math.min(count, most) }, (_, kernel) => this.kernel(kernel));
    element("kernels").replaceChildren(...kernels);
  }

  kernel(kernel) {
    const [, into, , width] = this.model.kernelShape;
    const box = make("div");
    const input = into > 1 ? `, input ${kernel % into + 1}` : "";
    box.append(make("h3", { textContent: `Output ${Math.floor(kernel / into) + 1}${input}` }));
    for (let basis = 0; basis < 8; basis += 1) {
      const found = this.model.basis(kernel, basis);
      if (!found) continue;
      const { signs, coordinates } = found;
      const grid = make("div", { className: "signs" });
      grid.style.gridTemplateColumns = `repeat(${width}, 1fr)`;
      grid.setAttribute("role", "img");
      const rows = Array.from({ length: signs.length / width }, (_, row) => signs.slice(row * width, (row + 1) * width));
      const words = rows.map((row) => row.map((sign) => ["minus", "none", "plus"][sign + 1]).join(" "));
      grid.setAttribute("aria-label", `Signs: ${words.join("; ")}`);
      grid.append(...signs.map((sign) => make("i", { className: ["minus", "", "plus"][sign + 1] })));
      const [least, largest] = [Math.min(...coordinates), Math.max(...coordinates)].map((x) => x.toPrecision(3));
      const figure = make("figure");
      figure.append(grid, make("figcaption", { textContent: least === largest ? `α = ${least}` : `α = ${least} to ${largest}` }));
      box.append(figure);
    }
    if (box.childElementCount === 1) box.append(make("p", { className: "quiet", textContent: "No basis" }));
    return box;
  }

  clear() {
    this.strokes = [];
    this.pen.down = false;
    const pad = element("pad").getContext("2d");
    pad.fillStyle = "#000";
    pad.fillRect(0, 0, pad.canvas.width, pad.canvas.height);
    for (const button of element("samples").children) button.setAttribute("aria-pressed", "false");
    const [, height, width] = this.model.shape;
    paint(element("seen"), new Uint8Array(height * width), [height, width]);
    element("answer").textContent = "Draw a digit, or choose one.";
    element("time").textContent = "";
    this.bars(this.model.labels.map(() => 0), -1);
  }

  /** Scores of an image; timed if the drawing is done. */
  answer(grey, done) {
    const { model } = this;
    const raw = model.sample(grey);
    const scores = model.run(raw);
    const all = shares(scores);
    const best = all.indexOf(Math.max(...all));
    paint(element("seen"), grey, model.shape.slice(1));
    this.bars(all, best);
    if (!done) return;
    element("answer").textContent = Number.isNaN(all[0])
      ? "The scores are no numbers."
      : `${model.labels[best]}, ${percent(all[best])}`;
    // As long as the clock of a page needs.
    const start = performance.now();
    let [runs, now] = [0, start];
    while (now < start + 30) {
      model.run(raw);
      runs += 1;
      now = performance.now();
    }
    this.ms = (now - start) / runs;
    element("time").textContent = `${this.ms.toPrecision(3)} ms an image, the mean of ${runs}`;
  }

  /** Of many labels, the ten largest. */
  bars(all, best) {
    const { labels } = this.model;
    let outputs = labels.map((_, output) => output);
    if (outputs.length > 10) outputs = outputs.sort((a, b) => all[b] - all[a]).slice(0, 10);
    const rows = outputs.map((output) => {
      const row = make("tr", { className: output === best ? "best" : "" });
      const label = make("th", { scope: "row", textContent: labels[output] });
      const bar = make("span", { className: "bar" });
      bar.setAttribute("aria-hidden", "true");
      const filled = make("span");
      filled.style.width = `${100 * all[output]}%`;
      bar.append(filled);
      const [middle, share] = [make("td"), make("td", { textContent: percent(all[output]) })];
      middle.append(bar);
      row.append(label, middle, share);
      return row;
    });
    element("scores").classList.toggle("wide", labels.some((label) => label.length > 8));
    element("scores").tBodies[0].replaceChildren(...rows);
  }

  draw(done) {
    const pad = element("pad").getContext("2d");
    pad.fillStyle = "#000";
    pad.fillRect(0, 0, pad.canvas.width, pad.canvas.height);
    ink(pad, this.strokes, pad.canvas.width, [0, 0]);
    if (this.strokes.length === 0) return;
    // Before it is done only where that is quick.
    if (done || this.ms < 10) this.answer(drawn(this.strokes, this.model.shape.slice(1)), done);
  }

  begin(point) {
    if (this.strokes.length === 0) this.clear();
    this.strokes.push([point]);
    this.draw(false);
  }

  move(point) {
    this.strokes.at(-1).push(point);
    this.draw(false);
  }

  listen() {
    const pad = element("pad");
    const point = (event) => {
      const box = pad.getBoundingClientRect();
      const inside = (at) => Math.min(1, Math.max(0, at));
      return { x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height) };
    };
    let pointer;
    pad.addEventListener("pointerdown", (event) => {
      if (pointer !== undefined || event.button !== 0) return;
      pointer = event.pointerId;
      pad.setPointerCapture(pointer);
      this.begin(point(event));
    });
    pad.addEventListener("pointermove", (event) => {
      if (event.pointerId === pointer && this.strokes.length > 0) this.move(point(event));
    });
    for (const end of ["pointerup", "pointercancel"]) {
      pad.addEventListener(end, (event) => {
        if (event.pointerId !== pointer) return;
        pointer = undefined;
        this.draw(true);
      });
    }
    pad.addEventListener("keydown", (event) => this.key(event));
    for (const change of ["focus", "blur"]) pad.addEventListener(change, () => this.cursor());
    element("clear").addEventListener("click", () => this.clear());
    element("file").addEventListener("change", (event) => this.open(event.target.files[0]));
    this.drop();
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const { pen } = this;
    if (step) {
      const moved = (at, by) => Math.min(0.95, Math.max(0.05, at + by / 20));
      [pen.x, pen.y] = [moved(pen.x, step[0]), moved(pen.y, step[1])];
      if (pen.down) this.move({ x: pen.x, y: pen.y });
      else this.draw(false);
    } else if (event.key === " ") {
      if (pen.down) this.draw(true);
      else this.begin({ x: pen.x, y: pen.y });
      pen.down = !pen.down;
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else {
      return;
    }
    event.preventDefault();
    this.cursor();
  }

  /** Where the pen of the keyboard is, once a key was used. */
  cursor() {
    const pad = element("pad");
    if (!pad.matches(":focus-visible")) return;
    const [context, size] = [pad.getContext("2d"), pad.width];
    context.beginPath();
    context.arc(this.pen.x * size, this.pen.y * size, size / 30, 0, 2 * Math.PI);
    context.strokeStyle = this.pen.down ? "#ff9d5c" : "#7fb0ff";
    context.lineWidth = size / 120;
    context.stroke();
  }

  drop() {
    const { body } = document;
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      body.classList.add("dropping");
    });
    document.addEventListener("dragleave", () => body.classList.remove("dropping"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      body.classList.remove("dropping");
      this.open(event.dataTransfer.files[0]);
    });
  }

  async open(file) {
    if (!file) return;
    try {
      const model = new Model(this.program, new Uint8Array(await file.arrayBuffer()));
      const strange = model.strange();
      if (strange) throw new Error(strange);
      element("trouble").hidden = true;
      this.show(model);
    } catch (error) {
      trouble(`${file.name} is not used: ${error.message}. The model before it stays.`);
    }
  }
}

/** Grey values as an image. */
function paint(canvas, grey, [height, width]) {
  [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  grey.forEach((value, pixel) => image.data.set([value, value, value, 255], 4 * pixel));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function trouble(sentence) {
  const box = element("trouble");
  box.textContent = sentence;
  box.hidden = false;
}

async function start() {
  const fetched = async (name) => {
    const response = await fetch(name);
    if (!response.ok) throw new Error(`${name} was not found (${response.status})`);
    return new Uint8Array(await response.arrayBuffer());
  };
  try {
    const name = programFile(new URLSearchParams(location.search).get("program"));
    document.body.dataset.program = name;
    const [wasm, file, digits] = await Promise.all([name, "model.bpk", "digits.idx"].map(fetched));
    // Any server will do, whatever type it gives the file.
    const program = await WebAssembly.compile(wasm);
    new Page(program, new Model(program, file), images(digits));
    document.body.dataset.ready = "true";
  } catch (error) {
    element("facts").textContent = "";
    trouble(`The page cannot start: ${error.message}.`);
  }
}

if (globalThis.document) start();
