// Starts `runkon lsp` when the first workflow is opened, and leaves the rest to it.
const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

function activate() {
  const settings = workspace.getConfiguration("runkon.server");
  const folder = workspace.workspaceFolders?.[0]?.uri.fsPath ?? "";
  const command = settings.get("command").replace("${workspaceFolder}", folder);
  const server = { command, args: settings.get("arguments") };
  client = new LanguageClient("runkon", "Runkon", server, {
    documentSelector: [{ language: "runkon" }],
  });
  return client.start();
}

function deactivate() {
  return client?.stop();
}

module.exports = { activate, deactivate };
