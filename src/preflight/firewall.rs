//! Rules of iptables-nft with extensions that no tool can restore.

use std::os::fd::BorrowedFd;

use super::Names;
use super::finding::Finding;
use crate::lxc::shell;
use crate::resources::network::iptables::{self, Unsaved};

/// Saves a container's tables as a checkpoint does, and restores them where nobody sees it.
///
/// # Errors
/// Why a restore would fail.
pub(crate) fn try_out(netns: BorrowedFd<'_>) -> Result<(), Unsaved> {
    let saved = iptables::save(netns)?;
    iptables::try_out(&saved).map_err(Unsaved::Refused)
}

/// Judges that; pure.
pub(crate) fn judge(tried: &Result<(), Unsaved>, names: &Names) -> Option<Finding> {
    let unsaved = tried.as_ref().err()?;
    let why = "a restore would fail, for nft(8) cannot read what it says of such extensions";
    let finding = match unsaved {
        Unsaved::NoTool(tool) => Finding::blocker(
            format!(
                "rules of iptables inside have extensions, and {tool} is not installed on the host"
            ),
            why,
        )
        .remedy("apt install iptables"),
        Unsaved::Unknown((family, table)) => {
            let what = "have nft alone make these rules, or delete the table for the time of the \
                        checkpoint";
            let command = match shell::is_plain(table) {
                true => format!(
                    "{what}: {}",
                    names.attach(&format!("nft delete table {family} {table}"))
                ),
                false => what.to_owned(),
            };
            Finding::blocker(
                format!(
                    "the table {table} ({family}) of nftables has rules with extensions of iptables"
                ),
                "no tool can save them as they are, and a restore would fail",
            )
            .remedy(command)
        }
        Unsaved::Refused(e) => Finding::blocker(
            format!("rules of iptables inside cannot be restored ({e:#})"),
            why,
        )
        .remedy(format!(
            "update iptables on the host, or take the rule out for the time of the checkpoint: {}",
            names.attach("iptables -S")
        )),
    };
    Some(finding.on_restore())
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Fails, Severity};
    use super::*;

    #[test]
    fn what_cannot_be_saved_is_never_ended() {
        let names = Names::test();
        assert!(judge(&Ok(()), &names).is_none());
        let table = ("bridge".to_owned(), "filter".to_owned());
        for unsaved in [Unsaved::NoTool("iptables-nft-save"), Unsaved::Unknown(table)] {
            let found = judge(&Err(unsaved), &names).unwrap();
            assert_eq!((found.severity, found.fails), (Severity::Blocker, Fails::Restore));
            assert!(!found.remedy.is_empty());
        }
    }
}
