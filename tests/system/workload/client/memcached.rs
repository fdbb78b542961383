//! memcached.

use super::super::{Finish, Place};
use super::Connection;

const PORT: u16 = 11211;

pub fn memcached(place: &Place) -> Finish {
    let mut connection = Connection::open(place.address, PORT);
    connection.expect("flush_all\r\nset key 7 0 5\r\nhello\r\n", &["OK", "STORED"]);
    connection.expect("set number 0 0 2\r\n41\r\n", &["STORED"]);
    // Half a command.
    connection.send("get key\r\nincr num");
    connection.expect("", &["VALUE key 7 5", "hello", "END"]);
    let place = place.clone();
    Box::new(move || {
        connection.expect("ber 1\r\n", &["42"]);
        connection.expect("get key\r\n", &["VALUE key 7 5", "hello", "END"]);
        Connection::open(place.address, PORT)
            .expect("get number\r\n", &["VALUE number 0 2", "42", "END"]);
    })
}
