"use strict";
const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString("en");
const bytes = (n) => { const units = ["B", "KiB", "MiB", "GiB", "TiB"]; let u = 0; while (n >= 1024 && u < 4) { n /= 1024; u++; } return (u ? n.toFixed(1) : n) + " " + units[u]; };
const ago = (iso) => { const s = Math.max(0, (Date.now() - Date.parse(iso)) / 1000); return s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " d"; };
let last = null;

// Text goes in as text, never as markup.
const row = (cells, kind) => {
  const tr = document.createElement("tr");
  if (kind) tr.className = kind;
  for (const [text, style, span] of cells) { const td = document.createElement("td"); td.textContent = text; if (style) td.className = style; if (span) td.colSpan = span; tr.append(td); }
  return tr;
};
const rate = (kind, name, key, value, at) => {
  const before = last && last.data[kind].find((x) => x.name === name);
  if (!before || at <= last.at) return "";
  return ((value - before[key]) * 1000 / (at - last.at)).toFixed(1);
};
const show = (data, at) => {
  $("state").textContent = data.ready ? "ready" : "not accepting";
  $("state").className = "pill " + (data.ready ? "good" : "bad");
  $("about").textContent = `version ${data.version}, up ${ago(data.started)}, ${data.routes.routes} routes applied ${ago(data.routes.applied)} ago`;
  const told = [...data.reasons];
  if (data.routes.lastReloadError) told.push("The route files as they are now were not applied; the last good ones go on.\n" + data.routes.lastReloadError);
  $("notice").hidden = told.length === 0;
  $("notice").textContent = told.join("\n");
  $("listeners").replaceChildren(...data.listeners.flatMap((l) => {
    const told = [row([
      [l.name], [l.address, "faint"], [number(l.accepted), "n"], [rate("listeners", l.name, "accepted", l.accepted, at), "n"],
      [number(l.filtered), "n"], [number(l.unrouted), l.unrouted ? "n warn" : "n"], [number(l.refused), l.refused ? "n bad" : "n"],
    ])];
    // Peers that frame wrongly have no messages to be counted by; the log says what they sent.
    const faults = Object.entries(l.frameFaults).filter(([fault]) => fault !== "idle").map(([fault, n]) => `${number(n)} ${fault}`);
    if (faults.length) told.push(row([[""], [`frames and connections: ${faults.join(", ")}`, "", 6]], "error"));
    return told;
  }));
  const rows = [];
  for (const t of data.targets) {
    rows.push(row([
      [t.name], [t.place, "faint"], [number(t.delivered), "n"], [rate("targets", t.name, "delivered", t.delivered, at), "n"], [number(t.backlog), t.backlog ? "n warn" : "n"],
      [t.oldestWaiting ? ago(t.oldestWaiting) : "", "faint"], [number(t.parked), t.parked ? "n warn" : "n"], [number(t.deadLetters), t.deadLetters ? "n bad" : "n"],
    ]));
    if (t.lastError) rows.push(row([[""], [`last error ${ago(t.lastError.at)} ago, message ${t.lastError.message}: ${t.lastError.code}: ${t.lastError.summary}`, "", 7]], "error"));
  }
  $("targets").replaceChildren(...rows);
  $("journal").textContent = `${bytes(data.journal.bytes)}, of it ${bytes(data.journal.walBytes)} in write-ahead logs; ${number(data.journal.duplicates)} duplicates seen`;
};
const tick = async () => {
  try {
    const answer = await fetch("/api/stats", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    const data = await answer.json();
    const at = Date.now();
    show(data, at);
    last = { data, at };
  } catch (e) {
    $("state").textContent = "no answer";
    $("state").className = "pill bad";
  }
  setTimeout(tick, 2000);
};
tick();
