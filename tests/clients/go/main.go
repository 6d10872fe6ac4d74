// lib/pq and pgx 4: text and binary, prepared statements, batches, transactions, COPY, cancel.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/lib/pq"
)

var dsn = os.Getenv("DSN")
var ctx = context.Background()

func report(err error) {
	var a *pq.Error
	var b *pgconn.PgError
	switch {
	case err == nil:
	case errors.As(err, &a):
		fmt.Println("error", a.Code, a.Message, a.Constraint, a.Table, a.Position)
	case errors.As(err, &b):
		fmt.Println("error", b.Code, b.Message, b.ConstraintName, b.TableName, b.Position)
	default:
		fmt.Println("error", err)
	}
}

func part(name string, run func(db *sql.DB) error) {
	fmt.Println("== pq", name)
	db, err := sql.Open("postgres", dsn+"?sslmode=disable&timezone=UTC")
	if err == nil {
		err = run(db)
		db.Close()
	}
	report(err)
}

type queryer interface {
	Query(string, ...interface{}) (*sql.Rows, error)
}

func show(db queryer, query string, args ...interface{}) error {
	rows, err := db.Query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, _ := rows.Columns()
	for rows.Next() {
		values := make([]interface{}, len(columns))
		for n := range values {
			values[n] = new(interface{})
		}
		if err := rows.Scan(values...); err != nil {
			return err
		}
		for _, value := range values {
			switch v := (*value.(*interface{})).(type) {
			case []byte:
				fmt.Printf("%q ", v)
			case time.Time:
				fmt.Print(v.UTC().Format(time.RFC3339), " ")
			default:
				fmt.Print(v, " ")
			}
		}
		fmt.Println()
	}
	return rows.Err()
}

const insert = `INSERT INTO items (id,kind,i2,i4,f4,f8,n,t,vc,b,by,d,tm,ts,tz,iv,u,j,jb,ia,ta,m)
VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22)`

func item(n int, ia, ta interface{}) []interface{} {
	when := time.Date(2024, 2, 29, 1, 2, 3, 0, time.UTC)
	return []interface{}{n, n%3 + 1, n, -n, 0.5, 0.25 + float64(n), "1.50000", fmt.Sprint("text ", n, " ä"), "vc", true,
		[]byte{0, 255}, when, "12:34:56", when, when, "3 days", fmt.Sprintf("00000000-0000-0000-0000-%012d", n),
		`{"a": 1}`, `{"b": 2}`, ia, ta, "happy"}
}

func libpq() {
	part("types", func(db *sql.DB) error {
		for n := 1; n < 5; n++ {
			if _, err := db.Exec(insert, item(n, pq.Array([]int64{1, 2}), pq.Array([]string{"a b", "c"}))...); err != nil {
				return err
			}
		}
		for n := 1; n < 5; n++ {
			if err := show(db, "SELECT * FROM items WHERE id = $1", n); err != nil {
				return err
			}
		}
		if err := show(db, "SELECT id, n, tz, b, u, jb, by FROM items WHERE id < $1 ORDER BY id", 10); err != nil {
			return err
		}
		if err := show(db, "SELECT id FROM items WHERE id = ANY($1) ORDER BY id", pq.Array([]int64{1, 3})); err != nil {
			return err
		}
		return show(db, "SELECT count(*), sum(n), max(t) FROM items")
	})
	part("prepared statements", func(db *sql.DB) error {
		s, err := db.Prepare("SELECT t FROM items WHERE id = $1")
		if err != nil {
			return err
		}
		for n := 1; n < 9; n++ {
			var t string
			err := s.QueryRow(n).Scan(&t)
			fmt.Println(t, err)
		}
		s, err = db.Prepare("SELECT count(*) FROM items WHERE i4 < $1")
		if err != nil {
			return err
		}
		var count int
		for n := 0; n < 3; n++ {
			if err := s.QueryRow(0).Scan(&count); err != nil {
				return err
			}
			fmt.Println(count)
		}
		return nil
	})
	part("transactions", func(db *sql.DB) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		for n := 200; n < 220; n++ {
			if _, err := tx.Exec("INSERT INTO items (id, i4) VALUES ($1, 0)", n); err != nil {
				return err
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		tx, err = db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
		if err != nil {
			return err
		}
		r, err := tx.Exec("UPDATE items SET i4 = 5 WHERE id >= $1", 200)
		if err != nil {
			return err
		}
		fmt.Println(r.RowsAffected())
		tx.Rollback()
		return show(db, "SELECT sum(i4) FROM items WHERE id >= 200")
	})
	part("copy", func(db *sql.DB) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		s, err := tx.Prepare(pq.CopyIn("items", "id", "t"))
		if err != nil {
			return err
		}
		for n := 500; n < 520; n++ {
			if _, err := s.Exec(n, "copied"); err != nil {
				return err
			}
		}
		if _, err := s.Exec(); err != nil {
			return err
		}
		s.Close()
		if err := tx.Commit(); err != nil {
			return err
		}
		return show(db, "SELECT count(*) FROM items WHERE t = 'copied'")
	})
	part("notify", func(db *sql.DB) error {
		l := pq.NewListener(dsn+"?sslmode=disable", time.Second, time.Second, nil)
		defer l.Close()
		// A refused LISTEN is tried again for ever.
		listening := make(chan error, 1)
		go func() { listening <- l.Listen("news") }()
		deadline := time.After(5 * time.Second)
		select {
		case err := <-listening:
			if err != nil {
				return err
			}
		case <-deadline:
			return errors.New("LISTEN does not succeed")
		}
		if _, err := db.Exec("SELECT pg_notify('news', 'hello')"); err != nil {
			return err
		}
		select {
		case n := <-l.Notify:
			fmt.Println(n.Channel, n.Extra)
		case <-deadline:
			fmt.Println("nothing came")
		}
		return nil
	})
	for _, e := range [][]interface{}{
		{"unique", "INSERT INTO items (id) VALUES ($1)", 1},
		{"foreign key", "INSERT INTO items (id, kind) VALUES ($1, 99)", 600},
		{"no table", "SELECT * FROM nothing"},
		{"no column", "SELECT nothing FROM items WHERE id = $1", 1},
		{"syntax", "SELECT id FROM items WHERE"},
	} {
		part("error "+e[0].(string), func(db *sql.DB) error { return show(db, e[1].(string), e[2:]...) })
	}
	part("cancel", func(db *sql.DB) error {
		limited, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		_, err := db.QueryContext(limited, "SELECT pg_sleep(60)")
		report(err)
		return show(db, "SELECT id FROM items WHERE id = 1")
	})
}

func xpart(name string, run func(c *pgx.Conn) error) {
	fmt.Println("== pgx", name)
	c, err := pgx.Connect(ctx, dsn+"?sslmode=disable")
	if err == nil {
		err = run(c)
		c.Close(ctx)
	}
	report(err)
}

func xshow(c interface {
	Query(context.Context, string, ...interface{}) (pgx.Rows, error)
}, query string, args ...interface{}) error {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		for _, value := range values {
			switch v := value.(type) {
			case time.Time:
				fmt.Print(v.UTC().Format(time.RFC3339), " ")
			default:
				fmt.Printf("%v ", v)
			}
		}
		fmt.Println()
	}
	return rows.Err()
}

func withPgx() {
	xpart("types", func(c *pgx.Conn) error {
		for n := 11; n < 15; n++ {
			values := item(n, []int32{1, 2}, []string{"a b", "c"})
			values[12] = "12:34:56"
			if _, err := c.Exec(ctx, insert, values...); err != nil {
				return err
			}
		}
		for n := 11; n < 15; n++ {
			if err := xshow(c, "SELECT id, i2, f4, f8, t, b, by, d, ts, tz, j, jb, m FROM items WHERE id = $1", n); err != nil {
				return err
			}
		}
		if err := xshow(c, "SELECT id, t, tz, jb, b FROM items WHERE id > $1 AND id < $2 ORDER BY id", 10, 20); err != nil {
			return err
		}
		return xshow(c, "SELECT count(*), sum(i4), max(t) FROM items")
	})
	xpart("simple protocol", func(c *pgx.Conn) error {
		return xshow(c, "SELECT id, t, n::text FROM items WHERE id = $1", pgx.QuerySimpleProtocol(true), 11)
	})
	xpart("batch", func(c *pgx.Conn) error {
		b := &pgx.Batch{}
		for n := 300; n < 320; n++ {
			b.Queue("INSERT INTO items (id, t) VALUES ($1, $2)", n, "batch")
		}
		b.Queue("SELECT count(*) FROM items WHERE t = $1", "batch")
		r := c.SendBatch(ctx, b)
		for n := 300; n < 320; n++ {
			if _, err := r.Exec(); err != nil {
				r.Close()
				return err
			}
		}
		var count int
		err := r.QueryRow().Scan(&count)
		fmt.Println(count)
		r.Close()
		return err
	})
	xpart("failing batch", func(c *pgx.Conn) error {
		b := &pgx.Batch{}
		b.Queue("INSERT INTO items (id) VALUES ($1)", 330)
		b.Queue("INSERT INTO items (id) VALUES ($1)", 300)
		r := c.SendBatch(ctx, b)
		_, err := r.Exec()
		report(err)
		_, err = r.Exec()
		report(err)
		r.Close()
		return xshow(c, "SELECT id FROM items WHERE id = 330")
	})
	xpart("transactions", func(c *pgx.Conn) error {
		return c.BeginFunc(ctx, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "UPDATE items SET i4 = 1 WHERE id = $1", 300); err != nil {
				return err
			}
			err := tx.BeginFunc(ctx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO items (id) VALUES ($1)", 301)
				return err
			})
			report(err)
			if _, err := tx.Exec(ctx, "UPDATE items SET i4 = 2 WHERE id = $1", 302); err != nil {
				return err
			}
			return xshow(tx, "SELECT id, i4 FROM items WHERE id IN (300, 301, 302) ORDER BY id")
		})
	})
	xpart("copy", func(c *pgx.Conn) error {
		rows := [][]interface{}{}
		for n := 700; n < 750; n++ {
			rows = append(rows, []interface{}{int64(n), "binary"})
		}
		count, err := c.CopyFrom(ctx, pgx.Identifier{"items"}, []string{"id", "t"}, pgx.CopyFromRows(rows))
		fmt.Println(count)
		if err != nil {
			return err
		}
		rs, err := c.Query(ctx, "SELECT id FROM items WHERE t = 'binary'")
		if err != nil {
			return err
		}
		ids := []int{}
		for rs.Next() {
			var id int
			rs.Scan(&id)
			ids = append(ids, id)
		}
		sort.Ints(ids)
		fmt.Println(len(ids), ids[0])
		return rs.Err()
	})
	xpart("error", func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, "INSERT INTO items (id) VALUES ($1)", 300)
		return err
	})
	xpart("cancel", func(c *pgx.Conn) error {
		ended := make(chan bool)
		go func() {
			for {
				select {
				case <-ended:
					return
				// A cancel that comes before its statement is lost.
				case <-time.After(time.Second):
					report(c.PgConn().CancelRequest(ctx))
				}
			}
		}()
		_, err := c.Exec(ctx, "SELECT pg_sleep(60)")
		close(ended)
		report(err)
		return xshow(c, "SELECT id FROM items WHERE id = 11")
	})
}

func main() {
	libpq()
	withPgx()
}
