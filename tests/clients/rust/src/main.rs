//! sqlx and tokio-postgres: types in text and binary, prepared statements, pools, transactions,
//! pipelines, cursors, COPY, notifications, errors, cancel.

mod sqlx_client;
mod tokio_client;

/// What a client's part does, or how it failed.
type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dsn = std::env::var("DSN").expect("DSN is the server's address");
    sqlx_client::run(&dsn).await;
    tokio_client::run(&dsn).await;
}

/// Prints how a part ended; what differs by nature is not in it.
fn report(outcome: Outcome) {
    let Err(error) = outcome else { return };
    if let Some(sqlx::Error::Database(error)) = error.downcast_ref() {
        println!("error {:?} {} {:?}", error.code(), error.message(), error.constraint());
    } else if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
        match error.as_db_error() {
            Some(db) => {
                println!("error {} {} {:?}", db.code().code(), db.message(), db.constraint())
            }
            None => println!("error {error}"),
        }
    } else {
        println!("error {error}");
    }
}
