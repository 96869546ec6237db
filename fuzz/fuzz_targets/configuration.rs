//! Standard input of every verb of every plugin, up to where the kernel or the disk would be asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumb::plugins::ALL;
use plumb_fuzz::{VERBS, check_error, environment, read, request};

fuzz_target!(|stdin: &[u8]| {
    for verb in VERBS {
        let Some(request) = request(environment(verb), stdin) else { return };
        for plugin in ALL {
            if let Err(error) = read(plugin, &request) {
                check_error(&error);
            }
        }
    }
});
