// Runs a program for WASI, such as a test of Rust's: node wasi.mjs PROGRAM [ARGUMENTS].

import { readFileSync } from "node:fs";
import { argv, env, exit } from "node:process";
import { WASI } from "node:wasi";

const args = argv.slice(2);
const wasi = new WASI({ version: "preview1", args, env, preopens: { "/": "/" } });
const program = new WebAssembly.Module(readFileSync(args[0]));
exit(wasi.start(new WebAssembly.Instance(program, wasi.getImportObject())));
