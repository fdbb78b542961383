//! Any bytes as a container's configuration: reading it, asking it and printing it must neither
//! panic nor hang.
#![no_main]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use lxc_cr::api::lxc::config::{Config, ConfigError, items};
use lxc_cr::api::lxc::config::system::SystemConfig;

fuzz_target!(|text: &[u8]| {
    let file: Arc<Path> = Arc::from(Path::new("/fuzz"));
    // Included files would make a run depend on this machine.
    let includes = items(&file, text).flatten().any(|item| item.key == "lxc.include" && !item.value.is_empty());
    for item in items(&file, text).flatten() {
        let line = item.to_line();
        let again = items(&file, line.as_bytes()).next();
        assert!(again.is_some_and(|i| i.is_ok_and(|i| i.value == item.value)) || item.written.is_empty());
    }
    SystemConfig::parse(text);
    if includes {
        return;
    }
    match Config::parse(&file, text) {
        Ok(config) => {
            for item in config.items() {
                config.item(&item.written);
                config.item(&item.key);
            }
            config.rootfs();
            config.environment();
        }
        Err(ConfigError::Parse(e)) => {
            e.render();
        }
        Err(ConfigError::Read { .. } | ConfigError::TooLarge { .. }) => {}
    }
});
