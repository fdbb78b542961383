//! A program that checks itself when it is asked: `check`, then `ok PID …` or `wrong: …`.

use super::super::{Finish, Place};
use super::Connection;

/// Asked once before; afterwards, twice on the same connection and once on a new one, it is the
/// same process.
pub fn checks_itself(place: &Place) -> Finish {
    goes_on(Connection::open(place.address, place.port), place.clone())
}

/// The same over IPv6.
pub fn checks_itself_over_ipv6(place: &Place) -> Finish {
    goes_on(Connection::open_at((place.address6, place.port).into()), place.clone())
}

fn goes_on(mut connection: Connection, place: Place) -> Finish {
    let pid = check(&mut connection);
    Box::new(move || {
        for _ in 0..2 {
            assert_eq!(check(&mut connection), pid, "it is another process");
        }
        // It serves one after the other.
        drop(connection);
        assert_eq!(
            check(&mut Connection::open(place.address, place.port)),
            pid,
            "it is another process"
        );
    })
}

/// Its pid.
pub fn check(connection: &mut Connection) -> String {
    connection.send("check\n");
    let line = connection.line();
    let told = line.strip_prefix("ok ").unwrap_or_else(|| panic!("{line}"));
    told.split(' ').next().unwrap_or_default().to_owned()
}
