"""SQLAlchemy: reflection, ORM over psycopg and asyncpg; Alembic migrations and autogenerate."""

import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import create_async_engine

sys.dont_write_bytecode = True
DSN = os.environ["DSN"]
URL = DSN.replace("postgres://", "postgresql+psycopg://")
ASYNC = DSN.replace("postgres://", "postgresql+asyncpg://")


class Base(orm.DeclarativeBase):
    pass


class Tenant(Base):
    __tablename__ = "tenant"
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50))
    orders: orm.Mapped[list["Order"]] = orm.relationship(back_populates="tenant", cascade="all, delete-orphan")


class Order(Base):
    __tablename__ = "purchase"
    tenant_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("tenant.id"), primary_key=True)
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    amount: orm.Mapped[float] = orm.mapped_column(sa.Numeric(10, 2))
    tags: orm.Mapped[dict] = orm.mapped_column(sa.JSON, default=dict)
    tenant: orm.Mapped[Tenant] = orm.relationship(back_populates="orders")


class Country(Base):
    __tablename__ = "country"
    code: orm.Mapped[str] = orm.mapped_column(sa.String(2), primary_key=True)
    name: orm.Mapped[str]


class Setting(Base):
    __tablename__ = "setting"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    value: orm.Mapped[str | None]


def section(name):
    print(f"== {name}", flush=True)


def attempt(name, run):
    section(name)
    try:
        run()
    except sa.exc.DBAPIError as error:
        print(type(error).__name__, error.orig.sqlstate, error.orig)
    except Exception as error:
        # Alembic lists what it finds in no order.
        print(type(error).__name__, sorted(set(re.findall(r"'(\w+)'", str(error)))))


engine = sa.create_engine(URL)


def create():
    Base.metadata.create_all(engine)
    with engine.begin() as c:
        c.execute(sa.text("SELECT create_distributed_table('tenant', 'id')"))
        c.execute(sa.text("SELECT create_distributed_table('purchase', 'tenant_id')"))
        c.execute(sa.text("SELECT create_reference_table('country')"))


def fill():
    with orm.Session(engine) as s:
        for t in range(1, 9):
            orders = [Order(id=o, amount=t * o, tags={"n": o}) for o in range(1, 4)]
            s.add(Tenant(id=t, name=f"tenant {t}", orders=orders))
        s.add_all([Country(code="de", name="Germany"), Country(code="fr", name="France")])
        setting = Setting(value="x")
        s.add_all([setting, Setting(value="y"), Setting(value=None)])
        s.commit()
        print(setting.id, setting.value)


def query():
    with orm.Session(engine) as s:
        t = s.get(Tenant, 3)
        print(t.name, [(o.id, o.amount, o.tags) for o in sorted(t.orders, key=lambda o: o.id)])
        print(s.scalars(sa.select(Tenant.id).order_by(Tenant.id)).all())
        print(s.execute(sa.select(sa.func.count(), sa.func.sum(Order.amount)).select_from(Order)).all())
        j = sa.select(Tenant.name, sa.func.sum(Order.amount)).join(Tenant.orders).group_by(Tenant.name).order_by(Tenant.name)
        print(s.execute(j).all())
        print(s.execute(sa.select(Tenant).where(Tenant.id.in_([1, 5, 99])).order_by(Tenant.id).limit(5)).scalars().all()[-1].name)
        print([t.name for t in s.scalars(sa.select(Tenant).options(orm.selectinload(Tenant.orders)).order_by(Tenant.id))])
        print([len(t.orders) for t in s.scalars(sa.select(Tenant).options(orm.joinedload(Tenant.orders)).order_by(Tenant.id)).unique()])
        print(s.scalars(sa.select(Country.name).order_by(Country.code)).all())
        print(s.scalar(sa.select(sa.exists().where(Order.tenant_id == 3))))
        print(s.query(Tenant).filter(Tenant.name.like("tenant%")).order_by(Tenant.name.desc()).offset(2).limit(2).all()[0].id)


def change():
    with orm.Session(engine) as s:
        t = s.get(Tenant, 4)
        t.name = "renamed"
        t.orders[0].amount = 100
        s.flush()
        s.execute(sa.update(Order).where(Order.tenant_id == 5).values(amount=Order.amount + 1))
        s.execute(sa.update(Order).values(tags={"all": True}))
        s.commit()
        s.delete(s.get(Tenant, 6))
        s.commit()
        print(s.scalar(sa.select(sa.func.count(Tenant.id))), s.scalar(sa.select(sa.func.count()).select_from(Order)))
        try:
            with s.begin_nested():
                s.execute(sa.insert(Tenant).values(id=1, name="again"))
        except sa.exc.IntegrityError as error:
            print(error.orig.sqlstate, error.orig.diag.constraint_name)
        s.add(Tenant(id=50, name="fifty"))
        s.commit()
        print(s.get(Tenant, 50).name)
        s.add(Tenant(id=51, name="x"))
        s.flush()
        s.rollback()
        print(s.get(Tenant, 51))
        print(s.scalars(sa.select(Order).where(Order.tenant_id == 5).with_for_update().order_by(Order.id)).all()[0].amount)


def bulk():
    with orm.Session(engine) as s:
        s.execute(sa.insert(Tenant), [{"id": n, "name": f"bulk {n}"} for n in range(100, 130)])
        ids = s.scalars(sa.insert(Setting).returning(Setting.id), [{"value": str(n)} for n in range(5)]).all()
        print(len(ids))
        rows = s.scalars(
            sa.insert(Tenant).returning(Tenant.id, sort_by_parameter_order=True),
            [{"id": n, "name": f"bulk {n}"} for n in range(130, 140)],
        ).all()
        print(rows)
        s.execute(sa.update(Tenant), [{"id": n, "name": "updated"} for n in range(100, 110)])
        s.commit()
        print(s.scalar(sa.select(sa.func.count()).where(Tenant.name == "updated")))
        upsert = sa.dialects.postgresql.insert(Tenant).values(id=100, name="upserted")
        s.execute(upsert.on_conflict_do_update(index_elements=["id"], set_={"name": upsert.excluded.name}))
        s.commit()
        print(s.get(Tenant, 100).name)
    with engine.connect().execution_options(stream_results=True) as c:
        print(len(c.execute(sa.select(Setting.id)).fetchmany(3)))


def reflect():
    i = sa.inspect(engine)
    print(sorted(i.get_table_names()), i.get_view_names())
    # The router's own catalog is a schema of the home shard.
    print([name for name in i.get_schema_names() if name != "pgherd"])
    for table in ["purchase", "tenant", "items", "kinds"]:
        for c in i.get_columns(table):
            print(table, c["name"], c["type"], c["nullable"], c["default"])
        print(i.get_pk_constraint(table), i.get_foreign_keys(table), i.get_indexes(table))
        print(i.get_unique_constraints(table), i.get_check_constraints(table))
    print([(e["name"], e["labels"]) for e in i.get_enums()])
    m = sa.MetaData()
    m.reflect(engine)
    print(sorted(m.tables))


def raw():
    with engine.connect() as c:
        c = c.execution_options(isolation_level="REPEATABLE READ")
        print(c.get_isolation_level(), c.scalar(sa.text("SELECT count(*) FROM tenant")))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.execute(sa.text("VACUUM items"))
        print(c.execute(sa.select(sa.table("notes", sa.column("id"))).limit(1)).all())


def asynchronous():
    async def run():
        engine = create_async_engine(ASYNC)
        async with engine.begin() as c:
            print((await c.execute(sa.select(Tenant.name).where(Tenant.id == 3))).all())
            print((await c.execute(sa.select(Order).where(Order.tenant_id == 3).order_by(Order.id))).all())
            print((await c.execute(sa.text("SELECT m FROM items"))).all())
            await c.run_sync(lambda c: print(sorted(sa.inspect(c).get_table_names())))
        await engine.dispose()
    asyncio.run(run())


ENV = """
from alembic import context
import sqlalchemy as sa
engine = sa.create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as c:
    context.configure(connection=c, target_metadata=context.config.attributes["metadata"], compare_type=True)
    with context.begin_transaction():
        context.run_migrations()
"""

FIRST = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "one", None
def upgrade():
    op.create_table("account", sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("email", sa.String(100), nullable=False), sa.Column("state", sa.Enum("open", "shut", name="state")))
    op.create_table("entry", sa.Column("account_id", sa.BigInteger, sa.ForeignKey("account.id"), primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True), sa.Column("note", sa.Text))
    op.execute("SELECT create_distributed_table('account', 'id')")
    op.execute("SELECT create_distributed_table('entry', 'account_id')")
    op.create_index("entry_note", "entry", ["note"])
def downgrade():
    op.drop_table("entry")
    op.drop_table("account")
    op.execute("DROP TYPE state")
"""

SECOND = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "two", "one"
def upgrade():
    op.add_column("account", sa.Column("age", sa.Integer, server_default="0", nullable=False))
    op.alter_column("account", "email", new_column_name="mail", existing_type=sa.String(100))
    op.alter_column("account", "mail", type_=sa.String(200))
    op.create_check_constraint("age_sane", "account", "age >= 0")
    op.execute(sa.text("UPDATE account SET age = 1 WHERE id = 1"))
    op.bulk_insert(sa.table("account", sa.column("id"), sa.column("mail")), [{"id": n, "mail": str(n)} for n in range(10)])
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY account_mail ON account (mail)")
def downgrade():
    op.drop_index("account_mail")
    op.drop_constraint("age_sane", "account")
    op.drop_column("account", "age")
    op.alter_column("account", "mail", new_column_name="email")
"""


def alembic():
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder)
        (script / "versions").mkdir()
        (script / "env.py").write_text(ENV)
        (script / "versions/one.py").write_text(FIRST)
        (script / "versions/two.py").write_text(SECOND)
        config = Config()
        config.set_main_option("script_location", folder)
        config.set_main_option("path_separator", "os")
        config.set_main_option("sqlalchemy.url", URL)
        config.attributes["metadata"] = Base.metadata
        config.stdout = sys.stdout
        def step(name, run):
            attempt(f"alembic {name}", lambda: (run(), tables()))
        def tables():
            i = sa.inspect(engine)
            for table in ["account", "entry"]:
                if i.has_table(table):
                    print(table, [(c["name"], str(c["type"])) for c in i.get_columns(table)], sorted(x["name"] for x in i.get_indexes(table)))
            if i.has_table("account"):
                with engine.connect() as c:
                    print(c.execute(sa.text("SELECT count(*) FROM account")).all())
        step("first", lambda: command.upgrade(config, "one"))
        step("second", lambda: command.upgrade(config, "head"))
        step("current", lambda: command.current(config, verbose=False))
        step("check", lambda: command.check(config))
        step("down", lambda: command.downgrade(config, "one"))
        step("base", lambda: command.downgrade(config, "base"))
        step("again", lambda: command.upgrade(config, "head"))


attempt("create", create)
attempt("fill", fill)
attempt("query", query)
attempt("change", change)
attempt("bulk", bulk)
attempt("reflect", reflect)
attempt("raw", raw)
attempt("async", asynchronous)
alembic()
