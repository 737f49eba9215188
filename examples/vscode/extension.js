// Starts `kiln lsp` and hands it every YAML file; it leaves those alone that are not Kiln's.
const { workspace } = require('vscode');
const { LanguageClient } = require('vscode-languageclient/node');

let client;

exports.activate = () => {
  const command = workspace.getConfiguration('kiln').get('path');
  const server = { command, args: ['lsp'] };
  client = new LanguageClient('kiln', 'Kiln', server, { documentSelector: [{ scheme: 'file', language: 'yaml' }] });
  return client.start();
};

exports.deactivate = () => client?.stop();
