//! What the router makes of other encodings is what PostgreSQL makes of them.

use pgherd::wire::encoding;
use pgherd_tests::{cluster, run};

#[test]
fn every_byte_is_the_servers_character() {
    let cluster = cluster();
    let home = &cluster.file.shards[0].dsn;
    // NULL for a byte without a character: each is tried by itself.
    run(
        home,
        "CREATE FUNCTION converted(byte int, encoding name) RETURNS bytea LANGUAGE plpgsql AS $$ \
         BEGIN RETURN convert(set_byte('\\x00', 0, byte), encoding, 'UTF8'); \
         EXCEPTION WHEN untranslatable_character OR character_not_in_repertoire THEN RETURN NULL; \
         END $$",
    );
    let mut compared = 0;
    for encoding in encoding::all() {
        let sql = format!(
            "SELECT string_agg(coalesce(encode(converted(byte, '{}'), 'hex'), '-'), ' ' \
             ORDER BY byte) FROM generate_series(128, 255) byte",
            encoding.name
        );
        let here: Vec<String> = (0x80..=0xff)
            .map(|byte| match encoding.decode(&[byte]) {
                Ok(text) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
                Err(_) => "-".to_owned(),
            })
            .collect();
        assert_eq!(here.join(" "), run(home, &sql), "{}", encoding.name);
        compared += 1;
    }
    assert_eq!(compared, 27, "PostgreSQL has so many of one byte a character");
}
