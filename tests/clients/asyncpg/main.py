"""asyncpg: everything prepared and binary, its own introspection of types, cursors, COPY."""

import asyncio
import datetime as dt
import decimal
import io
import os
import uuid

import asyncpg

DSN = os.environ["DSN"]
UTC = dt.timezone.utc
COLUMNS = "id,kind,i2,i4,f4,f8,n,t,vc,b,by,d,tm,ts,tz,iv,u,j,jb,ia,ta,m".split(",")
PLACES = ",".join(f"${n}" for n in range(1, 23))
INSERT = f"INSERT INTO items ({','.join(COLUMNS)}) VALUES ({PLACES})"


def item(n):
    return (
        n, n % 3 + 1, n, -n, 0.5, 0.25 + n, decimal.Decimal("1.50000"), f"text {n} ä", "vc", True,
        b"\x00\xff\xde\xad", dt.date(2024, 2, 29), dt.time(12, 34, 56, 789000),
        dt.datetime(2024, 2, 29, 1, 2, 3), dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC),
        dt.timedelta(days=3, seconds=7), uuid.UUID(int=n), '{"a": [1, null]}', '{"b": "x"}',
        [1, None, 3], ["a b", 'c"d', None], "happy",
    )


def show(rows):
    for row in rows:
        print(tuple(row.values()))


async def attempt(run):
    try:
        result = await run()
        print("done", result if isinstance(result, (int, str, list)) else "")
    except asyncpg.PostgresError as error:
        print(type(error).__name__, error.sqlstate, error.as_dict()["message"])
        print(" ", error.as_dict().get("constraint_name"), error.as_dict().get("table_name"))
    except Exception as error:
        print(type(error).__name__, error)


async def connecting(c):
    print(c.get_server_version().major, c.get_settings().client_encoding)
    show(await c.fetch("SELECT 1 AS a, 'b' AS b, NULL::int AS c"))


async def types(c):
    for n in range(1, 5):
        print(await c.execute(INSERT, *item(n)))
    for column in COLUMNS:
        show(await c.fetch(f"SELECT {column} FROM items WHERE id = $1", 2))
        show(await c.fetch(f"SELECT {column} FROM items WHERE id < $1 ORDER BY id", 50))
    show(await c.fetch("SELECT count(*), sum(i2), avg(f8), max(tz), max(m::text) FROM items"))
    show(await c.fetch("SELECT id FROM items WHERE id = ANY($1::bigint[]) ORDER BY id", [1, 3, 9]))
    show(await c.fetch("SELECT id FROM items WHERE m = $1 ORDER BY id", "happy"))
    show(await c.fetch("SELECT m FROM items WHERE id = $1 AND m = $2", 3, "happy"))
    show(await c.fetch("SELECT i.id, k.name FROM items i JOIN kinds k ON k.id = i.kind ORDER BY 1"))
    show(await c.fetch("SELECT * FROM kinds ORDER BY id"))
    show(await c.fetch("SELECT id, body FROM notes ORDER BY id LIMIT $1", 2))
    s = await c.prepare("SELECT * FROM items WHERE id = $1 AND t = $2")
    print([(a.name, a.type.name, a.type.kind) for a in s.get_attributes()])
    print([(a.name, a.kind) for a in s.get_parameters()])


async def composites(c):
    await c.execute("CREATE TYPE pair AS (x int, y text)")
    await c.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    await c.execute("CREATE TABLE things (k int PRIMARY KEY, p pair, q positive, ms mood[], r int4range)")
    await c.execute("SELECT create_distributed_table('things', 'k')")
    for n in range(1, 6):
        await c.execute(
            "INSERT INTO things VALUES ($1, $2, $3, $4, $5)", n, (n, f"y{n}"), n, ["sad", "ok"],
            asyncpg.Range(n, n + 5),
        )
    for n in range(1, 6):
        show(await c.fetch("SELECT * FROM things WHERE k = $1", n))
    show(await c.fetch("SELECT p FROM things ORDER BY k"))
    show(await c.fetch("SELECT q, ms, r FROM things ORDER BY k"))


async def prepared(c):
    s = await c.prepare("SELECT id, t FROM items WHERE id = $1")
    for n in range(1, 12):
        show(await s.fetch(n))
    await c.execute("ALTER TABLE items ADD COLUMN extra int DEFAULT 7")
    show(await s.fetch(2))
    show(await c.fetch("SELECT * FROM items WHERE id = $1", 2))
    await c.execute("ALTER TABLE items DROP COLUMN extra")
    show(await c.fetch("SELECT * FROM items WHERE id = $1", 2))


async def batches(c):
    await c.executemany("INSERT INTO items (id, t) VALUES ($1, $2)", [(n, f"b{n}") for n in range(200, 240)])
    show(await c.fetch("SELECT count(*) FROM items WHERE id BETWEEN 200 AND 299"))
    rows = await c.fetchmany("UPDATE items SET t = $1 WHERE id = $2 RETURNING id, t", [("u", 200), ("v", 201)])
    show(rows)
    await attempt(lambda: c.executemany("INSERT INTO items (id) VALUES ($1)", [(240,), (200,), (241,)]))
    show(await c.fetch("SELECT count(*) FROM items WHERE id BETWEEN 200 AND 299"))
    await c.execute("INSERT INTO items (id) VALUES (250); INSERT INTO items (id) VALUES (251)")
    show(await c.fetch("SELECT id FROM items WHERE id IN (250, 251) ORDER BY id"))


async def transactions(c):
    async with c.transaction():
        for n in range(400, 408):
            await c.execute("INSERT INTO items (id, i4) VALUES ($1, 0)", n)
    t = c.transaction()
    await t.start()
    print(await c.execute("UPDATE items SET i4 = 5 WHERE id BETWEEN 400 AND 499"))
    show(await c.fetch("SELECT sum(i4) FROM items WHERE id BETWEEN 400 AND 499"))
    await t.rollback()
    show(await c.fetch("SELECT sum(i4) FROM items WHERE id BETWEEN 400 AND 499"))
    async with c.transaction(isolation="repeatable_read"):
        await c.execute("UPDATE items SET i4 = 1 WHERE id = 400")
        try:
            async with c.transaction():
                await c.execute("UPDATE items SET i4 = 2 WHERE id = 401")
                await c.execute("INSERT INTO items (id) VALUES (402)")
        except asyncpg.UniqueViolationError as error:
            print(error.sqlstate, error.constraint_name)
        async with c.transaction():
            await c.execute("UPDATE items SET i4 = 3 WHERE id = 403")
    show(await c.fetch("SELECT id, i4 FROM items WHERE id BETWEEN 400 AND 404 ORDER BY id"))


def cursor(sql, *args):
    async def run(c):
        async with c.transaction():
            seen = []
            async for row in c.cursor(sql, *args, prefetch=7):
                seen.append(row[0])
            print(seen)
            cur = await c.cursor(sql, *args)
            print([r[0] for r in await cur.fetch(2)], await cur.forward(2), await cur.fetchrow())
    return run


async def copies(c):
    rows = [(n, f"line\n{n}\t\\", n) for n in range(500, 550)]
    print(await c.copy_records_to_table("items", records=rows, columns=["id", "t", "i2"]))
    csv = io.BytesIO(b"560,one\n561,two\n")
    print(await c.copy_to_table("items", source=csv, columns=["id", "t"], format="csv"))
    show(await c.fetch("SELECT id, t FROM items WHERE id IN (500, 549, 560, 561) ORDER BY id"))
    await attempt(lambda: c.copy_records_to_table("items", records=[(570, "x"), (500, "y")], columns=["id", "t"]))
    out = io.BytesIO()
    print(await c.copy_from_query("SELECT id, t FROM items WHERE id = $1", 500, output=out))
    print(out.getvalue())


async def copy_out(c):
    out = io.BytesIO()
    print(await c.copy_from_table("items", columns=["id"], output=out, format="csv"))
    print(sorted(int(line) for line in out.getvalue().split())[:10])


async def notifications(c):
    other = await asyncpg.connect(DSN)
    got = asyncio.Queue()
    await c.add_listener("news", lambda _c, _pid, channel, payload: got.put_nowait((channel, payload)))
    await other.execute("NOTIFY news, 'hello'")
    print(await asyncio.wait_for(got.get(), 10))
    await other.close()


def error(sql, *args):
    async def run(c):
        await attempt(lambda: c.fetch(sql, *args))
        show(await c.fetch("SELECT id FROM items WHERE id = 1"))
    return run


def cancel(sql):
    async def run(c):
        try:
            await c.fetch(sql, timeout=1)
        except asyncio.TimeoutError:
            print("timed out")
        show(await c.fetch("SELECT id FROM items WHERE id = 1"))
    return run


async def introspection(c):
    await c.reload_schema_state()
    await c.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=lambda v: ("json", v))
    show(await c.fetch("SELECT jb FROM items WHERE id = 1"))
    await c.reset()
    await c.close()


async def pool():
    async with asyncpg.create_pool(DSN, min_size=2, max_size=4) as pool:
        async def one(n):
            return await pool.fetchval("SELECT t FROM items WHERE id = $1", n)
        print(await asyncio.gather(*(one(n) for n in [1, 2, 3, 4] * 10)))


async def main():
    parts = [
        ("connect", connecting), ("types", types), ("prepared statements", prepared),
        ("user-defined types", composites), ("batches", batches), ("transactions", transactions),
        ("cursor over home", cursor("SELECT id FROM notes ORDER BY id")),
        ("cursor over reference", cursor("SELECT id FROM kinds ORDER BY id")),
        ("cursor over key", cursor("SELECT id FROM items WHERE id = $1", 200)),
        ("cursor over scatter", cursor("SELECT id FROM items WHERE id BETWEEN 200 AND 239 ORDER BY id")),
        ("copy", copies), ("copy out", copy_out), ("notify", notifications),
        ("error unique", error("INSERT INTO items (id) VALUES ($1)", 1)),
        ("error foreign key", error("INSERT INTO items (id, kind) VALUES (701, 99)")),
        ("error check", error("INSERT INTO items (id, i2) VALUES ($1, $2)", 702, 5000)),
        ("error no table", error("SELECT * FROM nothing")),
        ("error no column", error("SELECT nothing FROM items WHERE id = $1", 1)),
        ("error syntax", error("SELECT id FROM items WHERE")),
        ("error division", error("SELECT 1 / (i4 - i4) FROM items")),
        ("error enum", error("SELECT id FROM items WHERE m = $1", "furious")),
        ("cancel home", cancel("SELECT pg_sleep(60)")),
        ("cancel scatter", cancel("SELECT pg_sleep(60) FROM items WHERE id BETWEEN 200 AND 239")),
        ("introspection", introspection),
    ]
    for name, part in parts:
        print(f"== {name}", flush=True)
        c = await asyncpg.connect(DSN)
        await attempt(lambda: part(c))
        await c.close()
    print("== pool", flush=True)
    await attempt(pool)


asyncio.run(main())
