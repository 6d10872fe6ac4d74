//! What the file may say, what it means, and what is refused.

use super::*;

const LEAST: &str = "catalog = 'postgres://postgres@127.0.0.1:5432/app'\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, |_| None)
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("the text is wrong").to_string()
}

#[test]
fn the_catalog_alone_is_a_whole_configuration() {
    let config = parse(LEAST).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:6432");
    assert_eq!(config.http, None);
    assert_eq!(config.database, "app");
    assert!(config.workers >= 1);
    assert_eq!(config.max_clients, 10_000);
    assert!(config.router_name.ends_with("-6432"), "{}", config.router_name);
    assert_eq!(config.pool, PoolConfig::default());
    assert_eq!(config.auth, AuthConfig::default());
    assert_eq!(config.shard_tls, ServerTls::default());
    assert_eq!(config.log.slow_statement, Some(Duration::from_secs(1)));
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        listen = "0.0.0.0:7000"
        http = "localhost:7001"
        catalog = "postgres://postgres:secret@db/app"
        database = "shop"
        workers = 3
        max_clients = 5
        reuse_port = true
        shutdown_timeout = "1m"
        router_name = "a.b_c-1"
        [pool]
        size = 7
        min_size = 2
        warm_users = ["app"]
        wait = "250ms"
        pause_wait = "1h"
        max_waiting = 9
        max_lifetime = "0"
        idle_timeout = "10m"
        connect_timeout = "2s"
        [auth]
        method = "trust"
        max_failures = 3
        failure_window = "5s"
        [shard_tls]
        sslmode = "verify-full"
        sslrootcert = "/etc/ca.crt"
        [sharding]
        auto_distribute = ["tenant_id"]
        [log]
        format = "json"
        level = "debug"
        slow_statement = "0"
        "#,
    )
    .unwrap();
    assert_eq!(config.listen.port(), 7000);
    assert_eq!(config.http.map(|http| http.port()), Some(7001));
    assert_eq!((config.database.as_str(), config.workers, config.max_clients), ("shop", 3, 5));
    assert_eq!(config.pool.wait, Duration::from_millis(250));
    assert_eq!(config.pool.idle_timeout, Duration::from_secs(600));
    assert_eq!((config.pool.size, config.pool.max_waiting), (7, 9));
    assert_eq!(config.auth.method, Some(AuthMethod::Trust));
    assert_eq!(config.auth.max_failures, 3);
    assert_eq!(config.auth.failure_window, Duration::from_secs(5));
    assert_eq!(config.shard_tls.sslmode, SslMode::VerifyFull);
    assert_eq!(config.shard_tls.sslrootcert, Some("/etc/ca.crt".into()));
    assert_eq!((config.pool.min_size, config.pool.max_lifetime), (2, None));
    assert_eq!(config.pool.warm_users, ["app"]);
    assert_eq!(config.pool.pause_wait, Duration::from_secs(3600));
    assert!(config.reuse_port);
    assert_eq!(config.shutdown_timeout, Duration::from_secs(60));
    assert_eq!(config.sharding.auto_distribute, ["tenant_id"]);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.slow_statement, None);
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = format!("{LEAST}[pool]\nsize = 7\nwait = '1s'\n");
    let config = Config::parse(&text, |variable| match variable {
        "PGHERD_POOL_SIZE" => Some("8".into()),
        "PGHERD_SHARDING_AUTO_DISTRIBUTE" => Some("tenant_id, org_id".into()),
        "PGHERD_LISTEN" => Some("127.0.0.1:1".into()),
        _ => None,
    })
    .unwrap();
    assert_eq!(config.pool.size, 8);
    assert_eq!(config.pool.wait, Duration::from_secs(1));
    assert_eq!(config.sharding.auto_distribute, ["tenant_id", "org_id"]);
    assert_eq!(config.listen.port(), 1);
}

#[test]
fn the_environment_may_give_what_the_file_must() {
    let config = Config::parse("", |variable| {
        (variable == "PGHERD_CATALOG").then(|| "postgres://u@h/d".into())
    });
    assert_eq!(config.unwrap().database, "d");
}

#[test]
fn what_is_wrong_is_named() {
    assert!(refusal("").contains("catalog"));
    assert!(refusal(&format!("{LEAST}lisen = 'x'")).contains("lisen"));
    assert!(refusal(&format!("{LEAST}[pool]\nsizes = 1")).contains("sizes"));
    assert!(refusal(&format!("{LEAST}[pool]\nsize = 0")).contains("pool.size"));
    assert!(refusal(&format!("{LEAST}[pool]\nwait = '5'")).contains("no unit"));
    assert!(refusal(&format!("{LEAST}[pool]\nwait = '5 fortnights'")).contains("fortnights"));
    assert!(refusal(&format!("{LEAST}router_name = \"it's\"")).contains("router_name"));
    assert!(refusal(&format!("{LEAST}http = '127.0.0.1:6432'")).contains("clients connect"));
    assert!(refusal(&format!("{LEAST}[tls]\ncert='/no'\nkey='/no'")).contains("tls.cert"));
    assert!(refusal("catalog = 'mysql://x'").contains("postgres://"));
    assert!(refusal("catalog = 'postgres://h/d?sslmode=allow'").contains("sslmode=allow"));
    assert!(refusal(&format!("{LEAST}[shard_tls]\nsslmode='verify-ca'")).contains("sslrootcert"));
    assert!(refusal(&format!("{LEAST}[shard_tls]\nsslkey='/k'")).contains("shard_tls.sslcert"));
    assert!(refusal(&format!("{LEAST}[auth]\nmethod='cert'")).contains("client_ca"));
    let number = Config::parse(LEAST, |v| (v == "PGHERD_WORKERS").then(|| "many".into()));
    assert!(number.unwrap_err().to_string().contains("PGHERD_WORKERS"));
}

#[test]
fn a_password_is_never_printed() {
    for url in [
        "postgres://u:se:c@ret@h:1/d",
        "postgres://u@h/d?sslmode=prefer&password=secret",
        "postgres://u:secret@h?dbname=d",
    ] {
        let shown = format!("{0} {0:?}", Dsn::try_new(url).unwrap());
        assert!(!shown.contains("ret") && shown.contains("u@h"), "{shown}");
    }
}

#[test]
fn an_address_names_no_user() {
    for (url, address) in [
        ("postgres://u:p@x@h:1/d?sslmode=prefer", "postgres://h:1/d?sslmode=prefer"),
        ("postgres://h/d", "postgres://h/d"),
    ] {
        assert_eq!(Dsn::try_new(url).unwrap().address(), address);
    }
}

/// A key without a variable, or a variable without a key, fails here.
#[test]
fn keys_and_fields_agree() {
    for key in KEYS {
        let value = match key.kind {
            KeyKind::Text => "'127.0.0.1:1'".to_owned(),
            KeyKind::Number => "1".to_owned(),
            KeyKind::Flag => "true".to_owned(),
            KeyKind::List => "[]".to_owned(),
        };
        let text = match key.path.split_once('.') {
            Some((section, name)) => format!("[{section}]\n{name} = {value}"),
            None => format!("{} = {value}", key.path),
        };
        let error = parse(&text).map_or_else(|error| error.to_string(), |_| String::new());
        assert!(!error.contains("unknown field"), "{}: {error}", key.path);
    }
    let unknown = refusal("nonsense = 1");
    let fields = unknown.split('`').skip(3).step_by(2);
    for field in fields {
        let known = KEYS.iter().any(|key| key.path.split('.').next() == Some(field));
        assert!(known, "{field} is a field without a variable");
    }
}

#[test]
fn every_key_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    for key in KEYS {
        let name = format!("`{}`", key.path);
        assert!(text.contains(&name), "docs/configuration.md does not name {name}");
    }
}

#[test]
fn a_table_says_who_logs_in_how() {
    let config = parse(&format!(
        "{LEAST}[[auth.hba]]\ntype = 'local'\nmethod = 'trust'\n\
         [[auth.hba]]\ntype = 'hostssl'\ndatabase = 'app'\nuser = ['a', 'b']\n\
         address = '10.0.0.0/8'\nmethod = 'md5'\n"
    ))
    .unwrap();
    let [first, second] = &*config.auth.hba else { panic!("{:?}", config.auth.hba) };
    assert_eq!((first.kind, first.method), (HbaType::Local, AuthMethod::Trust));
    assert_eq!((&first.user, &first.address), (&Names(None), &None));
    assert_eq!((second.kind, second.method), (HbaType::HostSsl, AuthMethod::Md5));
    assert!(second.user.include("b") && !second.user.include("c"));
    assert_eq!(second.address, Some(vec!["10.0.0.0/8".parse().unwrap()]));
}

#[test]
fn a_table_that_cannot_work_is_refused() {
    for (entry, problem) in [
        ("type = 'host'\nmethod = 'cert'", "hostssl"),
        ("type = 'hostssl'\nmethod = 'cert'", "client_ca"),
        ("type = 'local'\naddress = '::1'\nmethod = 'trust'", "no address"),
        ("type = 'host'\naddress = 'db.internal'\nmethod = 'trust'", "db.internal"),
        ("type = 'host'\nuser = '+admins'\nmethod = 'trust'", "+admins"),
        ("type = 'host'\nuser = []\nmethod = 'trust'", "empty list"),
        ("type = 'host'\nmethod = 'peer'", "peer"),
        ("type = 'host'", "method"),
        ("type = 'host'\nmethod = 'trust'\nmap = 'x'", "map"),
    ] {
        let error = refusal(&format!("{LEAST}[[auth.hba]]\n{entry}\n"));
        assert!(error.contains(problem), "{entry}: {error}");
    }
    let both =
        format!("{LEAST}[auth]\nmethod = 'trust'\n[[auth.hba]]\ntype = 'host'\nmethod = 'md5'");
    assert!(refusal(&both).contains("auth.method"));
}

#[test]
fn values_are_shown_as_they_are_written() {
    let config = parse(&format!("{LEAST}[pool]\nwait = '1500ms'\nmax_lifetime = '0'\n")).unwrap();
    let values: std::collections::BTreeMap<_, _> =
        config.values().into_iter().map(|(key, value)| (key.path, value)).collect();
    assert_eq!(values["pool.wait"].as_deref(), Some("1500ms"));
    assert_eq!(values["pool.max_lifetime"].as_deref(), Some("0"));
    assert_eq!(values["max_message_size"].as_deref(), Some("1GB"));
    assert_eq!(values["query.borrow_max"].as_deref(), Some("4GB"));
    assert_eq!(values["unix_socket_permissions"].as_deref(), Some("0777"));
    assert_eq!(values["shutdown_timeout"].as_deref(), Some("30s"));
    assert_eq!(values["listen"].as_deref(), Some("127.0.0.1:6432"));
    assert_eq!(values["http"], None);
    let secret = parse("catalog = 'postgres://postgres:sesame@h/app'").unwrap();
    assert!(!format!("{:?}", secret.values()).contains("sesame"));
}

#[test]
fn the_console_has_its_name_for_itself() {
    let problem = refusal("catalog = 'postgres://postgres@h/pgherd'");
    assert!(problem.contains("database") && problem.contains("console"), "{problem}");
}

#[test]
fn more_warm_connections_than_there_may_be_are_refused() {
    let problem = refusal(&format!("{LEAST}[pool]\nsize = 2\nmin_size = 3\n"));
    assert!(problem.contains("pool.min_size"), "{problem}");
}
