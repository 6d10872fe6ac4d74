# ruby-pg: text results, prepared statements, pipelines, single-row mode, COPY, LISTEN, cancel.
require "pg"

COLUMNS = %w[id kind i2 i4 f4 f8 n t vc b by d tm ts tz iv u j jb ia ta m].freeze
INSERT = "INSERT INTO items (#{COLUMNS.join(",")}) VALUES (#{(1..22).map { |n| "$#{n}" }.join(",")})".freeze

def item(n)
  [n, n % 3 + 1, n, -n, 0.5, 0.25 + n, "1.50000", "text #{n} ä", "vc", true, '\x00ff', "2024-02-29", "12:34:56",
   "2024-02-29 01:02:03", "2024-02-29 01:02:03+00", "3 days", format("00000000-0000-0000-0000-%012d", n),
   '{"a": 1}', '{"b": 2}', "{1,NULL,3}", '{"a b",NULL}', "happy"]
end

def part(name)
  puts "== #{name}"
  c = PG.connect(ENV.fetch("DSN"))
  c.exec("SET timezone = 'UTC'")
  yield c
rescue PG::Error => e
  puts "#{e.class} #{e.result&.error_field(PG::PG_DIAG_SQLSTATE)} #{e.message.strip}"
ensure
  c&.close
end

def show(result)
  puts result.cmd_status
  result.each_row { |row| p row }
end

part("connect") { |c| p c.server_version, c.transaction_status; show c.exec("SELECT 1, 'a', NULL") }
[false, true].each do |mapped|
  part("types #{mapped ? "mapped" : "text"}") do |c|
    if mapped
      c.type_map_for_results = PG::BasicTypeMapForResults.new(c)
      c.type_map_for_queries = PG::BasicTypeMapForQueries.new(c)
    end
    base = mapped ? 10 : 0
    (1..4).each { |n| show c.exec_params(INSERT, item(base + n)) } unless mapped
    COLUMNS.each do |column|
      show c.exec_params("SELECT #{column} FROM items WHERE id = $1", [2])
      show c.exec_params("SELECT #{column} FROM items WHERE id < $1 ORDER BY id", [9])
    end
    show c.exec("SELECT count(*), sum(n), max(tz) FROM items")
    show c.exec_params("SELECT id, t, b, by FROM items WHERE id = $1", [3], 1)
  end
end
part("prepared statements") do |c|
  c.prepare("by id", "SELECT id, t FROM items WHERE id = $1")
  c.prepare("all", "SELECT count(*) FROM items WHERE i4 < $1")
  (1..8).each { |n| show c.exec_prepared("by id", [n]) }
  3.times { show c.exec_prepared("all", [0]) }
  r = c.describe_prepared("by id")
  p r.fields, r.paramtype(0), r.ftype(1)
  c.exec("DEALLOCATE ALL")
  show c.exec_prepared("by id", [1])
end
part("transactions") do |c|
  c.transaction { |t| (200..219).each { |n| t.exec_params("INSERT INTO items (id, i4) VALUES ($1, 0)", [n]) } }
  begin
    c.transaction { |t| t.exec("UPDATE items SET i4 = 5 WHERE id >= 200"); raise "give up" }
  rescue RuntimeError => e
    puts e.message
  end
  show c.exec("SELECT sum(i4), count(*) FROM items WHERE id >= 200")
  c.transaction do |t|
    t.exec("SAVEPOINT s")
    begin
      t.exec("INSERT INTO items (id) VALUES (200)")
    rescue PG::UniqueViolation => e
      puts e.result.error_field(PG::PG_DIAG_CONSTRAINT_NAME)
    end
    t.exec("ROLLBACK TO s")
    t.exec("UPDATE items SET i4 = 1 WHERE id = 201")
  end
  show c.exec("SELECT i4 FROM items WHERE id = 201")
end
part("pipeline") do |c|
  c.enter_pipeline_mode
  (300..319).each { |n| c.send_query_params("INSERT INTO items (id, t) VALUES ($1, 'p')", [n]) }
  c.send_query_params("SELECT count(*) FROM items WHERE t = $1", ["p"])
  c.pipeline_sync
  21.times do
    c.get_result.then { |r| r.check; p r.cmd_status, r.values }
    c.get_result
  end
  p c.get_result.result_status == PG::PGRES_PIPELINE_SYNC
  c.exit_pipeline_mode
end
part("single rows") do |c|
  c.send_query("SELECT id FROM items WHERE id >= 300 AND id < 320 ORDER BY id")
  c.set_single_row_mode
  rows = []
  c.get_result.stream_each { |row| rows << row["id"] }
  p rows
end
part("copy") do |c|
  show(c.copy_data("COPY items (id, t) FROM STDIN") { (500..519).each { |n| c.put_copy_data("#{n}\tcopied\n") } })
  lines = []
  c.copy_data("COPY (SELECT id, t FROM items WHERE id >= 500) TO STDOUT") { while (line = c.get_copy_data) do lines << line end }
  p lines.sort
  c.copy_data("COPY items (id, t) FROM STDIN") { c.put_copy_data("x\tx\n") }
end
part("notify") do |c|
  c.exec("LISTEN news")
  c.exec("NOTIFY news, 'hello'")
  c.wait_for_notify(10) { |channel, _pid, payload| p channel, payload }
end
{
  "unique" => "INSERT INTO items (id) VALUES (200)", "no table" => "SELECT * FROM nothing",
  "no column" => "SELECT nothing FROM items WHERE id = 1", "syntax" => "SELECT id FROM items WHERE",
  "check" => "INSERT INTO items (id, i2) VALUES (600, 5000)",
}.each { |name, sql| part("error #{name}") { |c| c.exec(sql) } }
part("cancel") do |c|
  c.send_query("SELECT pg_sleep(60)")
  # A cancel that comes before its statement is lost.
  c.cancel until c.block(1)
  begin
    c.get_last_result
  rescue PG::QueryCanceled => e
    puts e.message
  end
  show c.exec("SELECT id FROM items WHERE id = 1")
end
part("reset") do |c|
  c.reset
  show c.exec("SELECT id FROM items WHERE id = 1")
end
