//! Routes, as the kernel describes them.

use rtnetlink::packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL, Parseable};
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Error, Netlink};

/// RT_TABLE_MAIN.
const MAIN: u32 = 254;
/// RT_TABLE_LOCAL: the kernel fills it from the addresses.
const LOCAL: u32 = 255;

/// A route: an `rtmsg` with its attributes (linux/rtnetlink.h), in a file as hexadecimal digits. It
/// names its interface by the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route(RouteMessage);

impl Netlink {
    /// The routes of the tables that policy rules lead to: all but `main`, which CRIU keeps (`ip
    /// route save`), and `local`. Those by nexthop objects and those that end cannot be given back
    /// to the kernel as it describes them.
    pub fn policy_routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            for answer in self.dump(RouteNetlinkMessage::GetRoute(query))? {
                if let RouteNetlinkMessage::NewRoute(message) = answer
                    && !message.header.flags.contains(RouteFlags::Cloned)
                    && ![MAIN, LOCAL].contains(&table_of(&message))
                    && !needs_more(&message)
                {
                    found.push(Route(message));
                }
            }
        }
        Ok(found)
    }

    /// Adds a route; fine if it is there.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let mut message = route.0.clone();
        // The others tell a state, and the kernel refuses them here (net/ipv4/fib_frontend.c,
        // rtm_to_fib_config).
        message.header.flags &= RouteFlags::Onlink;
        match self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL) {
            Err(Error::Exists) => Ok(()),
            other => other,
        }
    }
}

fn needs_more(message: &RouteMessage) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::NhId(_) => true,
        RouteAttribute::CacheInfo(info) => info.expires != 0,
        _ => false,
    })
}

fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or(message.header.table.into())
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = vec![0; self.0.buffer_len()];
        self.0.emit(&mut bytes);
        serializer.collect_str(&bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Route, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        let bytes = bytes
            .ok_or_else(|| D::Error::custom("a route is not written in hexadecimal digits"))?;
        RouteMessage::parse(bytes.as_slice())
            .map(Route)
            .map_err(|e| D::Error::custom(format!("a route: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Kept {
        routes: Vec<Route>,
    }

    #[test]
    fn a_route_is_kept_as_text() {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 24;
        message.attributes = vec![RouteAttribute::Table(4711), RouteAttribute::Oif(2)];
        let kept = Kept { routes: vec![Route(message)] };
        let text = toml::to_string(&kept).unwrap();
        assert_eq!(
            text,
            "routes = [\"02180000000000000000000008000f00671200000800040002000000\"]\n"
        );
        assert_eq!(toml::from_str::<Kept>(&text).unwrap(), kept);
        for wrong in ["0g", "021", "02", "ä"] {
            assert!(toml::from_str::<Kept>(&format!("routes = [\"{wrong}\"]")).is_err(), "{wrong}");
        }
    }
}
