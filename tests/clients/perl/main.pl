# DBD::Pg: server-side and inline placeholders, transactions, COPY, LISTEN, cancel, catalogs.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:pg_types :async);

binmode STDOUT, ":utf8";
$| = 1;
my @columns = qw(id kind i2 i4 f4 f8 n t vc b by d tm ts tz iv u j jb ia ta m);

sub item {
    my $n = shift;
    return ($n, $n % 3 + 1, $n, -$n, 0.5, 0.25 + $n, "1.50000", "text $n", "vc", 1, "\\x00ff", "2024-02-29", "12:34:56",
        "2024-02-29 01:02:03", "2024-02-29 01:02:03+00", "3 days", sprintf("00000000-0000-0000-0000-%012d", $n),
        '{"a": 1}', '{"b": 2}', [1, undef, 3], ["a b", undef], "happy");
}

sub connecting {
    my $dsn = "dbi:Pg:host=$ENV{PGHOST};port=$ENV{PGPORT};dbname=$ENV{PGDATABASE}";
    my $c = DBI->connect($dsn, $ENV{PGUSER}, "", { RaiseError => 1, PrintError => 0, AutoCommit => 1 });
    $c->do("SET timezone = 'UTC'");
    return $c;
}

sub part {
    my ($name, $run) = @_;
    print "== $name\n";
    my $c;
    eval { $c = connecting(); $run->($c); 1 } or do {
        my $error = $@ =~ s/ at \S+ line \d+.*//sr;
        print(($c ? $c->state : "") . " $error\n");
    };
    $c->disconnect if $c;
}

sub text { my $v = shift; return !defined $v ? "NULL" : ref $v ? "[" . join(",", map { text($_) } @$v) . "]" : $v }
sub show { my $rows = shift; print join("|", map { text($_) } @$_), "\n" for @$rows }
sub query { my ($c, $sql, @values) = @_; show($c->selectall_arrayref($sql, {}, @values)) }

part("connect", sub { my $c = shift; print $c->{pg_server_version}, " ", $c->ping, "\n"; query($c, "SELECT 1, 'a', NULL") });
for my $prepare (0, 1) {
    part("types " . ($prepare ? "prepared" : "inline"), sub {
        my $c = shift;
        $c->{pg_server_prepare} = $prepare;
        my $base = $prepare ? 10 : 0;
        my $s = $c->prepare("INSERT INTO items (" . join(",", @columns) . ") VALUES (" . join(",", ("?") x 22) . ")");
        for my $n ($base + 1 .. $base + 4) { print $s->execute(item($n)), "\n" }
        for my $column (@columns) {
            query($c, "SELECT $column FROM items WHERE id = ?", $base + 2);
            query($c, "SELECT $column FROM items WHERE id > ? AND id < ? ORDER BY id", $base, $base + 9);
        }
        query($c, "SELECT count(*), sum(n), max(tz) FROM items WHERE id < ?", 100);
        $s = $c->prepare("SELECT id, m, n FROM items WHERE id = ?");
        $s->execute($base + 1);
        print join(",", @{ $s->{NAME} }), " ", join(",", map { $_ // "undef" } @{ $s->{PRECISION} }), "\n";
        $s->finish;
    });
}
part("prepared statements", sub {
    my $c = shift;
    my $s = $c->prepare('SELECT t FROM items WHERE id = $1');
    for my $n (1 .. 8) { $s->execute($n); show($s->fetchall_arrayref) }
    $s = $c->prepare("SELECT count(*) FROM items WHERE i4 < ?");
    for (1 .. 3) { $s->execute(0); show($s->fetchall_arrayref) }
});
part("transactions", sub {
    my $c = shift;
    $c->begin_work;
    $c->do("INSERT INTO items (id, i4) VALUES (?, 0)", {}, $_) for 200 .. 219;
    $c->commit;
    $c->begin_work;
    print $c->do("UPDATE items SET i4 = 5 WHERE id >= 200"), "\n";
    $c->rollback;
    query($c, "SELECT sum(i4) FROM items WHERE id >= 200");
    $c->begin_work;
    $c->pg_savepoint("s");
    eval { $c->do("INSERT INTO items (id) VALUES (200)") } or print $c->state, "\n";
    $c->pg_rollback_to("s");
    $c->do("UPDATE items SET i4 = 1 WHERE id = 201");
    $c->commit;
    query($c, "SELECT i4 FROM items WHERE id = 201");
});
part("copy", sub {
    my $c = shift;
    $c->do("COPY items (id, t) FROM STDIN");
    $c->pg_putcopydata("$_\tcopied\n") for 500 .. 519;
    $c->pg_putcopyend;
    query($c, "SELECT count(*) FROM items WHERE t = 'copied'");
    $c->do("COPY (SELECT id FROM items WHERE id >= 515) TO STDOUT");
    my ($line, @lines);
    push @lines, $line =~ s/\n//r while $c->pg_getcopydata(\$line) >= 0;
    print join(",", sort @lines), "\n";
});
part("notify", sub {
    my $c = shift;
    $c->do("LISTEN news");
    $c->do("NOTIFY news, 'hello'");
    my $n = $c->pg_notifies;
    print "$n->[0] $n->[2]\n";
});
part("catalogs", sub {
    my $c = shift;
    show([ map { [ $_->{TABLE_NAME}, $_->{TABLE_TYPE} ] } @{ $c->table_info(undef, "public", "%", "TABLE")->fetchall_arrayref({}) } ]);
    show([ map { [ @$_{qw(COLUMN_NAME TYPE_NAME NULLABLE)} ] } @{ $c->column_info(undef, "public", "items", "%")->fetchall_arrayref({}) } ]);
    print join(",", $c->primary_key(undef, "public", "items")), "\n";
    show([ map { [ @$_{qw(FK_NAME UK_TABLE_NAME)} ] } @{ $c->foreign_key_info(undef, undef, undef, undef, "public", "items")->fetchall_arrayref({}) } ]);
    show([ map { [ $_->{COLUMN_NAME}, $_->{INDEX_NAME} ] } @{ $c->statistics_info(undef, "public", "kinds", 0, 0)->fetchall_arrayref({}) } ]);
    $c->do("INSERT INTO notes (body) VALUES ('perl')");
    print $c->last_insert_id(undef, "public", "notes", undef) > 0, "\n";
});
my %errors = (
    "unique" => "INSERT INTO items (id) VALUES (200)", "no table" => "SELECT * FROM nothing",
    "no column" => "SELECT nothing FROM items WHERE id = 1", "syntax" => "SELECT id FROM items WHERE",
    "check" => "INSERT INTO items (id, i2) VALUES (600, 5000)",
);
for my $name (sort keys %errors) {
    part("error $name", sub { shift->do($errors{$name}) });
}
part("cancel", sub {
    my $c = shift;
    my $s = $c->prepare("SELECT pg_sleep(60)", { pg_async => PG_ASYNC });
    $s->execute;
    until ($c->pg_ready) { sleep 1; $c->pg_cancel; last }
    query($c, "SELECT id FROM items WHERE id = 1");
});
