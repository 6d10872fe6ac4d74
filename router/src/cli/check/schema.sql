-- Everything that has to be the same on every shard: (kind, name, parent, alike, definition), all
-- text, no OID and no position of a sequence in it. `parent` is "kind name" of what the object
-- belongs to: where that is missing, the object is not told of by itself. `alike` is what it takes
-- after, a partition's column after its table's: where both differ in the same way, one is enough.
-- Runs with search_path = pg_catalog, so that all other names are written with their schemas.
--
-- Left out: what belongs to pgherd (its schema, and the triggers of a run of `pgherd reshard`),
-- publications, subscriptions, tablespaces, which are a matter of one server;
-- members of extensions, which are compared by the extension's version; comments and labels.
WITH
spaces AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')
        AND nspname !~ '^pg_(toast|temp_|toast_temp_)'
),
members AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
relations AS (
    SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS name,
        CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
            WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind
    FROM pg_class c JOIN spaces n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT EXISTS (SELECT FROM members m
        WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
),
types AS (
    SELECT t.*, format('%I.%I', n.nspname, t.typname) AS name,
        CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END AS kind
    FROM pg_type t JOIN spaces n ON n.oid = t.typnamespace
    LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.typtype IN ('b', 'c', 'd', 'e', 'r') AND (c.oid IS NULL OR c.relkind = 'c')
        AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
        AND NOT EXISTS (SELECT FROM members m
            WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid)
),
functions AS (
    SELECT p.*,
        format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) AS name,
        CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END
            AS kind
    FROM pg_proc p JOIN spaces n ON n.oid = p.pronamespace
    WHERE NOT EXISTS (SELECT FROM members m
        WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
),
columns AS (
    SELECT a.*, format('%s.%I', r.name, a.attname) AS name, r.kind || ' ' || r.name AS parent,
        r.kind AS of_kind, r.name AS of_name, r.relowner,
        (SELECT format('column %s.%I', i.inhparent::regclass, a.attname) FROM pg_inherits i
            WHERE i.inhrelid = r.oid AND r.relispartition) AS alike
    FROM pg_attribute a JOIN relations r ON r.oid = a.attrelid
    WHERE a.attnum > 0 AND NOT a.attisdropped
),
owned AS (
    SELECT kind, name, relowner AS owner, coalesce(relacl,
        acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) AS acl
    FROM relations
    UNION ALL
    SELECT kind, name, typowner, coalesce(typacl, acldefault('T', typowner)) FROM types
    UNION ALL
    SELECT kind, name, proowner, coalesce(proacl, acldefault('f', proowner)) FROM functions
    UNION ALL
    SELECT 'schema', quote_ident(nspname), nspowner, coalesce(nspacl, acldefault('n', nspowner))
    FROM spaces
    UNION ALL
    SELECT 'database', 'settings', datdba, coalesce(datacl, acldefault('d', datdba))
    FROM pg_database WHERE datname = current_database()
),
granted AS (
    SELECT kind || ' ' || name AS object, kind || ' ' || name AS parent, owner, acl FROM owned
    UNION ALL
    SELECT 'column ' || name, 'column ' || name, relowner, attacl FROM columns
    WHERE attacl IS NOT NULL
    UNION ALL
    SELECT format('new %s of %I%s', CASE d.defaclobjtype WHEN 'r' THEN 'tables'
            WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types'
            ELSE 'schemas' END, pg_get_userbyid(d.defaclrole),
            coalesce(' in schema ' || quote_ident(n.nspname), '')),
        format('role %I', pg_get_userbyid(d.defaclrole)), d.defaclrole, d.defaclacl
    FROM pg_default_acl d LEFT JOIN spaces n ON n.oid = d.defaclnamespace
),
privileges AS (
    SELECT g.object, g.parent, g.owner, e.grantee, string_agg(DISTINCT e.privilege_type
        || CASE WHEN e.is_grantable AND e.grantee <> g.owner THEN ' with grant option' ELSE '' END,
        ', ') AS list
    FROM granted g, LATERAL aclexplode(g.acl) e GROUP BY 1, 2, 3, 4
),
roles AS (
    SELECT *, quote_ident(rolname) AS name FROM pg_authid WHERE rolname !~ '^pg_'
),
objects (kind, name, parent, definition) AS (
    -- Answers depend on these, and on the server's own settings as a session finds them.
    SELECT 'setting', name, '', reset_val FROM pg_settings WHERE name IN (
        'DateStyle', 'IntervalStyle', 'TimeZone', 'array_nulls', 'backslash_quote',
        'bytea_output', 'default_table_access_method', 'default_text_search_config',
        'default_transaction_deferrable', 'default_transaction_isolation',
        'default_transaction_read_only', 'escape_string_warning', 'extra_float_digits',
        'integer_datetimes', 'lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time',
        'lo_compat_privileges', 'max_identifier_length', 'plpgsql.variable_conflict',
        'quote_all_identifiers', 'row_security', 'search_path', 'session_replication_role',
        'standard_conforming_strings', 'timezone_abbreviations', 'transform_null_equals',
        'xmlbinary', 'xmloption', 'statement_timeout', 'lock_timeout',
        'idle_in_transaction_session_timeout', 'password_encryption')
    UNION ALL
    SELECT 'database', v.name, '', v.value FROM pg_database d, LATERAL (VALUES
        ('encoding', pg_encoding_to_char(d.encoding)),
        ('collation', d.datcollate), ('character type', d.datctype),
        ('collation provider', concat_ws(' ', d.datlocprovider,
            coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'))),
        ('collation version', pg_database_collation_actual_version(d.oid))
    ) AS v (name, value) WHERE d.datname = current_database()
    UNION ALL
    SELECT 'extension', quote_ident(e.extname), '',
        format('version %s in schema %I', e.extversion, n.nspname)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    UNION ALL
    SELECT 'schema', quote_ident(nspname), '', '' FROM spaces
    UNION ALL

    -- Roles.
    SELECT 'role', name, '', concat_ws(' ',
        CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN NOT rolinherit THEN 'NOINHERIT' END,
        CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
        CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
        CASE WHEN rolreplication THEN 'REPLICATION' END,
        CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
        CASE WHEN rolconnlimit <> -1 THEN format('CONNECTION LIMIT %s', rolconnlimit) END,
        'VALID UNTIL ' || quote_literal(rolvaliduntil::text))
    FROM roles
    UNION ALL
    -- Enough to tell verifiers apart, and of no use for anything else.
    SELECT 'password', 'of role ' || name, 'role ' || name, coalesce(
        'a verifier with the digest '
            || left(encode(sha256(convert_to(rolpassword, 'UTF8')), 'hex'), 8), 'none')
    FROM roles WHERE rolcanlogin
    UNION ALL
    SELECT 'membership', format('of role %I in %I', m.rolname, g.rolname),
        format('role %I', m.rolname),
        CASE WHEN bool_or(a.admin_option) THEN 'with admin option' ELSE '' END
    FROM pg_auth_members a JOIN pg_authid g ON g.oid = a.roleid
    JOIN pg_authid m ON m.oid = a.member WHERE m.rolname !~ '^pg_' GROUP BY m.rolname, g.rolname
    UNION ALL
    SELECT 'settings', CASE WHEN s.setrole = 0 THEN 'of the database'
            ELSE 'of role ' || quote_ident(r.rolname)
                || CASE WHEN s.setdatabase = 0 THEN '' ELSE ' in the database' END END,
        coalesce('role ' || quote_ident(r.rolname), ''),
        (SELECT string_agg(c, ', ' ORDER BY c) FROM unnest(s.setconfig) AS c)
    FROM pg_db_role_setting s LEFT JOIN pg_authid r ON r.oid = s.setrole
    WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    UNION ALL
    SELECT 'owner', format('of %s %s', kind, name), kind || ' ' || name, pg_get_userbyid(owner)
    FROM owned WHERE kind <> 'database'
    UNION ALL
    SELECT 'privileges', CASE WHEN object = 'database settings' THEN 'on the database'
            ELSE 'on ' || object END,
        CASE WHEN object = 'database settings' THEN '' ELSE parent END,
        string_agg(format('%s to %s', list, CASE grantee WHEN 0 THEN 'PUBLIC'
            WHEN owner THEN 'the owner' ELSE quote_ident(pg_get_userbyid(grantee)) END), '; '
            ORDER BY CASE grantee WHEN 0 THEN '' WHEN owner THEN ' '
                ELSE pg_get_userbyid(grantee)::text END COLLATE "C")
    FROM privileges GROUP BY object, parent
    UNION ALL

    -- Relations and what belongs to them.
    SELECT kind, name, '', concat_ws(' ',
        CASE relpersistence WHEN 'u' THEN 'UNLOGGED' END,
        CASE relkind WHEN 'p' THEN 'PARTITION BY ' || pg_get_partkeydef(oid) END,
        (SELECT string_agg(format('%s %s', CASE WHEN relispartition THEN 'PARTITION OF'
                ELSE 'INHERITS' END, i.inhparent::regclass), ' ' ORDER BY i.inhseqno)
            FROM pg_inherits i WHERE i.inhrelid = relations.oid),
        pg_get_expr(relpartbound, oid),
        CASE WHEN reloftype <> 0 THEN 'OF ' || format_type(reloftype, NULL) END,
        CASE WHEN relrowsecurity THEN 'ROW LEVEL SECURITY' END,
        CASE WHEN relforcerowsecurity THEN 'FORCED' END,
        CASE WHEN relkind = 'v' THEN (SELECT 'WITH ' || string_agg(o, ', ' ORDER BY o)
            FROM unnest(reloptions) AS o) END,
        CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END,
        (SELECT format('AS %s START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s',
                format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
                s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END)
            FROM pg_sequence s WHERE s.seqrelid = relations.oid),
        (SELECT format('OWNED BY %s.%I', d.refobjid::regclass, a.attname)
            FROM pg_depend d JOIN pg_attribute a
                ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = relations.oid
                AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1))
    FROM relations
    UNION ALL
    SELECT 'storage options', format('of %s %s', kind, name), kind || ' ' || name,
        (SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(reloptions) AS o)
    FROM relations WHERE relkind <> 'v' AND reloptions IS NOT NULL
    UNION ALL
    SELECT 'column', c.name, c.parent, concat_ws(' ', format_type(c.atttypid, c.atttypmod),
        CASE WHEN c.attcollation <> t.typcollation
            THEN 'COLLATE ' || c.attcollation::regcollation END,
        CASE WHEN c.attnotnull THEN 'NOT NULL' END,
        CASE c.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
            WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
        CASE c.attgenerated WHEN '' THEN 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
            ELSE format('GENERATED ALWAYS AS (%s) %s', pg_get_expr(d.adbin, d.adrelid),
                CASE c.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END) END)
    FROM columns c JOIN pg_type t ON t.oid = c.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
    WHERE c.of_kind IN ('table', 'foreign table')
    UNION ALL
    -- SELECT * and INSERT without names go by it.
    SELECT 'order of columns', format('of %s %s', of_kind, of_name), parent,
        string_agg(quote_ident(attname), ', ' ORDER BY attnum)
    FROM columns WHERE of_kind IN ('table', 'foreign table') GROUP BY of_kind, of_name, parent
    UNION ALL
    -- Those of constraints are told of as constraints, those of partitions as their parents'.
    SELECT CASE WHEN i.indisunique OR i.indisexclusion THEN 'unique index' ELSE 'index' END,
        format('%I.%I', r.nspname, c.relname), r.kind || ' ' || r.name,
        pg_get_indexdef(i.indexrelid)
    FROM pg_index i JOIN relations r ON r.oid = i.indrelid JOIN pg_class c ON c.oid = i.indexrelid
    WHERE NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_constraint k
        WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
    UNION ALL
    SELECT 'constraint', format('%I on %s', k.conname, o.name), o.kind || ' ' || o.name,
        pg_get_constraintdef(k.oid) || coalesce(
            -- ALTER TABLE … DISABLE TRIGGER ALL is for those of constraints, too.
            (SELECT ' (checked by triggers that are ' || string_agg(DISTINCT CASE t.tgenabled
                    WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'enabled for replicas'
                    ELSE 'enabled always' END || ' on ' || t.tgrelid::regclass, ', ') || ')'
                FROM pg_trigger t WHERE t.tgconstraint = k.oid AND t.tgisinternal
                    AND t.tgenabled <> 'O'), '')
    FROM pg_constraint k JOIN (
        SELECT oid AS relid, 0::oid AS typid, kind, name FROM relations
        UNION ALL SELECT 0, oid, kind, name FROM types WHERE typtype = 'd'
    ) o ON o.relid = k.conrelid AND o.typid = k.contypid
    WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.conparentid = 0
    UNION ALL
    SELECT 'trigger', format('%I on %s', t.tgname, r.name), r.kind || ' ' || r.name,
        pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ' DISABLED'
            WHEN 'R' THEN ' ENABLED REPLICA' ELSE ' ENABLED ALWAYS' END
    FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgparentid = 0
        AND p.pronamespace IS DISTINCT FROM (SELECT oid FROM pg_namespace WHERE nspname = 'pgherd')
    UNION ALL
    -- A run of pgherd reshard has its own for what it publishes.
    SELECT 'replica identity', 'of table ' || r.name, 'table ' || r.name,
        CASE r.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE coalesce(
            (SELECT 'USING INDEX ' || quote_ident(c.relname) FROM pg_index i
                JOIN pg_class c ON c.oid = i.indexrelid
                WHERE i.indrelid = r.oid AND i.indisreplident), 'NOTHING') END
    FROM relations r WHERE r.relkind IN ('r', 'p') AND r.relreplident <> 'd'
        AND NOT EXISTS (SELECT FROM pg_publication_rel l JOIN pg_publication p ON p.oid = l.prpubid
            WHERE l.prrelid = r.oid AND p.pubname ~ '^pgherd_[0-9]+_[0-9]+_[0-9]+$')
    UNION ALL
    SELECT 'rule', format('%I on %s', w.rulename, r.name), r.kind || ' ' || r.name,
        pg_get_ruledef(w.oid) || CASE w.ev_enabled WHEN 'D' THEN ' DISABLED' ELSE '' END
    FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
    UNION ALL
    SELECT 'policy', format('%I on %s', p.polname, r.name), r.kind || ' ' || r.name,
        concat_ws(' ', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
            'FOR ' || CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT'
                WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
            'TO ' || (SELECT string_agg(CASE o WHEN 0 THEN 'PUBLIC'
                ELSE quote_ident(pg_get_userbyid(o)) END, ', '
                ORDER BY pg_get_userbyid(o)::text COLLATE "C") FROM unnest(p.polroles) AS o),
            'USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
            'WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
    FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
    UNION ALL
    SELECT 'statistics', format('%I.%I', n.nspname, s.stxname), r.kind || ' ' || r.name,
        pg_get_statisticsobjdef(s.oid)
    FROM pg_statistic_ext s JOIN relations r ON r.oid = s.stxrelid
    JOIN spaces n ON n.oid = s.stxnamespace
    UNION ALL

    -- Types, functions, and the rest.
    SELECT kind, name, '', CASE typtype
        WHEN 'e' THEN 'ENUM (' || coalesce((SELECT string_agg(quote_literal(e.enumlabel), ', '
            ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = types.oid), '') || ')'
        WHEN 'c' THEN '(' || coalesce((SELECT string_agg(format('%I %s', a.attname,
                concat_ws(' COLLATE ', format_type(a.atttypid, a.atttypmod),
                CASE WHEN a.attcollation NOT IN (0, 100)
                    THEN a.attcollation::regcollation::text END)), ', ' ORDER BY a.attnum)
            FROM pg_attribute a WHERE a.attrelid = types.typrelid AND a.attnum > 0
                AND NOT a.attisdropped), '') || ')'
        WHEN 'd' THEN concat_ws(' ', format_type(typbasetype, typtypmod),
            CASE WHEN typcollation NOT IN (0, 100)
                THEN 'COLLATE ' || typcollation::regcollation END,
            CASE WHEN typnotnull THEN 'NOT NULL' END,
            'DEFAULT ' || pg_get_expr(typdefaultbin, 0))
        WHEN 'r' THEN (SELECT format('RANGE of %s, operators of %s, collation %s, %s, %s',
                format_type(g.rngsubtype, NULL), o.opcname, g.rngcollation::regcollation,
                g.rngcanonical, g.rngsubdiff)
            FROM pg_range g JOIN pg_opclass o ON o.oid = g.rngsubopc WHERE g.rngtypid = types.oid)
        ELSE format('INPUT %s OUTPUT %s LENGTH %s', typinput, typoutput, typlen) END
    FROM types
    UNION ALL
    SELECT f.kind, f.name, '', CASE WHEN f.prokind <> 'a' THEN pg_get_functiondef(f.oid)
        ELSE format('SFUNC %s STYPE %s FINALFUNC %s COMBINEFUNC %s INITCOND %L KIND %s SORTOP %s '
            'MSFUNC %s PARALLEL %s', a.aggtransfn, format_type(a.aggtranstype, NULL), a.aggfinalfn,
            a.aggcombinefn, a.agginitval, a.aggkind, a.aggsortop::regoper, a.aggmtransfn,
            f.proparallel) END
    FROM functions f LEFT JOIN pg_aggregate a ON a.aggfnoid = f.oid
    UNION ALL
    SELECT 'operator', format('%I.%s (%s, %s)', n.nspname, o.oprname,
        format_type(o.oprleft, NULL), format_type(o.oprright, NULL)), '',
        format('FUNCTION %s%s%s', o.oprcode, CASE WHEN o.oprcanhash THEN ' HASHES' ELSE '' END,
            CASE WHEN o.oprcanmerge THEN ' MERGES' ELSE '' END)
    FROM pg_operator o JOIN spaces n ON n.oid = o.oprnamespace
    WHERE NOT EXISTS (SELECT FROM members m
        WHERE m.classid = 'pg_operator'::regclass AND m.objid = o.oid)
    UNION ALL
    SELECT 'operator class', format('%I.%I using %I', n.nspname, o.opcname, a.amname), '',
        concat_ws(' ', CASE WHEN o.opcdefault THEN 'DEFAULT' END,
            'FOR ' || format_type(o.opcintype, NULL))
    FROM pg_opclass o JOIN spaces n ON n.oid = o.opcnamespace JOIN pg_am a ON a.oid = o.opcmethod
    WHERE NOT EXISTS (SELECT FROM members m
        WHERE m.classid = 'pg_opclass'::regclass AND m.objid = o.oid)
    UNION ALL
    SELECT 'cast', format('(%s AS %s)', format_type(c.castsource, NULL),
        format_type(c.casttarget, NULL)), '', format('%s, %s, %s',
        CASE c.castmethod WHEN 'f' THEN c.castfunc::regprocedure::text ELSE c.castmethod::text END,
        c.castmethod, c.castcontext)
    -- Those of PostgreSQL itself have lower numbers.
    FROM pg_cast c WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM members m
        WHERE m.classid = 'pg_cast'::regclass AND m.objid = c.oid)
    UNION ALL
    SELECT 'collation', format('%I.%I', n.nspname, c.collname), '', (to_jsonb(c)
        - '{oid,collname,collnamespace,collowner,collversion}'::text[])::text
    FROM pg_collation c JOIN spaces n ON n.oid = c.collnamespace
    UNION ALL
    SELECT 'text search configuration', format('%I.%I', n.nspname, c.cfgname), '',
        (SELECT p.prsname || ': ' FROM pg_ts_parser p WHERE p.oid = c.cfgparser) || coalesce((SELECT string_agg(format('%s %s',
            m.maptokentype, m.mapdict::regdictionary), ', ' ORDER BY m.maptokentype, m.mapseqno)
            FROM pg_ts_config_map m WHERE m.mapcfg = c.oid), '')
    FROM pg_ts_config c JOIN spaces n ON n.oid = c.cfgnamespace
    WHERE NOT EXISTS (SELECT FROM members m
        WHERE m.classid = 'pg_ts_config'::regclass AND m.objid = c.oid)
    UNION ALL
    SELECT 'text search dictionary', format('%I.%I', n.nspname, d.dictname), '',
        coalesce(d.dictinitoption, '')
    FROM pg_ts_dict d JOIN spaces n ON n.oid = d.dictnamespace
    WHERE NOT EXISTS (SELECT FROM members m
        WHERE m.classid = 'pg_ts_dict'::regclass AND m.objid = d.oid)
    UNION ALL
    SELECT 'language', quote_ident(l.lanname), '',
        CASE WHEN l.lanpltrusted THEN 'TRUSTED' ELSE '' END
    FROM pg_language l WHERE l.oid >= 16384 AND NOT EXISTS (SELECT FROM members m
        WHERE m.classid = 'pg_language'::regclass AND m.objid = l.oid)
    UNION ALL
    SELECT 'foreign server', quote_ident(s.srvname), '', w.fdwname
    FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
    UNION ALL
    SELECT 'event trigger', quote_ident(e.evtname), '', format('ON %s%s EXECUTE FUNCTION %s%s',
        e.evtevent, ' WHEN TAG IN (' || array_to_string(e.evttags, ', ') || ')',
        e.evtfoid::regproc, CASE e.evtenabled WHEN 'D' THEN ' DISABLED' ELSE '' END)
    FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
    JOIN spaces n ON n.oid = p.pronamespace
)
SELECT o.kind::text, o.name::text, o.parent::text, coalesce(c.alike, '')::text,
    coalesce(o.definition, '')::text
FROM objects o LEFT JOIN columns c ON o.kind = 'column' AND c.name = o.name
