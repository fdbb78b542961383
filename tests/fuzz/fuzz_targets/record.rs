//! Any bytes as a record: what is read must be safe to act upon, and be read the same after it was
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lxc_cr::api::store::record::Record;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(record) = Record::parse(text) else { return };
    assert!(record.images.iter().all(|i| !i.name.contains('/') && i.name != ".."));
    let dir = tempfile_dir();
    if record.write(&dir).is_ok() {
        assert_eq!(Record::read(&dir).ok().flatten(), Some(record));
    }
});

/// One directory for all runs of a process.
fn tempfile_dir() -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("lxc-cr-fuzz-{}", std::process::id()));
    let _ = std::fs::create_dir(&dir);
    dir
}
