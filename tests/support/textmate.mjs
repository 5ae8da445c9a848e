// Tokenises texts with the engine of VS Code; for `tests/unit/dsl/test_editing_grammar.py`.
//
//   node textmate.mjs NODE_MODULES GRAMMAR < JSON list of texts > JSON list of [text, scopes] lists
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [modules, grammarFile] = process.argv.slice(2);
const require = createRequire(path.resolve(modules, "x.js"));
const oniguruma = require("vscode-oniguruma");
const textmate = require("vscode-textmate");

const wasm = fs.readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm"));
await oniguruma.loadWASM(wasm.buffer.slice(wasm.byteOffset, wasm.byteOffset + wasm.byteLength));
const registry = new textmate.Registry({
  onigLib: Promise.resolve({
    createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
    createOnigString: (text) => new oniguruma.OnigString(text),
  }),
  loadGrammar: async () =>
    textmate.parseRawGrammar(fs.readFileSync(grammarFile, "utf8"), grammarFile),
});
const grammar = await registry.loadGrammar("source.runkon");

function tokenise(text) {
  let state = textmate.INITIAL;
  const tokens = [];
  for (const line of text.split("\n")) {
    const result = grammar.tokenizeLine(line, state);
    let before = null;
    for (const { startIndex, endIndex, scopes } of result.tokens) {
      const piece = line.slice(startIndex, endIndex);
      if (piece === "") continue;
      const inner = scopes.slice(1);
      if (before !== null && before[1].join() === inner.join()) before[0] += piece;
      else tokens.push((before = [piece, inner]));
    }
    state = result.ruleStack;
  }
  return tokens;
}

const texts = JSON.parse(fs.readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(texts.map(tokenise)));
