//! `nftables-NETNS.img`: the rules of a network namespace as nft(8) lists them; plain text.

use super::{Error, Shown};

/// Shows CRIU the rules without these tables: each its family and its name.
pub(crate) fn without_tables(
    images: &mut Shown,
    netns: u32,
    tables: &[(String, String)],
) -> Result<(), Error> {
    let name = format!("nftables-{netns}.img");
    match images.change(&name, |_, bytes| Ok(without(bytes, tables))) {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

/// A table begins with `table FAMILY NAME {` and ends with the next line that is `}`.
fn without(text: &[u8], tables: &[(String, String)]) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut within = false;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let begins = tables.iter().any(|(family, name)| {
            line.trim_ascii_end() == format!("table {family} {name} {{").as_bytes()
        });
        within |= begins;
        if !within {
            kept.extend(line);
        }
        if within && line.trim_ascii_end() == b"}" {
            within = false;
        }
    }
    // A NUL may end the text, and CRIU takes a file with anything in it for rules.
    let is_empty = kept.iter().all(|byte: &u8| byte.is_ascii_whitespace() || *byte == 0);
    if is_empty { Vec::new() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &[u8] =
        b"table ip filter {\n\tchain INPUT {\n\t\txt match \"x\"\n\t}\n}\ntable ip mine {\n}\n";

    #[test]
    fn a_table_is_left_out_as_a_whole() {
        let table = |name: &str| ("ip".to_owned(), name.to_owned());
        assert_eq!(without(RULES, &[table("filter")]), b"table ip mine {\n}\n");
        assert_eq!(without(RULES, &[table("filter"), table("mine")]), b"");
        assert_eq!(without(RULES, &[("ip6".to_owned(), "filter".to_owned())]), RULES);
    }
}
