-- TPC-H's tables and its 22 queries: orders and lineitem by order, customer by customer, part and
-- partsupp by part, the others as reference tables. The data is made up by arithmetic.
CREATE TABLE region (r_regionkey int PRIMARY KEY, r_name text, r_comment text);
CREATE TABLE nation (n_nationkey int PRIMARY KEY, n_name text, n_regionkey int, n_comment text);
CREATE TABLE supplier (s_suppkey int PRIMARY KEY, s_name text, s_address text, s_nationkey int, s_phone text, s_acctbal numeric(15,2), s_comment text);
CREATE TABLE part (p_partkey int PRIMARY KEY, p_name text, p_mfgr text, p_brand text, p_type text, p_size int, p_container text, p_retailprice numeric(15,2), p_comment text);
CREATE TABLE partsupp (ps_partkey int, ps_suppkey int, ps_availqty int, ps_supplycost numeric(15,2), ps_comment text, PRIMARY KEY (ps_partkey, ps_suppkey));
CREATE TABLE customer (c_custkey int PRIMARY KEY, c_name text, c_address text, c_nationkey int, c_phone text, c_acctbal numeric(15,2), c_mktsegment text, c_comment text);
CREATE TABLE orders (o_orderkey bigint PRIMARY KEY, o_custkey int, o_orderstatus char(1), o_totalprice numeric(15,2), o_orderdate date, o_orderpriority text, o_clerk text, o_shippriority int, o_comment text);
CREATE TABLE lineitem (l_orderkey bigint, l_partkey int, l_suppkey int, l_linenumber int, l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2), l_tax numeric(15,2), l_returnflag char(1), l_linestatus char(1), l_shipdate date, l_commitdate date, l_receiptdate date, l_shipinstruct text, l_shipmode text, l_comment text, PRIMARY KEY (l_orderkey, l_linenumber));
INSERT INTO region SELECT i, (ARRAY['AFRICA','AMERICA','ASIA','EUROPE','MIDDLE EAST'])[i + 1], 'r' FROM generate_series(0, 4) i;
INSERT INTO nation SELECT i, (ARRAY['ALGERIA','ARGENTINA','BRAZIL','CANADA','EGYPT','ETHIOPIA','FRANCE','GERMANY','INDIA','INDONESIA','IRAN','IRAQ','JAPAN','JORDAN','KENYA','MOROCCO','MOZAMBIQUE','PERU','CHINA','ROMANIA','SAUDI ARABIA','VIETNAM','RUSSIA','UNITED KINGDOM','UNITED STATES'])[i + 1], (ARRAY[0,1,1,1,4,0,3,3,2,2,4,4,2,4,0,0,0,1,2,3,4,2,3,3,1])[i + 1], 'n' FROM generate_series(0, 24) i;
INSERT INTO supplier SELECT i, 'Supplier#' || lpad(i::text, 9, '0'), 'addr' || i, (i * 7) % 25, (10 + (i * 7) % 25) || '-' || i, (i * 977 % 11000) - 999, CASE i % 9 WHEN 3 THEN 'x Customer y Complaints z' ELSE 'fine' END FROM generate_series(1, 40) i;
INSERT INTO part SELECT i, (ARRAY['forest','green','almond','blue','lemon'])[i % 5 + 1] || ' ' || (ARRAY['chiffon','green','misty','rose'])[i % 4 + 1], 'Manufacturer#' || i % 5 + 1, 'Brand#' || (i % 5 + 1) || (i % 3 + 1), (ARRAY['STANDARD','SMALL','MEDIUM','LARGE','ECONOMY','PROMO'])[i % 6 + 1] || ' ' || (ARRAY['ANODIZED','BURNISHED','PLATED','POLISHED','BRUSHED'])[i % 5 + 1] || ' ' || (ARRAY['TIN','NICKEL','BRASS','STEEL','COPPER'])[i % 5 + 1], i % 50 + 1, (ARRAY['SM','LG','MED','JUMBO','WRAP'])[i % 5 + 1] || ' ' || (ARRAY['CASE','BOX','BAG','JAR','PKG','PACK','CAN','DRUM'])[i % 8 + 1], 900 + i % 200 + 0.5, 'p' FROM generate_series(1, 300) i;
INSERT INTO partsupp SELECT i, (i * 3 + j * 11) % 40 + 1, (i * 31 + j * 17) % 9999, (i * 13 + j * 7) % 1000 + 0.25, 'ps' FROM generate_series(1, 300) i, generate_series(0, 3) j;
INSERT INTO customer SELECT i, 'Customer#' || i, 'addr' || i, (i * 11) % 25, ((i * 11) % 25 + 10) || '-' || i || '-555', (i * 613 % 11000) - 999, (ARRAY['AUTOMOBILE','BUILDING','FURNITURE','MACHINERY','HOUSEHOLD'])[i % 5 + 1], 'c' FROM generate_series(1, 200) i;
INSERT INTO orders SELECT i, (i * 7) % 190 + 1, (ARRAY['F','O','P'])[i % 3 + 1], (i * 1171) % 400000 + 0.75, date '1992-01-01' + (i * 37) % 2400, (ARRAY['1-URGENT','2-HIGH','3-MEDIUM','4-NOT SPECIFIED','5-LOW'])[i % 5 + 1], 'Clerk#' || i % 20, 0, CASE i % 11 WHEN 4 THEN 'a special b requests c' ELSE 'o' END FROM generate_series(1, 900) i;
INSERT INTO lineitem SELECT o_orderkey, (o_orderkey * 7 + j * 13) % 300 + 1, ((((o_orderkey * 7 + j * 13) % 300 + 1) * 3 + (o_orderkey + j) % 4 * 11) % 40) + 1, j, (o_orderkey * 3 + j * 5) % 50 + 1, (o_orderkey * 917 + j * 311) % 90000 + 900.5, (o_orderkey + j) % 11 / 100.0, (o_orderkey + j) % 9 / 100.0, (ARRAY['R','A','N'])[(o_orderkey + j) % 3 + 1], (ARRAY['O','F'])[(o_orderkey + j) % 2 + 1], o_orderdate + (1 + (o_orderkey * 5 + j * 3) % 121)::int, o_orderdate + (30 + (o_orderkey * 3 + j * 7) % 61)::int, o_orderdate + (2 + (o_orderkey * 5 + j * 11) % 151)::int, (ARRAY['DELIVER IN PERSON','COLLECT COD','NONE','TAKE BACK RETURN'])[(o_orderkey + j) % 4 + 1], (ARRAY['AIR','AIR REG','RAIL','SHIP','TRUCK','MAIL','FOB'])[(o_orderkey + j) % 7 + 1], 'l' FROM orders, generate_series(1, 4) j;
--@ router: SELECT create_reference_table('region')
--@ router: SELECT create_reference_table('nation')
--@ router: SELECT create_reference_table('supplier')
--@ router: SELECT create_distributed_table('part', 'p_partkey')
--@ router: SELECT create_distributed_table('partsupp', 'ps_partkey', colocate_with => 'part')
--@ router: SELECT create_distributed_table('customer', 'c_custkey')
--@ router: SELECT create_distributed_table('orders', 'o_orderkey')
--@ router: SELECT create_distributed_table('lineitem', 'l_orderkey', colocate_with => 'orders')
-- Q1
SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price, sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price, sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge, avg(l_quantity) AS avg_qty, avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc, count(*) AS count_order FROM lineitem WHERE l_shipdate <= date '1998-12-01' - interval '90' day GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus;
-- Q2
SELECT s_acctbal, s_name, n_name, p_partkey, p_mfgr, s_address, s_phone, s_comment FROM part, supplier, partsupp, nation, region WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND p_size < 30 AND p_type LIKE '%BRASS' AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'EUROPE' AND ps_supplycost = (SELECT min(ps_supplycost) FROM partsupp, supplier, nation, region WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'EUROPE') ORDER BY s_acctbal DESC, n_name, s_name, p_partkey LIMIT 100;
-- Q3
SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority FROM customer, orders, lineitem WHERE c_mktsegment = 'BUILDING' AND c_custkey = o_custkey AND l_orderkey = o_orderkey AND o_orderdate < date '1995-03-15' AND l_shipdate > date '1995-03-15' GROUP BY l_orderkey, o_orderdate, o_shippriority ORDER BY revenue DESC, o_orderdate LIMIT 10;
-- Q4
SELECT o_orderpriority, count(*) AS order_count FROM orders WHERE o_orderdate >= date '1993-07-01' AND o_orderdate < date '1993-07-01' + interval '3' month AND EXISTS (SELECT * FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate) GROUP BY o_orderpriority ORDER BY o_orderpriority;
-- Q5
SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue FROM customer, orders, lineitem, supplier, nation, region WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey AND c_nationkey = s_nationkey AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'ASIA' AND o_orderdate >= date '1994-01-01' AND o_orderdate < date '1994-01-01' + interval '3' year GROUP BY n_name ORDER BY revenue DESC;
-- Q6
SELECT sum(l_extendedprice * l_discount) AS revenue FROM lineitem WHERE l_shipdate >= date '1994-01-01' AND l_shipdate < date '1994-01-01' + interval '1' year AND l_discount BETWEEN 0.06 - 0.01 AND 0.06 + 0.01 AND l_quantity < 24;
-- Q7
SELECT supp_nation, cust_nation, l_year, sum(volume) AS revenue FROM (SELECT n1.n_name AS supp_nation, n2.n_name AS cust_nation, extract(year FROM l_shipdate) AS l_year, l_extendedprice * (1 - l_discount) AS volume FROM supplier, lineitem, orders, customer, nation n1, nation n2 WHERE s_suppkey = l_suppkey AND o_orderkey = l_orderkey AND c_custkey = o_custkey AND s_nationkey = n1.n_nationkey AND c_nationkey = n2.n_nationkey AND ((n1.n_name = 'FRANCE' AND n2.n_name = 'GERMANY') OR (n1.n_name = 'GERMANY' AND n2.n_name = 'FRANCE')) AND l_shipdate BETWEEN date '1992-01-01' AND date '1998-12-31') AS shipping GROUP BY supp_nation, cust_nation, l_year ORDER BY supp_nation, cust_nation, l_year;
-- Q8
SELECT o_year, sum(CASE WHEN nation = 'BRAZIL' THEN volume ELSE 0 END) / sum(volume) AS mkt_share FROM (SELECT extract(year FROM o_orderdate) AS o_year, l_extendedprice * (1 - l_discount) AS volume, n2.n_name AS nation FROM part, supplier, lineitem, orders, customer, nation n1, nation n2, region WHERE p_partkey = l_partkey AND s_suppkey = l_suppkey AND l_orderkey = o_orderkey AND o_custkey = c_custkey AND c_nationkey = n1.n_nationkey AND n1.n_regionkey = r_regionkey AND r_name = 'AMERICA' AND s_nationkey = n2.n_nationkey AND o_orderdate BETWEEN date '1992-01-01' AND date '1998-12-31' AND p_type LIKE 'ECONOMY%') AS all_nations GROUP BY o_year ORDER BY o_year;
-- Q9
SELECT nation, o_year, sum(amount) AS sum_profit FROM (SELECT n_name AS nation, extract(year FROM o_orderdate) AS o_year, l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity AS amount FROM part, supplier, lineitem, partsupp, orders, nation WHERE s_suppkey = l_suppkey AND ps_suppkey = l_suppkey AND ps_partkey = l_partkey AND p_partkey = l_partkey AND o_orderkey = l_orderkey AND s_nationkey = n_nationkey AND p_name LIKE '%green%') AS profit GROUP BY nation, o_year ORDER BY nation, o_year DESC;
-- Q10
SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS revenue, c_acctbal, n_name, c_address, c_phone, c_comment FROM customer, orders, lineitem, nation WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND o_orderdate >= date '1993-10-01' AND o_orderdate < date '1993-10-01' + interval '3' month AND l_returnflag = 'R' AND c_nationkey = n_nationkey GROUP BY c_custkey, c_name, c_acctbal, c_phone, n_name, c_address, c_comment ORDER BY revenue DESC, c_custkey LIMIT 20;
-- Q11
SELECT ps_partkey, sum(ps_supplycost * ps_availqty) AS value FROM partsupp, supplier, nation WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name = 'GERMANY' GROUP BY ps_partkey HAVING sum(ps_supplycost * ps_availqty) > (SELECT sum(ps_supplycost * ps_availqty) * 0.01 FROM partsupp, supplier, nation WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name = 'GERMANY') ORDER BY value DESC, ps_partkey;
-- Q12
SELECT l_shipmode, sum(CASE WHEN o_orderpriority = '1-URGENT' OR o_orderpriority = '2-HIGH' THEN 1 ELSE 0 END) AS high_line_count, sum(CASE WHEN o_orderpriority <> '1-URGENT' AND o_orderpriority <> '2-HIGH' THEN 1 ELSE 0 END) AS low_line_count FROM orders, lineitem WHERE o_orderkey = l_orderkey AND l_shipmode IN ('MAIL', 'SHIP') AND l_commitdate < l_receiptdate AND l_shipdate < l_commitdate AND l_receiptdate >= date '1994-01-01' AND l_receiptdate < date '1994-01-01' + interval '1' year GROUP BY l_shipmode ORDER BY l_shipmode;
-- Q13
SELECT c_count, count(*) AS custdist FROM (SELECT c_custkey, count(o_orderkey) FROM customer LEFT OUTER JOIN orders ON c_custkey = o_custkey AND o_comment NOT LIKE '%special%requests%' GROUP BY c_custkey) AS c_orders (c_custkey, c_count) GROUP BY c_count ORDER BY custdist DESC, c_count DESC;
-- Q14
SELECT 100.00 * sum(CASE WHEN p_type LIKE 'PROMO%' THEN l_extendedprice * (1 - l_discount) ELSE 0 END) / sum(l_extendedprice * (1 - l_discount)) AS promo_revenue FROM lineitem, part WHERE l_partkey = p_partkey AND l_shipdate >= date '1995-09-01' AND l_shipdate < date '1995-09-01' + interval '1' month;
-- Q15
WITH revenue (supplier_no, total_revenue) AS (SELECT l_suppkey, sum(l_extendedprice * (1 - l_discount)) FROM lineitem WHERE l_shipdate >= date '1996-01-01' AND l_shipdate < date '1996-01-01' + interval '3' month GROUP BY l_suppkey) SELECT s_suppkey, s_name, s_address, s_phone, total_revenue FROM supplier, revenue WHERE s_suppkey = supplier_no AND total_revenue = (SELECT max(total_revenue) FROM revenue) ORDER BY s_suppkey;
-- Q16
SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS supplier_cnt FROM partsupp, part WHERE p_partkey = ps_partkey AND p_brand <> 'Brand#12' AND p_type NOT LIKE 'MEDIUM POLISHED%' AND p_size IN (49, 14, 23, 45, 19, 3, 36, 9) AND ps_suppkey NOT IN (SELECT s_suppkey FROM supplier WHERE s_comment LIKE '%Customer%Complaints%') GROUP BY p_brand, p_type, p_size ORDER BY supplier_cnt DESC, p_brand, p_type, p_size;
-- Q17
SELECT sum(l_extendedprice) / 7.0 AS avg_yearly FROM lineitem, part WHERE p_partkey = l_partkey AND p_brand = 'Brand#23' AND l_quantity < (SELECT 0.8 * avg(l_quantity) FROM lineitem WHERE l_partkey = p_partkey);
-- Q18
SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) FROM customer, orders, lineitem WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 150) AND c_custkey = o_custkey AND o_orderkey = l_orderkey GROUP BY c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice ORDER BY o_totalprice DESC, o_orderdate, o_orderkey LIMIT 100;
-- Q19
SELECT sum(l_extendedprice * (1 - l_discount)) AS revenue FROM lineitem, part WHERE (p_partkey = l_partkey AND p_brand = 'Brand#12' AND p_container IN ('SM CASE', 'SM BOX', 'SM PACK', 'SM PKG') AND l_quantity >= 1 AND l_quantity <= 41 AND p_size BETWEEN 1 AND 45 AND l_shipmode IN ('AIR', 'AIR REG')) OR (p_partkey = l_partkey AND p_brand = 'Brand#23' AND p_container IN ('MED BAG', 'LG BOX', 'LG BAG', 'LG PACK') AND l_quantity >= 10 AND l_quantity <= 40 AND p_size BETWEEN 1 AND 40 AND l_shipmode IN ('AIR', 'AIR REG'));
-- Q20
SELECT s_name, s_address FROM supplier, nation WHERE s_suppkey IN (SELECT ps_suppkey FROM partsupp WHERE ps_partkey IN (SELECT p_partkey FROM part WHERE p_name LIKE 'forest%') AND ps_availqty > (SELECT 0.5 * sum(l_quantity) FROM lineitem WHERE l_partkey = ps_partkey AND l_suppkey = ps_suppkey AND l_shipdate >= date '1994-01-01' AND l_shipdate < date '1994-01-01' + interval '3' year)) AND s_nationkey = n_nationkey AND n_name > 'C' ORDER BY s_name;
-- Q21
SELECT s_name, count(*) AS numwait FROM supplier, lineitem l1, orders, nation WHERE s_suppkey = l1.l_suppkey AND o_orderkey = l1.l_orderkey AND o_orderstatus = 'F' AND l1.l_receiptdate > l1.l_commitdate AND EXISTS (SELECT * FROM lineitem l2 WHERE l2.l_orderkey = l1.l_orderkey AND l2.l_suppkey <> l1.l_suppkey) AND NOT EXISTS (SELECT * FROM lineitem l3 WHERE l3.l_orderkey = l1.l_orderkey AND l3.l_suppkey <> l1.l_suppkey AND l3.l_receiptdate > l3.l_commitdate) AND s_nationkey = n_nationkey AND n_name < 'SAUDI ARABIA' GROUP BY s_name ORDER BY numwait DESC, s_name LIMIT 100;
-- Q22
SELECT cntrycode, count(*) AS numcust, sum(c_acctbal) AS totacctbal FROM (SELECT substring(c_phone FROM 1 FOR 2) AS cntrycode, c_acctbal FROM customer WHERE substring(c_phone FROM 1 FOR 2) IN ('13', '31', '23', '29', '30', '18', '17') AND c_acctbal > (SELECT avg(c_acctbal) FROM customer WHERE c_acctbal > 0.00 AND substring(c_phone FROM 1 FOR 2) IN ('13', '31', '23', '29', '30', '18', '17')) AND NOT EXISTS (SELECT * FROM orders WHERE o_custkey = c_custkey)) AS custsale GROUP BY cntrycode ORDER BY cntrycode;
-- More of the same schema: joins, subqueries and sets that no key holds together.
SELECT count(*) FROM lineitem, part WHERE p_partkey = l_partkey AND p_size > 25;
SELECT p_brand, count(*), sum(l_quantity) FROM lineitem JOIN part ON p_partkey = l_partkey GROUP BY p_brand ORDER BY 1;
SELECT p_brand, avg(l_discount), min(l_shipdate), max(l_shipmode) FROM lineitem JOIN part ON p_partkey = l_partkey WHERE l_tax < 0.05 GROUP BY p_brand HAVING count(*) > 10 ORDER BY 2 DESC, 1;
SELECT c_mktsegment, count(*), sum(o_totalprice) FROM customer JOIN orders ON o_custkey = c_custkey GROUP BY c_mktsegment ORDER BY 1;
SELECT c_name, o_orderkey, o_totalprice FROM customer JOIN orders ON o_custkey = c_custkey WHERE c_nationkey = 3 ORDER BY o_totalprice DESC, o_orderkey LIMIT 9;
SELECT n_name, count(DISTINCT c_custkey) FROM nation LEFT JOIN customer ON c_nationkey = n_nationkey GROUP BY n_name ORDER BY 2 DESC, 1 LIMIT 7;
SELECT n_name, count(*) FROM customer JOIN orders ON o_custkey = c_custkey JOIN nation ON n_nationkey = c_nationkey WHERE o_orderstatus = 'F' GROUP BY n_name ORDER BY 1;
SELECT c_custkey FROM customer WHERE NOT EXISTS (SELECT 1 FROM orders WHERE o_custkey = c_custkey) ORDER BY 1;
SELECT c_custkey FROM customer WHERE c_custkey NOT IN (SELECT o_custkey FROM orders WHERE o_totalprice > 200000) ORDER BY 1 LIMIT 12;
SELECT c_custkey FROM customer WHERE c_acctbal > (SELECT avg(c_acctbal) FROM customer WHERE c_acctbal > 0) ORDER BY 1 LIMIT 12;
SELECT o_orderkey FROM orders WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem WHERE l_quantity > 45) ORDER BY 1 LIMIT 10;
SELECT o_orderkey FROM orders WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 150) ORDER BY 1 LIMIT 10;
SELECT count(*) FROM orders o WHERE EXISTS (SELECT 1 FROM lineitem l WHERE l.l_orderkey = o.o_orderkey AND l.l_commitdate < l.l_receiptdate);
SELECT count(*) FROM orders o WHERE NOT EXISTS (SELECT 1 FROM lineitem l WHERE l.l_orderkey = o.o_orderkey AND l.l_returnflag = 'R');
SELECT o_orderpriority, count(*) FROM orders o WHERE o_totalprice > (SELECT sum(l_extendedprice) / 4 FROM lineitem l WHERE l.l_orderkey = o.o_orderkey) GROUP BY 1 ORDER BY 1;
SELECT o_orderkey, (SELECT count(*) FROM lineitem WHERE l_orderkey = o_orderkey) FROM orders ORDER BY 2 DESC, 1 LIMIT 5;
SELECT o_orderkey, (SELECT c_name FROM customer WHERE c_custkey = o_custkey) FROM orders ORDER BY 1 LIMIT 5;
SELECT ps_partkey, ps_suppkey FROM partsupp WHERE ps_supplycost = (SELECT min(ps_supplycost) FROM partsupp) ORDER BY 1, 2;
SELECT p_partkey, p_name FROM part WHERE p_partkey IN (SELECT l_partkey FROM lineitem WHERE l_shipmode = 'AIR') AND p_size < 5 ORDER BY 1;
SELECT p_partkey FROM part p WHERE (SELECT count(*) FROM partsupp ps WHERE ps.ps_partkey = p.p_partkey AND ps_availqty > 500) > 2 ORDER BY 1 LIMIT 8;
SELECT p_type, sum(ps_availqty), max(ps_supplycost) FROM part, partsupp WHERE p_partkey = ps_partkey GROUP BY p_type ORDER BY 2, 1 LIMIT 6;
SELECT l_shipmode, o_orderpriority, count(*) FROM orders, lineitem WHERE o_orderkey = l_orderkey GROUP BY ROLLUP (l_shipmode, o_orderpriority) ORDER BY 1, 2;
SELECT o_orderstatus, o_orderpriority, count(*), grouping(o_orderstatus) FROM orders GROUP BY CUBE (o_orderstatus, o_orderpriority) ORDER BY 1, 2;
SELECT o_custkey, rank() OVER (ORDER BY sum(o_totalprice) DESC) FROM orders GROUP BY o_custkey ORDER BY 2, 1 LIMIT 8;
SELECT o_orderkey, row_number() OVER (PARTITION BY o_custkey ORDER BY o_orderdate, o_orderkey) FROM orders WHERE o_custkey < 9 ORDER BY 1;
SELECT c_custkey FROM customer INTERSECT SELECT o_custkey FROM orders ORDER BY 1 LIMIT 10;
SELECT c_custkey FROM customer EXCEPT SELECT o_custkey FROM orders ORDER BY 1;
SELECT 'c', count(*) FROM customer UNION ALL SELECT 'o', count(*) FROM orders UNION ALL SELECT 'l', count(*) FROM lineitem ORDER BY 1;
SELECT string_agg(DISTINCT c_mktsegment, ',' ORDER BY c_mktsegment) FROM customer JOIN orders ON o_custkey = c_custkey WHERE o_orderkey < 40;
SELECT array_agg(o_orderkey ORDER BY o_orderkey) FROM orders JOIN customer ON c_custkey = o_custkey WHERE c_nationkey = 11;
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY l_extendedprice) FROM lineitem JOIN part ON p_partkey = l_partkey WHERE p_size = 10;
SELECT p_size, count(*) FILTER (WHERE l_discount > 0.05), bool_or(l_linestatus = 'O') FROM lineitem JOIN part ON p_partkey = l_partkey WHERE p_size < 6 GROUP BY p_size ORDER BY 1;
SELECT DISTINCT p_container FROM part JOIN lineitem ON l_partkey = p_partkey WHERE l_quantity > 40 ORDER BY 1;
SELECT DISTINCT ON (c_mktsegment) c_mktsegment, o_orderkey, o_totalprice FROM customer JOIN orders ON o_custkey = c_custkey ORDER BY c_mktsegment, o_totalprice DESC, o_orderkey;
SELECT c_custkey, o_orderkey FROM customer LEFT JOIN orders ON o_custkey = c_custkey AND o_totalprice > 300000 WHERE c_custkey < 20 ORDER BY 1, 2;
SELECT o_orderkey, c_name FROM orders LEFT JOIN customer ON c_custkey = o_custkey AND c_acctbal > 5000 WHERE o_orderkey < 20 ORDER BY 1;
SELECT count(*), count(o_orderkey), count(c_custkey) FROM orders FULL JOIN customer ON c_custkey = o_custkey;
WITH big AS (SELECT o_custkey, sum(o_totalprice) AS total FROM orders GROUP BY o_custkey) SELECT c_name, total FROM customer JOIN big ON o_custkey = c_custkey WHERE total > 600000 ORDER BY 2 DESC, 1 LIMIT 6;
SELECT s_name, sum(l_extendedprice) FROM supplier, lineitem, orders WHERE s_suppkey = l_suppkey AND l_orderkey = o_orderkey AND o_orderdate < '1993-01-01' GROUP BY s_name ORDER BY 2 DESC, 1 LIMIT 5;
SELECT r_name, sum(l_extendedprice * (1 - l_discount)) FROM lineitem JOIN orders ON o_orderkey = l_orderkey JOIN customer ON c_custkey = o_custkey JOIN nation ON n_nationkey = c_nationkey JOIN region ON r_regionkey = n_regionkey GROUP BY r_name ORDER BY 1;
SELECT a.c_custkey, b.c_custkey FROM customer a JOIN customer b ON a.c_nationkey = b.c_nationkey AND a.c_custkey < b.c_custkey WHERE a.c_custkey < 6 ORDER BY 1, 2;
SELECT count(*) FROM lineitem l1 WHERE EXISTS (SELECT 1 FROM lineitem l2 WHERE l2.l_orderkey = l1.l_orderkey AND l2.l_suppkey <> l1.l_suppkey);
-- One order, one customer, one part: its shard answers.
SELECT * FROM orders WHERE o_orderkey = 7;
SELECT o_orderkey, l_linenumber, l_quantity FROM orders JOIN lineitem ON l_orderkey = o_orderkey WHERE o_orderkey = 33 ORDER BY 2;
SELECT sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) FROM lineitem WHERE l_orderkey = 64;
SELECT o_orderkey, count(*) FROM orders, lineitem WHERE o_orderkey = l_orderkey AND l_orderkey IN (1, 2, 3, 1000000) GROUP BY o_orderkey ORDER BY 1;
SELECT p_name, ps_suppkey, ps_supplycost FROM part, partsupp WHERE p_partkey = ps_partkey AND ps_partkey = 17 ORDER BY 2;
SELECT s_name, ps_availqty FROM partsupp JOIN supplier ON s_suppkey = ps_suppkey WHERE ps_partkey = 99 ORDER BY 1;
SELECT c_name, n_name, r_name FROM customer, nation, region WHERE c_nationkey = n_nationkey AND n_regionkey = r_regionkey AND c_custkey = 42;
SELECT l_linenumber, rank() OVER (ORDER BY l_extendedprice DESC) FROM lineitem WHERE l_orderkey = 65 ORDER BY 1;
SELECT o_orderkey FROM orders WHERE o_orderkey = (SELECT min(l_orderkey) FROM lineitem WHERE l_orderkey = 12);
SELECT count(*) FROM orders o WHERE o.o_orderkey = 5 AND EXISTS (SELECT 1 FROM lineitem l WHERE l.l_orderkey = o.o_orderkey AND l_tax > 0);
WITH l AS (SELECT * FROM lineitem WHERE l_orderkey = 20) SELECT l_shipmode, count(*) FROM l GROUP BY l_shipmode ORDER BY 1;
SELECT max(l_linenumber) FROM lineitem WHERE l_orderkey = 20 UNION ALL SELECT count(*) FROM orders WHERE o_orderkey = 20;
--@ bind: 7
SELECT o_totalprice, o_orderdate FROM orders WHERE o_orderkey = $1;
--@ bind: {3,9,27,81}
SELECT o_orderkey, o_orderstatus FROM orders WHERE o_orderkey = ANY ($1) ORDER BY 1;
--@ bind: 7|2
SELECT l_partkey FROM lineitem WHERE l_orderkey = $1 AND l_linenumber >= $2 ORDER BY 1;
-- Rows of all shards.
SELECT o_orderkey, o_totalprice FROM orders ORDER BY o_totalprice DESC, o_orderkey LIMIT 10;
SELECT o_orderkey FROM orders ORDER BY o_orderdate, o_orderkey LIMIT 5 OFFSET 20;
SELECT o_orderkey, o_orderdate FROM orders WHERE o_orderdate >= date '1996-01-01' AND o_orderdate < date '1996-01-01' + interval '1 month' ORDER BY o_orderdate, o_orderkey;
SELECT o_orderkey FROM orders WHERE o_orderstatus = 'P' AND o_totalprice NOT BETWEEN 1000 AND 300000 ORDER BY 1 LIMIT 12;
SELECT l_orderkey, l_linenumber, l_extendedprice FROM lineitem ORDER BY l_extendedprice DESC, l_orderkey, l_linenumber LIMIT 8;
SELECT l_orderkey, l_linenumber FROM lineitem ORDER BY l_receiptdate - l_shipdate DESC, l_orderkey, l_linenumber LIMIT 6;
SELECT l_orderkey, l_linenumber, l_quantity / (l_discount + 1) FROM lineitem WHERE l_shipmode IN ('AIR', 'RAIL') ORDER BY 1, 2 LIMIT 10;
SELECT l_shipmode FROM lineitem ORDER BY l_shipmode, l_orderkey FETCH FIRST 3 ROWS ONLY;
SELECT p_size FROM part ORDER BY p_size DESC FETCH FIRST 4 ROWS WITH TIES;
SELECT p_partkey, p_name FROM part WHERE p_name LIKE '%green%' ORDER BY p_name, p_partkey LIMIT 9;
SELECT p_partkey, p_retailprice FROM part WHERE p_retailprice > 1000 ORDER BY p_retailprice DESC NULLS LAST, p_partkey LIMIT 7;
SELECT p_partkey, split_part(p_name, ' ', 1) AS colour, upper(p_brand) FROM part ORDER BY colour, p_partkey LIMIT 11;
SELECT c_custkey, c_acctbal, c_acctbal < 0 AS debt FROM customer ORDER BY debt DESC, c_acctbal, c_custkey LIMIT 10;
SELECT c_name, substring(c_phone FROM 1 FOR 2)::int + 1 FROM customer ORDER BY c_phone, c_custkey LIMIT 6;
SELECT c_custkey FROM customer WHERE c_mktsegment <> 'BUILDING' AND (c_nationkey = 4 OR c_nationkey = 20) ORDER BY c_custkey;
SELECT ps_partkey, ps_suppkey FROM partsupp WHERE ps_availqty * ps_supplycost > 9000000 ORDER BY 1, 2 LIMIT 10;
SELECT DISTINCT o_orderstatus FROM orders ORDER BY 1;
SELECT DISTINCT o_orderstatus, o_orderpriority FROM orders ORDER BY 2, 1 DESC;
SELECT DISTINCT l_returnflag, l_linestatus FROM lineitem ORDER BY 1, 2;
SELECT DISTINCT extract(year FROM o_orderdate) AS y FROM orders ORDER BY y DESC;
SELECT DISTINCT p_container FROM part WHERE p_size < 20 ORDER BY p_container LIMIT 7 OFFSET 3;
SELECT DISTINCT ON (o_orderpriority) o_orderpriority, o_orderkey, o_totalprice FROM orders ORDER BY o_orderpriority, o_totalprice, o_orderkey;
SELECT DISTINCT ON (p_brand) p_brand, p_partkey FROM part ORDER BY p_brand DESC, p_retailprice DESC, p_partkey;
SELECT DISTINCT ON (l_orderkey) l_orderkey, l_linenumber FROM lineitem WHERE l_orderkey < 9 ORDER BY l_orderkey, l_quantity DESC, l_linenumber;
SELECT count(*) FROM (SELECT l_orderkey FROM lineitem WHERE l_tax > 0.03 LIMIT 50) x;
-- Aggregates and groups.
SELECT count(*), sum(o_totalprice), avg(o_totalprice), min(o_orderdate), max(o_orderdate) FROM orders;
SELECT count(DISTINCT o_custkey), count(DISTINCT o_orderkey), count(DISTINCT o_orderdate) FROM orders;
SELECT o_orderstatus, count(*), sum(o_totalprice) FROM orders GROUP BY o_orderstatus ORDER BY 2 DESC, 1;
SELECT o_orderpriority, avg(o_totalprice), max(o_shippriority) FROM orders GROUP BY o_orderpriority HAVING count(*) > 5 ORDER BY 1;
SELECT extract(year FROM o_orderdate) AS y, extract(month FROM o_orderdate) AS m, count(*) FROM orders GROUP BY y, m HAVING count(*) > 8 ORDER BY y, m;
SELECT date_trunc('quarter', o_orderdate) AS q, sum(o_totalprice) FROM orders GROUP BY 1 ORDER BY 2 DESC LIMIT 3;
SELECT o_custkey % 10 AS bucket, count(*), sum(o_totalprice) FROM orders GROUP BY bucket ORDER BY bucket;
SELECT o_clerk, count(*) FROM orders GROUP BY o_clerk ORDER BY count(*) DESC, o_clerk LIMIT 5;
SELECT count(*) FROM orders GROUP BY o_orderdate ORDER BY count(*) DESC FETCH FIRST ROW WITH TIES;
SELECT l_orderkey, sum(l_quantity) AS q FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 140 ORDER BY q DESC, 1 LIMIT 10;
SELECT l_orderkey, count(*), array_agg(l_partkey ORDER BY l_linenumber) FROM lineitem GROUP BY l_orderkey ORDER BY 2 DESC, 1 LIMIT 4;
SELECT l_suppkey, sum(l_extendedprice), avg(l_discount) FROM lineitem GROUP BY l_suppkey ORDER BY 2 DESC LIMIT 5;
SELECT l_shipmode, l_returnflag, sum(l_quantity), count(*) FROM lineitem GROUP BY l_shipmode, l_returnflag ORDER BY 1, 2;
SELECT l_shipmode, sum(CASE WHEN l_returnflag = 'R' THEN 1 ELSE 0 END) * 100.0 / count(*) FROM lineitem GROUP BY l_shipmode ORDER BY 1;
SELECT l_shipmode, count(*) FILTER (WHERE l_commitdate < l_receiptdate) AS late, max(l_receiptdate - l_commitdate) FROM lineitem GROUP BY l_shipmode ORDER BY late DESC, 1;
SELECT l_discount, l_tax, count(*) FROM lineitem GROUP BY 1, 2 HAVING count(*) > 20 ORDER BY 3 DESC, 1, 2;
SELECT round(l_discount * 100) AS d, sum(l_extendedprice) / sum(l_quantity) FROM lineitem GROUP BY d ORDER BY d;
SELECT max(l_shipmode), min(l_shipinstruct), max(l_returnflag) FROM lineitem;
SELECT bool_and(l_quantity > 0), bool_or(l_tax > 0.07), every(l_discount < 1) FROM lineitem;
SELECT stddev(l_quantity), variance(l_quantity), stddev_pop(l_tax) FROM lineitem;
SELECT percentile_cont(ARRAY[0.25, 0.75]) WITHIN GROUP (ORDER BY o_totalprice), mode() WITHIN GROUP (ORDER BY o_orderpriority) FROM orders;
SELECT sum(DISTINCT p_size), avg(DISTINCT p_size), count(DISTINCT p_brand) FROM part;
SELECT p_mfgr, count(DISTINCT p_type), count(DISTINCT p_container) FROM part GROUP BY p_mfgr ORDER BY 1;
SELECT p_brand, p_mfgr, min(p_retailprice), max(p_size) FROM part GROUP BY p_brand, p_mfgr ORDER BY 1, 2 LIMIT 9;
SELECT split_part(p_type, ' ', 3) AS metal, avg(p_retailprice)::numeric(10, 3) FROM part GROUP BY metal ORDER BY metal;
SELECT p_size, string_agg(p_partkey::text, ',' ORDER BY p_partkey) FROM part WHERE p_size <= 5 GROUP BY p_size ORDER BY 1;
SELECT ps_suppkey, sum(ps_availqty) AS qty FROM partsupp GROUP BY ps_suppkey HAVING sum(ps_availqty) > 150000 ORDER BY qty DESC, 1;
SELECT ps_partkey, min(ps_supplycost), count(*) FROM partsupp GROUP BY ps_partkey ORDER BY 2, 1 LIMIT 6;
SELECT sum(ps_availqty * ps_supplycost), sum(ps_availqty)::bigint / count(*) FROM partsupp;
SELECT c_mktsegment, count(*), avg(c_acctbal), sum(c_acctbal) FILTER (WHERE c_acctbal > 0) FROM customer GROUP BY c_mktsegment ORDER BY 1;
SELECT c_nationkey, count(*) FROM customer WHERE c_acctbal < 0 GROUP BY c_nationkey ORDER BY 2 DESC, 1 LIMIT 6;
SELECT left(c_phone, 2) AS code, bool_or(c_acctbal > 9000) FROM customer GROUP BY code ORDER BY code LIMIT 8;
SELECT width_bucket(c_acctbal, -1000, 10000, 5) AS w, count(*) FROM customer GROUP BY w ORDER BY w;
SELECT o_orderstatus, o_orderpriority, sum(o_totalprice) FROM orders GROUP BY GROUPING SETS ((o_orderstatus), (o_orderpriority)) ORDER BY 1, 2;
SELECT l_returnflag, l_linestatus, count(*) FROM lineitem GROUP BY ROLLUP (l_returnflag, l_linestatus) ORDER BY 1, 2, 3;
SELECT count(*) FROM orders HAVING min(o_totalprice) > 1e9;
SELECT 1 FROM orders HAVING count(*) > 10;
-- Joins on the keys.
SELECT o_orderpriority, l_shipmode, count(*) FROM orders JOIN lineitem ON l_orderkey = o_orderkey WHERE l_shipmode LIKE 'R%' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT o_orderkey, o_totalprice - sum(l_extendedprice) AS rest FROM orders JOIN lineitem ON l_orderkey = o_orderkey GROUP BY o_orderkey ORDER BY rest LIMIT 5;
SELECT o_orderdate, sum(l_quantity) FROM orders, lineitem WHERE l_orderkey = o_orderkey GROUP BY o_orderdate ORDER BY 2 DESC, 1 LIMIT 5;
SELECT count(*), count(l_orderkey) FROM orders LEFT JOIN lineitem ON l_orderkey = o_orderkey AND l_tax > 0.07;
SELECT o_orderkey FROM orders LEFT JOIN lineitem ON l_orderkey = o_orderkey AND l_returnflag = 'R' WHERE l_orderkey IS NULL ORDER BY 1 LIMIT 9;
SELECT a.l_orderkey, a.l_linenumber, b.l_linenumber FROM lineitem a JOIN lineitem b ON a.l_orderkey = b.l_orderkey AND a.l_partkey < b.l_partkey WHERE a.l_shipmode = b.l_shipmode ORDER BY 1, 2, 3 LIMIT 7;
SELECT p_brand, sum(ps_availqty), min(ps_supplycost) FROM part JOIN partsupp ON ps_partkey = p_partkey WHERE p_size BETWEEN 5 AND 15 GROUP BY p_brand ORDER BY 1;
SELECT p_partkey, p_retailprice - ps_supplycost AS margin FROM part JOIN partsupp ON ps_partkey = p_partkey ORDER BY margin DESC, 1, ps_suppkey LIMIT 5;
SELECT p_partkey FROM part p WHERE NOT EXISTS (SELECT 1 FROM partsupp WHERE ps_partkey = p.p_partkey AND ps_availqty < 3000) ORDER BY 1 LIMIT 10;
SELECT n_name, count(*), sum(c_acctbal) FROM customer JOIN nation ON n_nationkey = c_nationkey GROUP BY n_name ORDER BY 3 DESC LIMIT 5;
SELECT r_name, n_name, count(c_custkey) FROM region JOIN nation ON n_regionkey = r_regionkey LEFT JOIN customer ON c_nationkey = n_nationkey GROUP BY r_name, n_name ORDER BY 1, 2;
SELECT r_name, count(DISTINCT c_mktsegment) FROM customer, nation, region WHERE c_nationkey = n_nationkey AND n_regionkey = r_regionkey GROUP BY r_name ORDER BY 1;
SELECT s_name, count(*), sum(ps_availqty) FROM partsupp JOIN supplier ON s_suppkey = ps_suppkey GROUP BY s_suppkey, s_name ORDER BY 3 DESC, 1 LIMIT 6;
SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue FROM lineitem JOIN supplier ON s_suppkey = l_suppkey JOIN nation ON n_nationkey = s_nationkey GROUP BY n_name ORDER BY revenue DESC LIMIT 6;
SELECT o_orderkey, x.q FROM orders, LATERAL (SELECT sum(l_quantity) AS q FROM lineitem WHERE l_orderkey = o_orderkey) x WHERE x.q > 130 ORDER BY 1;
SELECT l_orderkey, l_linenumber, sum(l_quantity) OVER (PARTITION BY l_orderkey ORDER BY l_linenumber) FROM lineitem ORDER BY 1, 2 LIMIT 12;
SELECT * FROM (SELECT l_orderkey, l_linenumber, row_number() OVER (PARTITION BY l_orderkey ORDER BY l_extendedprice DESC, l_linenumber) AS r FROM lineitem) x WHERE r = 1 AND l_orderkey < 15 ORDER BY 1;
-- Joins of other keys.
SELECT c_mktsegment, o_orderpriority, count(*) FROM customer, orders WHERE c_custkey = o_custkey GROUP BY 1, 2 ORDER BY 1, 2;
SELECT c_custkey, count(o_orderkey), sum(o_totalprice) FROM customer LEFT JOIN orders ON o_custkey = c_custkey GROUP BY c_custkey ORDER BY 2 DESC, 1 LIMIT 7;
SELECT c_name, max(o_orderdate) FROM customer JOIN orders ON o_custkey = c_custkey GROUP BY c_custkey ORDER BY 2 DESC, 1 LIMIT 7;
SELECT c_custkey, x.o_orderkey FROM customer, LATERAL (SELECT o_orderkey FROM orders WHERE o_custkey = c_custkey ORDER BY o_totalprice DESC, o_orderkey LIMIT 1) x WHERE c_nationkey < 4 ORDER BY 1;
SELECT p_mfgr, l_returnflag, avg(l_quantity) FROM part, lineitem WHERE p_partkey = l_partkey GROUP BY 1, 2 ORDER BY 1, 2;
SELECT p_type, sum(l_quantity) FROM part LEFT JOIN lineitem ON l_partkey = p_partkey AND l_shipdate > '1997-01-01' GROUP BY p_type ORDER BY 2 NULLS FIRST, 1 LIMIT 8;
SELECT p_partkey FROM part LEFT JOIN lineitem ON l_partkey = p_partkey WHERE l_orderkey IS NULL ORDER BY 1;
SELECT count(*) FROM lineitem, partsupp WHERE l_partkey = ps_partkey AND l_suppkey = ps_suppkey AND l_quantity * ps_supplycost > l_extendedprice;
SELECT c_name, p_name, l_quantity FROM customer JOIN orders ON o_custkey = c_custkey JOIN lineitem ON l_orderkey = o_orderkey JOIN part ON p_partkey = l_partkey WHERE c_custkey < 5 AND l_quantity > 40 ORDER BY 1, 2, 3, l_orderkey LIMIT 9;
SELECT c_nationkey, s_nationkey, count(*) FROM customer, orders, lineitem, supplier WHERE c_custkey = o_custkey AND o_orderkey = l_orderkey AND s_suppkey = l_suppkey AND c_nationkey = s_nationkey GROUP BY 1, 2 ORDER BY 1;
SELECT a.o_orderkey, b.o_orderkey FROM orders a JOIN orders b ON a.o_custkey = b.o_custkey AND a.o_orderdate < b.o_orderdate AND b.o_orderdate < a.o_orderdate + 60 ORDER BY 1, 2 LIMIT 10;
SELECT count(*) FROM orders RIGHT JOIN customer ON o_custkey = c_custkey AND o_orderstatus = 'F' WHERE o_orderkey IS NULL;
SELECT c_mktsegment, sum(o_totalprice) OVER (PARTITION BY c_mktsegment ORDER BY o_orderkey) FROM customer JOIN orders ON o_custkey = c_custkey WHERE o_orderkey < 30 ORDER BY 1, 2;
SELECT n_name, o_orderstatus, count(*) FROM nation JOIN customer ON c_nationkey = n_nationkey JOIN orders ON o_custkey = c_custkey GROUP BY ROLLUP (n_name, o_orderstatus) HAVING count(*) > 20 ORDER BY 1, 2;
-- Subqueries over other shards.
SELECT c_custkey FROM customer c WHERE (SELECT count(*) FROM orders o WHERE o.o_custkey = c.c_custkey) > 4 ORDER BY 1;
SELECT c_custkey, (SELECT max(o_totalprice) FROM orders WHERE o_custkey = c_custkey) AS best FROM customer ORDER BY best DESC NULLS LAST, 1 LIMIT 6;
SELECT o_orderkey FROM orders WHERE o_custkey IN (SELECT c_custkey FROM customer WHERE c_mktsegment = 'MACHINERY' AND c_acctbal < 0) ORDER BY 1 LIMIT 10;
SELECT count(*) FROM orders WHERE o_custkey NOT IN (SELECT c_custkey FROM customer);
SELECT p_partkey FROM part WHERE p_retailprice > ALL (SELECT ps_supplycost * 1.2 FROM partsupp WHERE ps_availqty > 9000) ORDER BY 1 LIMIT 8;
SELECT l_orderkey, l_linenumber FROM lineitem l WHERE l_quantity > (SELECT 1.8 * avg(l_quantity) FROM lineitem x WHERE x.l_partkey = l.l_partkey) ORDER BY 1, 2 LIMIT 8;
SELECT o_orderpriority, count(*) FROM orders WHERE EXISTS (SELECT 1 FROM lineitem JOIN part ON p_partkey = l_partkey WHERE l_orderkey = o_orderkey AND p_size > 45) GROUP BY 1 ORDER BY 1;
SELECT s_name FROM supplier WHERE NOT EXISTS (SELECT 1 FROM lineitem WHERE l_suppkey = s_suppkey AND l_shipdate > '1998-06-01') ORDER BY 1;
SELECT n_name, (SELECT count(*) FROM customer WHERE c_nationkey = n_nationkey), (SELECT count(*) FROM supplier WHERE s_nationkey = n_nationkey) FROM nation ORDER BY 1;
SELECT (SELECT count(*) FROM lineitem) / (SELECT count(*) FROM orders)::numeric, (SELECT sum(c_acctbal) FROM customer);
SELECT avg(n), max(n) FROM (SELECT o_custkey, count(*) AS n FROM orders GROUP BY o_custkey) x;
SELECT n, count(*) FROM (SELECT l_orderkey, count(*) AS n FROM lineitem GROUP BY l_orderkey) x GROUP BY n ORDER BY n;
SELECT x.y, x.total, x.total - lag(x.total) OVER (ORDER BY x.y) FROM (SELECT extract(year FROM o_orderdate) AS y, sum(o_totalprice) AS total FROM orders GROUP BY 1) x ORDER BY 1;
SELECT p_brand FROM part GROUP BY p_brand HAVING avg(p_retailprice) > (SELECT avg(p_retailprice) FROM part) ORDER BY 1;
SELECT o_orderkey FROM orders ORDER BY (SELECT c_acctbal FROM customer WHERE c_custkey = o_custkey) DESC NULLS LAST, o_orderkey LIMIT 6;
-- WITH and set operations.
WITH spent AS (SELECT o_custkey, sum(o_totalprice) AS total FROM orders GROUP BY o_custkey), ranked AS (SELECT *, rank() OVER (ORDER BY total DESC) AS r FROM spent) SELECT r, o_custkey, total FROM ranked WHERE r <= 5 ORDER BY r, o_custkey;
WITH late AS (SELECT l_suppkey, count(*) AS n FROM lineitem WHERE l_receiptdate > l_commitdate GROUP BY l_suppkey) SELECT s_name, n FROM supplier JOIN late ON l_suppkey = s_suppkey WHERE n = (SELECT max(n) FROM late) ORDER BY 1;
WITH RECURSIVE months AS (SELECT date '1995-01-01' AS m UNION ALL SELECT (m + interval '1 month')::date FROM months WHERE m < '1995-12-01') SELECT m, count(o_orderkey) FROM months LEFT JOIN orders ON date_trunc('month', o_orderdate) = m GROUP BY m ORDER BY m;
WITH big AS MATERIALIZED (SELECT o_orderkey FROM orders WHERE o_totalprice > 350000) SELECT count(*), sum(l_quantity) FROM lineitem WHERE l_orderkey IN (SELECT o_orderkey FROM big);
SELECT o_custkey FROM orders WHERE o_orderstatus = 'P' EXCEPT SELECT o_custkey FROM orders WHERE o_orderstatus = 'F' ORDER BY 1 LIMIT 9;
SELECT l_partkey FROM lineitem WHERE l_shipmode = 'MAIL' INTERSECT SELECT l_partkey FROM lineitem WHERE l_shipmode = 'SHIP' ORDER BY 1 LIMIT 9;
SELECT c_nationkey FROM customer UNION SELECT s_nationkey FROM supplier ORDER BY 1 DESC LIMIT 4;
(SELECT o_orderkey, o_totalprice FROM orders ORDER BY 2 DESC, 1 LIMIT 3) UNION ALL (SELECT o_orderkey, o_totalprice FROM orders ORDER BY 2, 1 LIMIT 3) ORDER BY 2, 1;
SELECT p_partkey FROM part EXCEPT SELECT l_partkey FROM lineitem ORDER BY 1;
-- Windows over all shards.
SELECT o_orderkey, rank() OVER (ORDER BY o_totalprice DESC, o_orderkey) FROM orders ORDER BY 2 LIMIT 8;
SELECT o_orderkey, sum(o_totalprice) OVER (PARTITION BY o_orderpriority ORDER BY o_orderdate, o_orderkey) FROM orders ORDER BY 1 LIMIT 8;
SELECT o_custkey, o_orderdate - lag(o_orderdate) OVER (PARTITION BY o_custkey ORDER BY o_orderdate, o_orderkey) AS gap FROM orders ORDER BY gap DESC NULLS LAST, o_orderkey LIMIT 6;
SELECT p_brand, p_partkey, p_retailprice - avg(p_retailprice) OVER (PARTITION BY p_brand) FROM part WHERE p_size < 6 ORDER BY 1, 2;
SELECT DISTINCT ntile(3) OVER (ORDER BY c_acctbal, c_custkey) FROM customer ORDER BY 1;
-- Parameters.
--@ bind: 1995-01-01|1996-01-01
SELECT o_orderpriority, count(*) FROM orders WHERE o_orderdate >= $1 AND o_orderdate < $2 GROUP BY 1 ORDER BY 1;
--@ bind: BUILDING|5
SELECT c_name, sum(o_totalprice) FROM customer JOIN orders ON o_custkey = c_custkey WHERE c_mktsegment = $1 GROUP BY c_custkey ORDER BY 2 DESC, 1 LIMIT $2;
--@ bind: {AIR,SHIP}|30
SELECT l_shipmode, count(*) FROM lineitem WHERE l_shipmode = ANY ($1) AND l_quantity > $2 GROUP BY 1 ORDER BY 1;
--@ bind: %green%
SELECT n_name, sum(l_quantity) FROM part, lineitem, supplier, nation WHERE p_partkey = l_partkey AND s_suppkey = l_suppkey AND n_nationkey = s_nationkey AND p_name LIKE $1 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5;
--@ bind: 3
SELECT o_custkey, count(*) FROM orders GROUP BY o_custkey HAVING count(*) > $1 ORDER BY 2 DESC, 1 LIMIT 6;
