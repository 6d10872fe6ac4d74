// node-postgres: text and named statements, several statements in a string, cursors, COPY, pools.
"use strict";
const { Client, Pool, types } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");
const copy = require("pg-copy-streams");
const { pipeline } = require("node:stream/promises");
const { connect } = require("node:net");
const { Readable, Writable } = require("node:stream");

const DSN = process.env.DSN;
const COLUMNS = "id,kind,i2,i4,f4,f8,n,t,vc,b,by,d,tm,ts,tz,iv,u,j,jb,ia,ta,m".split(",");
const PLACES = COLUMNS.map((_, n) => `$${n + 1}`).join(",");
const INSERT = `INSERT INTO items (${COLUMNS}) VALUES (${PLACES})`;
process.env.TZ = "UTC";
types.setTypeParser(1082, (text) => text);

const item = (n) => [
  n, (n % 3) + 1, n, -n, 0.5, 0.25 + n, "1.50000", `text ${n} ä`, "vc", true,
  Buffer.from([0, 255, 222]), "2024-02-29", "12:34:56.789", "2024-02-29 01:02:03",
  new Date(Date.UTC(2024, 1, 29)), "3 days 7 seconds", `00000000-0000-0000-0000-00000000000${n}`,
  { a: [1, null] }, JSON.stringify({ b: "x" }), [1, null, 3], ["a b", 'c"d', null], "happy",
];
const show = (result) => {
  for (const r of [result].flat()) {
    console.log(r.command, r.rowCount, JSON.stringify(r.rows));
  }
};
async function attempt(name, run) {
  console.log(`== ${name}`);
  const client = new Client(DSN);
  try {
    await client.connect();
    await run(client);
  } catch (e) {
    console.log(e.name, e.code, e.message, e.severity, e.constraint, e.table, e.position);
  }
  await client.end();
}

async function main() {
  await attempt("connect", async (c) => {
    show(await c.query("SELECT 1 AS a, 'b' AS b, NULL AS c"));
  });
  for (const binary of [false, true]) {
    await attempt(`types ${binary ? "binary" : "text"}`, async (c) => {
      await c.query("DELETE FROM items WHERE id < 10");
      for (let n = 1; n < 5; n++) show(await c.query({ text: INSERT, values: item(n), binary }));
      // pg reads a NULL in a binary array as a length.
      for (const column of COLUMNS.filter((name) => !binary || !/^[it]a$/.test(name))) {
        const q = (where, values) =>
          c.query({ text: `SELECT ${column} FROM items WHERE ${where}`, values, binary });
        show(await q("id = $1", [2]));
        show(await q("id < $1 ORDER BY id", [10]));
      }
      const list = COLUMNS.filter((name) => !/^[it]a$/.test(name));
      const r = await c.query({ text: `SELECT ${list} FROM items WHERE id = $1`, values: [3], binary });
      console.log(r.fields.map((f) => [f.name, f.dataTypeID > 9999 ? "own" : f.dataTypeID, f.format]));
      show(await c.query({ text: "SELECT id, m FROM items ORDER BY m, id", rowMode: "array" }));
      show(await c.query("SELECT id FROM items WHERE id = ANY($1) ORDER BY id", [[1, 3, 9]]));
    });
  }
  await attempt("named statements", async (c) => {
    for (let n = 1; n < 9; n++) {
      show(await c.query({ name: "by-id", text: "SELECT t FROM items WHERE id = $1", values: [n] }));
    }
    show(await c.query({ name: "all", text: "SELECT count(*) FROM items WHERE i4 < $1", values: [0] }));
    await c.query("ALTER TABLE items ADD COLUMN extra int");
    show(await c.query({ name: "by-id", text: "SELECT t FROM items WHERE id = $1", values: [2] }));
    await c.query("ALTER TABLE items DROP COLUMN extra");
  });
  await attempt("several statements", async (c) => {
    show(await c.query("INSERT INTO items (id) VALUES (200); INSERT INTO items (id) VALUES (201); SELECT count(*) FROM items WHERE id > 199"));
    try {
      await c.query("INSERT INTO items (id) VALUES (202); INSERT INTO items (id) VALUES (200)");
    } catch (e) {
      console.log(e.code);
    }
    show(await c.query("SELECT id FROM items WHERE id >= 200 ORDER BY id"));
  });
  await attempt("queue", async (c) => {
    const all = [];
    for (let n = 300; n < 340; n++) all.push(c.query("INSERT INTO items (id, t) VALUES ($1, $2)", [n, "q"]));
    console.log((await Promise.all(all)).length);
    show(await c.query("SELECT count(*) FROM items WHERE t = 'q'"));
  });
  await attempt("transactions", async (c) => {
    await c.query("BEGIN");
    show(await c.query("UPDATE items SET i4 = 5 WHERE id >= $1 AND id < $2", [300, 340]));
    await c.query("ROLLBACK");
    show(await c.query("SELECT sum(i4) FROM items WHERE id >= 300 AND id < 340"));
    await c.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    await c.query("UPDATE items SET i4 = 1 WHERE id = $1", [300]);
    await c.query("SAVEPOINT s");
    try {
      await c.query("INSERT INTO items (id) VALUES ($1)", [301]);
    } catch (e) {
      console.log(e.code, e.detail);
    }
    await c.query("ROLLBACK TO SAVEPOINT s");
    await c.query("UPDATE items SET i4 = 2 WHERE id = $1", [302]);
    await c.query("COMMIT");
    show(await c.query("SELECT id, i4 FROM items WHERE id >= 300 AND id < 303 ORDER BY id"));
  });
  for (const [name, sql] of [
    ["home", "SELECT id FROM notes ORDER BY id"],
    ["reference", "SELECT id FROM kinds ORDER BY id"],
    ["key", "SELECT id FROM items WHERE id = 300"],
    ["scatter", "SELECT id FROM items WHERE id >= 300 AND id < 340 ORDER BY id"],
  ]) {
    await attempt(`cursor over ${name}`, async (c) => {
      const cursor = c.query(new Cursor(sql));
      console.log(JSON.stringify(await cursor.read(2)), JSON.stringify(await cursor.read(100)));
      await cursor.close();
      let count = 0;
      for await (const _ of c.query(new QueryStream(sql, [], { batchSize: 7 }))) count++;
      console.log(count);
    });
  }
  await attempt("copy in", async (c) => {
    const rows = Array.from({ length: 50 }, (_, n) => `${500 + n}\trow ${n}\n`);
    await pipeline(Readable.from(rows), c.query(copy.from("COPY items (id, t) FROM STDIN")));
    await pipeline(Readable.from(["560,one\n561,\n"]), c.query(copy.from("COPY items (id, t) FROM STDIN CSV")));
    show(await c.query("SELECT count(*) FROM items WHERE id >= 500"));
  });
  await attempt("copy error", async (c) => {
    await pipeline(Readable.from(["x\tx\n"]), c.query(copy.from("COPY items (id, t) FROM STDIN")));
  });
  await attempt("copy out", async (c) => {
    const lines = [];
    const sink = new Writable({ write: (chunk, _, done) => { lines.push(chunk.toString()); done(); } });
    await pipeline(c.query(copy.to("COPY items (id, t) TO STDOUT")), sink);
    const sorted = lines.join("").split("\n").filter((line) => line).sort();
    console.log(sorted.length, sorted.slice(0, 3));
  });
  await attempt("notify", async (c) => {
    const note = new Promise((got) => c.once("notification", (n) => got([n.channel, n.payload])));
    await c.query("LISTEN news");
    await c.query("SELECT pg_notify('news', 'hello')");
    console.log(await note);
  });
  for (const [name, sql, values] of [
    ["unique", "INSERT INTO items (id) VALUES ($1)", [1]],
    ["foreign key", "INSERT INTO items (id, kind) VALUES ($1, 99)", [701]],
    ["no table", "SELECT * FROM nothing"],
    ["no column", "SELECT nothing FROM items WHERE id = $1", [1]],
    ["syntax", "SELECT id FROM items WHERE"],
    ["bad value", "SELECT id FROM items WHERE id = $1", ["x"]],
    ["enum", "UPDATE items SET m = $1 WHERE id = 1", ["furious"]],
  ]) {
    await attempt(`error ${name}`, async (c) => show(await c.query(sql, values)));
  }
  for (const sql of ["SELECT pg_sleep(60)", "SELECT pg_sleep(60) FROM items WHERE id = 1"]) {
    await attempt(`cancel: ${sql}`, async (c) => {
      const request = Buffer.alloc(16);
      [16, 80877102, c.processID, c.secretKey].forEach((word, n) => request.writeInt32BE(word, 4 * n));
      // A cancel that comes before its statement is lost, and one that is late must not reach the next.
      const sent = [];
      const again = setInterval(() => {
        const socket = connect(process.env.PGPORT, process.env.PGHOST);
        sent.push(new Promise((done) => socket.once("close", done)));
        socket.end(request).resume();
      }, 1000);
      await c.query(sql).catch((e) => console.log(e.code, e.message));
      clearInterval(again);
      await Promise.all(sent);
      show(await c.query("SELECT id FROM items WHERE id = 1"));
    });
  }
  await attempt("pool", async () => {
    const pool = new Pool({ connectionString: DSN, max: 4, statement_timeout: 30000, query_timeout: 30000 });
    const all = Array.from({ length: 40 }, (_, n) => pool.query("SELECT id FROM items WHERE id = $1", [n % 4 + 1]));
    console.log((await Promise.all(all)).map((r) => r.rows[0].id).join(" "));
    show(await pool.query("SHOW statement_timeout"));
    await pool.end();
  });
}
main();
