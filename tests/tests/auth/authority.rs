//! A certificate authority of a test's own, and what it vouches for.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgherd::dev::LocalCluster;
use pgherd_tests::psql;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};

/// Signs certificates; its own is in a file.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) file: PathBuf,
}

/// A certificate and its key, in files.
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

impl Authority {
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let file = dir.join(format!("{name}.crt"));
        std::fs::write(&file, issuer.pem()).expect("it can be written");
        Self { issuer, file }
    }

    /// A certificate for `name` and for the hosts in `hosts`, in files of this `stem`.
    pub(crate) fn sign(&self, dir: &Path, stem: &str, name: &str, hosts: &[&str]) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        params.distinguished_name = named(name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair =
            Pair { cert: dir.join(format!("{stem}.crt")), key: dir.join(format!("{stem}.key")) };
        // As tools do it that renew certificates: the files are there whole or not at all.
        for (path, text) in [(&pair.cert, certificate.pem()), (&pair.key, key.serialize_pem())] {
            let fresh = path.with_extension("new");
            std::fs::write(&fresh, text).expect("it can be written");
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&fresh, private).expect("they can be set");
            std::fs::rename(&fresh, path).expect("it can be renamed");
        }
        pair
    }
}

/// Shards that speak TLS, with certificates for `localhost`, and ask clients for theirs.
pub(crate) fn encrypt_shards(cluster: &LocalCluster, authority: &Authority) {
    for shard in &cluster.file.shards {
        let dir = &shard.data_dir;
        authority.sign(dir, "server", "a shard", &["localhost"]);
        std::fs::copy(&authority.file, dir.join("root.crt")).expect("it can be copied");
        give_to_server(dir, &["server.crt", "server.key", "root.crt"]);
        for sql in [
            "ALTER SYSTEM SET ssl_ca_file = 'root.crt'",
            "ALTER SYSTEM SET ssl = on",
            "SELECT pg_reload_conf()",
        ] {
            psql(&shard.dsn, sql);
        }
        pgherd_tests::wait_until("the server to have TLS", || psql(&shard.dsn, "SHOW ssl") == "on");
    }
}

/// Files in a server's directory are the server's.
pub(crate) fn give_to_server(dir: &Path, files: &[&str]) {
    let owner = std::fs::metadata(dir).expect("a directory");
    for file in files {
        chown(dir.join(file), Some(owner.uid()), Some(owner.gid())).expect("it is ours");
    }
}

/// Whose certificate a server shows, as openssl prints it.
pub(crate) fn subject(address: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-starttls", "postgres", "-connect", address])
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let subject = text.lines().find(|line| line.starts_with("subject="));
    subject.unwrap_or_default().to_owned()
}
