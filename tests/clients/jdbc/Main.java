// pgjdbc: statements prepared on the server from the first run and never, batches, fetch sizes,
// metadata, CopyManager, notifications, cancel and timeouts.

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.*;
import java.util.Arrays;
import java.util.Properties;
import java.util.TimeZone;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;

public class Main {
    static final String COLUMNS = "id,kind,i2,i4,f4,f8,n,t,vc,b,by,d,tm,ts,tz,iv,u,j,jb,ia,ta,m";
    static final String INSERT = "INSERT INTO items (" + COLUMNS + ") VALUES (" + "?,".repeat(21) + "?)";

    interface Part { void run(Connection c) throws Exception; }

    static String url() {
        return "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
    }

    static Connection connect(String... options) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        for (int n = 0; n < options.length; n += 2) p.setProperty(options[n], options[n + 1]);
        return DriverManager.getConnection(url(), p);
    }

    static void part(String name, Part part, String... options) {
        System.out.println("== " + name);
        try (Connection c = connect(options)) {
            part.run(c);
        } catch (SQLException e) {
            System.out.println(e.getClass().getSimpleName() + " " + e.getSQLState() + " " + e.getMessage());
            if (e instanceof PSQLException p && p.getServerErrorMessage() != null) {
                System.out.println(p.getServerErrorMessage().getConstraint() + " " + p.getServerErrorMessage().getTable());
            }
        } catch (Exception e) {
            System.out.println(e);
        }
    }

    static void show(ResultSet r) throws SQLException {
        ResultSetMetaData m = r.getMetaData();
        while (r.next()) {
            StringBuilder line = new StringBuilder();
            for (int n = 1; n <= m.getColumnCount(); n++) {
                Object value = r.getObject(n);
                if (value instanceof byte[] bytes) value = Arrays.toString(bytes);
                line.append(n > 1 ? "|" : "").append(value);
            }
            System.out.println(line);
        }
    }

    static void query(Connection c, String sql, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int n = 0; n < values.length; n++) s.setObject(n + 1, values[n]);
            if (s.execute()) show(s.getResultSet()); else System.out.println(s.getUpdateCount());
        }
    }

    static PGobject object(String type, String value) throws SQLException {
        PGobject o = new PGobject();
        o.setType(type);
        o.setValue(value);
        return o;
    }

    static void insert(Connection c, int n) throws SQLException {
        query(c, INSERT, (long) n, n % 3 + 1, (short) n, -n, 0.5f, 0.25 + n, new BigDecimal("1.50000"), "text " + n + " ä", "vc",
            true, n < 10 ? object("bytea", "\\x00ff") : new byte[] {0, -1}, Date.valueOf("2024-02-29"), Time.valueOf("12:34:56"), Timestamp.valueOf("2024-02-29 01:02:03"),
            Timestamp.valueOf("2024-02-29 01:02:03"), object("interval", "3 days"), new UUID(0, n), object("json", "{\"a\": 1}"),
            object("jsonb", "{\"b\": 2}"), c.createArrayOf("int4", new Integer[] {1, null, 3}),
            c.createArrayOf("text", new String[] {"a b", null}), object("mood", "happy"));
    }

    static void types(Connection c, int base) throws SQLException {
        for (int n = base + 1; n < base + 5; n++) insert(c, n);
        for (String column : COLUMNS.split(",")) {
            for (int again = 0; again < 2; again++) query(c, "SELECT " + column + " FROM items WHERE id = ?", (long) base + 2);
            query(c, "SELECT " + column + " FROM items WHERE id > ? AND id < ? ORDER BY id", (long) base, (long) base + 9);
        }
        query(c, "SELECT count(*), sum(n), avg(f8), max(tz) FROM items WHERE id > ? AND id < ?", (long) base, (long) base + 9);
        query(c, "SELECT i.id, k.name FROM items i JOIN kinds k ON k.id = i.kind ORDER BY i.id LIMIT ?", 3);
        query(c, "SELECT id FROM items WHERE id = ANY (?) ORDER BY id", c.createArrayOf("bigint", new Long[] {base + 1L, base + 3L}));
        try (PreparedStatement s = c.prepareStatement("SELECT id, m, n, ta FROM items WHERE id = ?")) {
            ResultSetMetaData m = s.getMetaData();
            for (int n = 1; n <= m.getColumnCount(); n++) {
                System.out.println(m.getColumnName(n) + " " + m.getColumnTypeName(n) + " " + m.getPrecision(n) + " " + m.isNullable(n));
            }
            System.out.println(s.getParameterMetaData().getParameterTypeName(1));
        }
    }

    static void error(String name, String sql, Object... values) {
        part("error " + name, c -> query(c, sql, values));
    }

    public static void main(String[] args) throws Exception {
        TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
        part("connect", c -> {
            DatabaseMetaData m = c.getMetaData();
            System.out.println(m.getDatabaseMajorVersion() + " " + c.isValid(5) + " " + c.getTransactionIsolation());
            query(c, "SELECT 1, 'a', NULL::int");
        });
        part("types, simple protocol", c -> types(c, 0), "preferQueryMode", "simple");
        part("types, extended protocol", c -> types(c, 10));
        part("types, prepared and binary", c -> types(c, 20), "prepareThreshold", "-1");
        part("prepared statements", c -> {
            try (PreparedStatement s = c.prepareStatement("SELECT id, t FROM items WHERE id = ?")) {
                for (int n = 1; n < 12; n++) {
                    s.setLong(1, n);
                    show(s.executeQuery());
                }
                c.createStatement().execute("ALTER TABLE items ADD COLUMN extra int DEFAULT 7");
                s.setLong(1, 2);
                show(s.executeQuery());
                c.createStatement().execute("ALTER TABLE items DROP COLUMN extra");
            }
            for (int n = 1; n < 8; n++) query(c, "SELECT count(*) FROM items WHERE i4 < ?", 0);
        });
        part("batches", c -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO items (id, t) VALUES (?, ?)")) {
                for (int n = 200; n < 240; n++) {
                    s.setLong(1, n);
                    s.setString(2, "b");
                    s.addBatch();
                }
                System.out.println(Arrays.toString(s.executeBatch()));
            }
            try (Statement s = c.createStatement()) {
                s.addBatch("UPDATE items SET t = 'x' WHERE id = 200");
                s.addBatch("UPDATE items SET t = 'y' WHERE id BETWEEN 201 AND 205");
                s.addBatch("DELETE FROM items WHERE id = 206");
                System.out.println(Arrays.toString(s.executeBatch()));
            }
            query(c, "SELECT t, count(*) FROM items WHERE id >= 200 GROUP BY t ORDER BY t");
        });
        part("rewritten batches", c -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO items (id, t) VALUES (?, ?)")) {
                for (int n = 240; n < 280; n++) {
                    s.setLong(1, n);
                    s.setString(2, "r");
                    s.addBatch();
                }
                System.out.println(s.executeBatch().length);
            }
            query(c, "SELECT count(*) FROM items WHERE t = 'r'");
        }, "reWriteBatchedInserts", "true");
        part("failing batch", c -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO items (id) VALUES (?)")) {
                for (long id : new long[] {290, 200, 291}) {
                    s.setLong(1, id);
                    s.addBatch();
                }
                s.executeBatch();
            } catch (BatchUpdateException e) {
                System.out.println(e.getSQLState() + " " + e.getUpdateCounts().length);
            }
            query(c, "SELECT id FROM items WHERE id >= 290 ORDER BY id");
        });
        part("generated keys", c -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO notes (body) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
                s.setString(1, "new");
                s.executeUpdate();
                ResultSet r = s.getGeneratedKeys();
                System.out.println(r.next() + " " + (r.getInt(1) > 0));
            }
        });
        part("transactions", c -> {
            c.setAutoCommit(false);
            query(c, "UPDATE items SET i4 = 5 WHERE id BETWEEN ? AND ?", 200L, 239L);
            query(c, "SELECT sum(i4) FROM items WHERE id BETWEEN 200 AND 239");
            c.rollback();
            query(c, "SELECT sum(i4) FROM items WHERE id BETWEEN 200 AND 239");
            c.commit();
            c.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            query(c, "UPDATE items SET i4 = 1 WHERE id = ?", 200L);
            Savepoint s = c.setSavepoint();
            try {
                query(c, "INSERT INTO items (id) VALUES (?)", 201L);
            } catch (SQLException e) {
                System.out.println(e.getSQLState());
            }
            c.rollback(s);
            query(c, "UPDATE items SET i4 = 2 WHERE id = ?", 202L);
            c.commit();
            query(c, "SELECT id, i4 FROM items WHERE id BETWEEN 200 AND 202 ORDER BY id");
            c.commit();
            c.setReadOnly(true);
            query(c, "SELECT count(*) FROM items");
            c.commit();
        });
        for (String[] cursor : new String[][] {
            {"home", "SELECT id FROM notes ORDER BY id"}, {"reference", "SELECT id FROM kinds ORDER BY id"},
            {"key", "SELECT id FROM items WHERE id = 200"}, {"scatter", "SELECT id FROM items WHERE id BETWEEN 200 AND 239 ORDER BY id"},
        }) {
            part("cursor over " + cursor[0], c -> {
                c.setAutoCommit(false);
                try (Statement s = c.createStatement()) {
                    s.setFetchSize(7);
                    ResultSet r = s.executeQuery(cursor[1]);
                    int rows = 0;
                    while (r.next()) rows++;
                    System.out.println(rows);
                }
                c.commit();
            });
        }
        part("row limit", c -> {
            try (Statement s = c.createStatement()) {
                s.setMaxRows(3);
                show(s.executeQuery("SELECT id FROM notes ORDER BY id"));
            }
        });
        part("row limit over shards", c -> {
            try (Statement s = c.createStatement()) {
                s.setMaxRows(3);
                show(s.executeQuery("SELECT id FROM items ORDER BY id"));
            }
        });
        part("updatable result", c -> {
            try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                ResultSet r = s.executeQuery("SELECT id, t FROM items WHERE id = 200");
                r.next();
                r.updateString("t", "updated");
                r.updateRow();
                r.last();
                System.out.println(r.getRow());
            }
            query(c, "SELECT t FROM items WHERE id = 200");
        });
        part("copy", c -> {
            var copy = c.unwrap(PGConnection.class).getCopyAPI();
            System.out.println(copy.copyIn("COPY items (id, t) FROM STDIN", new StringReader("500\ta\n501\t\\N\n")));
            System.out.println(copy.copyIn("COPY items (id, t) FROM STDIN CSV", new StringReader("502,\"a,b\"\n503,\n")));
            StringWriter out = new StringWriter();
            System.out.println(copy.copyOut("COPY (SELECT id, t FROM items WHERE id >= 500) TO STDOUT", out));
            System.out.println(Arrays.toString(out.toString().lines().sorted().toArray()));
            copy.copyIn("COPY items (id, t) FROM STDIN", new StringReader("x\ta\n"));
        });
        part("notify", c -> {
            c.createStatement().execute("LISTEN news");
            try (Connection other = connect()) {
                other.createStatement().execute("NOTIFY news, 'hello'");
            }
            for (PGNotification n : c.unwrap(PGConnection.class).getNotifications(10_000)) {
                System.out.println(n.getName() + " " + n.getParameter());
            }
        });
        part("metadata", c -> {
            DatabaseMetaData m = c.getMetaData();
            ResultSet r = m.getTables(null, "public", "%", new String[] {"TABLE"});
            while (r.next()) System.out.println(r.getString("TABLE_NAME"));
            r = m.getColumns(null, "public", "items", "%");
            while (r.next()) System.out.println(r.getString("COLUMN_NAME") + " " + r.getString("TYPE_NAME") + " " + r.getInt("COLUMN_SIZE") + " " + r.getString("IS_NULLABLE"));
            r = m.getPrimaryKeys(null, "public", "items");
            while (r.next()) System.out.println(r.getString("COLUMN_NAME") + " " + r.getString("PK_NAME"));
            r = m.getImportedKeys(null, "public", "items");
            while (r.next()) System.out.println(r.getString("FK_NAME") + " " + r.getString("PKTABLE_NAME"));
            r = m.getIndexInfo(null, "public", "kinds", false, false);
            while (r.next()) System.out.println(r.getString("INDEX_NAME") + " " + r.getString("COLUMN_NAME"));
            r = m.getTypeInfo();
            int types = 0;
            while (r.next()) types++;
            System.out.println(types > 50);
            r = m.getProcedures(null, "public", "%");
            r = m.getFunctionColumns(null, "pg_catalog", "int4pl", "%");
            while (r.next()) System.out.println(r.getString("COLUMN_NAME") + " " + r.getString("TYPE_NAME"));
            r = m.getTablePrivileges(null, "public", "notes");
            while (r.next()) System.out.println(r.getString("GRANTEE") + " " + r.getString("PRIVILEGE"));
            System.out.println(m.getSQLKeywords().length() > 100);
            r = m.getBestRowIdentifier(null, "public", "items", 0, true);
            while (r.next()) System.out.println(r.getString("COLUMN_NAME"));
        });
        error("unique", "INSERT INTO items (id) VALUES (?)", 200L);
        error("foreign key", "INSERT INTO items (id, kind) VALUES (?, ?)", 700L, 99);
        error("check", "INSERT INTO items (id, i2) VALUES (?, ?)", 700L, 5000);
        error("no table", "SELECT * FROM nothing WHERE id = ?", 1);
        error("no column", "SELECT nothing FROM items WHERE id = ?", 1L);
        error("syntax", "SELECT id FROM items WHERE");
        error("enum", "SELECT id FROM items WHERE id = 1 AND m = ?::mood", "furious");
        part("cancel", c -> {
            try (Statement s = c.createStatement()) {
                var ended = new java.util.concurrent.CountDownLatch(1);
                var thread = new Thread(() -> {
                    try {
                        // A cancel that comes before its statement is lost.
                        while (!ended.await(1, java.util.concurrent.TimeUnit.SECONDS)) s.cancel();
                    } catch (Exception e) {
                        System.out.println(e);
                    }
                });
                thread.start();
                try {
                    s.execute("SELECT pg_sleep(60)");
                } finally {
                    ended.countDown();
                    thread.join();
                }
            } catch (SQLException e) {
                System.out.println(e.getSQLState() + " " + e.getMessage());
            }
            query(c, "SELECT id FROM items WHERE id = ?", 1L);
        });
        part("query timeout", c -> {
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                s.execute("SELECT pg_sleep(60) FROM items WHERE id = 1");
            } catch (SQLException e) {
                System.out.println(e.getSQLState() + " " + e.getMessage());
            }
            query(c, "SELECT id FROM items WHERE id = ?", 1L);
        });
        part("large object", c -> {
            c.setAutoCommit(false);
            var api = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = api.createLO();
            var object = api.open(oid);
            object.write("hello".getBytes());
            object.seek(1);
            System.out.println(new String(object.read(3)));
            object.close();
            api.delete(oid);
            c.commit();
        });
        part("reconnect", c -> {
            for (int n = 0; n < 10; n++) {
                try (Connection other = connect("ApplicationName", "again", "currentSchema", "public", "options", "-c statement_timeout=5s")) {
                    query(other, "SELECT current_setting('application_name'), current_setting('statement_timeout')");
                }
            }
        });
    }
}
