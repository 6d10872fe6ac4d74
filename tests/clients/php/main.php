<?php
// PDO: prepared on the server and emulated, transactions, scrollable cursors, COPY, notifications.
const COLUMNS = "id,kind,i2,i4,f4,f8,n,t,vc,b,by,d,tm,ts,tz,iv,u,j,jb,ia,ta,m";

function item(int $n): array {
    return [$n, $n % 3 + 1, $n, -$n, 0.5, 0.25 + $n, "1.50000", "text $n ä", "vc", "t", '\x00ff', "2024-02-29", "12:34:56",
        "2024-02-29 01:02:03", "2024-02-29 01:02:03+00", "3 days", sprintf("00000000-0000-0000-0000-%012d", $n),
        '{"a": 1}', '{"b": 2}', "{1,NULL,3}", '{"a b",NULL}', "happy"];
}

function connect(array $options = []): PDO {
    $dsn = sprintf("pgsql:host=%s;port=%s;dbname=%s;user=%s", getenv("PGHOST"), getenv("PGPORT"), getenv("PGDATABASE"), getenv("PGUSER"));
    $c = new PDO($dsn, null, null, $options + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_NUM]);
    $c->exec("SET timezone = 'UTC'");
    return $c;
}

function part(string $name, callable $run, array $options = []): void {
    echo "== $name\n";
    try {
        $run(connect($options));
    } catch (PDOException $e) {
        echo get_class($e), " ", $e->getCode(), " ", $e->getMessage(), "\n";
    }
}

function show(PDOStatement $s): void {
    foreach ($s as $row) {
        echo json_encode(array_map(fn($v) => is_resource($v) ? bin2hex(stream_get_contents($v)) : $v, $row)), "\n";
    }
}

function query(PDO $c, string $sql, array $values = []): void {
    $s = $c->prepare($sql);
    $s->execute($values);
    show($s);
}

part("connect", function ($c) { echo $c->getAttribute(PDO::ATTR_SERVER_VERSION), "\n"; query($c, "SELECT 1, 'a', NULL"); });
foreach ([[0, "prepared", []], [10, "emulated", [PDO::ATTR_EMULATE_PREPARES => true]], [20, "unnamed", [PDO::PGSQL_ATTR_DISABLE_PREPARES => true]]] as [$base, $name, $options]) {
    part("types $name", function ($c) use ($base) {
        $s = $c->prepare("INSERT INTO items (" . COLUMNS . ") VALUES (" . implode(",", array_fill(0, 22, "?")) . ")");
        for ($n = $base + 1; $n < $base + 5; $n++) { $s->execute(item($n)); echo $s->rowCount(), "\n"; }
        foreach (explode(",", COLUMNS) as $column) {
            query($c, "SELECT $column FROM items WHERE id = ?", [$base + 2]);
            query($c, "SELECT $column FROM items WHERE id > ? AND id < ? ORDER BY id", [$base, $base + 9]);
        }
        query($c, "SELECT count(*), sum(n), max(tz) FROM items WHERE id < ?", [100]);
        $s = $c->query("SELECT id, m, n FROM items WHERE id = " . ($base + 1));
        for ($n = 0; $n < 3; $n++) { $m = $s->getColumnMeta($n); echo $m["name"], " ", $m["native_type"], " ", $m["pdo_type"], " ", $m["table"] ?? "", "\n"; }
    }, $options);
}
part("prepared statements", function ($c) {
    $s = $c->prepare("SELECT t FROM items WHERE id = :id");
    for ($n = 1; $n < 9; $n++) { $s->execute(["id" => $n]); show($s); }
    $s = $c->prepare("SELECT count(*) FROM items WHERE i4 < ?");
    for ($n = 1; $n < 4; $n++) { $s->execute([0]); show($s); }
});
part("transactions", function ($c) {
    $c->beginTransaction();
    $s = $c->prepare("INSERT INTO items (id, i4) VALUES (?, 0)");
    for ($n = 200; $n < 220; $n++) $s->execute([$n]);
    $c->commit();
    $c->beginTransaction();
    echo $c->exec("UPDATE items SET i4 = 5 WHERE id >= 200"), "\n";
    $c->rollBack();
    query($c, "SELECT sum(i4) FROM items WHERE id >= 200");
    $c->beginTransaction();
    $c->exec("SAVEPOINT s");
    try { $c->exec("INSERT INTO items (id) VALUES (200)"); } catch (PDOException $e) { echo $e->getCode(), " ", json_encode($c->inTransaction()), "\n"; }
    $c->exec("ROLLBACK TO s");
    $c->exec("UPDATE items SET i4 = 1 WHERE id = 201");
    $c->commit();
    query($c, "SELECT i4 FROM items WHERE id = 201");
    $c->exec("INSERT INTO notes (body) VALUES ('php')");
    echo json_encode($c->lastInsertId("notes_id_seq") > 0), "\n";
});
foreach (["home" => "SELECT id FROM notes WHERE id < 9 ORDER BY id", "scatter" => "SELECT id FROM items WHERE id >= 200 ORDER BY id"] as $name => $sql) {
    part("cursor over $name", function ($c) use ($sql) {
        $c->beginTransaction();
        $s = $c->prepare($sql, [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
        $s->execute();
        echo $s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST)[0], $s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_FIRST)[0], "\n";
        $c->commit();
    });
}
part("copy", function ($c) {
    echo json_encode($c->pgsqlCopyFromArray("items (id, t)", ["500\tone", "501\t\\N"], "\t")), "\n";
    query($c, "SELECT id, t FROM items WHERE id >= 500 ORDER BY id");
    echo count($c->pgsqlCopyToArray("items")), "\n";
});
part("notify", function ($c) {
    $c->exec("LISTEN news");
    $c->exec("NOTIFY news, 'hello'");
    $n = $c->pgsqlGetNotify(PDO::FETCH_NUM, 10000);
    echo $n[0], " ", $n[2] ?? "", "\n";
});
foreach (["unique" => "INSERT INTO items (id) VALUES (200)", "no table" => "SELECT * FROM nothing", "no column" => "SELECT nothing FROM items WHERE id = 1",
    "syntax" => "SELECT id FROM items WHERE", "check" => "INSERT INTO items (id, i2) VALUES (600, 5000)"] as $name => $sql) {
    part("error $name", fn($c) => query($c, $sql));
}
part("timeout", function ($c) {
    $c->exec("SET statement_timeout = 200");
    query($c, "SELECT pg_sleep(60)");
});
part("persistent", fn($c) => query($c, "SELECT id FROM items WHERE id = ?", [1]), [PDO::ATTR_PERSISTENT => true]);
