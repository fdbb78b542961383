//! Any bytes as each of the images that are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lxc_cr::api::criu::images::decode_anything(data));
