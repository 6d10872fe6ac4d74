"""Django: migrations of an app written on the spot and of its own apps, ORM, transactions."""

import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import django
from django.conf import settings

sys.dont_write_bytecode = True
dsn = urlsplit(os.environ["DSN"])
folder = tempfile.TemporaryDirectory()
app = Path(folder.name) / "shop"
(app / "migrations").mkdir(parents=True)
(app / "__init__.py").touch()
(app / "migrations/__init__.py").touch()
(app / "models.py").write_text('''
from django.db import models

class Tenant(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.CharField(max_length=50)
    created = models.DateTimeField(null=True)
    settings = models.JSONField(default=dict)

class Order(models.Model):
    pk = models.CompositePrimaryKey("tenant_id", "number")
    tenant = models.ForeignKey(Tenant, models.CASCADE, db_index=False)
    number = models.IntegerField()
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    day = models.DateField(null=True)
    token = models.UUIDField(null=True)

class Country(models.Model):
    code = models.CharField(max_length=2, primary_key=True)
    name = models.CharField(max_length=50)

class Setting(models.Model):
    value = models.TextField(null=True)
''')
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "shop"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": dsn.path[1:], "USER": dsn.username,
        "HOST": dsn.hostname, "PORT": dsn.port,
    }},
    USE_TZ=True, SECRET_KEY="x", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
sys.path.insert(0, folder.name)
django.setup()

import datetime as dt
import uuid

from django.core.management import call_command
from django.db import DatabaseError, connection, models, transaction
from shop.models import Country, Order, Setting, Tenant

UTC = dt.timezone.utc


def attempt(name, run):
    print(f"== {name}", flush=True)
    try:
        run()
    except DatabaseError as error:
        print(type(error).__name__, getattr(error.__cause__, "sqlstate", None), error)
    except Exception as error:
        print(type(error).__name__, error)


def execute(sql):
    with connection.cursor() as c:
        c.execute(sql)


def migrate():
    call_command("makemigrations", "shop", verbosity=0)
    call_command("migrate", verbosity=1, no_color=True)
    execute("SELECT create_distributed_table('shop_tenant', 'id')")
    execute("SELECT create_distributed_table('shop_order', 'tenant_id')")
    execute("SELECT create_reference_table('shop_country')")
    call_command("migrate", verbosity=1, no_color=True)
    call_command("showmigrations", no_color=True)
    call_command("sqlmigrate", "shop", "0001", no_color=True)


CHANGE = '''
from django.db import migrations, models

def fill(apps, schema_editor):
    Tenant = apps.get_model("shop", "Tenant")
    Tenant.objects.update(rank=3)

class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.AddField("tenant", "rank", models.IntegerField(default=1)),
        migrations.AddField("order", "text", models.TextField(null=True)),
        migrations.AddIndex("order", models.Index(fields=["day"], name="order_day")),
        migrations.AddConstraint("order", models.CheckConstraint(condition=models.Q(amount__gte=0), name="amount_sane")),
        migrations.AlterField("tenant", "name", models.CharField(max_length=90)),
        migrations.RenameField("setting", "value", "content"),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.RunSQL("CREATE VIEW order_view AS SELECT * FROM shop_order", "DROP VIEW order_view"),
    ]
'''


def second_migration():
    (app / "migrations/0002_change.py").write_text(CHANGE)
    call_command("migrate", verbosity=1, no_color=True)
    execute("UPDATE shop_tenant SET rank = 4 WHERE id = 1")
    call_command("migrate", "shop", "0001", verbosity=1, no_color=True)
    call_command("migrate", verbosity=1, no_color=True)
    call_command("migrate", "shop", "0001", verbosity=0)


def fill():
    with transaction.atomic():
        for n in range(1, 9):
            created = dt.datetime(2024, 2, n, tzinfo=UTC)
            t = Tenant.objects.create(id=n, name=f"tenant {n}", created=created, settings={"n": n})
            for o in range(1, 4):
                Order.objects.create(tenant=t, number=o, amount=n * o, day=dt.date(2024, 3, o), token=uuid.UUID(int=o))
    Country.objects.bulk_create([Country(code="de", name="Germany"), Country(code="fr", name="France")])
    print([s.pk is not None for s in Setting.objects.bulk_create([Setting(value=str(n)) for n in range(5)])])
    Tenant.objects.bulk_create([Tenant(id=n, name=f"bulk {n}") for n in range(20, 40)])
    print(Tenant.objects.count(), Order.objects.count(), Setting.objects.count())


def queries():
    t = Tenant.objects.get(pk=3)
    print(t.name, t.created, t.settings, list(t.order_set.order_by("number").values_list("amount", "day", "token")))
    print(list(Tenant.objects.order_by("id").values_list("id", flat=True)[:5]))
    print(Tenant.objects.filter(id__in=[1, 2, 99]).count(), Tenant.objects.filter(name__startswith="bulk").exists())
    print(Order.objects.aggregate(models.Sum("amount"), models.Avg("amount"), models.Max("day"), n=models.Count("pk")))
    print(list(Order.objects.values("tenant_id").annotate(total=models.Sum("amount")).order_by("tenant_id")))
    print(list(Order.objects.filter(tenant_id=3).annotate(n=models.F("number") + 1).order_by("number").values_list("n", flat=True)))
    print([o.tenant.name for o in Order.objects.select_related("tenant").filter(number=1).order_by("tenant_id")])
    print([len(t.order_set.all()) for t in Tenant.objects.prefetch_related("order_set").order_by("id")[:4]])
    print(list(Order.objects.filter(tenant__name="tenant 2").order_by("number").values_list("number", flat=True)))
    print(list(Country.objects.order_by("code").values_list("name", flat=True)))
    print(list(Tenant.objects.filter(settings__n=4).values_list("id", flat=True)))
    print(Order.objects.filter(day__year=2024).dates("day", "month"))
    print(sorted(t.id for t in Tenant.objects.iterator(chunk_size=7)))
    print(Tenant.objects.filter(order__amount__gt=20).distinct().order_by("id").values_list("id", flat=True))
    print(Tenant.objects.latest("created", "id").id, Tenant.objects.earliest("created", "id").id)


def first_and_last():
    print(Tenant.objects.first().id, Tenant.objects.last().id, sorted(Tenant.objects.in_bulk([1, 2])))


def changes():
    t = Tenant.objects.get(pk=4)
    t.name = "renamed"
    t.save()
    print(Order.objects.filter(tenant_id=4).update(amount=models.F("amount") + 1))
    print(Tenant.objects.filter(name__startswith="bulk").update(settings={"bulk": True}))
    print(Tenant.objects.get_or_create(id=50, defaults={"name": "new"})[1], Tenant.objects.update_or_create(id=50, defaults={"name": "x"})[1])
    print(Order.objects.filter(tenant_id=5).delete())
    print(Tenant.objects.filter(pk=6).delete())
    Tenant.objects.bulk_update([Tenant(id=20, name="b20"), Tenant(id=21, name="b21")], ["name"])
    print(Tenant.objects.bulk_create([Tenant(id=20, name="again"), Tenant(id=60, name="sixty")], ignore_conflicts=True)[1].id)
    print(list(Tenant.objects.filter(id__in=[20, 21, 50, 60]).order_by("id").values_list("name", flat=True)))


def upsert():
    Tenant.objects.bulk_create(
        [Tenant(id=61, name="a"), Tenant(id=20, name="upserted")], update_conflicts=True, unique_fields=["id"], update_fields=["name"],
    )
    print(Tenant.objects.get(pk=20).name)


def transactions():
    try:
        with transaction.atomic():
            Tenant.objects.filter(pk=1).update(name="lost")
            raise ValueError
    except ValueError:
        print(Tenant.objects.get(pk=1).name)
    with transaction.atomic():
        Tenant.objects.filter(pk=2).update(name="kept")
        try:
            with transaction.atomic():
                Tenant.objects.filter(pk=3).update(name="lost")
                Tenant.objects.create(id=2, name="twice")
        except DatabaseError as error:
            print(error.__cause__.sqlstate)
        print(Tenant.objects.select_for_update().get(pk=2).name)
        print(Tenant.objects.select_for_update(skip_locked=True).filter(pk=7).count())
    print(Tenant.objects.get(pk=3).name, Tenant.objects.get(pk=2).name)
    done = []
    with transaction.atomic():
        transaction.on_commit(lambda: done.append(1))
    print(done)
    with transaction.atomic():
        print(Tenant.objects.select_for_update(no_key=True, of=("self",)).get(pk=2).id)


def users():
    from django.contrib.auth.models import Group, User
    u = User.objects.create_user("ann", password=None)
    u.groups.add(Group.objects.create(name="g"))
    print(u.groups.count(), User.objects.filter(groups__name="g").values_list("username", flat=True))


def introspection():
    i = connection.introspection
    print(sorted(i.table_names()))
    with connection.cursor() as c:
        for table in ["shop_tenant", "shop_order", "items"]:
            print([(f.name, f.null_ok) for f in i.get_table_description(c, table)])
            print(sorted(i.get_constraints(c, table)), i.get_relations(c, table), i.get_sequences(c, "shop_setting"))
    call_command("inspectdb", "shop_tenant", "items", no_color=True)
    call_command("check", database=["default"])


def shut():
    call_command("flush", interactive=False, verbosity=0)
    print(Tenant.objects.count(), Setting.objects.count())
    call_command("migrate", "shop", "zero", verbosity=1, no_color=True)


attempt("migrate", migrate)
attempt("fill", fill)
attempt("queries", queries)
attempt("first and last", first_and_last)
attempt("changes", changes)
attempt("upsert", upsert)
attempt("transactions", transactions)
attempt("users", users)
attempt("introspection", introspection)
attempt("second migration", second_migration)
attempt("flush", shut)
