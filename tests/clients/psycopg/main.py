"""psycopg 3: text and binary results, pipelines, server-side cursors, COPY, LISTEN, cancel."""

import datetime as dt
import decimal
import os
import threading
import uuid

import psycopg
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Json, Jsonb

DSN = os.environ["DSN"]
UTC = dt.timezone.utc
COLUMNS = "id,kind,i2,i4,f4,f8,n,t,vc,b,by,d,tm,ts,tz,iv,u,j,jb,ia,ta,m"


def connect(**options):
    return psycopg.connect(DSN, autocommit=True, options="-c timezone=UTC", **options)


def item(n):
    return (
        n, n % 3 + 1, n, -n, 0.5, 0.25 + n, decimal.Decimal("1.50000"), f"text {n} ä", "vc", True,
        b"\x00\xff\xde\xad", dt.date(2024, 2, 29), dt.time(12, 34, 56, 789000),
        dt.datetime(2024, 2, 29, 1, 2, 3), dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC),
        dt.timedelta(days=3, seconds=7), uuid.UUID(int=n), Json({"a": [1, None]}),
        Jsonb({"b": "x"}), [1, None, 3], ["a b", 'c"d', None], "happy",
    )


def section(name):
    print(f"== {name}", flush=True)


def show(rows):
    for row in rows:
        print(row)


def attempt(run):
    """What a failing call reports, beside its text: what programs look at."""
    try:
        result = run()
        print("done", result if isinstance(result, (int, str, list, tuple)) else "")
    except psycopg.Error as error:
        d = error.diag
        print(type(error).__name__, error.sqlstate, d.message_primary)
        print(" ", d.severity, d.constraint_name, d.table_name, d.column_name, d.statement_position)


INSERT = f"INSERT INTO items ({COLUMNS}) VALUES ({','.join(['%s'] * 22)})"


def connecting():
    section("connect")
    with connect() as c:
        i = c.info
        print(i.server_version, i.encoding, i.parameter_status("integer_datetimes"))
        print(i.parameter_status("standard_conforming_strings"), i.parameter_status("TimeZone"))
        show(c.execute("SELECT 1, 'a', NULL::int"))


def types(binary):
    section(f"types {'binary' if binary else 'text'}")
    with connect() as c:
        base = 100 if binary else 0
        cur = c.cursor(binary=binary)
        info = EnumInfo.fetch(c, "mood")
        print(info.labels)
        register_enum(info, c)
        for n in range(1, 5):
            cur.execute(INSERT, item(base + n))
            print(cur.statusmessage, cur.rowcount)
        cur.execute(f"SELECT {COLUMNS} FROM items WHERE id = %s", (base + 2,))
        mood = {info.oid: "mood"}
        print([(d.name, mood.get(d.type_code, d.type_code)) for d in cur.description])
        show(cur)
        for column in COLUMNS.split(","):
            cur.execute(
                f"SELECT {column} FROM items WHERE id > %s AND id < %s ORDER BY id",
                (base, base + 50),
            )
            print(column, cur.fetchall())
        cur.execute("SELECT count(*), sum(i2), avg(f8), max(tz), min(u::text) FROM items")
        show(cur)
        cur.execute("SELECT id FROM items WHERE id = ANY(%s) ORDER BY id", ([1, 3, 101, 102, 999],))
        show(cur)
        cur.execute("SELECT i.id, k.name FROM items i JOIN kinds k ON k.id = i.kind ORDER BY 1")
        show(cur)
        cur.execute("SELECT * FROM kinds ORDER BY id")
        show(cur)
        cur.execute("SELECT id, body FROM notes ORDER BY id LIMIT 2")
        show(cur)


def prepared():
    section("prepared statements")
    with connect() as c:
        for n in range(1, 12):
            show(c.execute("SELECT id, t FROM items WHERE id = %s", (n,), prepare=True))
        show(c.execute("SELECT count(*) FROM items WHERE i4 < %s", (0,), prepare=True))
        c.execute("ALTER TABLE items ADD COLUMN extra int DEFAULT 7")
        show(c.execute("SELECT id, t FROM items WHERE id = %s", (2,), prepare=True))
        show(c.execute("SELECT extra FROM items WHERE id = %s", (2,), prepare=True))
        c.execute("ALTER TABLE items DROP COLUMN extra")


def batches():
    section("executemany")
    with connect() as c:
        cur = c.cursor()
        cur.executemany("INSERT INTO items (id, t) VALUES (%s, %s)", [(n, f"b{n}") for n in range(200, 240)])
        print(cur.rowcount)
        cur.executemany(
            "UPDATE items SET t = %s WHERE id = %s RETURNING id, t",
            [(f"c{n}", n) for n in range(200, 204)],
            returning=True,
        )
        while True:
            show(cur)
            if not cur.nextset():
                break
        show(c.execute("SELECT count(*) FROM items WHERE id BETWEEN 200 AND 299"))
    section("pipeline")
    with connect() as c:
        with c.pipeline() as p:
            a = c.execute("INSERT INTO items (id) VALUES (%s)", (300,))
            b = c.execute("INSERT INTO items (id) VALUES (%s)", (301,))
            d = c.execute("SELECT count(*) FROM items WHERE id IN (300, 301)")
            e = c.execute("SELECT id FROM items WHERE id >= 300 ORDER BY id")
            p.sync()
            print(a.rowcount, b.rowcount, d.fetchall(), e.fetchall())
        try:
            with c.pipeline():
                c.execute("INSERT INTO items (id) VALUES (%s)", (302,))
                c.execute("INSERT INTO items (id) VALUES (%s)", (300,))
                c.execute("INSERT INTO items (id) VALUES (%s)", (303,))
        except psycopg.Error as error:
            print(type(error).__name__, error.sqlstate)
        show(c.execute("SELECT id FROM items WHERE id >= 300 AND id < 400 ORDER BY id"))


def transactions():
    section("transactions")
    with connect() as c:
        with c.transaction():
            for n in range(400, 408):
                c.execute("INSERT INTO items (id, i4) VALUES (%s, 0)", (n,))
        show(c.execute("SELECT count(*) FROM items WHERE id BETWEEN 400 AND 499"))
        with c.transaction(force_rollback=True):
            c.execute("UPDATE items SET i4 = 5 WHERE id BETWEEN 400 AND 499")
            show(c.execute("SELECT sum(i4) FROM items WHERE id BETWEEN 400 AND 499"))
        show(c.execute("SELECT sum(i4) FROM items WHERE id BETWEEN 400 AND 499"))
        with c.transaction():
            c.execute("UPDATE items SET i4 = 1 WHERE id = 400")
            try:
                with c.transaction():
                    c.execute("UPDATE items SET i4 = 2 WHERE id = 401")
                    c.execute("INSERT INTO items (id) VALUES (402)")
            except psycopg.errors.UniqueViolation as error:
                print(error.sqlstate)
            with c.transaction():
                c.execute("UPDATE items SET i4 = 3 WHERE id = 403")
                c.execute("UPDATE kinds SET name = 'THREE' WHERE id = 3")
        show(c.execute("SELECT id, i4 FROM items WHERE id BETWEEN 400 AND 404 ORDER BY id"))
        show(c.execute("SELECT name FROM kinds WHERE id = 3"))
        c.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with c.transaction():
            show(c.execute("SHOW transaction_isolation"))
            show(c.execute("SELECT i4 FROM items WHERE id = 400"))
        c.isolation_level = None
        c.read_only = True
        with c.transaction():
            attempt(lambda: c.execute("UPDATE items SET i4 = 9 WHERE id = 400"))
            print(c.info.transaction_status.name)


def cursors():
    section("cursors")
    with psycopg.connect(DSN) as c:
        for name, sql in [
            ("home", "SELECT id, body FROM notes ORDER BY id"),
            ("reference", "SELECT id FROM kinds ORDER BY id"),
            ("key", "SELECT id, t FROM items WHERE id = 200"),
            ("scatter", "SELECT id FROM items WHERE id BETWEEN 200 AND 239 ORDER BY id"),
        ]:
            section(f"cursor over {name}")
            def run():
                with c.cursor(name="c") as cur:
                    cur.itersize = 7
                    cur.execute(sql)
                    print(cur.fetchmany(2), cur.fetchone())
                    print(len(list(cur)))
            attempt(run)
            c.rollback()
        section("scrollable cursor")
        def scroll():
            with c.cursor(name="s", scrollable=True) as cur:
                cur.execute("SELECT id FROM notes ORDER BY id")
                cur.scroll(4)
                print(cur.fetchone())
                cur.scroll(0, mode="absolute")
                print(cur.fetchone())
        attempt(scroll)
        c.rollback()
        section("cursor with hold")
        def hold():
            cur = c.cursor(name="h", withhold=True)
            cur.execute("SELECT id FROM notes ORDER BY id")
            c.commit()
            print(cur.fetchmany(3))
            cur.close()
        attempt(hold)
        c.rollback()
        section("stream")
        for row in c.cursor().stream("SELECT id FROM items WHERE id BETWEEN 200 AND 205 ORDER BY id"):
            print(row)


def copies():
    with connect() as c:
        cur = c.cursor()
        section("copy in text")
        def text():
            with cur.copy("COPY items (id, t, jb) FROM STDIN") as copy:
                for n in range(500, 550):
                    copy.write_row((n, f"line\n{n}\t\\", Jsonb({"n": n})))
            print(cur.rowcount)
        attempt(text)
        section("copy in binary")
        def binary():
            with cur.copy("COPY items (id, t, i2) FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["int8", "text", "int2"])
                for n in range(550, 560):
                    copy.write_row((n, f"binary {n}", n))
            print(cur.rowcount)
        attempt(binary)
        section("copy in csv")
        def csv():
            with cur.copy("COPY items (id, t) FROM STDIN (FORMAT csv, HEADER)") as copy:
                copy.write('id,t\n560,"a ""quoted"" one"\n561,\n562,""\n')
            print(cur.rowcount)
        attempt(csv)
        section("copied rows")
        show(c.execute("SELECT id, t, jb, i2 FROM items WHERE id IN (500, 549, 555, 560, 561, 562) ORDER BY id"))
        section("copy aborted")
        def abort():
            with cur.copy("COPY items (id, t) FROM STDIN") as copy:
                copy.write_row((570, "x"))
                raise psycopg.DataError("the program gave up")
        attempt(abort)
        section("copy error")
        def bad():
            with cur.copy("COPY items (id, t) FROM STDIN") as copy:
                copy.write_row((571, "x"))
                copy.write("no number\tx\n")
        attempt(bad)
        show(c.execute("SELECT count(*) FROM items WHERE id BETWEEN 570 AND 579"))
        for name, sql in [
            ("table", "COPY kinds TO STDOUT"),
            ("query by key", "COPY (SELECT id, t FROM items WHERE id = 500) TO STDOUT"),
            ("query", "COPY (SELECT id, t FROM items WHERE id BETWEEN 500 AND 505) TO STDOUT (FORMAT csv)"),
            ("ordered query", "COPY (SELECT id FROM items WHERE id < 10 ORDER BY id) TO STDOUT"),
        ]:
            section(f"copy out {name}")
            def out():
                with cur.copy(sql) as copy:
                    show(sorted(bytes(data) for data in copy))
            attempt(out)
        section("copy out rows")
        def rows():
            with cur.copy("COPY items (id, t) TO STDOUT (FORMAT binary)") as copy:
                copy.set_types(["int8", "text"])
                print(sorted(copy.rows())[:5])
        attempt(rows)


def notifications():
    section("notify")
    with connect() as listener, connect() as other:
        def run():
            listener.execute("LISTEN news")
            other.execute("NOTIFY news, 'hello'")
            other.execute("SELECT pg_notify('news', 'again')")
            for note in listener.notifies(timeout=10, stop_after=2):
                print(note.channel, note.payload)
            listener.execute("UNLISTEN news")
        attempt(run)


def errors():
    with connect() as c:
        c.execute("INSERT INTO items (id) VALUES (600)")
        for name, sql in [
            ("unique", "INSERT INTO items (id) VALUES (600)"),
            ("foreign key", "INSERT INTO items (id, kind) VALUES (601, 99)"),
            ("check", "INSERT INTO items (id, i2) VALUES (602, 5000)"),
            ("not null", "INSERT INTO notes (body) VALUES (NULL)"),
            ("no table", "SELECT * FROM nothing"),
            ("no column", "SELECT nothing FROM items WHERE id = 1"),
            ("no column anywhere", "SELECT nothing FROM items"),
            ("syntax", "SELEC 1"),
            ("syntax inside", "SELECT id FROM items WHERE"),
            ("bad value", "SELECT 'x'::int"),
            ("bad key", "SELECT id FROM items WHERE id = 'x'"),
            ("division", "SELECT 1 / (i4 - i4) FROM items"),
            ("too long", "UPDATE items SET vc = repeat('x', 30) WHERE id = 600"),
            ("enum", "UPDATE items SET m = 'furious' WHERE id = 600"),
            ("raise", "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'P0042'; END $$"),
        ]:
            section(f"error {name}")
            attempt(lambda: c.execute(sql))
        section("error in a transaction")
        c.autocommit = False
        attempt(lambda: c.execute("INSERT INTO items (id) VALUES (600)"))
        attempt(lambda: c.execute("SELECT 1"))
        print(c.info.transaction_status.name)
        c.rollback()
        show(c.execute("SELECT id FROM items WHERE id = 600"))
        c.rollback()
        section("notices")
        c.autocommit = True
        c.add_notice_handler(lambda notice: print(notice.severity, notice.message_primary))
        c.execute("DO $$ BEGIN RAISE NOTICE 'seen'; END $$")
        c.execute("DROP TABLE IF EXISTS nothing")


def cancelling():
    for name, sql in [
        ("home", "SELECT pg_sleep(60)"),
        ("scatter", "SELECT pg_sleep(60) FROM items WHERE id BETWEEN 400 AND 499"),
    ]:
        section(f"cancel {name}")
        with connect() as c:
            ended = threading.Event()

            def cancel():
                # A cancel that comes before its statement is lost.
                while not ended.wait(1):
                    c.cancel_safe()

            thread = threading.Thread(target=cancel)
            thread.start()
            attempt(lambda: c.execute(sql))
            ended.set()
            thread.join()
            show(c.execute("SELECT id FROM items WHERE id = 1"))
    section("statement timeout")
    with connect() as c:
        c.execute("SET statement_timeout = '200ms'")
        attempt(lambda: c.execute("SELECT pg_sleep(60) FROM items WHERE id = 1"))
        attempt(lambda: c.execute("SELECT pg_sleep(60) FROM items"))
        c.execute("RESET statement_timeout")
        show(c.execute("SELECT pg_sleep(0.3)::text"))


def sessions():
    section("settings")
    with connect() as c:
        c.execute("SET timezone = 'Europe/Berlin'")
        print(c.info.parameter_status("TimeZone"))
        show(c.execute("SELECT tz FROM items WHERE id = 1"))
        show(c.execute("SELECT current_setting('timezone'), set_config('app.user', 'me', false)"))
        show(c.execute("SELECT current_setting('app.user', true) FROM items WHERE id = 2"))
        show(c.execute('SHOW app."user"'))


def reconnecting():
    section("reconnect")
    for n in range(20):
        with connect() as c:
            c.execute("SELECT id FROM items WHERE id = %s", (n,))
    with connect() as c:
        show(c.execute("SELECT current_setting('app.user', true)"))
    section("temporary table")
    with connect() as c:
        def run():
            c.execute("CREATE TEMP TABLE mine (a int)")
            c.execute("INSERT INTO mine VALUES (1), (2)")
            show(c.execute("SELECT sum(a) FROM mine"))
            c.execute("DROP TABLE mine")
        attempt(run)
    section("advisory lock")
    with connect() as c, connect() as other:
        def run():
            show(c.execute("SELECT pg_try_advisory_lock(7)"))
            show(other.execute("SELECT pg_try_advisory_lock(7)"))
            show(c.execute("SELECT pg_advisory_unlock(7)"))
            show(other.execute("SELECT pg_try_advisory_lock(7)"))
        attempt(run)


for part in [
    connecting,
    lambda: types(binary=False),
    lambda: types(binary=True),
    prepared,
    batches,
    transactions,
    cursors,
    copies,
    notifications,
    errors,
    cancelling,
    sessions,
    reconnecting,
]:
    attempt(part)
