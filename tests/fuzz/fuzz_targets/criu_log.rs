//! Any bytes as CRIU's log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lxc_cr::api::criu::log::{Operation, phase_of_line, summarise};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    for operation in [Operation::Dump, Operation::Restore] {
        let summary = summarise(&text, operation);
        let _ = (summary.class.explain(), summary.shown_error().map(ToString::to_string));
    }
    text.lines().for_each(|line| {
        let _ = phase_of_line(line);
    });
});
