//! `stats-dump` and `stats-restore`: how long CRIU took, and how much memory it moved.
//!
//! CRIU writes them into its work directory, and only when it succeeded.

use std::path::Path;

use prost::Message;

use super::{Error, Head, decode, read_one};

const STATS_MAGIC: u32 = 0x5709_3306;

#[derive(Clone, PartialEq, Message)]
struct StatsEntry {
    #[prost(message, optional, tag = "1")]
    dump: Option<DumpStats>,
}

/// What a dump (or pre-dump) took; times in microseconds, memory in pages.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DumpStats {
    /// To freeze the processes.
    #[prost(uint32, required, tag = "1")]
    pub freezing_time: u32,
    /// How long they were frozen.
    #[prost(uint32, required, tag = "2")]
    pub frozen_time: u32,
    /// To collect the memory.
    #[prost(uint32, required, tag = "3")]
    pub memdump_time: u32,
    /// To write the memory.
    #[prost(uint32, required, tag = "4")]
    pub memwrite_time: u32,
    /// Looked at.
    #[prost(uint64, required, tag = "5")]
    pub pages_scanned: u64,
    /// Unchanged since the previous dump.
    #[prost(uint64, required, tag = "6")]
    pub pages_skipped_parent: u64,
    /// Written.
    #[prost(uint64, required, tag = "7")]
    pub pages_written: u64,
    /// To find the paths of watched inodes.
    #[prost(uint32, optional, tag = "8")]
    pub irmap_resolve: Option<u32>,
    /// Left for later (`--lazy-pages`).
    #[prost(uint64, required, tag = "9")]
    pub pages_lazy: u64,
    /// Shared memory: looked at.
    #[prost(uint64, optional, tag = "12")]
    pub shpages_scanned: Option<u64>,
    /// Shared memory: unchanged since the previous dump.
    #[prost(uint64, optional, tag = "13")]
    pub shpages_skipped_parent: Option<u64>,
    /// Shared memory: written.
    #[prost(uint64, optional, tag = "14")]
    pub shpages_written: Option<u64>,
}

impl DumpStats {
    /// Reads `stats-dump` of a work directory.
    ///
    /// # Errors
    /// See [`Error`]; `Truncated` when the file holds the statistics of a restore.
    pub(crate) fn read(dir: &Path) -> Result<DumpStats, Error> {
        let path = dir.join("stats-dump");
        let entry: StatsEntry = read_one(&path, Head::Service(STATS_MAGIC))?;
        entry.dump.ok_or(Error::Truncated { path, size: 0 })
    }
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    let _ = decode::<StatsEntry>(path, bytes, Head::Service(STATS_MAGIC));
}

#[cfg(test)]
mod tests {
    use super::super::tests::real;
    use super::*;

    #[test]
    fn reads_real_statistics() {
        let dump = DumpStats::read(&real()).unwrap();
        // 118784 + 118784 + 122880 bytes stand in the pages-*.img of this dump.
        assert_eq!(dump.pages_written * 4096, 118_784 + 118_784 + 122_880);
        assert!(
            dump.frozen_time > 0
                && dump.memdump_time > 0
                && dump.pages_scanned > dump.pages_written
        );
    }
}
