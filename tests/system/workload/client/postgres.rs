//! PostgreSQL's protocol, as far as a transaction needs it.

use super::super::{Finish, Place};
use super::Connection;

const PORT: u16 = 5432;
/// Version 3.0 of the protocol.
const VERSION: u32 = 3 << 16;

/// A transaction that is open across the checkpoint commits after it.
pub fn postgres(place: &Place) -> Finish {
    let mut session = Session::open(place);
    session.ask("DROP TABLE IF EXISTS things");
    session.ask("CREATE TABLE things (number int)");
    session.ask("BEGIN");
    session.ask("INSERT INTO things SELECT * FROM generate_series(1, 1000)");
    let mut waiting = Session::open(place);
    // The table is the other's until it commits.
    waiting.send("BEGIN; LOCK TABLE things; INSERT INTO things VALUES (1001); COMMIT");
    let place = place.clone();
    Box::new(move || {
        session.ask("INSERT INTO things VALUES (0)");
        session.ask("COMMIT");
        waiting.wait();
        assert_eq!(session.ask("SELECT count(*) FROM things"), ["1002"]);
        assert_eq!(Session::open(&place).ask("SELECT sum(number) FROM things"), ["501501"]);
        session.ask("CHECKPOINT");
    })
}

struct Session(Connection);

impl Session {
    fn open(place: &Place) -> Session {
        // It listens before its start is complete, and refuses everybody until then.
        let opened =
            crate::harness::run::wait_for("PostgreSQL to serve", super::START_LIMIT, || {
                let mut session = Session(Connection::open(place.address, PORT));
                let words = "user\0postgres\0database\0postgres\0\0";
                let length = 8 + words.len() as u32;
                session.0.send(
                    [&length.to_be_bytes()[..], &VERSION.to_be_bytes(), words.as_bytes()].concat(),
                );
                session.results().ok().map(|_| session)
            });
        opened.unwrap_or_else(|e| panic!("{e}"))
    }

    /// The first column of each row.
    fn ask(&mut self, query: &str) -> Vec<String> {
        self.send(query);
        self.wait()
    }

    fn wait(&mut self) -> Vec<String> {
        self.results().unwrap_or_else(|e| panic!("{e}"))
    }

    fn send(&mut self, query: &str) {
        let length = 5 + query.len() as u32;
        self.0.send([b"Q", &length.to_be_bytes()[..], query.as_bytes(), b"\0"].concat());
    }

    /// All messages until it is ready for the next query.
    fn results(&mut self) -> Result<Vec<String>, String> {
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let head = self.0.bytes(5);
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
            let body = self.0.bytes(length);
            match head[0] {
                b'Z' => return error.map_or(Ok(rows), Err),
                // After that, a connection that is refused is closed.
                b'E' if body.starts_with(b"SFATAL") => {
                    return Err(String::from_utf8_lossy(&body).into_owned());
                }
                b'E' => error = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
                // Two bytes: the number of columns; four: the length of the first.
                b'D' => {
                    let length = u32::from_be_bytes([body[2], body[3], body[4], body[5]]) as usize;
                    rows.push(String::from_utf8_lossy(&body[6..6 + length]).into_owned());
                }
                _ => {}
            }
        }
    }
}
