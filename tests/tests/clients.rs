//! Tools and drivers, unmodified, over distributed tables: each prints the same as on plain
//! PostgreSQL. The programs are in `tests/clients/`; `tests/clients/install` brings what they need.

use pgherd_tests::clients::check;

#[test]
fn psql() {
    check("psql", &["bash", "main.sh"]);
}

#[test]
fn pg_dump_and_pg_restore() {
    check("pg_dump", &["bash", "main.sh"]);
}

#[test]
fn psycopg() {
    check("psycopg", &["python3", "main.py"]);
}

#[test]
fn asyncpg() {
    check("asyncpg", &["python3", "main.py"]);
}

#[test]
fn sqlalchemy_and_alembic() {
    check("sqlalchemy", &["python3", "main.py"]);
}

#[test]
fn django() {
    check("django", &["python3", "main.py"]);
}

#[test]
fn node_postgres() {
    check("node", &["node", "main.js"]);
}
