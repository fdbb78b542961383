//! Redis: a transaction that is open, somebody who waits for a list, a subscriber.

use super::super::{Finish, Place};
use super::Connection;

const PORT: u16 = 6379;

pub fn redis(place: &Place) -> Finish {
    let open = || Connection::open(place.address, PORT);
    let (mut transaction, mut waiting, mut subscribed, mut other) =
        (open(), open(), open(), open());
    other.expect("FLUSHALL\r\nSET kept data\r\n", &["+OK", "+OK"]);
    transaction.expect("MULTI\r\nINCR counter\r\nINCR counter\r\n", &["+OK", "+QUEUED", "+QUEUED"]);
    waiting.send("BLPOP list 0\r\n");
    subscribed.expect("SUBSCRIBE news\r\n", &["*3", "$9", "subscribe", "$4", "news", ":1"]);
    // Until Redis knows of it: there is no answer yet.
    crate::harness::run::wait_for("somebody to wait", super::ANSWER_LIMIT, || {
        other.send("INFO clients\r\n");
        let length: usize = other.line().trim_start_matches('$').parse().unwrap();
        let told = String::from_utf8(other.bytes(length + 2)).unwrap();
        told.contains("blocked_clients:1").then_some(())
    })
    .unwrap();
    Box::new(move || {
        transaction.expect("EXEC\r\n", &["*2", ":1", ":2"]);
        other.expect("GET kept\r\nGET counter\r\n", &["$4", "data", "$1", "2"]);
        other.expect("RPUSH list word\r\n", &[":1"]);
        waiting.expect("", &["*2", "$4", "list", "$4", "word"]);
        other.expect("PUBLISH news fresh\r\n", &[":1"]);
        subscribed.expect("", &["*3", "$7", "message", "$4", "news", "$5", "fresh"]);
        // It forks for that.
        other.expect("SAVE\r\nBGSAVE\r\n", &["+OK", "+Background saving started"]);
    })
}
